//! Licences and duplicate versions of everything the workspace is built from.
//!
//! The same lists serve `cargo deny`: both read `deny.toml`. Not an advisory check, which needs a
//! database from outside. Invariant: a licence expression this file cannot read is a finding.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Finding;

/// Every dependency with a licence that is not allowed, or present in two versions.
pub(crate) fn check(metadata: &Value, deny: &Path) -> Result<Vec<Finding>> {
    let text =
        std::fs::read_to_string(deny).with_context(|| format!("reading {}", deny.display()))?;
    let allowed = list(&text, "allow");
    let skipped = list(&text, "skip");
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut findings = Vec::new();
    // `packages` holds every platform's; the resolved graph only this one's.
    let used: BTreeSet<&str> = metadata
        .pointer("/resolve/nodes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["id"].as_str())
        .collect();
    for package in metadata["packages"].as_array().context("no packages")? {
        if !package["id"].as_str().is_some_and(|id| used.contains(id)) {
            continue;
        }
        let name = package["name"].as_str().unwrap_or_default();
        versions
            .entry(name)
            .or_default()
            .insert(package["version"].as_str().unwrap_or_default());
        let licence = package["license"].as_str().unwrap_or("none");
        if !expression_allowed(licence, &allowed) {
            let what = format!("licence {licence:?} is not in deny.toml's allow list");
            findings.push(Finding::new("licence", name, what));
        }
    }
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        if !skipped
            .iter()
            .any(|entry| entry.split('@').next() == Some(name))
        {
            let versions: Vec<&str> = versions.iter().copied().collect();
            let what = format!("versions {} at once", versions.join(" and "));
            findings.push(Finding::new("duplicate", *name, what));
        }
    }
    Ok(findings)
}

/// The quoted words of a TOML array `name = [ … ]`: enough for a file of our own making.
fn list(text: &str, name: &str) -> Vec<String> {
    let marker = format!("\n{name} = [");
    let Some((_, after)) = text.split_once(&marker) else {
        return Vec::new();
    };
    let body = after.split_once(']').map_or(after, |(body, _)| body);
    body.split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// Evaluates an SPDX expression: OR needs one side, AND both; AND binds closer.
fn expression_allowed(expression: &str, allowed: &[String]) -> bool {
    // An older spelling of OR.
    let expression = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = expression.split_whitespace().collect();
    let mut at = 0;
    any_of(&words, &mut at, allowed) == Some(true) && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize, allowed: &[String]) -> Option<bool> {
    let mut result = all_of(words, at, allowed)?;
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        result |= all_of(words, at, allowed)?;
    }
    Some(result)
}

fn all_of(words: &[&str], at: &mut usize, allowed: &[String]) -> Option<bool> {
    let mut result = one(words, at, allowed)?;
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        result &= one(words, at, allowed)?;
    }
    Some(result)
}

fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> Option<bool> {
    let word = *words.get(*at)?;
    *at += 1;
    if word == "(" {
        let result = any_of(words, at, allowed)?;
        *at += 1;
        return (words.get(*at - 1) == Some(&")")).then_some(result);
    }
    let mut name = word.to_owned();
    if words.get(*at) == Some(&"WITH") {
        name = format!("{word} WITH {}", words.get(*at + 1)?);
        *at += 2;
    }
    Some(allowed.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::{expression_allowed, list};

    #[test]
    fn expressions_are_evaluated() {
        let allowed = list(
            "[licenses]\nallow = [\n  \"MIT\", # why\n  \"ISC\",\n]\n",
            "allow",
        );
        assert_eq!(allowed, ["MIT", "ISC"]);
        let check =
            |text: &str, wanted| assert_eq!(expression_allowed(text, &allowed), wanted, "{text}");
        check("MIT", true);
        check("GPL-3.0", false);
        check("GPL-3.0 OR MIT", true);
        check("GPL-3.0/MIT", true);
        check("GPL-3.0 AND MIT", false);
        check("(GPL-3.0 OR ISC) AND MIT", true);
        check("MIT OR GPL-3.0 AND BSD", true);
        check("Apache-2.0 WITH LLVM-exception", false);
        check("(MIT", false);
        check("", false);
    }
}
