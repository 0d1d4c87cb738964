//! What a contrast says, on figures that are known.

use super::*;
use crate::report::tests::sample;
use crate::scenario::{Code, Load};
use crate::verdict::Verdict;

static SCENARIO: Scenario = Scenario {
    slug: "sample",
    title: "a sample",
    cause: "There is a cause.",
    load: "There is a load.",
    mistake_in: MistakeIn::Server,
    server_args: &[],
    drive: |_| Err("not driven".to_owned()),
    rows: &["response.p99", "stuck", "errors"],
    expect: &["broken.response.p99 >= 10 * correct.response.p99", "broken.stuck > 0"],
    happened: |contrast| format!("{} connections hung.", Contrast::text(&contrast.broken, "stuck")),
    look: &["ss -lnt   # Recv-Q", "ps -T"],
    code: Code { file: "a.rs", source: "// MISTAKE(sample): here\n" },
};

fn measured(p99_us: u64, stuck: u64, generator_ok: bool) -> Measured {
    let (plan, mut outcome) = sample();
    outcome.records[0].clocks.response.reset();
    outcome.records[0].clocks.response.record_n(p99_us, 100).unwrap();
    let verdict = Verdict { generator_ok, ..Verdict::of(&plan, &outcome) };
    Measured::from(Load { plan, outcome, verdict }).with("stuck", Figure::count(stuck))
}

fn contrast(broken: Measured, correct: Measured) -> Contrast {
    let expect: Vec<Condition> = SCENARIO.expect.iter().map(|text| text.parse().unwrap()).collect();
    judge(&SCENARIO, broken, correct, &expect).unwrap()
}

#[test]
fn a_contrast_says_what_differs_and_where_to_look() {
    let contrast = contrast(measured(92_000, 3, true), measured(1_100, 0, true));
    assert_eq!(
        contrast.report(),
        "\
sample: a sample

cause    There is a cause.
load     There is a load.

                                   with --mistake       correct     ratio
         response.p99                        92ms         1.1ms       84x
         stuck                                  3             0
         errors                                 6             6      1.0x

expected broken.response.p99 >= 10 * correct.response.p99: yes (92ms against 11ms)
         broken.stuck > 0: yes (3 against 0)
happened 3 connections hung.
see it   ss -lnt   # Recv-Q
         ps -T
code     a.rs:1
page     docs/failures/sample.md
verdict  broken: generator OK (cpu 31%/28%, 99.96% of arrivals handled on time)
         correct: generator OK (cpu 31%/28%, 99.96% of arrivals handled on time)
"
    );
    assert_eq!(
        contrast.line(),
        "sample              shown           response.p99 92ms with the mistake, 1.1ms without (84x)   docs/failures/sample.md"
    );
    assert_eq!(contrast.exit_code(false), exit::OK);
}

#[test]
fn sides_that_do_not_differ_are_no_contrast_and_a_bad_generator_proves_nothing() {
    let same = contrast(measured(5_000, 1, true), measured(1_100, 0, true));
    assert_eq!((same.is_shown(), same.exit_code(false)), (false, exit::NO_CONTRAST));
    assert!(same.report().contains("correct.response.p99: NO (5.0ms against 11ms)") && same.line().contains("NOT SHOWN"));
    let untrusted = contrast(measured(92_000, 1, true), measured(1_100, 0, false));
    assert_eq!((untrusted.exit_code(false), untrusted.exit_code(true)), (exit::NOT_TRUSTWORTHY, exit::OK));
    let mut interrupted = contrast(measured(92_000, 1, true), measured(1_100, 0, true));
    interrupted.broken.interrupted = true;
    assert_eq!(interrupted.exit_code(true), exit::INTERRUPTED);
}

#[test]
fn a_predicate_on_what_was_not_measured_is_an_error_and_not_a_pass() {
    let expect = ["broken.nothing > 0".parse().unwrap()];
    assert!(judge(&SCENARIO, measured(1, 0, true), measured(1, 0, true), &expect).unwrap_err().contains("broken.nothing"));
}

#[test]
fn a_figure_of_another_class_is_named_by_the_class() {
    let mut side = measured(92_000, 0, true);
    let load = &mut side.loads[0];
    let mut probe = load.plan.classes[0].clone();
    probe.name = "probe".to_owned();
    load.plan.classes.push(probe);
    let mut record = crate::histogram::Record::default();
    record.totals.ok = 7;
    load.outcome.records.push(record);
    assert_eq!(side.figure("probe.ok"), Some(Figure::count(7)));
    assert_eq!(side.figure("probe.p98"), None);
}
