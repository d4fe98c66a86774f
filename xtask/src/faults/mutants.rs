//! Each seeded bug is switched on, and the test that is named for it must fail by an assertion. Without the bug it must
//! pass; a test that does not end does not count.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use tenantry_faults::Bug;
use test_images::Registry;

use crate::setup::Parts;
use crate::shell;

/// How long a test may take; one that takes longer was not killed by an assertion.
const LIMIT: Duration = Duration::from_mins(4);

/// What tests say that have waited in vain: that is no assertion about a promise.
const WAITED: [&str; 2] = ["the operation ends", "Elapsed("];

/// A seeded bug and the test that must see it.
struct Mutant {
    bug: Bug,
    promise: &'static str,
    breaks: &'static str,
    package: &'static str,
    target: &'static [&'static str],
    test: &'static str,
}

macro_rules! mutants {
    ($($bug:path, $promise:literal, $breaks:literal: $package:literal $target:expr, $test:literal;)*) => {
        &[$(Mutant { bug: $bug, promise: $promise, breaks: $breaks, package: $package, target: &$target, test: $test }),*]
    };
}

const LIB: [&str; 1] = ["--lib"];
const PROMISES: [&str; 2] = ["--test", "promises"];
const INTEGRATION: [&str; 2] = ["--test", "integration"];

const MUTANTS: &[Mutant] = mutants! {
    Bug::SkipProtectCheck, "P1", "a protected path is written like any other": "tenantry-agent" LIB, "files::tests::paths::p1_a_protected_path_is_refused_and_its_prefix_sibling_is_not";
    Bug::FollowSymlinks, "P1", "paths are resolved through symlinks": "tenantry-agent" LIB, "files::tests::paths::p1_a_folder_swapped_for_a_symlink_to_a_protected_one_leads_nowhere";
    Bug::IgnoreEpoch, "P2", "a deposed operator's epoch is accepted": "tenantry-agent" LIB, "store::tests::p2_an_epoch_only_rises_and_is_taken_again_only_for_the_same_operation";
    Bug::TwoOwners, "P2", "two Tenants get the same directory": "tenantry-agent" LIB, "store::tests::p2_a_claim_is_taken_over_only_where_that_is_asked_for_and_its_owner_is_fenced_off";
    Bug::LeaveTheChild, "P2", "a compose child that outlived its agent goes on": "tenantry-agent" LIB, "store::stray_processes::tests::p2_a_child_that_outlived_its_agent_is_ended_even_where_it_ignores_being_asked";
    Bug::ChildWithoutLock, "P2", "a compose child does not hold its tenant's lock": "tenantry-simulation" PROMISES, "p3_a_thousand_crashes_during_recovery_end_like_runs_without_any";
    Bug::EpochOfStatusAlone, "P2", "the next epoch is not above the host's": "tenantry-planner" LIB, "decide::tests::upgrade::p2_the_epoch_is_above_all_that_status_and_host_have_seen";
    Bug::JournalUnsynced, "P3", "a record counts before it is on disk": "tenantry-agent" LIB, "store::tests::p2_p3_what_was_promised_is_there_after_a_power_cut_at_any_effect";
    Bug::ClaimUnsynced, "P2", "a claim counts before it is on disk": "tenantry-agent" LIB, "store::tests::p2_p3_what_was_promised_is_there_after_a_power_cut_at_any_effect";
    Bug::DropDamagedRecords, "P3", "a damaged journal is taken for a shorter one": "tenantry-agent" LIB, "store::tests::p3_a_journal_with_any_flipped_bit_fails_closed";
    Bug::RetryWhatFailed, "P4", "a target that failed is tried again and again": "tenantry-planner" LIB, "decide::tests::in_flight::p4_a_target_that_failed_is_blocked_until_something_changes::case_2";
    Bug::BlockOnPassingFault, "P4", "a target is blocked for a fault that passes": "tenantry-planner" LIB, "decide::tests::passing::p4_p15_a_fault_that_passes_is_tried_again_less_and_less_often_for_an_hour";
    Bug::TellEverything, "P12", "what a failed service said is told as it is": "tenantry-planner" LIB, "redact::tests::p12_a_value_within_another_leaves_no_rest";
    Bug::ContentUnsynced, "P6", "new content is renamed before it is on disk": "tenantry-agent" LIB, "files::tests::power::p6_a_power_cut_after_any_effect_leaves_the_set_wholly_old_or_wholly_new";
    Bug::FoldersUnsynced, "P6", "renames are never made durable": "tenantry-agent" LIB, "files::tests::power::p6_once_committed_it_is_new_whatever_is_lost";
    Bug::RenameBeforeCommit, "P6", "files are renamed before the commit record": "tenantry-agent" LIB, "files::tests::crash::p6_after_a_crash_at_any_effect_the_set_is_wholly_old_or_wholly_new";
    Bug::KeepTheOldInode, "P6", "a service goes on with the old file that it mounts by itself": "tenantry-agent" INTEGRATION, "release::p6_a_changed_file_that_is_mounted_restarts_the_service_that_mounts_it";
    Bug::TidyLineEndings, "P7", "other lines of .env get other line endings": "tenantry-planner" LIB, "env::tests::p7_other_lines_keep_their_bytes_and_the_value_is_exact";
    Bug::SetEveryMention, "P7", "an image is set for all that share its place": "tenantry-planner" LIB, "images::choose::tests::p7_a_place_that_several_share_is_written_only_where_all_want_the_same_of_it";
    Bug::SetUnproven, "P7", "an image is set without a look at what else changes": "tenantry-planner" LIB, "images::choose::tests::p7_what_is_written_must_change_these_images_and_nothing_else";
    Bug::StopBeforePull, "P8", "services are changed before their images are local": "tenantry-planner" LIB, "steps::tests::p8_nothing_changes_before_it_may_and_no_outcome_claims_what_did_not_happen";
    Bug::RestoreUnverified, "P9", "what was kept is put back without a look at its hash": "tenantry-agent" LIB, "files::tests::transaction::p9_a_damaged_restore_point_is_not_restored";
    Bug::ForgetOwner, "P9", "a restored file belongs to us": "tenantry-agent" LIB, "files::tests::transaction::p9_a_restore_brings_back_content_mode_owner_and_absence";
    Bug::PruneWhatIsNeeded, "P9", "the restore point that a rollback needs is pruned": "tenantry-agent" LIB, "files::tests::transaction::p9_only_the_named_restore_points_stay";
    Bug::CrashedIsHealthy, "P10", "a service that ended counts as healthy": "tenantry-planner" LIB, "verify::tests::p10_a_bad_release::case_4_with_a_service_that_ended_fails_at_once";
    Bug::IgnoreRestarts, "P10", "a service that crashes inside the window counts as stable": "tenantry-planner" LIB, "verify::tests::p10_a_bad_release::case_2_that_crashes_inside_the_window_fails_at_once";
    Bug::SkipStableWindow, "P10", "healthy once is enough": "tenantry-planner" LIB, "verify::tests::p10_a_release::case_2_is_not_good_before";
    Bug::AnyImageWillDo, "P10", "a service may run another image than planned": "tenantry-planner" LIB, "compare::tests::p10_a_service::case_07_another_image_is_final";
    Bug::IgnoreAttachments, "P19", "a service may run without its networks and ports": "tenantry-planner" LIB, "compare::attachments::tests::p19_a_container::case_02_without_its_network";
    Bug::KeepAnyVolume, "P19", "a volume that differs is gone on with": "tenantry-planner" LIB, "compare::volumes::tests::p18_p19_a_release_is_refused_for_a_volume::case_1_that_the_release_changes";
    Bug::AnyDirectory, "P11", "containers made from another directory count as ours": "tenantry-agent" INTEGRATION, "contact::p11_containers_that_were_made_from_another_directory_are_never_touched";
    Bug::ReplaceTheirs, "P11", "a service that another directory has taken over is taken back": "tenantry-agent" INTEGRATION, "meddling::tests::p11_a_service_that_a_second_directory_takes_over_in_mid_operation_is_not_taken_back";
    Bug::TakeOrphansAway, "P11", "services that left the release are removed blindly": "tenantry-agent" INTEGRATION, "meddling::tests::p11_services_of_a_second_directory_are_left_alone_by_our_way_back";
    Bug::RemoveVolumes, "P11", "volumes go with the containers that used them": "tenantry-agent" INTEGRATION, "faults::p11_a_first_installation_that_fails_leaves_the_volumes_that_it_made";
    Bug::StartWithDependencies, "P11", "services that are not named are recreated, too": "tenantry-agent" INTEGRATION, "faults::p11_compose_is_told_to_touch_what_is_named_and_nothing_else";
    Bug::LogForEverybody, "P12", "what compose says can be read by anybody on the host": "tenantry-agent" LIB, "compose::log::tests::p12_p15_the_log_is_for_its_owner_only_and_bounded";
    Bug::AnyOperator, "P13", "any certificate of the authority may ask": "tenantry-agent" INTEGRATION, "tls::p13_every_other_certificate_is_refused_before_anything_is_asked";
    Bug::CheckOnce, "P13", "what was changed after it was checked is started all the same": "tenantry-agent" INTEGRATION, "changed_meanwhile::p13_what_was_changed_after_it_was_checked_is_checked_again_before_it_is_started";
    Bug::AnyRegistry, "P13", "images come from anywhere": "tenantry-agent" LIB, "config::tests::p13_only_listed_directories_and_registries_are_allowed";
    Bug::AnySize, "P15", "a body may be of any size": "tenantry-agent" INTEGRATION, "tls::p15_a_body_that_is_too_large_is_refused_whether_declared_or_not";
    Bug::TrustTheLastLook, "P16", "a file is told as it was last seen": "tenantry-agent" LIB, "files::tests::inspect::p16_an_edit_that_keeps_size_and_mtime_is_noticed";
    Bug::OverwriteEdits, "P16", "a file that a person edited counts as ours": "tenantry-agent" INTEGRATION, "release::p16_a_file_that_was_edited_by_hand_is_not_overwritten";
    Bug::ForgetSharers, "P19", "who shares a namespace is left in one that is gone": "tenantry-planner" LIB, "restarts::tests::p19_left_behind_is::case_2_sharers_whatever_compose_would_say";
    Bug::ForgetInlineConfigs, "P19", "inline configs stay as containers were made with them": "tenantry-planner" LIB, "remakes::tests::p19_a_container_of_before_that_holds_something_else_is_outdated_and_a_new_one_is_not";
    Bug::StartPastCompose, "P19", "what was at rest for its data is started past compose": "tenantry-simulation" PROMISES, "p2_cut_networks_and_one_history";
    Bug::ReachAnything, "P17", "a target that reaches no image is deployed": "tenantry-planner" LIB, "decide::tests::reach::p17_a_digest_beside_the_tag_is_named";
    Bug::BlameForBefore, "P18", "a release is begun on what is broken already": "tenantry-planner" LIB, "before::tests::p18_an_upgrade_is_not_begun_on::case_1_a_paused_service";
};

/// How a run of one test ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Passed,
    /// By an assertion, with the line that says so.
    Failed(String),
    /// It was ended by us.
    TooLong,
    /// There is no such test, or it could not be built.
    NotRun(String),
}

/// Runs every bug's test without and with it, and prints the table.
pub fn run(parts: &Parts, registry: &Registry, filter: &[String]) -> Result<()> {
    let asked =
        |mutant: &&Mutant| filter.is_empty() || filter.iter().any(|name| mutant.bug.name().contains(name));
    let chosen: Vec<&Mutant> = MUTANTS.iter().filter(asked).collect();
    ensure!(!chosen.is_empty(), "no seeded bug is called {}", filter.join(" or "));
    let mut controlled: BTreeSet<&str> = BTreeSet::new();
    let count = chosen.len();
    let (mut rows, mut survived) = (Vec::new(), Vec::new());
    println!("{:<24} {:<4} {:<58} seen by", "seeded bug", "", "what it breaks");
    for mutant in chosen {
        if controlled.insert(mutant.test) {
            let control = ended(mutant, parts, registry, false)?;
            if control != Ended::Passed {
                survived.push(format!(
                    "{}: {} without a seeded bug: {control:?}",
                    mutant.bug.name(),
                    mutant.test
                ));
                controlled.remove(mutant.test);
                continue;
            }
        }
        let found = ended(mutant, parts, registry, true)?;
        let killed = matches!(found, Ended::Failed(_));
        // From the segment that bears the promise's name on.
        let named = mutant.test.rfind("::p").map_or(mutant.test, |at| &mutant.test[at + 2..]);
        let word = if killed { named } else { "NOBODY" };
        println!("{:<24} {:<4} {:<58} {word}", mutant.bug.name(), mutant.promise, mutant.breaks);
        if !killed {
            survived.push(format!("{}: {} {found:?}", mutant.bug.name(), mutant.test));
        }
        let said = if let Ended::Failed(said) = found { said } else { String::new() };
        rows.push(json!({
            "bug": mutant.bug.name(), "promise": mutant.promise, "breaks": mutant.breaks, "test": mutant.test,
            "killed": killed, "said": said,
        }));
    }
    let report = shell::target().join("mutants.json");
    std::fs::write(&report, serde_json::to_vec_pretty(&rows)?)?;
    println!(
        "{} of {} seeded bugs were seen; what the tests said is in {}",
        rows.iter().filter(|row| row["killed"] == true).count(),
        count,
        report.display()
    );
    ensure!(survived.is_empty(), "seeded bugs that nobody saw:\n{}", survived.join("\n"));
    Ok(())
}

fn ended(mutant: &Mutant, parts: &Parts, registry: &Registry, with: bool) -> Result<Ended> {
    let arguments = [&["-p", mutant.package], mutant.target, &["--", "--exact", mutant.test]].concat();
    let mut command = super::test(parts, registry, &arguments);
    if with {
        command.env("TENANTRY_MUTANT", mutant.bug.name()).env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
    }
    let Some((success, said)) = within(&mut command, LIMIT)? else { return Ok(Ended::TooLong) };
    let asserted = said.lines().find(|line| line.contains("panicked at") || line.starts_with("Error: "));
    Ok(match asserted {
        _ if success && said.contains("1 passed") => Ended::Passed,
        Some(line) if said.contains("1 failed") => {
            let told = after(&said, line);
            if WAITED.iter().any(|word| told.contains(word)) { Ended::TooLong } else { Ended::Failed(told) }
        }
        _ => Ended::NotRun(said.lines().rev().take(5).collect::<Vec<_>>().join(" | ")),
    })
}

/// The line of a failed assertion and the one that says what was wrong.
fn after(said: &str, line: &str) -> String {
    let next = said.lines().skip_while(|one| *one != line).nth(1).unwrap_or_default();
    format!("{} {next}", line.trim())
}

/// Runs a command; `None` where it takes too long and is ended.
fn within(command: &mut Command, limit: Duration) -> Result<Option<(bool, String)>> {
    use std::os::unix::process::CommandExt as _;
    let folder = shell::target().join("faults-output");
    let output = std::fs::File::create(&folder)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()
        .context("cargo could not be run")?;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some((status.success(), std::fs::read_to_string(&folder)?)));
        }
        if Instant::now() > deadline {
            let group = format!("-{}", child.id());
            if !shell::works("kill", &["-KILL", "--", &group]) {
                bail!("a test that takes too long can't be ended");
            }
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seeded_bug_has_the_test_that_must_see_it() {
        let listed: BTreeSet<Bug> = MUTANTS.iter().map(|mutant| mutant.bug).collect();
        assert_eq!(listed, Bug::ALL.iter().copied().collect());
        assert_eq!(listed.len(), MUTANTS.len(), "one is listed twice");
    }
}
