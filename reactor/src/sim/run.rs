//! One run: a seed, the real loop, and the first promise that is broken, if one is.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Instant;

use super::caught::caught;
use super::check;
use super::faults::Call;
use super::kernel::{Kernel, Nanos};
use super::os::SimOs;
use super::peer::Peer;
use super::plan::{Order, RunPlan};
use super::rng::Rng;
use super::service::Service;
use super::world::{Act, LoopNotes, Time, World};
use crate::limits::{Config, Limits};
use crate::policy::{AtConnectionsMax, Policy};
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
    let mut run = Run::set_up(plan, rng, options.trace);
    let world = Rc::clone(&run.world);
    let mailers: Vec<_> = run.loops.iter().flatten().map(EventLoop::mailer).collect();
    let mail_max = world.borrow().limits.mail_max;
    let stats: Vec<_> = run.loops.iter().flatten().map(EventLoop::stats).collect();

    let ended = run.turns(options.turns_max);
    let bytes = stats.iter().map(|stats| stats.bytes_read.get() + stats.bytes_written.get()).sum();
    let turn = world.borrow().kernel.turn;
    run.finish(ended);

    let mut world = world.borrow_mut();
    // Workers that still run give their room back, and the loop's end all the rest.
    world.jobs.clear();
    for mailer in mailers.iter().filter(|_| world.violation.is_none()).collect::<Vec<_>>() {
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
    /// The first one accepts. None: it has ended.
    loops: Vec<Option<EventLoop<Service, SimOs>>>,
    orders: Vec<(Option<usize>, Order)>,
}

impl Run {
    fn set_up(plan: RunPlan, rng: Rng, trace: bool) -> Run {
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
        let mut connects: Vec<VecDeque<(Nanos, u32)>> = vec![VecDeque::new(); plan.loops];
        for (index, (at, upstream)) in plan.upstreams.into_iter().enumerate() {
            connects[upstream.of_loop].push_back((at, index as u32));
            world.upstreams.push(upstream);
        }
        for (index, (at, ..)) in plan.orders.iter().enumerate() {
            world.plan(*at, Act::OrderIsGiven(index as u32));
        }
        for _ in 1..plan.loops {
            world.kernel.add_loop();
            world.loops.push(LoopNotes::default());
        }
        let world = Rc::new(RefCell::new(world));
        let base = Instant::now();
        let mut loops = Vec::new();
        for (of_loop, mut connects) in connects.into_iter().enumerate() {
            connects.make_contiguous().sort_unstable();
            let os = SimOs::on(Rc::clone(&world), of_loop, base);
            let service = Service::new(Rc::clone(&world), base, of_loop, plan.settings, connects);
            let mut event_loop = match EventLoop::with_os(plan.config.clone(), os, service) {
                Ok(event_loop) => event_loop,
                Err(e) => unreachable!("the limits of a plan fit together: {e}"),
            };
            let mailer = event_loop.mailer();
            event_loop.handler_mut().mailer = Some(mailer);
            loops.push(Some(event_loop));
        }
        let mut run = Run { world, loops, orders: plan.orders.into_iter().map(|(_, to, order)| (to, order)).collect() };
        run.listen(&listeners);
        run
    }

    /// The first loop accepts for all.
    fn listen(&mut self, listeners: &[usize]) {
        let receivers = self
            .loops
            .iter_mut()
            .skip(1)
            .flatten()
            .map(|event_loop| event_loop.receiver().expect("nothing has been sent to it yet"))
            .collect();
        let Some(Some(event_loop)) = self.loops.first_mut() else { return };
        event_loop.hand_off_to(receivers);
        for index in listeners {
            let socket = event_loop.os_mut().listener(*index);
            if let Err(e) = event_loop.listen_on(socket, ListenerWakes::All) {
                unreachable!("a simulated listener can be registered: {e}");
            }
        }
    }

    /// Turns until all is over.
    fn turns(&mut self, turns_max: Option<u64>) -> Ended {
        loop {
            self.give_orders();
            let Some(of_loop) = self.next_to_run() else { return Ended::AtRest };
            if self.loops.len() == 1 && self.world.borrow().faults.is_next(Call::Poll) {
                return Ended::WithAFailingPoll;
            }
            let goes_on = self.turn(of_loop);
            let world = Rc::clone(&self.world);
            let mut world = world.borrow_mut();
            if world.kernel.turn >= TURNS_MAX {
                let now = Time(world.kernel.now);
                world.violated(format!("the run does not end: {TURNS_MAX} turns, {now}"));
            }
            let others = self.loops.iter().flatten().count() > 1;
            if world.violation.is_some() || turns_max.is_some_and(|max| world.kernel.turn >= max) || (!goes_on && !others) {
                world.is_ending = true;
                return Ended::InTheMiddle;
            }
            if world.is_quiescent {
                return Ended::AtRest;
            }
            drop(world);
            if !goes_on {
                self.end_loop(of_loop);
            }
        }
    }

    /// One turn of one loop, and what must hold after it. False when the loop has ended.
    fn turn(&mut self, of_loop: usize) -> bool {
        let Some(event_loop) = &mut self.loops[of_loop] else { return false };
        self.world.borrow_mut().kernel.at = of_loop;
        let goes_on = caught(|| event_loop.turn());
        let checked = caught(|| event_loop.check_invariants());
        let world = &mut *self.world.borrow_mut();
        let goes_on = match goes_on {
            Ok(Ok(goes_on)) => goes_on,
            // The caller of `turn` finishes the loop.
            Ok(Err(_)) if world.faults.has_failed(Call::Poll) || world.faults.has_failed(Call::SetTimer) => {
                world.loops[of_loop].is_stopped = true;
                return false; // No turn: nothing has been polled.
            }
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
        if world.trace.is_some() {
            check::trace_turn(event_loop, world);
        }
        check::after_turn(event_loop, world);
        // What the turn did may have left work for the next one, or a time for which no timer is set yet.
        let carries = world.turn_log.progress || !event_loop.shared.ready.is_empty() || event_loop.mail_waits;
        world.here().is_asleep &= !carries && !event_loop.shutdown_can_progress();
        if self.loops.len() > 1 {
            check::hand_off(&self.loops, world);
        }
        goes_on
    }

    /// The loop whose turn it is: any that does not sleep, or whose epoll has something. Where all sleep, time passes until one has. None: nothing
    /// will ever happen.
    fn next_to_run(&mut self) -> Option<usize> {
        if self.loops.len() == 1 {
            return Some(0); // It waits in its poll.
        }
        let world = &mut *self.world.borrow_mut();
        loop {
            let runs =
                |of_loop: &usize| self.loops[*of_loop].is_some() && (!world.loops[*of_loop].is_asleep || world.kernel.is_ready(*of_loop));
            let runnable: Vec<usize> = (0..self.loops.len()).filter(runs).collect();
            if !runnable.is_empty() {
                return Some(world.kernel.rng.pick(&runnable));
            }
            // Where every slot is taken, those for refusals too, a connection waits for one to be free.
            let slots = |limits: &Limits, policy: Policy| match policy.at_connections_max {
                AtConnectionsMax::Refuse => limits.connections_max + limits.refusals_max,
                AtConnectionsMax::Wait => limits.connections_max,
            };
            let is_full = |event_loop: &&EventLoop<Service, SimOs>| {
                event_loop.entries.len() >= slots(&event_loop.shared.limits, event_loop.shared.policy) as usize
            };
            let for_slots: usize = self.loops.iter().flatten().filter(is_full).map(|event_loop| event_loop.adoptions_waiting.len()).sum();
            if world.kernel.in_transit as usize > for_slots {
                let waiting = world.kernel.in_transit as usize - for_slots;
                world.violated(format!("all loops sleep, and {waiting} connections that were handed over wait"));
            }
            let goes_on = world.wait(None);
            for of_loop in (0..self.loops.len()).filter(|of_loop| self.loops[*of_loop].is_some()) {
                world.check_sleep(of_loop, world.kernel.now);
            }
            if !goes_on || world.violation.is_some() {
                return None;
            }
        }
    }

    fn give_orders(&mut self) {
        let world = &mut *self.world.borrow_mut();
        for index in std::mem::take(&mut world.orders_given) {
            let (to, order) = self.orders[index as usize];
            world.note(|line, _| {
                let _ = match to {
                    Some(to) => write!(line, "    order to loop {to}: {order:?}"),
                    None => write!(line, "    order to the loop: {order:?}"),
                };
            });
            let accepts = to.is_none_or(|to| to == 0) && !world.loops[0].is_ordered;
            match order {
                Order::ShutDown(_) if accepts => world.drains_since = world.drains_since.or(Some(world.kernel.now)),
                Order::Stop if accepts => world.is_ending = true,
                Order::ShutDown(_) | Order::Stop => {}
            }
            for (of_loop, event_loop) in self.loops.iter().enumerate() {
                // Each loop gets one order: the second one goes to the others.
                let is_meant = to.is_none_or(|to| to == of_loop) && !world.loops[of_loop].is_ordered;
                let Some(event_loop) = event_loop.as_ref().filter(|_| is_meant) else { continue };
                world.loops[of_loop].is_ordered = true;
                let handle = event_loop.handle();
                match order {
                    Order::ShutDown(grace) => {
                        world.loops[of_loop].grace = Some(grace.as_nanos() as Nanos);
                        handle.shut_down(grace);
                    }
                    Order::Stop => {
                        world.loops[of_loop].is_stopped = true;
                        handle.stop();
                    }
                }
            }
        }
    }

    /// One of several loops has ended; the others go on.
    fn end_loop(&mut self, of_loop: usize) {
        let Some(event_loop) = self.loops[of_loop].take() else { return };
        {
            let world = &mut *self.world.borrow_mut();
            world.kernel.at = of_loop;
            let notes = world.loops[of_loop];
            world.is_cut_off = notes.is_stopped || notes.shutdown_until.is_some_and(|until| until <= world.kernel.turn_started);
            if of_loop == 0 && world.is_cut_off {
                world.is_ending = true;
            }
            world.note(|line, _| {
                let _ = write!(line, "    loop {of_loop} has ended");
            });
        }
        if let Err(panic) = caught(|| drop(event_loop.finish())) {
            self.world.borrow_mut().violated(format!("the loop panicked in finish: {panic}"));
        }
        self.world.borrow_mut().is_cut_off = false;
    }

    /// Takes the loops apart and looks at what is left.
    fn finish(mut self, ended: Ended) {
        let ended_by_itself = ended == Ended::AtRest;
        if self.world.borrow().violation.is_some() {
            return self.loops.clear(); // Their state is not to be trusted any more.
        }
        for event_loop in self.loops.iter().flatten().filter(|_| ended_by_itself) {
            let leased = event_loop.shared.buffers.leased_bytes();
            let (open, ready) = (event_loop.entries.len(), event_loop.shared.ready.new_len() + event_loop.shared.ready.old_len());
            if open > 0 || leased > 0 || ready > 0 {
                let text = format!("at rest, {open} connections are open, {leased} bytes leased, and {ready} are on the ready list");
                self.world.borrow_mut().violated(text);
            }
        }
        if self.world.borrow().violation.is_some() {
            return self.loops.clear();
        }
        for of_loop in 0..self.loops.len() {
            let Some(event_loop) = self.loops[of_loop].take() else { continue };
            self.world.borrow_mut().kernel.at = of_loop;
            self.world.borrow_mut().is_cut_off = !ended_by_itself;
            if ended == Ended::WithAFailingPoll {
                self.world.borrow_mut().is_ending = true;
                // Not caught: a loop that panics in `run` ends the process.
                if event_loop.run().is_ok() {
                    self.world.borrow_mut().violated("epoll_wait failed, and the loop ended without saying so".to_owned());
                }
            } else if let Err(panic) = caught(|| drop(event_loop.finish())) {
                self.world.borrow_mut().violated(format!("the loop panicked in finish: {panic}"));
            }
        }
        check::at_the_end(&mut self.world.borrow_mut(), ended_by_itself);
    }
}
