//! The text of a configuration file, and where in it an offset lies.
//!
//! Not a parser. Invariant: any offset, even one past the end, has a line and a column.

use std::path::{Path, PathBuf};

use crate::fault::Place;

/// The text of a file and what is known about the file.
pub(crate) struct Source<'a> {
    /// The text.
    pub(crate) text: &'a str,
    /// The file's name, for messages.
    file: &'a str,
    /// The folder that relative paths start from.
    base_dir: &'a Path,
    /// The file's permission bits, if others than its owner may read it.
    pub(crate) readable_mode: Option<u32>,
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(text: &'a str, file: &'a str, base_dir: &'a Path) -> Self {
        let line_starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(offset, _)| offset + 1))
            .collect();
        Self {
            text,
            file,
            base_dir,
            readable_mode: None,
            line_starts,
        }
    }

    /// The path as seen from the configuration file.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        self.base_dir.join(path)
    }

    /// The place of a key.
    pub(crate) fn place(&self, offset: usize, key: &str) -> Place {
        let (line, _) = self.line_column(offset);
        Place {
            file: self.file.to_owned(),
            line: Some(line),
            column: None,
            key: key.to_owned(),
        }
    }

    /// The place of an offset where no key is known.
    pub(crate) fn spot(&self, offset: usize) -> Place {
        let (line, column) = self.line_column(offset);
        Place {
            file: self.file.to_owned(),
            line: Some(line),
            column: Some(column),
            key: String::new(),
        }
    }

    /// The file as a whole.
    pub(crate) fn whole(&self) -> Place {
        whole_file(self.file)
    }

    fn line_column(&self, offset: usize) -> (usize, usize) {
        let line = self
            .line_starts
            .partition_point(|start| *start <= offset)
            .max(1);
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let before = self
            .text
            .get(start..offset.min(self.text.len()))
            .unwrap_or("");
        (line, before.chars().count() + 1)
    }
}

/// A file as a whole, before its text is known.
pub(crate) fn whole_file(file: &str) -> Place {
    Place {
        file: file.to_owned(),
        line: None,
        column: None,
        key: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::Source;
    use std::path::Path;

    #[test]
    fn every_offset_has_a_line_and_a_column() {
        let source = Source::new("ab\né=x\n", "f", Path::new(""));
        for (offset, wanted) in [
            (0, (1, 1)),
            (2, (1, 3)),
            (3, (2, 1)),
            (5, (2, 2)),
            (8, (3, 1)),
            (99, (3, 1)),
        ] {
            assert_eq!(source.line_column(offset), wanted, "offset {offset}");
        }
        // Inside a character: the line is right, the column its start.
        assert_eq!(source.line_column(4).0, 2);
    }
}
