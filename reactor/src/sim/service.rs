//! The simulated service: a handler that uses everything a handler may, and notices when something comes that must not.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::kernel::Nanos;
use super::os::{FIRST_PEER_PORT, SimStream};
use super::peer::nonce;
use super::plan::Settings;
use super::protocol::{HEAD_BYTES, Head, Kind, Status};
use super::socket::Phase;
use super::workers::Mail;
use super::world::{Conn as Record, Time, Who, World};
use crate::{CloseReason, Connect, Context, Handler, LoopContext, Mailer, Origin, Pressure, Token};

/// See the module.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) world: Rc<RefCell<World>>,
    pub(crate) base: Instant,
    /// The number of its loop.
    pub(crate) of_loop: usize,
    pub(crate) mailer: Option<Mailer<Mail, SimStream>>,
    pub(crate) settings: Settings,
    /// When which upstream is to be connected to, earliest first.
    pub(crate) connects: VecDeque<(Nanos, u32)>,
    /// Those to be told what is published; some have gone.
    pub(super) subscribers: Vec<Token>,
    pub(super) published_in_turn: u64,
}

/// The service's state of one connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(super) id: u32,
    pub(super) who: Who,
    pub(super) state: State,
    /// Counts answers, so that one that comes too late is not taken for the next.
    pub(super) exchange: u32,
    pub(super) requests: usize,
    pub(super) in_request: bool,
    pub(super) is_subscribed: bool,
    pub(super) notes: u32,
    pub(super) is_closing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
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
    pub(crate) fn new(
        world: Rc<RefCell<World>>,
        base: Instant,
        of_loop: usize,
        settings: Settings,
        connects: VecDeque<(Nanos, u32)>,
    ) -> Service {
        world.borrow_mut().loops[of_loop].next_wake = connects.front().map(|(at, _)| *at);
        Service { world, base, of_loop, mailer: None, settings, connects, subscribers: Vec::new(), published_in_turn: 0 }
    }

    pub(super) fn world(&self) -> RefMut<'_, World> {
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

    pub(super) fn set_deadline(&self, id: u32, cx: &mut Context<'_>, after: Option<Nanos>) {
        let mut world = self.world();
        let at = after.map(|after| world.kernel.turn_started + after);
        world.conns[id as usize].deadline = at;
        cx.deadline(at.map(|at| self.base + Duration::from_nanos(at)));
    }

    pub(super) fn pause(&self, conn: &Conn, cx: &mut Context<'_>) {
        self.world().conns[conn.id as usize].paused = true;
        cx.pause();
    }

    pub(super) fn close(&self, conn: &mut Conn, cx: &mut Context<'_>) {
        conn.is_closing = true;
        self.set_deadline(conn.id, cx, None);
        cx.close();
    }

    /// A violation, told by the service.
    pub(super) fn violated(&self, what: String) {
        self.world().violated(what);
    }
}

impl Handler for Service {
    type Conn = Conn;
    type Mail = Mail;

    fn opened(&mut self, origin: Origin, cx: &mut Context<'_>) -> Conn {
        let who = match origin {
            Origin::Accepted { peer, .. } => {
                if cx.peer_addr().is_ok_and(|address| address != peer) {
                    self.violated(format!("a client from {peer} has another address in its context: {:?}", cx.peer_addr()));
                }
                Who::Peer(peer.socket_addr().map_or(0, |peer| u32::from(peer.port() - FIRST_PEER_PORT)))
            }
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
        if std::mem::replace(&mut world.kernel.socket(socket).is_opened, true) {
            let name = world.name(socket);
            world.violated(format!("{name} was opened twice"));
        }
        let (of_loop, opened_at) = (self.of_loop, world.kernel.turn_started);
        world.conns.push(Record {
            socket,
            of_loop,
            deadline: None,
            open: true,
            called_in_turn: 0,
            opened_at,
            offered_in_turn: 0,
            paused: false,
            wait: None,
        });
        drop(world);
        self.enter(id, "opened");
        self.set_deadline(id, cx, Some(self.settings.idle_timeout));
        let conn = Conn { id, who, state, exchange: 0, requests: 0, in_request: false, is_subscribed: false, notes: 0, is_closing: false };
        if let Who::Peer(_) = who {
            self.expendable(&conn, cx);
        }
        conn
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
        self.world().check_answer_came(conn, "its end came");
        if let (Who::Peer(peer), State::Idle) = (conn.who, conn.state)
            && rest_bytes > 0
        {
            self.world().peers[peer as usize].excuse.get_or_insert("it ended in the middle of a request");
        }
        self.close(conn, cx);
    }

    fn writable(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
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
        world.here().mail_taken += 1;
        if mail.conn != conn.id {
            let (to, got) = (world.conns[mail.conn as usize].socket, world.conns[conn.id as usize].socket);
            let (to, got) = (world.name(to), world.name(got));
            world.violated(format!("mail for {to} came to {got}"));
        }
        drop(world);
        if let State::Job { nonce, len } = conn.state
            && mail.exchange == conn.exchange
        {
            if cx.output_space() < HEAD_BYTES {
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

    fn undelivered(&mut self, mail: Mail, _cx: &mut LoopContext<'_>) {
        let mut world = self.world();
        world.turn_log.mail += 1;
        world.turn_log.progress = true;
        world.here().mail_taken += 1;
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
                let turn = self.world().here().turns;
                let blocked = self.world().kernel.sockets[record.socket as usize].log.blocked_since.is_some();
                if conn.is_subscribed && conn.notes < self.world().here().published && turn > self.published_in_turn + 1 && !blocked {
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
        if pressure == Pressure::NearlyFull {
            self.check_leaver(conn);
        }
        self.enter(conn.id, "pressed:");
        if pressure == Pressure::ConnectionsMax {
            let mut world = self.world();
            let socket = world.conns[conn.id as usize].socket;
            world.kernel.socket(socket).log.lingers_briefly = true;
        }
        let status = match pressure {
            Pressure::ConnectionsMax => Status::Refused,
            Pressure::BufferMemory | Pressure::NearlyFull => Status::Evicted,
            Pressure::ShuttingDown if conn.state != State::Idle || conn.in_request => {
                conn.is_closing = true; // When the answer is written.
                return;
            }
            Pressure::ShuttingDown => Status::Draining,
        };
        self.say_why(conn, cx, status);
        self.close(conn, cx);
    }

    fn panicked(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        self.enter(conn.id, "panic of");
        self.say_why(conn, cx, Status::Broken);
        self.set_deadline(conn.id, cx, None);
    }

    fn is_unfinished(&self, conn: &Conn) -> bool {
        matches!(conn.state, State::Answer { .. } | State::Echo { .. })
    }

    fn closed(&mut self, conn: Conn, reason: CloseReason, _cx: &mut LoopContext<'_>) {
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
        world.check_close(record, conn.who, reason);
        if matches!(reason, CloseReason::Finished | CloseReason::PeerClosed) {
            world.check_answer_came(&conn, "the connection closed in order");
        }
    }

    fn connect_failed(&mut self, tag: u64, error: std::io::Error, cx: &mut LoopContext<'_>) {
        let _ = cx;
        let mut world = self.world();
        world.turn_log.progress = true;
        let upstream = &mut world.upstreams[tag as usize];
        upstream.failed += 1;
        upstream.is_done = true;
        let due = upstream.connect_due.take();
        world.note(|line, _| {
            let _ = write!(line, "  connect to upstream {tag} failed: {error}");
        });
        world.check_connect_failed(tag, &error, due);
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
            if cx.connect(Connect::new(to, u64::from(upstream), timeout)).is_err() {
                self.world().violated(format!("the connect to upstream {upstream} was given back"));
            }
        }
        self.world().here().next_wake = self.connects.front().map(|(at, _)| *at);
    }
}
