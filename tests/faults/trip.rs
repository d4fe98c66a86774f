//! One way from where a sandbox is to where it is to be, and what must be so on arrival.

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tenantry_api::names::OperationId;
use tenantry_api::tenant::{Consistency, RollbackData};
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{OperateRequest, OperationState, OperationStatus};

use crate::data::{Fate, write_since};
use crate::promises::Before;
use crate::sandbox::{BAD, Sandbox};
use crate::workload::Release;

/// Where an operation leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Way {
    /// From the release with few files to the one with more.
    Up,
    /// And to the former again, as an upgrade.
    Down,
    /// The same because a person goes back to the restore point, with the data where there is some.
    Back,
    /// To a release that spoils the data and dies, and so back by a rollback.
    Failing,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Up, Self::Down, Self::Back, Self::Failing];

    /// Whether it can be gone from where a sandbox is.
    pub fn is_open(self, sandbox: &Sandbox) -> bool {
        match self {
            Self::Up => !sandbox.even,
            Self::Down | Self::Back => sandbox.even,
            Self::Failing => true,
        }
    }

    /// The undisturbed way that leads on.
    pub const fn onward(sandbox: &Sandbox) -> Self {
        if sandbox.even { Self::Down } else { Self::Up }
    }
}

/// An operation that is about to be asked for.
pub struct Trip {
    pub way: Way,
    pub id: OperationId,
    pub request: OperateRequest,
    /// The release that it leads to when all goes well.
    pub wanted: Release,
    /// What becomes of the data.
    pub fate: Fate,
}

impl Trip {
    /// Makes the request, and what people do beforehand.
    pub fn of(sandbox: &mut Sandbox, way: Way) -> Result<Self> {
        ensure!(way.is_open(sandbox), "{way:?} can't be gone from here");
        let (tag, even) = match way {
            Way::Up => ("v2", true),
            Way::Down | Way::Back => ("v1", false),
            Way::Failing => (BAD, !sandbox.even),
        };
        let wanted = sandbox.release(tag, even);
        let with_data = sandbox.workload.has_data();
        let mut fate = Fate::Untouched;
        let (id, mut request) = match way {
            Way::Back => sandbox.back()?,
            _ => sandbox.request(tag, even, false)?,
        };
        match way {
            Way::Down if with_data => request.snapshot.consistency = Consistency::Pause,
            Way::Failing if with_data => {
                request.rollback_data = RollbackData::Always;
                fate = Fate::Spoiled;
            }
            Way::Back if with_data => {
                for (n, (_, at)) in sandbox.parts().iter().enumerate() {
                    write_since(at, n as u64)?;
                }
                let point = sandbox.point.clone();
                fate = point.map_or(Fate::Untouched, |(_, data)| Fate::GoneBack(data));
            }
            _ => {}
        }
        Ok(Self { way, id, request, wanted, fate })
    }

    /// P3: it ends as it does without a crash. `before` is how it was before the request.
    pub fn arrived(&self, sandbox: &mut Sandbox, before: Before, status: &OperationStatus) -> Result<()> {
        let OperationState::Ended { outcome, failure, .. } = &status.state else { bail!("it still runs") };
        let wanted = if self.way == Way::Failing { Outcome::RolledBack } else { Outcome::Succeeded };
        ensure!(*outcome == wanted, "P3: it ended as {outcome:?}: {failure:?}, phases {:#?}", status.phases);
        let restored = !matches!(self.fate, Fate::Untouched);
        ensure!(
            status.data_restored == restored,
            "P9: data was {}restored, and status says {}",
            if restored { "" } else { "not " },
            status.data_restored
        );
        let release = (*outcome == Outcome::Succeeded).then_some(&self.wanted);
        if release.is_some() {
            sandbox.even = self.way == Way::Up;
        }
        before.check_ended(sandbox, release, &self.fate)?;
        match self.way {
            Way::Up => sandbox.point = Some((self.id.clone(), before.into_data())),
            Way::Down | Way::Back => sandbox.point = None,
            Way::Failing => {}
        }
        Ok(())
    }
}
