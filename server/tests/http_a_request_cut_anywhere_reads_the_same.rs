//! What the machine says depends on the bytes, never on how they were cut.

#[path = "data/driver.rs"]
mod driver;
#[path = "data/malformed.rs"]
#[allow(dead_code)]
mod malformed;
#[path = "data/samples.rs"]
mod samples;

use driver::{Driver, Event, events, small_limits};
use proptest::prelude::*;
use samples::SAMPLES;
use server::http::{AtEnd, HttpLimits};

/// All input of this test: valid and malformed.
fn inputs() -> Vec<Vec<u8>> {
    let chunked = malformed::CHUNKS.iter().map(|(_, body, _)| [malformed::CHUNKED_HEAD, body].concat());
    let heads = malformed::HEADS.iter().chain(malformed::FRAMING).map(|case| case.1.to_vec());
    SAMPLES.iter().map(|sample| sample.to_vec()).chain(heads).chain(chunked).collect()
}

#[test]
fn every_sample_is_understood_to_its_end() {
    for sample in SAMPLES {
        let (events, consumed_bytes, at_end) = events(&HttpLimits::default(), &[sample]);
        assert_eq!(consumed_bytes, sample.len(), "{}", sample.escape_ascii());
        assert!(!events.iter().any(|event| matches!(event, Event::Refused(_))), "{events:?}");
        assert!(matches!(at_end, AtEnd::Clean | AtEnd::Closed));
    }
}

#[test]
fn every_input_cut_at_any_byte_reads_the_same() {
    let limits = HttpLimits::default();
    for input in inputs() {
        let whole = events(&limits, &[&input]);
        for cut in 0..=input.len() {
            let (first, second) = input.split_at(cut);
            assert_eq!(events(&limits, &[first, second]), whole, "{} at {cut}", input.escape_ascii());
        }
    }
}

#[test]
fn after_every_prefix_byte_by_byte_and_in_one_piece_are_equally_far() {
    let limits = HttpLimits::default();
    for input in inputs() {
        let mut slow = Driver::new(&limits, |bytes| bytes);
        for end in 1..=input.len() {
            slow.feed(&input[end - 1..end]);
            let (events, consumed_bytes, at_end) = events(&limits, &[&input[..end]]);
            let prefix = input[..end].escape_ascii();
            assert_eq!(slow.events, events, "{prefix}");
            assert_eq!(slow.consumed_bytes, consumed_bytes, "{prefix}");
            assert_eq!(slow.machine.ended(), at_end, "{prefix}");
        }
    }
}

#[test]
fn one_hundred_pipelined_requests_come_out_of_one_buffer_in_order() {
    let limits = HttpLimits::default();
    let mut input = Vec::new();
    for number in 0..100 {
        input.extend(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes());
        let body = format!("body {number}");
        let length = body.len();
        let head = format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        input.extend([head.as_bytes(), body.as_bytes()].concat());
    }
    let (events, consumed_bytes, at_end) = events(&limits, &[&input]);
    assert_eq!((consumed_bytes, at_end), (input.len(), AtEnd::Clean));
    let numbers: Vec<String> = events
        .iter()
        .filter_map(|event| match event {
            Event::Request(text, _) => text.split(' ').nth(2).map(str::to_owned),
            Event::Body(body) => Some(String::from_utf8_lossy(body).into_owned()),
            _ => None,
        })
        .collect();
    let expected: Vec<String> = (0..100).flat_map(|n| [format!("/{n}"), format!("/{n}"), format!("body {n}")]).collect();
    assert_eq!(numbers, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A sample or a malformed one, damaged at some places and cut at others.
    #[test]
    fn damaged_requests_cut_anywhere_read_the_same(
        which in any::<prop::sample::Index>(),
        small in any::<bool>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![
            any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':'), Just(b';'), Just(b'0')
        ], 0..3u8), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let all = inputs();
        let mut input = which.get(&all).clone();
        for (place, byte, kind) in damage {
            let at = place.index(input.len());
            match kind {
                0 => input[at] = byte,
                1 => input.insert(at, byte),
                _ if input.len() > 1 => drop(input.remove(at)),
                _ => {}
            }
        }
        let limits = if small { small_limits() } else { HttpLimits::default() };
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len())).collect();
        places.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for place in places.into_iter().chain([input.len()]) {
            pieces.push(&input[from..place]);
            from = place;
        }
        let whole = events(&limits, &[&input]);
        prop_assert_eq!(&events(&limits, &pieces), &whole);
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        prop_assert_eq!(&events(&limits, &bytes), &whole);
    }
}
