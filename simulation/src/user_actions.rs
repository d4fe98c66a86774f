//! What people do to the Tenant and to the host.

use std::collections::BTreeMap;
use std::sync::Arc;

use tenantry_api::annotations::{ACCEPT_HOST, CLAIM, ORPHAN, RECONCILE, RETRY, ROLLBACK_TO};

use crate::ailments;
use crate::compose::{self, Command, Read, Recreate};
use crate::host::{FOREIGN, Starter, start};
use crate::oracle::Actor;
use crate::releases::{Behaviour, Blob, COMPOSE, CONF, ENV, FROM_ENV, LINK, PROJECT, compose_file, image_id};
use crate::run::env_text;
use crate::scenario::Deed;
use crate::scheduler::{Owner, Shared, sleep};
use crate::world::{Fault, World};

/// An edit comes within so many effects of the agent's.
const EDIT_WITHIN: u32 = 400;

/// Another project's container, which is none of our business.
pub fn another_project(world: &mut World) {
    let id = world.host.engine.create("/srv/other", "web", "other:1", "sha256:other", "");
    if let Some(mut container) = world.host.engine.containers.remove(&id) {
        container.id = FOREIGN.to_owned();
        container.name = "other-web-1".to_owned();
        container.started = Some(0);
        world.host.engine.containers.insert(FOREIGN.to_owned(), container);
    }
}

/// The first release, installed by hand.
pub fn install(world: &mut World) {
    let release = world.releases.all[0].clone();
    for (path, blob) in &release.files {
        world.host.disk.write(path, &blob.text);
    }
    world.host.disk.write(ENV, &env_text(&release.tag).text);
    let _ = std::os::unix::fs::symlink(CONF, world.host.disk.directory.join(LINK));
    world.host.disk.protect();
    let Some(read) = read(world) else { return };
    let directory = world.host.disk.directory();
    let engine = &mut world.host.engine;
    if let Some(network) = read.model.networks.get("default") {
        engine.make_network(&network.definition, 0);
    }
    let mut made: BTreeMap<&str, String> = BTreeMap::new();
    for (name, service) in &read.model.services {
        let Some(image) = engine.registry.get(&service.image).cloned() else { continue };
        engine.images.insert(image.clone());
        engine.tags.insert(service.image.clone(), image.clone());
        let id = engine.create(&directory, name.as_str(), &service.image, &image, &service.definition);
        if let Some(one) = engine.containers.get_mut(&id) {
            one.copied = read.copies(name.as_str());
            one.share(service.shares.first().and_then(|of| made.get(of.as_str()).cloned()));
        }
        made.insert(name.as_str(), id);
    }
    for id in made.into_values() {
        start(world, &id, Starter::Compose);
    }
}

/// What compose makes of the files that are on the disk; `None` where it can't.
pub fn read(world: &World) -> Option<Read> {
    let disk = &world.host.disk;
    let value = compose::config(&disk.directory, &["-p".to_owned(), PROJECT.to_owned()]).ok()?;
    Read::of(&value, &disk.directory()).ok()
}

/// A person edits a managed file, if there is one.
pub fn edit(world: &mut World) {
    let path = if world.rng.bool() { CONF } else { COMPOSE };
    let Ok(old) = std::fs::read_to_string(world.host.disk.directory.join(path)) else { return };
    world.count(Fault::EditedByHand);
    let text = if path == COMPOSE { compose_file(0, CONF, 0, FROM_ENV) } else { format!("{old}# mine\n") };
    world.host.disk.write(path, &text);
    world.edited(path);
}

/// One line of the script.
pub async fn act(shared: &Shared, deed: Deed) {
    shared.world().say(|_| format!("a person: {deed:?}"));
    match deed {
        Deed::Recreate(after) => recreate(shared, after).await,
        Deed::TakeOver => take_over(shared).await,
        Deed::Compose => by_hand(shared),
        other => at_once(&mut shared.world(), other),
    }
}

fn at_once(world: &mut World, deed: Deed) {
    let token = format!("at {}", world.now());
    match deed {
        Deed::Spec(spec) => {
            world.asked();
            if world.api.tenant.is_none() {
                world.make_tenant(spec);
            } else {
                world.change_tenant(|tenant| tenant.spec = spec);
            }
        }
        Deed::Retry => {
            world.asked();
            world.change_tenant(|tenant| {
                tenant.annotations.insert(RETRY, token);
            });
        }
        Deed::RollBack(data) => {
            world.asked();
            let wish = if data { format!(",data,{token}") } else { format!(",{token}") };
            world.change_tenant(|tenant| {
                tenant.annotations.insert(ROLLBACK_TO, wish);
            });
        }
        Deed::Accept => {
            world.asked();
            world.change_tenant(|tenant| {
                tenant.annotations.insert(ACCEPT_HOST, token);
            });
        }
        Deed::Reconcile => world.change_tenant(|tenant| {
            tenant.annotations.insert(RECONCILE, token);
        }),
        Deed::Edit if world.rng.bool() => edit(world),
        // In the middle of whatever the agent does next.
        Deed::Edit => world.host.disk.edit_in = Some(world.rng.u32(0..EDIT_WITHIN)),
        Deed::Unedit => unedit(world),
        Deed::Prune => {
            world.count(Fault::ImagesPruned);
            world.host.engine.prune();
        }
        Deed::Ail => ailments::come_and_go(world),
        Deed::MoveTag => move_tag(world),
        Deed::Recreate(_) | Deed::TakeOver | Deed::Compose => {}
    }
}

/// The host is not waited for: whatever it still does for the Tenant that is gone, it does.
async fn take_over(shared: &Shared) {
    let spec = {
        let mut world = shared.world();
        world.count(Fault::TakenOver);
        let Some(tenant) = world.api.tenant.clone() else { return };
        world.change_tenant(|tenant| {
            tenant.annotations.insert(ORPHAN, "true".to_owned());
        });
        world.delete_tenant();
        tenant.spec.clone()
    };
    while shared.world().api.tenant.is_some() {
        sleep(shared, 500).await;
    }
    let mut world = shared.world();
    world.asked();
    world.make_tenant(spec);
    let token = format!("at {}", world.now());
    world.change_tenant(|tenant| {
        tenant.annotations.insert(CLAIM, token);
    });
}

/// Takes back what was asked for and can't be had.
pub fn unask(world: &mut World) {
    let Some(tenant) = world.api.tenant.clone() else { return };
    let handled = tenant.status.handled.clone().unwrap_or_default();
    if tenant.annotations.get(ROLLBACK_TO) != handled.rollback_to.as_ref() {
        world.change_tenant(|tenant| {
            tenant.annotations.remove(ROLLBACK_TO);
        });
    }
}

async fn recreate(shared: &Shared, after: u64) {
    let spec = {
        let mut world = shared.world();
        world.count(Fault::Recreated);
        let Some(tenant) = world.api.tenant.clone() else { return };
        world.delete_tenant();
        tenant.spec.clone()
    };
    while shared.world().api.tenant.is_some() {
        sleep(shared, 500).await;
    }
    sleep(shared, after).await;
    let mut world = shared.world();
    world.asked();
    world.make_tenant(spec);
}

/// Puts every managed file back to what the agent last wrote, as far as that is known.
fn unedit(world: &mut World) {
    let Some(uid) = world.api.tenant.as_ref().map(|tenant| tenant.uid.clone()) else { return };
    world.host.disk.look();
    let baselines: Vec<_> = world.host.records.baselines.get(&uid).cloned().into_iter().collect();
    let known: Vec<Blob> =
        world.releases.all.iter().flat_map(|release| release.files.values().cloned()).collect();
    let mut changed = Vec::new();
    for baseline in baselines {
        for (path, written) in baseline.files {
            let now = world.host.disk.files().get(path.as_str());
            let wanted = known.iter().find(|blob| blob.sha256 == written.sha256);
            if let (Some(now), Some(wanted)) = (now, wanted)
                && now != wanted
            {
                changed.push((path.to_string(), wanted.clone()));
            }
        }
    }
    for (path, blob) in changed {
        world.host.disk.write(&path, &blob.text);
        world.edited(&path);
    }
}

fn by_hand(shared: &Shared) {
    let mut world = shared.world();
    if world.host.child.is_some() || world.host.by_hand.is_some() {
        return;
    }
    let Some(read) = read(&world) else { return };
    let host = &mut world.host;
    // Without `--pull never` compose pulls what is missing.
    for reference in read.model.references().into_keys() {
        if let Some(image) = host.engine.registry.get(reference).cloned()
            && !host.engine.tags.contains_key(reference)
        {
            host.engine.images.insert(image.clone());
            host.engine.tags.insert(reference.to_owned(), image);
        }
    }
    world.count(Fault::ComposeByHand);
    world.disturb();
    let up = Command::Up(Recreate::Differing, true);
    let task =
        world.spawn(Owner::Person, compose::carry_out(shared.clone(), Actor::Person, up, Arc::new(read)));
    world.host.by_hand = Some(task);
}

fn move_tag(world: &mut World) {
    let Some(tenant) = world.api.tenant.clone() else { return };
    world.count(Fault::TagMoved);
    let tag = world.releases.all[tenant.spec.release].tag.clone();
    let image = image_id(&format!("app {tag} {}", world.now()));
    world.host.engine.behaviours.insert(image.clone(), Behaviour::Good(1_000));
    world.host.engine.registry.insert(format!("reg.example/app:{tag}"), image);
}
