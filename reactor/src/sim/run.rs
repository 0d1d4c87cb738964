//! One run: a seed, the real loop, and the first promise that is broken, if one is.
//!
//! Read next: `search.rs`, many of them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Once;

use super::check;
use super::faults::Call;
use super::kernel::{Kernel, Nanos};
use super::os::SimOs;
use super::peer::Peer;
use super::plan::{Order, RunPlan};
use super::rng::Rng;
use super::service::Service;
use super::world::{Act, Time, World};
use crate::limits::Config;
use crate::{EventLoop, ListenerWakes};

/// A run that takes longer does not end.
const TURNS_MAX: u64 = 20_000;

/// What the kernel would hold unsent for a connection that nobody has bounded: more than any run has to send.
const UNSENT_BYTES_MAX: usize = 1 << 20;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Changes the loop's choices before the run: one of [`crate::MISTAKES`], or nothing.
    pub change: fn(&mut Config),
    /// Ends the run after so many turns, without asking whether everybody was served.
    pub turns_max: Option<u64>,
    /// Keeps a trace. It costs more than the run itself.
    pub trace: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { change: |_| {}, turns_max: None, trace: false }
    }
}

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Replays it.
    pub seed: u64,
    /// In which turn it was seen.
    pub turn: u64,
    /// What was seen.
    pub text: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seed {}, turn {}: {}", self.seed, self.turn, self.text)
    }
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The first broken promise.
    pub violation: Option<Violation>,
    /// Turns of the loop.
    pub turns: u64,
    /// Virtual time, in nanoseconds.
    pub nanos: Nanos,
    /// Bytes that the loop read and wrote.
    pub bytes: u64,
    /// The trace, line by line, if one was asked for.
    pub trace: Vec<String>,
}

/// Runs the loop under a seed.
#[must_use]
pub fn run(seed: u64, options: Options) -> Outcome {
    let mut rng = Rng::new(seed);
    let mut plan = RunPlan::new(&mut rng);
    (options.change)(&mut plan.config);
    let order = plan.order;
    let (world, event_loop) = set_up(plan, rng, options.trace);
    let mailer = event_loop.mailer();
    let mail_max = world.borrow().limits.mail_max;

    let mut run = Run { world: Rc::clone(&world), event_loop, order: order.map(|(_, order)| order), idle_turns: 0 };
    let ended = run.turns(options.turns_max);
    let stats = run.event_loop.stats();
    let bytes = stats.bytes_read.get() + stats.bytes_written.get();
    let turn = world.borrow().kernel.turn;
    run.finish(ended);

    let mut world = world.borrow_mut();
    // Workers that still run give their room back, and the loop's end all the rest.
    world.jobs.clear();
    if world.violation.is_none() {
        let nobody = crate::Token::from_bits(0);
        let rooms: Vec<_> = (0..mail_max).map_while(|_| mailer.reserve(nobody)).collect();
        if rooms.len() != mail_max as usize {
            let text = format!("{} of {mail_max} rooms for mail were given back at the end", rooms.len());
            world.violated(text);
        }
    }
    Outcome {
        violation: world.violation.take().map(|text| Violation { seed, turn, text }),
        turns: turn,
        nanos: world.kernel.now,
        bytes,
        trace: world.trace.take().unwrap_or_default(),
    }
}

fn set_up(plan: RunPlan, rng: Rng, trace: bool) -> (Rc<RefCell<World>>, EventLoop<Service, SimOs>) {
    let mut kernel = Kernel::new(rng, plan.hostility, plan.received_bytes_max, UNSENT_BYTES_MAX);
    kernel.descriptors_max = plan.descriptors_max;
    let listeners: Vec<usize> = (0..plan.listeners).map(|_| kernel.listen()).collect();
    let mut world = World::new(kernel, plan.config.limits.clone());
    world.faults = plan.faults;
    world.wake_latency_nanos_max = plan.wake_latency_nanos_max;
    world.trace = trace.then(Vec::new);
    for (index, (connects_at, peer)) in plan.peers.into_iter().enumerate() {
        let index = index as u32;
        let too_long = world.limits.buffer_bytes_max;
        world.peers.push(Peer::new(index, peer, too_long));
        if let Some(at) = connects_at {
            world.plan(at, Act::PeerConnects(index));
        }
    }
    let mut connects: VecDeque<(Nanos, u32)> = VecDeque::new();
    for (index, (at, upstream)) in plan.upstreams.into_iter().enumerate() {
        world.upstreams.push(upstream);
        connects.push_back((at, index as u32));
    }
    connects.make_contiguous().sort_unstable();
    if let Some((at, _)) = plan.order {
        world.plan(at, Act::OrderIsGiven);
    }
    let world = Rc::new(RefCell::new(world));
    let os = SimOs::on(Rc::clone(&world));
    let sockets: Vec<_> = listeners.iter().map(|index| os.listener(*index)).collect();
    let service = Service::new(Rc::clone(&world), os.base(), plan.settings, connects);
    let mut event_loop = match EventLoop::with_os(plan.config, os, service) {
        Ok(event_loop) => event_loop,
        Err(e) => unreachable!("the limits of a plan fit together: {e}"),
    };
    let mailer = event_loop.mailer();
    event_loop.handler_mut().mailer = Some(mailer);
    for socket in sockets {
        if let Err(e) = event_loop.listen_on(socket, ListenerWakes::All) {
            unreachable!("a simulated listener can be registered: {e}");
        }
    }
    (world, event_loop)
}

/// How the turns ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Nothing is left to do.
    AtRest,
    /// By an order, a violation, a failed timer or the number of turns asked for.
    InTheMiddle,
    /// The next poll fails.
    WithAFailingPoll,
}

struct Run {
    world: Rc<RefCell<World>>,
    event_loop: EventLoop<Service, SimOs>,
    order: Option<Order>,
    idle_turns: u32,
}

impl Run {
    /// Turns until all is over.
    fn turns(&mut self, turns_max: Option<u64>) -> Ended {
        loop {
            self.give_order();
            if self.world.borrow().faults.is_next(Call::Poll) {
                return Ended::WithAFailingPoll;
            }
            let Self { event_loop, .. } = self;
            let goes_on = caught(|| event_loop.turn());
            let checked = caught(|| event_loop.check_invariants());
            let world = &mut *self.world.borrow_mut();
            if world.trace.is_some() {
                check::trace_turn(&self.event_loop, world);
            }
            let goes_on = match goes_on {
                Ok(Ok(goes_on)) => goes_on,
                // timerfd_settime(2): the caller of `turn` finishes the loop.
                Ok(Err(_)) if world.faults.has_failed(Call::SetTimer) => false,
                Ok(Err(e)) => {
                    world.violated(format!("the turn failed: {e}"));
                    false
                }
                Err(panic) => {
                    world.violated(format!("the loop panicked: {panic}"));
                    false
                }
            };
            if let Err(panic) = checked {
                world.violated(panic);
            }
            check::after_turn(&self.event_loop, world, &mut self.idle_turns);
            if world.kernel.turn >= TURNS_MAX {
                world.violated(format!("the run does not end: {TURNS_MAX} turns, {}", Time(world.kernel.now)));
            }
            if world.violation.is_some() || turns_max.is_some_and(|max| world.kernel.turn >= max) || !goes_on {
                world.is_ending = true;
                return Ended::InTheMiddle;
            }
            if world.is_quiescent {
                return Ended::AtRest;
            }
        }
    }

    fn give_order(&mut self) {
        let world = &mut *self.world.borrow_mut();
        if !std::mem::take(&mut world.order_given) {
            return;
        }
        let (order, handle) = (self.order, self.event_loop.handle());
        world.note(|line, _| {
            let _ = write!(line, "    order to the loop: {order:?}");
        });
        match order {
            Some(Order::Drain(grace)) => {
                world.drains_since = Some(world.kernel.now);
                world.grace = Some(grace.as_nanos() as Nanos);
                handle.drain(grace);
            }
            Some(Order::Stop) => {
                world.is_ending = true;
                handle.stop();
            }
            None => {}
        }
    }

    /// Takes the loop apart and looks at what is left.
    fn finish(self, ended: Ended) {
        let Self { world, event_loop, .. } = self;
        let ended_by_itself = ended == Ended::AtRest;
        if world.borrow().violation.is_some() {
            return drop(event_loop); // Its state is not to be trusted any more.
        }
        if ended_by_itself {
            let leased = event_loop.shared.buffers.leased_bytes();
            let (open, ready) = (event_loop.entries.len(), event_loop.shared.ready.new_len() + event_loop.shared.ready.old_len());
            if open > 0 || leased > 0 || ready > 0 {
                let text = format!("at rest, {open} connections are open, {leased} bytes leased, and {ready} are on the ready list");
                world.borrow_mut().violated(text);
                return drop(event_loop);
            }
        }
        if ended == Ended::WithAFailingPoll {
            world.borrow_mut().is_ending = true;
            // Not caught: a loop that panics in `run` ends the process.
            if event_loop.run().is_ok() {
                world.borrow_mut().violated("epoll_wait failed, and the loop ended without saying so".to_owned());
            }
            return check::at_the_end(&mut world.borrow_mut(), false);
        }
        match caught(|| event_loop.finish()) {
            Ok(service) => drop(service),
            Err(panic) => world.borrow_mut().violated(format!("the loop panicked in finish: {panic}")),
        }
        check::at_the_end(&mut world.borrow_mut(), ended_by_itself);
    }
}

thread_local! {
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
    static PANIC_TEXT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `f` and turns a panic into its message, without the message on the terminal.
fn caught<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_CAUGHT.get() {
                return usual(info);
            }
            let payload = info.payload();
            let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            let text = text.unwrap_or("a panic without a text");
            let place = info.location().map(|place| format!(" ({}:{})", place.file(), place.line())).unwrap_or_default();
            PANIC_TEXT.set(format!("{text}{place}"));
        }));
    });
    let before = IS_CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    IS_CAUGHT.set(before);
    result.map_err(|_| PANIC_TEXT.take())
}
