//! The secret that draws the salts of logins, kept in the state folder.
//!
//! Nothing is encrypted by it. Invariant: it is the same at each start, so that the salt of a user that
//! does not exist changes no more often than that of one who does.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use ring::rand::{SecureRandom as _, SystemRandom};

const FILE: &str = "sql-logins.secret";
const BYTES: usize = 32;

/// The secret of a state folder; made, and the folder too, if there is none. Where that cannot be, one
/// that lasts until the process ends.
pub(super) fn of(folder: &Path) -> io::Result<Vec<u8>> {
    let made = random()?;
    kept(folder, &made).or_else(|error| {
        let folder = folder.display();
        tracing::warn!(
            %folder,
            %error,
            "the state folder cannot hold the secret of SQL logins: after the next start a stranger \
             can tell which users there are"
        );
        Ok(made)
    })
}

fn random() -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; BYTES];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| io::Error::other("no random bytes"))?;
    Ok(bytes)
}

/// What the folder holds, which is `made` if it held none.
fn kept(folder: &Path, made: &[u8]) -> io::Result<Vec<u8>> {
    let path = folder.join(FILE);
    fs::create_dir_all(folder)?;
    // Another process may be as far: the file of whoever links it first counts.
    let own = folder.join(format!("{FILE}.{}.new", std::process::id()));
    if !path.exists() {
        write(&own, made)?;
        let linked = fs::hard_link(&own, &path);
        fs::remove_file(&own)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let found = fs::read(&path)?;
    if found.len() < BYTES {
        let why = format!("{} is too short; remove it", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(found)
}

/// Writes a file that nobody else may read.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_the_same_at_the_next_start_and_another_elsewhere() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let state = folder.path().join("state");
        let first = of(&state)?;
        assert_eq!(of(&state)?, first);
        assert_ne!(of(&folder.path().join("other"))?, first);
        let mode = fs::metadata(state.join(FILE))?.permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let names = fs::read_dir(&state)?.count();
        assert_eq!(names, 1, "something else was left");
        fs::write(state.join(FILE), "short")?;
        assert!(kept(&state, &first).is_err());
        assert_eq!(of(&state)?.len(), BYTES);
        Ok(())
    }
}
