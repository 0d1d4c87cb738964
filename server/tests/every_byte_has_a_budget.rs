//! Bodies, job outputs and waiting responses are charged to a budget. What exceeds it is answered 503 with Retry-After, and everything that was
//! charged comes back, whatever happens to the exchange.

mod support;

use std::io::Read;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use server::answer::{Answer, Work};
use server::http::{Request, Response};
use server::service::Service;
use support::{Client, Gate, Server, Setup, get, until};

const KIB: usize = 1 << 10;
const BODIES_BYTES_MAX: usize = 256 * KIB;
const RESPONSES_BYTES_MAX: usize = 1024 * KIB;
/// Far more than the sockets and the loop's buffers take of a response.
const LARGE_BYTES: usize = 512 * KIB;

/// `/hold`: the length of the body, from a job that waits for the gate. `/large`: an answer of [`LARGE_BYTES`]. `/make`: the same from a job. `/panic`: a
/// job that has the body and panics. `/later`: an answer of the same size in an hour. `/soon`: in 10 ms.
struct Held(Gate);

impl Service for Held {
    fn call(&mut self, request: &Request<'_>, now: Instant) -> Answer {
        let large = || Response::bytes(vec![b'x'; LARGE_BYTES]);
        let gate = self.0.clone();
        match request.path {
            "/hold" => Answer::body(usize::MAX, move |body| {
                Answer::Job(Work::fast(move |_| {
                    gate.pass();
                    Response::text(body.len().to_string()).into()
                }))
            }),
            "/panic" => Answer::body(usize::MAX, |body| Answer::Job(Work::fast(move |_| panic!("with {} bytes", body.len())))),
            "/large" => large().into(),
            "/make" => Answer::job(move |_| large()),
            "/later" => Answer::At(now + Duration::from_secs(3600), large()),
            "/soon" => Answer::At(now + Duration::from_millis(10), large()),
            _ => Response::text("ok\n").into(),
        }
    }
}

fn start(gate: &Gate) -> Server {
    let mut setup = Setup::default();
    setup.http.memory.bodies_bytes_max = BODIES_BYTES_MAX as u64;
    setup.http.memory.responses_bytes_max = RESPONSES_BYTES_MAX as u64;
    setup.pool.threads = 8;
    Server::start(Held(gate.clone()), setup)
}

fn upload(server: &Server, bytes: usize) -> Client {
    let mut client = server.connect();
    client.send(format!("POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: {bytes}\r\n\r\n"));
    client.send(vec![b'x'; bytes]);
    client
}

fn is_503_with_a_time(response: &support::Response) {
    assert_eq!(response.status, 503, "{response:?}");
    assert!(response.header("Retry-After").is_some_and(|seconds| seconds.parse::<u32>().is_ok_and(|seconds| seconds >= 1)), "{response:?}");
}

fn serves(server: &Server) {
    let mut client = server.connect();
    client.send(get("/"));
    assert_eq!(client.response().status, 200);
}

#[test]
fn bodies_in_jobs_fill_the_budget_and_the_next_body_is_refused_before_it_is_sent() {
    let gate = Gate::default();
    let server = start(&gate);
    let mut uploads: Vec<Client> = (0..4).map(|_| upload(&server, BODIES_BYTES_MAX / 4)).collect();
    until("all bodies are in jobs", || gate.held() == 4);
    assert_eq!(server.ledger.bodies.held_bytes(), BODIES_BYTES_MAX as u64, "a body of known length takes no more than that");
    let mut refused = server.connect();
    refused.send("POST /hold HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n");
    is_503_with_a_time(&refused.response());
    serves(&server);
    assert_eq!((server.http.memory_refusals.get(), server.ledger.bodies.refusals()), (1, 1));
    gate.open();
    for client in &mut uploads {
        assert_eq!(client.response().text(), (BODIES_BYTES_MAX / 4).to_string());
    }
    until("the jobs have given their bodies back", || server.ledger.bodies.held_bytes() == 0);
    assert_eq!(upload(&server, BODIES_BYTES_MAX).response().status, 200, "all of it is there again");
    drop((uploads, refused));
    server.is_at_rest();
}

#[test]
fn a_body_of_unknown_length_is_refused_when_it_outgrows_the_budget() {
    let gate = Gate::default();
    let server = start(&gate);
    let mut client = server.connect();
    client.send("POST /hold HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..5 {
        client.send(format!("{:x}\r\n", 64 * KIB));
        client.send(vec![b'x'; 64 * KIB]);
        client.send("\r\n");
    }
    is_503_with_a_time(&client.response());
    assert!(server.ledger.bodies.held_bytes_peak() <= BODIES_BYTES_MAX as u64);
    drop(client);
    server.is_at_rest();
}

#[test]
fn a_promise_takes_no_memory() {
    let gate = Gate::default();
    let server = start(&gate);
    // Ten times the budget is announced, and a byte each is sent.
    let promises: Vec<Client> = (0..10)
        .map(|_| {
            let mut client = server.connect();
            client.send(format!("POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: {BODIES_BYTES_MAX}\r\n\r\nx"));
            client
        })
        .collect();
    until("all have begun", || server.http.in_flight.get() + server.http.memory_refusals.get() >= 10);
    gate.open();
    assert_eq!(upload(&server, BODIES_BYTES_MAX / 2).response().status, 200);
    drop(promises);
    server.is_at_rest();
}

#[test]
fn responses_that_nobody_reads_fill_their_budget_and_small_answers_need_none_of_it() {
    for path in ["/large", "/make"] {
        let server = start(&Gate::default());
        let fit = RESPONSES_BYTES_MAX / LARGE_BYTES;
        let mut clients: Vec<Client> = Vec::new();
        for n in 1..=fit {
            let mut client = server.connect();
            // The second answer waits behind the first, of which the sockets and the loop take a part.
            client.send(get(path).repeat(8));
            clients.push(client);
            until("it waits", || server.ledger.responses.held_bytes() == (n * LARGE_BYTES) as u64);
        }
        let mut refused = server.connect();
        refused.send(get(path));
        let response = refused.response();
        // A client that reads gets its answer if nothing has to be kept, which the kernel decides.
        if response.status != 200 {
            is_503_with_a_time(&response);
        }
        serves(&server);
        assert!(server.ledger.responses.held_bytes_peak() <= RESPONSES_BYTES_MAX as u64);
        // A client that reads gets every answer, whole or 503.
        let first = &mut clients[0];
        for _ in 0..8 {
            let response = first.response();
            assert!(response.body.len() == LARGE_BYTES || response.status == 503, "{}", response.head);
        }
        drop((clients, refused));
        server.is_at_rest();
    }
}

#[test]
fn an_answer_that_waits_for_its_time_is_charged() {
    let server = start(&Gate::default());
    let waiting: Vec<Client> = (0..RESPONSES_BYTES_MAX / LARGE_BYTES)
        .map(|_| {
            let mut client = server.connect();
            client.send(get("/later"));
            client
        })
        .collect();
    until("the budget is spent", || server.ledger.responses.held_bytes() == RESPONSES_BYTES_MAX as u64);
    let mut refused = server.connect();
    refused.send(get("/later"));
    is_503_with_a_time(&refused.response());
    // A client that only half-closes still waits for its answer.
    waiting.iter().for_each(reset_at_close);
    drop((waiting, refused));
    server.is_at_rest();
}

#[test]
fn an_answer_that_has_waited_for_its_time_is_charged_once() {
    let server = start(&Gate::default());
    let mut later = server.connect();
    later.send(get("/later"));
    until("half of the budget is left", || server.ledger.responses.held_bytes() == (RESPONSES_BYTES_MAX / 2) as u64);
    // It takes the other half, first while it waits for its time and then while it waits for output space.
    let mut soon = server.connect();
    soon.send(get("/soon"));
    let response = soon.response();
    assert_eq!((response.status, response.body.len()), (200, LARGE_BYTES), "{}", response.head);
    reset_at_close(&later);
    drop((later, soon));
    server.is_at_rest();
}

#[test]
fn an_answer_that_waits_for_the_end_of_a_body_that_it_does_not_need_is_charged() {
    let server = start(&Gate::default());
    let begin = || {
        let mut client = server.connect();
        client.send("POST /large HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234");
        client
    };
    let fit = RESPONSES_BYTES_MAX / LARGE_BYTES;
    let mut waiting: Vec<Client> = (0..fit).map(|_| begin()).collect();
    until("the budget is spent", || server.ledger.responses.held_bytes() == RESPONSES_BYTES_MAX as u64);
    let mut refused = begin();
    refused.send("56789");
    is_503_with_a_time(&refused.response());
    for client in &mut waiting {
        client.send("56789");
        let response = client.response();
        assert_eq!((response.status, response.body.len()), (200, LARGE_BYTES), "{}", response.head);
    }
    drop((waiting, refused));
    server.is_at_rest();
}

fn reset_at_close(client: &Client) {
    socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
}

/// What happens to one exchange.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    Panics,
    ResetInBody,
    ResetInJob,
    HalfClosedInBody,
    Unread,
}

fn fates() -> impl Strategy<Value = (Fate, usize)> {
    let fate = prop_oneof![
        Just(Fate::Answered),
        Just(Fate::Panics),
        Just(Fate::ResetInBody),
        Just(Fate::ResetInJob),
        Just(Fate::HalfClosedInBody),
        Just(Fate::Unread)
    ];
    (fate, prop_oneof![0..10usize, 0..20_000usize, 0..BODIES_BYTES_MAX])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn everything_that_was_charged_comes_back_whatever_happens_to_the_exchange(fates in prop::collection::vec(fates(), 1..12)) {
        let gate = Gate::default();
        let server = start(&gate);
        let mut clients = Vec::new();
        for (fate, bytes) in fates {
            let (path, sent) = match fate {
                Fate::Answered | Fate::ResetInJob => ("/hold", bytes),
                Fate::Panics => ("/panic", bytes),
                Fate::ResetInBody | Fate::HalfClosedInBody => ("/hold", bytes / 2),
                Fate::Unread => ("/make", 0),
            };
            let length = if matches!(fate, Fate::Unread) { 0 } else { bytes };
            let mut client = server.connect();
            client.send(format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"));
            client.send(vec![b'x'; sent]);
            clients.push((fate, client));
            prop_assert!(server.ledger.budgets().all(|budget| budget.held_bytes() <= budget.bytes_max()));
        }
        for (fate, client) in &clients {
            match fate {
                Fate::ResetInBody | Fate::ResetInJob => reset_at_close(client),
                Fate::HalfClosedInBody => drop(client.stream.shutdown(std::net::Shutdown::Write)),
                Fate::Answered | Fate::Panics | Fate::Unread => {}
            }
        }
        clients.retain(|(fate, _)| !matches!(fate, Fate::ResetInBody | Fate::ResetInJob));
        gate.open();
        for (fate, client) in &mut clients {
            match fate {
                Fate::Answered => {
                    let status = client.response().status;
                    prop_assert!(status == 200 || status == 503, "{status}");
                }
                Fate::Panics => {
                    let status = client.response().status;
                    prop_assert!(status == 500 || status == 503, "{status}");
                }
                Fate::HalfClosedInBody => drop(client.stream.read(&mut [0; 16])),
                Fate::ResetInBody | Fate::ResetInJob | Fate::Unread => {}
            }
        }
        drop(clients);
        server.is_at_rest();
        for budget in server.ledger.budgets() {
            prop_assert!(budget.held_bytes_peak() <= budget.bytes_max());
        }
    }
}
