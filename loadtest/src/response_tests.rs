//! Every sample response, split at every byte, reads the same; bytes that are not a response are refused.

use super::*;
use proptest::prelude::*;

fn expect(body: &str) -> Expect {
    Expect { body: Some(body.as_bytes().into()), ..Expect::default() }
}

/// Reads `pieces` as a connection would: what was not taken is offered again with the next piece.
fn read_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, expect: &Expect) -> (Vec<Response>, Option<&'static str>) {
    let mut reader = ResponseReader::default();
    let (mut held, mut responses) = (Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            let (taken, step) = reader.read(&held, expect);
            held.drain(..taken);
            match step {
                Step::NeedBytes => break,
                Step::Done(response) => responses.push(response),
                Step::Broken(why) => return (responses, Some(why)),
            }
            if held.is_empty() {
                break;
            }
        }
    }
    responses.extend(reader.end(expect));
    (responses, None)
}

/// Bytes, status, body, keep-alive.
const GOOD: &[(&str, u16, &str, bool)] = &[
    ("HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, World!", 200, "Hello, World!", true),
    ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, "", true),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab", 200, "ab", true),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x, Close\r\n\r\nab", 200, "ab", false),
    ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", 200, "ab", false),
    ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nab", 200, "ab", true),
    ("HTTP/1.1 204 No Content\r\n\r\n", 204, "", true),
    ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, "", true),
    ("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nbusy", 503, "busy", true),
    ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, "x", true),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, "", true),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n8;a=\"b\"\r\n, World!\r\n0\r\nT: x\r\nU: y\r\n\r\n",
        200,
        "Hello, World!",
        true,
    ),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n00A \r\n0123456789\r\n000\r\n\r\n", 200, "0123456789", true),
];

#[test]
fn a_response_cut_at_any_byte_reads_the_same() {
    for (text, status, body, keep_alive) in GOOD {
        let bytes = text.as_bytes();
        let whole = Response { status: *status, body_bytes: body.len() as u64, body_as_expected: true, keep_alive: *keep_alive };
        for cut in 0..=bytes.len() {
            let (responses, broken) = read_pieces([&bytes[..cut], &bytes[cut..]], &expect(body));
            assert_eq!((responses.as_slice(), broken), ([whole].as_slice(), None), "{text:?} cut at {cut}");
        }
        assert_eq!(read_pieces(bytes.chunks(1), &expect(body)).0, [whole], "{text:?} byte by byte");
    }
}

#[test]
fn a_response_without_a_length_ends_with_the_connection_and_only_there() {
    let bytes = b"HTTP/1.1 200 OK\r\n\r\nabc".as_slice();
    let response = Response { status: 200, body_bytes: 3, body_as_expected: true, keep_alive: false };
    assert_eq!(read_pieces(bytes.chunks(1), &expect("abc")).0, [response]);
}

/// A server should not send these; RFC 9112 tells a client how to read them all the same.
#[test]
fn what_a_client_has_to_cope_with_is_read_at_every_cut() {
    let many_fields = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nab", "Set-Cookie: a=b\r\n".repeat(200));
    for (text, body, keep_alive) in [
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\tc\r\nContent-Length: 2\r\n\r\nab", "ab", true), // 5.2: obs-fold.
        ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab", "ab", true),                   // 6.3, rule 5.
        ("HTTP/1.1 200 OK\r\nContent-Length: 2,2\r\nContent-Length: 2\r\n\r\nab", "ab", true),
        ("HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nab", "ab", true), // 5.1: a space before the colon.
        ("HTTP/1.1   200   OK\r\nContent-Length: 2\r\n\r\nab", "ab", true), // 4: on whitespace-delimited word boundaries.
        ("HTTP/1.1 200 OK\nContent-Length: 2\n\nab", "ab", true),        // 2.2: a single LF.
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", "ab", false), // 6.3, rule 3.
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", "ab", false), // 6.1.
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", "ab", true), // 6.3, rule 4.
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", "ab", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 1\r\n\r\nab", "ab", false), // 6.3, rule 4: until the end.
        (&many_fields, "ab", true),
    ] {
        let bytes = text.as_bytes();
        let wanted = Response { status: 200, body_bytes: body.len() as u64, body_as_expected: true, keep_alive };
        for cut in (0..bytes.len()).filter(|cut| bytes.len() < 300 || cut % 97 == 0) {
            let read = read_pieces([&bytes[..cut], &bytes[cut..]], &expect(body));
            assert_eq!(read, (vec![wanted], None), "{text:?} at {cut}");
        }
    }
}

#[test]
fn every_response_that_is_cut_off_is_incomplete() {
    for (text, _, body, _) in GOOD {
        for len in 0..text.len() {
            assert_eq!(read_pieces([&text.as_bytes()[..len]], &expect(body)).0, [], "{text:?} after {len} bytes");
        }
    }
}

#[test]
fn a_wrong_a_long_and_a_short_body_are_noticed() {
    for wrong in ["Hello, world!", "Hello, World", "Hello, World!!", "", "XHello, World!"] {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{wrong}", wrong.len());
        for piece_len in [1, 5, 1000] {
            let (responses, _) = read_pieces(text.as_bytes().chunks(piece_len), &expect("Hello, World!"));
            assert_eq!(responses.iter().map(|r| r.body_as_expected).collect::<Vec<_>>(), [false], "{wrong:?}");
        }
    }
}

#[test]
fn the_answer_to_head_has_no_body() {
    let expect = Expect { head_only: true, body: None };
    let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice();
    let (responses, broken) = read_pieces([bytes], &expect);
    assert_eq!((responses.len(), broken), (2, None));
    assert!(responses.iter().all(|response| response.body_bytes == 0 && response.body_as_expected));
}

#[test]
fn what_is_no_response_is_refused_at_every_cut() {
    let long_head = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_BYTES_MAX));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX + 1));
    let extension = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;{}", "x".repeat(17 << 10));
    for bytes in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nxx",
        "HTTP/1.1 200 OK\r\nContent-Length: 1,\r\n\r\nx",
        "HTTP/1.1 200 OK\r\n A: a first line cannot be a continuation\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\nx",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1111111111111111\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: x\n",
        &long_head,
        &many,
        &extension,
    ] {
        let bytes = bytes.as_bytes();
        assert!(read_pieces([bytes], &Expect::default()).1.is_some(), "{:?}", String::from_utf8_lossy(bytes));
        if bytes.len() < 200 {
            for cut in 0..bytes.len() {
                assert!(read_pieces([&bytes[..cut], &bytes[cut..]], &Expect::default()).1.is_some(), "cut at {cut}");
            }
        }
    }
}

proptest! {
    #[test]
    fn a_sequence_of_responses_cut_anywhere_reads_the_same(
        picks in proptest::collection::vec(0..GOOD.len(), 1..5), cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
    ) {
        let stream: String = picks.iter().map(|pick| GOOD[*pick].0).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| &stream.as_bytes()[pair[0]..pair[1]]);
        let (responses, broken) = read_pieces(pieces, &Expect::default());
        prop_assert_eq!(broken, None);
        let read: Vec<_> = responses.iter().map(|response| (response.status, response.body_bytes)).collect();
        let sent: Vec<_> = picks.iter().map(|pick| (GOOD[*pick].1, GOOD[*pick].2.len() as u64)).collect();
        prop_assert_eq!(read, sent);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic_and_never_taken_twice(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece_len in 1usize..50) {
        let mut reader = ResponseReader::default();
        for piece in bytes.chunks(piece_len) {
            let (taken, _) = reader.read(piece, &Expect::default());
            prop_assert!(taken <= piece.len());
        }
    }
}
