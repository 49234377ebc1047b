//! What the file itself adds to its text: its folder, its permissions, its bytes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::env;
use crate::{Checked, load};

const WITH_SECRETS: &str = r#"
    [admin]
    token = "hunter2"
    [store.a]
    type = "redis"
    url = "redis://:hunter2@127.0.0.1:7001"
    [store.b]
    type = "redis"
    url = "redis://127.0.0.1:7002"
    password = { env = "CACHE_PASSWORD" }
    [store.c]
    type = "sharded-in-memory"
    stores = ["a", "b"]
    [listener.l]
    protocol = "redis"
    bind = "127.0.0.1:6380"
    store = "c"
    user = [{ name = "default", password = "hunter2" }]
    [store.d]
    type = "s3"
    bucket = "mail"
    access-key = "AKIA"
    secret-key = "hunter2"
    [store.e]
    type = "sharded-blob"
    stores = ["d"]
    [listener.s3]
    protocol = "s3"
    bind = "127.0.0.1:9100"
    store = "e"
    user = [{ name = "default", access-key = "AKIA", secret-key = "hunter2" }]
"#;

fn load_with(bytes: &[u8], mode: u32) -> (Checked, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("breccia.toml");
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    (load(&path, &env), path.display().to_string())
}

#[test]
fn a_literal_secret_in_a_file_others_can_read_is_warned_of() {
    let check = |mode: u32, wanted: usize| {
        let (outcome, path) = load_with(WITH_SECRETS.as_bytes(), mode);
        let warnings: Vec<_> = outcome.unwrap().1.iter().map(ToString::to_string).collect();
        assert_eq!(warnings.len(), wanted, "{mode:o}: {warnings:?}");
        for (warning, place) in warnings.iter().zip([
            "3: admin.token",
            "6: store.a.url",
            "18: listener.l.user[0].password",
            "23: store.d.secret-key",
            "31: listener.s3.user[0].secret-key",
        ]) {
            let wanted = format!(
                "{path}:{place}: a secret in a file that others can read (mode {mode:o}); chmod 600 the file, or use {{ env = \"NAME\" }} or {{ file = \"PATH\" }}"
            );
            assert_eq!(*warning, wanted);
        }
    };
    check(0o600, 0);
    check(0o700, 0);
    check(0o640, 5);
    check(0o604, 5);
    check(0o644, 5);
}

#[test]
fn paths_start_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("token"), "abc\n").unwrap();
    let path = dir.path().join("breccia.toml");
    fs::write(&path, "admin = { token = { file = \"token\" } }").unwrap();
    let (plan, _) = load(&path, &env).unwrap();
    assert_eq!(plan.admin.unwrap().token.unwrap().expose(), "abc");
    assert_eq!(plan.state_dir, dir.path().join("breccia-data"));
}

#[test]
fn a_file_that_is_no_configuration_is_one_fault() {
    let check = |bytes: &[u8], wanted: &str| {
        let (outcome, path) = load_with(bytes, 0o600);
        let faults: Vec<_> = outcome
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(faults, [format!("{path}: {wanted}")]);
    };
    check(
        b"workers = \"\xff\"",
        "is not UTF-8 text; save the file as UTF-8",
    );
    let large = vec![b'#'; (4 << 20) + 1];
    check(
        &large,
        "is larger than 4MiB; this is not a configuration file",
    );
}

#[test]
fn a_file_that_is_not_there_is_one_fault() {
    let faults = load(Path::new("/nowhere/breccia.toml"), &env).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert_eq!(
        faults[0].to_string(),
        "/nowhere/breccia.toml: cannot be read (No such file or directory (os error 2)); check the path and who may read it"
    );
}

#[test]
fn a_byte_order_mark_and_crlf_are_fine() {
    let (outcome, path) = load_with("\u{feff}workers = 1\r\nworker = 2\r\n".as_bytes(), 0o600);
    let faults: Vec<_> = outcome
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        faults,
        [format!(
            "{path}:2: worker: unknown key; did you mean \"workers\"?"
        )]
    );
}
