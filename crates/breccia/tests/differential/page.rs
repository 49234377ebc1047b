//! `docs/redis-commands.md` is true: every row of it is in a script or an example.
//!
//! The scripts hold a request against a real server, or against the gateway alone where it refuses.
//! Invariant: a row that says "refused" is refused wherever it stands, and no other row is.

use std::path::Path;

use anyhow::Result;

use crate::{matrix, scripts};

/// A row of the page.
pub(crate) struct Row {
    pub(crate) words: Vec<String>,
    pub(crate) refused: bool,
    pub(crate) reason: String,
}

/// ``| `CLIENT LIST` | here | … |``
fn rows(page: &str) -> Vec<Row> {
    let cells = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let (name, class) = (cells.next()?.trim_end_matches('`'), cells.next()?);
        Some((name, class, cells.next()?.trim_end_matches(" |")))
    });
    cells
        .map(|(name, class, reason)| Row {
            words: name.split(' ').map(str::to_owned).collect(),
            refused: class == "refused",
            reason: reason.trim().to_owned(),
        })
        .collect()
}

/// Whether a request is of the command of that name.
pub(crate) fn names(words: &[String], request: &[Vec<u8>]) -> bool {
    let count = words.len();
    let mut words = words.iter().zip(request);
    request.len() >= count && words.all(|(name, word)| name.as_bytes().eq_ignore_ascii_case(word))
}

/// The page's rows.
pub(crate) fn page() -> Result<Vec<Row>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/redis-commands.md");
    Ok(rows(&std::fs::read_to_string(path)?))
}

#[test]
fn every_row_of_the_page_is_tried() -> Result<()> {
    let rows = page()?;
    assert!(rows.len() > 250, "{} rows", rows.len());
    let mut requests: Vec<(Vec<Vec<u8>>, bool)> = scripts::requests().collect();
    requests.extend(matrix::requests().map(|words| (words, false)));
    let mut wrong = Vec::new();
    for row in &rows {
        let tried = requests
            .iter()
            .filter(|(request, _)| names(&row.words, request));
        let refused: Vec<bool> = tried.map(|(_, refused)| *refused).collect();
        let good = if row.refused {
            !refused.is_empty() && refused.iter().all(|refused| *refused)
        } else {
            refused.iter().any(|refused| !refused)
        };
        if !good {
            wrong.push(format!("{} ({} lines)", row.words.join(" "), refused.len()));
        }
    }
    assert!(
        wrong.is_empty(),
        "not shown to be as the page says: {}",
        wrong.join(", ")
    );
    Ok(())
}
