//! `cargo xtask tidy`: the house rules that the compiler and clippy do not check.
//!
//! Each rule looks at one file or one manifest and names what it found; nothing is changed. Invariant:
//! an exemption that no longer exempts anything is a fault, so the list can only shrink.

mod lexer;
mod licences;
mod manifests;
mod source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::process;

/// Lowered when an exemption goes away, never raised.
const MOST_EXEMPTIONS: usize = 2;

/// Something that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// `file-length`, `function-length`, …
    pub(crate) rule: &'static str,
    /// Where: `path` or `path:line`.
    pub(crate) place: String,
    /// What and how to mend it.
    pub(crate) what: String,
}

impl Finding {
    pub(crate) fn new(
        rule: &'static str,
        place: impl Into<String>,
        what: impl Into<String>,
    ) -> Self {
        Finding {
            rule,
            place: place.into(),
            what: what.into(),
        }
    }

    fn path(&self) -> &str {
        self.place.split(':').next().unwrap_or_default()
    }
}

/// Checks everything; an error lists every finding.
pub(crate) fn run() -> Result<()> {
    let root = process::root();
    let files = tracked(&root)?;
    let mut findings = Vec::new();
    for file in &files {
        // A file may be deleted and still be in the index, or hold no text.
        let Ok(text) = std::fs::read_to_string(root.join(file)) else {
            continue;
        };
        findings.extend(source::check(&file.to_string_lossy(), &text));
    }
    let metadata = metadata()?;
    let reasons = std::fs::read_to_string(root.join("docs/dependencies.md")).unwrap_or_default();
    findings.extend(manifests::check(&metadata, &reasons)?);
    findings.extend(licences::check(&metadata, &root.join("deny.toml"))?);
    let findings = without_exemptions(findings, &root.join("xtask/tidy-exemptions.txt"))?;
    for finding in &findings {
        println!(
            "tidy: {}: {}: {}",
            finding.place, finding.rule, finding.what
        );
    }
    ensure!(
        findings.is_empty(),
        "tidy: {} findings in {} files",
        findings.len(),
        files.len()
    );
    println!("tidy: {} files keep the rules", files.len());
    Ok(())
}

/// The dependency check alone, with `cargo deny` where it is installed.
pub(crate) fn deny() -> Result<()> {
    let root = process::root();
    let findings = licences::check(&metadata()?, &root.join("deny.toml"))?;
    for finding in &findings {
        println!(
            "deny: {}: {}: {}",
            finding.place, finding.rule, finding.what
        );
    }
    ensure!(findings.is_empty(), "deny: {} findings", findings.len());
    if !process::cargo_has("deny") {
        println!(
            "deny: licences and duplicates are in order; advisories were not checked, cargo-deny is not installed"
        );
        return Ok(());
    }
    process::run(
        Command::new("cargo")
            .args(["deny", "--offline", "check"])
            .current_dir(root),
    )
}

/// What Cargo knows of the workspace and everything it depends on, on this platform.
fn metadata() -> Result<serde_json::Value> {
    let target = process::output(Command::new("rustc").arg("-vV"))?;
    let target = target.lines().find_map(|line| line.strip_prefix("host: "));
    let text = process::output(Command::new("cargo").current_dir(process::root()).args([
        "metadata",
        "--format-version=1",
        "--locked",
        "--filter-platform",
        target.context("rustc -vV names no platform")?,
    ]))?;
    Ok(serde_json::from_str(&text)?)
}

/// Files that are, or are about to be, in the repository.
fn tracked(root: &Path) -> Result<Vec<PathBuf>> {
    let list = process::output(
        Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(root),
    )?;
    let files: BTreeSet<PathBuf> = list.lines().map(PathBuf::from).collect();
    Ok(files
        .into_iter()
        .filter(|file| root.join(file).is_file())
        .collect())
}

/// Takes the exempted findings away. A line of the list: `rule path  # why`.
fn without_exemptions(findings: Vec<Finding>, list: &Path) -> Result<Vec<Finding>> {
    let text = std::fs::read_to_string(list).unwrap_or_default();
    let mut exemptions = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let Some((exemption, _why)) = line.split_once('#') else {
            bail!("{}: an exemption without a reason: {line}", list.display());
        };
        let mut words = exemption.split_whitespace().map(str::to_owned);
        let (Some(rule), Some(path)) = (words.next(), words.next()) else {
            bail!("{}: not `rule path # why`: {line}", list.display());
        };
        exemptions.push((rule, path));
    }
    ensure!(
        exemptions.len() <= MOST_EXEMPTIONS,
        "{} holds {} exemptions; the list may only shrink (it had {MOST_EXEMPTIONS})",
        list.display(),
        exemptions.len()
    );
    let mut used = BTreeSet::new();
    let mut left: Vec<Finding> = Vec::new();
    for finding in findings {
        let hit = exemptions
            .iter()
            .position(|(rule, path)| rule == finding.rule && path == finding.path());
        match hit {
            Some(index) => drop(used.insert(index)),
            None => left.push(finding),
        }
    }
    for (index, (rule, path)) in exemptions.iter().enumerate() {
        if !used.contains(&index) {
            let what = "this exemption is not needed any more: delete it and lower MOST_EXEMPTIONS";
            left.push(Finding::new(
                "exemptions",
                path.clone(),
                format!("{rule}: {what}"),
            ));
        }
    }
    Ok(left)
}
