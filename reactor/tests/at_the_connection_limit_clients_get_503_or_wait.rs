//! At `connections_max` a client hears at once that there is no room, or waits in the kernel's queue until there is: never silence by accident.

mod support;

use std::net::TcpStream;
use std::time::Duration;

use reactor::policy::AtConnectionsMax;
use reactor::{CloseReason, Config, Pressure};
use support::lines::{Lines, Told, wait_for};
use support::{ask, connect, prepare, read_all, start, until};

fn config(connections_max: u32, refusals_max: u32, at: AtConnectionsMax) -> Config {
    let mut config = Config::default();
    config.limits.connections_max = connections_max;
    config.limits.refusals_max = refusals_max;
    config.policy.at_connections_max = at;
    config
}

#[test]
fn a_client_over_the_limit_hears_so_and_then_the_end() {
    let (mut lines, heard) = Lines::new();
    lines.goodbye = "full\n";
    let server = start(config(2, 8, AtConnectionsMax::Refuse), lines);
    let mut guests = [server.connect(), server.connect()];
    guests.iter_mut().for_each(|guest| ask(guest, "hello"));
    for _ in 0..5 {
        assert_eq!(read_all(&mut server.connect()), b"full\n");
        let refused = wait_for(&heard, |told| match told {
            Told::Pressed(token, Pressure::ConnectionsMax) => Some(token),
            _ => None,
        });
        assert_eq!(support::lines::wait_for_close(&heard, refused), CloseReason::Refused);
    }
    guests.iter_mut().for_each(|guest| ask(guest, "still here"));
    let [guest, _other] = guests;
    drop(guest);
    until("the slot is free", || server.stats.connections_open.get() == 1);
    ask(&mut server.connect(), "hello");
}

#[test]
fn a_client_that_was_sending_when_it_was_refused_still_reads_why() {
    // Its bytes lie unread in our socket; a plain close would reset it (`early-close`).
    let mut lines = Lines::silent();
    lines.goodbye = "full\n";
    let server = prepare(config(1, 8, AtConnectionsMax::Refuse), lines);
    let mut guest = connect(server.address);
    let mut refused = connect(server.address);
    std::io::Write::write_all(&mut refused, &support::pattern(100_000)).unwrap();
    let _server = server.run();
    ask(&mut guest, "hello");
    std::io::Write::write_all(&mut refused, &support::pattern(1_000_000)).expect("what it sends is read and forgotten");
    assert_eq!(read_all(&mut refused), b"full\n");
}

#[test]
fn clients_beyond_the_refusals_wait_until_a_refused_one_has_gone() {
    let mut lines = Lines::silent();
    lines.goodbye = "full\n";
    let server = start(config(1, 2, AtConnectionsMax::Refuse), lines);
    let mut guest = server.connect();
    ask(&mut guest, "hello");
    // Two of them at a time may linger; each leaves and lets the next one hear it.
    let refused: Vec<TcpStream> = (0..50).map(|_| server.connect()).collect();
    for mut client in refused {
        assert_eq!(read_all(&mut client), b"full\n");
    }
    ask(&mut guest, "still here");
}

#[test]
fn waiting_clients_are_served_in_order_as_others_disconnect() {
    let server = start(config(3, 8, AtConnectionsMax::Wait), Lines::silent());
    let clients: Vec<TcpStream> = (0..60).map(|_| server.connect()).collect();
    for mut client in clients {
        ask(&mut client, "hello");
    }
    assert_eq!(server.stats.accepts.get(), 60);
    assert_eq!(server.stats.closes(CloseReason::Refused).get(), 0);
}

#[test]
fn a_refused_client_that_stays_is_closed_long_before_one_that_was_served() {
    let mut config = config(1, 1, AtConnectionsMax::Refuse);
    config.limits.linger_timeout = Duration::from_secs(3600);
    config.limits.refused_linger_timeout = Duration::from_millis(20);
    let server = start(config, Lines::silent());
    let mut guest = server.connect();
    ask(&mut guest, "hello");
    // It reads and sends nothing, and does not close: its place is the only one from which the next client can be told.
    let stays = server.connect();
    until("it is closed", || server.stats.closes(CloseReason::Refused).get() == 1);
    drop(stays);
}

#[test]
fn a_connection_lingers_for_less_while_slots_are_short() {
    let mut config = config(4, 8, AtConnectionsMax::Refuse);
    config.limits.free_slots_min = 2; // Two are at ease.
    config.limits.linger_timeout = Duration::from_secs(3600);
    config.limits.refused_linger_timeout = Duration::from_millis(1);
    let server = start(config, Lines::silent());
    let open = || server.stats.connections_open.get();
    // It says goodbye, hears the end, and does not leave.
    let finish = |mut client: TcpStream| {
        ask(&mut client, "hello");
        std::io::Write::write_all(&mut client, b"close\n").unwrap();
        assert_eq!(read_all(&mut client), b"bye\n");
        client
    };
    let at_ease = finish(server.connect());
    let mut guests = [server.connect(), server.connect()];
    guests.iter_mut().for_each(|guest| ask(guest, "hello"));
    let crowded = finish(server.connect());
    until("its place is free", || open() == 3);
    assert_eq!(server.stats.connections_lingering.get(), 1, "who began while there was room has its time");
    drop((at_ease, crowded));
    guests.iter_mut().for_each(|guest| ask(guest, "still here"));
}
