//! Writes families of metrics: one call for each family, one for each of its lines.
//!
//! Read next: `metrics.rs`, which says what they are.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use reactor::counter::HistogramSnapshot;
use worker_pool::Class;

use crate::monitor::{LoopView, Monitor};

pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

/// The page as far as it is written.
pub(crate) struct Page<'a>(pub(crate) DescriptorEncoder<'a>);

impl Page<'_> {
    /// All lines of one metric.
    pub(crate) fn family(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        kind: MetricType,
        lines: impl FnOnce(&mut Family<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        lines(&mut Family(encoder))
    }

    pub(crate) fn loops(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        monitor: &Monitor,
        mut lines: impl FnMut(&mut Family<'_>, &LoopView) -> fmt::Result,
    ) -> fmt::Result {
        self.family(name, help, None, kind, |family| monitor.loops.iter().try_for_each(|view| lines(family, view)))
    }

    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.family(name, help, None, MetricType::Gauge, |family| family.gauge(&[], value))
    }
}

/// One metric; each call writes a line of it.
pub(crate) struct Family<'a>(MetricEncoder<'a>);

impl Family<'_> {
    pub(crate) fn info(&mut self, labels: Labels<'_>) -> fmt::Result {
        self.0.encode_info(&labels)
    }

    pub(crate) fn counter(&mut self, labels: Labels<'_>, value: u64) -> fmt::Result {
        self.line(labels, |line| line.encode_counter::<NoLabelSet, _, u64>(&value, None))
    }

    pub(crate) fn counter_seconds(&mut self, value: Duration) -> fmt::Result {
        self.0.encode_counter::<NoLabelSet, _, u64>(&value.as_secs_f64(), None)
    }

    pub(crate) fn gauge(&mut self, labels: Labels<'_>, value: u64) -> fmt::Result {
        self.line(labels, |line| line.encode_gauge(&value))
    }

    pub(crate) fn seconds(&mut self, labels: Labels<'_>, value: Duration) -> fmt::Result {
        self.line(labels, |line| line.encode_gauge(&value.as_secs_f64()))
    }

    fn histogram(&mut self, labels: Labels<'_>, sum: Duration, buckets: &[(f64, u64)]) -> fmt::Result {
        // The count is that of the buckets, so that the page agrees with itself while the loop goes on counting.
        let count = buckets.iter().map(|(_, count)| count).sum();
        self.line(labels, |line| line.encode_histogram::<NoLabelSet>(sum.as_secs_f64(), count, buckets, None))
    }

    fn line(&mut self, labels: Labels<'_>, write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result) -> fmt::Result {
        // An empty set would be written as `{}`, which some readers of the format do not take.
        if labels.is_empty() { write(&mut self.0) } else { write(&mut self.0.encode_family(&labels)?) }
    }
}

pub(crate) fn of_reactor(family: &mut Family<'_>, labels: Labels<'_>, snapshot: &HistogramSnapshot) -> fmt::Result {
    family.histogram(labels, snapshot.sum, &buckets(&snapshot.counts, reactor::counter::Histogram::bound))
}

pub(crate) fn of_pool(family: &mut Family<'_>, class: Class, histogram: &worker_pool::Histogram) -> fmt::Result {
    let snapshot = histogram.snapshot();
    family.histogram(&[("class", class.as_str())], snapshot.sum, &buckets(&snapshot.counts, worker_pool::Histogram::bound))
}

/// Each bucket's bound in seconds, and its count.
fn buckets(counts: &[u64], bound: impl Fn(usize) -> Option<Duration>) -> Vec<(f64, u64)> {
    let seconds = |bucket| bound(bucket).map_or(f64::INFINITY, |bound| bound.as_secs_f64());
    counts.iter().enumerate().map(|(bucket, count)| (seconds(bucket), *count)).collect()
}
