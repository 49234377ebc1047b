//! The quick start's S3 key pair: made at the first start, kept beside the data, found again later.
//!
//! Not for a configuration file: there the administrator names the keys. Invariant: only the owner
//! can read the file that keeps the secret.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use breccia_config::Secret;
use breccia_net::error::plain_reason;
use ring::rand::{SecureRandom, SystemRandom};

use crate::trouble::Trouble;

const FILE: &str = "s3-keys";
/// As long as the keys of AWS, which some clients check.
const ACCESS_KEY_CHARACTERS: usize = 20;
const SECRET_KEY_CHARACTERS: usize = 40;

/// A key pair of S3.
pub(crate) struct KeyPair {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
}

impl KeyPair {
    /// The secret half, as a plan keeps it.
    pub(crate) fn secret(&self) -> Secret {
        Secret::new(self.secret_key.clone())
    }
}

/// The key pair of a data folder; made if there is none.
pub(crate) fn of(folder: &Path) -> Result<KeyPair, Trouble> {
    let path = folder.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => read(&text).ok_or_else(|| {
            Trouble::refused(format!(
                "{} does not hold an access key and a secret key, a line each; remove it, and the \
                 next start makes new ones",
                path.display()
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(folder, &path),
        Err(error) => Err(refused(&path, "read", &error)),
    }
}

fn refused(path: &Path, what: &str, error: &io::Error) -> Trouble {
    let reason = plain_reason(error);
    Trouble::failed(format!("{} cannot be {what} ({reason})", path.display()))
}

fn read(text: &str) -> Option<KeyPair> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let (access_key, secret_key) = (lines.next()?, lines.next()?);
    let good = |key: &str| key.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (good(access_key) && good(secret_key) && lines.next().is_none()).then(|| KeyPair {
        access_key: access_key.to_owned(),
        secret_key: secret_key.to_owned(),
    })
}

fn make(folder: &Path, path: &Path) -> Result<KeyPair, Trouble> {
    let random = || Trouble::failed("the system gives no random bytes for an S3 key pair");
    let pair = KeyPair {
        access_key: word(ACCESS_KEY_CHARACTERS).ok_or_else(random)?,
        secret_key: word(SECRET_KEY_CHARACTERS).ok_or_else(random)?,
    };
    write(folder, path, &pair).map_err(|error| refused(path, "written", &error))?;
    Ok(pair)
}

/// Whole or not at all: under another name first.
fn write(folder: &Path, path: &Path, pair: &KeyPair) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let aside: PathBuf = folder.join(format!("{FILE}.new"));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&aside)?;
    writeln!(file, "{}\n{}", pair.access_key, pair.secret_key)?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    File::open(folder)?.sync_all()
}

/// Random letters and digits: 32 of them, so that all are equally likely.
fn word(length: usize) -> Option<String> {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut bytes = vec![0; length];
    SystemRandom::new().fill(&mut bytes).ok()?;
    let character = |byte: &u8| {
        let index = usize::from(*byte) % ALPHABET.len();
        ALPHABET.get(index).copied().map(char::from)
    };
    bytes.iter().map(character).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_made_once_and_only_the_owner_reads_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let first = of(&data).unwrap_or_else(|_| panic!("keys"));
        let again = of(&data).unwrap_or_else(|_| panic!("keys"));
        assert_eq!(first.access_key, again.access_key);
        assert_eq!(first.secret_key, again.secret_key);
        assert_eq!(first.access_key.len(), ACCESS_KEY_CHARACTERS);
        assert_eq!(first.secret_key.len(), SECRET_KEY_CHARACTERS);
        let mode = std::fs::metadata(data.join(FILE))
            .expect("the file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(data.join(FILE), "one line\n").expect("it is written");
        assert!(of(&data).is_err());
    }
}
