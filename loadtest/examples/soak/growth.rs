//! Whether a process has grown: samples of its memory, descriptors and threads, and the comparison of an earlier part of a run with a later one.

use std::fmt;

/// What a process held at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Milliseconds since the first client connected.
    pub(crate) at_ms: u64,
    /// Resident memory (`VmRSS`, proc(5)).
    pub(crate) resident_bytes: u64,
    /// Open descriptors.
    pub(crate) descriptors: u64,
    /// Threads.
    pub(crate) threads: u64,
}

/// A figure of a sample: its name, its value, and how much its median may rise from the earlier part to the later one.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: fn(&Sample) -> u64,
    /// The part that scales with the value, in percent.
    limit_percent: u64,
    /// The part that does not.
    limit_fixed: u64,
}

/// The three figures, in the order of the plot.
pub(crate) const FIGURES: [Figure; 3] = [
    // Buffers of a burst are freed about a second after it, and malloc keeps some of what is freed: 2 % and 1 MiB. 60 s after a run of a
    // minute began that is about 60 bytes for each request, after an hour 0.5 bytes.
    Figure { name: "resident memory in bytes", value: |sample| sample.resident_bytes, limit_percent: 2, limit_fixed: 1 << 20 },
    // Clients come and leave at random: 5 % and 10.
    Figure { name: "descriptors", value: |sample| sample.descriptors, limit_percent: 5, limit_fixed: 10 },
    Figure { name: "threads", value: |sample| sample.threads, limit_percent: 0, limit_fixed: 0 },
];

/// How much a figure has risen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Growth {
    pub(crate) name: &'static str,
    /// Median of the earlier part.
    pub(crate) earlier: u64,
    /// Median of the later part.
    pub(crate) later: u64,
    /// The most that `later` may be above `earlier`.
    pub(crate) limit: u64,
}

impl Growth {
    pub(crate) fn is_within_limit(&self) -> bool {
        self.later <= self.earlier + self.limit
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Growth { name, earlier, later, limit } = *self;
        let change = i128::from(later) - i128::from(earlier);
        let verdict = if self.is_within_limit() { "ok" } else { "GROWS" };
        write!(f, "{verdict}: {name}: median {earlier} in the second third of the run, {later} in the last: {change:+}, limit +{limit}")
    }
}

/// Compares the second third of the samples with the last third. The first third is the warm-up: buffers, stacks and tables are allocated when
/// they are used for the first time.
pub(crate) fn judge(samples: &[Sample]) -> Vec<Growth> {
    let third = samples.len() / 3;
    let (earlier, later) = (&samples[third..2 * third], &samples[2 * third..]);
    let growth = |figure: &Figure| {
        let [earlier, later] = [earlier, later].map(|part| median(part.iter().map(figure.value).collect()));
        Growth { name: figure.name, earlier, later, limit: earlier * figure.limit_percent / 100 + figure.limit_fixed }
    };
    FIGURES.iter().map(growth).collect()
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}
