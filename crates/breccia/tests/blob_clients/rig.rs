//! The servers that the clients are held against.
//!
//! One composite for each kind of listener, alike but for their places. Invariant: every member is of
//! another kind, so each client meets all three.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::Result;
use breccia_testkit::{Breccia, Postgres, Rgw, S3Server, free_port};
use tempfile::TempDir;

const ACCESS_KEY: &str = "CLIENTACCESSKEY";
const SECRET_KEY: &str = "client-secret-key-of-some-length";
const FIXED_BUCKET: &str = "mixed";

/// How buckets come to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The config names them.
    Fixed,
    /// Clients make them.
    Made,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Fixed => "fixed",
            Kind::Made => "made",
        }
    }
}

/// Everything running.
pub(crate) struct Rig {
    gateway: Breccia,
    _database: Postgres,
    _disks: TempDir,
    fixed: u16,
    made: u16,
}

impl Rig {
    /// One for all tests that run at the same time; it ends with the last of them.
    pub(crate) fn shared() -> Result<Arc<Rig>> {
        static SHARED: Mutex<Weak<Rig>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rig) = shared.upgrade() {
            return Ok(rig);
        }
        let rig = Arc::new(Rig::start()?);
        *shared = Arc::downgrade(&rig);
        Ok(rig)
    }

    fn start() -> Result<Rig> {
        let (objects, database, disks) = (Rgw::shared()?, Postgres::new()?, tempfile::tempdir()?);
        let (fixed, made) = (free_port()?, free_port()?);
        let mut config = String::new();
        for (kind, port) in [(Kind::Fixed, fixed), (Kind::Made, made)] {
            let name = kind.name();
            // A rig that starts after another finds nothing of it.
            let bucket = format!("{name}-{port}");
            objects.s3().create_bucket(&bucket)?;
            database.create_database(name)?;
            composite(&mut config, name, &disks, (objects, &bucket), &database)?;
            let serves = match kind {
                Kind::Fixed => format!("buckets = {{ {FIXED_BUCKET} = \"{name}\" }}"),
                Kind::Made => format!("store = \"{name}\""),
            };
            write!(
                config,
                "[listener.{name}]\nprotocol = \"s3\"\nbind = \"127.0.0.1:{port}\"\n{serves}\n\
                 [[listener.{name}.user]]\nname = \"client\"\naccess-key = \"{ACCESS_KEY}\"\n\
                 secret-key = \"{SECRET_KEY}\"\n"
            )?;
        }
        Ok(Rig {
            gateway: Breccia::start(&config)?,
            _database: database,
            _disks: disks,
            fixed,
            made,
        })
    }

    /// A listener, and the keys of its user.
    pub(crate) fn server(&self, kind: Kind) -> S3Server {
        let port = match kind {
            Kind::Fixed => self.fixed,
            Kind::Made => self.made,
        };
        S3Server {
            endpoint: format!("http://127.0.0.1:{port}"),
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
            region: "us-east-1".to_owned(),
        }
    }

    /// The bucket that a client uses.
    pub(crate) fn bucket(kind: Kind, client: &str) -> String {
        match kind {
            Kind::Fixed => FIXED_BUCKET.to_owned(),
            Kind::Made => format!("made-by-{client}"),
        }
    }

    /// What the gateway has printed.
    pub(crate) fn log(&self) -> String {
        self.gateway.log()
    }
}

/// A folder, a bucket of RGW and a database, and the composite over them.
fn composite(
    config: &mut String,
    name: &str,
    disks: &TempDir,
    (objects, bucket): (&Rgw, &str),
    database: &Postgres,
) -> Result<()> {
    let (s3, path) = (objects.s3(), disks.path().join(name));
    write!(
        config,
        "[store.{name}-disk]\ntype = \"fs\"\npath = '{}'\n\
         [store.{name}-rgw]\ntype = \"s3\"\nendpoint = \"{}\"\nbucket = \"{bucket}\"\n\
         access-key = \"{}\"\nsecret-key = \"{}\"\n",
        path.display(),
        s3.endpoint,
        s3.access_key,
        s3.secret_key
    )?;
    write!(
        config,
        "[store.{name}-database]\ntype = \"postgresql\"\nhost = \"127.0.0.1\"\nport = {}\n\
         database = \"{name}\"\nuser = \"{}\"\npassword = \"{}\"\n",
        database.port(),
        database.user(),
        database.password()
    )?;
    write!(
        config,
        "[store.{name}]\ntype = \"sharded-blob\"\n\
         stores = [\"{name}-disk\", \"{name}-rgw\", \"{name}-database\"]\n"
    )?;
    Ok(())
}
