//! The deliberate mistakes of the loop by name. Each replaces one correct policy by a wrong one.
//!
//! Correct code does not check whether a mistake is on. To remove the mistakes, delete this file, the marked arms and their variants;
//! `rg 'MISTAKE\('` lists them.

use crate::limits::Config;
use crate::policy::{
    AcceptPressure, ClosePolicy, DrainPolicy, Framing, ListenerSharing, MailboxOrder, OutputBound, ReadyRule, RestPolicy, ResumePolicy,
    TokenCheck, VisitPolicy, WritePolicy,
};

/// The slug of a mistake, and the function that sets its policy.
pub type Mistake = (&'static str, fn(&mut Config));

/// All mistakes of the loop.
pub const MISTAKES: &[Mistake] = &[
    ("edge-starvation", |config| config.policy.drain = DrainPolicy::OncePerEvent),
    ("firehose", |config| config.policy.visit = VisitPolicy::UntilDone),
    ("lost-resume", |config| config.policy.resume = ResumePolicy::NextEvent),
    ("hot-loop", |config| config.policy.ready_rule = ReadyRule::HasWork),
    ("stale-completion", |config| config.policy.token_check = TokenCheck::SlotOnly),
    ("lost-wakeup", |config| config.policy.mailbox_order = MailboxOrder::EmptyThenClear),
    ("herd", |config| config.policy.sharing = ListenerSharing::WakeAll),
    ("slow-consumer", |config| config.policy.output = OutputBound::None),
    ("partial-read", |config| config.policy.framing = Framing::ByRead),
    ("partial-write", |config| config.policy.rest = RestPolicy::Dropped),
    ("early-close", |config| config.policy.close = ClosePolicy::AtOnce),
    ("split-write", |config| config.policy.write = WritePolicy::Split),
    ("fd-exhaustion", |config| config.policy.accept_pressure = AcceptPressure::NextEvent),
];
