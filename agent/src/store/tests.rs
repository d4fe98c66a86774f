//! The agent's own records.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use serde::Deserialize;
use tenantry_api::names::{Directory, OperationId, ProjectName, RelativePath};
use tenantry_protocol::{ClaimState, OperationPhase, Place, TenantRef};

use super::*;
use crate::files::tests::model::{Disk, Killed, Recorder, chances};
use crate::files::tests::scratch;
use crate::files::{Effect, Hook, sha256};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Record {
    Begun { step: u32 },
    Done { step: u32, note: String },
}

fn uid(text: &str) -> TenantUid {
    TenantUid::parse(text).unwrap()
}

fn id(text: &str) -> OperationId {
    OperationId::parse(text).unwrap()
}

fn place(project: &str, directory: &str) -> Place {
    Place {
        project: ProjectName::parse(project).unwrap(),
        directory: Directory::parse(directory).unwrap(),
        compose: None,
    }
}

fn wanted(owner: &str, project: &str, directory: &str, epoch: u64, operation: &str) -> ClaimWanted {
    ClaimWanted {
        tenant: TenantRef { uid: uid(owner), namespace: "fleet".to_owned(), name: format!("t-{owner}") },
        operator: "main".to_owned(),
        place: place(project, directory),
        epoch,
        operation: Some(id(operation)),
        take_over: false,
    }
}

fn opened(directory: &Path) -> Store {
    Store::open(directory, DiskIo::default()).unwrap()
}

#[test]
fn p3_a_baseline_that_was_kept_before_there_were_other_probes_than_http_is_read() {
    let kept = r#"{"targetHash":"sha256:1","files":{},"images":[],"restorePoint":null,
        "release":{"imageTag":"v1","filesHash":""},
        "terms":{"jobs":["migrate"],"onChange":[],"verify":{"timeoutMs":120000,"stableForMs":15000,
            "http":[{"url":"http://127.0.0.1:4000/api/health","status":200,"contains":"ok"}]}}}"#;
    let baseline: Baseline = serde_json::from_str(kept).unwrap();
    let terms = baseline.terms.clone().unwrap();
    assert!(matches!(&terms.verify.probes[..], [tenantry_protocol::Probe::Http(_)]), "{terms:?}");
    let (again, kept): (serde_json::Value, serde_json::Value) =
        (serde_json::to_value(&baseline).unwrap(), serde_json::from_str(kept).unwrap());
    assert_eq!(again, kept, "an agent of before reads what this one keeps of such a release");
}

#[test]
fn a_claim_outlives_the_agent() {
    let directory = scratch();
    let claim = opened(directory.path()).claim(&wanted("a1", "shop", "/srv/shop", 3, "op-1")).unwrap();
    let store = opened(directory.path());
    assert_eq!(store.claim_of(&uid("a1")), Some(claim));
    assert_eq!(store.claim_state(&uid("a1"), &place("shop", "/srv/shop")).unwrap(), ClaimState::Ours);
    assert_eq!(directory.path().metadata().unwrap().mode() & 0o7777, 0o700);
    assert_eq!(directory.path().join("tenants/a1/claim").metadata().unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn a_state_directory_may_be_reached_through_a_symlink_and_is_made() {
    let directory = scratch();
    std::fs::create_dir(directory.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", directory.path().join("link")).unwrap();
    drop(opened(&directory.path().join("link/agent/state")));
    assert!(directory.path().join("real/agent/state/tenants").is_dir());
    std::os::unix::fs::symlink("nowhere", directory.path().join("dangling")).unwrap();
    let error = Store::open(&directory.path().join("dangling"), DiskIo::default()).unwrap_err();
    assert!(error.to_string().contains("dangling"), "{error}");
}

#[test]
fn p2_an_epoch_only_rises_and_is_taken_again_only_for_the_same_operation() {
    let directory = scratch();
    let store = opened(directory.path());
    let claim = |epoch, operation| store.claim(&wanted("a1", "shop", "/srv/shop", epoch, operation));
    claim(5, "op-1").unwrap();
    claim(5, "op-1").unwrap();
    for (epoch, operation) in [(4, "op-1"), (4, "op-2"), (5, "op-2")] {
        let error = claim(epoch, operation).unwrap_err();
        assert!(matches!(error, ClaimError::Stale { seen: 5, .. }), "{epoch} {operation}: {error}");
    }
    let other_operator =
        ClaimWanted { operator: "other".to_owned(), ..wanted("a1", "shop", "/srv/shop", 5, "op-1") };
    assert!(matches!(store.claim(&other_operator), Err(ClaimError::Stale { .. })));
    claim(6, "op-2").unwrap();
    assert!(matches!(claim(5, "op-1"), Err(ClaimError::Stale { seen: 6, .. })));
    // Also by an agent that was started anew, and after the claim was given back.
    drop(store);
    let store = opened(directory.path());
    assert!(store.claim(&wanted("a1", "shop", "/srv/shop", 5, "op-9")).is_err());
}

#[test]
fn p5_a_tenant_that_gave_its_claim_back_is_gone_also_for_a_request_that_comes_late() {
    let directory = scratch();
    let store = opened(directory.path());
    store.claim(&wanted("a1", "shop", "/srv/shop", 6, "op-2")).unwrap();
    // One that held something, and one whose first request has not come yet.
    store.release(&uid("a1")).unwrap();
    store.release(&uid("b2")).unwrap();
    let late = |store: &Store| {
        for owner in ["a1", "b2"] {
            let error = store.claim(&wanted(owner, "shop", "/srv/shop", 7, "op-3")).unwrap_err();
            assert!(matches!(error, ClaimError::Deleted { .. }), "{error}");
        }
    };
    late(&store);
    drop(store);
    let store = opened(directory.path());
    late(&store);
    store.claim(&wanted("c3", "shop", "/srv/shop", 1, "op-1")).unwrap();
}

#[test]
fn p2_a_claim_is_taken_over_only_where_that_is_asked_for_and_its_owner_is_fenced_off() {
    let directory = scratch();
    let store = opened(directory.path());
    store.claim(&wanted("a1", "shop", "/srv/shop", 7, "op-1")).unwrap();
    store.claim(&wanted("b2", "blog", "/srv/blog", 2, "op-1")).unwrap();
    // One holds the project, another the directory: both are taken.
    let asked = || wanted("c3", "shop", "/srv/blog", 1, "op-1");
    assert!(matches!(store.claim(&asked()), Err(ClaimError::Held { .. })));
    store.claim(&ClaimWanted { take_over: true, ..asked() }).unwrap();
    drop(store);
    let store = opened(directory.path());
    assert_eq!(store.claim_state(&uid("c3"), &place("shop", "/srv/blog")).unwrap(), ClaimState::Ours);
    for (owner, project, at) in [("a1", "shop", "/srv/shop"), ("b2", "blog", "/srv/blog")] {
        assert!(matches!(store.claim(&wanted(owner, project, at, 9, "op-2")), Err(ClaimError::Held { .. })));
    }
    // Its own epoch holds for a take-over, too.
    let stale = ClaimWanted { epoch: 0, take_over: true, ..asked() };
    assert!(matches!(store.claim(&stale), Err(ClaimError::Stale { .. })));
    // And the owner that was displaced may take it back, under a higher epoch.
    let back = ClaimWanted { take_over: true, ..wanted("a1", "shop", "/srv/shop", 8, "op-3") };
    store.claim(&back).unwrap();
    assert_eq!(store.claim_of(&uid("a1")).map(|claim| (claim.epoch, claim.released)), Some((8, false)));
}

#[test]
fn one_owner_for_each_directory_and_each_project() {
    let directory = scratch();
    let store = opened(directory.path());
    store.claim(&wanted("a1", "shop", "/srv/shop", 1, "op-1")).unwrap();
    let cases = [
        ("shop", "/srv/shop", "directory and project"),
        ("shop", "/srv/elsewhere", "project"),
        ("blog", "/srv/shop", "directory"),
        ("blog", "/srv/shop/inner", "directory"),
        ("blog", "/srv", "directory"),
    ];
    for (project, at, what) in cases {
        let error = store.claim(&wanted("b2", project, at, 9, "op-1")).unwrap_err();
        assert!(matches!(&error, ClaimError::Held { holds, .. } if holds == what), "{project} {at}: {error}");
        assert!(error.to_string().contains("fleet/t-a1"), "{error}");
        let state = store.claim_state(&uid("b2"), &place(project, at)).unwrap();
        assert!(matches!(state, ClaimState::Other { holds, .. } if holds == what), "{project} {at}");
    }
    assert_eq!(store.claim_state(&uid("b2"), &place("blog", "/srv/shop2")).unwrap(), ClaimState::Free);
    store.claim(&wanted("b2", "blog", "/srv/shop2", 1, "op-1")).unwrap();
    let error = store.claim(&wanted("b2", "blog2", "/srv/shop3", 2, "op-2")).unwrap_err();
    assert!(matches!(error, ClaimError::Moved { .. }), "{error}");
}

#[test]
fn another_uid_takes_over_only_what_was_given_back() {
    let directory = scratch();
    let store = opened(directory.path());
    store.claim(&wanted("a1", "shop", "/srv/shop", 7, "op-1")).unwrap();
    assert!(store.claim(&wanted("b2", "shop", "/srv/shop", 8, "op-2")).is_err());
    store.release(&uid("a1")).unwrap();
    store.release(&uid("a1")).unwrap();
    store.release(&uid("c3")).unwrap();
    store.claim(&wanted("b2", "shop", "/srv/shop", 1, "op-2")).unwrap();
    assert!(store.claim(&wanted("a1", "shop", "/srv/shop", 9, "op-3")).is_err());
    assert_eq!(store.all_claims().len(), 2);
}

#[test]
fn p3_whoever_only_reads_a_journal_does_not_cut_off_what_another_is_writing() {
    let directory = scratch();
    let store = opened(directory.path());
    let (owner, operation) = (uid("a1"), id("op-1"));
    let mut journal = store.begin::<Record>(&owner, &operation, b"asked").unwrap();
    journal.append(&Record::Begun { step: 1 }).unwrap();
    let path = directory.path().join("tenants/a1/journal/op-1");
    let whole = std::fs::read(&path).unwrap();
    journal.append(&Record::Done { step: 1, note: "it took long".to_owned() }).unwrap();
    let both = std::fs::read(&path).unwrap();
    // As it is seen in the middle of the second write.
    let half = &both[..usize::midpoint(whole.len(), both.len())];
    std::fs::write(&path, half).unwrap();
    let (mut journal, records) = store.open_journal::<Record>(&owner, &operation).unwrap().unwrap();
    assert_eq!(records, [Record::Begun { step: 1 }]);
    assert_eq!(std::fs::read(&path).unwrap(), half);
    // Whoever goes on, because the writer is gone, does so after what is whole.
    journal.append(&Record::Begun { step: 2 }).unwrap();
    let (_, records) = store.open_journal::<Record>(&owner, &operation).unwrap().unwrap();
    assert_eq!(records, [Record::Begun { step: 1 }, Record::Begun { step: 2 }]);
}

#[test]
fn a_second_agent_and_a_second_mutator_are_kept_out() {
    let directory = scratch();
    let store = opened(directory.path());
    let error = Store::open(directory.path(), DiskIo::default()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    let held = store.lock(&uid("a1")).unwrap();
    assert!(matches!(store.lock(&uid("a1")), Err(StoreError::Busy { .. })));
    store.lock(&uid("b2")).unwrap();
    drop(held);
    store.lock(&uid("a1")).unwrap();
    drop(store);
    opened(directory.path());
}

#[test]
fn baseline_and_starts_are_kept() {
    let directory = scratch();
    let store = opened(directory.path());
    assert_eq!(store.baseline(&uid("a1")).unwrap(), Baseline::default());
    let at = RelativePath::parse("docker-compose.yml").unwrap();
    let written = Written { sha256: sha256(b"x"), mode: 0o644 };
    let baseline = Baseline {
        target_hash: Some("t".to_owned()),
        files: [(at.clone(), written)].into(),
        images: Vec::new(),
        restore_point: Some(id("op-1")),
        ..Baseline::default()
    };
    store.save_baseline(&uid("a1"), &baseline).unwrap();
    store.save_baseline(&uid("a1"), &baseline).unwrap();
    let start = Start {
        started_at: "2026-11-21T10:00:00.1Z".to_owned(),
        files: [(at, sha256(b"x"))].into(),
        mounted: None,
        copied: None,
    };
    let starts = Starts { containers: [("c0ffee".to_owned(), start)].into() };
    store.save_starts(&uid("a1"), &starts).unwrap();
    drop(store);
    let store = opened(directory.path());
    assert_eq!(store.baseline(&uid("a1")).unwrap(), baseline);
    assert_eq!(store.starts(&uid("a1")).unwrap(), starts);
    assert_eq!(store.baseline(&uid("b2")).unwrap(), Baseline::default());
    assert!(store.compose_log(&uid("b2")).unwrap().parent().unwrap().is_dir());
}

#[test]
fn a_damaged_claim_fails_closed_for_its_tenant_and_for_new_places_only() {
    let directory = scratch();
    let store = opened(directory.path());
    store.claim(&wanted("a1", "shop", "/srv/shop", 3, "op-1")).unwrap();
    store.claim(&wanted("b2", "blog", "/srv/blog", 3, "op-1")).unwrap();
    drop(store);
    let at = directory.path().join("tenants/a1/claim");
    let text = std::fs::read_to_string(&at).unwrap();
    let other = std::fs::read_to_string(directory.path().join("tenants/b2/claim")).unwrap();
    let flipped = text.replace("\"epoch\":3", "\"epoch\":2");
    for bad in [flipped, text[..text.len() - 5].to_owned(), String::new(), other] {
        std::fs::write(&at, bad).unwrap();
        let store = opened(directory.path());
        let shop = || wanted("a1", "shop", "/srv/shop", 4, "op-2");
        for refused in [shop(), wanted("c3", "wiki", "/srv/wiki", 1, "op-1")] {
            let error = store.claim(&refused).unwrap_err();
            assert!(
                matches!(error, ClaimError::Store(StoreError::Damaged { .. } | StoreError::Doubtful { .. })),
                "{error}"
            );
            assert!(error.to_string().contains("tenants/a1/claim"), "{error}");
            let state = store.claim_state(&refused.tenant.uid, &refused.place);
            assert!(matches!(state, Err(StoreError::Damaged { .. } | StoreError::Doubtful { .. })));
        }
        assert!(store.release(&uid("a1")).is_err());
        store.claim(&wanted("b2", "blog", "/srv/blog", 3, "op-1")).unwrap();
        let state = store.claim_state(&uid("b2"), &place("blog", "/srv/blog")).unwrap();
        assert_eq!(state, ClaimState::Ours);
    }
    std::fs::write(&at, &text).unwrap();
    opened(directory.path()).claim(&wanted("a1", "shop", "/srv/shop", 4, "op-2")).unwrap();
    let baseline = directory.path().join("tenants/a1/baseline");
    std::fs::write(&baseline, "{}").unwrap();
    let error = opened(directory.path()).baseline(&uid("a1")).unwrap_err();
    assert!(error.to_string().contains("tenants/a1/baseline"), "{error}");
}

/// All effects from the n-th on fail.
struct CrashAt(usize, AtomicUsize);

impl Hook for CrashAt {
    fn before(&self, _: &Path, _: Effect<'_>) -> io::Result<()> {
        if self.1.fetch_add(1, Ordering::SeqCst) >= self.0 {
            Err(io::Error::other("crashed"))
        } else {
            Ok(())
        }
    }
}

#[test]
fn p3_a_crash_at_any_effect_of_a_save_leaves_the_old_record_or_the_new_one() {
    let mut outcomes = [0, 0];
    for at in 0.. {
        let directory = scratch();
        opened(directory.path()).claim(&wanted("a1", "shop", "/srv/shop", 1, "op-1")).unwrap();
        let hook = Arc::new(CrashAt(at, AtomicUsize::new(0)));
        let result =
            Store::open(directory.path(), DiskIo::with(hook)).map_err(ClaimError::from).and_then(|store| {
                let result = store.claim(&wanted("a1", "shop", "/srv/shop", 2, "op-2"));
                let told = store.claim_of(&uid("a1")).map(|claim| claim.epoch);
                assert_eq!(told, Some(if result.is_ok() { 2 } else { 1 }), "what is told must be durable");
                result
            });
        let epoch = opened(directory.path()).claim_of(&uid("a1")).unwrap().epoch;
        outcomes[usize::from(epoch == 2)] += 1;
        assert!(epoch == 1 || epoch == 2);
        if result.is_ok() {
            assert_eq!(epoch, 2);
            break;
        }
    }
    assert!(outcomes[0] > 3 && outcomes[1] > 1, "{outcomes:?}");
}

/// What can't be read of a tenant's records.
fn damage(store: &Store, name: &str) -> Option<StoreError> {
    match store.check::<Record>(&uid(name)) {
        Ok(_) => None,
        Err(damage @ StoreError::Damaged { .. }) => Some(damage),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn p16_what_cannot_be_read_is_named_and_put_aside_and_nothing_is_deleted() {
    let directory = scratch();
    let at = |name: &str| directory.path().join("tenants/a1").join(name);
    let store = opened(directory.path());
    store.claim(&wanted("a1", "shop", "/srv/shop", 3, "op-2")).unwrap();
    store.save_baseline(&uid("a1"), &Baseline::default()).unwrap();
    store.save_starts(&uid("a1"), &Starts::default()).unwrap();
    for operation in ["op-1", "op-2"] {
        store.begin(&uid("a1"), &id(operation), b"request").unwrap().append(&record(1)).unwrap();
    }
    drop(store);
    let asked = ClaimWanted { operation: None, ..wanted("a1", "shop", "/srv/shop", 4, "op-3") };
    for round in 1..=2 {
        for bad in ["baseline", "starts", "journal/op-1", "journal/op-2", "claim"] {
            let store = opened(directory.path());
            assert!(damage(&store, "a1").is_none(), "{bad}");
            drop(store);
            let good = std::fs::read(at(bad)).unwrap();
            std::fs::write(at(bad), b"17 0123456789abcdef damaged\n").unwrap();
            let store = opened(directory.path());
            let found = damage(&store, "a1").expect("damage is seen");
            assert!(found.to_string().contains(at(bad).to_str().unwrap()), "{found}");
            assert!(damage(&store, "b2").is_none(), "another tenant is not affected");
            store.quarantine::<Record>(&uid("a1")).unwrap();
            store.accept_claim(&asked).unwrap();
            assert!(damage(&store, "a1").is_none(), "{bad}");
            let kept = at("aside").join(format!("{}-{round}", bad.replace('/', "-")));
            assert_eq!(std::fs::read(&kept).unwrap(), b"17 0123456789abcdef damaged\n");
            assert!(round == 2 || kept.metadata().unwrap().mode() & 0o7777 == 0o600);
            drop(store);
            assert!(damage(&opened(directory.path()), "a1").is_none());
            std::fs::write(at(bad), good).unwrap();
        }
    }
}

#[test]
fn p2_accepting_a_host_is_fenced_as_everything_is() {
    let directory = scratch();
    let store = opened(directory.path());
    store.claim(&wanted("a1", "shop", "/srv/shop", 3, "op-1")).unwrap();
    let asked = |owner: &str, epoch| ClaimWanted {
        operation: None,
        ..wanted(owner, "shop", "/srv/shop", epoch, "op-2")
    };
    assert!(matches!(store.accept_claim(&asked("a1", 3)), Err(ClaimError::Stale { .. })));
    assert!(matches!(store.accept_claim(&asked("b2", 9)), Err(ClaimError::Held { .. })));
    store.accept_claim(&asked("a1", 4)).unwrap();
    store.accept_claim(&asked("a1", 4)).unwrap();
    assert!(store.claim(&wanted("a1", "shop", "/srv/shop", 4, "op-1")).is_err());
}

fn record(step: u32) -> Record {
    if step.is_multiple_of(2) {
        Record::Begun { step }
    } else {
        Record::Done { step, note: "ü\n\"".to_owned() }
    }
}

fn written(directory: &Path, records: u32) -> PathBuf {
    let store = opened(directory);
    let mut journal = store.begin(&uid("a1"), &id("op-1"), b"request").unwrap();
    for step in 0..records {
        journal.append(&record(step)).unwrap();
    }
    directory.join("tenants/a1/journal/op-1")
}

fn read_back(directory: &Path) -> Result<Option<Vec<Record>>, StoreError> {
    let store = opened(directory);
    Ok(store.open_journal::<Record>(&uid("a1"), &id("op-1"))?.map(|(_, records)| records))
}

#[test]
fn a_journal_is_read_back_and_goes_on() {
    let directory = scratch();
    written(directory.path(), 5);
    let store = opened(directory.path());
    let (mut journal, records) = store.open_journal::<Record>(&uid("a1"), &id("op-1")).unwrap().unwrap();
    assert_eq!(records, (0..5).map(record).collect::<Vec<_>>());
    assert_eq!((journal.operation(), journal.request_sha256()), (&id("op-1"), &sha256(b"request")));
    journal.append(&record(5)).unwrap();
    drop((journal, store));
    assert_eq!(read_back(directory.path()).unwrap().unwrap().len(), 6);
    let store = opened(directory.path());
    assert!(store.open_journal::<Record>(&uid("a1"), &id("op-2")).unwrap().is_none());
    let again = store.begin::<Record>(&uid("a1"), &id("op-1"), b"other");
    assert!(matches!(again, Err(StoreError::Exists { .. })));
    assert_eq!(store.request(&uid("a1"), &id("op-1")).unwrap().unwrap(), b"request");
}

#[test]
fn p3_a_journal_cut_anywhere_in_its_last_record_loses_only_that() {
    let directory = scratch();
    let at = written(directory.path(), 3);
    let whole = std::fs::read(&at).unwrap();
    let ends: Vec<usize> =
        whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    for length in 0..=whole.len() {
        std::fs::write(&at, &whole[..length]).unwrap();
        let lines = ends.iter().filter(|end| **end <= length).count();
        let records = read_back(directory.path()).unwrap_or_else(|error| panic!("cut at {length}: {error}"));
        assert_eq!(records.map(|records| records.len() + 1).unwrap_or_default(), lines, "cut at {length}");
        // What is appended next is read back with what was there.
        let store = opened(directory.path());
        if let Some((mut journal, records)) = store.open_journal::<Record>(&uid("a1"), &id("op-1")).unwrap() {
            journal.append(&record(7)).unwrap();
            drop((journal, store));
            assert_eq!(
                read_back(directory.path()).unwrap().unwrap().len(),
                records.len() + 1,
                "cut at {length}"
            );
        }
    }
}

#[test]
fn an_operation_whose_first_line_was_cut_was_never_begun() {
    let directory = scratch();
    let at = written(directory.path(), 0);
    let whole = std::fs::read(&at).unwrap();
    std::fs::write(&at, &whole[..whole.len() - 1]).unwrap();
    let store = opened(directory.path());
    assert_eq!(store.operations(&uid("a1")).unwrap(), []);
    store.begin::<Record>(&uid("a1"), &id("op-1"), b"again").unwrap();
    assert_eq!(store.operations(&uid("a1")).unwrap(), [id("op-1")]);
}

#[test]
fn p3_a_journal_with_any_flipped_bit_fails_closed() {
    let directory = scratch();
    let at = written(directory.path(), 3);
    let whole = std::fs::read(&at).unwrap();
    for position in 0..whole.len() {
        for bit in [0, 3, 7] {
            let mut bytes = whole.clone();
            bytes[position] ^= 1 << bit;
            std::fs::write(&at, &bytes).unwrap();
            match read_back(directory.path()) {
                Err(StoreError::Damaged { path, .. }) => assert_eq!(path, at),
                other => panic!("byte {position}, bit {bit}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_journal_that_lost_doubled_or_moved_a_line_fails_closed() {
    let directory = scratch();
    let at = written(directory.path(), 4);
    let text = std::fs::read_to_string(&at).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let lost = [lines[0], lines[1], lines[3], lines[4]].concat();
    let doubled = [lines[0], lines[1], lines[1], lines[2]].concat();
    let moved = [lines[0], lines[2], lines[1], lines[3]].concat();
    for bad in [lost, doubled, moved] {
        std::fs::write(&at, bad).unwrap();
        assert!(matches!(read_back(directory.path()), Err(StoreError::Damaged { .. })));
    }
    // Another operation's journal under this one's name.
    std::fs::rename(&at, at.with_file_name("op-2")).unwrap();
    std::fs::write(at.with_file_name("op-2"), &text).unwrap();
    let store = opened(directory.path());
    assert!(matches!(store.open_journal::<Record>(&uid("a1"), &id("op-2")), Err(StoreError::Damaged { .. })));
}

#[test]
fn after_a_failed_append_a_journal_takes_nothing_more() {
    struct Full(AtomicUsize);
    impl Hook for Full {
        fn before(&self, path: &Path, effect: Effect<'_>) -> io::Result<()> {
            let sync = path.ends_with("journal/op-1") && effect == Effect::SyncFile;
            // The first line's is the first, the first record's the second.
            if sync && self.0.fetch_add(1, Ordering::SeqCst) == 1 {
                Err(io::Error::from_raw_os_error(28))
            } else {
                Ok(())
            }
        }
    }
    let directory = scratch();
    let store = Store::open(directory.path(), DiskIo::with(Arc::new(Full(AtomicUsize::new(0))))).unwrap();
    let mut journal = store.begin(&uid("a1"), &id("op-1"), b"request").unwrap();
    let error = journal.append(&record(0)).unwrap_err();
    assert!(
        matches!(&error, StoreError::Files(error) if error.category() == tenantry_protocol::FailureCategory::DiskFull),
        "{error}"
    );
    assert!(matches!(journal.append(&record(1)), Err(StoreError::Broken { .. })));
}

#[test]
fn p12_a_request_is_kept_beside_the_journal_only_while_it_is_needed() {
    let directory = scratch();
    let store = opened(directory.path());
    let request = b"TOKEN=canary-91aa";
    store.begin::<Record>(&uid("a1"), &id("op-1"), request).unwrap();
    let journal = std::fs::read_to_string(directory.path().join("tenants/a1/journal/op-1")).unwrap();
    assert!(!journal.contains("canary"), "{journal}");
    let kept = directory.path().join("tenants/a1/requests/op-1");
    assert_eq!(kept.metadata().unwrap().mode() & 0o7777, 0o600);
    std::fs::write(&kept, "TOKEN=other").unwrap();
    assert!(matches!(store.request(&uid("a1"), &id("op-1")), Err(StoreError::Damaged { .. })));
    store.forget_request(&uid("a1"), &id("op-1")).unwrap();
    assert!(!kept.exists());
    assert_eq!(store.request(&uid("a1"), &id("op-1")).unwrap(), None);
}

#[test]
fn operations_are_listed_in_order_and_the_youngest_ten_are_kept() {
    let directory = scratch();
    let store = opened(directory.path());
    let ids: Vec<OperationId> = (0..14).map(|n| id(&format!("op-{}", (n * 5) % 14))).collect();
    for operation in &ids {
        store.begin::<Record>(&uid("a1"), operation, b"request").unwrap();
    }
    assert_eq!(store.operations(&uid("a1")).unwrap(), ids);
    store.prune_operations(&uid("a1"), &ids[1..2]).unwrap();
    let mut left = ids[4..].to_vec();
    left.insert(0, ids[1].clone());
    assert_eq!(store.operations(&uid("a1")).unwrap(), left);
    assert_eq!(store.request(&uid("a1"), &ids[0]).unwrap(), None);
    assert_eq!(store.tenants().unwrap(), [uid("a1")]);
}

#[test]
fn looking_at_a_tenant_makes_nothing() {
    let directory = scratch();
    let store = opened(directory.path());
    store.baseline(&uid("a1")).unwrap();
    store.starts(&uid("a1")).unwrap();
    assert!(damage(&store, "a1").is_none());
    store.forget_request(&uid("a1"), &id("op-1")).unwrap();
    assert_eq!(store.operations(&uid("a1")).unwrap(), []);
    assert_eq!(store.request(&uid("a1"), &id("op-1")).unwrap(), None);
    assert!(store.open_journal::<Record>(&uid("a1"), &id("op-1")).unwrap().is_none());
    assert_eq!(store.tenants().unwrap(), []);
}

/// What a caller was told to be durable.
#[derive(Clone, Copy, Debug, Default)]
struct Promised {
    effects: usize,
    epoch: u64,
    begun: bool,
    records: u32,
    baseline: bool,
}

/// A claim, a journal and a baseline, with what was promised after each call.
fn work(directory: &Path, recorder: &Arc<Recorder>) -> Vec<Promised> {
    let store = Store::open(directory, DiskIo::with(recorder.clone())).unwrap();
    let mut now = Promised::default();
    let mut all = vec![now];
    let mut tell = |now: &mut Promised| {
        now.effects = recorder.len();
        all.push(*now);
    };
    for epoch in [1, 2] {
        store.claim(&wanted("a1", "shop", "/srv/shop", epoch, "op-1")).unwrap();
        now.epoch = epoch;
        tell(&mut now);
    }
    let mut journal = store.begin(&uid("a1"), &id("op-1"), b"request").unwrap();
    now.begun = true;
    tell(&mut now);
    for step in 0..3 {
        journal.append(&record(step)).unwrap();
        now.records = step + 1;
        tell(&mut now);
    }
    let baseline = Baseline { target_hash: Some("t".to_owned()), ..Baseline::default() };
    store.save_baseline(&uid("a1"), &baseline).unwrap();
    now.baseline = true;
    tell(&mut now);
    all
}

#[test]
fn p2_p3_what_was_promised_is_there_after_a_power_cut_at_any_effect() {
    let directory = scratch();
    let disk = Disk::of(directory.path());
    let recorder = Arc::new(Recorder::default());
    let told = work(directory.path(), &recorder);
    assert!(recorder.len() > 30, "only {} effects", recorder.len());
    for effects in 0..=recorder.len() {
        let promised = told.iter().rfind(|promised| promised.effects <= effects).unwrap();
        for seed in 0..8 {
            let mut disk = disk.clone();
            disk.replay(&recorder, effects);
            let left = disk.after_power_cut(chances(seed));
            let at = format!(
                "power cut before {} (effect {effects}), seed {seed}: {promised:?}",
                recorder.name(effects)
            );
            let store = opened(left.path());
            let epoch = store.claim_of(&uid("a1")).map_or(0, |claim| claim.epoch);
            assert!(epoch >= promised.epoch && epoch <= 2, "{at}: epoch {epoch}");
            let read = store
                .open_journal::<Record>(&uid("a1"), &id("op-1"))
                .unwrap_or_else(|error| panic!("{at}: {error}"));
            assert!(read.is_some() || !promised.begun, "{at}: no journal");
            if let Some((mut journal, records)) = read {
                assert!(records.len() >= promised.records as usize, "{at}: {} records", records.len());
                let written: Vec<Record> = (0..3).map(record).collect();
                assert_eq!(records, written[..records.len()], "{at}");
                journal.append(&record(9)).unwrap();
                assert_eq!(store.request(&uid("a1"), &id("op-1")).unwrap().unwrap(), b"request", "{at}");
            }
            let baseline = store.baseline(&uid("a1")).unwrap();
            assert!(baseline.target_hash.is_some() || !promised.baseline, "{at}: no baseline");
        }
    }
}

#[test]
fn p2_a_claim_that_an_agent_goes_by_is_there_after_a_power_cut_whoever_wrote_it() {
    let mut gone_by = [0, 0];
    for at in 0.. {
        let directory = scratch();
        opened(directory.path()).claim(&wanted("a1", "shop", "/srv/shop", 1, "op-1")).unwrap();
        let before = Disk::of(directory.path());
        let recorder = Arc::new(Recorder::default());
        let hook = Arc::new(Killed(Arc::new(CrashAt(at, AtomicUsize::new(0))), recorder.clone()));
        let claimed = Store::open(directory.path(), DiskIo::with(hook))
            .map_err(ClaimError::from)
            .and_then(|store| store.claim(&wanted("a1", "shop", "/srv/shop", 2, "op-2")));
        let next = Store::open(directory.path(), DiskIo::with(recorder.clone())).unwrap();
        let epoch = next.claim_of(&uid("a1")).unwrap().epoch;
        gone_by[usize::from(epoch == 2)] += 1;
        for seed in 0..8 {
            let mut disk = before.clone();
            disk.replay(&recorder, recorder.len());
            let left = disk.after_power_cut(chances(seed));
            let left = opened(left.path()).claim_of(&uid("a1")).unwrap().epoch;
            assert!(left >= epoch, "killed before effect {at}, seed {seed}: {left} after {epoch}");
        }
        if claimed.is_ok() {
            break;
        }
    }
    assert!(gone_by[0] > 3 && gone_by[1] > 1, "{gone_by:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_are_taken_apart_or_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(decoded) = journal::decode(&bytes) {
            prop_assert!(decoded.length <= bytes.len());
        }
    }

    #[test]
    fn bytes_that_look_like_lines_are_taken_apart_or_refused(text in "([0-9]{1,4} [0-9a-f]{14,18} [{}\"a-z]{0,12}\n?){0,3}") {
        let decoded = journal::decode(text.as_bytes());
        prop_assert!(decoded.is_err() || decoded.unwrap().lines.is_empty(), "nobody guesses a checksum");
    }

    #[test]
    fn what_was_written_is_read(lines in prop::collection::vec("[ -~]{1,40}", 0..6), cut in 0_usize..40) {
        let mut text = String::new();
        let mut sum = String::new();
        let mut ends = vec![0];
        for json in &lines {
            sum = journal::chained(&sum, json);
            text.extend([&json.len().to_string(), " ", &sum, " ", json, "\n"]);
            ends.push(text.len());
        }
        let length = text.len().saturating_sub(cut);
        let decoded = journal::decode(&text.as_bytes()[..length]).unwrap();
        let whole = ends.iter().filter(|end| **end <= length).count() - 1;
        prop_assert_eq!(&decoded.lines[..], &lines[..whole]);
        prop_assert_eq!(decoded.length, ends[whole]);
    }
}

/// Fails the first sync of the folder of journals, and says which effects on journals came after it.
#[derive(Default)]
struct UnsyncedFolder(parking_lot::Mutex<Vec<&'static str>>);

impl Hook for UnsyncedFolder {
    fn before(&self, path: &std::path::Path, effect: Effect<'_>) -> io::Result<()> {
        let mut seen = self.0.lock();
        let in_journals = path.parent().is_some_and(|folder| folder.ends_with(journal::JOURNAL));
        match effect {
            Effect::SyncFolder if path.ends_with(journal::JOURNAL) => {
                seen.push("folder synced");
                if seen.len() == 1 { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
            }
            Effect::Append(_) if in_journals && !seen.is_empty() => {
                seen.push("appended");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[test]
fn p3_a_journal_whose_folder_was_not_synced_is_in_it_durably_before_it_takes_a_record() {
    let directory = scratch();
    let hook = Arc::new(UnsyncedFolder::default());
    let store = Store::open(directory.path(), DiskIo::with(hook.clone())).unwrap();
    store.begin::<Record>(&uid("a1"), &id("op-1"), b"request").unwrap_err();
    let (mut journal, records) = store.open_journal::<Record>(&uid("a1"), &id("op-1")).unwrap().unwrap();
    assert_eq!(records, []);
    for step in 1..=2 {
        journal.append(&record(step)).unwrap();
    }
    assert_eq!(*hook.0.lock(), ["folder synced", "folder synced", "appended", "appended"]);
}

#[test]
fn last_words_are_kept_whole_for_each_phase_however_often_a_step_is_done() {
    let scratch = scratch();
    let store = opened(scratch.path());
    let (uid, operation) = (uid("1-a"), id("a-1"));
    let keep = |phase, text| store.keep_last_words(&uid, &operation, phase, text).unwrap();
    keep(OperationPhase::Start, "boom, and much more\n");
    keep(OperationPhase::Start, "boom\n");
    keep(OperationPhase::Rollback, "again\n");
    let folder = scratch.path().join("tenants/1-a/last-words/a-1");
    let kept = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    assert_eq!((kept("Start").as_str(), kept("Rollback").as_str()), ("boom\n", "again\n"));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
}
