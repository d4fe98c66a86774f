//! What has changed on this host, for whoever asks and waits: of all tenants at once, so that a container that ends is
//! noticed at once and nobody asks for it again and again.

use std::time::Duration;

use tenantry_api::names::TenantUid;
use tenantry_process::runtime::timeout;
use tenantry_protocol::{Changed, Changes};

use super::Agent;
use crate::engine::{Mark, Since};

impl Agent {
    /// What has changed since a mark, as soon as anything has or `wait` is over.
    pub async fn changes(&self, after: &str, wait: Duration) -> Changes {
        let host = &self.host;
        let mut woken = host.engine.events().subscribe();
        let began = host.runtime.instant();
        let after = self.mark(after);
        loop {
            woken.mark_unchanged();
            let (mark, seen) = host.engine.events().since(after);
            let left = wait.saturating_sub(host.since(began));
            match seen {
                Since::Unknown => return self.told(mark, Changed::Unknown),
                Since::Projects(projects) if left.is_zero() || !projects.is_empty() => {
                    return self.told(mark, Changed::These(self.tenants(&projects)));
                }
                Since::Projects(_) => {
                    let _ = timeout(&*host.runtime, left, woken.changed()).await;
                }
            }
        }
    }

    /// The tenants whose projects these are.
    fn tenants(&self, projects: &[String]) -> Vec<TenantUid> {
        let claims = self.host.store.all_claims().into_iter();
        let theirs = claims
            .filter(|claim| !claim.released && projects.iter().any(|one| claim.project.as_str() == one));
        theirs.map(|claim| claim.uid).collect()
    }

    fn told(&self, mark: Mark, changed: Changed) -> Changes {
        let mark = format!("{}.{}.{}", self.began, mark.connection, mark.serial);
        Changes { mark, changed }
    }

    /// A mark that this process has given out.
    fn mark(&self, text: &str) -> Option<Mark> {
        let mut parts = text.split('.').map(str::parse::<i128>);
        let mut next = || parts.next()?.ok();
        let (began, connection, serial) = (next()?, next()?, next()?);
        let mark = Mark { connection: connection.try_into().ok()?, serial: serial.try_into().ok()? };
        (began == self.began).then_some(mark)
    }
}
