//! The `breccia` binary: command line and wiring.
//!
//! Not the gateway's work, which is done in the slices. Invariant: every command answers 0 (good),
//! 1 (it ran and failed) or 2 (arguments, config or layout are refused).

mod admin;
mod blobs;
mod check;
mod cli;
mod clusters;
mod descriptors;
mod explain;
mod gateway;
mod layout_command;
mod listening;
mod loading;
mod logging;
mod markers;
mod reach;
mod registry;
mod reload;
mod s3_keys;
mod serve;
mod status;
mod trouble;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are printed to stdout with status 0, mistakes to stderr with 2.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let done = match cli.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Layout(command) => layout_command::run(&command),
        Command::Status(arguments) => status::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => trouble.report(),
    }
}
