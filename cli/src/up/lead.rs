//! Whether another operator leads already: two that look after the same Tenants under different authorities would each
//! undo what the other says.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};

use crate::output;

/// How often leases are looked at while another operator leads.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Waits until no other operator looks after this namespace, and says once for whom it waits.
pub async fn wait(client: &Client, namespace: &str, identity: &str) -> Result<(), kube::Error> {
    let mut told = None;
    while let Some(other) = other(client, namespace, identity).await? {
        if told.as_ref() != Some(&other) {
            output::err(format!(
                "Waiting: {other} leads in this cluster already, and two would undo what the other says. End that one, or use \
                 another cluster."
            ));
            told = Some(other);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Another operator that looks after this namespace now.
async fn other(client: &Client, namespace: &str, identity: &str) -> Result<Option<String>, kube::Error> {
    let all: Api<Lease> = Api::all(client.clone());
    let leases = match all.list(&ListParams::default()).await {
        // Who may not look everywhere looks where operators keep it unless they are told otherwise.
        Err(kube::Error::Api(status)) if status.code == 403 => {
            let own: Api<Lease> = Api::namespaced(client.clone(), namespace);
            own.list(&ListParams::default()).await?
        }
        listed => listed?,
    };
    let now = Timestamp::now();
    Ok(leases.iter().find_map(|lease| holder(lease, namespace, identity, now)))
}

/// Who holds a lease that is about this namespace, other than `identity`; `None` where nobody does, or not any more.
fn holder(lease: &Lease, namespace: &str, identity: &str, now: Timestamp) -> Option<String> {
    let name = lease.name_any();
    let spec = lease.spec.as_ref()?;
    let holder =
        spec.holder_identity.as_deref().filter(|holder| !holder.is_empty() && *holder != identity)?;
    let seconds = i64::from(spec.lease_duration_seconds?.clamp(0, 3_600));
    let until = spec.renew_time.as_ref()?.0.checked_add(SignedDuration::from_secs(seconds)).ok()?;
    let about_it = [None, Some(namespace)].into_iter().any(|of| name == tenantry_api::lease(of));
    (about_it && now < until).then(|| {
        format!("the operator {holder} (lease {name} in namespace {})", lease.namespace().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::of_all_namespaces("tenantry-operator", "n5-1", 10, true)]
    #[case::of_this_namespace("tenantry-operator-team", "n5-1", 10, true)]
    #[case::of_another_namespace("tenantry-operator-other", "n5-1", 10, false)]
    #[case::of_something_else("scheduler", "n5-1", 10, false)]
    #[case::which_is_our_own("tenantry-operator", "up-1", 10, false)]
    #[case::given_back("tenantry-operator", "", 10, false)]
    #[case::run_out("tenantry-operator", "n5-1", 20, false)]
    fn a_lease(#[case] name: &str, #[case] holder: &str, #[case] age: i64, #[case] is_another: bool) {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let renewed = (now - SignedDuration::from_secs(age)).to_string().replace('Z', ".000000Z");
        let lease: Lease = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "system"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed},
        }))
        .unwrap();
        assert_eq!(super::holder(&lease, "team", "up-1", now).is_some(), is_another);
    }
}
