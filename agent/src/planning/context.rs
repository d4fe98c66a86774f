//! What a plan is made of: the host, what is remembered of the tenant, and what is asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tenantry_planner::model::Model;
use tenantry_process::runtime::blocking;
use tenantry_protocol::{FailureCategory, OperateRequest};

use super::error::StepError;
use crate::compose::{Compose, Discovered};
use crate::engine::ProjectContainer;
use crate::files::{FilesError, Tree};
use crate::host::{Host, TenantCache};
use crate::observe::{Reader, discovered, on_disk, own};

/// A request on this host. Nothing that it does changes what is the tenant's.
#[derive(Clone)]
pub struct RequestContext {
    /// The machine.
    pub host: Arc<Host>,
    /// What is remembered of the tenant.
    pub cache: Arc<TenantCache>,
    /// What is asked.
    pub request: Arc<OperateRequest>,
}

impl RequestContext {
    /// The tenant's directory as plain text.
    pub fn directory(&self) -> &str {
        self.request.place.directory.as_str()
    }

    /// Opens the tenant's directory, made if need be.
    pub fn tree(&self) -> Result<Tree, FilesError> {
        Tree::create(Path::new(self.directory()), self.host.disk_io.clone())
    }

    /// The tenant's log of compose's output.
    pub fn log(&self) -> Result<PathBuf, StepError> {
        Ok(self.host.store.compose_log(&self.request.tenant.uid)?)
    }

    /// The host's compose.
    pub async fn compose(&self) -> Result<Compose, StepError> {
        Ok(self.host.compose().await?)
    }

    /// The compose files and the model of what is on disk now; `None` where there are none.
    pub async fn on_disk(&self) -> Result<Option<(Discovered, Arc<Model>)>, StepError> {
        let (host, place) = (self.host.clone(), self.request.place.clone());
        let discovered = self
            .blocking(move || {
                let Some(tree) = host.tree(&place.directory)? else { return Ok(None) };
                let allow = host.policy.allow();
                Ok(discovered(&tree, &place, Reader::Agent(&allow.compose))?)
            })
            .await?;
        let Some(discovered) = discovered else { return Ok(None) };
        let (compose, log) = (self.compose().await?, self.log()?);
        let model = on_disk(&self.host, &self.cache, &compose, &self.request.place, &discovered, log).await?;
        Ok(Some((discovered, model)))
    }

    /// The containers of this project that were made from this directory.
    pub async fn containers(&self) -> Result<Vec<ProjectContainer>, StepError> {
        let all = self.host.engine.project_containers(self.request.place.project.as_str()).await?;
        Ok(own(all, self.directory()))
    }

    /// The same, as far as the engine has reported no change. For watching, where the next event brings the next look.
    pub async fn known_containers(&self) -> Result<Vec<ProjectContainer>, StepError> {
        let all = self.host.engine.known_containers(self.request.place.project.as_str()).await?;
        Ok(own(all, self.directory()))
    }

    /// Runs work that blocks on the disk.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
    ) -> Result<T, StepError> {
        let fault = || {
            StepError::new(FailureCategory::AgentFault, "the agent met a fault of its own; its log says more")
        };
        blocking(&*self.host.runtime, work).await.map_err(|_| fault())?
    }
}
