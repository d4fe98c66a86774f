//! A wall clock that jumps: times in the journal may go backwards; nothing is decided by them.

mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use jiff::{SignedDuration, Timestamp};
    use tenantry_agent::operation::{Effects, Log, StepResult, drive};
    use tenantry_agent::planning::StepError;
    use tenantry_agent::store::StoreError;
    use tenantry_api::names::OperationId;
    use tenantry_planner::steps::{JournalState, Record, Step};
    use tenantry_protocol::FailureCategory;

    /// Performs everything but one step.
    struct World {
        fails: Option<Step>,
        performed: Mutex<Vec<Step>>,
    }

    impl Effects for World {
        async fn perform(&self, step: Step, _: &JournalState) -> Result<StepResult, StepError> {
            self.performed.lock().unwrap().push(step);
            if self.fails == Some(step) {
                return Err(StepError::new(FailureCategory::Crashed, "as told"));
            }
            Ok(StepResult::quietly())
        }
    }

    #[derive(Default)]
    struct Journal(Vec<Record>);

    impl Log for Journal {
        async fn append(&mut self, record: Record) -> Result<(), StoreError> {
            self.0.push(record);
            Ok(())
        }
    }

    fn steady() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    /// A day back, a year ahead, and back to where it began.
    fn jumping(at: usize) -> Timestamp {
        let hours = [0, -24, 24 * 365, -24 * 365, 1, 0][at % 6];
        steady().checked_add(SignedDuration::from_hours(hours)).unwrap()
    }

    async fn driven(fails: Option<Step>, now: impl Fn() -> Timestamp) -> (Vec<Step>, Journal, JournalState) {
        let world = World { fails, performed: Mutex::default() };
        let mut journal = Journal::default();
        let state = drive(&world, &mut journal, JournalState::default(), now, |_| ()).await.unwrap();
        (world.performed.into_inner().unwrap(), journal, state)
    }

    #[tokio::test]
    async fn p3_p15_a_wall_clock_that_jumps_changes_no_step_and_no_outcome() {
        for fails in [None, Some(Step::Preflight), Some(Step::Write), Some(Step::Start), Some(Step::Verify)] {
            let count = AtomicUsize::new(0);
            let (usual, _, end) = driven(fails, steady).await;
            let (steps, journal, jumped) =
                driven(fails, || jumping(count.fetch_add(1, Ordering::Relaxed))).await;
            assert!(count.into_inner() > 3, "the clock was asked");
            assert_eq!(steps, usual, "{fails:?}");
            assert_eq!(jumped.outcome(), end.outcome(), "{fails:?}");
            assert!(jumped.outcome().is_some());
            // Folded again, as after a restart at any moment, the numbers that operators wait for only rise.
            let id = OperationId::parse("op").unwrap();
            let mut state = JournalState::default();
            let mut seq = 0;
            for record in &journal.0 {
                state.take(record);
                let status = state.status(&id);
                assert!(status.seq > seq, "{status:?}");
                seq = status.seq;
                // Also where a phase ends before it began, its time can be told.
                let text = serde_json::to_string(&status).unwrap();
                assert!(serde_json::from_str::<tenantry_protocol::OperationStatus>(&text).is_ok());
            }
            assert_eq!(state.outcome(), end.outcome());
        }
    }
}
