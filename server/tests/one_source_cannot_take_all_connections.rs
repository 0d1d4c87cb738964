//! With `--connections-per-source-max` a source address gets so many connections; one more is told 429, and others do not notice.

mod support;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use reactor::CloseReason;
use reactor::listen::socket::ListenOptions;
use socket2::{Domain, SockAddr, Socket, Type};
use support::{Client, PATIENCE, Server, Setup, get, until};

fn from(server: &Server, source: Ipv4Addr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SockAddr::from(SocketAddr::from((source, 0)))).expect("an address of the loopback");
    socket.connect(&SockAddr::from(server.address)).expect("connect");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    Client { stream, received: Vec::new() }
}

#[test]
fn one_more_than_allowed_is_told_429_and_another_source_is_served() {
    let mut setup = Setup { listen: ListenOptions::default(), ..Setup::default() };
    setup.http.connections_per_source_max = Some(2);
    let server = Server::start(server::demo::routes(None), setup);
    let (one, other) = (Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2));
    let mut guests = [from(&server, one), from(&server, one)];
    for guest in &mut guests {
        guest.send(get("/"));
        assert_eq!(guest.response().status, 200);
    }
    let mut third = from(&server, one);
    let response = third.response();
    assert_eq!((response.status, response.header("Connection"), response.header("Retry-After")), (429, Some("close"), Some("1")));
    third.is_closed();
    drop(third);
    let mut stranger = from(&server, other);
    stranger.send(get("/"));
    assert_eq!(stranger.response().status, 200);
    until("the refusal is counted", || server.stats.closes(CloseReason::Refused).get() == 1);
    assert_eq!(server.http.source_refusals.get(), 1);

    let [first, _second] = guests;
    drop(first);
    until("the first has left", || server.stats.connections_open.get() == 2);
    let mut next = from(&server, one);
    next.send(get("/"));
    assert_eq!(next.response().status, 200);
}
