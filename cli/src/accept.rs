//! `tenantry accept-host`: what is on the host is the truth.

use std::process::ExitCode;

use clap::Args;
use tenantry_api::annotations::ACCEPT_HOST;

use crate::access::Access;
use crate::ask::{self, Waiting};
use crate::output;
use crate::status::find;

/// Take what is on a tenant's host for the truth
///
/// For an agent whose records were damaged, and after a rollback that failed: look at the host first. Damaged records
/// are put aside, nothing of them is deleted. What differs from the spec afterwards is left as it is until you ask.
#[derive(Debug, Args)]
pub struct AcceptHost {
    /// Whose
    tenant: String,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    access: Access,
}

/// Runs `tenantry accept-host`.
pub async fn run(accept: &AcceptHost) -> anyhow::Result<ExitCode> {
    let cluster = accept.access.connect().await?;
    let tenant = find(&cluster, &accept.tenant).await?;
    let token = ask::token();
    ask::annotate(&cluster, &accept.tenant, ACCEPT_HOST, &token).await?;
    output::out(format!(
        "The operator takes what is in {} on host {}, and what runs there, for the truth. Nothing there is changed. If \
         it differs from {}, the tenant stays Stalled with the differences until tenantry.dev/retry asks to apply it.",
        tenant.spec.directory,
        tenant.spec.host,
        tenant.spec.release()
    ));
    ask::say_what_is_in_the_way(&tenant);
    let heard = |tenant: &_| ask::handled(tenant).accept_host.as_ref() == Some(&token);
    let end = |tenant: &_| ask::at_rest(tenant, heard(tenant));
    ask::wait(&cluster, &tenant, &accept.waiting, heard, end).await
}
