//! The quick start's S3 key pair: made at the first start, kept in the data folder.
//!
//! Not the keys of a configuration, which are written there. Invariant: nobody but the file's owner
//! can read it, from its first byte on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use breccia_config::Secret;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::trouble::Trouble;

/// The file in the data folder: a line with the access key, a line with the secret key.
const FILE: &str = "s3-keys";

/// Where it is written before it gets its name.
const NEW_FILE: &str = "s3-keys.new";

/// More than any such file has.
const FILE_MOST: u64 = 1024;

const ACCESS_KEY_LENGTH: usize = 20;
const SECRET_KEY_LENGTH: usize = 40;

/// 64 signs that no shell and no url gives a meaning: one for each six random bits.
const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._";

/// A key pair.
#[derive(Debug)]
pub(crate) struct S3Keys {
    pub(crate) access_key: String,
    pub(crate) secret_key: Secret,
}

/// The key pair of a data folder; a new one if it has none.
pub(crate) fn of(folder: &Path) -> Result<S3Keys, Trouble> {
    let path = folder.join(FILE);
    let at = |error: io::Error| Trouble::failed(format!("{}: {error}", path.display()));
    match File::open(&path) {
        Ok(file) => read(file).map_err(at)?.ok_or_else(|| {
            Trouble::failed(format!(
                "{} holds no S3 key pair; remove it, and a new one is made",
                path.display()
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(folder).map_err(at),
        Err(error) => Err(at(error)),
    }
}

/// `None` if this is no such file.
fn read(file: File) -> io::Result<Option<S3Keys>> {
    let mut text = String::new();
    file.take(FILE_MOST).read_to_string(&mut text)?;
    let sound = |line: &&str| !line.is_empty() && line.bytes().all(|byte| SIGNS.contains(&byte));
    let mut lines = text.lines().filter(sound);
    Ok(match (lines.next(), lines.next()) {
        (Some(access_key), Some(secret_key)) => Some(S3Keys {
            access_key: access_key.to_owned(),
            secret_key: Secret::new(secret_key),
        }),
        _ => None,
    })
}

fn make(folder: &Path) -> io::Result<S3Keys> {
    let (access_key, secret_key) = (random(ACCESS_KEY_LENGTH)?, random(SECRET_KEY_LENGTH)?);
    fs::create_dir_all(folder)?;
    let new = folder.join(NEW_FILE);
    // One that a start left behind when it was cut off may have any mode.
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    writeln!(file, "{access_key}\n{secret_key}")?;
    file.sync_all()?;
    fs::rename(&new, folder.join(FILE))?;
    File::open(folder)?.sync_all()?;
    Ok(S3Keys {
        access_key,
        secret_key: Secret::new(secret_key),
    })
}

fn random(length: usize) -> io::Result<String> {
    let mut bytes = vec![0; length];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("the system gives no random bytes"))?;
    let sign = |byte: &u8| SIGNS.get(usize::from(byte & 63)).copied().map(char::from);
    Ok(bytes.iter().filter_map(sign).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_made_once_and_are_their_owners() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        let keys = of(&folder).unwrap();
        assert_eq!(keys.access_key.len(), ACCESS_KEY_LENGTH);
        assert_eq!(keys.secret_key.expose().len(), SECRET_KEY_LENGTH);
        let mode = fs::metadata(folder.join(FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = of(&folder).unwrap();
        assert_eq!(again.access_key, keys.access_key);
        assert_eq!(again.secret_key, keys.secret_key);
        let other = of(&dir.path().join("other")).unwrap();
        assert_ne!(other.secret_key, keys.secret_key);
    }

    #[test]
    fn a_file_without_keys_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "one line\n", "only-one\n", "a b\nc d\n"] {
            fs::write(dir.path().join(FILE), text).unwrap();
            of(dir.path()).unwrap_err();
        }
    }
}
