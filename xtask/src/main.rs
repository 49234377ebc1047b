//! Chores: test, tidy, bench and generated files, each `cargo xtask NAME`.
//!
//! Not part of the product and depends on none of it: a chore that regenerates a source file must
//! run when that file does not build. Invariant: exit status 0 means the chore did all it says.

mod commands;
mod process;
mod resp;
mod schema;
mod test;
mod tidy;

use anyhow::{Result, bail};

const USAGE: &str = "\
cargo xtask NAME
  test [STEP…]          everything CI runs; as root it installs what is missing
  tidy                  the house rules that compiler and clippy do not check
  deny                  licences, duplicate versions, and advisories where cargo-deny is installed
  commands [--check]    write the Redis command table from a real server's COMMAND reply
  schema                write breccia.schema.json from the configuration's tables";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["test", steps @ ..] => test::run(steps),
        ["tidy"] => tidy::run(),
        ["deny"] => tidy::deny(),
        ["commands", options @ ..] => commands::run(options),
        ["schema"] => schema::run(),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("no such chore: {}\n\n{USAGE}", words.join(" ")),
    }
}
