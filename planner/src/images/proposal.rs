//! By what a project's release is set: proposed from what its compose files write, so that a Tenant made of it says what
//! is there and taking the project over changes nothing.
//!
//! One image of the project is its release. It is moved by the variable that its tag comes from, or else where its tag is
//! written out; whatever can't be moved by a tag is named as it is, so that the project is watched all the same. Which
//! image that is, is a guess that a person reads before it counts: databases and proxies of everybody's come last, then
//! what is built on the host.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use tenantry_api::names::{EnvKey, ImageTag, RelativePath, ServiceName};
use tenantry_api::tenant::{EnvPatch, ImageSetting};

use super::name::{normal_name, same_name};
use super::variable::{Settable, Use};
use super::written::{Tag, Written};
use crate::model::ImageFrom;

/// What stands for the release in a spec.
const IMAGE_TAG: &str = "$(imageTag)";
/// The most services that an entry of `spec.images` names.
const MAX_NAMED: usize = 64;
/// The last part of names of images that projects use beside their own.
const EVERYBODYS: [&str; 44] = [
    "adminer",
    "alpine",
    "busybox",
    "caddy",
    "cadvisor",
    "clickhouse",
    "clickhouse-server",
    "cockroach",
    "cron",
    "debian",
    "docker-socket-proxy",
    "elasticsearch",
    "etcd",
    "haproxy",
    "influxdb",
    "kafka",
    "mailhog",
    "mailpit",
    "mariadb",
    "meilisearch",
    "memcached",
    "minio",
    "mongo",
    "mongodb",
    "mysql",
    "nats",
    "nginx",
    "nginx-proxy",
    "opensearch",
    "pgadmin4",
    "pgbouncer",
    "pgvector",
    "phpmyadmin",
    "postgis",
    "postgres",
    "postgresql",
    "rabbitmq",
    "redis",
    "socket-proxy",
    "traefik",
    "typesense",
    "valkey",
    "watchtower",
    "zookeeper",
];

/// A service as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundService {
    /// The service.
    pub name: ServiceName,
    /// Its image in the resolved model.
    pub reference: String,
    /// Where the image comes from.
    pub from: ImageFrom,
    /// Where the compose files say so; absent where no line does by itself.
    pub written: Option<WrittenAt>,
}

/// A line of a compose file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenAt {
    /// The file.
    pub path: RelativePath,
    /// The line, counted from 1.
    pub line: u32,
    /// What is written there, with the variables in it.
    pub text: String,
}

/// A variable that images depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundVariable {
    /// The variable.
    pub name: EnvKey,
    /// Whether a Tenant may set it.
    pub settable: Settable,
    /// What it is to each service's image.
    pub uses: BTreeMap<ServiceName, Use>,
}

/// By what the release is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moves {
    /// By a variable of `.env`.
    Variable(EnvKey),
    /// By the tags that compose files write out.
    Written,
    /// By the digest that compose files write out.
    Digest,
    /// By nothing: the project is watched as it is. The text says why, and what would help.
    Nothing(String),
}

/// What a Tenant of the project says of its images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// By what the release is set.
    pub moves: Moves,
    /// The services that have the release's image.
    pub services: Vec<ServiceName>,
    /// `spec.imageTag`.
    pub image_tag: Option<String>,
    /// `spec.env.patch`.
    pub patch: Vec<EnvPatch>,
    /// `spec.images`.
    pub images: Vec<ImageSetting>,
    /// What could be set, too, and is left alone.
    pub others: Vec<Other>,
}

/// What could be set, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Other {
    /// By an entry of `spec.env.patch`.
    Patch(EnvPatch),
    /// By an entry of `spec.images`.
    Image(ImageSetting),
}

/// One way to set a release.
struct Candidate {
    services: Vec<ServiceName>,
    /// How likely it is what its people call a release; less is likelier.
    class: u8,
    /// How many services have an image of the project's own.
    own: usize,
    by: By,
}

enum By {
    Variable { name: EnvKey, tag: String, value: String },
    Tag { name: String, tag: String },
    Digest { name: String, tag: Option<String>, digest: String },
}

/// Proposes what a Tenant says of these images; `None` where there is no service.
pub fn propose(services: &[FoundService], variables: &[FoundVariable]) -> Option<Proposal> {
    let mut all: Vec<Candidate> =
        variables.iter().filter_map(|variable| by_variable(variable, services)).collect();
    all.extend(by_writing(services));
    all.sort_by_key(Candidate::order);
    // A database's version is never taken for the release of a project that has images of its own.
    let has_own = services.iter().any(|service| !is_everybodys(&service.reference));
    let movable = all.first().is_some_and(|first| first.own > 0 || !has_own);
    let first = if movable { Some(all.remove(0)) } else { None };
    let others = all.iter().filter_map(|other| other.other(services)).collect();
    let Some(first) = first else { return watched(services, variables, others) };
    let mut proposal = Proposal {
        moves: Moves::Written,
        services: first.services.clone(),
        image_tag: None,
        patch: Vec::new(),
        images: Vec::new(),
        others,
    };
    match &first.by {
        By::Variable { name, tag, value } => {
            proposal.moves = Moves::Variable(name.clone());
            proposal.image_tag = Some(tag.clone());
            proposal.patch.push(EnvPatch { name: name.to_string(), value: value.clone() });
        }
        By::Tag { tag, .. } => {
            proposal.image_tag = Some(tag.clone());
            proposal.images.push(first.setting(Some(IMAGE_TAG.to_owned()), services)?);
        }
        By::Digest { tag, .. } => {
            proposal.moves = Moves::Digest;
            proposal.images.push(first.setting(tag.clone(), services)?);
        }
    }
    Some(proposal)
}

impl Candidate {
    fn order(&self) -> impl Ord + use<> {
        let (kind, name) = match &self.by {
            By::Variable { name, .. } => (u8::from(!sounds_like_a_release(name.as_str())), name.to_string()),
            By::Tag { name, tag } => (2, format!("{name}:{tag}")),
            By::Digest { name, .. } => (3, name.clone()),
        };
        (self.class, Reverse(self.own), Reverse(self.services.len()), kind, name)
    }

    /// As an entry of `spec.images`; absent where more services would have to be named than one may name.
    fn setting(&self, new_tag: Option<String>, services: &[FoundService]) -> Option<ImageSetting> {
        let (name, digest) = match &self.by {
            By::Variable { .. } => return None,
            By::Tag { name, .. } => (name, None),
            By::Digest { name, digest, .. } => (name, Some(digest.clone())),
        };
        let named = named(name, &self.services, services)?;
        Some(ImageSetting { name: name.clone(), new_name: None, new_tag, digest, services: named })
    }

    fn other(&self, services: &[FoundService]) -> Option<Other> {
        match &self.by {
            // What it holds stays so.
            By::Variable { name, tag, value } => {
                let value = value.replace(IMAGE_TAG, tag);
                Some(Other::Patch(EnvPatch { name: name.to_string(), value }))
            }
            By::Tag { tag, .. } => self.setting(Some(tag.clone()), services).map(Other::Image),
            By::Digest { tag, .. } => self.setting(tag.clone(), services).map(Other::Image),
        }
    }
}

/// The services that an entry has to name; none where it means all that have the image.
fn named(image: &str, meant: &[ServiceName], services: &[FoundService]) -> Option<Vec<String>> {
    let has_it = |service: &&FoundService| same_name(&Written::parse(&service.reference).name.text, image);
    if services.iter().filter(has_it).all(|service| meant.contains(&service.name)) {
        return Some(Vec::new());
    }
    (meant.len() <= MAX_NAMED).then(|| meant.iter().map(ToString::to_string).collect())
}

fn by_variable(variable: &FoundVariable, services: &[FoundService]) -> Option<Candidate> {
    if variable.settable != Settable::AsItIs {
        return None;
    }
    let mut releases = variable.uses.values().filter_map(Use::release);
    let (tag, value) = releases.next()?;
    if ImageTag::parse(tag.as_str()).is_err() || value.replace(IMAGE_TAG, "").contains("$(") {
        return None;
    }
    let moved = variable.uses.iter().filter(|(_, how)| how.release().is_some());
    let meant = moved.map(|(name, _)| name.clone()).collect();
    let name = variable.name.clone();
    candidate(meant, services, 0, By::Variable { name, tag, value })
}

/// Images whose versions are written out, those that are written alike together.
fn by_writing(services: &[FoundService]) -> Vec<Candidate> {
    let mut found: BTreeMap<(String, Option<String>, Option<String>), Vec<ServiceName>> = BTreeMap::new();
    for service in services {
        let Some(at) = &service.written else { continue };
        let resolved = Written::parse(&service.reference).name.text;
        if normal_name(&resolved).is_none() {
            continue;
        }
        let written = Written::parse(&at.text);
        let digest = match &written.digest {
            None => None,
            Some(part) => match part.literal() {
                Some(digest) if digest.starts_with("sha256:") => Some(digest.to_owned()),
                _ => continue,
            },
        };
        let tag = match &written.tag {
            Tag::Absent if digest.is_some() => None,
            Tag::Absent => Some("latest".to_owned()),
            Tag::Written(part) => match part.literal() {
                Some(tag) if ImageTag::parse(tag).is_ok() => Some(tag.to_owned()),
                _ => continue,
            },
            Tag::Hidden { .. } => continue,
        };
        found.entry((resolved, tag, digest)).or_default().push(service.name.clone());
    }
    let by = |(name, tag, digest)| match (tag, digest) {
        (tag, Some(digest)) => Some(By::Digest { name, tag, digest }),
        (Some(tag), None) => Some(By::Tag { name, tag }),
        (None, None) => None,
    };
    found.into_iter().filter_map(|(key, meant)| candidate(meant, services, 1, by(key)?)).collect()
}

/// `kind`: a variable goes before what is written out, among images of the same kind.
fn candidate(meant: Vec<ServiceName>, services: &[FoundService], kind: u8, by: By) -> Option<Candidate> {
    let of = |name: &ServiceName| services.iter().find(|service| service.name == *name);
    let own = |service: &&FoundService| !is_everybodys(&service.reference);
    let pulled =
        meant.iter().filter_map(of).filter(own).filter(|one| one.from == ImageFrom::Registry).count();
    let own = meant.iter().filter_map(of).filter(own).count();
    let class = match (pulled, own) {
        (1.., _) => 0,
        (0, 1..) => 2,
        (0, 0) => 4,
    };
    (!meant.is_empty()).then(|| Candidate { services: meant, class: class + kind, own, by })
}

/// What can't be moved, named as it is: a Tenant has to name an image, and this one is as it is wanted.
fn watched(services: &[FoundService], variables: &[FoundVariable], others: Vec<Other>) -> Option<Proposal> {
    let version = |service: &FoundService| {
        let written = Written::parse(&service.reference);
        let literal = |part: &super::Part| part.literal().map(str::to_owned);
        let digest = written.digest.as_ref().and_then(literal).filter(|digest| digest.starts_with("sha256:"));
        let tag = match &written.tag {
            Tag::Written(part) => literal(part),
            Tag::Absent if digest.is_none() => Some("latest".to_owned()),
            Tag::Absent | Tag::Hidden { .. } => None,
        };
        let known = normal_name(&written.name.text).is_some() && (tag.is_some() || digest.is_some());
        known.then_some((written.name.text, tag, digest))
    };
    let mut known: Vec<(&FoundService, _)> =
        services.iter().filter_map(|service| Some((service, version(service)?))).collect();
    known.sort_by_key(|(service, _)| (is_everybodys(&service.reference), service.name.clone()));
    let (first, (name, new_tag, digest)) = known.first()?.clone();
    let alike: Vec<ServiceName> = known
        .iter()
        .filter(|(_, other)| *other == (name.clone(), new_tag.clone(), digest.clone()))
        .map(|(service, _)| service.name.clone())
        .collect();
    let named = named(&name, &alike, services)?;
    let setting = ImageSetting { name, new_name: None, new_tag, digest, services: named };
    Some(Proposal {
        moves: Moves::Nothing(why(unmoved(services).unwrap_or(first), variables)),
        services: alike,
        image_tag: None,
        patch: Vec::new(),
        images: vec![setting],
        others,
    })
}

/// The service that a release would be of, if a tag could set it: the first with an image of the project's own.
fn unmoved(services: &[FoundService]) -> Option<&FoundService> {
    services.iter().filter(|service| !is_everybodys(&service.reference)).min_by_key(|service| &service.name)
}

/// Why a service's image can't be moved, and what would help.
fn why(service: &FoundService, variables: &[FoundVariable]) -> String {
    let FoundService { name, reference, written, .. } = service;
    let Some(at) = written else {
        if service.from == ImageFrom::Host {
            return format!(
                "{name} is built on this host and has no image of a registry: push it to one and write `image:` into \
                 its service"
            );
        }
        return format!(
            "no line of the compose files says by itself that the image of {name} is {reference}"
        );
    };
    let at = format!("{} line {}", at.path, at.line);
    let of_it = || variables.iter().filter(|variable| variable.uses.contains_key(name));
    let elsewhere = of_it().find(|variable| variable.settable == Settable::OtherwiseElsewhere);
    let holds = elsewhere.and_then(|variable| Some((&variable.name, variable.uses.get(name)?.value()?)));
    if let Some((variable, value)) = holds {
        return format!(
            "the image of {name} at {at} comes from {variable}, which .env does not set and which has another default \
             elsewhere: write `{variable}={value}` to .env, run `docker compose up -d`, and adopt it again"
        );
    }
    let by: Vec<&str> = of_it().map(|variable| variable.name.as_str()).collect();
    if by.is_empty() {
        return format!("the tag of {name} at {at} comes from variables that .env does not set");
    }
    let tag = if matches!(Written::parse(reference).tag, Tag::Absent) { ":latest" } else { "" };
    let by = by.join(", ");
    format!("the image of {name} at {at} comes from {by}: write the tag there, for example {reference}{tag}")
}

fn sounds_like_a_release(variable: &str) -> bool {
    ["TAG", "VERSION", "RELEASE"].iter().any(|word| variable.to_ascii_uppercase().contains(word))
}

/// Whether an image is one that projects of all kinds use beside their own.
fn is_everybodys(reference: &str) -> bool {
    let name = Written::parse(reference).name.text;
    let last = name.rsplit('/').next().unwrap_or(&name);
    EVERYBODYS.contains(&last)
}
