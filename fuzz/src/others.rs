//! Key positions, layout documents and configuration files.
//!
//! Invariant checked: every position found is an argument; a document that is accepted is written
//! back as the same layout; a configuration of any bytes gives a plan or faults.

use std::path::Path;

use breccia_core::layout::Layout;
use breccia_kv::resp::commands;

/// One request, its arguments on a line each.
pub fn command_keys(data: &[u8]) {
    let arguments: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let Some(spec) = arguments.first().and_then(|name| commands::find(name)) else {
        return;
    };
    let mut found = Vec::new();
    if commands::keys(spec, arguments.as_slice(), &mut found).is_ok() {
        assert!(
            found
                .iter()
                .all(|position| *position > 0 && *position < arguments.len())
        );
        if let commands::KeyShape::One(position) = spec.shape() {
            assert_eq!(found, [usize::from(position)]);
        }
    }
    let _option = commands::pattern_option(spec, arguments.as_slice());
}

/// A layout as it lies in the state folder.
pub fn layout_document(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(layout) = Layout::from_document(text) {
        let again = Layout::from_document(&layout.to_document());
        assert_eq!(
            again.map(|again| again.digest()).ok(),
            Some(layout.digest())
        );
        let shard = layout.place(data).shard;
        assert!(layout.shard_name(shard).is_some());
    }
}

/// What every environment variable holds for [`config`].
const SECRET: &str = "fZ9-unlikely-in-any-input";

/// A configuration file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // Inputs may name files; none of them exists.
    let folder = Path::new("/nonexistent/breccia");
    let read = || breccia_config::parse(text, "fuzz.toml", folder, &|_| Some(SECRET.to_owned()));
    let outcome = read();
    let shown = match &outcome {
        Ok((plan, warnings)) => {
            assert!(
                warnings
                    .iter()
                    .all(|warning| !warning.to_string().contains(SECRET))
            );
            format!("{plan:?}")
        }
        Err(faults) => {
            assert!(!faults.is_empty(), "a refusal says why");
            let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
            assert!(
                lines.iter().all(|line| line.starts_with("fuzz.toml")),
                "{lines:?}"
            );
            lines.join("\n")
        }
    };
    assert!(!shown.contains(SECRET), "a secret is shown");
    let again = match read() {
        Ok((plan, _)) => format!("{plan:?}"),
        Err(faults) => faults
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n"),
    };
    assert_eq!(shown, again, "the same file gives the same answer");
}
