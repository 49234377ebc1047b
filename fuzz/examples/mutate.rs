//! Runs one target on mutated seeds for a while, without libFuzzer.
//!
//! Finds panics, inputs that take too long and memory taken on a mere claim; it does not measure
//! coverage. Invariant: the same target and number run through the same inputs, so every finding can
//! be had again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use breccia_fuzz::{TARGETS, seeds};
use rustix::process::{Resource, Rlimit, setrlimit};

/// No input may take longer.
const TOO_LONG: Duration = Duration::from_secs(2);

/// The process may not take more address space: an input of some kilobytes that needs it has
/// claimed something that never came. The process is then aborted.
const MOST_MEMORY_BYTES: u64 = 256 << 20;

const USAGE: &str = "usage: mutate TARGET SECONDS [NUMBER]   run; another NUMBER gives other inputs
       mutate TARGET --seeds FOLDER   write the seeds into files
       mutate TARGET --input FILE     run one input";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (Some(name), [_, rest @ ..]) = (words.first(), words.as_slice()) else {
        return usage();
    };
    let Some((name, body)) = TARGETS.iter().find(|(known, _)| known == name) else {
        return usage();
    };
    match rest {
        ["--seeds", folder] => write_seeds(name, folder),
        ["--input", file] => match std::fs::read(file) {
            Ok(input) => {
                body(&input);
                ExitCode::SUCCESS
            }
            Err(error) => failed(file, &error),
        },
        [seconds] => parsed(seconds, "1").map_or_else(usage, |(s, n)| run(name, *body, s, n)),
        [seconds, number] => {
            parsed(seconds, number).map_or_else(usage, |(s, n)| run(name, *body, s, n))
        }
        _ => usage(),
    }
}

fn parsed(seconds: &str, number: &str) -> Option<(Duration, u64)> {
    Some((
        Duration::from_secs(seconds.parse().ok()?),
        number.parse().ok()?,
    ))
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn failed(path: &str, error: &std::io::Error) -> ExitCode {
    eprintln!("{path}: {error}");
    ExitCode::FAILURE
}

fn write_seeds(target: &str, folder: &str) -> ExitCode {
    for (number, seed) in seeds::of(target).into_iter().enumerate() {
        let path = Path::new(folder).join(format!("seed-{number}"));
        if let Err(error) = std::fs::write(&path, seed) {
            return failed(&path.display().to_string(), &error);
        }
    }
    ExitCode::SUCCESS
}

fn run(name: &str, target: fn(&[u8]), time: Duration, number: u64) -> ExitCode {
    let bound = Rlimit {
        current: Some(MOST_MEMORY_BYTES),
        maximum: Some(MOST_MEMORY_BYTES),
    };
    if let Err(error) = setrlimit(Resource::As, bound) {
        eprintln!("{name}: memory is not bounded: {error}");
    }
    let begun = Instant::now();
    let mut mutator = seeds::Mutator::new(name, number);
    let mut executions = 0_u64;
    while begun.elapsed() < time {
        for _ in 0..1000 {
            let input = mutator.next();
            let once = || {
                let one = Instant::now();
                let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
                (outcome.is_err(), one.elapsed() > TOO_LONG)
            };
            let (panicked, slow) = once();
            executions += 1;
            // Slow twice: once it may be the machine that was busy.
            if panicked || (slow && once().1) {
                let path = format!("finding-{name}-{executions}");
                let kept = std::fs::write(&path, input);
                println!("{name}: FINDING after {executions} executions, kept in {path}: {kept:?}");
                return ExitCode::FAILURE;
            }
        }
    }
    let seconds = begun.elapsed().as_secs();
    println!("{name}: {executions} executions in {seconds} s from number {number}, no finding");
    ExitCode::SUCCESS
}
