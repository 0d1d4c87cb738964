//! The soak's judgement: a figure that rises in the second half of the run fails, one that rises in the warm-up or varies does not.

#[allow(dead_code, reason = "the program uses the rest")]
#[path = "../examples/soak/growth.rs"]
mod growth;

use growth::{Sample, judge};

/// A minute, sample by sample.
fn samples(resident_bytes: impl Fn(u64) -> u64, descriptors: impl Fn(u64) -> u64, threads: impl Fn(u64) -> u64) -> Vec<Sample> {
    let sample = |second| Sample {
        at_ms: second * 1000,
        resident_bytes: resident_bytes(second),
        descriptors: descriptors(second),
        threads: threads(second),
    };
    (1..=60).map(sample).collect()
}

fn growing(samples: &[Sample]) -> Vec<&'static str> {
    judge(samples).into_iter().filter(|growth| !growth.is_within_limit()).map(|growth| growth.name).collect()
}

const MIB: u64 = 1 << 20;

#[test]
fn figures_that_rise_in_the_warm_up_or_vary_do_not_grow() {
    assert_eq!(growing(&samples(|second| 20 * MIB + second.min(20) * MIB, |second| 100 + second % 9, |_| 8)), Vec::<&str>::new());
}

#[test]
fn each_figure_that_rises_later_is_named() {
    // 100 KiB each second: 100 bytes for each of 1,000 requests.
    let leak = |second| 20 * MIB + second * 100 * 1024;
    assert_eq!(growing(&samples(leak, |_| 100, |_| 8)), ["resident memory in bytes"]);
    assert_eq!(growing(&samples(|_| 20 * MIB, |second| 100 + second, |_| 8)), ["descriptors"]);
    assert_eq!(growing(&samples(|_| 20 * MIB, |_| 100, |second| 8 + second / 50)), ["threads"]);
}
