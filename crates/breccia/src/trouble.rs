//! How a command ends when it does not succeed.
//!
//! Not the errors themselves: those belong to the crates. Invariant: exit status 2 means that
//! arguments, config or layout are refused and nothing was done; 1 means that it ran and failed.

use std::io::Write;
use std::process::ExitCode;

/// Why a command did not succeed, one thought a line.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It ran and failed.
    Failed(Vec<String>),
    /// Arguments, config or layout are refused.
    Refused(Vec<String>),
}

impl Trouble {
    /// A failure of one line.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "it is what `map_err` hands over"
    )]
    pub(crate) fn failed(line: impl ToString) -> Self {
        Self::Failed(vec![line.to_string()])
    }

    /// A refusal of one line.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "it is what `map_err` hands over"
    )]
    pub(crate) fn refused(line: impl ToString) -> Self {
        Self::Refused(vec![line.to_string()])
    }

    /// What there is to say, one thought a line.
    pub(crate) fn into_lines(self) -> Vec<String> {
        match self {
            Self::Failed(lines) | Self::Refused(lines) => lines,
        }
    }

    /// Prints the lines to stderr and answers the exit status.
    pub(crate) fn report(&self) -> ExitCode {
        let (lines, code) = match self {
            Self::Failed(lines) => (lines, ExitCode::FAILURE),
            Self::Refused(lines) => (lines, ExitCode::from(2)),
        };
        for line in lines {
            complain(line);
        }
        code
    }
}

/// One line to stderr. That stderr is closed stops nothing.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Text to stdout; a reader that has gone away (`| head`) is no trouble.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}
