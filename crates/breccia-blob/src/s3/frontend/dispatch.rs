//! From a request's head to the operation that answers it.
//!
//! Invariant: authentication, then routing, then authorization, then the headers, and only then is a
//! bucket looked up or a body read.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::http::request::Parts;

use super::auth::{self, Identity};
use super::body;
use super::budget::{Budget, Share};
use super::digests::Announced;
use super::headers;
use super::metrics::BUFFER_MEMORY;
use super::operation::{self, Operation, Scope, Unrouted};
use super::refusal::Refusal;
use super::request::Request;
use super::respond::Answer;
use super::service::S3Frontend;
use super::settings::Settings;
use super::{buckets, copy, deletes, listing, objects, parts as part_calls, tagging, uploads};
use crate::body::Body;

use super::namespace::Bucket;

/// A request that may be carried out.
pub(super) struct Call {
    pub(super) request: Request,
    pub(super) identity: Identity,
    pub(super) settings: Arc<Settings>,
    pub(super) frontend: Arc<S3Frontend>,
    pub(super) operation: Operation,
}

impl Call {
    /// The bucket that the request is about.
    pub(super) async fn bucket(&self) -> Result<Bucket, Refusal> {
        self.frontend.namespace.find(&self.request.bucket).await
    }

    /// The bucket and the key, as it is stored.
    pub(super) async fn object(&self) -> Result<(Bucket, crate::key::Key), Refusal> {
        let bucket = self.bucket().await?;
        let key = bucket.key(&self.request.key)?;
        Ok((bucket, key))
    }

    /// The request's body, for a store.
    pub(super) async fn body(&self, incoming: Incoming) -> Result<Body, Refusal> {
        body::object(self, incoming).await
    }

    /// What the request's headers announce of its body.
    pub(super) fn announced(&self) -> Result<Announced, Refusal> {
        Announced::of(&self.request)
    }

    /// The request's document, of which its headers announce this.
    pub(super) async fn document(
        &self,
        incoming: Incoming,
        announced: Announced,
    ) -> Result<bytes::Bytes, Refusal> {
        body::document(self, incoming, announced).await
    }

    /// Memory for a body that comes from a store.
    pub(super) async fn share(&self, size: Option<u64>) -> Result<Share, Refusal> {
        let deadline = self.settings.limits.deadline;
        let share = self.budget().for_stream(size, deadline).await;
        share.ok_or(Refusal::SlowDown {
            limit: BUFFER_MEMORY,
        })
    }

    /// The same, if it is free now.
    pub(super) fn share_now(&self, size: u64) -> Option<Share> {
        self.budget().for_stream_now(size)
    }

    /// The memory of bodies in flight.
    pub(super) fn budget(&self) -> &Budget {
        &self.frontend.budget
    }
}

/// Carries a request out. `found` is told the operation as soon as it is known.
pub(super) async fn handle(
    frontend: &Arc<S3Frontend>,
    settings: Arc<Settings>,
    parts: Parts,
    incoming: Incoming,
    found: &mut Option<Operation>,
) -> Result<Answer, Refusal> {
    let mut request = Request::read(parts, &settings)?;
    let identity = auth::identify(&request, &settings, &frontend.derived)?;
    if identity.signed {
        request.take_over_parameters()?;
    }
    let copies = request.has_header("x-amz-copy-source");
    let routed = operation::route(&request.method, request.scope, &request.query, copies);
    let operation = routed.map_err(|unrouted| match unrouted {
        Unrouted::NotImplemented(what) => Refusal::NotImplemented { what },
        Unrouted::MethodNotAllowed => Refusal::MethodNotAllowed,
        Unrouted::Argument(what) => Refusal::argument(what),
    })?;
    *found = Some(operation);
    identity.authorize(operation, &request.bucket)?;
    headers::refuse_unoffered(&request, operation)?;
    let call = Call {
        request,
        identity,
        settings,
        frontend: Arc::clone(frontend),
        operation,
    };
    match call.request.scope {
        Scope::Service => Box::pin(buckets::list(&call)).await,
        Scope::Bucket => Box::pin(on_bucket(&call, incoming)).await,
        Scope::Object => on_object(&call, incoming).await,
    }
}

async fn on_bucket(call: &Call, incoming: Incoming) -> Result<Answer, Refusal> {
    match call.operation {
        Operation::CreateBucket => buckets::create(call, incoming).await,
        Operation::DeleteBucket => buckets::delete(call).await,
        Operation::HeadBucket => buckets::head(call).await,
        Operation::GetBucketLocation => buckets::location(call).await,
        Operation::GetBucketVersioning => buckets::versioning(call).await,
        Operation::ListObjects => listing::objects(call, listing::Version::One).await,
        Operation::ListObjectsV2 => listing::objects(call, listing::Version::Two).await,
        Operation::ListMultipartUploads => uploads::list(call).await,
        Operation::DeleteObjects => deletes::delete_many(call, incoming).await,
        other => Err(Refusal::not_implemented(other.name())),
    }
}

async fn on_object(call: &Call, incoming: Incoming) -> Result<Answer, Refusal> {
    // The rare and the long ones have a box of their own: the place that each connection keeps for
    // its request is as large as the largest of the rest.
    match call.operation {
        Operation::PutObject => Box::pin(objects::put(call, incoming)).await,
        Operation::CopyObject => Box::pin(copy::object(call)).await,
        Operation::GetObject => objects::get(call).await,
        Operation::HeadObject => objects::head(call).await,
        Operation::DeleteObject => Box::pin(objects::delete(call)).await,
        Operation::GetObjectTagging => Box::pin(tagging::get(call)).await,
        Operation::PutObjectTagging => Box::pin(tagging::put(call, incoming)).await,
        Operation::DeleteObjectTagging => Box::pin(tagging::delete(call)).await,
        Operation::GetObjectAttributes => Box::pin(objects::attributes(call)).await,
        Operation::CreateMultipartUpload => Box::pin(uploads::create(call)).await,
        Operation::CompleteMultipartUpload => Box::pin(uploads::complete(call, incoming)).await,
        Operation::AbortMultipartUpload => Box::pin(uploads::abort(call)).await,
        Operation::UploadPart => Box::pin(part_calls::put(call, incoming)).await,
        Operation::UploadPartCopy => Box::pin(part_calls::copy(call)).await,
        Operation::ListParts => Box::pin(part_calls::list(call)).await,
        other => Err(Refusal::not_implemented(other.name())),
    }
}
