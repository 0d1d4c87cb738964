//! The simulated service: a handler that uses everything a handler may, and notices when something comes that must not.
//!
//! Read next: `plan.rs`, which decides what it meets.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::kernel::Nanos;
use super::os::FIRST_PEER_PORT;
use super::peer::{nonce, whose};
use super::protocol::{HEAD_BYTES, Head, Kind, Status, first_difference, payload};
use super::socket::Phase;
use super::upstream::{REQUEST_BYTES, REQUEST_FRAME_BYTES};
use super::workers::{Job, Mail};
use super::world::{Act, Conn as Record, Time, Who, World};
use crate::{CloseReason, Connect, Context, Handler, LoopContext, Mailer, Origin, Pressure, Token};

/// The service's own times and costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) idle_timeout: Nanos,
    /// For one request, from its first byte on; progress does not move it.
    pub(crate) request_timeout: Nanos,
    pub(crate) job_timeout: Nanos,
    pub(crate) job_nanos_max: Nanos,
    /// Every how many jobs one ends without a word.
    pub(crate) lost_job_one_in: u64,
    /// What a callback costs.
    pub(crate) callback_nanos: Nanos,
    /// Every how many callbacks one takes long, and how long at most.
    pub(crate) slow_one_in: u64,
    pub(crate) slow_nanos_max: Nanos,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) world: Rc<RefCell<World>>,
    pub(crate) base: Instant,
    pub(crate) mailer: Option<Mailer<Mail>>,
    pub(crate) settings: Settings,
    /// When which upstream is to be connected to, earliest first.
    pub(crate) connects: VecDeque<(Nanos, u32)>,
    /// Those to be told what is published; some have gone.
    subscribers: Vec<Token>,
    published_in_turn: u64,
}

/// The service's state of one connection.
#[derive(Debug)]
pub(crate) struct Conn {
    id: u32,
    who: Who,
    state: State,
    /// Counts answers, so that one that comes too late is not taken for the next.
    exchange: u32,
    requests: usize,
    in_request: bool,
    is_subscribed: bool,
    notes: u32,
    is_closing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// `at` of `len` bytes of the request's payload have gone back.
    Echo {
        nonce: u32,
        len: u16,
        at: u16,
    },
    /// `at` of `len` bytes of the answer's payload are written.
    Answer {
        nonce: u32,
        len: u16,
        at: u16,
    },
    Job {
        nonce: u32,
        len: u16,
    },
    Sleep {
        nonce: u32,
    },
    /// Outbound: waits for the greeting.
    Greeting {
        nonce: u32,
    },
    /// Outbound: so many bytes of the answer have come.
    Asked {
        nonce: u32,
        at: usize,
    },
}

const INPUT: &str = "input from";

impl World {
    /// The service's callback changed something for a connection.
    fn got_somewhere(&mut self, id: u32) {
        self.conns[id as usize].called_in_turn = self.kernel.turn;
        self.turn_log.progress = true;
    }
}

impl Service {
    pub(crate) fn new(world: Rc<RefCell<World>>, base: Instant, settings: Settings, connects: VecDeque<(Nanos, u32)>) -> Service {
        world.borrow_mut().next_wake = connects.front().map(|(at, _)| *at);
        Service { world, base, mailer: None, settings, connects, subscribers: Vec::new(), published_in_turn: 0 }
    }

    fn world(&self) -> RefMut<'_, World> {
        self.world.borrow_mut()
    }

    /// A callback begins: it costs time, and counts as getting somewhere.
    fn enter(&self, id: u32, what: &str) {
        let mut world = self.world();
        if what != INPUT {
            world.got_somewhere(id);
        }
        world.note(|line, world| {
            let _ = write!(line, "  {what} {}", world.name(world.conns[id as usize].socket));
        });
        let slow_one_in = self.settings.slow_one_in;
        let cost = match slow_one_in > 0 && world.kernel.rng.one_in(slow_one_in) {
            true => world.kernel.rng.below(self.settings.slow_nanos_max),
            false => self.settings.callback_nanos,
        };
        world.spend(cost);
    }

    fn set_deadline(&self, id: u32, cx: &mut Context<'_>, after: Option<Nanos>) {
        let mut world = self.world();
        let at = after.map(|after| world.kernel.turn_started + after);
        world.conns[id as usize].deadline = at;
        cx.deadline(at.map(|at| self.base + Duration::from_nanos(at)));
    }

    fn pause(&self, conn: &Conn, cx: &mut Context<'_>) {
        self.world().conns[conn.id as usize].paused = true;
        cx.pause();
    }

    fn close(&self, conn: &mut Conn, cx: &mut Context<'_>) {
        conn.is_closing = true;
        self.set_deadline(conn.id, cx, None);
        cx.close();
    }

    /// A violation, told by the service.
    fn violated(&self, what: String) {
        self.world().violated(what);
    }

    /// The end of an exchange.
    fn answered(&self, conn: &mut Conn, cx: &mut Context<'_>) {
        conn.exchange += 1;
        conn.state = State::Idle;
        conn.in_request = false;
        self.world().conns[conn.id as usize].paused = false;
        cx.resume();
        self.set_deadline(conn.id, cx, Some(self.settings.idle_timeout));
        if conn.is_closing {
            self.close(conn, cx);
        }
    }

    /// Writes as much of the answer as there is room for.
    fn go_on_answering(&self, conn: &mut Conn, cx: &mut Context<'_>) {
        let State::Answer { nonce, len, at } = &mut conn.state else { return };
        while at < len {
            let n = cx.write(payload(*nonce, *at as usize, (*len - *at) as usize));
            if n == 0 {
                return cx.want_room();
            }
            *at += n as u16;
        }
        self.answered(conn, cx);
    }

    /// Begins an answer whose payload the service makes. There is room for its head.
    fn answer(&self, conn: &mut Conn, cx: &mut Context<'_>, head: Head) {
        cx.write(&head.encode());
        conn.state = State::Answer { nonce: head.nonce, len: head.len, at: 0 };
        self.go_on_answering(conn, cx);
        if conn.state != State::Idle {
            self.pause(conn, cx);
        }
    }

    /// Tells the peer why the connection ends, where a frame can begin.
    fn say_why(&self, conn: &Conn, cx: &mut Context<'_>, status: Status) {
        if matches!(conn.state, State::Idle | State::Job { .. } | State::Sleep { .. }) && cx.room() >= HEAD_BYTES {
            cx.write(&Head::new(Kind::Ending, status, 0, 0).encode());
        } else if let Who::Peer(peer) = conn.who {
            // In the middle of an answer: it breaks off.
            self.world().peers[peer as usize].excuse.get_or_insert("its answer had to break off");
        }
    }

    fn send_notes(&self, conn: &mut Conn, cx: &mut Context<'_>) {
        let published = self.world().published;
        while conn.notes < published {
            if cx.room() < HEAD_BYTES {
                return cx.want_room();
            }
            conn.notes += 1;
            cx.write(&Head::new(Kind::Note, Status::Good, 0, conn.notes).encode());
        }
    }

    /// A request's head is complete. 0 if it has to come again, when there is room.
    fn request(&mut self, conn: &mut Conn, peer: u32, input: &[u8], cx: &mut Context<'_>) -> usize {
        let Some(head) = Head::decode(input).filter(|head| head.nonce == nonce(peer, conn.requests)) else {
            let (requests, got) = (conn.requests, Head::decode(input));
            self.violated(format!("peer {peer}: its request {requests} arrived as {got:?}"));
            return input.len();
        };
        if cx.room() < 2 * HEAD_BYTES {
            cx.want_room();
            return 0;
        }
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
                taken += head.len as usize;
                if input.len() < taken {
                    return 0;
                }
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
                conn.notes = self.world().published;
                self.world().peers[peer as usize].notes_seen = conn.notes;
                self.subscribers.push(cx.token());
                self.answer(conn, cx, good);
            }
            Kind::Publish => {
                {
                    let mut world = self.world();
                    world.published += 1;
                    let turn = world.kernel.turn;
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

    fn start_job(&mut self, conn: &mut Conn, head: Head, cx: &mut Context<'_>) {
        let Some(room) = self.mailer.as_ref().and_then(|mailer| mailer.reserve(cx.token())) else {
            let mail_max = self.world().limits.mail_max;
            let waiting = self.world().mail_sent - self.world().mail_taken;
            let at_work = self.world().jobs.iter().filter(|job| job.room.is_some()).count();
            if at_work + (waiting as usize) < mail_max as usize {
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
        world.jobs.push(Job { room: Some(room), mail, is_lost });
        world.plan_after(after, Act::JobEnds(job));
    }

    fn check_payload(&self, peer: u32, nonce: u32, at: usize, bytes: &[u8]) {
        if let Some(wrong) = first_difference(nonce, at, bytes) {
            self.violated(format!("peer {peer}: byte {wrong} of its {} arrived wrong", whose(nonce)));
        }
    }

    /// Takes what it can of the input.
    fn take(&mut self, conn: &mut Conn, input: &[u8], cx: &mut Context<'_>) -> usize {
        let peer = match conn.who {
            Who::Upstream(upstream) => return self.upstream_input(conn, upstream, input, cx),
            Who::Peer(peer) => peer,
        };
        match conn.state {
            State::Idle => {
                if !conn.in_request {
                    conn.in_request = true;
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
                    cx.want_room();
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
    fn upstream_input(&mut self, conn: &mut Conn, upstream: u32, input: &[u8], cx: &mut Context<'_>) -> usize {
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

    /// A deadline must not end somebody who has spoken already, with the loop knowing it since this turn's poll.
    fn check_input_came_first(&self, conn: &Conn) {
        let mut world = self.world();
        let record = world.conns[conn.id as usize];
        let socket = &world.kernel.sockets[record.socket as usize];
        let log = socket.log;
        // Output that was in the way, if only at the beginning of the turn, holds the input too.
        let held = record.paused || log.blocked_since.is_some() || log.bytes_written > 0;
        // Input from before may have filled the buffer: then that was handed out in this turn.
        let spoken_to = record.offered_in_turn == world.kernel.turn;
        if log.reported && log.reads == 0 && !socket.received.is_empty() && !held && !spoken_to {
            let name = world.name(record.socket);
            world.violated(format!("the deadline of {name} ran before its input, which poll had reported"));
        }
    }
}

impl Handler for Service {
    type Conn = Conn;
    type Mail = Mail;

    fn opened(&mut self, origin: Origin, cx: &mut Context<'_>) -> Conn {
        let who = match origin {
            Origin::Accepted { peer, .. } => Who::Peer(u32::from(peer.port() - FIRST_PEER_PORT)),
            Origin::Connected { tag } => Who::Upstream(tag as u32),
        };
        let mut world = self.world();
        let id = world.conns.len() as u32;
        let (socket, state) = match who {
            Who::Peer(peer) => (world.peers[peer as usize].socket, State::Idle),
            Who::Upstream(upstream) => {
                let upstream_state = &mut world.upstreams[upstream as usize];
                upstream_state.opened += 1;
                let phase = upstream_state.socket.map(|id| world.kernel.sockets[id as usize].phase);
                if phase == Some(Phase::Connecting) {
                    world.violated(format!("the connect to upstream {upstream} was believed before it had ended"));
                }
                let upstream_state = &mut world.upstreams[upstream as usize];
                upstream_state.connect_due = None;
                (upstream_state.socket, State::Greeting { nonce: nonce((1 << 19) + upstream, 0) })
            }
        };
        let Some(socket) = socket else { unreachable!("a connection has a socket") };
        world.conns.push(Record { socket, deadline: None, open: true, called_in_turn: 0, offered_in_turn: 0, paused: false });
        drop(world);
        self.enter(id, "opened");
        self.set_deadline(id, cx, Some(self.settings.idle_timeout));
        Conn { id, who, state, exchange: 0, requests: 0, in_request: false, is_subscribed: false, notes: 0, is_closing: false }
    }

    fn input(&mut self, conn: &mut Conn, input: &[u8], cx: &mut Context<'_>) -> usize {
        self.enter(conn.id, INPUT);
        let n = self.take(conn, input, cx);
        let mut world = self.world();
        let turn = world.kernel.turn;
        world.conns[conn.id as usize].offered_in_turn = turn;
        if n > 0 {
            world.got_somewhere(conn.id);
        }
        n
    }

    fn ended(&mut self, conn: &mut Conn, rest_bytes: usize, cx: &mut Context<'_>) {
        self.enter(conn.id, "end of input from");
        if let (Who::Peer(peer), State::Idle) = (conn.who, conn.state)
            && rest_bytes > 0
        {
            self.world().peers[peer as usize].excuse.get_or_insert("it ended in the middle of a request");
        }
        self.close(conn, cx);
    }

    fn room(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        self.enter(conn.id, "room for");
        match conn.state {
            State::Answer { .. } => self.go_on_answering(conn, cx),
            State::Idle if conn.is_subscribed => self.send_notes(conn, cx),
            _ => {}
        }
    }

    fn mail(&mut self, conn: &mut Conn, mail: Mail, cx: &mut Context<'_>) {
        self.enter(conn.id, "mail for");
        let mut world = self.world();
        world.turn_log.mail += 1;
        world.mail_taken += 1;
        if mail.conn != conn.id {
            let (to, got) = (world.conns[mail.conn as usize].socket, world.conns[conn.id as usize].socket);
            let (to, got) = (world.name(to), world.name(got));
            world.violated(format!("mail for {to} came to {got}"));
        }
        drop(world);
        if let State::Job { nonce, len } = conn.state
            && mail.exchange == conn.exchange
        {
            if cx.room() < HEAD_BYTES {
                // As a service that cannot answer now may do: nothing was promised about room.
                conn.is_closing = true;
                self.say_why(conn, cx, Status::Evicted);
                if let Who::Peer(peer) = conn.who {
                    self.world().peers[peer as usize].excuse.get_or_insert("there was no room for its answer");
                }
                return self.close(conn, cx);
            }
            self.answer(conn, cx, Head::new(Kind::Job, Status::Good, len, nonce));
        }
    }

    fn undelivered(&mut self, mail: Mail) {
        let mut world = self.world();
        world.turn_log.mail += 1;
        world.turn_log.progress = true;
        world.mail_taken += 1;
        world.note(|line, _| {
            let _ = write!(line, "  mail for connection {}, which has gone", mail.conn);
        });
    }

    fn deadline(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        let record = self.world().conns[conn.id as usize];
        let now = self.world().kernel.turn_started;
        self.world().turn_log.deadlines += 1;
        match record.deadline {
            None => self.violated(format!("a deadline ran for {}, and none was set", self.world().name(record.socket))),
            Some(at) if at > now => {
                self.violated(format!("the deadline of {} ran {} early", self.world().name(record.socket), Time(at - now)));
            }
            Some(_) => {}
        }
        self.world().conns[conn.id as usize].deadline = None;
        self.check_input_came_first(conn);
        self.enter(conn.id, "deadline of");
        match conn.state {
            State::Sleep { nonce } => self.answer(conn, cx, Head::new(Kind::Sleep, Status::Good, 0, nonce)),
            State::Job { nonce, .. } => self.answer(conn, cx, Head::new(Kind::Job, Status::TooLate, 0, nonce)),
            // What the peer does not take is the write stall timeout's affair.
            State::Answer { .. } => self.set_deadline(conn.id, cx, Some(self.settings.idle_timeout)),
            State::Idle | State::Echo { .. } => {
                let turn = self.world().kernel.turn;
                let blocked = self.world().kernel.sockets[record.socket as usize].log.blocked_since.is_some();
                if conn.is_subscribed && conn.notes < self.world().published && turn > self.published_in_turn + 1 && !blocked {
                    let name = self.world().name(record.socket);
                    self.violated(format!("{name} was not woken for note {}", conn.notes + 1));
                }
                self.say_why(conn, cx, Status::TimedOut);
                self.close(conn, cx);
            }
            State::Greeting { .. } | State::Asked { .. } => cx.abort(),
        }
    }

    fn pressed(&mut self, conn: &mut Conn, pressure: Pressure, cx: &mut Context<'_>) {
        self.enter(conn.id, "pressed:");
        let status = match pressure {
            Pressure::ConnectionsMax => Status::Refused,
            Pressure::BufferMemory => Status::Evicted,
            Pressure::Draining if conn.state != State::Idle || conn.in_request => {
                conn.is_closing = true; // When the answer is written.
                return;
            }
            Pressure::Draining => Status::Draining,
        };
        self.say_why(conn, cx, status);
        self.close(conn, cx);
    }

    fn panicked(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        self.enter(conn.id, "panic of");
        self.say_why(conn, cx, Status::Broken);
        self.set_deadline(conn.id, cx, None);
    }

    fn closed(&mut self, conn: Conn, reason: CloseReason) {
        let mut world = self.world();
        let record = &mut world.conns[conn.id as usize];
        if !std::mem::replace(&mut record.open, false) {
            world.violated(format!("connection {} was closed twice", conn.id));
            return;
        }
        let record = world.conns[conn.id as usize];
        world.note(|line, world| {
            let _ = write!(line, "  closed {}: {}", world.name(record.socket), reason.label());
        });
        let excuse = match reason {
            CloseReason::Evicted => Some("its memory was needed"),
            CloseReason::LoopEnded => Some("the loop ended"),
            _ => None,
        };
        if let (Some(excuse), Who::Peer(peer)) = (excuse, conn.who) {
            world.peers[peer as usize].excuse.get_or_insert(excuse);
        }
        if reason == CloseReason::WriteStalled {
            let stall = world.limits.write_stall_timeout.as_nanos() as Nanos;
            let log = world.kernel.sockets[record.socket as usize].log;
            if let (true, Who::Peer(peer)) = (world.kernel.turn_started < log.progress_clock + stall, conn.who) {
                // All times of a turn count from its beginning (`Context::now`): callbacks that cost as much as the timeout shorten it.
                world.peers[peer as usize].excuse.get_or_insert("the loop was late");
            }
            let progress_at = log.progress_at;
            if let Some(at) = progress_at.filter(|at| world.kernel.turn_started < at + stall) {
                let (name, after) = (world.name(record.socket), Time(world.kernel.turn_started - at));
                world.violated(format!("{name} was closed for a stall {after} after its output made progress"));
            }
        }
    }

    fn connect_failed(&mut self, tag: u64, error: std::io::Error, cx: &mut LoopContext<'_>) {
        let _ = cx;
        let mut world = self.world();
        let now = world.kernel.turn_started;
        world.turn_log.progress = true;
        let upstream = &mut world.upstreams[tag as usize];
        upstream.failed += 1;
        upstream.is_done = true;
        let due = upstream.connect_due.take();
        world.note(|line, _| {
            let _ = write!(line, "  connect to upstream {tag} failed: {error}");
        });
        if error.kind() == std::io::ErrorKind::TimedOut && due.is_some_and(|at| now < at) {
            world.violated(format!("the connect to upstream {tag} timed out early"));
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        self.connects.front().map(|(at, _)| self.base + Duration::from_nanos(*at))
    }

    fn woke(&mut self, cx: &mut LoopContext<'_>) {
        let now = self.world().kernel.turn_started;
        if self.connects.front().is_none_or(|(at, _)| *at > now) {
            self.violated("woke ran before the time of next_wake".to_owned());
        }
        while let Some((_, upstream)) = self.connects.front().copied().filter(|(at, _)| *at <= now) {
            self.connects.pop_front();
            let mut world = self.world();
            world.turn_log.progress = true;
            let asked = &mut world.upstreams[upstream as usize];
            asked.is_asked = true;
            let timeout = Duration::from_nanos(asked.connect_timeout);
            drop(world);
            let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), FIRST_PEER_PORT + upstream as u16);
            cx.connect(Connect { to, from: None, tag: u64::from(upstream), timeout });
        }
        self.world().next_wake = self.connects.front().map(|(at, _)| *at);
    }
}
