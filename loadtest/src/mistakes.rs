//! The client's deliberate mistakes: slug, and the wrong choice it makes in a plan.
//!
//! The server's are in `server/src/demo/mistakes.rs`. The marked line of each is in the file that owns the choice; `rg 'MISTAKE\('` lists them.

use crate::plan::Plan;
use crate::schedule::WhenBusy;

/// Makes one wrong choice in a plan.
pub type Switch = fn(&mut Plan);

/// Slug and switch.
pub const MISTAKES: &[(&str, Switch)] = &[("closed-loop", |plan| {
    for class in &mut plan.classes {
        class.schedule.when_busy = WhenBusy::Skip;
    }
})];

/// Makes the mistake of that slug in a plan; false if there is none.
pub fn apply(slug: &str, plan: &mut Plan) -> bool {
    match MISTAKES.iter().find(|(known, _)| *known == slug) {
        Some((_, switch)) => {
            switch(plan);
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_no_mistake_and_each_slug_switches_one_on() {
        let (mut plan, _) = crate::report::tests::sample();
        assert_eq!(plan.classes[0].schedule.when_busy, WhenBusy::default());
        assert!(WhenBusy::default().keeps());
        assert!(apply("closed-loop", &mut plan) && !plan.classes[0].schedule.when_busy.keeps());
        assert!(!apply("no-such-mistake", &mut plan));
    }
}
