//! Wiring of listeners that speak S3.
//!
//! Not the protocol. Invariant: options are made from the plan here and nowhere else.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use breccia_blob::s3::frontend::{
    Budget, Limits, Namespace, S3Frontend, S3User, Settings, SharedSettings,
};
use breccia_config::{ListenerPlan, Plan, S3ListenerPlan};
use breccia_net::clock;
use breccia_net::worker::Service;

use crate::gateway::Gateway;

/// Each S3 listener by its name, shared by all workers.
#[derive(Default)]
pub(super) struct S3Wiring(BTreeMap<String, Arc<S3Frontend>>);

impl S3Wiring {
    /// What the plan's S3 listeners lead to.
    pub(super) fn new(gateway: &Gateway, plan: &Plan) -> Self {
        let listeners = plan.listeners.iter().filter_map(|(name, listener)| {
            let s3 = listener.s3.as_ref()?;
            let namespace = namespace(gateway, listener, s3)?;
            let settings = Arc::clone(gateway.s3_settings.get(name)?);
            let budget = Budget::new(s3.buffer_memory);
            let frontend = S3Frontend::new(name.clone(), namespace, settings, budget);
            Some((name.clone(), frontend))
        });
        Self(listeners.collect())
    }
}

fn namespace(gateway: &Gateway, listener: &ListenerPlan, s3: &S3ListenerPlan) -> Option<Namespace> {
    let Some(fixed) = &s3.buckets else {
        return Some(Namespace::ByClients {
            store: gateway.blobs.store(&listener.store)?,
            buckets: Arc::clone(gateway.blobs.buckets(&listener.store)?) as _,
        });
    };
    let buckets = fixed
        .iter()
        .map(|(bucket, store)| Some((bucket.clone(), gateway.blobs.store(store)?)));
    Some(Namespace::Fixed {
        buckets: buckets.collect::<Option<_>>()?,
        since_ms: clock::unix_ms(),
    })
}

/// The settings of each S3 listener that a reload may change.
pub(crate) fn shared_settings(plan: &Plan) -> BTreeMap<String, Arc<SharedSettings>> {
    let each = plan.listeners.iter();
    each.filter_map(|(name, listener)| {
        Some((name.clone(), SharedSettings::new(settings(listener)?)))
    })
    .collect()
}

/// Who may use a listener, and within which limits; none if it does not speak S3.
pub(crate) fn settings(plan: &ListenerPlan) -> Option<Settings> {
    let s3 = plan.s3.as_ref()?;
    let users = plan.users.iter().filter_map(|user| {
        let own = user.s3.as_ref()?;
        let buckets = own.buckets.as_ref();
        Some(Arc::new(S3User {
            name: user.name.clone(),
            access_key: own.access_key.clone(),
            secret_key: own.secret_key.expose().to_owned(),
            buckets: buckets.map(|buckets| buckets.iter().cloned().collect()),
            read_only: own.read_only,
        }))
    });
    let usual = Limits::default();
    Some(Settings {
        users: users.collect(),
        anonymous: plan.insecure && plan.users.is_empty(),
        domain: s3.domain.clone(),
        region: s3.region.clone(),
        limits: Limits {
            deadline: plan.deadline,
            idle_timeout: plan.idle_timeout.unwrap_or(usual.idle_timeout),
            write_timeout: plan.write_timeout,
            min_body_rate: plan.min_body_rate,
            max_in_flight: plan.max_in_flight,
            ..usual
        },
    })
}

/// The service of one listener on one worker. Runs on the worker.
pub(super) fn service(gateway: &Gateway, wiring: &S3Wiring, name: &str) -> Rc<dyn Service> {
    match wiring.0.get(name) {
        Some(frontend) => frontend.service(gateway.drain.clone(), &gateway.metrics),
        None => Rc::new(super::Closed),
    }
}
