//! The oracle: what is known to be true, beside what anybody says. The promises are checked against it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;

use tenantry_agent::files::{DiskIo, Effect, TransactionState, Transactions, Tree, Was};
use tenantry_agent::store::{Baseline, Claim};
use tenantry_api::conditions::{READY, RECONCILING, STALLED, Truth, find};
use tenantry_api::names::{OperationId, Sha256, TenantUid};
use tenantry_api::tenant::RollbackData;
use tenantry_api::tenant_status::{Outcome, TenantStatus};
use tenantry_planner::decide::truths;
use tenantry_planner::steps::{FileChange, PlannedImage, Record, Step, StepOutput};
use tenantry_protocol::{Action, FailureCategory, OperateRequest};

use crate::api::Object;
use crate::compose;
use crate::disk::{DATA, PROTECTED, is_file_of_release};
use crate::engine::{CANARY, KEPT};
use crate::host::{Container, FOREIGN, Host};
use crate::releases::{Blob, ENV};
use crate::user_actions;
use crate::world::{Fault, World};

/// Between the judge's last sample and the record of its verdict.
const SLACK: u64 = 150;

/// Who changes the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A process of the agent, for the operation that is in flight.
    Agent {
        /// Which process.
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
    /// The set of files as it was last whole, by hash.
    set: Files,
    /// Files that a person has edited since.
    dirty: BTreeSet<String>,
    /// Those of them that were edited after an operation had kept and committed what was there before: too late to be
    /// gone back to.
    late: BTreeSet<String>,
    /// The epoch of each claim when the agent last answered anybody.
    answered: BTreeMap<TenantUid, u64>,
    /// Operations of which the agent has told anybody how they stand.
    told: BTreeSet<OperationId>,
    operations: BTreeMap<OperationId, Known>,
    active: Option<OperationId>,
    released: BTreeSet<TenantUid>,
    failed: BTreeSet<(TenantUid, String)>,
}

/// Files and their hashes.
type Files = BTreeMap<String, Sha256>;

struct Known {
    request: std::sync::Arc<OperateRequest>,
    before: Picture,
    /// The services that the compose file had.
    services: BTreeSet<String>,
    /// What it is to do to files, once it has planned.
    changes: Vec<FileChange>,
    /// When it was accepted.
    began: u64,
    disturbed: bool,
    pulled: bool,
    kept: bool,
    mutated: bool,
    /// When it replaced data.
    data_put: Option<u64>,
    crashes: u32,
    asked: bool,
    /// The container that something was wrong with, and what it was like.
    ailing: Option<Container>,
    /// How often compose, the engine or the disk had failed.
    failures: u64,
    /// How often compose or the engine had.
    refusals: u64,
}

/// What people would call the same host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Picture {
    /// Files and hashes.
    pub files: Files,
    /// References of the project.
    pub tags: BTreeMap<String, String>,
    /// Service, image, definition, and whether it rests.
    pub containers: Vec<(String, String, String, bool)>,
}

impl World {
    /// The host as people would call it the same.
    pub fn picture(&self) -> Picture {
        let containers = self.own_containers();
        let containers = containers
            .map(|one| (one.service.clone(), one.image_id.clone(), one.definition.clone(), one.rests()));
        let mut containers: Vec<_> = containers.collect();
        containers.sort();
        let tags = self.host.engine.tags.iter().filter(|(name, _)| !name.starts_with(KEPT));
        let tags = tags.map(|(name, image)| (name.clone(), image.clone())).collect();
        Picture { files: hashes(self.host.disk.files()), tags, containers }
    }

    /// The containers that were made from the tenant's directory.
    pub fn own_containers(&self) -> impl Iterator<Item = &Container> {
        self.host.engine.containers.values().filter(|one| one.id != FOREIGN)
    }

    /// What is there at the beginning is whole.
    pub fn begin_truth(&mut self) {
        self.host.disk.look();
        self.oracle.set = hashes(self.host.disk.files());
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
        let open = self.host.records.open_operation();
        if open.is_some_and(|id| self.transaction(&id) == TransactionState::Committed) {
            self.oracle.late.insert(path.to_owned());
        }
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
        self.refresh();
        let open =
            self.host.records.open().map(|(uid, id, journal)| (uid.clone(), id.clone(), journal.state()));
        let (uid, id, step) = match (actor, open) {
            (Actor::Person, _) => return self.disturb(),
            (Actor::Child { uid, id }, Some((_, open, state))) if *id == open => {
                (uid.clone(), id.clone(), state.current())
            }
            (Actor::Child { id, .. }, _) => {
                return self.broken("P2", format!("compose of {id} changes {what} after its end"));
            }
            (Actor::Agent { incarnation }, open) => {
                let (current, runs) = (self.agent.incarnation, self.agent.is_alive(*incarnation));
                self.require("P2", runs, || {
                    format!("agent {incarnation} changes {what}, and is gone: {current} runs")
                });
                let child = self.host.child.is_some();
                self.require("P2", !child, || format!("{what} is changed while a compose of an agent runs"));
                let Some((uid, id, state)) = open else {
                    return self.broken("P2", format!("{what} is changed, and no operation is in flight"));
                };
                (uid, id, state.current())
            }
        };
        let claim = self.host.records.claims.get(&uid);
        let ours = claim.is_some_and(|claim| claim.operation.as_ref() == Some(&id));
        self.require("P2", ours, || format!("{id} changes {what}, but the host's claim is not its own"));
        let other = self.oracle.active.clone().filter(|active| *active != id);
        self.require("P2", other.is_none(), || {
            format!("{id} changes {what} while {} has not ended", other.as_ref().map_or("", |id| id.as_str()))
        });
        let (kept, mutated) = self.oracle.operations.get_mut(&id).map_or((false, false), |known| {
            let mutated = std::mem::replace(&mut known.mutated, true);
            (known.kept, mutated)
        });
        if !mutated {
            self.oracle.active = Some(id.clone());
        }
        // What writes to data is stopped for the restore point, and started again where none came of it.
        let for_the_point =
            matches!(step, Some(Step::Quiesce | Step::Snapshot | Step::Unquiesce | Step::Revive));
        self.require("P8", kept || for_the_point, || {
            format!("{id} changes {what} before its restore point is durable")
        });
        self.say(|_| format!("{id} changes {what}"));
    }

    /// An operation stops something that runs.
    pub fn stops(&mut self) {
        let Some(id) = self.host.records.open_operation() else { return };
        let known = self.oracle.operations.get(&id);
        let pulled =
            known.is_some_and(|known| known.pulled || !matches!(known.request.action, Action::Upgrade));
        self.require("P8", pulled, || format!("{id} stops a container before every image is local"));
    }

    /// The agent is about to touch something in the tenant's directory.
    pub fn touches(&mut self, inside: &Path, source: &Path, effect: Effect<'_>) {
        let protected = inside.starts_with(PROTECTED);
        self.require("P1", !protected, || format!("{} is touched", inside.display()));
        let moves = matches!(effect, Effect::Rename(_) | Effect::Exchange(_));
        if moves && (inside == Path::new(DATA) || source == self.host.disk.directory.join(DATA)) {
            return self.data_is_put();
        }
        if !is_file_of_release(inside) || !(moves || effect == Effect::Remove) {
            return;
        }
        let incarnation = self.agent.incarnation;
        self.mutates(&Actor::Agent { incarnation }, "a file");
        let path = inside.display().to_string();
        let late = self.oracle.late.remove(&path);
        if self.oracle.dirty.remove(&path) {
            match self.way_back(inside, source, effect, late) {
                Some(sha256) => drop(self.oracle.set.insert(path, sha256)),
                None => drop(self.oracle.set.remove(&path)),
            }
        }
    }

    /// What a file that a person has edited is gone back to, as the agent is about to touch it; `None`: to nothing.
    fn way_back(&self, inside: &Path, source: &Path, effect: Effect<'_>, late: bool) -> Option<Sha256> {
        let open = self.host.records.open_operation();
        match open.as_ref().filter(|_| late).and_then(|id| self.kept(id, inside)) {
            Some(Was::File { sha256, .. }) => return Some(sha256),
            Some(Was::Absent) => return None,
            None => {}
        }
        // What a person had edited before.
        let back = open.is_some_and(|id| self.transaction(&id) == TransactionState::Restoring);
        let there = self.host.disk.directory.join(inside);
        let whole = match effect {
            Effect::Rename(_) if back => source,
            _ if back => return None,
            _ => there.as_path(),
        };
        let content = std::fs::read(whole).ok()?;
        Some(Blob::new(&String::from_utf8_lossy(&content)).sha256)
    }

    /// Whoever looks from outside reads the agent's records again, where they may have changed.
    pub fn refresh(&mut self) {
        let changed = std::mem::take(&mut self.host.disk.changed_records);
        if changed.is_empty() {
            return;
        }
        let before = self.host.records.claims.clone();
        let baselines = self.host.records.baselines.clone();
        let Host { records, disk, .. } = &mut self.host;
        let news = match records.read(&disk.state, &changed) {
            Ok(news) => news,
            Err(error) => return self.broken("P3", format!("the agent's records are damaged: {error}")),
        };
        if before != self.host.records.claims {
            self.claimed(&before);
        }
        self.baselines_advance(&baselines);
        let gone = self.host.records.tombstones.clone();
        self.oracle.released.extend(gone);
        for (id, record) in news {
            self.recorded(&id, &record);
        }
        let open: Vec<String> = self.host.records.all_open().map(|(_, id, _)| id.to_string()).collect();
        self.require("P2", open.len() <= 1, || format!("more than one is in flight: {}", open.join(", ")));
        let step = self.host.records.open().and_then(|(_, _, journal)| journal.state().current());
        if step != self.agent.step {
            self.agent.step = step;
            self.say(|_| format!("step {step:?}"));
        }
    }

    /// P16: a baseline that an operation records says only what is so.
    fn baselines_advance(&mut self, old: &BTreeMap<TenantUid, Baseline>) {
        let Some((uid, id, _)) = self.host.records.open() else { return };
        let (new, id) = (self.host.records.baselines.get(uid), id.clone());
        let advanced = new.filter(|new| old.get(uid) != Some(new) && new.restore_point.as_ref() == Some(&id));
        let Some(baseline) = advanced else { return };
        let runs = |service: &str| self.own_containers().find(|one| one.service == service);
        let wrong = baseline
            .images
            .iter()
            .find(|image| runs(&image.service).is_none_or(|container| container.image_id != image.image_id));
        let disturbed = self.oracle.operations.get(&id).is_some_and(|known| known.disturbed);
        let wrong = wrong.map(|image| image.service.clone()).filter(|_| !disturbed);
        self.require("P16", wrong.is_none(), || {
            format!("{id}: the baseline has an image that {wrong:?} does not run")
        });
    }

    /// Claims were recorded.
    fn claimed(&mut self, old: &BTreeMap<TenantUid, Claim>) {
        let claims: Vec<Claim> = self.host.records.claims.values().cloned().collect();
        for claim in &claims {
            let seen = old.get(&claim.uid).map_or(0, |seen| seen.epoch);
            self.require("P2", claim.epoch >= seen, || {
                format!("epoch {} of {} is admitted after {seen}", claim.epoch, claim.uid)
            });
        }
        let held: Vec<String> =
            claims.iter().filter(|claim| !claim.released).map(|claim| claim.uid.to_string()).collect();
        self.require("P2", held.len() <= 1, || format!("one place is held by {}", held.join(" and ")));
    }

    /// Every image of an operation is local.
    fn pulled(&mut self, id: &OperationId, images: &[PlannedImage]) {
        let missing = images.iter().find(|image| !self.host.engine.images.contains(&image.image_id));
        let missing = missing.map(|image| image.reference.clone());
        let disturbed = self.oracle.operations.get(id).is_some_and(|known| known.disturbed);
        self.require("P8", missing.is_none() || disturbed, || {
            format!("{id}: {missing:?} is not local after Pull")
        });
        if let Some(known) = self.oracle.operations.get_mut(id) {
            known.pulled = true;
        }
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
        let services = self.services().unwrap_or_default();
        self.oracle.accepted.push((uid.clone(), id.clone(), request.epoch));
        let known = Known {
            request: request.clone(),
            before,
            services,
            changes: Vec::new(),
            began: self.now(),
            disturbed: false,
            pulled: false,
            kept: false,
            mutated: false,
            data_put: None,
            crashes: 0,
            asked: false,
            ailing: self
                .host
                .engine
                .ailing
                .as_ref()
                .and_then(|id| self.host.engine.containers.get(id))
                .cloned(),
            failures: self.failures(),
            refusals: self.refusals(),
        };
        self.oracle.operations.entry(id.clone()).or_insert(known);
    }

    /// A record of the journal is durable.
    pub fn recorded(&mut self, id: &OperationId, record: &Record) {
        self.note_state();
        match record {
            Record::Accepted { .. } => {
                let all = &self.host.records.journals;
                let journal = all.iter().find(|((_, of), _)| of == id).map(|(_, journal)| journal);
                match journal.and_then(|journal| journal.request.clone()) {
                    Some(request) => self.accepted(id, &request),
                    None => self.broken("P3", format!("the request of {id} is gone while it is in flight")),
                }
            }
            Record::Done { did: StepOutput::Planned(plan), .. } => {
                if let Some(known) = self.oracle.operations.get_mut(id) {
                    known.changes.clone_from(&plan.files);
                }
            }
            Record::Done { did: StepOutput::Pulled { images }, .. } => self.pulled(id, images),
            Record::Done { step: Step::Snapshot, .. } => {
                if let Some(known) = self.oracle.operations.get_mut(id) {
                    known.kept = true;
                }
            }
            Record::Done { step: Step::RestoreData | Step::RestoreChosen, .. } => self.check_data(id),
            Record::Done { did: StepOutput::Verified { .. }, .. } => self.check_verified(id),
            Record::Ended { outcome, failure, .. } => {
                self.say(|_| format!("{id} ended: {outcome:?}"));
                self.oracle.outcomes.push(*outcome);
                self.oracle.active = None;
                self.settle(id, *outcome);
                if matches!(outcome, Outcome::Succeeded | Outcome::RolledBack) {
                    self.check_attached(id);
                }
                self.check_hooks(id);
                self.check_outcome(id, *outcome);
                let asks = self.api.tenant.as_ref().is_some_and(|tenant| {
                    let handled = tenant.status.handled.as_ref().and_then(|handled| handled.retry.as_ref());
                    tenant.annotations.get(tenantry_api::annotations::RETRY) != handled
                });
                let Some(known) = self.oracle.operations.get(id) else { return };
                let key = (known.request.tenant.uid.clone(), known.request.target_hash.clone());
                if *outcome == Outcome::Succeeded {
                    self.oracle.failed.remove(&key);
                } else if known.request.action == Action::Upgrade
                    && !known.asked
                    && !asks
                    && !failure.as_ref().is_some_and(|failure| passes(*outcome, failure.category))
                {
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
        let services = self.services();
        let wanted = |service: &str| services.as_ref().is_none_or(|all| all.contains(service));
        let engine = &self.host.engine;
        let mut wrong = None;
        let own = self.own_containers().filter(|one| wanted(&one.service));
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

    /// P19: what runs is reached on the network that there is; and by its name, unless that was otherwise before.
    fn check_attached(&mut self, id: &OperationId) {
        let Some(known) = self.oracle.operations.get(id).filter(|known| !known.disturbed) else { return };
        let since = known.began;
        let (services, now, engine) = (self.services(), self.now(), &self.host.engine);
        let wanted = |service: &str| services.as_ref().is_none_or(|all| all.contains(service));
        let runs = |one: &&Container| {
            wanted(&one.service)
                && engine.seen(one, now).state == tenantry_planner::compare::ContainerState::Running
        };
        let wrong = self.own_containers().filter(runs).find_map(|one| {
            let lacks = engine.unreachable(one, since)?;
            Some(format!("{} {lacks}", one.service))
        });
        self.require("P19", wrong.is_none(), || {
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
        let (services, changes) = (known.services.clone(), known.changes.clone());
        let images = |picture: &Picture| {
            let all = picture.containers.iter();
            all.map(|(service, image, ..)| (service.clone(), image.clone())).collect::<BTreeMap<_, _>>()
        };
        match outcome {
            Outcome::Succeeded => {
                let is = |path: &str| now.files.get(path);
                let wrong = if let Action::Rollback { to, .. } = &request.action {
                    let then = self.oracle.operations.get(to).filter(|then| !then.disturbed);
                    let wrong = changes.iter().find(|change| {
                        let path = change.path.as_str();
                        let wanted = then.map_or(change.after.as_ref(), |then| then.before.files.get(path));
                        is(path) != wanted
                    });
                    wrong.map(|change| change.path.to_string())
                } else {
                    let mut files = request.manifest.files.iter();
                    let wrong = files.find(|file| is(file.path.as_str()) != Some(&file.sha256));
                    wrong.map(|file| file.path.to_string())
                };
                self.require("P16", wrong.is_none(), || {
                    format!("{id} succeeded, but {wrong:?} is not as wanted")
                });
                // What an earlier release had left is in no compose file any more.
                let services = self.services();
                let ours = |service: &str| services.as_ref().is_none_or(|all| all.contains(service));
                let rests = now.containers.iter().find(|one| one.3 && ours(&one.0));
                let rests = rests.map(|one| one.0.clone());
                self.require("P16", rests.is_none(), || {
                    format!("{id} succeeded, but {rests:?} does not run")
                });
                self.check_mounts(id);
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
                // Nor does what did not run before.
                let before = &before.containers;
                let rested = |name: &str| before.iter().any(|one| one.0 == name && one.3);
                let rests =
                    now.containers.iter().find(|one| one.3 && services.contains(&one.0) && !rested(&one.0));
                let rests = rests.map(|one| one.0.clone());
                self.require("P16", rests.is_none() || ran.is_empty(), || {
                    format!("{id} was rolled back, but {rests:?} does not run")
                });
                self.check_mounts(id);
                self.check_before(id);
            }
            Outcome::Held | Outcome::RollbackFailed => self.check_before(id),
        }
    }

    /// P18: nothing is begun on a service that was paused, dead or kept ending, and that the release leaves so.
    fn check_before(&mut self, id: &OperationId) {
        let failures = self.failures();
        let Some(known) = self.oracle.operations.get(id) else { return };
        let alone = known.crashes == 0 && known.failures == failures;
        let still = |was: &&Container| {
            let is = self.host.engine.containers.get(&was.id);
            is.is_some_and(|is| (is.ails, is.started) == (was.ails, was.started))
        };
        let ailing = known.ailing.as_ref().filter(still).filter(|_| alone);
        let ailing = ailing.map(|one| (one.service.clone(), one.ails));
        let upgrades = known.request.action == Action::Upgrade;
        self.require("P18", ailing.is_none() || !upgrades, || {
            format!("{id} was begun on {ailing:?}, and left it so")
        });
    }

    /// How often compose, the engine or the disk failed.
    fn failures(&self) -> u64 {
        self.refusals() + self.times(&[Fault::DiskFull, Fault::JournalFault])
    }

    /// How often compose or the engine failed.
    fn refusals(&self) -> u64 {
        self.times(&[Fault::ComposeFailed, Fault::NetworkTaken, Fault::EngineFault])
    }

    /// How often faults of these kinds have happened.
    fn times(&self, kinds: &[Fault]) -> u64 {
        let of_them = self.coverage.iter().filter(|((fault, _), _)| kinds.contains(fault));
        of_them.map(|(_, times)| times).sum()
    }

    /// P16: what runs has read the files as they are.
    fn check_mounts(&mut self, id: &OperationId) {
        let services = self.services();
        let files = self.host.disk.files();
        let ours = |service: &str| services.as_ref().is_none_or(|all| all.contains(service));
        let stale = self.own_containers().filter(|one| ours(&one.service)).find_map(|one| {
            let stale = one.read.iter().find(|(path, read)| files.get(*path) != read.as_ref());
            stale.map(|(path, _)| format!("{} has not read {path} as it is", one.service))
        });
        self.require("P16", stale.is_none(), || {
            format!("{id} ended well, but {}", stale.unwrap_or_default())
        });
        self.check_sees(id);
    }

    /// P19: what an operation started was started by compose, which runs hooks, unless compose or the engine failed it.
    fn check_hooks(&mut self, id: &OperationId) {
        let Some(read) = user_actions::read(self) else { return };
        let Some(known) = self.oracle.operations.get(id) else { return };
        let could = known.refusals == self.refusals() && self.own_containers().all(|one| one.ails.is_none());
        let ours = |one: &&Container| {
            let named = read.model.services.contains_key(one.service.as_str());
            named && one.started >= Some(known.began) && one.hooked != one.started
        };
        let past = self.own_containers().find(ours).map(|one| one.service.clone());
        self.require("P19", past.is_none() || !could, || {
            format!("{id} started {past:?} past compose, and none of its hooks has run")
        });
    }

    /// P19: what runs has the network that it is to share and the inline config that is meant, and was restarted with what it
    /// is to restart with.
    fn check_sees(&mut self, id: &OperationId) {
        let Some(read) = user_actions::read(self) else { return };
        let Some(known) = self.oracle.operations.get(id) else { return };
        let began = known.began;
        let follows = |one: &Container, other: &Container| {
            let service = read.model.services.get(one.service.as_str());
            service.is_some_and(|service| service.restarts_with.contains(&other.service))
        };
        let all = &self.host.engine.containers;
        let named = |one: &&Container| read.model.services.contains_key(one.service.as_str());
        let wrong = self.own_containers().filter(named).find_map(|one| {
            let owner = one.shares.as_ref().map(|owner| all.get(owner).and_then(|owner| owner.started));
            if owner.is_some_and(|started| started != one.joined) {
                return Some(format!("{} has a network that is gone", one.service));
            }
            let since = |other: &&Container| other.started > Some(began) && other.started > one.started;
            if let Some(other) = self.own_containers().filter(since).find(|other| follows(one, other)) {
                return Some(format!("{} was not restarted with {}", one.service, other.service));
            }
            let meant = read.copies(&one.service);
            (one.copied != meant)
                .then(|| format!("{} has {:?} copied, not {meant:?}", one.service, one.copied))
        });
        self.require("P19", wrong.is_none(), || {
            format!("{id} ended well, but {}", wrong.unwrap_or_default())
        });
    }

    /// The services of the compose file that is on disk; `None` where it can't be read.
    fn services(&self) -> Option<BTreeSet<String>> {
        let directory = &self.host.disk.directory;
        let value = compose::config(directory, &[]).ok()?;
        Some(value["services"].as_object()?.keys().cloned().collect())
    }

    /// P9: data is replaced wholly, while nothing uses it, and only where that was asked for.
    fn data_is_put(&mut self) {
        self.refresh();
        let Some(id) = self.host.records.open_operation() else {
            return self.broken("P9", "data is replaced, and no operation is in flight");
        };
        let id = &id;
        let asked = self.oracle.operations.get(id).is_some_and(|known| {
            let always = known.request.rollback_data == RollbackData::Always;
            always || matches!(known.request.action, Action::Rollback { data: true, .. })
        });
        self.require("P9", asked, || format!("{id} replaces data, and nobody asked for it"));
        // Nobody can keep a person from starting it just then; what came of that is looked at in the end.
        let known = self.oracle.operations.get(id);
        let uses = self.uses_data(|_| true).filter(|_| known.is_some_and(|known| !known.disturbed));
        self.require("P9", uses.is_none(), || format!("{id} replaces data while {uses:?} uses it"));
        let now = self.now();
        if let Some(known) = self.oracle.operations.get_mut(id) {
            known.data_put = Some(now);
        }
    }

    /// A container that runs and has the data before it, as it was when it was started.
    fn uses_data(&self, started: impl Fn(u64) -> bool) -> Option<String> {
        let uses = |one: &&Container| {
            let runs = one.started.is_some_and(&started) && one.ended.is_none();
            one.service == "db" && runs
        };
        self.own_containers().find(uses).map(|one| one.id.clone())
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
        for (_, id, _) in self.host.records.all_open() {
            if let Some(known) = self.oracle.operations.get_mut(id) {
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
        let foreign = self.host.engine.containers.get(FOREIGN).is_some_and(|one| one.ended.is_none());
        self.require("P11", foreign, || "another project's container was touched".to_owned());
        self.check_files();
        self.refresh();
    }

    /// The agent answers: by what its records say now people and operators go.
    pub fn answers(&mut self, told: Option<&OperationId>) {
        self.refresh();
        self.oracle.told.extend(told.cloned());
        self.oracle.answered =
            self.host.records.claims.values().map(|claim| (claim.uid.clone(), claim.epoch)).collect();
    }

    /// The power was cut: what the agent's records said and nobody was told may be gone.
    pub fn power_was_cut(&mut self) {
        for claim in self.host.records.claims.values_mut() {
            let answered = self.oracle.answered.get(&claim.uid).copied().unwrap_or_default();
            claim.epoch = claim.epoch.min(answered);
        }
        self.refresh();
        self.never_begun();
    }

    /// P3: an operation is gone with its record only where nobody was told of it and nothing came of it: it was never begun.
    fn never_begun(&mut self) {
        let gone = self.host.records.forget_empty();
        for (uid, id) in gone {
            let mutated = self.oracle.operations.remove(&id).is_some_and(|known| known.mutated);
            let told = self.oracle.told.contains(&id);
            self.require("P3", !mutated && !told, || {
                format!("the power was cut, and {id} is gone: something was changed: {mutated}, somebody was told: {told}")
            });
            self.oracle.accepted.retain(|(of, one, _)| (of, one) != (&uid, &id));
        }
    }

    /// P6: files are of one set, unless a commit is under way.
    fn check_files(&mut self) {
        if !std::mem::take(&mut self.host.disk.unchecked) {
            return;
        }
        self.host.disk.look();
        let whole = self.host.disk.protected_is_whole();
        self.require("P1", whole, || "the tenant's own tree was touched".to_owned());
        let open = self.host.records.open_operation();
        let changes =
            open.as_ref().and_then(|id| self.oracle.operations.get(id)).map(|one| one.changes.clone());
        let new = self.oracle.after(&changes.unwrap_or_default());
        let state = open.map_or(TransactionState::None, |id| self.transaction(&id));
        let (is_old, is_new) = (self.is(&self.oracle.set), self.is(&new));
        let broken = match state {
            TransactionState::Committed | TransactionState::Restoring => None,
            TransactionState::Done => is_new.err(),
            TransactionState::Prepared | TransactionState::Restored => is_old.err(),
            // What is over and done with leaves the one or the other.
            TransactionState::None => match (is_old, is_new) {
                (Ok(()), _) => None,
                (Err(_), Ok(())) => {
                    self.oracle.set = new;
                    None
                }
                (Err(path), Err(_)) => Some(path),
            },
        };
        if let Some(path) = broken {
            let what = format!(
                "{path} is not of the set that it should be of, and no commit is under way ({state:?})"
            );
            self.broken("P6", what);
        }
    }

    /// Whether the disk has these files, but for those that a person has edited; else the first that differs.
    fn is(&self, set: &Files) -> Result<(), String> {
        let files = self.host.disk.files();
        let paths = files.keys().chain(set.keys()).filter(|path| !self.oracle.dirty.contains(*path));
        let mut differing = paths.filter(|path| files.get(*path).map(|blob| &blob.sha256) != set.get(*path));
        differing.next().map_or(Ok(()), |path| Err(path.clone()))
    }

    fn transaction(&self, id: &OperationId) -> TransactionState {
        let tree = Tree::open(&self.host.disk.directory, DiskIo::default());
        let state = tree.ok().and_then(|tree| Transactions::new(&tree).state(id).ok());
        state.unwrap_or(TransactionState::None)
    }

    /// What an operation has kept of a file.
    fn kept(&self, id: &OperationId, path: &Path) -> Option<Was> {
        let tree = Tree::open(&self.host.disk.directory, DiskIo::default()).ok()?;
        let files = Transactions::new(&tree).kept_files(id).ok()??.files;
        files.into_iter().find(|file| Path::new(file.path.as_str()) == path).map(|file| file.before)
    }

    /// What an operation leaves of its files: the new set where it is held, and to a person where it could not go back.
    fn settle(&mut self, id: &OperationId, outcome: Outcome) {
        let Some(changes) = self.oracle.operations.get(id).map(|known| known.changes.clone()) else { return };
        match outcome {
            // What was staged may be there still, where a full disk kept it from being removed.
            Outcome::Held => self.oracle.set = self.oracle.after(&changes),
            Outcome::RollbackFailed => {
                self.oracle.dirty.extend(changes.iter().map(|change| change.path.to_string()));
            }
            Outcome::Succeeded | Outcome::Aborted | Outcome::RolledBack => {}
        }
    }

    /// P14, P16 and P17, at every write of status.
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
        self.check_told(&old.status, &new.status);
        let deployed = new.status.deployed.as_ref().filter(|_| old.status.deployed != new.status.deployed);
        if let Some(deployed) = deployed {
            let last = new.status.history.first();
            let succeeded = last
                .is_some_and(|entry| entry.outcome == Outcome::Succeeded && entry.to == deployed.image_tag);
            // What is there already is taken over where it is the target.
            let runs = |service: &str| {
                self.own_containers().find(|one| one.service == service).map(|one| one.image_id.as_str())
            };
            let seen =
                deployed.images.iter().all(|image| runs(&image.service) == Some(image.image_id.as_str()));
            let target = deployed.target_hash.clone();
            let release = self.releases.all.iter().find(|release| release.tag == deployed.image_tag);
            let reaches = release.is_none_or(|release| release.reaches);
            self.require("P17", reaches, || format!("{target} is called deployed, and reaches no image"));
            self.require("P16", succeeded || seen, || {
                format!("{target} is called deployed, but nobody has seen it")
            });
        }
    }

    /// P12, P16 and P4: a release that does not do well is told in its own words, without secrets, and a fault that passes
    /// blocks no target before its hour is over.
    fn check_told(&mut self, old: &TenantStatus, new: &TenantStatus) {
        let text = serde_json::to_string(new).unwrap_or_default();
        self.require("P12", !text.contains(CANARY), || "a secret value is in status".to_owned());
        let ended = |status: &TenantStatus| status.upgrade.clone().filter(|one| one.outcome.is_some());
        let Some(upgrade) = ended(new).filter(|one| ended(old).is_none_or(|before| before.id != one.id))
        else {
            return;
        };
        let blocks = new.blocked_target.as_ref().filter(|block| block.target_hash == upgrade.target_hash);
        let waits = |category: &str| ["RegistryUnreachable", "EngineFault"].contains(&category);
        if upgrade.outcome == Some(Outcome::Aborted)
            && upgrade.rollback_to.is_none()
            && blocks.and_then(|block| block.category.as_deref()).is_some_and(waits)
        {
            let failing = upgrade.failing_since.as_ref().zip(upgrade.finished_at.as_ref());
            let hour = failing.is_some_and(|(since, end)| end.0.as_second() - since.0.as_second() >= 3_600);
            self.require("P4", hour, || format!("{} is blocked for a fault that passes", upgrade.to));
        }
        let crashed = ["Crashed", "Unhealthy"].contains(&upgrade.category.as_deref().unwrap_or_default());
        let id = OperationId::parse(&upgrade.id).ok();
        let known = id.and_then(|id| self.oracle.operations.get(&id));
        let alone = known.is_some_and(|known| !known.disturbed && known.crashes == 0);
        if crashed && alone && self.scenario.rates.engine == 0 {
            let told = upgrade.failures.iter().any(|one| !one.log.is_empty());
            self.require("P16", told, || {
                format!("{} failed, and nobody is told its services' own words", upgrade.to)
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
        let tag = self.host.disk.files().get(ENV).map(|blob| &blob.text);
        tag.hash(&mut hasher);
        for container in self.host.engine.containers.values() {
            let seen = self.host.engine.seen(container, self.now());
            (&seen.service, seen.state as u8, &seen.image_id).hash(&mut hasher);
        }
        let tenant = self.api.tenant.as_ref();
        let status = tenant.map(|tenant| (&tenant.status.phase, tenant.deleted_at.is_some()));
        status.hash(&mut hasher);
        (self.operators[0].leads, self.operators[1].leads).hash(&mut hasher);
        let held: Vec<bool> = self.host.records.claims.values().map(|claim| claim.released).collect();
        held.hash(&mut hasher);
        self.states.insert(hasher.finish());
    }
}

impl Oracle {
    /// The set of files once these changes are made.
    fn after(&self, changes: &[FileChange]) -> Files {
        let mut set = self.set.clone();
        for change in changes {
            let path = change.path.to_string();
            match &change.after {
                Some(sha256) => set.insert(path, sha256.clone()),
                None => set.remove(&path),
            };
        }
        set
    }
}

/// Whether the same target may be tried again by itself after it ended so.
fn passes(outcome: Outcome, category: FailureCategory) -> bool {
    match outcome {
        Outcome::Aborted => {
            matches!(category, FailureCategory::EngineFault | FailureCategory::RegistryUnreachable)
        }
        Outcome::RolledBack => category == FailureCategory::EngineFault,
        Outcome::Succeeded | Outcome::Held | Outcome::RollbackFailed => false,
    }
}

fn hashes(files: &BTreeMap<String, Blob>) -> Files {
    files.iter().map(|(path, blob)| (path.clone(), blob.sha256.clone())).collect()
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
