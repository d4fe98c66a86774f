//! That the promises' checks can fail: each seeded bug breaks the promise that it should, within a few hundred seeds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use tenantry_faults::Bug;

/// Runs seeds with a bug switched on until it breaks the promise that it should, and gives all that broke.
fn broken_by(bug: Bug, promise: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_simulate"))
        .args(["--seeds", "600", "--until", promise])
        .env("TENANTRY_MUTANT", bug.name())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success(), "{bug:?}: every promise was kept\n{text}");
    text.lines().filter(|line| line.contains("is broken in")).collect::<Vec<_>>().join("\n")
}

macro_rules! kills {
    ($($test:ident: $bug:ident breaks $promise:literal;)*) => {
        $(#[test]
        fn $test() {
            let broken = broken_by(Bug::$bug, $promise);
            assert!(broken.contains(concat!($promise, " is broken in")), "broke something else:\n{broken}");
        })*
    };
}

kills! {
    p2_an_agent_that_ignores_epochs_is_found_out: IgnoreEpoch breaks "P2";
    p2_a_compose_that_outlives_its_agent_unnoticed_is_found_out: ChildWithoutLock breaks "P2";
    p4_a_failed_target_that_is_tried_again_is_found_out: RetryWhatFailed breaks "P4";
    p4_a_fault_that_passes_and_blocks_a_target_is_found_out: BlockOnPassingFault breaks "P4";
    p12_words_that_are_told_as_they_are_are_found_out: TellEverything breaks "P12";
    p6_renames_before_the_commit_record_are_found_out: RenameBeforeCommit breaks "P6";
    p8_a_stop_before_every_image_is_local_is_found_out: StopBeforePull breaks "P8";
    p10_a_window_that_is_not_waited_for_is_found_out: SkipStableWindow breaks "P10";
    p17_a_target_that_reaches_no_image_and_is_deployed_is_found_out: ReachAnything breaks "P17";
    p19_a_service_without_its_network_that_is_called_good_is_found_out: IgnoreAttachments breaks "P19";
    p19_sharers_that_are_left_behind_are_found_out: ForgetSharers breaks "P19";
    p19_inline_configs_that_are_left_as_they_were_are_found_out: ForgetInlineConfigs breaks "P19";
    p18_a_release_that_is_blamed_for_what_was_so_before_is_found_out: BlameForBefore breaks "P18";
    p19_a_service_that_is_started_past_compose_is_found_out: StartPastCompose breaks "P19";
    p10_a_crashed_service_that_is_called_healthy_is_found_out: CrashedIsHealthy breaks "P10";
}
