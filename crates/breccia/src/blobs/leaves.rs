//! Leaves of blobs: opened as their plans say.
//!
//! Not guarded yet: only markers are looked at this way. Invariant: options are made from the plan
//! here and nowhere else.

use std::collections::BTreeMap;
use std::sync::Arc;

use breccia_blob::BlobStore;
use breccia_blob::azure::{AzureCredential, AzureOptions, AzureStore};
use breccia_blob::error::BlobError;
use breccia_blob::fs::FsOptions;
use breccia_blob::gcs::{GcsCredential, GcsOptions, GcsStore};
use breccia_blob::key_names::KeyMode;
use breccia_blob::local::{Contents, LocalStore, Place};
use breccia_blob::s3::backend::{CredentialSource, S3Options, S3Store};
use breccia_blob::sql;
use breccia_config::{
    AzurePlan, GcsPlan, HttpStorePlan, KeyForm, Plan, S3Plan, SqlPlan, SqlTlsPlan, StorePlan,
    TlsClientPlan,
};
use breccia_net::tls::TlsClientOptions;

use crate::trouble::Trouble;

/// Open leaves by the name of their store.
#[derive(Debug, Default)]
pub(crate) struct Leaves(BTreeMap<String, Arc<dyn BlobStore>>);

impl Leaves {
    /// Opens every leaf of blobs that a composite of the plan has, or says what cannot be opened.
    pub(crate) fn open(plan: &Plan) -> Result<Self, Trouble> {
        Self::open_some(plan, |_| true)
    }

    /// The same for those that `wanted` takes.
    pub(crate) fn open_some(
        plan: &Plan,
        wanted: impl Fn(&StorePlan) -> bool,
    ) -> Result<Self, Trouble> {
        let mut leaves = BTreeMap::new();
        let (mut refused, mut failed) = (Vec::new(), Vec::new());
        for (name, store) in &plan.stores {
            if !plan.is_inner(name) || !wanted(store) {
                continue;
            }
            match open(name, store) {
                Ok(Some(leaf)) => drop(leaves.insert(name.clone(), leaf)),
                Ok(None) => {}
                Err(error @ BlobError::Options { .. }) => {
                    refused.push(format!("store.{name}: {error}"));
                }
                Err(error) => failed.push(format!("store.{name}: {error}")),
            }
        }
        if !refused.is_empty() {
            return Err(Trouble::Refused(refused));
        }
        if !failed.is_empty() {
            return Err(Trouble::Failed(failed));
        }
        Ok(Self(leaves))
    }

    /// Adds what a look at a place has shown, in the place of an open leaf.
    pub(crate) fn add_seen(&mut self, place: Place, contents: Contents) {
        let name = place.name().to_owned();
        let leaf = Arc::new(LocalStore::seen(place, contents));
        self.0.insert(name, leaf);
    }

    /// An open leaf.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<dyn BlobStore>> {
        self.0.get(name).map(Arc::clone)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Arc<dyn BlobStore>)> {
        self.0.iter()
    }
}

/// Where a leaf lies on this machine's disks; `None` for others.
pub(crate) fn place(name: &str, store: &StorePlan) -> Option<Place> {
    match store {
        StorePlan::Fs(fs) => Some(Place::Fs(FsOptions {
            name: name.to_owned(),
            path: fs.path.clone(),
        })),
        StorePlan::Sqlite(sqlite) => {
            let options = sql::SqlOptions {
                max_connections: sqlite.max_connections,
                ..sql::SqlOptions::new(name)
            };
            let path = sqlite.path.clone();
            Some(Place::Sqlite(options, sql::SqliteOptions { path }))
        }
        _ => None,
    }
}

/// Opens one leaf; `None` for what is no leaf of blobs. Servers are not connected to yet, and what
/// cannot be opened now is tried again.
fn open(name: &str, store: &StorePlan) -> Result<Option<Arc<dyn BlobStore>>, BlobError> {
    if let Some(place) = place(name, store) {
        return Ok(Some(Arc::new(LocalStore::open(place)?)));
    }
    Ok(Some(match store {
        StorePlan::S3(plan) => Arc::new(S3Store::new(s3_options(name, plan))?) as _,
        StorePlan::Azure(plan) => Arc::new(AzureStore::open(azure_options(name, plan))?) as _,
        StorePlan::Gcs(plan) => Arc::new(GcsStore::open(gcs_options(name, plan))?) as _,
        StorePlan::Postgresql(plan) => sql_store(name, plan, sql::Server::Postgresql)?,
        StorePlan::Mysql(plan) => sql_store(name, plan, sql::Server::Mysql)?,
        _ => return Ok(None),
    }))
}

fn key_mode(http: &HttpStorePlan) -> KeyMode {
    match http.keys {
        KeyForm::Encoded => KeyMode::Encoded,
        _ => KeyMode::Plain,
    }
}

fn tls(plan: Option<&TlsClientPlan>) -> TlsClientOptions {
    let Some(plan) = plan else {
        return TlsClientOptions::default();
    };
    TlsClientOptions {
        ca: plan.ca.clone(),
        cert: plan.cert.clone(),
        key: plan.key.clone(),
        server_name: plan.server_name.clone(),
        insecure: plan.insecure,
    }
}

fn s3_options(name: &str, plan: &S3Plan) -> S3Options {
    let credentials = match &plan.credential {
        Some(given) => CredentialSource::Given {
            access_key: given.access_key.clone(),
            secret_key: given.secret_key.expose().to_owned(),
            session_token: given
                .session_token
                .as_ref()
                .map(|token| token.expose().to_owned()),
        },
        None => CredentialSource::Surroundings,
    };
    let http = &plan.http;
    S3Options {
        endpoint: (!plan.is_aws).then(|| plan.endpoint.to_string()),
        region: Some(plan.region.clone()),
        credentials,
        path_style: Some(plan.path_style),
        key_prefix: http.key_prefix.clone(),
        keys: key_mode(http),
        timeout: http.timeout,
        max_retries: http.max_retries,
        max_connections: http.max_connections,
        tls: tls(http.tls.as_ref()),
        ..S3Options::new(name, plan.bucket.clone())
    }
}

fn azure_options(name: &str, plan: &AzurePlan) -> AzureOptions {
    let credential = match &plan.credential {
        breccia_config::AzureCredential::SasToken(token) => {
            AzureCredential::SasToken(token.expose().to_owned())
        }
        breccia_config::AzureCredential::AccessKey(key) => {
            AzureCredential::AccessKey(key.expose().to_owned())
        }
        _ => AzureCredential::AccessKey(String::new()),
    };
    let http = &plan.http;
    AzureOptions {
        endpoint: plan.endpoint.to_string(),
        key_prefix: http.key_prefix.clone(),
        keys: key_mode(http),
        timeout: http.timeout,
        max_retries: http.max_retries,
        max_connections: http.max_connections,
        tls: tls(http.tls.as_ref()),
        ..AzureOptions::new(
            name,
            plan.account.clone(),
            plan.container.clone(),
            credential,
        )
    }
}

fn gcs_options(name: &str, plan: &GcsPlan) -> GcsOptions {
    let credential = match &plan.credential {
        breccia_config::GcsCredential::File(path) => GcsCredential::File(path.clone()),
        breccia_config::GcsCredential::Anonymous => GcsCredential::Anonymous,
        _ => GcsCredential::Metadata,
    };
    let http = &plan.http;
    GcsOptions {
        endpoint: plan.endpoint.to_string(),
        key_prefix: http.key_prefix.clone(),
        keys: key_mode(http),
        timeout: http.timeout,
        max_retries: http.max_retries,
        max_connections: http.max_connections,
        tls: tls(http.tls.as_ref()),
        ..GcsOptions::new(name, plan.bucket.clone(), credential)
    }
}

fn sql_store(
    name: &str,
    plan: &SqlPlan,
    server: sql::Server,
) -> Result<Arc<dyn BlobStore>, BlobError> {
    let options = sql::SqlOptions {
        table_prefix: plan.table_prefix.clone(),
        max_connections: plan.max_connections,
        timeout: plan.timeout,
        ..sql::SqlOptions::new(name)
    };
    let server = sql::ServerOptions {
        server,
        address: plan.address.clone(),
        database: plan.database.clone(),
        user: plan.user.clone(),
        password: plan
            .password
            .as_ref()
            .map(|password| password.expose().to_owned()),
        tls: plan.tls.as_ref().map(sql_tls).unwrap_or_default(),
    };
    Ok(Arc::new(sql::SqlStore::open(options, &server)?))
}

fn sql_tls(plan: &SqlTlsPlan) -> sql::SqlTlsOptions {
    use breccia_config::SqlTlsMode as Planned;
    let mode = match plan.mode {
        Planned::Disable => sql::SqlTlsMode::Disable,
        Planned::Prefer => sql::SqlTlsMode::Prefer,
        Planned::Require => sql::SqlTlsMode::Require,
        Planned::VerifyCa => sql::SqlTlsMode::VerifyCa,
        _ => sql::SqlTlsMode::VerifyFull,
    };
    sql::SqlTlsOptions {
        mode,
        ca: plan.ca.clone(),
        cert: plan.cert.clone(),
        key: plan.key.clone(),
        server_name: plan.server_name.clone(),
    }
}
