//! Imports go one way between the workspace's crates.
//!
//! Cargo forbids cycles; this forbids the edges that the house does not have. Invariant: a crate that
//! is not in the table is a finding, so a new crate gets its place here first.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Finding;

/// Which of our crates each of our crates may depend on, outside of tests.
const MAY_USE: [(&str, &[&str]); 11] = [
    ("breccia-core", &[]),
    ("breccia-ring", &[]),
    ("breccia-net", &["breccia-core", "breccia-ring"]),
    ("breccia-config", &["breccia-core"]),
    ("breccia-kv", &["breccia-core", "breccia-net"]),
    ("breccia-blob", &["breccia-core", "breccia-net"]),
    ("breccia-sql", &["breccia-core", "breccia-net"]),
    (
        "breccia",
        &[
            "breccia-core",
            "breccia-net",
            "breccia-kv",
            "breccia-blob",
            "breccia-sql",
            "breccia-config",
        ],
    ),
    (
        "breccia-testkit",
        &["breccia-core", "breccia-net", "breccia-kv", "breccia-blob"],
    ),
    (
        "breccia-fuzz",
        &[
            "breccia-core",
            "breccia-kv",
            "breccia-blob",
            "breccia-sql",
            "breccia-config",
        ],
    ),
    ("xtask", &[]),
];

/// Every dependency that points the wrong way, or has no reason in `reasons`, the text of
/// `docs/dependencies.md`.
pub(crate) fn check(metadata: &Value, reasons: &str) -> Result<Vec<Finding>> {
    let members = metadata["workspace_members"]
        .as_array()
        .context("no workspace_members")?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let mut findings = Vec::new();
    for package in packages
        .iter()
        .filter(|package| members.contains(&package["id"]))
    {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = MAY_USE.iter().find(|(member, _)| *member == name) else {
            findings.push(Finding::new(
                "imports",
                name,
                "give the new crate its place in MAY_USE",
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            let ours = MAY_USE.iter().any(|(member, _)| *member == used);
            let for_tests = dependency["kind"] == "dev";
            if !ours && !reasons.contains(&format!("`{used}`")) {
                let what = format!("{used} has no reason in docs/dependencies.md");
                findings.push(Finding::new("dependencies", name, what));
            }
            if ours && !for_tests && !allowed.contains(&used) {
                let what = format!("must not depend on {used}: imports go one way");
                findings.push(Finding::new("imports", name, what));
            }
            if for_tests && ours && used != "breccia-testkit" && !allowed.contains(&used) {
                let what = format!("tests may use breccia-testkit, not {used}");
                findings.push(Finding::new("imports", name, what));
            }
        }
    }
    Ok(findings)
}
