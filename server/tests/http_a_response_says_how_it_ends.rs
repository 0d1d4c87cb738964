//! Responses as bytes: what the peer needs to find the end of each, and nothing a service could smuggle in.

use proptest::prelude::*;
use reactor::OutputBuffer;
use server::http::{
    CHUNK_END, DateLine, HttpDate, HttpLimits, InvalidHeader, LAST_CHUNK, Machine, Response, ResponsePlan, Step, StreamFraming, StreamHead,
    Version, chunk_header,
};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

const HTTP11: ResponsePlan = ResponsePlan { version: Version::Http11, is_head: false, keep_alive: true };

fn date() -> DateLine {
    *HttpDate::new(Instant::now(), || UNIX_EPOCH + Duration::from_secs(784_111_777)).bytes(Instant::now())
}

/// Head and body as they go out.
fn sent(response: &Response, plan: &ResponsePlan) -> String {
    let mut into = OutputBuffer::new(1024);
    assert!(into.output().encode(|cursor| response.encode_head(plan, &date(), cursor)));
    into.output().write(response.body_to_send(plan));
    String::from_utf8(into.filled().to_vec()).expect("text")
}

fn stream(head: &StreamHead, plan: &ResponsePlan) -> (String, StreamFraming) {
    let mut into = OutputBuffer::new(1024);
    assert!(into.output().encode(|cursor| head.encode_head(plan, &date(), cursor)));
    (String::from_utf8(into.filled().to_vec()).expect("text"), head.framing(plan))
}

#[test]
fn a_whole_response_is_these_bytes() {
    assert_eq!(
        sent(&Response::text("Hello, World!"), &HTTP11),
        "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain\r\n\
         Content-Length: 13\r\n\r\nHello, World!"
    );
    let shared: Arc<[u8]> = Arc::from(&b"{}"[..]);
    let response = Response::empty(405).content_type("application/json").with_header("Allow", "GET, HEAD").body(shared).close();
    assert_eq!(
        sent(&response, &HTTP11),
        "HTTP/1.1 405 Method Not Allowed\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\nAllow: GET, HEAD\r\n\
         Connection: close\r\n\r\n{}"
    );
    assert!(response.closes());
}

#[test]
fn the_connection_header_is_said_where_it_is_needed() {
    let response = Response::text("x");
    for (version, keep_alive, says) in [
        (Version::Http11, true, None),
        (Version::Http11, false, Some("close")),
        (Version::Http10, true, Some("keep-alive")),
        (Version::Http10, false, Some("close")),
    ] {
        let text = sent(&response, &ResponsePlan { version, keep_alive, is_head: false });
        let found = text.lines().find_map(|line| line.strip_prefix("Connection: "));
        assert_eq!(found, says);
        assert!(text.starts_with("HTTP/1.1 "), "RFC 9110 section 6.2: our own version");
    }
}

#[test]
fn head_says_the_length_and_sends_nothing() {
    let plan = ResponsePlan { is_head: true, ..HTTP11 };
    let text = sent(&Response::text("Hello, World!"), &plan);
    assert!(text.contains("Content-Length: 13\r\n") && text.ends_with("\r\n\r\n"));
    for (length, says) in [(Some(5), "Content-Length: 5\r\n"), (None, "Transfer-Encoding: chunked\r\n")] {
        let (text, framing) = stream(&Response::text("").into_stream(length), &plan);
        assert!(text.contains(says) && framing == StreamFraming::None);
    }
}

#[test]
fn a_refusal_after_a_head_request_is_not_answered_as_head() {
    let (mut machine, limits) = (Machine::new(), HttpLimits::default());
    let head = b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    assert!(matches!(machine.step(&limits, head), (_, Step::Request(_))));
    assert!(machine.response_plan().is_head);
    machine.answered();
    assert!(matches!(machine.step(&limits, b"\0"), (_, Step::Refuse(_))));
    let plan = machine.response_plan();
    assert_eq!(plan, ResponsePlan { keep_alive: false, ..HTTP11 });
}

#[test]
fn a_status_without_body_has_neither_length_nor_bytes() {
    for status in [204, 304] {
        let text = sent(&Response::empty(status).body("ignored"), &HTTP11);
        assert!(!text.contains("Content-Length") && text.ends_with("\r\n\r\n"), "{text}");
        let (text, framing) = stream(&Response::empty(status).into_stream(None), &HTTP11);
        assert!(!text.contains("Transfer-Encoding") && framing == StreamFraming::None);
    }
}

#[test]
fn a_stream_is_framed_by_what_is_known_and_what_the_peer_understands() {
    let known = Response::bytes("").into_stream(Some(u64::MAX));
    let (text, framing) = stream(&known, &HTTP11);
    assert!(text.contains("Content-Length: 18446744073709551615\r\n"));
    assert_eq!(framing, StreamFraming::Length(u64::MAX));
    let unknown = Response::bytes("").into_stream(None);
    let (text, framing) = stream(&unknown, &HTTP11);
    assert!(text.contains("Transfer-Encoding: chunked\r\n") && !text.contains("Content-Length"));
    assert_eq!(framing, StreamFraming::Chunked);
    let old = ResponsePlan { version: Version::Http10, ..HTTP11 };
    let (text, framing) = stream(&unknown, &old);
    assert!(text.contains("Connection: close\r\n") && !text.contains("Transfer-Encoding"));
    assert_eq!(framing, StreamFraming::UntilClose);
}

#[test]
fn header_values_cannot_split_the_response() {
    for value in ["a\r\nSet-Cookie: b", "a\nb", "a\rb", "a\0b", "\x1b", "\x7f", "\r\n\r\n<html>"] {
        assert_eq!(Response::empty(200).header("X", value), Err(InvalidHeader), "{value:?}");
        assert_eq!(Response::empty(200).header("X", value.to_owned()), Err(InvalidHeader));
    }
    let response = Response::empty(200).header("X", "tab\t and ä".to_owned()).expect("valid");
    assert!(sent(&response, &HTTP11).contains("X: tab\t and ä\r\n"));
}

#[test]
fn what_the_encoder_writes_itself_cannot_be_contradicted() {
    for name in ["content-length", "Transfer-Encoding", "CONNECTION", "Date", "Content-Type", "", "a b", "a:"] {
        let attempt = std::panic::catch_unwind(|| Response::empty(200).with_header(name, "1"));
        assert!(attempt.is_err(), "{name}");
    }
    for status in [0, 99, 100, 101, 199, 600, 1000] {
        assert!(std::panic::catch_unwind(|| Response::empty(status)).is_err(), "{status}");
    }
}

#[test]
fn a_response_fits_exactly_or_not_at_all() {
    let response = Response::text("Hello").with_header("Retry-After", "1").close();
    let length = sent(&response, &HTTP11).len() - "Hello".len();
    for space in 0..=length {
        let mut into = OutputBuffer::new(space);
        assert_eq!(into.output().encode(|cursor| response.encode_head(&HTTP11, &date(), cursor)), space == length);
        assert_eq!(into.filled().len(), if space == length { length } else { 0 });
    }
}

proptest! {
    /// Our own reader, strict as it is, understands what our encoder writes.
    #[test]
    fn chunks_that_we_write_are_chunks_that_we_read(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..3000), 0..6)) {
        let mut wire = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in &pieces {
            wire.extend(chunk_header(u32::try_from(piece.len()).expect("small")));
            wire.extend_from_slice(piece);
            wire.extend_from_slice(CHUNK_END);
        }
        wire.extend_from_slice(LAST_CHUNK);
        let (limits, mut machine, mut body, mut rest) = (HttpLimits::default(), Machine::new(), Vec::new(), &wire[..]);
        loop {
            let (used, step) = machine.step(&limits, rest);
            rest = &rest[used..];
            match step {
                Step::Request(_) => {}
                Step::Body { piece, last } => {
                    body.extend_from_slice(piece);
                    rest = &rest[piece.len()..];
                    machine.took(piece.len());
                    if last {
                        break;
                    }
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
        prop_assert_eq!(body, pieces.concat());
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn any_status_and_length_are_written_as_numbers(status in 200..=599u16, length in any::<u64>()) {
        let (text, framing) = stream(&Response::empty(status).into_stream(Some(length)), &HTTP11);
        let line = format!("HTTP/1.1 {status} ");
        prop_assert!(text.starts_with(&line));
        if framing != StreamFraming::None {
            let length = format!("\r\nContent-Length: {length}\r\n");
            prop_assert!(text.contains(&length));
        }
    }

    /// The response is a head to httparse, too.
    #[test]
    fn a_head_with_any_valid_value_is_read_by_others(value in "[ -~\t\u{e4}]{0,40}") {
        let response = Response::text("x").header("X-Y", value.clone()).expect("valid");
        let text = sent(&response, &HTTP11);
        let mut slots = [httparse::EMPTY_HEADER; 8];
        let mut parsed = httparse::Response::new(&mut slots);
        prop_assert!(parsed.parse(text.as_bytes()).expect("valid").is_complete());
        let found = parsed.headers.iter().find(|line| line.name == "X-Y").expect("there");
        prop_assert_eq!(found.value, value.as_bytes().trim_ascii());
    }
}

#[test]
#[should_panic(expected = "ends the body")]
fn an_empty_chunk_cannot_be_written_by_accident() {
    let _ = chunk_header(0);
}
