//! Replays the corpus of the fuzz target `connection` without a fuzzer, and tries scripts of its own: the whole connection on a simulated
//! system, any bytes at any times.

#[path = "data/corpus.rs"]
mod corpus;
#[path = "data/driver.rs"]
mod driver;
#[path = "data/samples.rs"]
mod samples;
#[path = "data/scripted_connection.rs"]
mod scripted_connection;

use proptest::prelude::*;
use scripted_connection::any_script;

#[test]
fn every_input_of_the_corpus_gets_what_it_is_owed() {
    corpus::replay("connection", 50, any_script);
}

/// Requests for each kind of answer, more often than random bytes would be.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let path = prop::sample::select(vec!["/", "/now", "/late", "/body", "/stream", "/echo", "/close", "/e?q"]);
    let method = prop::sample::select(vec!["GET", "HEAD", "POST"]);
    let version = prop::sample::select(vec!["1.1", "1.1", "1.0"]);
    let extra = prop::sample::select(vec!["", "Connection: close\r\n", "Connection: keep-alive\r\n", "Expect: 100-continue\r\n"]);
    let body = prop_oneof![
        Just(String::from("\r\n")),
        "[a-z]{0,12}".prop_map(|text| format!("Content-Length: {}\r\n\r\n{text}", text.len())),
        "[a-z]{1,12}".prop_map(|text| format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n0\r\n\r\n", text.len())),
    ];
    let request = (method, path, version, extra, body).prop_map(|(method, path, version, extra, body)| {
        format!("{method} {path} HTTP/{version}\r\nHost: a\r\n{extra}{body}").into_bytes()
    });
    let bytes = prop::collection::vec(any::<u8>(), 0..12);
    let one = prop_oneof![8 => request, 1 => bytes];
    prop::collection::vec(one, 0..6).prop_map(|all| all.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_at_any_times_get_what_they_are_owed(
        flags in any::<u8>(),
        seed in any::<u8>(),
        script in prop::collection::vec(any::<u8>(), 0..40),
        sent in requests(),
        cut in 0..40_usize,
    ) {
        let sent = &sent[..sent.len().saturating_sub(if cut < 30 { 0 } else { cut })];
        any_script(&[&[flags, seed, script.len() as u8], &script[..], sent].concat());
    }
}

/// Each sample request, alone and after another, under each choice of limits and system, byte by byte.
#[test]
fn every_sample_cut_at_every_byte_gets_what_it_is_owed() {
    for sample in samples::SAMPLES {
        for flags in 0..=255 {
            let byte_by_byte = [0, 7, 4].repeat(sample.len().min(84));
            any_script(&[&[flags, 1, byte_by_byte.len() as u8], &byte_by_byte[..], sample, sample].concat());
        }
    }
}
