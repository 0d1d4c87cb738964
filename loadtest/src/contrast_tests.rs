//! What a contrast says, on figures that are known.

use std::time::Duration;

use super::*;
use crate::contrast_text::{expectation_in_words, table_line};
use crate::figures::{Figure, Unit};
use crate::report::tests::sample;
use crate::scenario::{Code, Load, MistakeIn, Row};
use crate::verdict::Verdict;

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
    outcome.records[0].clocks.response.reset();
    outcome.records[0].clocks.response.record_n(p99_us, 100).unwrap();
    let verdict = Verdict { generator_ok, ..Verdict::of(&plan, &outcome) };
    let grown = Figure { value: if stuck > 0 { 397.8 } else { 6.31 }, unit: Unit::Number };
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
    let untrusted = contrast(measured(92_000, 3, true), measured(1_100, 0, false));
    assert_eq!((untrusted.exit_code(false), untrusted.exit_code(true)), (exit::NOT_TRUSTWORTHY, exit::OK));
    let mut interrupted = contrast(measured(92_000, 3, true), measured(1_100, 0, true));
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
