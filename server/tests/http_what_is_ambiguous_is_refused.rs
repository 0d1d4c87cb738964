//! Malformed and ambiguous requests, each with the section that says so and the status that it gets.

#[path = "data/driver.rs"]
mod driver;
#[path = "data/malformed.rs"]
mod malformed;

use driver::{Event, events};
use malformed::{CHUNKED_HEAD, CHUNKS, FRAMING, HEADS};
use server::http::{HttpLimits, Machine, Refusal, Step};

/// The refusal that this input ends in, if it does.
fn refusal(limits: &HttpLimits, input: &[u8]) -> Option<Refusal> {
    match events(limits, &[input]).0.last() {
        Some(Event::Refused(refusal)) => Some(*refusal),
        _ => None,
    }
}

#[test]
fn every_malformed_request_is_refused_for_its_own_reason() {
    let limits = HttpLimits::default();
    let mut wrong = Vec::new();
    for (section, input, expected) in HEADS.iter().chain(FRAMING) {
        let found = refusal(&limits, input);
        if found != Some(*expected) {
            wrong.push(format!("{section}: {found:?}, not {expected:?}"));
        }
    }
    for (section, body, expected) in CHUNKS {
        let found = refusal(&limits, &[CHUNKED_HEAD, body].concat());
        if found != Some(*expected) {
            wrong.push(format!("{section}: {found:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_refused_request_lets_a_second_one_through() {
    let limits = HttpLimits::default();
    let next = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for (section, input, _) in HEADS.iter().chain(FRAMING) {
        let (events, ..) = events(&limits, &[input, next, next]);
        let smuggled = events.iter().any(|event| format!("{event:?}").contains("/smuggled"));
        assert!(!smuggled, "{section}");
    }
}

/// A request with one part of a chosen length; the limit is met exactly, then passed by one.
fn at_the_limit(make: impl Fn(usize) -> Vec<u8>, length: usize, over: Refusal) {
    let limits = HttpLimits::default();
    assert_eq!(refusal(&limits, &make(length)), None, "{over:?} at the limit");
    assert_eq!(refusal(&limits, &make(length + 1)), Some(over), "{over:?} over the limit");
}

#[test]
fn each_limit_is_kept_to_the_byte() {
    let limits = HttpLimits::default();
    let host = "HTTP/1.1\r\nHost: a\r\n";
    let target = |n: usize| format!("GET /{} {host}\r\n", "a".repeat(n - 1)).into_bytes();
    at_the_limit(target, limits.target_bytes_max as usize, Refusal::TargetTooLong);
    let method = |n: usize| format!("{} / {host}\r\n", "A".repeat(n)).into_bytes();
    at_the_limit(method, limits.method_bytes_max as usize, Refusal::MethodTooLong);
    let fixed = format!("GET / {host}X: \r\n\r\n").len();
    let head = |n: usize| format!("GET / {host}X: {}\r\n\r\n", "a".repeat(n - fixed)).into_bytes();
    at_the_limit(head, limits.head_bytes_max as usize, Refusal::HeadTooLong);
    let lines = |n: usize| format!("GET / {host}{}\r\n", "X: a\r\n".repeat(n - 1)).into_bytes();
    at_the_limit(lines, limits.headers_max, Refusal::TooManyHeaders);
    let newlines = |n: usize| format!("{}GET / {host}\r\n", "\r\n".repeat(n)).into_bytes();
    at_the_limit(newlines, limits.leading_newlines_max.into(), Refusal::LeadingNewlines);
    let length = |n: usize| format!("PUT / {host}Content-Length: {n}\r\n\r\n").into_bytes();
    at_the_limit(length, limits.body_bytes_max as usize, Refusal::BodyTooLong);

    let chunked = |body: String| [CHUNKED_HEAD, body.as_bytes()].concat();
    let size = |n: usize| chunked(format!("{n:x}\r\n"));
    at_the_limit(size, limits.body_bytes_max as usize, Refusal::BodyTooLong);
    let sum = |n: usize| chunked(format!("5\r\nhello\r\n{:x}\r\n", n - 5));
    at_the_limit(sum, limits.body_bytes_max as usize, Refusal::BodyTooLong);
    // The space after the name counts, the `;` and the CRLF do not: 1 + n - 1 bytes on one chunk.
    let extension = |n: usize| chunked(format!("1;{}\r\nx\r\n0;a\r\n\r\n", "a".repeat(n - 3)));
    at_the_limit(extension, limits.chunk_extension_bytes_max as usize, Refusal::ChunkExtensionTooLong);
    let trailer = |n: usize| chunked(format!("0\r\nX:{}\r\n\r\n", "a".repeat(n - 5)));
    at_the_limit(trailer, limits.trailer_bytes_max as usize, Refusal::TrailersTooLong);
}

#[test]
fn a_limit_answers_before_the_line_ends() {
    let limits = HttpLimits::default();
    let endless = |start: &str, filler: &str| [start, &filler.repeat(20_000)].concat().into_bytes();
    for (input, expected) in [
        (endless("GET /", "a"), Refusal::TargetTooLong),
        (endless("", "A"), Refusal::MethodTooLong),
        (endless("GET / HTTP/1.1\r\nX: ", "a"), Refusal::HeadTooLong),
        (endless("GET / HTTP/1.1\r\n", "X: a\r\n"), Refusal::HeadTooLong),
        (endless("", "\r\n"), Refusal::LeadingNewlines),
    ] {
        assert_eq!(refusal(&limits, &input), Some(expected));
    }
}

#[test]
fn a_refused_machine_stays_refused() {
    let limits = HttpLimits::default();
    let mut machine = Machine::new();
    for _ in 0..3 {
        let (used, step) = machine.step(&limits, b"\0");
        assert!(used == 0 && matches!(step, Step::Refuse(Refusal::ControlByte)));
        assert!(!machine.response_plan().keep_alive);
        machine.answered();
    }
}

#[test]
fn every_refusal_has_its_own_label_and_an_error_status() {
    let mut labels: Vec<&str> = Refusal::ALL.iter().map(|refusal| refusal.label()).collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), Refusal::ALL.len());
    for (index, refusal) in Refusal::ALL.iter().enumerate() {
        assert_eq!(refusal.index(), index);
        assert!((400..600).contains(&refusal.status()));
    }
}
