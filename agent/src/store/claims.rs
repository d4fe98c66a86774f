//! Whose a directory and a project are: the host is the only arbiter.
//!
//! A claim is one UID's on one directory and one project. While it is not released, no other UID gets either. The
//! epoch only rises; the same epoch is taken again only for the very same operation, as a resubmission.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tenantry_api::names::{Directory, OperationId, ProjectName, TenantUid};
use tenantry_protocol::{ClaimState, Place, TenantRef};

use super::error::{ClaimError, StoreError};
use super::{Store, load, save};
use crate::files::{FilesError, Folder};

const CLAIM: &str = "claim";

/// Whose a directory and a project are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Claim {
    /// The Tenant's UID.
    pub uid: TenantUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The operator that asked last, by its certificate's name.
    pub operator: String,
    /// The compose project.
    pub project: ProjectName,
    /// The directory.
    pub directory: Directory,
    /// The highest epoch that was seen for the Tenant.
    pub epoch: u64,
    /// The operation that the epoch was for; `None`: taking over what was there.
    pub operation: Option<OperationId>,
    /// Whether it was given back.
    pub released: bool,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimWanted {
    /// Who asks.
    pub tenant: TenantRef,
    /// Through which operator, by its certificate's name.
    pub operator: String,
    /// For what.
    pub place: Place,
    /// Under which epoch.
    pub epoch: u64,
    /// For which operation; `None`: only to take over what is there.
    pub operation: Option<OperationId>,
}

impl Claim {
    fn owner(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// What of a place this claim holds.
    fn holds(&self, place: &Place) -> Option<&'static str> {
        if self.released {
            return None;
        }
        let overlaps = self.directory.is_at_or_below(place.directory.as_str())
            || place.directory.is_at_or_below(self.directory.as_str());
        match (overlaps, self.project == place.project) {
            (true, true) => Some("directory and project"),
            (true, false) => Some("directory"),
            (false, true) => Some("project"),
            (false, false) => None,
        }
    }
}

impl Store {
    /// Takes a directory and a project for a Tenant, or raises its epoch. Durable when it returns.
    pub fn claim(&self, wanted: &ClaimWanted) -> Result<Claim, ClaimError> {
        let mut claims = self.claims();
        let uid = &wanted.tenant.uid;
        if let Some((claim, holds)) = claims.others_hold(uid, &wanted.place) {
            let (owner, uid) = (claim.owner(), claim.uid.clone());
            return Err(ClaimError::Held { owner, uid, holds: holds.to_owned() });
        }
        claims.refuse_doubt(uid)?;
        if let Some(own) = claims.known.get(uid) {
            check_own(own, wanted)?;
        }
        let claim = Claim {
            uid: uid.clone(),
            namespace: wanted.tenant.namespace.clone(),
            name: wanted.tenant.name.clone(),
            operator: wanted.operator.clone(),
            project: wanted.place.project.clone(),
            directory: wanted.place.directory.clone(),
            epoch: wanted.epoch,
            operation: wanted.operation.clone(),
            released: false,
        };
        if claims.known.get(uid) != Some(&claim) {
            save(&self.tenant(uid)?, CLAIM, &claim)?;
            claims.known.insert(uid.clone(), claim.clone());
        }
        Ok(claim)
    }

    /// Gives a claim back; also where there is none. Its epoch stays known.
    pub fn release(&self, uid: &TenantUid) -> Result<(), StoreError> {
        let mut claims = self.claims();
        if let Some(damage) = claims.damaged.get(uid) {
            return Err(damage.error());
        }
        let Some(claim) = claims.known.get(uid).filter(|claim| !claim.released) else {
            return Ok(());
        };
        let released = Claim { released: true, ..claim.clone() };
        save(&self.tenant(uid)?, CLAIM, &released)?;
        claims.known.insert(uid.clone(), released);
        Ok(())
    }

    /// A Tenant's claim, a released one included.
    pub fn claim_of(&self, uid: &TenantUid) -> Option<Claim> {
        self.claims().known.get(uid).cloned()
    }

    /// Every claim, released ones included.
    pub fn all_claims(&self) -> Vec<Claim> {
        self.claims().known.values().cloned().collect()
    }

    /// Whose a place is, seen from a Tenant.
    pub fn claim_state(&self, uid: &TenantUid, place: &Place) -> Result<ClaimState, StoreError> {
        let claims = self.claims();
        if let Some((claim, holds)) = claims.others_hold(uid, place) {
            let (owner, uid) = (claim.owner(), claim.uid.clone());
            return Ok(ClaimState::Other { owner, uid, holds: holds.to_owned() });
        }
        claims.refuse_doubt(uid)?;
        match claims.known.get(uid).filter(|claim| !claim.released) {
            Some(_) => Ok(ClaimState::Ours),
            None => Ok(ClaimState::Free),
        }
    }
}

fn check_own(own: &Claim, wanted: &ClaimWanted) -> Result<(), ClaimError> {
    let same_place = own.project == wanted.place.project && own.directory == wanted.place.directory;
    if !own.released && !same_place {
        let (project, directory) = (own.project.to_string(), own.directory.to_string());
        return Err(ClaimError::Moved { project, directory });
    }
    let again = wanted.epoch == own.epoch
        && wanted.operation == own.operation
        && wanted.operator == own.operator
        && !own.released;
    if wanted.epoch > own.epoch || again {
        return Ok(());
    }
    Err(ClaimError::Stale { wanted: wanted.epoch, seen: own.epoch })
}

/// The claims that are known, and those whose record is damaged.
#[derive(Debug, Default)]
pub(super) struct Claims {
    known: BTreeMap<TenantUid, Claim>,
    damaged: BTreeMap<TenantUid, Damage>,
}

#[derive(Clone, Debug)]
struct Damage {
    path: PathBuf,
    problem: String,
}

impl Damage {
    fn error(&self) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), problem: self.problem.clone() }
    }
}

impl Claims {
    /// Reads every claim.
    pub fn load(tenants: &Folder) -> Result<Self, StoreError> {
        let mut claims = Self::default();
        for name in tenants.names()? {
            let Ok(uid) = TenantUid::parse(name) else { continue };
            let folder = tenants.below(uid.as_str())?;
            match load::<Claim>(&folder, CLAIM) {
                Ok(None) => {}
                Ok(Some(claim)) if claim.uid == uid => {
                    claims.known.insert(uid, claim);
                }
                Ok(Some(_)) => {
                    let problem = "it is another Tenant's".to_owned();
                    claims.damaged.insert(uid, Damage { path: folder.path().join(CLAIM), problem });
                }
                Err(FilesError::Damaged { path, problem }) => {
                    claims.damaged.insert(uid, Damage { path, problem });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(claims)
    }

    /// Nobody knows what a damaged claim holds: its Tenant is refused, and so is every place that is not held yet.
    fn refuse_doubt(&self, uid: &TenantUid) -> Result<(), StoreError> {
        let holds = self.known.get(uid).is_some_and(|claim| !claim.released);
        let doubt = if holds { self.damaged.get(uid) } else { self.damaged.values().next() };
        doubt.map_or(Ok(()), |damage| Err(damage.error()))
    }

    fn others_hold(&self, uid: &TenantUid, place: &Place) -> Option<(&Claim, &'static str)> {
        let mut others = self.known.values().filter(|claim| claim.uid != *uid);
        others.find_map(|claim| claim.holds(place).map(|holds| (claim, holds)))
    }
}
