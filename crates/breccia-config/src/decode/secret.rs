//! Reading a secret: the text itself, an environment variable or a file.
//!
//! Invariant: no fault and no warning made here shows a secret, or a text that may be one.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use super::{Decoder, Raw, Spot};
use crate::Secret;
use crate::fault::{ConfigError, Notice};
use crate::field::Kind;
use crate::tables;

const FILE_MOST: u64 = 64 << 10;

impl Decoder<'_> {
    pub(super) fn secret(&mut self, raw: &Raw<'_>, spot: Spot<'_>) -> Option<Secret> {
        let text = match raw {
            Raw::Text(text) => {
                self.literal_secret(spot);
                Ok((*text).to_owned())
            }
            Raw::Table(written) => {
                let table = self.table(&tables::SECRET, *written, spot, None);
                let is_written = |key| written.contains_key(key);
                match (is_written("env"), is_written("file")) {
                    (true, false) => self.variable(table.get("env")?),
                    // Something else is written there, and has been reported.
                    (false, false) if !written.is_empty() => return None,
                    (false, true) => file_content(&table.get::<std::path::PathBuf>("file")?),
                    _ => Err(ConfigError::SecretSource),
                }
            }
            raw => {
                self.wrong_type(Kind::Secret, raw, spot);
                return None;
            }
        };
        text.and_then(checked)
            .map_err(|error| self.fault(spot, error))
            .ok()
    }

    /// Warns of a secret written out in a file that others can read.
    pub(crate) fn literal_secret(&mut self, spot: Spot<'_>) {
        if let Some(mode) = self.source.readable_mode {
            self.warn(spot, Notice::SecretReadable { mode });
        }
    }

    fn variable(&self, name: &str) -> Result<String, ConfigError> {
        (self.env)(name).ok_or_else(|| ConfigError::EnvMissing {
            name: name.to_owned(),
        })
    }
}

fn file_content(path: &Path) -> Result<String, ConfigError> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_MOST + 1).read_to_end(&mut bytes))
        .map_err(|source| ConfigError::FileUnreadable {
            path: path.to_owned(),
            source,
        })?;
    let content = || ConfigError::SecretFileContent {
        path: path.to_owned(),
    };
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_MOST) {
        return Err(content());
    }
    let mut text = String::from_utf8(bytes).map_err(|_| content())?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

fn checked(text: String) -> Result<Secret, ConfigError> {
    if text.is_empty() {
        Err(ConfigError::SecretEmpty)
    } else if text.chars().any(char::is_control) {
        Err(ConfigError::SecretControlCharacter)
    } else {
        Ok(Secret::new(text))
    }
}
