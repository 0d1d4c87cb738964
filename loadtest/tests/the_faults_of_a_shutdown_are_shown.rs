//! The scenario of what a server does with its clients when it gets SIGTERM, as a user runs it.

mod common;

use common::is_shown;

#[test]
fn requests_in_flight_and_clients_in_the_queue_are_lost_when_a_server_stops_at_once() {
    is_shown("ungraceful-shutdown", "server/src/shutdown.rs");
}
