//! Write, and its way back: files and `.env` change together or not at all.

use tenantry_planner::steps::{JournalState, StepOutput};

use crate::files::{TransactionState, Transactions};
use crate::operation::context::OperationContext;
use crate::operation::driver::StepResult;
use crate::operation::parts::planned::planned;
use crate::planning::StepError;
use crate::planning::file_changes::planned_changes;

/// Commits files and `.env`.
pub async fn write(operation: &OperationContext, state: &JournalState) -> Result<StepResult, StepError> {
    let plan = planned(state)?;
    let (request, id) = (operation.request.clone(), operation.id.clone());
    let (cache, tree, host) = (operation.cache.clone(), operation.tree()?, operation.host.clone());
    let written = operation
        .blocking(move || {
            let transactions = Transactions::new(&tree);
            match transactions.state(&id)? {
                TransactionState::Done => return Ok(0),
                // An agent that was killed had decided already.
                TransactionState::Committed => {
                    return transactions.commit(&id).map(|()| 0).map_err(StepError::from);
                }
                _ => {}
            }
            let changes = planned_changes(&request, &id, &tree, &cache, &host.store, &plan)?;
            transactions.stage(&id, &changes.set, &request.manifest.protect)?;
            transactions.commit(&id)?;
            Ok(changes.set.changes.len())
        })
        .await?;
    Ok(match written {
        0 => StepResult::quietly(),
        1 => StepResult::saying("1 file was written"),
        count => StepResult::saying(format!("{count} files were written together")),
    })
}

/// Puts files and `.env` back as they were.
pub async fn restore(operation: &OperationContext) -> Result<StepResult, StepError> {
    operation.forget_staged();
    let (id, tree) = (operation.id.clone(), operation.tree()?);
    let touched = operation
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
    Ok(StepResult { did: StepOutput::Restored { touched }, message: None })
}
