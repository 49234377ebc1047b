//! From checked tables to the plans of blob stores.
//!
//! No checks. Invariant: as in [`super`], a `None` is a gap in the field tables.

use breccia_core::address::Address;
use breccia_core::hash::HashKind;
use breccia_core::placement_key::PlacementKey;

use super::{optional, store_names, tls_client};
use crate::http_url::HttpEndpoint;
use crate::plan::{
    AzureCredential, AzurePlan, FsPlan, GcsCredential, GcsPlan, HttpStorePlan, KeyForm,
    S3Credential, S3Plan, ShardedBlobPlan, SqlPlan, SqlTlsMode, SqlTlsPlan, SqlitePlan, StorePlan,
    TlsClientPlan,
};
use crate::tables;
use crate::value::Decoded;

/// The database for Breccia's own questions to a server of `PostgreSQL`. `MySQL` needs none.
const QUESTIONS_DATABASE: &str = "postgres";

pub(super) fn store(table: &Decoded, only_sql: bool) -> Option<StorePlan> {
    let kind = table.kind;
    if kind == tables::FS.name {
        let path = table.get("path")?;
        Some(StorePlan::Fs(FsPlan { path }))
    } else if kind == tables::SQLITE.name {
        let (path, max_connections) = (table.get("path")?, table.get("max-connections")?);
        Some(StorePlan::Sqlite(SqlitePlan {
            path,
            max_connections,
        }))
    } else if kind == tables::S3.name {
        s3(table).map(StorePlan::S3)
    } else if kind == tables::AZURE.name {
        azure(table).map(StorePlan::Azure)
    } else if kind == tables::GCS.name {
        gcs(table).map(StorePlan::Gcs)
    } else if kind == tables::POSTGRESQL.name {
        sql(table, only_sql.then_some(QUESTIONS_DATABASE)).map(StorePlan::Postgresql)
    } else if kind == tables::MYSQL.name {
        sql(table, only_sql.then_some("")).map(StorePlan::Mysql)
    } else if kind == tables::SHARDED_BLOB.name {
        sharded(table).map(StorePlan::ShardedBlob)
    } else {
        None
    }
}

fn s3(table: &Decoded) -> Option<S3Plan> {
    let endpoint = endpoint(table)?;
    let is_aws = !table.given("endpoint");
    let credential = match table.get("access-key") {
        None => None,
        Some(access_key) => Some(S3Credential {
            access_key,
            secret_key: table.get("secret-key")?,
            session_token: table.get("session-token"),
        }),
    };
    Some(S3Plan {
        bucket: table.get("bucket")?,
        is_aws,
        region: table.get("region")?,
        credential,
        path_style: table.get("path-style").unwrap_or(!is_aws),
        http: http(table, &endpoint)?,
        endpoint,
    })
}

fn azure(table: &Decoded) -> Option<AzurePlan> {
    let endpoint = endpoint(table)?;
    let access_key = table.get("access-key").map(AzureCredential::AccessKey);
    Some(AzurePlan {
        account: table.get("account")?,
        container: table.get("container")?,
        credential: match access_key {
            Some(access_key) => access_key,
            None => AzureCredential::SasToken(table.get("sas-token")?),
        },
        http: http(table, &endpoint)?,
        endpoint,
    })
}

fn gcs(table: &Decoded) -> Option<GcsPlan> {
    let endpoint = endpoint(table)?;
    Some(GcsPlan {
        bucket: table.get("bucket")?,
        credential: match (table.get("credentials"), table.get::<bool>("anonymous")?) {
            (Some(file), _) => GcsCredential::File(file),
            (None, true) => GcsCredential::Anonymous,
            (None, false) => GcsCredential::Metadata,
        },
        http: http(table, &endpoint)?,
        endpoint,
    })
}

/// The endpoint of a store that speaks HTTP: the one that was written, or the one its cloud has.
pub(crate) fn endpoint(table: &Decoded) -> Option<HttpEndpoint> {
    if let Some(endpoint) = table.get::<&HttpEndpoint>("endpoint") {
        return Some(endpoint.clone());
    }
    if table.given("endpoint") {
        return None;
    }
    if table.kind == tables::S3.name {
        let region: &str = table.get("region")?;
        // AWS's Chinese regions have a domain of their own.
        let domain = if region.starts_with("cn-") {
            "amazonaws.com.cn"
        } else {
            "amazonaws.com"
        };
        return HttpEndpoint::https(&format!("s3.{region}.{domain}"));
    }
    let account: &str = table.get("account")?;
    HttpEndpoint::https(&format!("{account}.blob.core.windows.net"))
}

fn http(table: &Decoded, endpoint: &HttpEndpoint) -> Option<HttpStorePlan> {
    let tls = optional(table, "tls", tls_client).ok()?;
    Some(HttpStorePlan {
        key_prefix: table.get("key-prefix")?,
        keys: table.choice("keys", KeyForm::ALL, KeyForm::name)?,
        timeout: table.get("timeout")?,
        max_retries: table.get("max-retries")?,
        max_connections: table.get("max-connections")?,
        tls: match tls {
            None if endpoint.tls => Some(TlsClientPlan::default()),
            tls => tls,
        },
        probe_interval: table.get("probe-interval")?,
        probe_timeout: table.get("probe-timeout")?,
    })
}

/// The server of an SQL store.
pub(crate) fn sql_address(table: &Decoded) -> Option<Address> {
    match table.get::<&Address>("socket") {
        Some(socket) => Some(socket.clone()),
        None => Address::tcp(table.get("host")?, table.get("port")?).ok(),
    }
}

/// The database of an SQL store that holds objects.
pub(crate) fn sql_database(table: &Decoded) -> Option<String> {
    match table.get("database") {
        None if table.kind == tables::POSTGRESQL.name && !table.given("database") => {
            table.get("user")
        }
        database => database,
    }
}

/// The server; of one that only serves SQL, with the database its own questions go to by default.
fn sql(table: &Decoded, questions: Option<&str>) -> Option<SqlPlan> {
    let (database, user) = if let Some(questions) = questions {
        let database = table.get("database");
        let database = database.unwrap_or_else(|| questions.to_owned());
        (database, table.get("user").unwrap_or_default())
    } else {
        (sql_database(table)?, table.get("user")?)
    };
    Some(SqlPlan {
        address: sql_address(table)?,
        database,
        user,
        password: table.get("password"),
        monitor_user: table.get("monitor-user"),
        monitor_password: table.get("monitor-password"),
        tls: optional(table, "tls", sql_tls).ok()?,
        max_connections: table.get("max-connections")?,
        timeout: table.get("timeout")?,
        table_prefix: table.get("table-prefix")?,
        weight: table.get("weight").unwrap_or(1),
        probe_interval: table.get("probe-interval")?,
        probe_timeout: table.get("probe-timeout")?,
    })
}

fn sql_tls(table: &Decoded) -> Option<SqlTlsPlan> {
    Some(SqlTlsPlan {
        mode: table.choice("mode", SqlTlsMode::ALL, SqlTlsMode::name)?,
        ca: table.get("ca"),
        cert: table.get("cert"),
        key: table.get("key"),
        server_name: table.get("server-name"),
    })
}

fn sharded(table: &Decoded) -> Option<ShardedBlobPlan> {
    let raw = PlacementKey::Raw.name();
    let rules = PlacementKey::NAMES;
    Some(ShardedBlobPlan {
        stores: store_names(table, "stores")?,
        hash: table.choice("hash", HashKind::ALL, HashKind::name)?,
        hash_tag: table.get("hash-tag"),
        placement_key: if table.choice("placement-key", rules, |name| name)? == raw {
            PlacementKey::Raw
        } else {
            PlacementKey::Stalwart {
                prefix: table.get("placement-prefix")?,
            }
        },
        layout_digest: table.get("layout-digest"),
        upload_expiry: table.get("upload-expiry")?,
    })
}
