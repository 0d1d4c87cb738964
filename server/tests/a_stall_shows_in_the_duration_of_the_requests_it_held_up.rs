//! `http_request_duration` has the truth about a handler that stalls, though the loop reads its clock once a turn.

mod support;

use std::thread::sleep;
use std::time::{Duration, Instant};

use server::answer::{Answer, Output, Pulled, StreamSource};
use server::http::{Request, Response};
use support::{Serve, Server, Setup, get, until};

const STALL: Duration = Duration::from_millis(30);

/// Stalls in the turn that ends its response, which is not the one that began it.
struct StallsAtTheEnd {
    pulls: u32,
}

impl StreamSource for StallsAtTheEnd {
    fn pull(&mut self, _output: &mut Output<'_>, now: Instant) -> Pulled {
        self.pulls += 1;
        if self.pulls == 1 {
            return Pulled::At(now);
        }
        sleep(STALL);
        Pulled::End
    }
}

#[test]
fn a_stall_shows_in_the_duration_of_the_requests_it_held_up() {
    let service = |request: &Request<'_>, _| match request.path {
        "/stall" => {
            sleep(STALL);
            Answer::Now(Response::text("at last"))
        }
        "/stream" => Answer::Stream { head: Response::bytes("").into_stream(None), source: Box::new(StallsAtTheEnd { pulls: 0 }) },
        _ => Answer::Now(Response::text("fine")),
    };
    // One request alone; one and who waits behind it; one that stalls in a later turn.
    for requests in [get("/stall"), get("/stall") + &get("/"), get("/stream")] {
        let server = Server::start(Serve(service), Setup::default());
        let mut client = server.connect();
        client.send(&requests);
        let count = requests.matches("GET").count() as u64;
        (0..count).for_each(|_| drop(client.response()));
        until("they are counted", || server.http.duration.snapshot().count() == count);
        let sum = server.http.duration.snapshot().sum;
        assert!(sum >= STALL * count as u32, "{sum:?} for {count} requests that waited for {STALL:?}");
    }
}
