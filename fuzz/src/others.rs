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

/// A configuration file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let outcome = breccia_config::parse(text, "fuzz.toml", Path::new("."), &|_| None);
    if let Err(faults) = outcome {
        assert!(faults.iter().all(|fault| !fault.to_string().is_empty()));
        assert!(!faults.is_empty(), "a refusal says why");
    }
}
