//! Leader election: one operator of several works at a time. It spares work; it is not what keeps hosts safe
//! (each operation's epoch is).

use std::time::Duration;

use kube::Client;
use kube_lease_manager::{
    LeaseCreateMode, LeaseManager, LeaseManagerBuilder, LeaseManagerError, LeaseParams,
};
use tokio::sync::watch::Receiver;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::stores::Scope;

const DURATION_SECONDS: u64 = 15;
const GRACE_SECONDS: u64 = 5;
/// How long giving the lead back may take; after that it expires by itself.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(2);

/// The lease that an operator works under.
pub struct Lease<'a> {
    /// Where it is.
    pub namespace: &'a str,
    /// What its holder looks after.
    pub scope: &'a Scope,
}

/// A lead that was won.
pub struct Lead {
    /// Ends when the lead is lost.
    pub lost: CancellationToken,
    given_up: CancellationToken,
    state: Receiver<bool>,
    manager: JoinHandle<Result<LeaseManager, LeaseManagerError>>,
}

impl Lead {
    /// Gives the lead back, so that another operator need not wait until it expires.
    pub async fn give_up(self) {
        self.given_up.cancel();
        // The manager gives the lease back when nobody listens to it any more.
        drop(self.state);
        if tokio::time::timeout(GIVE_UP_WITHIN, self.manager).await.is_err() {
            tracing::warn!("the lead could not be given back; it expires within {DURATION_SECONDS} s");
        }
    }
}

/// Waits until this operator leads. `None`: the program ended meanwhile.
pub async fn lead(
    client: Client,
    lease: Lease<'_>,
    identity: &str,
    end: &CancellationToken,
) -> anyhow::Result<Option<Lead>> {
    let parameters = LeaseParams::new(identity, DURATION_SECONDS, GRACE_SECONDS);
    let namespace = lease.namespace;
    let name = match lease.scope {
        Scope::All => tenantry_api::lease(None),
        Scope::Namespace(of) => tenantry_api::lease(Some(of)),
    };
    let manager = LeaseManagerBuilder::new(client, &name)
        .with_namespace(namespace)
        .with_create_mode(LeaseCreateMode::AutoCreate)
        .with_parameters(parameters)
        .build()
        .await?;
    let (mut state, manager) = manager.watch().await;
    tracing::info!(identity, namespace, lease = name, "waiting for the lead");
    tokio::select! {
        () = end.cancelled() => return Ok(None),
        won = state.wait_for(|leads| *leads) => { won?; }
    }
    tracing::info!(identity, namespace, lease = name, "leads");
    let (lost, given_up) = (CancellationToken::new(), CancellationToken::new());
    tokio::spawn(watch_over(state.clone(), lost.clone(), given_up.clone()));
    Ok(Some(Lead { lost, given_up, state, manager }))
}

async fn watch_over(mut state: Receiver<bool>, lost: CancellationToken, given_up: CancellationToken) {
    tokio::select! {
        () = given_up.cancelled() => {}
        _ = state.wait_for(|leads| !*leads) => {
            tracing::warn!("the lead is lost");
            lost.cancel();
        }
    }
}
