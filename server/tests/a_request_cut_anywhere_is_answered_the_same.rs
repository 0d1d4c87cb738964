//! Where TCP cuts a request is nobody's choice: each route answers the same whatever the cut, and byte by byte.

mod support;

use support::{Response, Server, get, post, until};

fn samples() -> Vec<String> {
    let chunked =
        "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n4;x=\"y\"\r\nwiki\r\n5\r\npedia\r\n0\r\nA: b\r\n\r\n";
    vec![
        get("/"),
        get("/healthz"),
        get("/bytes?n=100"),
        get("/sleep?ms=0"),
        get("/spin?ms=0"),
        get("/resolve?host=127.0.0.1"),
        get("/files/x"),
        get("/nothing"),
        post("/echo", "Hello"),
        chunked.to_owned(),
        post("/digest?rounds=2", "abc"),
        post("/", "not wanted"),
        "HEAD / HTTP/1.0\r\n\r\n".to_owned(),
    ]
}

/// Sends the pieces one by one, each only when the server has read the one before, and returns the answer.
fn answer<'a>(server: &Server, pieces: impl Iterator<Item = &'a [u8]>, is_head: bool) -> Response {
    let mut client = server.connect();
    for piece in pieces {
        let read_before = server.stats.bytes_read.get();
        client.send(piece);
        until("the server has read the piece", || server.stats.bytes_read.get() == read_before + piece.len() as u64);
    }
    if is_head { client.response_to_head() } else { client.response() }.without_date()
}

#[test]
fn each_route_answers_the_same_wherever_its_request_is_cut() {
    let server = Server::routes();
    for request in samples() {
        let is_head = request.starts_with("HEAD");
        let request = request.as_bytes();
        let whole = answer(&server, [request].into_iter(), is_head);
        for cut in 1..request.len() {
            let (front, back) = request.split_at(cut);
            let found = answer(&server, [front, back].into_iter(), is_head);
            assert_eq!(found, whole, "{:?} cut at {cut}", String::from_utf8_lossy(request));
        }
        assert_eq!(answer(&server, request.chunks(1), is_head), whole, "{:?} byte by byte", String::from_utf8_lossy(request));
    }
    server.is_at_rest();
}
