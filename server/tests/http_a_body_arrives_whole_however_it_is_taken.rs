//! Bodies: any framing, any pieces, any sink that takes as little as it likes, and what an unread one means.

#[path = "data/driver.rs"]
mod driver;

use driver::{Driver, Event};
use proptest::prelude::*;
use server::http::{AtEnd, HttpLimits, Machine, Refusal, Step};

/// A body on the wire, and what it says.
#[derive(Clone, Debug)]
struct Message {
    wire: Vec<u8>,
    body: Vec<u8>,
}

fn with_length() -> impl Strategy<Value = Message> {
    prop::collection::vec(any::<u8>(), 1..600).prop_map(|body| {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        Message { wire: [head.as_bytes(), &body].concat(), body }
    })
}

fn chunk() -> impl Strategy<Value = (Vec<u8>, usize, bool, &'static str)> {
    let valid = prop::sample::select(vec!["", ";a", " ; a = b", ";q=\"\\\"\""]);
    (prop::collection::vec(any::<u8>(), 1..80), 0..4usize, any::<bool>(), valid)
}

fn chunked() -> impl Strategy<Value = Message> {
    let trailers = prop::sample::select(vec!["", "X: y\r\n", "X:\r\nY: \t z\r\n"]);
    (prop::collection::vec(chunk(), 0..8), trailers).prop_map(|(chunks, trailers)| {
        let mut wire = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        let mut body = Vec::new();
        for (data, zeros, upper, extension) in chunks {
            let digits = if upper { format!("{:X}", data.len()) } else { format!("{:x}", data.len()) };
            wire.extend(format!("{}{digits}{extension}\r\n", "0".repeat(zeros)).into_bytes());
            wire.extend_from_slice(&data);
            wire.extend_from_slice(b"\r\n");
            body.extend(data);
        }
        wire.extend(format!("0\r\n{trailers}\r\n").into_bytes());
        Message { wire, body }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Several on one connection; the sink takes a random part of each piece, and often nothing.
    #[test]
    fn bodies_survive_any_pieces_and_any_appetite(
        messages in prop::collection::vec(prop_oneof![with_length(), chunked()], 1..4),
        pieces in prop::collection::vec(1..90usize, 1..20),
        appetite in prop::collection::vec(0..60usize, 1..10),
    ) {
        let limits = HttpLimits::default();
        let mut turn = 0;
        let mut hungry = 0;
        let mut driver = Driver::new(&limits, move |bytes| {
            turn += 1;
            let taken = appetite[turn % appetite.len()].min(bytes);
            // Never nothing three times on end: the driver would take it for a hang.
            hungry = if taken == 0 { hungry + 1 } else { 0 };
            if hungry < 2 {
                return taken;
            }
            hungry = 0;
            1
        });
        let wire: Vec<u8> = messages.iter().flat_map(|message| message.wire.clone()).collect();
        let mut rest = &wire[..];
        for length in pieces.iter().cycle() {
            let (piece, after) = rest.split_at((*length).min(rest.len()));
            driver.feed(piece);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        let mut found = Vec::new();
        for event in &driver.events {
            match event {
                Event::Request(..) => found.push((Vec::new(), false)),
                Event::Body(bytes) => found.last_mut().expect("a head first").0.extend(bytes),
                Event::BodyEnd => found.last_mut().expect("a head first").1 = true,
                Event::Refused(refusal) => prop_assert!(false, "{refusal:?}"),
            }
        }
        let expected: Vec<_> = messages.into_iter().map(|message| (message.body, true)).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(driver.machine.ended(), AtEnd::Clean);
        prop_assert_eq!(driver.consumed_bytes, wire.len());
    }
}

const POST_5: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

fn machine_after(head: &[u8]) -> (Machine, HttpLimits) {
    let (mut machine, limits) = (Machine::new(), HttpLimits::default());
    let (used, step) = machine.step(&limits, head);
    assert!(used == head.len() && matches!(step, Step::Request(_)));
    (machine, limits)
}

#[test]
fn an_unread_body_never_becomes_a_request() {
    for give_up in [false, true] {
        let (mut machine, limits) = machine_after(POST_5);
        if give_up {
            machine.give_up_body();
            assert!(!machine.response_plan().keep_alive, "the response must say close");
        }
        machine.answered();
        assert!(!machine.persists());
        let (used, step) = machine.step(&limits, NEXT);
        assert!(used == 0 && matches!(step, Step::Paused));
        assert_eq!(machine.ended(), AtEnd::Closed);
    }
}

#[test]
fn a_body_that_was_read_to_its_end_leaves_the_connection_open() {
    let (mut machine, limits) = machine_after(POST_5);
    let (used, step) = machine.step(&limits, b"helloGET");
    assert!(used == 0 && matches!(step, Step::Body { piece: b"hello", last: true }));
    machine.took(3);
    assert!(machine.is_in_body());
    let (_, step) = machine.step(&limits, b"loGET");
    assert!(matches!(step, Step::Body { piece: b"lo", last: true }));
    machine.took(2);
    machine.give_up_body(); // too late to matter
    assert!(machine.response_plan().keep_alive);
    machine.answered();
    assert!(matches!(machine.step(&limits, NEXT), (n, Step::Request(_)) if n == NEXT.len()));
}

#[test]
#[should_panic(expected = "took more than the piece")]
fn taking_more_than_the_body_has_is_our_own_error() {
    let (mut machine, _) = machine_after(POST_5);
    machine.took(6);
}

#[test]
fn continue_is_due_once_and_only_while_the_peer_waits() {
    let expecting = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let (mut machine, limits) = machine_after(expecting);
    assert!(matches!(machine.step(&limits, b""), (0, Step::NeedBytes)));
    assert!(machine.take_continue());
    assert!(!machine.take_continue());
    // The peer did not wait: RFC 9110 section 10.1.1 lets the server leave it out.
    let (mut machine, limits) = machine_after(expecting);
    assert!(matches!(machine.step(&limits, b"h"), (0, Step::Body { .. })));
    assert!(!machine.take_continue());
    let chunked = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (mut machine, limits) = machine_after(chunked);
    assert!(matches!(machine.step(&limits, b"1"), (1, Step::NeedBytes)));
    assert!(!machine.take_continue());
    // Answered without the body.
    let (mut machine, _) = machine_after(expecting);
    machine.give_up_body();
    assert!(!machine.take_continue());
    // Ignored in 1.0, and where there is no body.
    for head in [
        &b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"[..],
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
    ] {
        assert!(!machine_after(head).0.take_continue());
    }
}

#[test]
fn the_end_of_input_is_told_by_where_it_falls() {
    let limits = HttpLimits::default();
    for (input, at_end) in [
        (&b""[..], AtEnd::Clean),
        (b"\r\n", AtEnd::Clean),
        (b"G", AtEnd::InsideHead),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", AtEnd::InsideHead),
        (NEXT, AtEnd::Clean),
        (POST_5, AtEnd::InsideBody),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell", AtEnd::InsideBody),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", AtEnd::InsideBody),
        (b"\0", AtEnd::Closed),
    ] {
        assert_eq!(driver::events(&limits, &[input]).2, at_end, "{}", input.escape_ascii());
    }
    assert_eq!(machine_after(NEXT).0.ended(), AtEnd::Answering);
}

#[test]
fn a_chunked_body_grows_to_the_limit_and_not_past_it() {
    let limits = HttpLimits { body_bytes_max: 10, ..HttpLimits::default() };
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let at = [&head[..], b"5\r\nhello\r\n5\r\nhello\r\n0\r\n\r\n"].concat();
    assert_eq!(driver::events(&limits, &[&at]).0.last(), Some(&Event::BodyEnd));
    let over = [&head[..], b"5\r\nhello\r\n6\r\nhello!\r\n0\r\n\r\n"].concat();
    let (events, ..) = driver::events(&limits, &[&over]);
    assert_eq!(
        events[1..],
        [Event::Body(b"hello".to_vec()), Event::Refused(Refusal::BodyTooLong)],
        "and no byte of the chunk that is too much"
    );
}

#[test]
fn the_connection_persists_as_version_and_connection_header_say() {
    for (head, persists) in [
        (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], true),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: foo,\tCLOSE ,bar\r\n\r\n", false),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", false),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n\r\n", true),
        (b"GET / HTTP/1.0\r\n\r\n", false),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false),
    ] {
        let (mut machine, limits) = machine_after(head);
        assert_eq!(machine.persists(), persists, "{}", head.escape_ascii());
        assert_eq!(machine.response_plan().keep_alive, persists);
        machine.answered();
        let next = matches!(machine.step(&limits, NEXT).1, Step::Request(_));
        assert_eq!(next, persists);
    }
    let (mut machine, _) = machine_after(NEXT);
    machine.close_after_response();
    machine.answered();
    assert_eq!(machine.ended(), AtEnd::Closed);
}
