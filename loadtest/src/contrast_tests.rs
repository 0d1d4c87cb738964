//! What a contrast says, on figures that are known.

use std::time::Duration;

use super::*;
use crate::contrast_text::{expectation_in_words, table_line};
use crate::report::tests::sample;
use crate::results_by_name::Figure;
use crate::scenario::{Code, MistakeIn, Row};
use crate::truth::bounds::Times;
use crate::truth::verdict::Verdict;

static SCENARIO: Scenario = Scenario {
    slug: "sample",
    title: "a sample",
    cause: "There is a cause.",
    load: "There is a load.",
    mistake_in: MistakeIn::Server,
    server_args: &[],
    drive: |_| Err("not driven".to_owned()),
    rows: &[
        Row::new("response.p99", "GET /, p99 latency"),
        Row::new("service.p99", "GET /, p99 latency from sending"),
        Row::new("stuck", "clients that hang").of("clients"),
        Row::new("grown", "memory growth").unit("MiB"),
        Row::new("missing", "what neither side has"),
    ],
    expect: &[
        "broken.response.p99 >= 10 * correct.response.p99",
        "broken.response.p99 > broken.service.p99",
        "broken.response.p99 >= 5 * broken.service.p99",
        "broken.stuck == 3",
        "correct.grown <= 6.5",
    ],
    happened: |contrast| format!("{} connections hung.", Contrast::text(&contrast.broken, "stuck")),
    look: &["ss -lnt   # Recv-Q", "ps -T"],
    code: Code { file: "a.rs", source: "// MISTAKE(sample): here\n" },
    takes: Duration::from_secs(1),
};

fn measured(p99_us: u64, stuck: u64, generator_ok: bool) -> Measured {
    let (plan, mut outcome) = sample();
    let clocks = &mut outcome.records[0].clocks;
    clocks.response = Times::default();
    clocks.response.known.record_n(p99_us, 1000).unwrap();
    clocks.response_low = clocks.response.known.clone();
    let verdict = Verdict { generator_ok, ..Verdict::of(&plan, &outcome) };
    let grown = Figure::number(if stuck > 0 { 397.8 } else { 6.31 });
    Measured::from(Load { plan, outcome, verdict })
        .with("stuck", Figure::count(stuck))
        .with("clients", Figure::count(1_200))
        .with("grown", grown)
}

fn contrast(broken: Measured, correct: Measured) -> Contrast {
    let expect: Vec<Condition> = SCENARIO.expect.iter().map(|text| text.parse().unwrap()).collect();
    judge(&SCENARIO, broken, correct, &expect).unwrap()
}

#[test]
fn every_figure_has_its_label_and_every_threshold_its_arithmetic() {
    let contrast = contrast(measured(92_000, 3, true), measured(260, 0, true));
    assert_eq!(
        contrast.report(),
        "\
sample: a sample

cause    There is a cause.
load     There is a load.

                                            with --mistake       correct
         GET /, p99 latency                          92 ms       0.26 ms   354 times
         GET /, p99 latency from sending            2.9 ms        2.9 ms
         clients that hang                      3 of 1,200    0 of 1,200
         memory growth                             398 MiB       6.3 MiB   63 times

expected yes  GET /, p99 latency, with the mistake: 92 ms, at least 2.6 ms (10 × 0.26 ms) needed
         yes  GET /, p99 latency, with the mistake: 92 ms, more than 2.9 ms (GET /, p99 latency from sending) needed
         yes  GET /, p99 latency, with the mistake: 92 ms, at least 15 ms (5 × 2.9 ms, GET /, p99 latency from sending) needed
         yes  clients that hang, with the mistake: 3, exactly 3 needed
         yes  memory growth, correct: 6.3 MiB, at most 6.5 MiB needed
happened 3 connections hung.
see it   ss -lnt   # Recv-Q
         ps -T
code     a.rs:1
page     docs/failures/sample.md
verdict  with the mistake: generator OK (cpu 31%/28%, 99.96% of arrivals handled on time)
         correct: generator OK (cpu 31%/28%, 99.96% of arrivals handled on time)
result   shown
"
    );
    assert_eq!(contrast.line(), "sample              shown            GET /, p99 latency: 92 ms → 0.26 ms");
    assert_eq!(contrast.exit_code(false), exit::OK);
}

#[test]
fn a_figure_that_one_side_does_not_have_is_a_dash_and_a_part_is_shown_with_its_whole() {
    let mut contrast = contrast(measured(92_000, 3, true), measured(260, 0, true));
    contrast.broken = contrast.broken.with("missing", Figure::count(2));
    let line = contrast.report().lines().find(|line| line.contains("neither")).map(str::to_owned);
    assert_eq!(line.as_deref(), Some("         what neither side has                           2             –"));
    let all = Figure::count(12_000);
    contrast.broken = contrast.broken.with("stuck", all).with("clients", all);
    contrast.correct = contrast.correct.with("stuck", all).with("clients", all);
    assert!(contrast.report().contains("    12,000 of 12,000    12,000 of 12,000\n"), "long cells do not run into each other");
}

#[test]
fn what_is_expected_is_explained_without_a_run() {
    let texts: Vec<_> = SCENARIO.expect.iter().map(|text| expectation_in_words(&SCENARIO, &text.parse().unwrap())).collect();
    assert_eq!(texts[0], "GET /, p99 latency, with the mistake: at least 10 × (GET /, p99 latency, correct)");
    assert_eq!(texts[4], "memory growth, correct: at most 6.5");
    assert_eq!(table_line("sample", "FAILED", "the server died"), "sample              FAILED           the server died");
}

#[test]
fn sides_that_do_not_differ_are_no_contrast_and_a_bad_generator_proves_nothing() {
    let same = contrast(measured(5_000, 3, true), measured(1_100, 0, true));
    assert_eq!((same.is_shown(), same.exit_code(false)), (false, exit::NO_CONTRAST));
    assert!(same.report().contains("expected NO   GET /, p99 latency, with the mistake: 5.0 ms, at least 11 ms (10 × 1.1 ms) needed"));
    assert!(same.line().contains("NOT SHOWN"));
    let untrusted = open();
    assert_eq!((untrusted.exit_code(false), untrusted.exit_code(true)), (exit::NOT_TRUSTWORTHY, exit::OK));
    assert_eq!(untrusted.state(), "NOT TRUSTWORTHY");
    let late_but_clear = contrast(measured(92_000, 3, false), measured(1_100, 0, false));
    assert_eq!(late_but_clear.exit_code(false), exit::OK, "a millisecond cannot decide between 92 ms and 11 ms");
    let mut interrupted = contrast(measured(92_000, 3, true), measured(1_100, 0, true));
    interrupted.broken.interrupted = true;
    assert_eq!(interrupted.exit_code(true), exit::INTERRUPTED);
}

/// A contrast that is shown, one that is not, and one that could be either.
pub(crate) fn shown() -> Contrast {
    contrast(measured(92_000, 3, true), measured(1_100, 0, true))
}

pub(crate) fn not_shown() -> Contrast {
    contrast(measured(5_000, 3, true), measured(1_100, 0, true))
}

pub(crate) fn open() -> Contrast {
    // 12 ms are enough, of which up to 4 ms may be the generator's own delay: 8 ms are not.
    let mut broken = measured(12_000, 3, true);
    let clocks = &mut broken.loads[0].outcome.records[0].clocks;
    clocks.response_low.reset();
    clocks.response_low.record_n(8_000, 1000).unwrap();
    contrast(broken, measured(1_000, 0, true)).forgetting(2)
}

impl Contrast {
    /// Without the predicate of that number.
    fn forgetting(mut self, index: usize) -> Contrast {
        self.judged.remove(index);
        self
    }
}

#[test]
fn an_open_contrast_says_within_which_bounds_its_figures_are_known() {
    let text = open().why_open();
    let first =
        "GET /, p99 latency, with the mistake: 12 ms, at least 10 ms (10 × 1.0 ms) needed (known: 8.0 ms to 12 ms, against 10 ms); ";
    assert!(text.starts_with(first) && text.contains("with the mistake: generator OK"), "{text}");
    let report = Contrast { attempts: vec![text], ..shown() }.report();
    assert!(report.contains("before   attempt 1 was open: GET /, p99"), "{report}");
}

#[test]
fn a_disturbed_machine_can_hide_a_contrast_and_not_refute_it() {
    let side = |stuck, pause_ms: u64| {
        let mut side = measured(92_000, stuck, true);
        side.machine.pauses.record(pause_ms * 1000).unwrap();
        side
    };
    let judged = |stuck, pause_ms| {
        let expect = ["broken.stuck == 3".parse().unwrap()];
        judge(&SCENARIO, side(stuck, pause_ms), side(0, 0), &expect).unwrap().state()
    };
    assert_eq!((judged(3, 0), judged(2, 0)), ("shown", "NOT SHOWN"));
    assert_eq!((judged(3, 60), judged(2, 60)), ("shown", "NOT TRUSTWORTHY"), "a client may have been late");
    assert_eq!((judged(0, 60), judged(1, 60)), ("NOT SHOWN", "NOT SHOWN"), "a mistake without an effect is found all the same");
}

#[test]
fn threads_that_wait_for_each_other_do_not_hide_a_lost_fix() {
    let side = |stuck| {
        let mut side = measured(92_000, stuck, true);
        (side.machine.run_delay, side.machine.elapsed) = (Some(Duration::from_secs(5)), Duration::from_secs(2));
        side
    };
    let expect = ["correct.stuck == 0".parse().unwrap()];
    assert_eq!(judge(&SCENARIO, side(400), side(400), &expect).unwrap().state(), "NOT SHOWN");
}

#[test]
fn every_side_has_a_verdict_with_and_without_a_load_generator() {
    let by_hand =
        || measured(92_000, 3, true).figures.into_iter().fold(Measured::default(), |side, (name, figure)| side.with(&name, figure));
    let expect = ["broken.stuck == 3".parse().unwrap()];
    let contrast = judge(&SCENARIO, by_hand(), by_hand(), &expect).unwrap();
    assert_eq!(contrast.verdicts()[0], "with the mistake: machine quiet (a control thread woke up to 0µs late (p99 0µs))");
    assert_eq!(contrast.verdicts().len(), 2);
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
    assert_eq!(side.figure("probe.ok"), Some(Figure { n: 0, ..Figure::count(7) }));
    assert_eq!(side.figure("probe.p100"), None);
}

#[test]
fn an_open_contrast_is_measured_again_and_one_that_is_not_shown_never_is() {
    let run = |results: Vec<Contrast>| {
        let mut results = results.into_iter();
        let ended = judge_repeatedly(|| results.next().ok_or_else(|| "one attempt too many".to_owned()));
        (ended.map(|contrast| (contrast.state(), contrast.attempts.len())), results.len())
    };
    assert_eq!(run(vec![shown(), shown()]), (Ok(("shown", 0)), 1));
    assert_eq!(run(vec![open(), shown(), shown()]), (Ok(("shown", 1)), 1));
    assert_eq!(run(vec![not_shown(), shown()]), (Ok(("NOT SHOWN", 0)), 1));
    assert_eq!(run(vec![open(), not_shown(), shown()]), (Ok(("NOT SHOWN", 1)), 1));
    assert_eq!(run(vec![open(), open(), open(), shown()]), (Ok(("NOT TRUSTWORTHY", 2)), 1));
}
