//! Tests of the crate as a whole: text in, plan or faults out.

mod blob_plans;
mod faults;
mod files;
mod generated;
mod mangled;
mod plans;
mod sql_plans;

use std::path::Path;

use crate::{Plan, parse};

/// The environment of every test.
fn env(name: &str) -> Option<String> {
    match name {
        "CACHE_PASSWORD" => Some("from-env".to_owned()),
        "EMPTY" => Some(String::new()),
        "LINES" => Some("a\nb".to_owned()),
        _ => None,
    }
}

/// The plan of a good text, and its warnings.
fn plan_in(text: &str, base_dir: &Path) -> (Plan, Vec<String>) {
    match parse(text, "breccia.toml", base_dir, &env) {
        Ok((plan, warnings)) => (plan, warnings.iter().map(ToString::to_string).collect()),
        Err(faults) => {
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            panic!("{}", faults.join("\n"));
        }
    }
}

fn plan(text: &str) -> Plan {
    plan_in(text, Path::new("/etc/breccia")).0
}
