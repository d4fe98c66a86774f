//! An engine that hangs or goes away, a registry that stalls, a service that does not want to stop (P15): each ends in
//! an outcome that says so, within its bound.

mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;
    use tenantry_agent::limits::Limits;
    use tenantry_api::names::OperationId;
    use tenantry_api::tenant_status::{Outcome, PhaseState};
    use tenantry_protocol::{FailureCategory, OperationPhase, OperationState};
    use test_images::Image;

    use crate::gate::{Gate, Way};
    use crate::support::{Sandbox, assert_outcome, failure, required};

    const SOCKET: &str = "/var/run/docker.sock";
    /// Short, but long enough for a busy machine.
    const LIMITS: Limits = Limits {
        read: Duration::from_secs(4),
        registry: Duration::from_secs(4),
        silence: Duration::from_secs(4),
        pull: Duration::from_secs(20),
        up: Duration::from_secs(4),
        away: Duration::from_secs(6),
        idle: Duration::from_secs(1),
    };

    /// A sandbox whose agent reaches its engine through a gate, with a first release running where asked for.
    async fn behind_a_gate(name: &str, running: bool) -> (Sandbox, Gate) {
        let mut sandbox = Sandbox::usual(name).await;
        let (gate, path) = Gate::before_socket(sandbox.folder.path(), SOCKET);
        sandbox.stop_agent().await;
        sandbox.docker_host = Some(format!("unix://{}", path.display()));
        sandbox.limits = LIMITS;
        sandbox.verify = json!({"timeoutMs": 8_000, "stableForMs": 500, "http": []});
        sandbox.start_agent().await;
        for tag in ["v1", "v2"] {
            sandbox.publish(tag, &[]);
        }
        if running {
            sandbox.tag("v1");
            assert_outcome(&sandbox.run("first", "ImageOnly").await, Outcome::Succeeded);
        }
        sandbox.tag("v2");
        (sandbox, gate)
    }

    /// Waits until an operation is in a phase, and gives false where it ended before.
    async fn reaches(sandbox: &Sandbox, id: &str, wanted: OperationPhase) -> bool {
        let id = OperationId::parse(id).unwrap();
        let mut after = 0;
        loop {
            let status = sandbox.core().operation(&id, after, Duration::from_secs(30)).await.unwrap();
            after = status.seq;
            let at =
                status.phases.iter().any(|phase| phase.name == wanted && phase.state == PhaseState::Running);
            if at || status.state != OperationState::Running {
                return at;
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn p15_an_engine_that_never_answers_ends_an_operation_before_anything_is_changed() {
        let (sandbox, gate) = behind_a_gate("hung", false).await;
        gate.turn(Way::Hung);
        let began = Instant::now();
        let status = sandbox.run("hung", "ImageOnly").await;
        assert_outcome(&status, Outcome::Aborted);
        let failure = failure(&status);
        assert_eq!(
            (failure.during, failure.category),
            (OperationPhase::Preflight, FailureCategory::EngineFault)
        );
        assert!(failure.message.contains("within 4 s"), "{failure:?}");
        // A read that runs out of time, and once more when what was prepared is discarded.
        assert!(began.elapsed() < 4 * LIMITS.read, "{:?}", began.elapsed());
        assert!(sandbox.read(".env").contains("IMAGE_TAG=none"));
        let host = sandbox.core().host().await;
        assert!(
            host.problems.iter().any(|problem| problem.contains("does not answer")),
            "{:?}",
            host.problems
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn p15_an_engine_that_hangs_where_nothing_happens_is_found_out() {
        let (sandbox, gate) = behind_a_gate("idle", true).await;
        // Known and unchanged for as long as the event stream says so.
        let known = match sandbox.look(None).await {
            tenantry_protocol::ObserveResponse::Seen { hash, .. } => hash,
            other @ tenantry_protocol::ObserveResponse::Same => panic!("{other:?}"),
        };
        gate.turn(Way::Hung);
        let deadline = Instant::now() + 2 * (LIMITS.idle + LIMITS.read);
        while sandbox.core().host().await.problems.is_empty() {
            assert!(Instant::now() < deadline, "it is not found out");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep_until((deadline).into()).await;
        let seen = sandbox.try_look(Some(known)).await;
        let error = seen.expect_err("what was known is not believed any more");
        assert!(error.message.contains("within 4 s"), "{error:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn p8_p15_an_engine_that_hangs_in_a_pull_aborts_it() {
        let (sandbox, gate) = behind_a_gate("pull", true).await;
        gate.turn_at("/images/create", Way::Hung);
        let before = sandbox.containers();
        let began = Instant::now();
        let status = sandbox.run("hung", "ImageOnly").await;
        assert_outcome(&status, Outcome::Aborted);
        let failure = failure(&status);
        assert_eq!(failure.during, OperationPhase::Pull, "{failure:?}");
        assert!(failure.message.contains("pull") && failure.message.contains("within 4 s"), "{failure:?}");
        assert!(began.elapsed() < LIMITS.silence + 4 * LIMITS.read, "{:?}", began.elapsed());
        gate.turn(Way::Open);
        assert_eq!(before, sandbox.containers());
        assert!(sandbox.read(".env").contains("IMAGE_TAG=v1"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn p9_p15_an_engine_that_hangs_in_up_and_comes_back_has_the_previous_release_again() {
        let (sandbox, gate) = behind_a_gate("up", true).await;
        gate.turn_at("/containers/create", Way::Hung);
        let began = Instant::now();
        sandbox.submit("hung", sandbox.request("ImageOnly")).await.unwrap();
        assert!(reaches(&sandbox, "hung", OperationPhase::Rollback).await);
        assert!(
            began.elapsed() < Duration::from_secs(8) + LIMITS.up + 3 * LIMITS.read,
            "{:?}",
            began.elapsed()
        );
        gate.turn(Way::Open);
        let status = sandbox.ended("hung").await;
        assert_outcome(&status, Outcome::RolledBack);
        let failure = failure(&status);
        assert_eq!(failure.during, OperationPhase::Start, "{failure:?}");
        assert!(failure.message.contains("did not end within 12 s"), "{failure:?}");
        assert_eq!(
            (sandbox.version_of("web"), sandbox.version_of("worker")),
            ("v1".to_owned(), "v1".to_owned())
        );
        let (before, after) = sandbox.by_hand();
        assert_eq!(before, after);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn p15_p16_an_engine_that_hangs_in_verify_for_good_ends_in_a_condition_and_not_in_silence() {
        let (mut sandbox, gate) = behind_a_gate("verify", true).await;
        sandbox.verify = json!({"timeoutMs": 20_000, "stableForMs": 4_000, "http": []});
        sandbox.submit("hung", sandbox.request("ImageOnly")).await.unwrap();
        assert!(reaches(&sandbox, "hung", OperationPhase::Verify).await);
        gate.turn(Way::Hung);
        let began = Instant::now();
        let status = sandbox.ended("hung").await;
        assert_outcome(&status, Outcome::RollbackFailed);
        let failure = failure(&status);
        assert!(failure.message.contains("within 4 s"), "{failure:?}");
        assert!(failure.message.contains("The rollback then failed"), "{failure:?}");
        // Away in Verify, and once more before each of the steps back, up to the first that fails.
        let bound = 3 * (LIMITS.away + 2 * LIMITS.read) + Duration::from_secs(20) + LIMITS.up;
        assert!(began.elapsed() < bound, "{:?}", began.elapsed());
        gate.turn(Way::Open);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn p3_an_engine_that_is_started_again_in_verify_is_no_failure_of_the_release() {
        let (mut sandbox, gate) = behind_a_gate("again", true).await;
        sandbox.verify = json!({"timeoutMs": 20_000, "stableForMs": 2_000, "http": []});
        sandbox.submit("again", sandbox.request("ImageOnly")).await.unwrap();
        assert!(reaches(&sandbox, "again", OperationPhase::Verify).await);
        gate.turn(Way::Shut);
        tokio::time::sleep(Duration::from_secs(1)).await;
        gate.turn(Way::Open);
        assert_outcome(&sandbox.ended("again").await, Outcome::Succeeded);
        assert_eq!(sandbox.version_of("web"), "v2");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn p3_p9_an_engine_that_goes_away_in_a_recreate_leaves_nothing_half_done() {
        let (sandbox, gate) = behind_a_gate("away", true).await;
        gate.turn_at("/containers/create", Way::Shut);
        sandbox.submit("away", sandbox.request("ImageOnly")).await.unwrap();
        gate.turned().await;
        // As long as an engine takes to be started again.
        tokio::time::sleep(Duration::from_secs(3)).await;
        gate.turn(Way::Open);
        let status = sandbox.ended("away").await;
        assert_outcome(&status, Outcome::RolledBack);
        assert_eq!(
            (sandbox.version_of("web"), sandbox.version_of("worker")),
            ("v1".to_owned(), "v1".to_owned())
        );
        assert_eq!(sandbox.containers().len(), 3, "{:?}", sandbox.containers());
        let (before, after) = sandbox.by_hand();
        assert_eq!(before, after);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn p8_p15_a_registry_that_stalls_aborts_the_operation() {
        let (gate, address) = Gate::before_address(required("TENANTRY_TEST_REGISTRY")).await;
        let mut sandbox = Sandbox::with_registry("stalls", address.clone()).await;
        sandbox.write("docker-compose.yml", &sandbox.compose());
        sandbox.write("config/web.conf", "GREETING=hello\n");
        sandbox.write(".env", "IMAGE_TAG=none\n");
        sandbox.stop_agent().await;
        sandbox.limits = LIMITS;
        sandbox.start_agent().await;
        let reference = format!("{}:v1", sandbox.repository);
        let large = Image::version("v1").unique(8 * 1024 * 1024);
        large.publish(std::path::Path::new(&required("TENANTRY_STANDIN")), &reference).unwrap();
        sandbox.tag("v1");

        // Nothing at all, and half of the image's large layer.
        for (id, doing, bytes) in [("silent", "ask the registry", 0), ("half", "pull", 4 * 1024 * 1024)] {
            if bytes == 0 {
                gate.turn(Way::Hung);
            }
            gate.turn_after(bytes, Way::Hung);
            let began = Instant::now();
            let status = sandbox.run(id, "ImageOnly").await;
            gate.turn(Way::Open);
            assert_outcome(&status, Outcome::Aborted);
            let failure = failure(&status);
            assert_eq!(
                (failure.during, failure.category),
                (OperationPhase::Pull, FailureCategory::RegistryUnreachable),
                "{failure:?}"
            );
            assert!(failure.message.contains(doing) && failure.message.contains(&address), "{failure:?}");
            assert!(began.elapsed() < LIMITS.pull, "{:?}", began.elapsed());
        }
        assert_eq!(sandbox.read(".env"), "IMAGE_TAG=none\n");
        assert_eq!(sandbox.containers(), []);
        // The same once more, with a registry that answers.
        assert_outcome(&sandbox.run("well", "ImageOnly").await, Outcome::Succeeded);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn p15_a_service_that_ignores_being_asked_to_stop_is_ended_after_its_grace() {
        let mut sandbox = Sandbox::usual("stubborn").await;
        for tag in ["v1", "v2"] {
            sandbox.publish(tag, &[("IGNORE_SIGTERM", "true")]);
        }
        sandbox.manage("config/web.conf", "GREETING=hello\n");
        sandbox.tag("v1");
        assert_outcome(&sandbox.run("first", "Release").await, Outcome::Succeeded);
        let began = Instant::now();
        sandbox.tag("v2");
        assert_outcome(&sandbox.run("second", "Release").await, Outcome::Succeeded);
        // A file that changes alone has its service restarted.
        let started = sandbox.started_at("web");
        sandbox.manage("config/web.conf", "GREETING=again\n");
        assert_outcome(&sandbox.run("third", "Release").await, Outcome::Succeeded);
        assert_ne!(started, sandbox.started_at("web"));
        assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
    }
}
