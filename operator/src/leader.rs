//! Leader election: one operator of several works at a time. It spares work; it is not what keeps hosts safe
//! (each operation's epoch is).

use kube::Client;
use kube_lease_manager::{LeaseCreateMode, LeaseManagerBuilder, LeaseParams};
use tokio_util::sync::CancellationToken;

const LEASE: &str = "tenantry-operator";
const DURATION_SECONDS: u64 = 15;
const GRACE_SECONDS: u64 = 5;

/// A lead that was won.
pub struct Lead {
    /// Ends when the lead is lost.
    pub lost: CancellationToken,
    _state: tokio::sync::watch::Receiver<bool>,
}

/// Waits until this operator leads. `None`: the program ended meanwhile.
pub async fn lead(
    client: Client,
    namespace: &str,
    identity: &str,
    end: &CancellationToken,
) -> anyhow::Result<Option<Lead>> {
    let parameters = LeaseParams::new(identity, DURATION_SECONDS, GRACE_SECONDS);
    let manager = LeaseManagerBuilder::new(client, LEASE)
        .with_namespace(namespace)
        .with_create_mode(LeaseCreateMode::AutoCreate)
        .with_parameters(parameters)
        .build()
        .await?;
    let (mut state, task) = manager.watch().await;
    tracing::info!(identity, namespace, "waiting for the lead");
    tokio::select! {
        () = end.cancelled() => return Ok(None),
        won = state.wait_for(|leads| *leads) => { won?; }
    }
    tracing::info!(identity, namespace, "leads");
    let lost = CancellationToken::new();
    let (token, mut watched) = (lost.clone(), state.clone());
    tokio::spawn(async move {
        let _ = watched.wait_for(|leads| !*leads).await;
        drop(task);
        tracing::warn!("the lead is lost");
        token.cancel();
    });
    Ok(Some(Lead { lost, _state: state }))
}
