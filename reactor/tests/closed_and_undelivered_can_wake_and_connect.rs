//! The callbacks that come after a connection has closed have a context of the loop: the time, `wake` for other connections, `connect`.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use reactor::{CloseReason, Config, Connect, Context, Handler, LoopContext, Origin, Token};
use support::{PATIENCE, listener, start};

/// Clients watch each other: when one leaves, the one that came before it gets a line. Mail that finds its connection closed is announced to
/// another server.
struct Watchers {
    announce_to: SocketAddr,
    open: Vec<Token>,
    departures: u32,
    closed_at: Option<Instant>,
}

/// Whether a connection is a client or the announcement.
enum Conn {
    Client,
    Announcement,
}

impl Handler for Watchers {
    type Conn = Conn;
    type Mail = u8;

    fn opened(&mut self, origin: Origin, cx: &mut Context<'_>) -> Conn {
        match origin {
            Origin::Accepted { .. } => {
                self.open.push(cx.token());
                cx.write(b"welcome\n");
                Conn::Client
            }
            Origin::Connected { tag } => {
                cx.write(&[tag as u8]);
                cx.close();
                Conn::Announcement
            }
        }
    }

    fn input(&mut self, _conn: &mut Conn, input: &[u8], _cx: &mut Context<'_>) -> usize {
        input.len()
    }

    fn writable(&mut self, _conn: &mut Conn, cx: &mut Context<'_>) {
        cx.write(format!("departures {}\n", self.departures).as_bytes());
    }

    fn mail(&mut self, _conn: &mut Conn, _mail: u8, cx: &mut Context<'_>) {
        cx.close();
    }

    fn undelivered(&mut self, mail: u8, cx: &mut LoopContext<'_>) {
        cx.connect(Connect::new(self.announce_to, u64::from(mail), PATIENCE)).unwrap();
    }

    fn closed(&mut self, conn: Conn, _reason: CloseReason, cx: &mut LoopContext<'_>) {
        if let Conn::Client = conn {
            self.departures += 1;
            self.closed_at = Some(cx.now());
            self.open.pop();
            self.open.iter().for_each(|token| cx.wake(*token));
        }
    }
}

fn read_line(client: &mut impl Read) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

#[test]
fn closed_wakes_another_connection_and_undelivered_begins_one() {
    let announced = listener();
    announced.set_nonblocking(false).unwrap();
    let announce_to = announced.local_addr().unwrap();
    let began = Instant::now();
    let server = start(Config::default(), Watchers { announce_to, open: Vec::new(), departures: 0, closed_at: None });
    let mut stays = server.connect();
    stays.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(read_line(&mut stays), "welcome\n");
    let mut leaves = server.connect();
    leaves.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(read_line(&mut leaves), "welcome\n");

    leaves.write_all(b"bye").unwrap();
    drop(leaves);
    assert_eq!(read_line(&mut stays), "departures 1\n", "the other connection was woken by `closed`");

    server.mail(Token::from_bits(u64::from(u16::MAX)), 7).unwrap();
    let (mut announcement, _) = announced.accept().unwrap();
    announcement.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut byte = [0];
    announcement.read_exact(&mut byte).unwrap();
    assert_eq!(byte, [7], "`undelivered` has begun a connection");

    let handler = server.stop();
    let since = handler.closed_at.unwrap().duration_since(began);
    assert!(since < 2 * PATIENCE, "the time of a turn, not {since:?} after the start");
}
