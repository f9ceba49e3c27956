//! Families of series: one number, or one histogram, for each combination of fixed label values. All series exist from the start, so
//! that counting is an addition to an atomic: no lock, no look-up, no allocation.
//!
//! `prometheus-client` writes them; its own histogram has a lock, which is why ours is here.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::labels::Label;

/// What a family is, for who reads it.
#[derive(Debug, Clone)]
pub struct About {
    /// Its name, without the ending `_total` of a counter.
    pub name: &'static str,
    /// What it says, without a final dot.
    pub help: &'static str,
    /// Its labels.
    pub labels: Vec<Label>,
}

impl About {
    /// A family with these labels.
    pub fn new(name: &'static str, help: &'static str, labels: impl Into<Vec<Label>>) -> Self {
        Self { name, help, labels: labels.into() }
    }

    fn series(&self) -> usize {
        self.labels.iter().map(|label| label.values.len()).product()
    }

    /// The place of a combination: of each label the number of its value.
    fn at(&self, values: &[usize]) -> usize {
        debug_assert_eq!(values.len(), self.labels.len(), "{}", self.name);
        self.labels.iter().zip(values).fold(0, |place, (label, value)| place * label.values.len() + value)
    }

    /// The labels of a place.
    fn pairs(&self, mut place: usize) -> Vec<(&'static str, &'static str)> {
        let mut pairs = Vec::with_capacity(self.labels.len());
        for label in self.labels.iter().rev() {
            pairs.push((label.name, label.values[place % label.values.len()]));
            place /= label.values.len();
        }
        pairs.reverse();
        pairs
    }

    /// Writes each series by `write`, which is given its place.
    fn encode(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        kind: MetricType,
        write: impl Fn(MetricEncoder<'_>, usize) -> fmt::Result,
    ) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        (0..self.series()).try_for_each(|place| write(metric.encode_family(&self.pairs(place))?, place))
    }
}

/// Numbers that grow, or that are what they are at the moment.
#[derive(Debug)]
pub struct Numbers {
    about: About,
    grows: bool,
    values: Box<[AtomicU64]>,
}

impl Numbers {
    /// Counters.
    pub fn counters(about: About) -> Self {
        Self { values: (0..about.series()).map(|_| AtomicU64::new(0)).collect(), grows: true, about }
    }

    /// Gauges.
    pub fn gauges(about: About) -> Self {
        Self { grows: false, ..Self::counters(about) }
    }

    /// Adds to one.
    pub fn add(&self, values: &[usize], count: u64) {
        self.values[self.about.at(values)].fetch_add(count, Ordering::Relaxed);
    }

    /// Takes one away from a gauge.
    pub fn less(&self, values: &[usize]) {
        self.values[self.about.at(values)].fetch_sub(1, Ordering::Relaxed);
    }

    /// Sets a gauge.
    pub fn set(&self, values: &[usize], value: u64) {
        self.values[self.about.at(values)].store(value, Ordering::Relaxed);
    }

    /// What it is now.
    pub fn get(&self, values: &[usize]) -> u64 {
        self.values[self.about.at(values)].load(Ordering::Relaxed)
    }
}

/// How long things take.
#[derive(Debug)]
pub struct Times {
    about: About,
    /// Upper bounds of all buckets but the last, in seconds.
    bounds: &'static [f64],
    series: Box<[Series]>,
}

#[derive(Debug)]
struct Series {
    buckets: Box<[AtomicU64]>,
    /// Of all, in nanoseconds: 584 years.
    sum: AtomicU64,
}

impl Times {
    /// Histograms with these bounds.
    pub fn new(about: About, bounds: &'static [f64]) -> Self {
        let buckets = || (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        let series = (0..about.series()).map(|_| Series { buckets: buckets(), sum: AtomicU64::new(0) }).collect();
        Self { about, bounds, series }
    }

    /// The bucket of a time.
    pub fn bucket(&self, time: Duration) -> usize {
        let seconds = time.as_secs_f64();
        self.bounds.iter().position(|bound| seconds <= *bound).unwrap_or(self.bounds.len())
    }

    /// Notes a time.
    pub fn observe(&self, values: &[usize], time: Duration) {
        self.add(values, self.bucket(time), (1, time));
    }

    /// Notes so many times of the same bucket, and their sum.
    pub fn add(&self, values: &[usize], bucket: usize, (count, sum): (u64, Duration)) {
        let series = &self.series[self.about.at(values)];
        series.buckets[bucket].fetch_add(count, Ordering::Relaxed);
        series.sum.fetch_add(u64::try_from(sum.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// What all families have in common.
pub trait Family {
    /// What it is.
    fn about(&self) -> &About;

    /// The name of its series in the text, and of its type.
    fn shown(&self) -> (String, &'static str);

    /// Writes it.
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result;
}

impl Family for Numbers {
    fn about(&self) -> &About {
        &self.about
    }

    fn shown(&self) -> (String, &'static str) {
        if self.grows { (format!("{}_total", self.about.name), "counter") } else { (self.about.name.to_owned(), "gauge") }
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let value = |place: usize| self.values[place].load(Ordering::Relaxed);
        if self.grows {
            let write = |mut metric: MetricEncoder<'_>, place| metric.encode_counter::<NoLabelSet, _, u64>(&value(place), None);
            return self.about.encode(encoder, MetricType::Counter, write);
        }
        let write = |mut metric: MetricEncoder<'_>, place| metric.encode_gauge(&value(place));
        self.about.encode(encoder, MetricType::Gauge, write)
    }
}

impl Family for Times {
    fn about(&self) -> &About {
        &self.about
    }

    fn shown(&self) -> (String, &'static str) {
        (self.about.name.to_owned(), "histogram")
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let write = |mut metric: MetricEncoder<'_>, place: usize| {
            let series = &self.series[place];
            let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
            let counts = series.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
            let buckets: Vec<_> = bounds.zip(counts).collect();
            let sum = Duration::from_nanos(series.sum.load(Ordering::Relaxed)).as_secs_f64();
            let count = buckets.iter().map(|(_, count)| count).sum();
            metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        };
        self.about.encode(encoder, MetricType::Histogram, write)
    }
}
