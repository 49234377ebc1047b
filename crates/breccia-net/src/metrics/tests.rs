//! Tests of counting and of the Prometheus text.
//!
//! Not a parser of that text. Invariant: expected lines are written out in full.

use super::*;

static EVENTS: Family = Family {
    name: "events_total",
    help: "Events.",
    kind: Kind::Counter,
    labels: &["kind"],
};
static PLAIN: Family = Family {
    name: "plain",
    help: "Plain.",
    kind: Kind::Gauge,
    labels: &[],
};
static SECONDS: Family = Family {
    name: "seconds",
    help: "Time.",
    kind: Kind::Histogram,
    labels: &["store"],
};

#[test]
fn counters_of_one_series_are_summed_also_after_their_owner_is_gone() {
    let registry = Registry::new();
    let first = registry.counter(&EVENTS, &["a"]);
    let second = registry.shared_counter(&EVENTS, &["a"]);
    first.add(2);
    second.increment();
    let expected =
        "# HELP events_total Events.\n# TYPE events_total counter\nevents_total{kind=\"a\"} 3\n";
    assert_eq!(registry.render(), expected);
    drop(first);
    assert_eq!(registry.render(), expected);
    second.increment();
    assert!(registry.render().ends_with("events_total{kind=\"a\"} 4\n"));
}

#[test]
fn a_family_without_labels_has_no_braces() {
    let registry = Registry::new();
    let gauge = registry.gauge(&PLAIN, &[]);
    registry.gauge(&PLAIN, &[]).add(5);
    gauge.decrement();
    assert!(registry.render().ends_with("\nplain 4\n"));
}

#[test]
fn label_values_are_escaped() {
    let registry = Registry::new();
    registry.counter(&EVENTS, &["a\"b\\c\nd"]).increment();
    assert!(
        registry
            .render()
            .ends_with("{kind=\"a\\\"b\\\\c\\nd\"} 1\n")
    );
}

#[test]
fn histogram_buckets_are_cumulative_and_bounds_are_inclusive() {
    let registry = Registry::new();
    let histogram = registry.histogram(&SECONDS, &["s"]);
    histogram.observe(Duration::from_micros(50));
    histogram.observe(Duration::from_micros(51));
    histogram.observe_many(Duration::from_secs(20), 2);
    let text = registry.render();
    for line in [
        "seconds_bucket{store=\"s\",le=\"0.00005\"} 1",
        "seconds_bucket{store=\"s\",le=\"0.0001\"} 2",
        "seconds_bucket{store=\"s\",le=\"10\"} 2",
        "seconds_bucket{store=\"s\",le=\"+Inf\"} 4",
        "seconds_sum{store=\"s\"} 40.000101",
        "seconds_count{store=\"s\"} 4",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is missing in\n{text}"
        );
    }
}

#[test]
fn series_over_the_limit_are_counted_as_other() {
    let registry = Registry::new();
    for number in 0..MAX_SERIES + 10 {
        registry
            .counter(&EVENTS, &[&number.to_string()])
            .increment();
    }
    let text = registry.render();
    assert!(text.contains("events_total{kind=\"other\"} 10\n"));
    assert_eq!(text.lines().count(), MAX_SERIES + 1 + 2);
}

#[test]
fn released_names_are_unique_and_have_the_prefix() {
    let mut names: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
    assert!(names.iter().all(|name| name.starts_with("breccia_")));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), FAMILIES.len());
}

#[test]
fn totals_sum_over_the_other_labels() {
    let registry = Registry::new();
    registry.counter(&REQUESTS, &["a", "GET", "ok"]).add(2);
    registry.counter(&REQUESTS, &["a", "SET", "ok"]).add(3);
    registry.counter(&REQUESTS, &["b", "SET", "error"]).add(4);
    let expected = [("a".to_owned(), 5), ("b".to_owned(), 4)];
    assert_eq!(registry.totals(&REQUESTS, "listener"), expected.into());
}

#[test]
fn a_series_that_ends_is_not_shown_until_it_is_set_again() {
    static LEVEL: Family = Family {
        name: "level",
        help: "Level.",
        kind: Kind::Gauge,
        labels: &["store"],
    };
    let registry = Registry::new();
    registry.remove(&LEVEL, &["a"]);
    for store in ["a", "b"] {
        registry.gauge(&LEVEL, &[store]).set(7);
    }
    registry.remove(&LEVEL, &["a"]);
    let shown = registry.render();
    assert!(shown.contains("level{store=\"b\"} 7") && !shown.contains("\"a\""));
    registry.gauge(&LEVEL, &["a"]).increment();
    assert!(registry.render().contains("level{store=\"a\"} 1"));
}
