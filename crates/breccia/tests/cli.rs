//! The command line without a running gateway: exit statuses, faults, explain and layouts.
//!
//! Not tests of the config crate's checks. Invariant: no test needs a server.

use std::path::PathBuf;
use std::process::{Command, Output};

use breccia_core::hash::HashKind;
use tempfile::TempDir;

/// A config over three Redis that nobody runs.
const THREE: &str = r#"
[store.redis-a]
type = "redis"
url = "redis://127.0.0.1:1/0"
[store.redis-b]
type = "redis"
url = "redis://127.0.0.1:2/0"
[store.redis-c]
type = "redis"
url = "redis://127.0.0.1:3/0"
[store.cache]
type = "sharded-in-memory"
stores = ["redis-a", "redis-b", "redis-c"]
[listener.cache]
protocol = "redis"
bind = "127.0.0.1:6380"
store = "cache"
"#;

struct Folder {
    folder: TempDir,
}

impl Folder {
    fn with(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let this = Self { folder };
        this.write(config);
        this
    }

    fn write(&self, config: &str) {
        std::fs::write(self.config(), config).expect("the config is written");
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("breccia.toml")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_breccia"))
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .expect("the binary runs")
    }

    /// Runs a command line; checks its exit status and that all parts are in what it prints.
    fn check(&self, line: &str, status: i32, parts: &[&str]) -> String {
        let output = self.run(&line.split(' ').collect::<Vec<_>>());
        let text = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let text = text.concat();
        assert_eq!(output.status.code(), Some(status), "{line}\n{text}");
        for part in parts {
            assert!(
                text.contains(part),
                "{line}: '{part}' is missing in\n{text}"
            );
        }
        text
    }
}

#[test]
fn wrong_arguments_exit_with_2_and_help_with_0() {
    let folder = Folder::with(THREE);
    folder.check(
        "--help",
        0,
        &["serve", "check", "explain", "layout", "status"],
    );
    folder.check("--version", 0, &["breccia "]);
    folder.check("", 2, &["Usage"]);
    folder.check("serf", 2, &["serf", "serve"]);
    folder.check("check", 2, &["--config"]);
    folder.check("explain --config breccia.toml cache", 2, &["KEY"]);
    folder.check("status --admin 127.0.0.1:9180", 2, &["http://HOST:PORT"]);
    folder.check(
        "status --admin http://127.0.0.1:1",
        1,
        &["connection refused"],
    );
}

#[test]
fn check_reports_every_fault_at_once_with_its_place() {
    let folder = Folder::with(THREE);
    folder.check(
        "check --config breccia.toml",
        0,
        &["good", "4 stores", "1 listeners"],
    );
    let faulty = THREE
        .replace("stores =", "storse =")
        .replace("127.0.0.1:6380", "nowhere")
        .replace(
            "\"redis\"\nurl = \"redis://127.0.0.1:3",
            "\"rediss\"\nurl = \"redis://127.0.0.1:3",
        );
    folder.write(&faulty);
    let text = folder.check(
        "check --config breccia.toml",
        2,
        &[
            "breccia.toml:",
            "store.cache.storse",
            "\"stores\"?",
            "listener.cache.bind",
            "store.redis-c.type",
        ],
    );
    assert!(text.lines().count() >= 3, "{text}");
    folder.check(
        "check --config nothing.toml",
        2,
        &["nothing.toml", "cannot be read"],
    );
    folder.check("serve --config breccia.toml", 2, &["store.cache.storse"]);
}

#[test]
fn check_looks_at_certificates_too() {
    let tls = format!("{THREE}tls = {{ cert = \"breccia.toml\", key = \"breccia.toml\" }}\n");
    let folder = Folder::with(&tls);
    let line = tls.lines().count();
    let place = format!("breccia.toml:{line}: listener.cache.tls.cert: ");
    let parts = [place.as_str(), "breccia.toml holds no certificate"];
    folder.check("check --config breccia.toml", 2, &parts);
    folder.check("serve --config breccia.toml", 2, &parts);
}

#[test]
fn certificates_of_a_server_have_their_line_too() {
    let folder = Folder::with(
        "[store.my]\ntype = \"mysql\"\nhost = \"127.0.0.1\"\nport = 1\nuser = \"u\"\n\
         [store.my.tls]\nmode = \"verify-ca\"\nca = \"breccia.toml\"\n\
         [store.db]\ntype = \"sql-read-replica\"\nprimary = \"my\"\nreplicas = []\n\
         [listener.sql]\nprotocol = \"mysql\"\nbind = \"127.0.0.1:0\"\nstore = \"db\"\n",
    );
    let parts = ["breccia.toml:8: store.my.tls.ca: breccia.toml holds no certificate"];
    folder.check("check --config breccia.toml", 2, &parts);
    folder.check("serve --config breccia.toml", 2, &parts);
}

#[test]
fn check_connect_names_each_store_that_cannot_be_reached() {
    let folder = Folder::with(THREE);
    let parts = [
        "redis-a: 127.0.0.1:1/0 cannot be used (connection refused)",
        "redis-b",
        "redis-c",
    ];
    folder.check("check --config breccia.toml --connect", 1, &parts);
}

#[test]
fn explain_places_keys_by_hash_and_modulus() {
    let folder = Folder::with(THREE);
    for key in ["a", "user:1", "user:2", "user:3"] {
        let shard = HashKind::Xxh3_64.hash(key.as_bytes()) % 3;
        let name = ["redis-a", "redis-b", "redis-c"][usize::try_from(shard).expect("0, 1 or 2")];
        let server = format!("server   127.0.0.1:{}/0", shard + 1);
        let line = format!("explain --config breccia.toml cache {key}");
        folder.check(
            &line,
            0,
            &[&format!("shard    {name}\n"), &server, "of 4098"],
        );
    }
    let binary = ["(2 bytes)", "\\x00\\xff", "not saved here"];
    folder.check("explain --config breccia.toml cache 00ff --hex", 0, &binary);
    folder.check(
        "explain --config breccia.toml cache 0f0 --hex",
        2,
        &["--hex"],
    );
    folder.check(
        "explain --config breccia.toml redis-b x",
        0,
        &["127.0.0.1:2/0"],
    );
    folder.check(
        "explain --config breccia.toml cash x",
        2,
        &["'cash'", "cache, redis-a"],
    );
}

#[test]
fn explain_follows_nested_composites_and_hash_tags() {
    let nested = THREE.replace(
        "[listener.cache]",
        "[store.all]\ntype = \"sharded-in-memory\"\nhash-tag = \"{}\"\nstores = [\"cache\"]\n[listener.cache]",
    );
    let folder = Folder::with(&nested);
    let text = folder.check(
        "explain --config breccia.toml all x{tag}y",
        0,
        &[
            "store    all",
            "hashed   \"tag\"",
            "store    cache",
            "server   127.0.0.1:",
        ],
    );
    assert_eq!(text.matches("shard ").count(), 2, "{text}");
}

#[test]
fn layouts_are_shown_moved_between_folders_and_renamed() {
    let folder = Folder::with(THREE);
    folder.check(
        "layout show --config breccia.toml",
        0,
        &["there is no layout"],
    );
    folder.check(
        "layout show --config breccia.toml cache",
        1,
        &["first start"],
    );
    folder.check(
        "layout export --config breccia.toml cache",
        2,
        &["no layout of 'cache'"],
    );
    // Nothing can tell that the shards are empty, so nothing is adopted.
    folder.check(
        "layout adopt --config breccia.toml cache",
        2,
        &["'redis-a' cannot tell"],
    );
    make_layout(&folder);
    folder.check(
        "layout show --config breccia.toml",
        0,
        &["cache (outer)", "redis-c  1366 slots"],
    );
    folder.check(
        "layout diff --config breccia.toml",
        0,
        &["cache: as in the layout"],
    );
    let document = folder.check("layout export --config breccia.toml cache", 0, &["cache"]);
    std::fs::write(folder.folder.path().join("document"), document).expect("it is written");
    folder.check(
        "layout import --config breccia.toml --data-dir other document",
        0,
        &["cache: layout"],
    );
    folder.check(
        "layout diff --config breccia.toml --data-dir other",
        0,
        &["as in the layout"],
    );
}

#[test]
fn renamed_shards_and_composites_are_named_with_the_command_that_mends() {
    let folder = Folder::with(THREE);
    make_layout(&folder);
    folder.write(&THREE.replace("redis-b", "redis-x"));
    let rename = "breccia layout rename-shard --config breccia.toml cache redis-b redis-x";
    folder.check("layout diff --config breccia.toml", 1, &[rename]);
    folder.check("check --config breccia.toml", 2, &[rename]);
    folder.check("explain --config breccia.toml cache a", 2, &[rename]);
    folder.check(&rename.replace("breccia layout", "layout"), 0, &["epoch 2"]);
    folder.check(
        "layout diff --config breccia.toml",
        0,
        &["as in the layout"],
    );
    folder.check(
        "layout rename --config breccia.toml cache sessions",
        0,
        &["sessions: layout"],
    );
    folder.check("layout diff --config breccia.toml", 1, &["'sessions'"]);
    folder.check(
        "layout accept-address --config breccia.toml nothing",
        2,
        &["no composite 'nothing'"],
    );
}

/// Makes a layout without a start: the document of a first layout is imported.
fn make_layout(folder: &Folder) {
    use breccia_core::layout::{CompositeKind, Layout, LayoutSpec, Role};
    let spec = LayoutSpec {
        composite: "cache".to_owned(),
        kind: CompositeKind::InMemory,
        hash: HashKind::Xxh3_64,
        hash_tag: None,
        placement_key: breccia_core::PlacementKey::Raw,
        role: Role::Outer,
        shards: ["redis-a", "redis-b", "redis-c"]
            .map(str::to_owned)
            .to_vec(),
    };
    let document = Layout::first(&spec).expect("a layout").to_document();
    std::fs::write(folder.folder.path().join("first"), document).expect("it is written");
    folder.check("layout import --config breccia.toml first", 0, &["epoch 1"]);
}
