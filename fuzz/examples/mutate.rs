//! Runs one target on mutated seeds for a while, without libFuzzer: `mutate TARGET SECONDS`.
//!
//! Finds panics and inputs that take too long; it does not measure coverage. With `--seeds FOLDER`
//! it writes the seeds there instead. Invariant: an input that breaks a promise is kept in a file.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use breccia_fuzz::{TARGETS, seeds};

/// No input of this size may take longer.
const TOO_LONG: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.as_slice() {
        [target, flag, folder] if flag == "--seeds" => write_seeds(target, folder),
        [target, seconds] => {
            let found = TARGETS.iter().find(|(name, _)| name == target);
            match (found, seconds.parse()) {
                (Some((name, body)), Ok(seconds)) => run(name, *body, Duration::from_secs(seconds)),
                _ => usage(),
            }
        }
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: mutate TARGET SECONDS | mutate TARGET --seeds FOLDER");
    ExitCode::from(2)
}

fn write_seeds(target: &str, folder: &str) -> ExitCode {
    for (number, seed) in seeds::of(target).into_iter().enumerate() {
        let path = std::path::Path::new(folder).join(format!("seed-{number}"));
        if let Err(error) = std::fs::write(&path, seed) {
            eprintln!("{}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(name: &str, target: fn(&[u8]), time: Duration) -> ExitCode {
    let begun = Instant::now();
    let start = u64::from(begun.elapsed().subsec_nanos()) << 32 | u64::from(std::process::id());
    let mut mutator = seeds::Mutator::new(name, start);
    let mut executions = 0_u64;
    while begun.elapsed() < time {
        for _ in 0..1000 {
            let input = mutator.next();
            let one = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
            executions += 1;
            if outcome.is_err() || one.elapsed() > TOO_LONG {
                let path = format!("finding-{name}-{executions}");
                let kept = std::fs::write(&path, input);
                println!("{name}: FINDING after {executions} executions, kept in {path}: {kept:?}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!(
        "{name}: {executions} executions in {} s, no finding",
        begun.elapsed().as_secs()
    );
    ExitCode::SUCCESS
}
