//! Mutants of the loop: faults that are no public mistakes, each a changed line of the source.
//!
//! They lie here and not in the loop, so that no line of production code knows of them. When a line they change has changed itself,
//! the test says so: look whether the fault can still be made, and write it anew.

/// One fault.
pub(crate) struct Mutant {
    /// Its name.
    pub(crate) slug: &'static str,
    /// The file below `src/`.
    pub(crate) file: &'static str,
    /// The text to replace; it occurs there exactly once.
    pub(crate) from: &'static str,
    /// By what.
    pub(crate) to: &'static str,
}

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        slug: "generation-not-advanced",
        file: "slot.rs",
        from: "generation: state.generation.wrapping_add(1), ..Slot::default()",
        to: "generation: state.generation, ..Slot::default()",
    },
    Mutant {
        slug: "mail-without-a-check-of-the-generation",
        file: "event_loop.rs",
        from: "if self.shared.slots.is_live(to) {",
        to: "if self.entries.contains(to.slot as usize) {",
    },
    Mutant {
        slug: "output-lease-not-returned",
        file: "shared.rs",
        from: "        self.drop_input(slot);\n        self.drop_output(slot);\n",
        to: "        self.drop_input(slot);\n        std::mem::forget(self.slots.get_mut(slot).output.take());\n",
    },
    Mutant {
        slug: "input-lease-not-returned",
        file: "shared.rs",
        from: "        self.drop_input(slot);\n        self.drop_output(slot);\n",
        to: "        std::mem::forget(self.slots.get_mut(slot).input.take());\n        self.drop_output(slot);\n",
    },
    Mutant {
        slug: "close-bit-forgotten-on-a-short-read",
        file: "visit.rs",
        from: "let short_read_is_empty = !flags.intersects(Flags::READ_TO_THE_END);",
        to: "let short_read_is_empty = true;",
    },
    Mutant {
        slug: "urgent-mark-forgotten-on-a-short-read",
        file: "event_loop.rs",
        from: "if ready.intersects(Ready::READ_CLOSED.union(Ready::ERROR).union(Ready::PRIORITY)) {",
        to: "if ready.intersects(Ready::READ_CLOSED.union(Ready::ERROR)) {",
    },
    Mutant {
        slug: "readable-cleared-at-the-end-of-the-budget",
        file: "visit.rs",
        from: "Drained::BudgetSpent | Drained::BufferFull => shared.stats.budget_exits.add(1),",
        to: "Drained::BudgetSpent | Drained::BufferFull => flags.remove(Flags::READABLE),",
    },
    Mutant {
        slug: "writable-kept-after-would-block",
        file: "visit.rs",
        from: "            self.entry.control.flags.remove(Flags::WRITABLE);\n",
        to: "",
    },
    Mutant {
        slug: "backlog-left-at-the-end-of-the-budget",
        file: "listen/accept.rs",
        from: "                budget -= 1;\n                self.accept_one(index);\n",
        to: "                budget -= 1;\n                self.accept_one(index);\n                if budget == 0 {\n                    self.listeners[index].ready = false;\n                }\n",
    },
    Mutant {
        slug: "accept-budget-for-each-listener",
        file: "listen/accept.rs",
        from: "while budget > 0 && self.may_accept(index) {",
        to: "while self.may_accept(index) {\n                budget = budget.max(1);",
    },
    Mutant {
        slug: "deadlines-before-input",
        file: "event_loop.rs",
        from: "        self.dispatch_events();\n        self.accept_waiting();\n        self.visit_ready(ready_len);\n        self.deliver_mail();\n        self.run_deadlines();\n",
        to: "        self.run_deadlines();\n        self.dispatch_events();\n        self.accept_waiting();\n        self.visit_ready(ready_len);\n        self.deliver_mail();\n",
    },
    Mutant {
        slug: "two-visits-in-a-turn",
        file: "event_loop.rs",
        from: "        if !self.shared.list_comes(slot) {\n            self.visit(slot);\n        }\n",
        to: "        self.visit(slot);\n",
    },
    Mutant {
        slug: "ready-list-served-to-its-end",
        file: "event_loop.rs",
        from: "for _ in 0..ready_len {",
        to: "for _ in 0..ready_len.max(self.shared.ready.len()) {",
    },
    Mutant {
        slug: "rest-of-the-mail-forgotten",
        file: "event_loop.rs",
        from: "        self.inbox.start_draining();\n",
        to: "        self.inbox.start_draining();\n        self.mail_waits = false;\n",
    },
    Mutant {
        slug: "half-close-taken-for-departure",
        file: "event_loop.rs",
        from: "        if gone && self.has_failed(slot, ready) {\n",
        to: "        if ready.intersects(Ready::READ_CLOSED) || gone && self.has_failed(slot, ready) {\n",
    },
    Mutant {
        slug: "closed-without-lingering",
        file: "close.rs",
        from: "        self.entry.control.flags.insert(Flags::LINGERING);\n",
        to: "        self.entry.control.flags.insert(Flags::LINGERING);\n        self.shared.stats.connections_lingering.add(1);\n        return self.die(reason);\n        #[allow(unreachable_code)]\n",
    },
    Mutant {
        slug: "a-broken-answer-ended-in-order",
        file: "event_loop.rs",
        from: "        if entry.control.flags.intersects(Flags::RESET) {\n",
        to: "        if entry.control.flags.intersects(Flags::RESET) && self.shared.stop {\n",
    },
    Mutant {
        slug: "unfinished-answer-ended-by-fin",
        file: "close.rs",
        from: "        unsent || self.entry.conn.as_ref()",
        to: "        unsent && self.entry.conn.as_ref()",
    },
    Mutant {
        slug: "lingering-without-an-end",
        file: "close.rs",
        from: "self.entry.control.deadline = clock::after(self.shared.now, linger_timeout);",
        to: "self.entry.control.deadline = None;",
    },
    Mutant {
        slug: "stall-not-moved-by-progress",
        file: "visit.rs",
        from: "        } else if outcome.bytes > 0 {\n",
        to: "        } else if outcome.bytes > usize::MAX - 1 {\n",
    },
    Mutant { slug: "stall-not-cleared-at-the-end", file: "visit.rs", from: "            self.entry.stall_at = None;\n", to: "" },
    Mutant {
        slug: "closed-while-registered",
        file: "event_loop.rs",
        from: "if let Err(e) = self.os.deregister(&mut entry.stream) {",
        to: "if let Err(e) = self.os.hold_spare().then_some(()).ok_or(\"none\") {",
    },
    Mutant {
        slug: "connect-believed-without-a-look",
        file: "connect.rs",
        from: "Ok(None) if self.os.is_connected(&mut entry.stream) => self.connect_ended(slot, Ok(())),",
        to: "Ok(None) => self.connect_ended(slot, Ok(())),",
    },
    Mutant {
        slug: "timer-not-moved-to-an-earlier-time",
        file: "event_loop.rs",
        from: "if self.timer_at.is_none_or(|at| earliest < at) {",
        to: "if self.timer_at.is_none() {",
    },
    Mutant {
        slug: "pause-of-accepting-without-an-end",
        file: "event_loop.rs",
        from: "            earliest = sooner(earliest, self.pause_ends(index));\n",
        to: "            earliest = sooner(earliest, self.pause_ends(index).filter(|_| false));\n",
    },
    Mutant {
        slug: "kernel-left-to-hold-what-it-likes",
        file: "listen/accept.rs",
        from: "            self.os.bound_unsent(&mut socket, bytes_max)?;\n",
        to: "            let _ = bytes_max;\n",
    },
    Mutant {
        slug: "spare-descriptor-not-taken-back",
        file: "listen/accept.rs",
        from: "            if listener.pause.take_if(|pause| pause.ends_at_close).is_some() {\n                self.os.hold_spare();\n            }\n",
        to: "            let _ = listener;\n",
    },
    Mutant {
        slug: "wake-without-the-ready-list",
        file: "shared.rs",
        from: "            self.slots.get_mut(token.slot).woken = true;\n            self.queue(token.slot);\n",
        to: "            self.slots.get_mut(token.slot).woken = true;\n",
    },
    Mutant {
        slug: "room-not-given-back",
        file: "mailbox.rs",
        from: "        self.shared.give_room_back();\n        Some(mail)\n",
        to: "        Some(mail)\n",
    },
    Mutant {
        slug: "after-a-failed-wake-nobody-wakes-the-loop",
        file: "mailbox.rs",
        from: "so the flag may not stay set.\n            self.notified.swap(false, Ordering::AcqRel);\n",
        to: "so the flag may not stay set.\n",
    },
    Mutant {
        slug: "churn-fills-the-table-with-dead-sockets",
        file: "listen/accept.rs",
        from: "if self.shared.closes.is_empty() { accepts_max } else { accepts_max.min(self.closed_last_turn) }",
        to: "accepts_max",
    },
    Mutant {
        slug: "eviction-takes-partial-input-whoever-fills-the-memory",
        file: "buffers.rs",
        from: "if wanted(BufferOwner::Input) > wanted(BufferOwner::Output) {",
        to: "if wanted(BufferOwner::Input) != usize::MAX {",
    },
    Mutant {
        slug: "eviction-takes-from-the-owner-that-asks",
        file: "buffers.rs",
        from: "if wanted(BufferOwner::Input) > wanted(BufferOwner::Output) {",
        to: "if wanted(for_owner) > 0 && for_owner == BufferOwner::Input {",
    },
    Mutant {
        slug: "eviction-takes-the-shortest-stall",
        file: "eviction.rs",
        from: "self.groups.get(number)?.oldest.checked_sub(1)",
        to: "self.groups.get(number)?.newest.checked_sub(1)",
    },
    Mutant {
        slug: "deadline-looks-at-its-socket-after-a-full-batch-only",
        file: "event_loop.rs",
        from: "        } else if let Some(mut visit) = self.visit_to(slot, self.shared.limits.first_visit_messages_max) {\n            visit.run(|visit| visit.look_before",
        to: "        } else if self.events.len() < self.shared.limits.events_per_poll_max {\n            self.visit_because(slot, Cause::Deadline);\n        } else if let Some(mut visit) = self.visit_to(slot, 1) {\n            visit.run(|visit| visit.look_before",
    },
    Mutant {
        slug: "write-stall-without-a-try",
        file: "event_loop.rs",
        from: "        entry.control.flags.insert(Flags::WRITABLE);\n        let due = entry.due();\n",
        to: "        let due = entry.due();\n",
    },
    Mutant {
        slug: "connect-times-out-without-a-look",
        file: "event_loop.rs",
        from: "            self.connect_event(slot, Ready::default());\n",
        to: "",
    },
    Mutant {
        slug: "unfinished-input-dropped",
        file: "visit.rs",
        from: "        self.shared.keep_input(slot, &self.scratch[taken..filled]);\n",
        to: "        self.shared.keep_input(slot, &self.scratch[taken + usize::from(filled - taken > 7)..filled]);\n",
    },
    Mutant {
        slug: "kept-output-written-from-the-front-again",
        file: "visit.rs",
        from: "        lease.consume(outcome.bytes);\n",
        to: "        lease.consume(outcome.bytes - outcome.bytes.min(usize::from(outcome.flushed == Flushed::Full)));\n",
    },
    Mutant {
        slug: "input-that-waits-for-room-read-on",
        file: "visit.rs",
        from: "let waits = flags.intersects(Flags::INPUT_WAITS);",
        to: "let waits = false;",
    },
    Mutant {
        slug: "drain-cuts-answers-off",
        file: "eviction.rs",
        from: "            Pressure::Draining => return,\n",
        to: "            Pressure::Draining => CloseReason::Finished,\n",
    },
    Mutant {
        slug: "drain-resets-who-waits-in-the-queue",
        file: "shutdown.rs",
        from: "            listener.ready = true;\n",
        to: "            listener.ready &= true;\n",
    },
    Mutant {
        slug: "drain-without-an-end",
        file: "event_loop.rs",
        from: "sooner(earliest, drain.until);",
        to: "sooner(earliest, drain.until.map(|until| until + std::time::Duration::from_secs(9)));",
    },
    Mutant {
        slug: "input-goes-on-above-the-low-water",
        file: "water_marks.rs",
        from: "} else if bytes <= limits.output_low_water_bytes as usize {",
        to: "} else {",
    },
    Mutant {
        slug: "deadlines-rounded-down",
        file: "timers.rs",
        from: "let due_tick = self.tick_after(at)",
        to: "let due_tick = self.tick_before(at)",
    },
    Mutant {
        slug: "wait-not-renewed",
        file: "slot.rs",
        from: "            self.unlink(list, slot);\n            self.link(list, slot);\n",
        to: "            self.link(list, slot);\n",
    },
    Mutant {
        slug: "no-last-look-at-who-makes-room",
        file: "eviction.rs",
        from: "            self.flags().insert(Flags::READABLE);\n",
        to: "",
    },
    Mutant {
        slug: "room-made-by-who-has-spoken",
        file: "eviction.rs",
        from: "if flags.intersects(Flags::RENEWED) || !is_expendable(flags, self.slot()) {",
        to: "if !is_expendable(flags, self.slot()) {",
    },
    Mutant { slug: "room-made-with-unsent-output", file: "eviction.rs", from: " && state.output.is_none()", to: "" },
    Mutant {
        slug: "unsent-output-ends-the-wait",
        file: "eviction.rs",
        from: "                self.entry.control.flags.insert(Flags::RENEWED);\n",
        to: "",
    },
    Mutant { slug: "who-has-left-counted-as-leaving", file: "eviction.rs", from: "            self.shared.leaving -= 1;\n", to: "" },
    Mutant {
        slug: "nobody-makes-room",
        file: "eviction.rs",
        from: "        for _ in 0..limits.closes_per_turn_max {\n",
        to: "        for _ in 0..0 * limits.closes_per_turn_max {\n",
    },
    Mutant {
        slug: "the-youngest-make-room",
        file: "eviction.rs",
        from: "                return; // Where all others are being answered, whoever comes would go before its request has come.\n",
        to: "",
    },
    Mutant {
        slug: "room-made-where-there-is-room",
        file: "eviction.rs",
        from: "let mut stay_max = limits.connections_at_ease_max();",
        to: "let mut stay_max = limits.connections_at_ease_max() / 2;",
    },
    Mutant {
        slug: "more-make-room-than-a-turn-closes",
        file: "eviction.rs",
        from: "for _ in 0..limits.closes_per_turn_max {",
        to: "for _ in 0..u32::MAX - limits.closes_per_turn_max {",
    },
    Mutant {
        slug: "room-made-by-who-is-being-answered",
        file: "context.rs",
        from: "        self.control.flags.remove(Flags::EXPENDABLE.union(Flags::RENEWED));\n",
        to: "",
    },
];
