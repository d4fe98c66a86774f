//! Which crashes are tried: what points there are, and which of them are wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::matrix::{Crash, Point, record};
use crate::report::Rows;
use crate::sandbox::Sandbox;
use crate::trip::Way;
use crate::workload::Workload;

/// How many points of a way are tried where not many are asked for.
const SOME: [(Way, usize); 4] = [(Way::Up, 2), (Way::Down, 1), (Way::Back, 1), (Way::Failing, 1)];
/// How many double crashes of a workload are tried, where many are asked for and where not.
const DOUBLES: (usize, usize) = (16, 1);
/// Steps that the declared data goes through, each with the way on which the agent must be seen to take it.
const DATA_STEPS: [(Way, &str); 9] = [
    (Way::Up, "step.Quiesce.before"),
    (Way::Down, "step.Unquiesce.before"),
    (Way::Failing, "step.StopForData.before"),
    (Way::Failing, "step.RestoreData.before"),
    (Way::Failing, "files.exchange.managed.before"),
    (Way::Back, "step.StopForChosen.before"),
    (Way::Back, "step.RestoreChosen.before"),
    (Way::Back, "files.fsync.unpacked-ready.before"),
    (Way::Back, "files.exchange.managed.after"),
];

/// What the names of points hold at which data is about to be kept or replaced: those are tried first.
const OF_DATA: [&str; 5] = ["uiesce", "StopFor", "RestoreData", "RestoreChosen", "exchange"];

/// What is asked for, by the environment.
pub struct Asked {
    many: Option<usize>,
    at: Vec<Crash>,
    /// When no further crash is begun.
    pub until: Option<Instant>,
    /// Whether what was recovered from before is left out.
    pub more: bool,
}

impl Asked {
    /// Reads the variables.
    pub fn of_environment() -> Result<Self> {
        let read = |name: &str| std::env::var(name).ok();
        let many = match read("TENANTRY_FAULTS").as_deref() {
            None => None,
            Some("all") => Some(usize::MAX),
            Some(count) => Some(count.parse().context("TENANTRY_FAULTS is a number or `all`")?),
        };
        let at = read("TENANTRY_FAULTS_AT").unwrap_or_default();
        let at = at.split_terminator(';').map(parsed).collect::<Result<_>>()?;
        let minutes = read("TENANTRY_FAULTS_MINUTES").map(|text| text.parse::<u64>()).transpose()?;
        let until = minutes.map(|minutes| Instant::now() + Duration::from_mins(minutes));
        Ok(Self { many, at, until, more: read("TENANTRY_FAULTS_MORE").is_some() })
    }

    /// Whether many points are to be tried.
    pub const fn many(&self) -> bool {
        self.many.is_some()
    }

    /// Whether it is only crashes that are named.
    pub const fn alone(&self) -> bool {
        !self.at.is_empty()
    }
}

/// `Up files.rename.env.before#1 then journal.resumed.after#1`.
fn parsed(text: &str) -> Result<Crash> {
    let (way, points) = text.trim().split_once(' ').context("a way, a blank, and one or two points")?;
    let way = serde_json::from_value(way.into()).context("a way is Up, Down, Back or Failing")?;
    let point = |text: &str| {
        let (name, hit) = text.trim().rsplit_once('#').context("a point is NAME#1")?;
        anyhow::Ok(Point { name: name.to_owned(), hit: hit.parse()? })
    };
    Ok(Crash { way, points: points.split(" then ").map(point).collect::<Result<_>>()?, fresh: false })
}

/// The points that each way comes by.
#[derive(Default)]
pub struct Found(BTreeMap<Way, Vec<Point>>);

impl Found {
    /// Goes every way once, undisturbed.
    pub async fn of(workload: Workload) -> Result<Self> {
        let mut sandbox = Sandbox::new(workload, "record").await?;
        let mut all = BTreeMap::new();
        for way in [Way::Up, Way::Failing, Way::Back] {
            all.insert(way, record(&mut sandbox, way).await?);
        }
        record(&mut sandbox, Way::Up).await?;
        all.insert(Way::Down, record(&mut sandbox, Way::Down).await?);
        Ok(Self(all))
    }

    /// The names of all points, each once.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for point in self.0.values().flatten() {
            if !names.contains(&point.name.as_str()) {
                names.push(&point.name);
            }
        }
        names
    }

    /// Each point on one of the ways that come by it, so that all ways have their share. What happens to data is tried
    /// on every way on which it is replaced.
    fn each(&self) -> Vec<(Way, Point)> {
        let mut all = Vec::new();
        for (n, name) in self.names().into_iter().enumerate() {
            let find = |points: &Vec<Point>| points.iter().find(|point| point.name == name).cloned();
            let on: Vec<(Way, Point)> =
                self.0.iter().filter_map(|(way, points)| Some((*way, find(points)?))).collect();
            let replaces = |(way, _): &(Way, Point)| matches!(way, Way::Back | Way::Failing);
            if on.iter().all(replaces) {
                all.extend(on);
            } else {
                all.push(on[n % on.len()].clone());
            }
        }
        all
    }
}

/// A workload that does not come by what it is for would show nothing.
pub fn must_have(workload: Workload, found: &Found) -> Result<()> {
    for (way, name) in DATA_STEPS.iter().filter(|_| workload.has_data()) {
        let points = found.0.get(way).map(Vec::as_slice).unwrap_or_default();
        ensure!(points.iter().any(|point| point.name == *name), "{way:?} does not come by {name}");
    }
    Ok(())
}

/// What is to be tried, in an order that is evenly spread wherever it is cut off; without names that are had already.
pub fn wanted(found: &Found, workload: Workload, asked: &Asked, had: &Rows) -> Vec<Crash> {
    if asked.alone() {
        return asked.at.clone();
    }
    let mut each = found.each();
    let mut doubles = doubles(found, workload, if asked.many() { DOUBLES.0 } else { DOUBLES.1 });
    doubles.drain(..had.doubles().min(doubles.len()));
    let recovered = had.recovered();
    each.retain(|(_, point)| !recovered.contains(&point.name));
    spread(&mut each, workload);
    each.sort_by_key(|(_, point)| !OF_DATA.iter().any(|word| point.name.contains(word)));
    let Some(count) = asked.many else { return some(&each).chain(doubles).collect() };
    doubles.into_iter().chain(each.iter().take(count).map(|(way, point)| Crash::at(*way, point))).collect()
}

/// Every prefix of the new order takes from all of the old; each workload begins elsewhere.
fn spread<T>(all: &mut Vec<T>, workload: Workload) {
    let offset = Workload::ALL.iter().position(|one| *one == workload).unwrap_or_default();
    let length = all.len().max(1);
    let mut numbered: Vec<(u32, T)> = Vec::with_capacity(length);
    for (at, one) in all.drain(..).enumerate() {
        let at = (at + offset * length / Workload::ALL.len()) % length;
        numbered.push((u32::try_from(at).unwrap_or(u32::MAX).reverse_bits(), one));
    }
    numbered.sort_by_key(|(at, _)| *at);
    all.extend(numbered.into_iter().map(|(_, one)| one));
}

/// A few of each way.
fn some(each: &[(Way, Point)]) -> impl Iterator<Item = Crash> {
    SOME.into_iter().flat_map(move |(way, some)| {
        let of_way = each.iter().filter(move |(on, _)| *on == way).take(some);
        of_way.map(|(way, point)| Crash::at(*way, point))
    })
}

/// Two crashes in one operation, the second at a later point of the same way. A seed for each workload.
fn doubles(found: &Found, workload: Workload, count: usize) -> Vec<Crash> {
    let seed = Workload::ALL.iter().position(|one| *one == workload).unwrap_or_default() as u64;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut wanted = Vec::new();
    for way in Way::ALL.into_iter().cycle() {
        if wanted.len() == count {
            break;
        }
        let Some(points) = found.0.get(&way).filter(|points| points.len() > 1) else { continue };
        let first = random.usize(..points.len() - 1);
        let second = &points[random.usize(first + 1..points.len())];
        // Counted from the agent's start: one that goes on comes to it sooner than one that begins.
        let second = Point { hit: 1, ..second.clone() };
        wanted.push(Crash { way, points: vec![points[first].clone(), second], fresh: false });
    }
    wanted
}

#[test]
fn one_crash_can_be_named() {
    let crash = parsed("Back files.rename.env.before#2 then journal.resumed.after#1").unwrap();
    assert_eq!((crash.way, crash.names().len(), crash.points[0].hit), (Way::Back, 2, 2));
    assert!(parsed("Sideways a#1").is_err() && parsed("Up a").is_err());
}

#[test]
fn every_beginning_of_the_order_takes_from_everywhere() {
    for workload in Workload::ALL {
        let mut all: Vec<usize> = (0..300).collect();
        spread(&mut all, workload);
        let tenths: BTreeSet<usize> = all.iter().take(40).map(|at| at / 30).collect();
        assert_eq!(tenths.len(), 10, "{all:?}");
        all.sort_unstable();
        assert_eq!(all, (0..300).collect::<Vec<_>>());
    }
}
