//! The oracle: what is known to be true, beside what anybody says. The promises are checked against it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use tenantry_agent::store::{Baseline, Claim};
use tenantry_api::conditions::{READY, RECONCILING, STALLED, Truth, find};
use tenantry_api::names::{OperationId, TenantUid};
use tenantry_api::tenant::RollbackData;
use tenantry_api::tenant_status::{Outcome, TenantStatus};
use tenantry_planner::decide::truths;
use tenantry_planner::steps::{PlannedImage, Record, Step, StepOutput};
use tenantry_protocol::{Action, OperateRequest};

use crate::api::Object;
use crate::host::Stage;
use crate::releases::{Blob, DIRECTORY, ENV, VOLUME};
use crate::world::{Fault, World};

/// Between the judge's last sample and the record of its verdict.
const SLACK: u64 = 150;

/// Who changes the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// An operation, in one process of the agent.
    Operation {
        /// Whose.
        uid: TenantUid,
        /// Which.
        id: OperationId,
        /// In which process.
        incarnation: u64,
    },
    /// A compose process of an operation.
    Child {
        /// Whose.
        uid: TenantUid,
        /// Which operation's.
        id: OperationId,
    },
    /// Somebody else.
    Person,
}

/// What is known to be true.
#[derive(Default)]
pub struct Oracle {
    /// Whether two operators acted at once.
    pub two_leaders: bool,
    /// How often an agent died again while it recovered.
    pub second_crashes: u64,
    /// Every operation that was accepted, in order.
    pub accepted: Vec<(TenantUid, OperationId, u64)>,
    /// Every outcome, in order.
    pub outcomes: Vec<Outcome>,
    /// The set of files as it was last whole.
    set: BTreeMap<String, Blob>,
    dirty: BTreeSet<String>,
    /// Operations that have ended: what they left is the set as it is.
    settled: BTreeSet<OperationId>,
    operations: BTreeMap<OperationId, Known>,
    active: Option<OperationId>,
    released: BTreeSet<TenantUid>,
    failed: BTreeSet<(TenantUid, String)>,
    protected: u64,
}

struct Known {
    request: std::sync::Arc<OperateRequest>,
    before: Picture,
    /// The services that the compose file had.
    services: BTreeSet<String>,
    /// The files as they are to be, where it goes back to a restore point.
    back: Vec<(String, Option<Blob>)>,
    disturbed: bool,
    pulled: bool,
    kept: bool,
    mutated: bool,
    /// When it replaced data.
    data_put: Option<u64>,
    crashes: u32,
    asked: bool,
}

/// What people would call the same host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Picture {
    /// Files and hashes.
    pub files: BTreeMap<String, String>,
    /// References of the project.
    pub tags: BTreeMap<String, String>,
    /// Service, image, definition, and whether somebody stopped or paused it.
    pub containers: Vec<(String, String, String, bool)>,
}

impl World {
    /// The host as people would call it the same.
    pub fn picture(&self) -> Picture {
        let own = self.host.engine.containers.values().filter(|one| one.directory == DIRECTORY);
        let rests = |one: &crate::host::Container| one.started.is_none() || one.ended.is_some() || one.paused;
        let containers =
            own.map(|one| (one.service.clone(), one.image_id.clone(), one.definition.clone(), rests(one)));
        let mut containers: Vec<_> = containers.collect();
        containers.sort();
        let files = self.host.disk.files.iter();
        Picture {
            files: files.map(|(path, blob)| (path.clone(), blob.sha256.to_string())).collect(),
            tags: self.host.engine.tags.clone(),
            containers,
        }
    }

    /// What is there at the beginning is whole.
    pub fn begin_truth(&mut self) {
        self.oracle.set = self.host.disk.files.clone();
        self.oracle.protected = self.host.protected;
    }

    /// A person has done something to the host: operations under way are not to blame for it.
    pub fn disturb(&mut self) {
        for known in self.oracle.operations.values_mut() {
            known.disturbed = true;
        }
    }

    /// A person has edited a file.
    pub fn edited(&mut self, path: &str) {
        self.disturb();
        self.oracle.dirty.insert(path.to_owned());
    }

    /// A person has asked for something: a failed target may be tried again.
    pub fn asked(&mut self) {
        self.oracle.failed.clear();
        for known in self.oracle.operations.values_mut() {
            known.asked = true;
        }
    }

    /// Somebody is about to change the host.
    pub fn mutates(&mut self, actor: &Actor, what: &'static str) {
        let (uid, id) = match actor {
            Actor::Person => return self.disturb(),
            Actor::Child { uid, id } => (uid, id),
            Actor::Operation { uid, id, incarnation } => {
                let current = self.agent.incarnation;
                self.require("P2", *incarnation == current, || {
                    format!("{id} changes {what} from agent {incarnation}, which is gone: {current} runs")
                });
                let child = self.host.child.is_some();
                self.require("P2", !child, || {
                    format!("{id} changes {what} while a compose process of an agent runs")
                });
                (uid, id)
            }
        };
        let claim = self.host.store.held.claims.get(uid);
        let ours = claim.is_some_and(|claim| claim.operation.as_ref() == Some(id));
        self.require("P2", ours, || format!("{id} changes {what}, but the host's claim is not its own"));
        let ended = self.host.store.journals.get(&(uid.clone(), id.clone())).is_none_or(|journal| {
            journal.records.iter().any(|record| matches!(record, Record::Ended { .. }))
        });
        self.require("P2", !ended, || format!("{id} changes {what} after its end"));
        let other = self.oracle.active.clone().filter(|active| active != id);
        self.require("P2", other.is_none(), || {
            format!("{id} changes {what} while {} has not ended", other.as_ref().map_or("", |id| id.as_str()))
        });
        let quiesces = what == "a container that is quiesced";
        let (kept, mutated) = self.oracle.operations.get_mut(id).map_or((false, false), |known| {
            let mutated = std::mem::replace(&mut known.mutated, true);
            (known.kept, mutated)
        });
        if !mutated {
            self.oracle.active = Some(id.clone());
        }
        let revives = what == "a container that is revived";
        self.require("P8", kept || quiesces || revives, || {
            format!("{id} changes {what} before its restore point is durable")
        });
        self.say(|_| format!("{id} changes {what}"));
    }

    /// An operation stops something that runs.
    pub fn stops(&mut self, id: &OperationId) {
        let pulled = self
            .oracle
            .operations
            .get(id)
            .is_some_and(|known| known.pulled || !matches!(known.request.action, Action::Upgrade));
        self.require("P8", pulled, || format!("{id} stops a container before every image is local"));
    }

    /// Every image of an operation is local.
    pub fn pulled(&mut self, id: &OperationId, images: &[PlannedImage]) {
        let missing = images.iter().find(|image| !self.host.engine.images.contains(&image.image_id));
        let missing = missing.map(|image| image.reference.clone());
        self.require("P8", missing.is_none(), || format!("{id}: {missing:?} is not local after Pull"));
        if let Some(known) = self.oracle.operations.get_mut(id) {
            known.pulled = true;
        }
    }

    /// An operation's restore point is durable.
    pub fn kept(&mut self, id: &OperationId) {
        if let Some(known) = self.oracle.operations.get_mut(id) {
            known.kept = true;
        }
    }

    /// A claim is about to be recorded.
    pub fn admitted(&mut self, claim: &Claim) {
        let seen = self.host.store.held.claims.get(&claim.uid).map_or(0, |seen| seen.epoch);
        self.require("P2", claim.epoch >= seen, || {
            format!("epoch {} of {} is admitted after {seen}", claim.epoch, claim.uid)
        });
        let other = self
            .host
            .store
            .held
            .claims
            .values()
            .find(|other| other.uid != claim.uid && !other.released && !claim.released);
        let other = other.map(|other| other.uid.to_string());
        self.require("P2", other.is_none(), || {
            format!("{} is admitted where {other:?} holds the place", claim.uid)
        });
    }

    /// A claim was given back for good.
    pub fn released(&mut self, uid: &TenantUid) {
        self.oracle.released.insert(uid.clone());
    }

    /// An operation's first record is durable.
    fn accepted(&mut self, id: &OperationId, request: &std::sync::Arc<OperateRequest>) {
        let uid = &request.tenant.uid;
        let last = self
            .oracle
            .accepted
            .iter()
            .rev()
            .find(|(of, ..)| of == uid)
            .map(|(_, id, epoch)| (id.clone(), *epoch));
        let rises = last.as_ref().is_none_or(|(_, epoch)| *epoch < request.epoch);
        self.require("P2", rises, || format!("{id} has epoch {}, but {last:?} came before", request.epoch));
        let gone = self.oracle.released.contains(uid);
        self.require("P5", !gone, || format!("{id} is accepted after its Tenant {uid} was released"));
        if request.action == Action::Upgrade {
            let failed = self.oracle.failed.contains(&(uid.clone(), request.target_hash.clone()));
            self.require("P4", !failed, || {
                format!("{id} tries a target that failed, and nobody asked for it")
            });
        }
        let before = self.picture();
        let model = self.host.disk.model(&mut self.releases).and_then(Result::ok);
        let services =
            model.iter().flat_map(|model| model.services.keys().map(ToString::to_string)).collect();
        let back = match &request.action {
            Action::Upgrade => None,
            Action::Rollback { to, .. } => self.host.disk.points.get(to).map(|point| point.files.clone()),
        };
        let back = back.unwrap_or_default();
        self.oracle.accepted.push((uid.clone(), id.clone(), request.epoch));
        let known = Known {
            request: request.clone(),
            before,
            services,
            back,
            disturbed: false,
            pulled: false,
            kept: false,
            mutated: false,
            data_put: None,
            crashes: 0,
            asked: false,
        };
        self.oracle.operations.entry(id.clone()).or_insert(known);
    }

    /// A record of the journal is durable.
    pub fn recorded(&mut self, id: &OperationId, record: &Record) {
        self.note_state();
        match record {
            Record::Accepted { .. } => {
                let journal = self.host.store.journal_of(id);
                if let Some(request) = journal.and_then(|(_, journal)| journal.request.clone()) {
                    self.accepted(id, &request);
                }
            }
            Record::Done { step: Step::RestoreData | Step::RestoreChosen, .. } => self.check_data(id),
            Record::Done { did: StepOutput::Verified { .. }, .. } => self.check_verified(id),
            Record::Ended { outcome, .. } => {
                self.say(|_| format!("{id} ended: {outcome:?}"));
                self.oracle.outcomes.push(*outcome);
                self.oracle.active = None;
                self.settle_set(id);
                self.settle_halves(id);
                self.check_outcome(id, *outcome);
                let asks = self.api.tenant.as_ref().is_some_and(|tenant| {
                    let handled = tenant.status.handled.as_ref().and_then(|handled| handled.retry.as_ref());
                    tenant.annotations.get(tenantry_api::annotations::RETRY) != handled
                });
                let Some(known) = self.oracle.operations.get(id) else { return };
                let key = (known.request.tenant.uid.clone(), known.request.target_hash.clone());
                if *outcome == Outcome::Succeeded {
                    self.oracle.failed.remove(&key);
                } else if known.request.action == Action::Upgrade && !known.asked && !asks {
                    self.oracle.failed.insert(key);
                }
            }
            _ => {}
        }
    }

    /// P10: every service was well for the whole window.
    fn check_verified(&mut self, id: &OperationId) {
        let Some(known) = self.oracle.operations.get(id) else { return };
        let window = known.request.verify.stable_for_ms;
        let now = self.now();
        let (from, to) = (now.saturating_sub(window), now.saturating_sub(SLACK));
        let World { host, releases, .. } = self;
        let model = host.disk.model(releases).and_then(Result::ok);
        let wanted = |service: &str| {
            model.as_ref().is_none_or(|model| model.services.keys().any(|name| name.as_str() == service))
        };
        let engine = &self.host.engine;
        let mut wrong = None;
        let own = engine.containers.values().filter(|one| one.directory == DIRECTORY && wanted(&one.service));
        for container in own {
            let restarts = |at| engine.seen(container, at).restart_count;
            let started = container.started.is_some_and(|started| started <= from);
            let mut at = from;
            while started && at < to && wrong.is_none() {
                if !engine.well(container, at) {
                    wrong = Some(format!("{} was not well {} ms before", container.service, now - at));
                }
                at += 250;
            }
            let one_shot = container.service == "migrate";
            if !started && !one_shot {
                wrong = Some(format!(
                    "{} was started only {:?} ms before",
                    container.service,
                    container.started.map(|at| now - at)
                ));
            } else if restarts(from) != restarts(to) {
                wrong = Some(format!("{} was restarted within the window", container.service));
            }
        }
        self.require("P10", wrong.is_none(), || {
            format!("{id} was called good, but {}", wrong.unwrap_or_default())
        });
    }

    /// P16: what an outcome claims is so.
    fn check_outcome(&mut self, id: &OperationId, outcome: Outcome) {
        let now = self.picture();
        let Some(known) = self.oracle.operations.get(id) else {
            return self.broken("P16", format!("{id} ended, but nobody knows of its beginning"));
        };
        if known.disturbed {
            return;
        }
        let (request, before) = (known.request.clone(), known.before.clone());
        let (services, back) = (known.services.clone(), known.back.clone());
        let images = |picture: &Picture| {
            let all = picture.containers.iter();
            all.map(|(service, image, ..)| (service.clone(), image.clone())).collect::<BTreeMap<_, _>>()
        };
        match outcome {
            Outcome::Succeeded => {
                let is = |path: &str| now.files.get(path).map(String::as_str);
                let wrong = if request.action == Action::Upgrade {
                    let mut files = request.manifest.files.iter();
                    let wrong = files.find(|file| is(file.path.as_str()) != Some(file.sha256.as_str()));
                    wrong.map(|file| file.path.to_string())
                } else {
                    let wanted = |put: &Option<Blob>| put.as_ref().map(|blob| blob.sha256.to_string());
                    let wrong = back.iter().find(|(path, put)| is(path) != wanted(put).as_deref());
                    wrong.map(|(path, _)| path.clone())
                };
                self.require("P16", wrong.is_none(), || {
                    format!("{id} succeeded, but {wrong:?} is not as wanted")
                });
                // What an earlier release had left is in no compose file any more.
                let model = self.host.disk.model(&mut self.releases).and_then(Result::ok);
                let ours = |service: &str| {
                    model
                        .as_ref()
                        .is_none_or(|model| model.services.keys().any(|name| name.as_str() == service))
                };
                let rests = now.containers.iter().find(|one| one.3 && ours(&one.0));
                let rests = rests.map(|one| one.0.clone());
                self.require("P16", rests.is_none(), || {
                    format!("{id} succeeded, but {rests:?} does not run")
                });
            }
            Outcome::Aborted => {
                self.require("P16", now == before, || {
                    format!("{id} was aborted, but {}", difference(&before, &now))
                });
            }
            Outcome::RolledBack => {
                self.require("P16", now.files == before.files, || {
                    format!("{id} was rolled back, but {}", difference(&before, &now))
                });
                let (mut ran, runs) = (images(&before), images(&now));
                // What an earlier release had left, and this one replaced, is in no compose file any more.
                ran.retain(|service, _| services.contains(service));
                self.require(
                    "P9",
                    ran.iter().all(|(service, image)| runs.get(service) == Some(image)),
                    || format!("{id} was rolled back, but {}", difference(&before, &now)),
                );
                let rests = now.containers.iter().find(|one| one.3 && services.contains(&one.0));
                let rests = rests.map(|one| one.0.clone());
                self.require("P16", rests.is_none() || ran.is_empty(), || {
                    format!("{id} was rolled back, but {rests:?} does not run")
                });
            }
            Outcome::Held | Outcome::RollbackFailed => {}
        }
    }

    /// P16: the baseline says only what is so.
    pub fn baseline_advances(&mut self, id: &OperationId, baseline: &Baseline) {
        let runs = |service: &str| {
            self.host
                .engine
                .containers
                .values()
                .find(|one| one.service == service && one.directory == DIRECTORY)
        };
        let wrong = baseline
            .images
            .iter()
            .find(|image| runs(&image.service).is_none_or(|container| container.image_id != image.image_id));
        let disturbed = self.oracle.operations.get(id).is_some_and(|known| known.disturbed);
        let wrong = wrong.map(|image| image.service.clone()).filter(|_| !disturbed);
        self.require("P16", wrong.is_none(), || {
            format!("{id}: the baseline has an image that {wrong:?} does not run")
        });
    }

    /// P9: data is replaced wholly, while nothing uses it, and only where that was asked for.
    pub fn data_is_put(&mut self, id: &OperationId, data: String) {
        let asked = self.oracle.operations.get(id).is_some_and(|known| {
            let always = known.request.rollback_data == RollbackData::Always;
            always || matches!(known.request.action, Action::Rollback { data: true, .. })
        });
        self.require("P9", asked, || format!("{id} replaces data, and nobody asked for it"));
        // Nobody can keep a person from starting it just then; what came of that is looked at in the end.
        let known = self.oracle.operations.get(id);
        let uses = self.uses_data(|_| true).filter(|_| known.is_some_and(|known| !known.disturbed));
        self.require("P9", uses.is_none(), || format!("{id} replaces data while {uses:?} uses it"));
        self.host.engine.volumes.insert(VOLUME.to_owned(), data);
        let now = self.now();
        if let Some(known) = self.oracle.operations.get_mut(id) {
            known.data_put = Some(now);
        }
    }

    /// A container that runs and has the data before it, as it was when it was started.
    fn uses_data(&self, started: impl Fn(u64) -> bool) -> Option<String> {
        let uses = |one: &&crate::host::Container| {
            let runs = one.started.is_some_and(&started) && one.ended.is_none();
            one.directory == DIRECTORY && one.service == "db" && runs
        };
        self.host.engine.containers.values().find(uses).map(|one| one.id.clone())
    }

    /// P9: once data is back, nobody goes on with what it replaced.
    fn check_data(&mut self, id: &OperationId) {
        let Some(put) = self.oracle.operations.get(id).and_then(|known| known.data_put) else { return };
        let uses = self.uses_data(|started| started <= put);
        self.require("P9", uses.is_none(), || format!("{uses:?} still has data that {id} replaced"));
    }

    /// The agent's process has died.
    pub fn crashed(&mut self) {
        let mut second = false;
        for ((_, id), journal) in &self.host.store.journals {
            let open = !journal.records.iter().any(|record| matches!(record, Record::Ended { .. }));
            if let Some(known) = self.oracle.operations.get_mut(id).filter(|_| open) {
                known.crashes += 1;
                second |= known.crashes > 1;
            }
        }
        if second {
            self.oracle.second_crashes += 1;
            self.count(Fault::SecondCrash);
        }
        self.note_state();
    }

    /// The agent has taken up what was in flight.
    pub fn recovered(&mut self) {
        self.note_state();
    }

    /// What holds after every event: P1, P6, P11.
    pub fn check(&mut self) {
        let protected = (self.host.protected, self.oracle.protected);
        self.require("P1", protected.0 == protected.1, || "the tenant's own tree was touched".to_owned());
        let foreign = self.host.engine.containers.get("foreign").is_some_and(|one| one.ended.is_none());
        self.require("P11", foreign, || "another project's container was touched".to_owned());
        if self.mid_commit() {
            return;
        }
        if let Some(path) = self.torn() {
            self.broken(
                "P6",
                format!("{path} is neither of the old set nor of the new, and no commit is under way"),
            );
        }
    }

    /// Whether a transaction is between its moment and its end.
    fn mid_commit(&self) -> bool {
        let open = self.host.disk.transactions.iter().filter(|(id, _)| !self.oracle.settled.contains(*id));
        let mut halves = open.flat_map(|(_, one)| [&one.new, &one.undo]).flatten();
        halves.any(|half| half.stage == Stage::Commit)
    }

    fn torn(&self) -> Option<String> {
        let mut new = BTreeMap::new();
        let open = self.host.disk.transactions.iter().filter(|(id, _)| !self.oracle.settled.contains(*id));
        for (_, transaction) in open {
            if let (Some(half), None) = (&transaction.new, &transaction.undo)
                && half.stage == Stage::Done
            {
                new.extend(half.steps.iter().map(|step| (step.path.as_str(), step.put.as_ref())));
            }
            if let (Some(half), Some(undo)) = (&transaction.new, &transaction.undo)
                && half.stage == Stage::Done
                && undo.stage == Stage::Plan
            {
                new.extend(half.steps.iter().map(|step| (step.path.as_str(), step.put.as_ref())));
            }
        }
        let wanted = |path: &str| new.get(path).copied().unwrap_or_else(|| self.oracle.set.get(path));
        let paths = self.host.disk.files.keys().chain(self.oracle.set.keys()).map(String::as_str);
        let mut paths = paths.chain(new.keys().copied());
        let differs = |path: &&str| {
            !self.oracle.dirty.contains(*path) && self.host.disk.files.get(*path) != wanted(path)
        };
        paths.find(differs).map(str::to_owned)
    }

    /// An operation's files are over and done with.
    pub fn settle_set(&mut self, id: &OperationId) {
        let Some(transaction) = self.host.disk.transactions.get(id) else { return };
        // A way back that was only prepared has put nothing back.
        if transaction.undo.as_ref().is_some_and(|undo| undo.stage != Stage::Plan) {
            return;
        }
        let Some(half) = transaction.new.clone().filter(|half| half.stage == Stage::Done) else { return };
        for step in half.steps {
            match step.put {
                Some(blob) => self.oracle.set.insert(step.path, blob),
                None => self.oracle.set.remove(&step.path),
            };
        }
    }

    /// An operation that ended with its files half in place leaves them to a person.
    fn settle_halves(&mut self, id: &OperationId) {
        self.oracle.settled.insert(id.clone());
        let Some(transaction) = self.host.disk.transactions.get(id) else { return };
        for half in [&transaction.new, &transaction.undo].into_iter().flatten() {
            if half.stage == Stage::Commit {
                self.oracle.dirty.extend(half.steps.iter().map(|step| step.path.clone()));
            }
        }
    }

    /// P14 and P16, at every write of status.
    pub fn written(&mut self, old: &Object, new: &Object) {
        self.note_state();
        if old.status == new.status {
            return;
        }
        self.say(|_| {
            let status = &new.status;
            let upgrade = status.upgrade.as_ref().map(|one| (one.id.clone(), one.outcome));
            let ready = find(&status.conditions, READY).map(|one| one.message.clone()).unwrap_or_default();
            format!("status: {:?} {upgrade:?} {ready}", status.phase)
        });
        self.check_conditions(&old.status, &new.status, new.generation, new.deleted_at.is_some());
        let deployed = new.status.deployed.as_ref().filter(|_| old.status.deployed != new.status.deployed);
        if let Some(deployed) = deployed {
            let last = new.status.history.first();
            let succeeded = last
                .is_some_and(|entry| entry.outcome == Outcome::Succeeded && entry.to == deployed.image_tag);
            // What is there already is taken over where it is the target.
            let runs = |service: &str| {
                let own =
                    |one: &&crate::host::Container| one.service == service && one.directory == DIRECTORY;
                self.host.engine.containers.values().find(own).map(|one| one.image_id.as_str())
            };
            let seen =
                deployed.images.iter().all(|image| runs(&image.service) == Some(image.image_id.as_str()));
            let target = deployed.target_hash.clone();
            self.require("P16", succeeded || seen, || {
                format!("{target} is called deployed, but nobody has seen it")
            });
        }
    }

    fn check_conditions(&mut self, old: &TenantStatus, new: &TenantStatus, generation: i64, deleted: bool) {
        let Some(phase) = new.phase else {
            return self.broken("P14", "a status has no phase");
        };
        let (ready, reconciling, stalled) = truths(phase);
        for (kind, wanted) in
            [(READY, ready), (RECONCILING, Some(reconciling.into())), (STALLED, Some(stalled.into()))]
        {
            let Some(condition) = find(&new.conditions, kind) else {
                self.broken("P14", format!("there is no condition {kind}"));
                continue;
            };
            let is = Truth::parse(&condition.status);
            self.require("P14", wanted.is_none_or(|wanted| wanted == is), || {
                format!("{kind} is {is:?} in {phase:?}")
            });
            let observed = condition.observed_generation == new.observed_generation;
            let current = new.observed_generation == Some(generation);
            self.require("P14", observed && (current || deleted), || {
                format!(
                    "{kind} speaks of generation {:?}, status of {:?}, the spec is {generation}",
                    condition.observed_generation, new.observed_generation
                )
            });
            if let Some(before) = find(&old.conditions, kind) {
                let moved = before.last_transition_time != condition.last_transition_time;
                let changed = before.status != condition.status;
                let sound = changed || !moved;
                self.require("P14", sound, || format!("{kind}: lastTransitionTime moved, status did not"));
            }
        }
    }

    /// Counts the abstract state.
    fn note_state(&mut self) {
        let mut hasher = DefaultHasher::new();
        self.agent.step_name().hash(&mut hasher);
        (self.agent.up, self.host.child.is_some()).hash(&mut hasher);
        for transaction in self.host.disk.transactions.values() {
            for half in [&transaction.new, &transaction.undo].into_iter().flatten() {
                (half.stage as u8, half.steps.len()).hash(&mut hasher);
            }
        }
        let tag = self.host.disk.files.get(ENV).map(|blob| &blob.text);
        tag.hash(&mut hasher);
        for container in self.host.engine.containers.values() {
            let seen = self.host.engine.seen(container, self.now());
            (&seen.service, seen.state as u8, &seen.image_id).hash(&mut hasher);
        }
        let tenant = self.api.tenant.as_ref();
        let status = tenant.map(|tenant| (&tenant.status.phase, tenant.deleted_at.is_some()));
        status.hash(&mut hasher);
        (self.operators[0].leads, self.operators[1].leads).hash(&mut hasher);
        let held: Vec<bool> = self.host.store.held.claims.values().map(|claim| claim.released).collect();
        held.hash(&mut hasher);
        self.states.insert(hasher.finish());
    }
}

impl Oracle {
    /// A file is put in its place by a transaction: from now on it is ours again.
    pub fn put(&mut self, path: &str, now: Option<&Blob>) {
        if self.dirty.remove(path) {
            match now {
                Some(blob) => self.set.insert(path.to_owned(), blob.clone()),
                None => self.set.remove(path),
            };
        }
    }
}

fn difference(before: &Picture, now: &Picture) -> String {
    let mut all = Vec::new();
    for path in before.files.keys().chain(now.files.keys()).collect::<BTreeSet<_>>() {
        if before.files.get(path) != now.files.get(path) {
            all.push(format!("{path} differs"));
        }
    }
    for tag in before.tags.keys().chain(now.tags.keys()).collect::<BTreeSet<_>>() {
        if before.tags.get(tag) != now.tags.get(tag) {
            all.push(format!(
                "{tag} pointed to {:?} and points to {:?}",
                before.tags.get(tag),
                now.tags.get(tag)
            ));
        }
    }
    if before.containers != now.containers {
        all.push(format!("ran {:?} and runs {:?}", before.containers, now.containers));
    }
    all.join("; ")
}
