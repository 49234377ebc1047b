//! The documents' examples, tried.
//!
//! Not a spelling check. Invariant: a configuration that a reader copies from the README is good.

use std::path::Path;

use anyhow::{Context, Result};
use breccia_testkit::Breccia;

fn document(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// The TOML blocks of a document that define a listener: whole configurations.
fn configurations(text: &str) -> Vec<String> {
    let blocks = text.split("```toml\n").skip(1);
    blocks
        .filter_map(|rest| rest.split("```").next())
        .filter(|block| block.contains("[listener."))
        .map(str::to_owned)
        .collect()
}

#[test]
fn configurations_in_documents_are_good() -> Result<()> {
    for name in ["README.md", "docs/configuration.md"] {
        let found = configurations(&document(name)?);
        assert!(!found.is_empty(), "{name} shows no configuration");
        for block in found {
            let folder = tempfile::tempdir()?;
            std::fs::write(folder.path().join("breccia.toml"), &block)?;
            let output = Breccia::run(folder.path(), &["check", "--config", "breccia.toml"])?;
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{name}:\n{block}\n{errors}");
        }
    }
    Ok(())
}

#[test]
fn links_between_documents_lead_somewhere() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "docs/benchmarks.md",
        "docs/configuration.md",
    ] {
        let text = document(name)?;
        let folder = Path::new(name).parent().unwrap_or(Path::new(""));
        for rest in text.split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            assert!(
                root.join(folder).join(target).exists(),
                "{name} links to {target}"
            );
        }
    }
    Ok(())
}
