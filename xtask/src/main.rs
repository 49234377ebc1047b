//! Chores: test, tidy, bench and generated files, each `cargo xtask NAME`.
//!
//! Not part of the product and depends on none of it: a chore that regenerates a source file must
//! run when that file does not build. Invariant: exit status 0 means the chore did all it says.

mod bench;
mod commands;
mod fuzz;
mod process;
mod resp;
mod schema;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
cargo xtask NAME
  test [STEP…]          everything CI runs; as root it installs what is missing
  tidy                  the house rules that compiler and clippy do not check
  deny                  licences, duplicate versions, and advisories where cargo-deny is installed
  commands [--check]    write the Redis command table from a real server's COMMAND reply,
                        and docs/redis-commands.md from the table
  schema                write breccia.schema.json from the configuration's tables
  fuzz [TARGET…] [--seconds N] [--stable]
                        every fuzz target for 600 s each; with cargo-fuzz where it is installed
  bench kv [--quick] [--no-build] [--rounds N] [--only redis|memcached] [--depth N]
                        Breccia against nutcracker and against one server; writes docs/benchmarks.md
  bench blob [--quick] [--no-build] [--rounds N] [--only small|large]
                        Breccia over S3 servers and over files against one S3 server (Garage)
  bench sql [--quick] [--no-build] [--rounds N] [--only NAME]
                        Breccia before PostgreSQL and standbys against PgBouncer and pgpool-II
  bench mysql [--quick] [--no-build] [--rounds N]
                        Breccia before MariaDB and replicas against the primary alone, by sysbench";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match chore(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn chore(words: &[&str]) -> Result<()> {
    match words {
        ["test", steps @ ..] => test::run(steps),
        ["tidy"] => tidy::run(),
        ["deny"] => tidy::deny(),
        ["commands", options @ ..] => commands::run(options),
        ["schema"] => schema::run(),
        ["fuzz", options @ ..] => fuzz::run(options),
        ["bench", "kv", options @ ..] => bench::run(options),
        ["bench", "blob", options @ ..] => bench::blob::run(options),
        ["bench", "sql", options @ ..] => bench::sql::run(options),
        ["bench", "mysql", options @ ..] => bench::mysql::run(options),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("no such chore: {}\n\n{USAGE}", words.join(" ")),
    }
}
