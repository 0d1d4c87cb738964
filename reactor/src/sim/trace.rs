//! The trace, in words: one line for each turn, and below it what happened in it.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use super::kernel::{Nanos, SocketId};
use super::world::{Time, World};
use crate::os::{Event, Ready};
use crate::token::Token;

pub(crate) fn trace_poll(line: &mut String, world: &World, timeout: Option<Duration>, start: Nanos, returned_at: Nanos, events: &[Event]) {
    let now = world.kernel.now;
    let mut how = match timeout {
        Some(Duration::ZERO) => "does not wait".to_owned(),
        _ => format!("waited {}", Time(returned_at - start)),
    };
    if now > returned_at {
        let _ = write!(how, ", then preempted for {}", Time(now - returned_at));
    }
    if world.loops.len() > 1 {
        let _ = write!(line, "loop {}, ", world.kernel.at);
    }
    let _ = write!(line, "turn {}, {}: poll {how}", world.kernel.turn, Time(now));
    for (i, event) in events.iter().enumerate() {
        let _ = write!(line, "{}", if i == 0 { "; events: " } else { ", " });
        let socket =
            world.kernel.sockets.iter().position(|socket| socket.registered == Some(event.token) && socket.of_loop == world.kernel.at);
        let _ = match (event.token, socket) {
            (Token::WAKER, _) => write!(line, "mail"),
            (Token::TIMER, _) => write!(line, "timer"),
            (token, None) => write!(line, "listener {}", token.listener_index().unwrap_or(0)),
            (token, Some(socket)) => write!(line, "slot {} = {} {}", Slot(token), world.name(socket as SocketId), bits(event.ready)),
        };
    }
}

/// A token as slot and generation.
pub(crate) struct Slot(pub(crate) Token);

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0.slot, self.0.generation)
    }
}

fn bits(ready: Ready) -> String {
    let names = [
        (Ready::READABLE, "readable"),
        (Ready::WRITABLE, "writable"),
        (Ready::READ_CLOSED, "read-closed"),
        (Ready::WRITE_CLOSED, "write-closed"),
        (Ready::ERROR, "error"),
        (Ready::PRIORITY, "priority"),
    ];
    names.iter().filter(|(bit, _)| ready.intersects(*bit)).map(|(_, name)| *name).collect::<Vec<_>>().join("+")
}

pub(crate) fn outcome(result: &io::Result<usize>) -> String {
    match result {
        Ok(n) => n.to_string(),
        Err(e) => errno_name(e),
    }
}

pub(crate) fn errno_name(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::WouldBlock => "would block".to_owned(),
        io::ErrorKind::Interrupted => "interrupted".to_owned(),
        _ => e.to_string(),
    }
}
