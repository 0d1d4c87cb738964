//! The scenarios of what a loop can do wrong with readiness, fairness, sharing and descriptors, as a user runs them. Each judges itself;
//! here it is enough that it finds its contrast.

mod common;

use common::is_shown;

#[test]
fn clients_that_have_gone_quiet_hang_when_a_socket_is_read_once_for_each_event() {
    is_shown("edge-starvation", "reactor/src/io.rs");
}

#[test]
fn everyone_waits_for_a_connection_that_is_never_empty() {
    is_shown("firehose", "reactor/src/visit.rs");
}

#[test]
fn every_loop_wakes_for_each_connection_on_a_shared_listener() {
    is_shown("herd", "reactor/src/listen/socket.rs");
}

#[test]
fn a_server_grows_by_all_that_its_clients_do_not_read_when_nothing_bounds_it() {
    is_shown("slow-consumer", "reactor/src/progress.rs");
}

#[test]
fn large_answers_to_slow_clients_have_holes_when_the_rest_of_a_write_is_dropped() {
    is_shown("partial-write", "reactor/src/io.rs");
}

#[test]
fn requests_are_refused_or_forgotten_when_a_read_is_taken_for_a_message() {
    is_shown("partial-read", "reactor/src/visit.rs");
}

#[test]
fn slow_clients_keep_newcomers_out_when_each_byte_moves_the_deadline_of_a_head() {
    is_shown("slowloris", "server/src/connection.rs");
}

#[test]
fn clients_that_are_still_sending_get_an_error_instead_of_their_answer_when_it_is_followed_by_a_close() {
    is_shown("early-close", "reactor/src/close.rs");
}

#[test]
fn every_answer_waits_for_a_late_acknowledgement_when_it_is_written_in_two() {
    is_shown("split-write", "reactor/src/visit.rs");
}

#[test]
fn clients_in_the_queue_hang_when_accept_is_not_retried_after_emfile() {
    is_shown("fd-exhaustion", "reactor/src/listen/accept.rs");
}
