//! Requests that are unusual and right, or right as far as they are understood: the section, the bytes, the status, and whether the
//! connection goes on. The other half of `malformed_requests_are_rejected_and_other_connections_served.rs`.

mod support;

use support::{Server, get};

/// (section, request, status, whether the next request on the connection is answered).
type Row = (&'static str, &'static str, u16, bool);

const ROWS: &[Row] = &[
    // Versions and targets.
    ("9110 2.5, a later minor version is read as 1.1", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 200, true),
    ("9110 2.5, the last of them", "GET / HTTP/1.9\r\nHost: a\r\nConnection: close\r\n\r\n", 200, false),
    ("9112 2.2, an empty line in front", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 200, true),
    ("9112 3.2, 1.0 needs no Host", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, true),
    ("9112 3.2.2, absolute", "GET http://b/healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200, true),
    ("9112 3.2.2, absolute, by a proxy that ends TLS", "GET HTTPS://b:443/ HTTP/1.1\r\nHost: a\r\n\r\n", 200, true),
    ("9110 4.2.3, absolute without a path", "GET http://b?x HTTP/1.1\r\nHost: a\r\n\r\n", 200, true),
    ("9112 3.2.4, the server itself", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 204, true),
    ("9112 3.2.4, the same through a proxy", "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", 204, true),
    ("9110 9.1, methods have case", "get / HTTP/1.1\r\nHost: a\r\n\r\n", 501, true),
    ("9110 9.1, an unknown method", "BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n", 501, true),
    ("9110 15.5.6, a method that is not for this target", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, true),
    // Fields.
    ("9110 5.5, space around a value", "GET / HTTP/1.1\r\nHost: \t a \t\r\nX:\t\r\n\r\n", 200, true),
    ("9110 5.1, names have no case", "GET / HTTP/1.1\r\nhOST:a\r\ncONNECTION:cLOSE\r\n\r\n", 200, false),
    ("9110 7.6.1, close in a list", "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close ,y\r\n\r\n", 200, false),
    ("9110 7.6.1, close on a second line", "GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: close\r\n\r\n", 200, false),
    ("9110 7.6.1, closed is another word", "GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n\r\n", 200, true),
    ("9112 9.3, close wins", "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n", 200, false),
    ("9112 9.3, close wins in 1.0", "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", 200, false),
    (
        "9110 7.8, an upgrade that we do not know is ignored",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        200,
        true,
    ),
    ("9110 14.2, ranges may be ignored", "GET /bytes?n=5 HTTP/1.1\r\nHost: a\r\nRange: bytes=0-0\r\n\r\n", 200, true),
    ("9110 14.2, so may broken ones", "GET /bytes?n=5 HTTP/1.1\r\nHost: a\r\nRange: bytes=9-1,x\r\n\r\n", 200, true),
    (
        "9110 13.1.3, no date of modification, no condition",
        "GET / HTTP/1.1\r\nHost: a\r\nIf-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n\r\n",
        200,
        true,
    ),
    // Bodies.
    ("9110 9.3.1, content on GET is framed like any other", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 200, true),
    ("9110 8.6, leading zeros", "POST /digest?rounds=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 00005\r\n\r\nhello", 200, true),
    ("9110 8.6, space around it", "POST /digest?rounds=1 HTTP/1.1\r\nHost: a\r\nContent-Length: \t 5 \t\r\n\r\nhello", 200, true),
    (
        "9112 6.1, codings have no case",
        "POST /digest?rounds=1 HTTP/1.1\r\nHost: a\r\ntRANSFER-eNCODING:  cHUNKED \r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        200,
        true,
    ),
    (
        "9110 5.1, a name with an underscore is another name",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\nContent_Length: 3\r\n\r\n",
        200,
        true,
    ),
    (
        "9112 7.1.1, extensions are ignored",
        "POST /digest?rounds=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\t;a=b;c=\"d;\\\"e\"\r\nhello\r\n00;x\r\n\r\n",
        200,
        true,
    ),
    (
        "9112 7.1.2, trailers are no header fields",
        "POST /digest?rounds=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 50\r\nTransfer-Encoding: \
         chunked\r\nHost: b\r\nConnection: close\r\n\r\n",
        200,
        true,
    ),
    // Expectations.
    ("9110 10.1.1, without content there is nothing to wait for", "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", 200, true),
    (
        "9110 10.1.1, nor when it has come",
        "POST /digest?rounds=1 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        200,
        true,
    ),
    (
        "9110 5.6.1.2, empty elements of a list are ignored",
        "POST /digest?rounds=1 HTTP/1.1\r\nHost: a\r\nExpect: , 100-continue,\r\nContent-Length: 5\r\n\r\nhello",
        200,
        true,
    ),
    (
        "9110 10.1.1, 1.0 knows no 100",
        "POST /digest?rounds=1 HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        200,
        true,
    ),
    (
        "9110 10.1.1, refused instead of asked for",
        "POST /nothing HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        404,
        false,
    ),
];

#[test]
fn each_row_gets_its_status_and_its_connection_goes_on_or_ends() {
    let server = Server::routes();
    for (section, request, status, persists) in ROWS {
        let mut client = server.connect();
        client.send(request);
        let response = client.response();
        assert_eq!(response.status, *status, "{section}");
        assert!(response.header("Date").is_some(), "{section}: RFC 9110 section 6.6.1");
        assert_eq!(response.header("Allow").is_some(), matches!(status, 204 | 405), "{section}: RFC 9110 sections 15.5.6 and 9.3.7");
        assert_eq!(response.header("Connection") == Some("close"), !persists, "{section}: RFC 9112 section 9.6");
        client.send(get("/healthz"));
        if *persists {
            assert_eq!(client.response().text(), "ok\n", "{section}");
        } else {
            client.is_closed();
        }
    }
    server.is_at_rest();
}

#[test]
fn an_options_request_for_the_server_is_the_same_however_it_is_said() {
    let server = Server::routes();
    let mut client = server.connect();
    let mut allowed = |target: &str| {
        client.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.response().header("Allow").map(str::to_owned)
    };
    assert_eq!(allowed("http://a"), allowed("*"));
    assert_eq!(allowed("http://a/"), allowed("/"));
    assert_ne!(allowed("*"), allowed("/"));
}

/// Apache's `LimitRequestFields` is 100, and HAProxy's `tune.http.maxhdr` 101.
#[test]
fn a_head_may_have_a_hundred_fields() {
    let server = Server::routes();
    let mut client = server.connect();
    for (fields, status) in [(100, 200), (101, 200), (112, 200), (113, 431)] {
        // A later minor version is parsed by code of its own.
        for version in ["1.1", "1.2"] {
            let mut client = server.connect();
            let lines: String = (1..fields).map(|number| format!("X-Field-{number}: value\r\n")).collect();
            client.send(format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n"));
            assert_eq!(client.response().status, status, "{fields} fields in HTTP/{version}");
        }
    }
    client.send(get("/"));
    assert_eq!(client.response().status, 200);
}
