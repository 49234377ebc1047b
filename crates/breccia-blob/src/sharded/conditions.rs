//! Conditional calls of a composite: offered only where every shard offers them.
//!
//! Not the conditions themselves, which the key's shard decides. Invariant: whether a call is
//! refused as not supported does not depend on its key.

use std::time::Duration;

use futures_util::stream::{StreamExt as _, iter};

use super::ShardedBlob;
use crate::condition::{ConditionalCall, ConditionalSupport, Support, WriteCondition};
use crate::error::BlobError;
use crate::store::{BlobStore, StoreFuture, StoreKind};

/// How long one request waits for a shard to be probed.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// How many shards are probed at once.
const MAX_PROBED: usize = 16;

/// What a put with this condition asks for.
pub(super) fn of_put(condition: &WriteCondition) -> Option<ConditionalCall> {
    match condition {
        WriteCondition::Always => None,
        WriteCondition::IfAbsent => Some(ConditionalCall::PutIfAbsent),
        WriteCondition::IfMatch(_) => Some(ConditionalCall::PutIfMatch),
    }
}

/// What a complete with this condition asks for.
pub(super) fn of_complete(condition: &WriteCondition) -> Option<ConditionalCall> {
    match condition {
        WriteCondition::Always => None,
        WriteCondition::IfAbsent => Some(ConditionalCall::CompleteIfAbsent),
        WriteCondition::IfMatch(_) => Some(ConditionalCall::CompleteIfMatch),
    }
}

/// What a delete with this condition asks for.
pub(super) fn of_delete(condition: &WriteCondition) -> Option<ConditionalCall> {
    match condition {
        WriteCondition::Always => None,
        WriteCondition::IfAbsent | WriteCondition::IfMatch(_) => {
            Some(ConditionalCall::DeleteIfMatch)
        }
    }
}

/// What all shards offer: a call that one of them lacks is lacking.
pub(super) fn common(store: &ShardedBlob) -> ConditionalSupport {
    let calls = ConditionalCall::ALL.iter();
    calls.fold(ConditionalSupport::all(Support::Yes), |common, call| {
        let mut least = Support::Yes;
        for member in &store.members {
            match member.conditional().of(*call) {
                Support::No => least = Support::No,
                Support::Unprobed if least == Support::Yes => least = Support::Unprobed,
                Support::Unprobed | Support::Yes => {}
            }
        }
        common.with(*call, least)
    })
}

/// The stores below that lack a call, by their way from here.
fn lacking(store: &dyn BlobStore, way: &str, call: ConditionalCall, found: &mut Vec<String>) {
    if store.conditional().of(call) != Support::No {
        return;
    }
    let shards = store.shards();
    if shards.is_empty() {
        found.push(way.to_owned());
    }
    for shard in shards {
        lacking(&*shard, &format!("{way}/{}", shard.name()), call, found);
    }
}

/// Makes sure that a call is offered for keys of this member.
pub(super) async fn require(
    store: &ShardedBlob,
    member: usize,
    call: Option<ConditionalCall>,
) -> Result<(), BlobError> {
    let Some(call) = call else {
        return Ok(());
    };
    refuse_lacking(store, call)?;
    let shard = store.member(member);
    // An inner composite sees to its own shard of the key.
    if shard.kind() == StoreKind::Sharded || shard.conditional().of(call) == Support::Yes {
        return Ok(());
    }
    // Whatever came of it shows in what the shard says now.
    let probed = tokio::time::timeout(PROBE_LIMIT, shard.probe_conditional()).await;
    refuse_lacking(store, call)?;
    let answered =
        probed.is_ok_and(|support| support.is_ok_and(|all| all.of(call) == Support::Yes));
    if answered || shard.conditional().of(call) == Support::Yes {
        return Ok(());
    }
    let unprobed = BlobError::ConditionUnprobed {
        call,
        store: shard.name().to_owned(),
    };
    Err(unprobed.within(store.composite()))
}

fn refuse_lacking(store: &ShardedBlob, call: ConditionalCall) -> Result<(), BlobError> {
    let mut found = Vec::new();
    for member in &store.members {
        lacking(&**member, member.name(), call, &mut found);
    }
    if found.is_empty() {
        return Ok(());
    }
    let stores = found.join(", ");
    Err(BlobError::ConditionUnsupported { call, stores }.within(store.composite()))
}

/// Probes every shard that has not been. One that fails stays unprobed, and is logged.
pub(super) async fn probe(store: &ShardedBlob) -> ConditionalSupport {
    let unprobed = |member: &&std::sync::Arc<dyn BlobStore>| {
        let support = member.conditional();
        let mut calls = ConditionalCall::ALL.iter();
        calls.any(|call| support.of(*call) == Support::Unprobed)
    };
    let mut probes: Vec<StoreFuture<'_, ()>> = Vec::new();
    for member in store.members.iter().filter(unprobed) {
        probes.push(Box::pin(async move {
            if let Err(error) = member.probe_conditional().await {
                let error = error.within(store.composite());
                tracing::info!(%error, "conditional requests could not be probed");
            }
            Ok(())
        }));
    }
    let probes = iter(probes).buffer_unordered(MAX_PROBED);
    probes.for_each(|_| std::future::ready(())).await;
    common(store)
}
