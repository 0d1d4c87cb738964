//! Any bytes at all: no panic, no byte used that was not there, and progress or a wish for more.

#[path = "data/driver.rs"]
mod driver;

use driver::{Driver, events};
use proptest::prelude::*;
use server::http::{HttpLimits, percent_decode};

/// Words that lead deep into the machine, more often than random bytes would.
fn words() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "GET ",
        "POST ",
        "/",
        "*",
        "?",
        "#",
        "http://",
        " HTTP/1.1",
        " HTTP/1.0",
        " HTTP/1.2",
        "\r\n",
        "\r",
        "\n",
        "\r\n\r\n",
        "Host: a",
        "Host:",
        "Content-Length: ",
        "Transfer-Encoding: ",
        "chunked",
        ",",
        "0",
        "1",
        "ffffffffffffffff",
        ";",
        "=",
        "\"",
        "\\",
        " ",
        "\t",
        ":",
        "X: y",
        "Expect: 100-continue",
        "Connection: close",
        "\0",
        "\u{e4}",
        "[::1]",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
    ]);
    prop::collection::vec(word, 0..30).prop_map(|words| words.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_pieces_with_any_appetite(
        input in prop_oneof![words(), prop::collection::vec(any::<u8>(), 0..200)],
        length in 1..60usize,
        appetite in 1..20usize,
    ) {
        let limits = HttpLimits::default();
        let mut driver = Driver::new(&limits, move |bytes| bytes.min(appetite));
        for piece in input.chunks(length) {
            driver.feed(piece);
        }
        prop_assert!(driver.consumed_bytes <= input.len());
        prop_assert_eq!(driver.events, events(&limits, &[&input]).0);
    }

    /// The lazy header iterator agrees with httparse, which found the head valid.
    #[test]
    fn the_lazy_headers_are_httparse_s(
        lines in prop::collection::vec("[A-Za-z0-9-]{1,9}:[ \t]{0,2}[!-~\u{e4}]{0,4}([ \t]{1,2}[!-~]{1,3})?[ \t]{0,2}", 0..8),
    ) {
        let head = format!("GET / HTTP/1.0\r\n{}\r\n", lines.iter().map(|l| format!("{l}\r\n")).collect::<String>());
        let mut slots = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Request::new(&mut slots);
        prop_assert!(parsed.parse(head.as_bytes()).is_ok());
        let expected: Vec<_> = parsed.headers.iter().map(|line| (line.name, line.value)).collect();
        let mut machine = server::http::Machine::new();
        if let (_, server::http::Step::Request(request)) = machine.step(&HttpLimits::default(), head.as_bytes()) {
            prop_assert_eq!(request.headers().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn percent_decoding_undoes_encoding_and_survives_any_text(text in ".{0,40}", path in "[^\0]{0,40}") {
        let _ = percent_decode(&text);
        let encoded: String = path.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let decoded = percent_decode(&encoded);
        prop_assert_eq!(decoded.as_deref(), Ok(&path[..]));
    }
}

/// `quadratic-parse`: work for each byte that grows with the bytes before it is a stall for sale.
///
/// Shown without a clock: what was looked at once is overwritten with NUL, which a second look would
/// refuse. Only at the blank line is the whole head read again.
#[test]
fn a_head_that_comes_in_single_bytes_is_looked_at_once() {
    let limits = HttpLimits::default();
    let head = b"GET /long/target HTTP/1.1\r\nHost: a\r\nX: some\tvalue\r\nY: z\r\n\r\n";
    let mut machine = server::http::Machine::new();
    for end in 1..head.len() {
        let mut seen = head[..end].to_vec();
        // The last CR may be looked at again: it waits for its LF.
        seen[..end.saturating_sub(2)].fill(0);
        let (used, step) = machine.step(&limits, &seen);
        assert!(used == 0 && matches!(step, server::http::Step::NeedBytes), "{end}: {step:?}");
    }
    // Nor does the parser run before the scan has seen the blank line: here is one that it did not see.
    let mut other = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
    other.resize(head.len() - 1, b'a');
    let (used, step) = machine.clone().step(&limits, &other);
    assert!(used == 0 && matches!(step, server::http::Step::NeedBytes), "{step:?}");
    let (used, step) = machine.step(&limits, head);
    assert!(used == head.len() && matches!(step, server::http::Step::Request(_)));
}
