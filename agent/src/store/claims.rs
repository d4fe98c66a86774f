//! Whose a directory and a project are: the host is the only arbiter.
//!
//! A claim is one UID's on one directory and one project. While it is not released, no other UID gets either, unless
//! a person asks to take it over. The epoch only rises; the same epoch is taken again only for the very same operation,
//! as a resubmission. A UID that gave its claim back has a tombstone: a late request of its is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tenantry_api::names::{Directory, OperationId, ProjectName, TenantUid};
use tenantry_protocol::{ClaimState, Place, TenantRef};

use super::error::{ClaimError, StoreError};
use super::{Store, load, save};
use crate::files::{FilesError, Folder, Stat};

pub(super) const CLAIM: &str = "claim";
/// Its tombstone, beside it: its Tenant was deleted.
const TOMBSTONE: &str = "gone";

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
    /// Whether a person asks to take over what another Tenant never gave back.
    pub take_over: bool,
}

impl ClaimWanted {
    /// A claim for no operation, which takes nothing from another.
    pub fn new(tenant: &TenantRef, operator: String, place: &Place, epoch: u64) -> Self {
        let (tenant, place) = (tenant.clone(), place.clone());
        Self { tenant, operator, place, epoch, operation: None, take_over: false }
    }
}

/// Everything that is held on a host, and who never takes anything again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Every claim, released ones included.
    pub claims: BTreeMap<TenantUid, Claim>,
    /// Tenants that were deleted here: each has a tombstone.
    pub tombstones: BTreeSet<TenantUid>,
}

/// What is to be recorded, in this order, for a claim that is admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Others' claims that are taken over, as released ones.
    pub taken: Vec<Claim>,
    /// The claim.
    pub claim: Claim,
}

/// The rules of fencing, as a function of what is held and what is asked for (P2).
pub fn admit(held: &Held, wanted: &ClaimWanted) -> Result<Admitted, ClaimError> {
    let uid = &wanted.tenant.uid;
    let mut taken = Vec::new();
    for (claim, holds) in held.others(uid, &wanted.place) {
        if !wanted.take_over {
            let (owner, uid) = (claim.owner(), claim.uid.clone());
            return Err(ClaimError::Held { owner, uid, holds: holds.to_owned() });
        }
        taken.push(Claim { released: true, ..claim.clone() });
    }
    if held.tombstones.contains(uid) {
        return Err(ClaimError::Deleted { uid: uid.clone() });
    }
    if let Some(own) = held.claims.get(uid) {
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
    Ok(Admitted { taken, claim })
}

impl Held {
    /// Claims of other Tenants that hold something of a place, and what.
    pub fn others<'a>(
        &'a self,
        uid: &'a TenantUid,
        place: &'a Place,
    ) -> impl Iterator<Item = (&'a Claim, &'static str)> {
        let others = self.claims.values().filter(move |claim| claim.uid != *uid);
        others
            .filter(|_| !tenantry_faults::Bug::TwoOwners.is_seeded())
            .filter_map(move |claim| claim.holds(place).map(|holds| (claim, holds)))
    }

    fn keep(&mut self, claim: &Claim) {
        self.claims.insert(claim.uid.clone(), claim.clone());
    }
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
    /// Takes a directory and a project for a Tenant, or raises its epoch. Durable when it returns. Whoever takes over
    /// another's claim holds that Tenant's lock, too. Others' claims are released first: a crash in between leaves the
    /// place free, never with two owners.
    pub fn claim(&self, wanted: &ClaimWanted) -> Result<Claim, ClaimError> {
        let mut claims = self.claims.lock();
        let uid = &wanted.tenant.uid;
        let held_by_others = claims.held.others(uid, &wanted.place).next().is_some();
        if !held_by_others || wanted.take_over {
            claims.refuse_doubt(uid)?;
        }
        let Admitted { taken, claim } = admit(&claims.held, wanted)?;
        for released in taken {
            save(&self.tenant(&released.uid)?, CLAIM, &released)?;
            claims.held.keep(&released);
        }
        if claims.held.claims.get(uid) != Some(&claim) {
            save(&self.tenant(uid)?, CLAIM, &claim)?;
            claims.held.keep(&claim);
        }
        Ok(claim)
    }

    /// Gives a claim back; also where there is none. Its epoch stays known, and its Tenant never takes anything again.
    pub fn release(&self, uid: &TenantUid) -> Result<(), StoreError> {
        let mut claims = self.claims.lock();
        if let Some(damage) = claims.damaged.get(uid) {
            return Err(damage.error());
        }
        let folder = self.tenant(uid)?;
        if !claims.held.tombstones.contains(uid) {
            save(&folder, TOMBSTONE, uid)?;
            claims.held.tombstones.insert(uid.clone());
        }
        let Some(claim) = claims.held.claims.get(uid).filter(|claim| !claim.released) else {
            return Ok(());
        };
        let released = Claim { released: true, ..claim.clone() };
        save(&folder, CLAIM, &released)?;
        claims.held.keep(&released);
        Ok(())
    }

    /// A Tenant's claim, a released one included.
    pub fn claim_of(&self, uid: &TenantUid) -> Option<Claim> {
        self.claims.lock().held.claims.get(uid).cloned()
    }

    /// Other Tenants that hold something of a place.
    pub fn holders(&self, uid: &TenantUid, place: &Place) -> Vec<Claim> {
        self.claims.lock().held.others(uid, place).map(|(claim, _)| claim.clone()).collect()
    }

    /// Every claim, released ones included.
    pub fn all_claims(&self) -> Vec<Claim> {
        self.claims.lock().held.claims.values().cloned().collect()
    }

    /// Whose a place is, seen from a Tenant.
    pub fn claim_state(&self, uid: &TenantUid, place: &Place) -> Result<ClaimState, StoreError> {
        let claims = self.claims.lock();
        if let Some((claim, holds)) = claims.held.others(uid, place).next() {
            let (owner, uid) = (claim.owner(), claim.uid.clone());
            return Ok(ClaimState::Other { owner, uid, holds: holds.to_owned() });
        }
        claims.refuse_doubt(uid)?;
        match claims.held.claims.get(uid).filter(|claim| !claim.released) {
            Some(_) => Ok(ClaimState::Ours),
            None => Ok(ClaimState::Free),
        }
    }

    /// Whether [`Self::claim`] would be admitted.
    pub fn may_claim(&self, wanted: &ClaimWanted) -> Result<(), ClaimError> {
        let claims = self.claims.lock();
        claims.refuse_doubt(&wanted.tenant.uid)?;
        admit(&claims.held, wanted).map(drop)
    }

    /// Whether [`Self::accept_claim`] would be admitted.
    pub fn may_accept(&self, wanted: &ClaimWanted) -> Result<(), ClaimError> {
        let claims = self.claims.lock();
        if !claims.damaged.contains_key(&wanted.tenant.uid) {
            claims.refuse_doubt(&wanted.tenant.uid)?;
        }
        admit(&claims.held, wanted).map(drop)
    }

    /// As [`Self::claim`], for a Tenant whose host a person has accepted: a damaged claim is put aside first.
    pub fn accept_claim(&self, wanted: &ClaimWanted) -> Result<Claim, ClaimError> {
        self.may_accept(wanted)?;
        let mut claims = self.claims.lock();
        let uid = &wanted.tenant.uid;
        let Admitted { claim, .. } = admit(&claims.held, wanted)?;
        if claims.damaged.contains_key(uid) && self.tenant(uid)?.stat(CLAIM)? != Stat::Missing {
            let moved = self.quarantine_claim(uid)?;
            tracing::warn!(tenant = %uid, path = %moved.display(), "a damaged claim was put aside");
        }
        save(&self.tenant(uid)?, CLAIM, &claim)?;
        claims.held.keep(&claim);
        claims.damaged.remove(uid);
        Ok(claim)
    }

    /// What is wrong with a Tenant's own claim.
    pub(super) fn damaged_claim(&self, uid: &TenantUid) -> Option<StoreError> {
        self.claims.lock().damaged.get(uid).map(Damage::error)
    }
}

fn check_own(own: &Claim, wanted: &ClaimWanted) -> Result<(), ClaimError> {
    let same_place = own.project == wanted.place.project && own.directory == wanted.place.directory;
    if !own.released && !same_place {
        let (project, directory) = (own.project.to_string(), own.directory.to_string());
        return Err(ClaimError::Moved { project, directory });
    }
    if tenantry_faults::Bug::IgnoreEpoch.is_seeded() {
        return Ok(());
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
    held: Held,
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
            // That it is there says it all: also a damaged tombstone was written for a Tenant that was deleted.
            if folder.stat(TOMBSTONE)? != Stat::Missing {
                claims.held.tombstones.insert(uid.clone());
            }
            match load::<Claim>(&folder, CLAIM) {
                Ok(None) => {}
                Ok(Some(claim)) if claim.uid == uid => claims.held.keep(&claim),
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
        if let Some(own) = self.damaged.get(uid) {
            return Err(own.error());
        }
        let holds = self.held.claims.get(uid).is_some_and(|claim| !claim.released);
        match self.damaged.values().next().filter(|_| !holds) {
            Some(Damage { path, problem }) => {
                Err(StoreError::Doubtful { path: path.clone(), problem: problem.clone() })
            }
            None => Ok(()),
        }
    }
}
