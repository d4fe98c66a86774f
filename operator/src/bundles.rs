//! Bundles: read from their source, understood once for each version.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use tenantry_api::TemplateBundle;
use tenantry_planner::bundle::{Bundle, Sources, path_of_key};
use tenantry_planner::target::{Refusal, RefusalReason};

use crate::key::Key;

mod directory;
pub mod status;

/// All bundles.
pub struct Bundles {
    client: Client,
    store: Store<TemplateBundle>,
    /// The folder beneath which bundles of the operator's own machine lie.
    directory: Option<PathBuf>,
    known: Mutex<HashMap<Key, Known>>,
}

#[derive(Clone)]
struct Known {
    /// UID and generation of the TemplateBundle.
    of: (String, i64),
    /// Of a folder: a mark that changes when a file does.
    mark: Option<String>,
    result: Result<Arc<Bundle>, Refusal>,
}

fn missing(message: String) -> Refusal {
    Refusal::new(RefusalReason::BundleMissing, message)
}

impl Bundles {
    /// Bundles of a store; those of the operator's own machine lie beneath `directory`.
    pub fn new(client: Client, store: Store<TemplateBundle>, directory: Option<PathBuf>) -> Self {
        Self { client, store, directory, known: Mutex::default() }
    }

    /// A bundle, understood; or why it can't be used.
    pub async fn get(&self, key: &Key) -> Result<Arc<Bundle>, Refusal> {
        let Some(bundle) = self.object(key) else {
            self.known.lock().remove(key);
            return Err(missing(format!(
                "spec.bundle: there is no TemplateBundle {} in namespace {}: correct it (`kubectl get templatebundles`), or apply that \
                 TemplateBundle.",
                key.name, key.namespace
            )));
        };
        let known = self.known.lock().get(key).filter(|known| known.of == version(&bundle)).cloned();
        if let Some(known) = known
            && (known.mark.is_none() || known.mark == self.mark(&bundle).await)
        {
            return known.result;
        }
        self.read(key, &bundle).await
    }

    /// Reads a bundle's source, whatever is known of it.
    pub async fn read(&self, key: &Key, bundle: &TemplateBundle) -> Result<Arc<Bundle>, Refusal> {
        let mark = self.mark(bundle).await;
        let result = match self.sources(key, bundle).await {
            Ok(sources) => Bundle::parse(&key.name, sources).map(Arc::new).map_err(|error| {
                Refusal::new(RefusalReason::BundleInvalid, format!("TemplateBundle {}, {error}.", key.name))
            }),
            Err(refusal) => Err(refusal),
        };
        let known = Known { of: version(bundle), mark, result: result.clone() };
        self.known.lock().insert(key.clone(), known);
        result
    }

    /// The TemplateBundle itself.
    pub fn object(&self, key: &Key) -> Option<Arc<TemplateBundle>> {
        self.store.get(&key.reference())
    }

    async fn sources(&self, key: &Key, bundle: &TemplateBundle) -> Result<Sources, Refusal> {
        let source = &bundle.spec.source;
        match (&source.config_map, &source.directory) {
            (Some(map), None) => self.config_map(key, &map.name).await,
            (None, Some(folder)) => {
                let base = self.directory.clone().ok_or_else(|| {
                    let message = format!(
                        "TemplateBundle {}: spec.source.directory needs an operator that was started with --bundle-dir.",
                        key.name
                    );
                    missing(message)
                })?;
                let (bundle, name) = (key.name.clone(), folder.name.clone());
                directory::read(base, name).await.map_err(|problem| {
                    missing(format!("TemplateBundle {bundle}: spec.source.directory: {problem}."))
                })
            }
            _ => {
                let message = format!(
                    "TemplateBundle {}: spec.source: exactly one of configMap and directory must be given.",
                    key.name
                );
                Err(Refusal::new(RefusalReason::BundleInvalid, message))
            }
        }
    }

    async fn config_map(&self, key: &Key, name: &str) -> Result<Sources, Refusal> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.namespace);
        let found = maps.get_opt(name).await.map_err(|error| {
            missing(format!("TemplateBundle {}: ConfigMap {name} can't be read: {error}.", key.name))
        })?;
        let Some(map) = found else {
            return Err(missing(format!(
                "TemplateBundle {}: spec.source.configMap: there is no ConfigMap {name} in namespace {}.",
                key.name, key.namespace
            )));
        };
        let text = map.data.unwrap_or_default().into_iter().map(|(key, text)| (key, text.into_bytes()));
        let binary = map.binary_data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0));
        Ok(text.chain(binary).map(|(key, bytes)| (path_of_key(&key), Arc::from(bytes))).collect())
    }

    /// A mark of a folder's files that is cheap to have; `None` for other sources.
    async fn mark(&self, bundle: &TemplateBundle) -> Option<String> {
        let name = bundle.spec.source.directory.as_ref()?.name.clone();
        let base = self.directory.clone()?;
        Some(directory::mark(base, name).await)
    }
}

fn version(bundle: &TemplateBundle) -> (String, i64) {
    (bundle.uid().unwrap_or_default(), bundle.metadata.generation.unwrap_or(0))
}
