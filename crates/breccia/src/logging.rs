//! Log lines to stderr, as text or as JSON.
//!
//! Not metrics. Invariant: other crates' lines below a warning are never shown, so a log holds only
//! what an operator can act on.

use std::io::{IsTerminal, stderr};
use std::sync::OnceLock;

use breccia_config::{LogFormat, LogLevel, LogPlan};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

/// Our own crates, whose level the config sets.
const OWN: [&str; 5] = [
    "breccia",
    "breccia_core",
    "breccia_net",
    "breccia_kv",
    "breccia_config",
];

type Handle = reload::Handle<Targets, Registry>;

static LEVEL: OnceLock<Handle> = OnceLock::new();

/// Starts logging. Later calls change nothing.
pub(crate) fn start(plan: LogPlan) {
    let (filter, handle) = reload::Layer::new(targets(plan.level));
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match plan.format {
        LogFormat::Text => Box::new(
            tracing_subscriber::fmt::layer()
                .with_writer(stderr)
                .with_ansi(stderr().is_terminal())
                .with_target(false)
                .with_filter(filter),
        ),
        LogFormat::Json => Box::new(
            tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_writer(stderr)
                .with_filter(filter),
        ),
    };
    if tracing_subscriber::registry()
        .with(lines)
        .try_init()
        .is_ok()
    {
        let _ = LEVEL.set(handle);
        log_panics();
    }
}

/// Shows lines from `level` on.
pub(crate) fn set_level(level: LogLevel) {
    if let Some(handle) = LEVEL.get() {
        // It fails only when the subscriber is gone, which it never is.
        let _ = handle.reload(targets(level));
    }
}

fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let own = OWN.iter().map(|target| (*target, level));
    Targets::new()
        .with_targets(own)
        .with_default(level.min(LevelFilter::WARN))
}

/// A panic in a connection's task ends only that task: the log is where it is seen.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("?").to_owned();
        let message = panic.payload_as_str().unwrap_or("?");
        tracing::error!(
            place,
            thread,
            message,
            "this is a fault in Breccia: please report it"
        );
    }));
}
