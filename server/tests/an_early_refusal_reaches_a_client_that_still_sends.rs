//! A refusal is seen by a client that first sends all, and takes a failed write for a failed request (`early-close`).

mod support;

use support::{Server, Setup};

#[test]
fn of_20_clients_that_send_8_mib_to_a_limit_of_1_mib_20_see_the_413() {
    let server = Server::routes();
    let body = vec![b'x'; 8 << 20];
    for _ in 0..20 {
        let mut client = server.connect();
        client.send(format!("POST /digest?rounds=1 HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()));
        client.send(&body);
        assert_eq!(client.response().status, 413);
        client.is_closed();
    }
    server.is_at_rest();
}

#[test]
fn so_it_is_with_an_answer_that_does_not_need_the_body() {
    let mut setup = Setup::default();
    setup.http.limits.body_bytes_max = 1 << 30;
    let server = Server::start(server::demo::routes(None), setup);
    let body = vec![b'x'; 8 << 20];
    for path in ["/nothing", "/spin?ms=1", "/sleep?ms=1"] {
        for method in ["POST", "GET"] {
            let mut client = server.connect();
            client.send(format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()));
            client.send(&body);
            let response = client.response();
            assert_eq!(response.header("Connection"), Some("close"), "{method} {path}");
            client.is_closed();
        }
    }
    server.is_at_rest();
}
