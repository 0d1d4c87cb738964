//! Replays the corpus of the fuzz target `connections` without a fuzzer, and tries scripts of its own: several connections at once on a simulated
//! system, with peers that read slowly, get the responses that each gets alone.

#[path = "data/corpus.rs"]
mod corpus;
#[path = "data/driver.rs"]
mod driver;
#[path = "data/scripted_connection.rs"]
#[allow(dead_code, reason = "its own script is another test's")]
mod scripted_connection;
#[path = "data/scripted_connections.rs"]
mod scripted_connections;

use proptest::prelude::*;
use scripted_connections::any_script;

#[test]
fn every_input_of_the_corpus_passes() {
    corpus::replay("connections", 10, any_script);
}

fn requests() -> impl Strategy<Value = Vec<u8>> {
    // Streams are the longest responses: they fill the windows of peers that do not read.
    let path = prop::sample::select(vec!["/", "/late", "/body", "/stream", "/stream", "/stream/long", "/echo", "/close"]);
    let method = prop::sample::select(vec!["GET", "GET", "HEAD", "POST"]);
    let body = prop_oneof![
        3 => Just(String::from("\r\n")),
        1 => "[a-z]{0,300}".prop_map(|text| format!("Content-Length: {}\r\n\r\n{text}", text.len())),
        1 => "[a-z]{1,200}".prop_map(|text| format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n0\r\n\r\n", text.len())),
        1 => "[a-z]{1,20}".prop_map(|text| format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}\r\nx", text.len())),
    ];
    let request =
        (method, path, body).prop_map(|(method, path, body)| format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{body}").into_bytes());
    prop::collection::vec(request, 0..6).prop_map(|all| all.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_connections_at_any_times_get_what_they_get_alone(
        flags in any::<u8>(),
        seed in any::<u8>(),
        script in prop::collection::vec(any::<(u8, u8)>(), 0..120),
        sent in prop::collection::vec(requests(), 1..8),
    ) {
        let mut input = vec![flags, seed, sent.len() as u8 - 1, script.len() as u8];
        input.extend(script.into_iter().flat_map(|(whose, what)| [whose, what]));
        for bytes in sent {
            input.extend((bytes.len() as u16).to_be_bytes());
            input.extend(bytes);
        }
        any_script(&input);
    }
}
