//! The Prometheus text format.
//!
//! Not a registry: it reads the series it is given. Invariant: whatever bytes a label value holds,
//! the text stays well-formed.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{BUCKETS_NS, Cells, Family, HistogramSum, Kind, Series};

/// Writes one family; cells whose owners are gone are folded into their series.
pub(super) fn family(out: &mut String, series: &mut Series) {
    let Series { family, by_labels } = series;
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {} {}", family.name, family.help);
    let _ = writeln!(out, "# TYPE {} {kind}", family.name);
    for (labels, cells) in by_labels {
        match cells {
            Cells::Counter { live, retired } => {
                live.retain(|cell| {
                    let used = Arc::strong_count(cell) > 1;
                    if !used {
                        *retired = retired.wrapping_add(cell.load(Ordering::Relaxed));
                    }
                    used
                });
                let sum = live.iter().fold(*retired, |sum, cell| {
                    sum.wrapping_add(cell.load(Ordering::Relaxed))
                });
                line(out, family, "", labels, None, &sum.to_string());
            }
            Cells::Gauge { cell } => {
                let value = cell.load(Ordering::Relaxed).to_string();
                line(out, family, "", labels, None, &value);
            }
            Cells::Histogram { live, retired } => {
                live.retain(|cells| {
                    let used = Arc::strong_count(cells) > 1;
                    if !used {
                        retired.add(cells);
                    }
                    used
                });
                let mut sum = HistogramSum::clone(retired);
                for cells in live.iter() {
                    sum.add(cells);
                }
                histogram(out, family, labels, &sum);
            }
        }
    }
}

fn histogram(out: &mut String, family: &Family, labels: &[String], sum: &HistogramSum) {
    let mut count = 0_u64;
    let bounds = BUCKETS_NS.iter().map(|bound| seconds(*bound));
    for (bound, bucket) in bounds.chain(["+Inf".to_owned()]).zip(&sum.buckets) {
        count = count.wrapping_add(*bucket);
        line(
            out,
            family,
            "_bucket",
            labels,
            Some(&bound),
            &count.to_string(),
        );
    }
    line(out, family, "_sum", labels, None, &seconds(sum.sum_ns));
    line(out, family, "_count", labels, None, &count.to_string());
}

/// Nanoseconds as decimal seconds, exactly.
fn seconds(ns: u64) -> String {
    let text = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn line(
    out: &mut String,
    family: &Family,
    suffix: &str,
    labels: &[String],
    bound: Option<&str>,
    value: &str,
) {
    out.push_str(family.name);
    out.push_str(suffix);
    let mut open = '{';
    for (name, value) in family.labels.iter().zip(labels) {
        let _ = write!(out, "{open}{name}=\"{}\"", escaped(value));
        open = ',';
    }
    if let Some(bound) = bound {
        let _ = write!(out, "{open}le=\"{bound}\"");
        open = ',';
    }
    if open == ',' {
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
