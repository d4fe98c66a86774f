//! Write, and its way back: files and `.env` change together or not at all.

use tenantry_planner::steps::StepOutput;

use super::changes::planned;
use super::driver::{Performed, Wrong};
use super::work::Work;
use crate::files::{TransactionState, Transactions};

/// Commits files and `.env`.
pub async fn write(work: &Work) -> Result<Performed, Wrong> {
    let (request, id) = (work.request.clone(), work.id.clone());
    let (tenant, tree, host) = (work.tenant.clone(), work.tree()?, work.host.clone());
    let written = work
        .blocking(move || {
            let transactions = Transactions::new(&tree);
            match transactions.state(&id)? {
                TransactionState::Done => return Ok(0),
                // An agent that was killed had decided already.
                TransactionState::Committed => {
                    return transactions.commit(&id).map(|()| 0).map_err(Wrong::from);
                }
                _ => {}
            }
            let changes = planned(&request, &id, &tree, &tenant, &host.store)?;
            transactions.stage(&id, &changes.set, &request.manifest.protect)?;
            transactions.commit(&id)?;
            Ok(changes.set.changes.len())
        })
        .await?;
    Ok(match written {
        0 => Performed::quietly(),
        1 => Performed::saying("1 file was written"),
        count => Performed::saying(format!("{count} files were written together")),
    })
}

/// Puts files and `.env` back as they were.
pub async fn restore(work: &Work) -> Result<Performed, Wrong> {
    work.forget_staged();
    let (id, tree) = (work.id.clone(), work.tree()?);
    let touched = work
        .blocking(move || {
            let transactions = Transactions::new(&tree);
            match transactions.state(&id)? {
                TransactionState::None => Ok(false),
                TransactionState::Prepared => Ok(transactions.recover(&id).map(|_| false)?),
                TransactionState::Restored => Ok(true),
                TransactionState::Committed | TransactionState::Done | TransactionState::Restoring => {
                    Ok(transactions.restore(&id).map(|()| true)?)
                }
            }
        })
        .await?;
    Ok(Performed { did: StepOutput::Restored { touched }, message: None })
}
