//! Operations on buckets: list, create, delete, look.
//!
//! Invariant: buckets that the configuration fixes are never made or deleted here, and a user never
//! hears of buckets that are not theirs.

use hyper::StatusCode;
use hyper::body::Incoming;

use crate::bucket::{BucketName, BucketRecord, Created, Deleted};
use crate::s3::codec::xml::{
    BucketEntry, BucketList, Owner, read_location_constraint, write_location, write_no_versioning,
};

use super::dispatch::Call;
use super::headers::Out;
use super::namespace::Namespace;
use super::refusal::Refusal;
use super::respond::Answer;

/// What clients are told owns everything.
const OWNER: &str = "breccia";
/// The most buckets of one page, as S3 has it.
const MAX_BUCKETS: u64 = 10_000;

/// `ListBuckets`.
pub(super) async fn list(call: &Call) -> Result<Answer, Refusal> {
    let request = &call.request;
    let prefix = request.parameter("prefix")?.unwrap_or_default();
    let after = request.parameter("continuation-token")?.unwrap_or_default();
    let most = request.parameter_number("max-buckets")?;
    let most = usize::try_from(most.unwrap_or(MAX_BUCKETS).min(MAX_BUCKETS)).unwrap_or(usize::MAX);
    let mut found: Vec<(String, u64)> = match &call.frontend.namespace {
        Namespace::Fixed { buckets, since_ms } => {
            let names = buckets.keys().cloned();
            names.map(|name| (name, *since_ms)).collect()
        }
        Namespace::ByClients { buckets, .. } => {
            let records = buckets.list().await?.into_iter();
            let named = |record: BucketRecord| (record.name.as_str().to_owned(), record.created_ms);
            records.map(named).collect()
        }
    };
    found.retain(|(name, _)| {
        call.identity.may_use(name).is_ok() && name.starts_with(prefix) && name.as_str() > after
    });
    let more = found.len() > most;
    found.truncate(most);
    let next = found.last().filter(|_| more).map(|(name, _)| name.clone());
    let entries = found
        .into_iter()
        .map(|(name, created_ms)| BucketEntry { name, created_ms });
    let document = BucketList {
        owner: owner(),
        buckets: entries.collect(),
        continuation_token: next,
        prefix: (!prefix.is_empty()).then(|| prefix.to_owned()),
    };
    Ok(Answer::xml(StatusCode::OK, document.write()))
}

/// Whom clients are told owns everything.
pub(super) fn owner() -> Owner {
    Owner {
        id: OWNER.to_owned(),
        display_name: OWNER.to_owned(),
    }
}

/// `CreateBucket`.
pub(super) async fn create(call: &Call, incoming: Incoming) -> Result<Answer, Refusal> {
    let name = &call.request.bucket;
    let document = call.document(incoming, call.announced()?).await?;
    let location = read_location_constraint(&document)?;
    let region = &call.settings.region;
    if location.is_some_and(|location| location != *region) {
        let region = region.clone();
        return Err(Refusal::Location { region });
    }
    match &call.frontend.namespace {
        Namespace::Fixed { buckets, .. } if buckets.contains_key(name) => {
            Err(Refusal::BucketIsThere)
        }
        Namespace::Fixed { .. } => Err(Refusal::not_implemented(
            "CreateBucket on a listener whose buckets the configuration fixes",
        )),
        Namespace::ByClients { buckets, .. } => {
            let valid = BucketName::new(name).ok_or(Refusal::BucketName)?;
            let owner = call.identity.name();
            match buckets.create(&valid, owner).await? {
                Created::New(_) => {
                    let mut out = Out::default();
                    out.set("location", &format!("/{name}"));
                    Ok(Answer::empty(StatusCode::OK).with(out))
                }
                Created::Existed(record) if record.owner.as_deref() == owner => {
                    Err(Refusal::BucketIsThere)
                }
                Created::Existed(_) => Err(Refusal::BucketOfOthers),
            }
        }
    }
}

/// `DeleteBucket`.
pub(super) async fn delete(call: &Call) -> Result<Answer, Refusal> {
    let name = &call.request.bucket;
    let missing = || Refusal::NoSuchBucket {
        bucket: name.clone(),
    };
    match &call.frontend.namespace {
        Namespace::Fixed { buckets, .. } if !buckets.contains_key(name) => Err(missing()),
        Namespace::Fixed { .. } => Err(Refusal::not_implemented(
            "DeleteBucket on a listener whose buckets the configuration fixes",
        )),
        Namespace::ByClients { buckets, .. } => {
            let valid = BucketName::new(name).ok_or_else(missing)?;
            match buckets.delete(&valid).await? {
                Deleted::Removed => Ok(Answer::empty(StatusCode::NO_CONTENT)),
                Deleted::NotEmpty => Err(Refusal::BucketNotEmpty),
                Deleted::Missing => Err(missing()),
            }
        }
    }
}

/// `HeadBucket`.
pub(super) async fn head(call: &Call) -> Result<Answer, Refusal> {
    call.bucket().await?;
    let mut out = Out::default();
    out.set("x-amz-bucket-region", &call.settings.region);
    Ok(Answer::empty(StatusCode::OK).with(out))
}

/// `GetBucketLocation`.
pub(super) async fn location(call: &Call) -> Result<Answer, Refusal> {
    call.bucket().await?;
    let document = write_location(&call.settings.region);
    Ok(Answer::xml(StatusCode::OK, document))
}

/// `GetBucketVersioning`: it was never switched on.
pub(super) async fn versioning(call: &Call) -> Result<Answer, Refusal> {
    call.bucket().await?;
    Ok(Answer::xml(StatusCode::OK, write_no_versioning()))
}
