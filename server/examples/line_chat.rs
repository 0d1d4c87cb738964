//! A second protocol, to show that nothing below is HTTP's: a chat of text lines, on the reactor alone.
//!
//! `cargo run --release -p server --example line_chat -- 127.0.0.1:7000`, then `nc 127.0.0.1 7000` in several terminals.
//!
//! What one member says goes to all. Written naively that is a copy of each line for each member, waiting wherever a member is slow
//! (`broadcast-copy`: n × m copies). Here:
//!
//! - A line exists once, in the [`Backlog`]; a member is a cursor into it. `writable` copies what fits.
//! - Everything is bounded: a line, the backlog, a member's unsent output (by the reactor), the members served in one turn.
//! - Who reads too slowly is overtaken by the backlog. What then happens is a value, [`SlowMember`].
//! - Who talks faster than the others can be served is not read from: backpressure, not a flood that overtakes everybody.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::ops::Bound;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reactor::listen::socket::{ListenOptions, listen};
use reactor::{CloseReason, Config, Context, EventLoop, Handler, LinuxListener, ListenerWakes, LoopContext, Origin, Pressure, Token};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// One line with its end. IRC has 512 (RFC 2812 section 2.3).
const LINE_BYTES_MAX: usize = 1024;
/// What a member may fall behind before it counts as slow, and all the memory that lines take, however many members there are.
const BACKLOG_BYTES_MAX: usize = 1 << 20;
/// What a line costs beside its bytes: its place in the queue, the two counts of `Arc`, the allocator's header.
const LINE_OVERHEAD_BYTES: usize = 48;
/// What may be said while everybody is served once. A quarter of the backlog: between two visits to a member at most two and a bit of these
/// come in (the rest of one round, the next one, a turn of a third), so who has room when its turn comes is never overtaken.
const ROUND_BYTES_MAX: usize = BACKLOG_BYTES_MAX / 4;
/// Members served in one turn. Each is a write(2) of some microseconds; with 10,000 members one line would otherwise hold up everybody's
/// reading, and the next accept, for the time of 10,000.
const MEMBERS_PER_TURN_MAX: usize = 256;
/// How long SIGTERM waits for members to get what was said before it.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// What becomes of a member that the backlog has overtaken.
#[derive(Clone, Copy, Default)]
enum SlowMember {
    /// It is told how many lines it missed, and goes on with the oldest that is still there.
    #[default]
    Skip,
    /// It is disconnected. Right where a gap is worse than an end: it can come back and ask for a fresh start.
    Disconnect,
}

/// The newest lines, numbered from 0 since the start of the server. The oldest give way.
#[derive(Default)]
struct Backlog {
    lines: VecDeque<Arc<[u8]>>,
    /// The number of the oldest line that is still there.
    first: u64,
    bytes: usize,
}

impl Backlog {
    /// The number that the next line will get.
    fn end(&self) -> u64 {
        self.first + self.lines.len() as u64
    }

    fn get(&self, number: u64) -> Option<&Arc<[u8]>> {
        self.lines.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn push(&mut self, line: Arc<[u8]>) {
        self.bytes += line.len() + LINE_OVERHEAD_BYTES;
        self.lines.push_back(line);
        while self.bytes > BACKLOG_BYTES_MAX
            && let Some(oldest) = self.lines.pop_front()
        {
            self.bytes -= oldest.len() + LINE_OVERHEAD_BYTES;
            self.first += 1;
        }
    }
}

/// One connection.
struct Member {
    token: Token,
    name: u64,
    /// The number of the line that it gets next.
    next: u64,
    /// The line that it is in the middle of, and how much of it is written. Its own reference: should the backlog drop the line meanwhile,
    /// its end is still sent, and what follows begins on a line of its own.
    line: Option<(Arc<[u8]>, usize)>,
    /// For this member alone, behind the lines that it has to get.
    note: Option<Arc<[u8]>>,
    /// No line from this number on: it leaves when it has those before.
    until: u64,
    /// It was asked whether it is still there.
    asked: bool,
}

/// The room: one value for the loop, no lock. With several loops each would have one, and a line would cross by mail: hence `Arc`.
#[derive(Default)]
struct Chat {
    slow: SlowMember,
    idle_timeout: Duration,
    backlog: Backlog,
    members: BTreeSet<Token>,
    names: u64,
    /// A round under way: everybody in turn is told that there are lines.
    round: Option<Round>,
    /// Bytes said since the round began.
    round_bytes: usize,
    /// Members whose input waits for the next round.
    held_back: Vec<Token>,
}

struct Round {
    /// Since when there is something to tell.
    since: Instant,
    /// Told last. A token, not an index: others may come and go meanwhile.
    told: Option<Token>,
    /// Something was said after the round began: another one follows.
    again: bool,
}

impl Chat {
    fn publish(&mut self, line: Arc<[u8]>, now: Instant) {
        self.round_bytes += line.len() + LINE_OVERHEAD_BYTES;
        self.backlog.push(line);
        match &mut self.round {
            Some(round) => round.again = true,
            None => self.round = Some(Round { since: now, told: None, again: false }),
        }
    }

    /// Writes what fits of what this member has not had.
    fn catch_up(&mut self, member: &mut Member, cx: &mut Context<'_>) {
        loop {
            let missed = self.backlog.first.min(member.until).saturating_sub(member.next);
            match self.slow {
                // In the middle of a line perhaps: there is no room to tell it anything.
                SlowMember::Disconnect if missed > 0 => return cx.abort(),
                SlowMember::Disconnect | SlowMember::Skip => {}
            }
            if let Some((line, written)) = &mut member.line {
                *written += cx.write(&line[*written..]);
                if *written < line.len() {
                    // The rest when the kernel has taken what is there. Nobody waits for it meanwhile.
                    return cx.want_writable();
                }
                member.line = None;
            } else if missed > 0 {
                member.next += missed;
                member.line = Some((format!("* you missed {missed} lines\n").into_bytes().into(), 0));
            } else if let Some(line) = self.backlog.get(member.next).filter(|_| member.next < member.until) {
                member.next += 1;
                member.line = Some((Arc::clone(line), 0));
            } else if let Some(note) = member.note.take() {
                member.line = Some((note, 0));
            } else if member.next >= member.until {
                return cx.close();
            } else {
                return;
            }
        }
    }

    /// Sends what was said until now, and why, and closes.
    fn part(&mut self, member: &mut Member, why: &'static str, cx: &mut Context<'_>) {
        member.until = self.backlog.end();
        member.note = Some(Arc::from(why.as_bytes()));
        self.catch_up(member, cx);
    }
}

impl Handler for Chat {
    type Conn = Member;
    type Mail = ();

    fn opened(&mut self, _origin: Origin, cx: &mut Context<'_>) -> Member {
        self.names += 1;
        self.members.insert(cx.token());
        let (next, welcome) = (self.backlog.end(), format!("* you are {}\n", self.names).into_bytes().into());
        let mut member =
            Member { token: cx.token(), name: self.names, next, line: Some((welcome, 0)), note: None, until: u64::MAX, asked: false };
        self.catch_up(&mut member, cx);
        cx.deadline(Some(cx.now() + cx.spread(self.idle_timeout)));
        member
    }

    /// One line. It may come in any number of pieces: what has no end yet is left where it is, and offered again with more.
    fn input(&mut self, member: &mut Member, input: &[u8], cx: &mut Context<'_>) -> usize {
        if member.until != u64::MAX {
            return input.len(); // It is leaving.
        }
        let Some(end) = input.iter().take(LINE_BYTES_MAX).position(|&byte| byte == b'\n') else {
            if input.len() >= LINE_BYTES_MAX {
                self.part(member, "* your line is too long\n", cx);
                return input.len();
            }
            return 0;
        };
        if self.round_bytes >= ROUND_BYTES_MAX {
            // Its bytes stay in the kernel, whose window closes, and the peer's own writes block.
            self.held_back.push(cx.token());
            cx.pause();
            return 0;
        }
        member.asked = false;
        cx.deadline(Some(cx.now() + cx.spread(self.idle_timeout)));
        let text = input[..end].trim_ascii_end();
        if !text.is_empty() {
            self.publish([member.name.to_string().as_bytes(), b": ", text, b"\n"].concat().into(), cx.now());
        }
        end + 1
    }

    /// It says no more, but may still read (`nc -N`): it gets what was said until now.
    fn ended(&mut self, member: &mut Member, _rest_bytes: usize, cx: &mut Context<'_>) {
        self.part(member, "* bye\n", cx);
    }

    /// There is room again, or [`Chat::woke`] says that there are lines.
    fn writable(&mut self, member: &mut Member, cx: &mut Context<'_>) {
        cx.resume();
        self.catch_up(member, cx);
    }

    /// A peer that vanished without a word sends nothing and never will (`half-close`). So it is asked, and has as long again to answer.
    fn deadline(&mut self, member: &mut Member, cx: &mut Context<'_>) {
        cx.deadline(Some(cx.now() + cx.spread(self.idle_timeout)));
        if member.asked {
            return self.part(member, "* nobody there\n", cx);
        }
        member.asked = true;
        member.note = Some(Arc::from(&b"* still there? an empty line will do\n"[..]));
        self.catch_up(member, cx);
    }

    fn pressed(&mut self, member: &mut Member, _pressure: Pressure, cx: &mut Context<'_>) {
        self.part(member, "* the server is full or going down\n", cx);
    }

    fn mail(&mut self, _member: &mut Member, (): (), _cx: &mut Context<'_>) {}

    fn closed(&mut self, member: Member, _reason: CloseReason, _cx: &mut LoopContext<'_>) {
        self.members.remove(&member.token);
    }

    /// At once while a round is under way: [`Chat::woke`] is then called in every turn, between everybody else's work.
    fn next_wake(&self) -> Option<Instant> {
        self.round.as_ref().map(|round| round.since)
    }

    /// This turn's share of a round. Waking costs nothing here: the loop visits those who were woken in its next turn.
    fn woke(&mut self, cx: &mut LoopContext<'_>) {
        let Some(round) = &mut self.round else { return };
        if round.told.is_none() {
            self.round_bytes = 0;
            self.held_back.drain(..).for_each(|token| cx.wake(token)); // Their input goes on.
        }
        let after = round.told.map_or(Bound::Unbounded, Bound::Excluded);
        let mut left = MEMBERS_PER_TURN_MAX;
        for token in self.members.range((after, Bound::Unbounded)).take(left) {
            cx.wake(*token);
            (round.told, left) = (Some(*token), left - 1);
        }
        if left > 0 {
            self.round = round.again.then(|| Round { since: cx.now(), told: None, again: false });
        }
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let address = args.next().map_or(Ok(SocketAddr::from(([127, 0, 0, 1], 7000))), |text| text.parse());
    let slow = match args.next().as_deref() {
        None | Some("skip") => Some(SlowMember::Skip),
        Some("disconnect") => Some(SlowMember::Disconnect),
        Some(_) => None,
    };
    let idle_seconds = args.next().map_or(Ok(300), |text| text.parse());
    let (Ok(address), Some(slow), Ok(idle_seconds @ 1..)) = (address, slow, idle_seconds) else {
        eprintln!("usage: line_chat [IP:PORT [skip|disconnect [IDLE_SECONDS]]]");
        return ExitCode::from(2);
    };
    if let Err(e) = serve(address, Chat { slow, idle_timeout: Duration::from_secs(idle_seconds), ..Chat::default() }) {
        eprintln!("line_chat: {e}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn serve(address: SocketAddr, chat: Chat) -> std::io::Result<()> {
    let mut event_loop = EventLoop::new(Config::default(), chat)?;
    let handle = event_loop.handle();
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::spawn(move || signals.forever().next().map(|_| handle.shut_down(SHUTDOWN_GRACE)));
    let socket = listen(address, ListenOptions::default())?;
    println!("listening {}", socket.local_addr()?);
    event_loop.listen_on(LinuxListener::new(socket)?, ListenerWakes::All)?;
    event_loop.run().map(drop)
}
