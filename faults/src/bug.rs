//! The seeded bugs, each by its name.

macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident = $name:literal,)*) => {
        /// A bug that a test build has on demand, and the promise that it breaks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug {
            $($(#[$doc])* $bug,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug,)*];

            /// What `TENANTRY_MUTANT` is for it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => $name,)*
                }
            }
        }
    };
}

bugs! {
    /// A protected path is written like any other (P1).
    SkipProtectCheck = "skip-protect-check",
    /// Paths are resolved through symlinks (P1).
    FollowSymlinks = "follow-symlinks",
    /// A deposed operator's epoch is accepted (P2).
    IgnoreEpoch = "ignore-epoch",
    /// Two Tenants get the same directory (P2).
    TwoOwners = "two-owners",
    /// A compose child that outlived its agent goes on (P2).
    LeaveTheChild = "leave-the-child",
    /// A compose child does not hold its tenant's lock, so that nobody knows of it after its agent (P2).
    ChildWithoutLock = "child-without-lock",
    /// The next epoch is not above the host's (P2).
    EpochOfStatusAlone = "epoch-of-status-alone",
    /// A record counts before it is on disk (P3).
    JournalUnsynced = "journal-unsynced",
    /// A claim counts before it is on disk (P2).
    ClaimUnsynced = "claim-unsynced",
    /// A damaged journal is taken for a shorter one (P3).
    DropDamagedRecords = "drop-damaged-records",
    /// A release is begun on what is broken already, and blamed for it (P18).
    BlameForBefore = "blame-for-before",
    /// A target that failed is tried again and again (P4).
    RetryWhatFailed = "retry-what-failed",
    /// A target is blocked for a fault that passes by itself (P4).
    BlockOnPassingFault = "block-on-passing-fault",
    /// What a failed service said is told as it is (P12).
    TellEverything = "tell-everything",
    /// New content is renamed before it is on disk (P6).
    ContentUnsynced = "content-unsynced",
    /// Renames are never made durable (P6).
    FoldersUnsynced = "folders-unsynced",
    /// Files are renamed before the commit record (P6).
    RenameBeforeCommit = "rename-before-commit",
    /// A service goes on with the old file that it mounts by itself (P6).
    KeepTheOldInode = "keep-the-old-inode",
    /// Other lines of .env get other line endings (P7).
    TidyLineEndings = "tidy-line-endings",
    /// Services are changed before their images are local (P8).
    StopBeforePull = "stop-before-pull",
    /// What was kept is put back without a look at its hash (P9).
    RestoreUnverified = "restore-unverified",
    /// A restored file belongs to us (P9).
    ForgetOwner = "forget-owner",
    /// The restore point that a rollback needs is pruned (P9).
    PruneWhatIsNeeded = "prune-what-is-needed",
    /// A service that ended counts as healthy (P10).
    CrashedIsHealthy = "crashed-is-healthy",
    /// A service that crashes inside the window counts as stable (P10).
    IgnoreRestarts = "ignore-restarts",
    /// Healthy once is enough (P10).
    SkipStableWindow = "skip-stable-window",
    /// A service may run another image than planned (P10).
    AnyImageWillDo = "any-image-will-do",
    /// A service may run without the networks and ports that it is meant to have (P19).
    IgnoreAttachments = "ignore-attachments",
    /// A volume that is otherwise than the release says is gone on with (P19).
    KeepAnyVolume = "keep-any-volume",
    /// Containers made from another directory count as ours (P11).
    AnyDirectory = "any-directory",
    /// A service that another directory has taken over is taken back (P11).
    ReplaceTheirs = "replace-theirs",
    /// Services that left the release are removed blindly (P11).
    TakeOrphansAway = "take-orphans-away",
    /// Volumes go with the containers that used them (P11).
    RemoveVolumes = "remove-volumes",
    /// Services that are not named are recreated, too (P11).
    StartWithDependencies = "start-with-dependencies",
    /// What compose says can be read by anybody on the host (P12).
    LogForEverybody = "log-for-everybody",
    /// Any certificate of the authority may ask (P13).
    AnyOperator = "any-operator",
    /// What was changed after it was checked is started all the same (P13).
    CheckOnce = "check-once",
    /// Images come from anywhere (P13).
    AnyRegistry = "any-registry",
    /// A body may be of any size (P15).
    AnySize = "any-size",
    /// A file is told as it was last seen (P16).
    TrustTheLastLook = "trust-the-last-look",
    /// An image is set for all that share its place, whatever is wanted of the others (P7).
    SetEveryMention = "set-every-mention",
    /// An image is set without a look at what else that changes (P7).
    SetUnproven = "set-unproven",
    /// A target that reaches no image is deployed (P17).
    ReachAnything = "reach-anything",
    /// Who shares a namespace, or is to restart with a service, is left as it is when that one is started anew (P19).
    ForgetSharers = "forget-sharers",
    /// A service goes on with the inline configs and secrets that its containers were made with (P19).
    ForgetInlineConfigs = "forget-inline-configs",
    /// What was at rest for its data is started past compose, so that no hook of it runs (P19).
    StartPastCompose = "start-past-compose",
    /// A file that a person edited counts as ours (P16).
    OverwriteEdits = "overwrite-edits",
}
