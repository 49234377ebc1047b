//! `cargo xtask schema`: `breccia.schema.json` from the configuration's own tables.
//!
//! The crate that has the tables has the test that compares them with the file; this asks that test
//! to write instead. Invariant: the file is written by one piece of code only.

use std::process::Command;

use anyhow::Result;

use crate::process;

/// Runs the configuration's tests in their writing mode.
pub(crate) fn run() -> Result<()> {
    process::run(
        Command::new("cargo")
            .args(["test", "--package", "breccia-config", "schema"])
            .env("BRECCIA_REGENERATE", "1")
            .current_dir(process::root()),
    )
}
