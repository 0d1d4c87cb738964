//! What the simulated service does with requests, and with the answers of upstreams.

use super::kernel::Nanos;
use super::peer::{nonce, whose};
use super::protocol::{HEAD_BYTES, Head, Kind, Status, first_difference, payload};
use super::service::{Conn, Service, State};
use super::upstream::{REQUEST_BYTES, REQUEST_FRAME_BYTES};
use super::workers::{Job, Mail};
use super::world::{Act, Who};
use crate::Context;

impl Service {
    /// Writes as much of the answer as there is room for.
    pub(super) fn go_on_answering(&self, conn: &mut Conn, cx: &mut Context<'_>) {
        let State::Answer { nonce, len, at } = &mut conn.state else { return };
        while at < len {
            let n = cx.write(payload(*nonce, *at as usize, (*len - *at) as usize));
            if n == 0 {
                return cx.want_writable();
            }
            *at += n as u16;
        }
        self.answered(conn, cx);
    }

    /// The end of an exchange.
    pub(super) fn answered(&self, conn: &mut Conn, cx: &mut Context<'_>) {
        let nonce = match conn.state {
            State::Answer { nonce, .. } | State::Echo { nonce, .. } => Some(nonce),
            _ => None,
        };
        conn.exchange += 1;
        conn.state = State::Idle;
        conn.in_request = false;
        self.world().conns[conn.id as usize].paused = false;
        cx.resume();
        self.set_deadline(conn.id, cx, Some(self.settings.idle_timeout));
        self.expendable(conn, cx);
        if conn.is_closing {
            // What is still asked for after this one need not be answered.
            if let (Who::Peer(peer), Some(nonce)) = (conn.who, nonce) {
                self.world().peers[peer as usize].last_owed = Some(nonce);
            }
            self.close(conn, cx);
        }
    }

    /// Begins an answer whose payload the service makes. There is room for its head.
    pub(super) fn answer(&self, conn: &mut Conn, cx: &mut Context<'_>, head: Head) {
        cx.write(&head.encode());
        conn.state = State::Answer { nonce: head.nonce, len: head.len, at: 0 };
        self.go_on_answering(conn, cx);
        if conn.state != State::Idle {
            self.pause(conn, cx);
        }
    }

    /// Tells the peer why the connection ends, where a frame can begin.
    pub(super) fn say_why(&self, conn: &Conn, cx: &mut Context<'_>, status: Status) {
        if matches!(conn.state, State::Idle | State::Job { .. } | State::Sleep { .. }) && cx.output_space() >= HEAD_BYTES {
            cx.write(&Head::new(Kind::Ending, status, 0, 0).encode());
        } else if let Who::Peer(peer) = conn.who {
            // In the middle of an answer: it breaks off.
            self.world().peers[peer as usize].excuse.get_or_insert("its answer had to break off");
        }
    }

    pub(super) fn send_notes(&self, conn: &mut Conn, cx: &mut Context<'_>) {
        let published = self.world().here().published;
        while conn.notes < published {
            if cx.output_space() < HEAD_BYTES {
                return cx.want_writable();
            }
            conn.notes += 1;
            cx.write(&Head::new(Kind::Note, Status::Good, 0, conn.notes).encode());
        }
    }

    /// A request's head is complete. 0 if it has to come again, when there is room.
    pub(super) fn request(&mut self, conn: &mut Conn, peer: u32, input: &[u8], cx: &mut Context<'_>) -> usize {
        let Some(head) = Head::decode(input).filter(|head| head.nonce == nonce(peer, conn.requests)) else {
            let (requests, got) = (conn.requests, Head::decode(input));
            self.violated(format!("peer {peer}: its request {requests} arrived as {got:?}"));
            return input.len();
        };
        if cx.output_space() < 2 * HEAD_BYTES {
            cx.want_writable();
            return 0;
        }
        let whole_bytes = if head.kind == Kind::Whole { HEAD_BYTES + head.len as usize } else { HEAD_BYTES };
        if input.len() < whole_bytes {
            return 0;
        }
        self.essential(conn, cx);
        let mut taken = HEAD_BYTES;
        let good = Head::new(head.kind, Status::Good, head.kind.answer_bytes(head.len), head.nonce);
        match head.kind {
            Kind::Echo => {
                cx.write(&good.encode());
                conn.state = State::Echo { nonce: head.nonce, len: head.len, at: 0 };
                if head.len == 0 {
                    self.answered(conn, cx);
                }
            }
            Kind::Whole => {
                taken = whole_bytes;
                self.check_payload(peer, head.nonce, 0, &input[HEAD_BYTES..taken]);
                self.answer(conn, cx, good);
            }
            Kind::Job => self.start_job(conn, head, cx),
            Kind::Sleep => {
                conn.state = State::Sleep { nonce: head.nonce };
                self.pause(conn, cx);
                self.set_deadline(conn.id, cx, Some(Nanos::from(head.len) * 100_000));
            }
            Kind::Stream => self.answer(conn, cx, good),
            Kind::Subscribe => {
                conn.is_subscribed = true;
                conn.notes = self.world().here().published;
                self.world().peers[peer as usize].notes_seen = conn.notes;
                self.subscribers.push(cx.token());
                self.answer(conn, cx, good);
            }
            Kind::Publish => {
                {
                    let mut world = self.world();
                    world.here().published += 1;
                    let turn = world.here().turns;
                    drop(world);
                    self.published_in_turn = turn;
                }
                self.answer(conn, cx, good);
                for subscriber in &self.subscribers {
                    cx.wake(*subscriber);
                }
            }
            Kind::Bye => {
                self.answer(conn, cx, good);
                self.close(conn, cx);
            }
            Kind::Abort => cx.abort(),
            // No panic hook runs: it is not to be seen on the terminal.
            Kind::Panic => std::panic::resume_unwind(Box::new("a panic of the simulated service")),
            Kind::Note | Kind::Ending => self.violated(format!("peer {peer} asked for {:?}", head.kind)),
        }
        conn.requests += 1;
        taken
    }

    pub(super) fn start_job(&mut self, conn: &mut Conn, head: Head, cx: &mut Context<'_>) {
        let Some(room) = self.mailer.as_ref().and_then(|mailer| mailer.reserve(cx.token())) else {
            let mail_max = self.world().limits.mail_max;
            let waiting = {
                let mut world = self.world();
                world.here().mail_sent - world.here().mail_taken
            };
            let at_work = self.world().jobs.iter().filter(|job| job.room.is_some()).count();
            // Of several loops the one that accepts has room reserved too.
            let is_alone = self.world().loops.len() == 1;
            if is_alone && at_work + (waiting as usize) < mail_max as usize {
                self.violated(format!("no room for mail, though {at_work} jobs and {waiting} pieces of mail hold less than {mail_max}"));
            }
            return self.answer(conn, cx, Head::new(head.kind, Status::Busy, 0, head.nonce));
        };
        conn.state = State::Job { nonce: head.nonce, len: head.len };
        self.pause(conn, cx);
        self.set_deadline(conn.id, cx, Some(self.settings.job_timeout));
        let mut world = self.world();
        let is_lost = world.kernel.rng.one_in(self.settings.lost_job_one_in);
        let after = match world.kernel.rng.below(4) {
            0 => 0,
            1 | 2 => world.kernel.rng.below(1_000_000),
            _ => world.kernel.rng.below(self.settings.job_nanos_max),
        };
        let mail = Mail { conn: conn.id, exchange: conn.exchange };
        let job = world.jobs.len() as u32;
        world.jobs.push(Job { room: Some(room), mail, of_loop: self.of_loop, is_lost });
        world.plan_after(after, Act::JobEnds(job));
    }

    pub(super) fn check_payload(&self, peer: u32, nonce: u32, at: usize, bytes: &[u8]) {
        if let Some(wrong) = first_difference(nonce, at, bytes) {
            self.violated(format!("peer {peer}: byte {wrong} of its {} arrived wrong", whose(nonce)));
        }
    }

    /// Takes what it can of the input.
    pub(super) fn take(&mut self, conn: &mut Conn, input: &[u8], cx: &mut Context<'_>) -> usize {
        let peer = match conn.who {
            Who::Upstream(upstream) => return self.upstream_input(conn, upstream, input, cx),
            Who::Peer(peer) => peer,
        };
        match conn.state {
            State::Idle => {
                if !conn.in_request {
                    conn.in_request = true;
                    self.expendable(conn, cx);
                    self.set_deadline(conn.id, cx, Some(self.settings.request_timeout));
                }
                if input.len() < HEAD_BYTES { 0 } else { self.request(conn, peer, input, cx) }
            }
            State::Echo { nonce, len, at } => {
                let offered = &input[..input.len().min((len - at) as usize)];
                self.check_payload(peer, nonce, at as usize, offered);
                let n = cx.write(offered);
                conn.state = State::Echo { nonce, len, at: at + n as u16 };
                if at + n as u16 == len {
                    self.answered(conn, cx);
                } else if n == 0 {
                    cx.want_writable();
                }
                n
            }
            state => {
                self.violated(format!("input came in the state {state:?}, which is paused"));
                input.len()
            }
        }
    }

    /// Input of an outbound connection: the greeting, then the echo of what was sent.
    pub(super) fn upstream_input(&mut self, conn: &mut Conn, upstream: u32, input: &[u8], cx: &mut Context<'_>) -> usize {
        match conn.state {
            State::Greeting { nonce } => {
                if input.len() < HEAD_BYTES {
                    return 0;
                }
                cx.write(&Head::new(Kind::Echo, Status::Good, REQUEST_BYTES as u16, nonce).encode());
                let mut at = 0;
                while at < REQUEST_BYTES {
                    let n = cx.write(payload(nonce, at, REQUEST_BYTES - at));
                    if n == 0 {
                        self.violated(format!("no room for {REQUEST_FRAME_BYTES} bytes in an empty output"));
                        return HEAD_BYTES;
                    }
                    at += n;
                }
                conn.state = State::Asked { nonce, at: 0 };
                if self.settings.half_closes {
                    // The end of the request. The answer comes after it.
                    let mut world = self.world();
                    let socket = world.conns[conn.id as usize].socket;
                    world.kernel.socket(socket).log.is_half_closing = true;
                    drop(world);
                    cx.shutdown_write();
                }
                HEAD_BYTES
            }
            State::Asked { nonce, at } => {
                let n = input.len().min(REQUEST_FRAME_BYTES - at);
                let head_bytes = HEAD_BYTES.saturating_sub(at).min(n);
                let from = at.saturating_sub(HEAD_BYTES);
                if let Some(wrong) = first_difference(nonce, from, &input[head_bytes..n]) {
                    self.violated(format!("upstream {upstream}: byte {wrong} of its answer is wrong"));
                }
                conn.state = State::Asked { nonce, at: at + n };
                if at + n == REQUEST_FRAME_BYTES {
                    self.close(conn, cx);
                }
                n
            }
            _ => input.len(),
        }
    }
}
