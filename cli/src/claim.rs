//! `tenantry claim`: a place that another Tenant never gave back.

use std::process::ExitCode;

use clap::Args;
use tenantry_api::annotations::CLAIM;

use crate::access::Access;
use crate::ask::{self, Waiting};
use crate::output;
use crate::status::find;

/// Take a tenant's directory and project over from a Tenant that never gave them back
///
/// For a Tenant that was deleted while its host did not answer, or that belonged to another cluster. While an operation
/// of the other one is in flight, it waits. What is there is then met as on first contact: nothing is overwritten.
#[derive(Debug, Args)]
pub struct Claim {
    /// Which tenant gets them
    tenant: String,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    access: Access,
}

/// Runs `tenantry claim`.
pub async fn run(claim: &Claim) -> anyhow::Result<ExitCode> {
    let cluster = claim.access.connect().await?;
    let tenant = find(&cluster, &claim.tenant).await?;
    let token = ask::token();
    ask::annotate(&cluster, &claim.tenant, CLAIM, &token).await?;
    output::out(format!(
        "If host {} holds {} or project {} for another Tenant, they are {}'s from now on; the other one is refused.",
        tenant.spec.host, tenant.spec.directory, tenant.spec.project, claim.tenant
    ));
    ask::say_what_is_in_the_way(&tenant);
    let heard = |tenant: &_| ask::handled(tenant).claim.as_ref() == Some(&token);
    let end = |tenant: &_| ask::at_rest(tenant, heard(tenant));
    ask::wait(&cluster, &tenant, &claim.waiting, heard, end).await
}
