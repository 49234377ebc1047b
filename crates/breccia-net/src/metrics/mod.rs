//! Counters, gauges and histograms of the process, summed when they are scraped.
//!
//! Not a time series store and not global: whoever counts holds a `Registry`. Invariant: a family
//! never holds more than `MAX_SERIES` series; what comes later is counted under the label `other`.

mod families;
mod render;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use families::*;

/// The most series one family may hold.
pub const MAX_SERIES: usize = 4096;

/// Upper bounds of the histogram buckets in nanoseconds: 50 µs to 10 s, three a decade.
pub const BUCKETS_NS: [u64; 17] = [
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// What a family measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in seconds, by the buckets of `BUCKETS_NS`.
    Histogram,
}

/// A named group of series with one meaning.
#[derive(Debug)]
pub struct Family {
    /// The name in the Prometheus text.
    pub name: &'static str,
    /// One sentence for the operator.
    pub help: &'static str,
    /// What it measures.
    pub kind: Kind,
    /// The label names, in the order in which values are given.
    pub labels: &'static [&'static str],
}

/// All metrics of one gateway. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    families: Arc<Mutex<BTreeMap<&'static str, Series>>>,
}

#[derive(Debug)]
struct Series {
    family: &'static Family,
    by_labels: BTreeMap<Vec<String>, Cells>,
}

/// The cells of one series: those alive, and the sum of those whose owners are gone.
#[derive(Debug)]
enum Cells {
    Counter {
        live: Vec<Arc<AtomicU64>>,
        retired: u64,
    },
    Gauge {
        cell: Arc<AtomicI64>,
    },
    Histogram {
        live: Vec<Arc<HistogramCells>>,
        retired: Box<HistogramSum>,
    },
}

#[derive(Debug, Default)]
struct HistogramCells {
    buckets: [AtomicU64; BUCKETS_NS.len() + 1],
    sum_ns: AtomicU64,
}

#[derive(Debug, Default, Clone)]
struct HistogramSum {
    buckets: [u64; BUCKETS_NS.len() + 1],
    sum_ns: u64,
}

impl HistogramSum {
    fn add(&mut self, cells: &HistogramCells) {
        for (sum, cell) in self.buckets.iter_mut().zip(&cells.buckets) {
            *sum = sum.wrapping_add(cell.load(Ordering::Relaxed));
        }
        self.sum_ns = self
            .sum_ns
            .wrapping_add(cells.sum_ns.load(Ordering::Relaxed));
    }
}

/// A counter with one owner: a worker makes its own and adds without a locked instruction.
#[derive(Debug)]
pub struct Counter {
    cell: Arc<AtomicU64>,
    // One writer only, hence `Send` but not `Sync`.
    one_writer: PhantomData<Cell<()>>,
}

impl Counter {
    /// Adds one.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `amount`.
    #[inline]
    pub fn add(&self, amount: u64) {
        let value = self.cell.load(Ordering::Relaxed);
        self.cell
            .store(value.wrapping_add(amount), Ordering::Relaxed);
    }

    /// What this counter alone has counted.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.cell.load(Ordering::Relaxed)
    }
}

/// A counter that several threads may share.
#[derive(Debug, Clone)]
pub struct SharedCounter {
    cell: Arc<AtomicU64>,
}

impl SharedCounter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.cell.fetch_add(amount, Ordering::Relaxed);
    }

    /// Brings the counter up to `total`, for events that are counted elsewhere.
    pub fn raise_to(&self, total: u64) {
        self.cell.fetch_max(total, Ordering::Relaxed);
    }

    /// What this counter alone has counted.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.cell.load(Ordering::Relaxed)
    }
}

/// A value that goes up and down; all holders of one series share it.
#[derive(Debug, Clone)]
pub struct Gauge {
    cell: Arc<AtomicI64>,
}

impl Gauge {
    /// Adds one.
    pub fn increment(&self) {
        self.cell.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one away.
    pub fn decrement(&self) {
        self.cell.fetch_sub(1, Ordering::Relaxed);
    }

    /// Adds `amount`, which may be negative.
    pub fn add(&self, amount: i64) {
        self.cell.fetch_add(amount, Ordering::Relaxed);
    }

    /// Sets the value.
    pub fn set(&self, value: i64) {
        self.cell.store(value, Ordering::Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.cell.load(Ordering::Relaxed)
    }
}

/// A histogram with one owner, like [`Counter`].
#[derive(Debug)]
pub struct Histogram {
    cells: Arc<HistogramCells>,
    one_writer: PhantomData<Cell<()>>,
}

impl Histogram {
    /// Counts one duration.
    #[inline]
    pub fn observe(&self, duration: Duration) {
        self.observe_many(duration, 1);
    }

    /// Counts `times` events of one duration: for a sample that stands for several.
    #[inline]
    pub fn observe_many(&self, duration: Duration, times: u64) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_NS.partition_point(|bound| *bound < ns);
        if let Some(cell) = self.cells.buckets.get(bucket) {
            let value = cell.load(Ordering::Relaxed);
            cell.store(value.wrapping_add(times), Ordering::Relaxed);
        }
        let sum = self.cells.sum_ns.load(Ordering::Relaxed);
        self.cells
            .sum_ns
            .store(sum.wrapping_add(ns.wrapping_mul(times)), Ordering::Relaxed);
    }
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A new one-owner counter of a series; all counters of a series are summed.
    #[must_use]
    pub fn counter(&self, family: &'static Family, labels: &[&str]) -> Counter {
        Counter {
            cell: self.counter_cell(family, labels),
            one_writer: PhantomData,
        }
    }

    /// A new counter of a series that threads may share.
    #[must_use]
    pub fn shared_counter(&self, family: &'static Family, labels: &[&str]) -> SharedCounter {
        SharedCounter {
            cell: self.counter_cell(family, labels),
        }
    }

    /// The gauge of a series.
    #[must_use]
    pub fn gauge(&self, family: &'static Family, labels: &[&str]) -> Gauge {
        let mut families = self.lock();
        let made = || Cells::Gauge {
            cell: Arc::default(),
        };
        match cells(&mut families, family, labels, made) {
            Some(Cells::Gauge { cell }) => Gauge {
                cell: Arc::clone(cell),
            },
            _ => Gauge {
                cell: Arc::default(),
            },
        }
    }

    /// Ends a series: its value is not known any more. Who holds its gauge still sets what nobody sees.
    pub fn remove(&self, family: &'static Family, labels: &[&str]) {
        let mut families = self.lock();
        if let Some(series) = families.get_mut(family.name) {
            series
                .by_labels
                .retain(|key, _| !key.iter().eq(labels.iter().copied()));
        }
    }

    /// A new one-owner histogram of a series.
    #[must_use]
    pub fn histogram(&self, family: &'static Family, labels: &[&str]) -> Histogram {
        let mut families = self.lock();
        let own: Arc<HistogramCells> = Arc::default();
        let made = || Cells::Histogram {
            live: Vec::new(),
            retired: Box::default(),
        };
        if let Some(Cells::Histogram { live, .. }) = cells(&mut families, family, labels, made) {
            live.push(Arc::clone(&own));
        }
        Histogram {
            cells: own,
            one_writer: PhantomData,
        }
    }

    /// All series in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut families = self.lock();
        let mut out = String::new();
        for series in families.values_mut() {
            render::family(&mut out, series);
        }
        out
    }

    /// The sums of a counter family by the values of one of its labels.
    #[must_use]
    pub fn totals(&self, family: &'static Family, label: &str) -> BTreeMap<String, u64> {
        let mut totals = BTreeMap::new();
        let Some(position) = family.labels.iter().position(|name| *name == label) else {
            return totals;
        };
        let families = self.lock();
        for (labels, cells) in families
            .get(family.name)
            .iter()
            .flat_map(|found| &found.by_labels)
        {
            if let (Some(value), Cells::Counter { live, retired }) = (labels.get(position), cells) {
                let sum = live.iter().map(|cell| cell.load(Ordering::Relaxed));
                let sum = sum.fold(*retired, u64::wrapping_add);
                let total = totals.entry(value.clone()).or_insert(0_u64);
                *total = total.wrapping_add(sum);
            }
        }
        totals
    }

    fn counter_cell(&self, family: &'static Family, labels: &[&str]) -> Arc<AtomicU64> {
        let mut families = self.lock();
        let own: Arc<AtomicU64> = Arc::default();
        let made = || Cells::Counter {
            live: Vec::new(),
            retired: 0,
        };
        if let Some(Cells::Counter { live, .. }) = cells(&mut families, family, labels, made) {
            live.push(Arc::clone(&own));
        }
        own
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Series>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cells of a series, made if missing; none if the name is in use for another family.
fn cells<'a>(
    families: &'a mut BTreeMap<&'static str, Series>,
    family: &'static Family,
    labels: &[&str],
    made: impl Fn() -> Cells,
) -> Option<&'a mut Cells> {
    debug_assert_eq!(
        labels.len(),
        family.labels.len(),
        "label values of {}",
        family.name
    );
    let series = families.entry(family.name).or_insert_with(|| Series {
        family,
        by_labels: BTreeMap::new(),
    });
    debug_assert_eq!(
        series.family.kind, family.kind,
        "two kinds of {}",
        family.name
    );
    if series.family.kind != family.kind {
        return None;
    }
    let mut key: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
    if series.by_labels.len() >= MAX_SERIES && !series.by_labels.contains_key(&key) {
        key = vec!["other".to_owned(); labels.len()];
    }
    Some(series.by_labels.entry(key).or_insert_with(made))
}

#[cfg(test)]
mod tests;
