//! `Context::shutdown_write`: FIN after the output, and input still reaches the handler. Played by real sockets; the simulator plays it with
//! upstreams that answer after the FIN of the request.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use reactor::{CloseReason, Config, Context, Handler, LoopContext, Origin, Token};
use support::{PATIENCE, Running, start};

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Opened(Token),
    Input(String),
    Space(usize),
    Ended,
    Deadline,
    Closed(CloseReason),
}

enum Order {
    Resume,
    Close,
}

/// Answers the first line with `answer` and half-closes. Tells what comes after that.
struct HalfCloses {
    answer: Vec<u8>,
    written: usize,
    half_closed: bool,
    pauses: bool,
    told: Sender<Told>,
}

impl HalfCloses {
    fn answer(&mut self, cx: &mut Context<'_>) {
        self.written += cx.write(&self.answer[self.written..]);
        if self.written < self.answer.len() {
            return cx.want_writable();
        }
        if !self.half_closed {
            self.half_closed = true;
            cx.shutdown_write();
            self.told.send(Told::Space(cx.output_space())).unwrap();
            if self.pauses {
                cx.pause();
            }
        }
    }
}

impl Handler for HalfCloses {
    type Conn = ();
    type Mail = Order;

    fn opened(&mut self, _: Origin, cx: &mut Context<'_>) {
        self.told.send(Told::Opened(cx.token())).unwrap();
    }

    fn input(&mut self, (): &mut (), input: &[u8], cx: &mut Context<'_>) -> usize {
        let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return 0 };
        if self.half_closed {
            assert_eq!(cx.write(b"too late"), 0, "there is no output space after FIN");
            self.told.send(Told::Input(String::from_utf8_lossy(&input[..end]).into_owned())).unwrap();
        } else {
            self.answer(cx);
        }
        end + 1
    }

    fn writable(&mut self, (): &mut (), cx: &mut Context<'_>) {
        self.answer(cx);
    }

    fn ended(&mut self, (): &mut (), _rest_bytes: usize, cx: &mut Context<'_>) {
        let _ = self.told.send(Told::Ended);
        cx.close();
    }

    fn mail(&mut self, (): &mut (), order: Order, cx: &mut Context<'_>) {
        match order {
            Order::Resume => cx.resume(),
            Order::Close => cx.close(),
        }
    }

    fn deadline(&mut self, (): &mut (), cx: &mut Context<'_>) {
        self.told.send(Told::Deadline).unwrap();
        cx.close();
    }

    fn closed(&mut self, (): (), reason: CloseReason, _: &mut LoopContext<'_>) {
        let _ = self.told.send(Told::Closed(reason));
    }
}

fn server(answer: Vec<u8>, pauses: bool) -> (Running<HalfCloses>, Receiver<Told>) {
    let (told, heard) = channel();
    (start(Config::default(), HalfCloses { answer, written: 0, half_closed: false, pauses, told }), heard)
}

fn next(heard: &Receiver<Told>) -> Told {
    heard.recv_timeout(PATIENCE).unwrap()
}

fn opened(heard: &Receiver<Told>) -> Token {
    match next(heard) {
        Told::Opened(token) => token,
        other => panic!("{other:?} came before `opened`"),
    }
}

#[test]
fn input_that_arrives_after_our_fin_still_reaches_the_handler() {
    // More than the sockets hold, so that FIN has to wait for the client to read.
    let answer = b"0123456789abcdef".repeat(1 << 19);
    let (server, heard) = server(answer.clone(), false);
    let mut client = server.connect();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    opened(&heard);
    client.write_all(b"first\n").unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    assert!(received == answer, "{} of {} bytes came before FIN", received.len(), answer.len());
    assert_eq!(next(&heard), Told::Space(0));
    for line in ["second", "third"] {
        client.write_all(format!("{line}\n").as_bytes()).unwrap();
        assert_eq!(next(&heard), Told::Input(line.to_owned()));
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(next(&heard), Told::Ended);
    assert_eq!(next(&heard), Told::Closed(CloseReason::PeerClosed));
    assert_eq!(server.stats.resets.get(), 0);
}

#[test]
fn a_close_after_a_half_close_discards_input_and_sends_no_reset() {
    let (server, heard) = server(b"answer\n".to_vec(), false);
    let mut client = server.connect();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let token = opened(&heard);
    client.write_all(b"first\n").unwrap();
    assert_eq!(next(&heard), Told::Space(0));
    server.mail(token, Order::Close).ok().unwrap();
    support::until("it lingers", || server.stats.connections_lingering.get() == 1);
    client.write_all(b"discarded\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut received = String::new();
    client.read_to_string(&mut received).unwrap();
    assert_eq!(received, "answer\n");
    assert_eq!(next(&heard), Told::Closed(CloseReason::Finished));
}

#[test]
fn the_peers_fin_after_ours_is_not_taken_for_a_reset() {
    let (server, heard) = server(b"answer\n".to_vec(), true);
    let mut client = server.connect();
    let token = opened(&heard);
    client.write_all(b"first\n").unwrap();
    assert_eq!(next(&heard), Told::Space(0));
    let mut received = String::new();
    client.read_to_string(&mut received).unwrap();
    // The handler has paused, so the event is all that the loop sees of this: both directions are shut down. It comes before the mail, since a
    // turn takes its events first.
    client.write_all(b"second\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    server.mail(token, Order::Resume).ok().unwrap();
    assert_eq!(next(&heard), Told::Input("second".to_owned()));
    assert_eq!(next(&heard), Told::Ended);
    assert_eq!(next(&heard), Told::Closed(CloseReason::PeerClosed));
}

/// Half-closes at once and sets a deadline.
struct Waits(Sender<Told>);

impl Handler for Waits {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _: Origin, cx: &mut Context<'_>) {
        cx.shutdown_write();
        cx.deadline(Some(cx.now() + Duration::from_millis(20)));
    }

    fn input(&mut self, (): &mut (), input: &[u8], _: &mut Context<'_>) -> usize {
        input.len()
    }

    fn mail(&mut self, (): &mut (), (): (), _: &mut Context<'_>) {}

    fn deadline(&mut self, (): &mut (), cx: &mut Context<'_>) {
        self.0.send(Told::Deadline).unwrap();
        cx.abort();
    }

    fn closed(&mut self, (): (), reason: CloseReason, _: &mut LoopContext<'_>) {
        self.0.send(Told::Closed(reason)).unwrap();
    }
}

#[test]
fn the_deadline_still_runs_after_a_half_close() {
    let (told, heard) = channel();
    let server = start(Config::default(), Waits(told));
    let mut client = server.connect();
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "FIN");
    assert_eq!(next(&heard), Told::Deadline);
    assert_eq!(next(&heard), Told::Closed(CloseReason::Aborted));
}
