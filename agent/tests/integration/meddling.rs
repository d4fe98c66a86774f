//! People who do something to the project while an operation is under way, and a kernel that runs out of memory.

mod tests {
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::time::{Duration, Instant};

    use tenantry_api::names::OperationId;
    use tenantry_api::tenant_status::{Outcome, PhaseState};
    use tenantry_protocol::{FailureCategory, OperationPhase, OperationState, OperationStatus};

    use crate::gate::{Gate, Way};
    use crate::support::{Sandbox, assert_outcome, docker, failure};

    const SOCKET: &str = "/var/run/docker.sock";

    /// A tenant that runs v1.
    async fn running(name: &str) -> Sandbox {
        let mut tenant = Sandbox::usual(name).await;
        tenant.publish("v1", &[]);
        tenant.tag("v1");
        assert_outcome(&tenant.run("one", "ImageOnly").await, Outcome::Succeeded);
        tenant
    }

    /// Submits an operation and waits until services are watched.
    async fn watched(tenant: &Sandbox, id: &str) {
        tenant.submit(id, tenant.request("ImageOnly")).await.unwrap();
        reaches(tenant, id, OperationPhase::Verify).await;
    }

    async fn reaches(tenant: &Sandbox, id: &str, wanted: OperationPhase) {
        let id = OperationId::parse(id).unwrap();
        let mut after = 0;
        loop {
            let status = tenant.core().operation(&id, after, Duration::from_secs(30)).await.unwrap();
            after = status.seq;
            assert_eq!(status.state, OperationState::Running, "{status:#?}");
            let at = |phase: &tenantry_protocol::PhaseRecord| {
                phase.name == wanted && phase.state == PhaseState::Running
            };
            if status.phases.iter().any(at) {
                return;
            }
        }
    }

    /// A person's `docker compose`.
    fn compose(folder: &Path, arguments: &[&str]) -> String {
        let output =
            Command::new("docker").arg("compose").args(arguments).current_dir(folder).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    }

    /// Another directory whose compose file has one service, run under the tenant's project name.
    fn second_directory(tenant: &Sandbox, service: &str) -> (PathBuf, String) {
        let folder = tenant.folder.path().join("elsewhere");
        std::fs::create_dir(&folder).unwrap();
        let image = format!("{}:v1", tenant.repository);
        let text =
            format!("services: {{{service}: {{image: {image:?}, environment: {{WHO: somebody else}}}}}}\n");
        std::fs::write(folder.join("compose.yml"), text).unwrap();
        compose(&folder, &["-p", &tenant.project, "up", "-d", "--pull", "never"]);
        let id = tenant.container(service);
        (folder, id)
    }

    /// Whether a container runs, and since when.
    fn life(id: &str) -> String {
        docker(&["inspect", "--format", "{{.Id}} {{.State.StartedAt}} {{.State.Running}}", id])
    }

    /// Each service has one container under its own name.
    fn assert_one_each(tenant: &Sandbox) {
        let filter = format!("label=com.docker.compose.project={}", tenant.project);
        let names = docker(&["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]);
        let mut names: Vec<&str> = names.lines().collect();
        names.sort_unstable();
        let wanted = ["migrate", "web", "worker"].map(|service| format!("{}-{service}-1", tenant.project));
        assert_eq!(names, wanted);
    }

    /// The release that an operation's outcome says: all of the host is at it, and at no other.
    fn one_release(tenant: &Sandbox, status: &OperationStatus) -> &'static str {
        let OperationState::Ended { outcome, .. } = &status.state else { panic!("{status:#?}") };
        let release = match outcome {
            Outcome::Succeeded => "v2",
            Outcome::RolledBack => "v1",
            _ => panic!("{status:#?}"),
        };
        for service in ["web", "worker"] {
            assert_eq!(tenant.version_of(service), release, "{status:#?}");
        }
        assert_one_each(tenant);
        assert!(tenant.read(".env").contains(&format!("IMAGE_TAG={release}")));
        let (before, after) = tenant.by_hand();
        assert_eq!(before, after);
        release
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn p11_services_of_a_second_directory_that_come_in_mid_operation_are_left_alone() {
        let mut tenant = running("second").await;
        tenant.publish("v2", &[("HEALTHY_AFTER", "2s")]);
        tenant.tag("v2");
        watched(&tenant, "two").await;
        let (_, other) = second_directory(&tenant, "intruder");
        let before = life(&other);
        assert_outcome(&tenant.ended("two").await, Outcome::Succeeded);
        assert_eq!((tenant.version_of("web"), life(&other)), ("v2".to_owned(), before));
        // The next one is not begun in such company.
        tenant.publish("v3", &[]);
        tenant.tag("v3");
        let status = tenant.run("three", "ImageOnly").await;
        assert_outcome(&status, Outcome::Aborted);
        assert_eq!(failure(&status).category, FailureCategory::AdoptionNeeded);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn p11_services_of_a_second_directory_are_left_alone_by_our_way_back() {
        let mut tenant = running("secondback").await;
        tenant.publish("v2", &[("HEALTHY_AFTER", "1h")]);
        tenant.verify["timeoutMs"] = 4_000.into();
        tenant.tag("v2");
        watched(&tenant, "two").await;
        let (_, other) = second_directory(&tenant, "intruder");
        let before = life(&other);
        let status = tenant.ended("two").await;
        assert_eq!(life(&other), before, "it was touched: {status:#?}");
        assert_outcome(&status, Outcome::RolledBack);
        assert_eq!(tenant.version_of("web"), "v1");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn p11_a_service_that_a_second_directory_takes_over_in_mid_operation_is_not_taken_back() {
        let mut tenant = running("takeover").await;
        tenant.publish("v2", &[("HEALTHY_AFTER", "1h")]);
        tenant.verify["timeoutMs"] = 4_000.into();
        tenant.tag("v2");
        watched(&tenant, "two").await;
        let (folder, other) = second_directory(&tenant, "worker");
        let before = life(&other);
        let status = tenant.ended("two").await;
        assert_eq!(life(&other), before, "it was touched: {status:#?}");
        assert_outcome(&status, Outcome::RollbackFailed);
        let message = failure(&status).message;
        assert!(message.contains(folder.to_str().unwrap()), "{message}");
        assert_eq!(tenant.version_of("web"), "v1", "the rest is at the previous release");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn p10_a_person_who_starts_services_again_while_they_are_watched_begins_the_window_anew() {
        let mut tenant = running("startagain").await;
        tenant.publish("v2", &[]);
        tenant.verify["stableForMs"] = 3_000.into();
        tenant.tag("v2");
        watched(&tenant, "two").await;
        compose(&tenant.directory(), &["up", "-d", "--force-recreate", "--no-deps", "worker"]);
        let again = Instant::now();
        let status = tenant.ended("two").await;
        // A look that came just when the old container was ended saw a service that does not run.
        let release = one_release(&tenant, &status);
        assert!(release == "v1" || again.elapsed() > Duration::from_millis(2_500), "{:?}", again.elapsed());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn p10_a_person_who_stops_and_starts_services_while_they_are_watched_is_not_taken_for_success() {
        let mut tenant = running("restart").await;
        tenant.publish("v2", &[]);
        tenant.verify["stableForMs"] = 3_000.into();
        tenant.tag("v2");
        watched(&tenant, "two").await;
        compose(&tenant.directory(), &["restart", "worker"]);
        let restarted = Instant::now();
        let status = tenant.ended("two").await;
        let release = one_release(&tenant, &status);
        assert!(
            release == "v1" || restarted.elapsed() > Duration::from_millis(2_500),
            "{:?}",
            restarted.elapsed()
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn p2_a_person_whose_compose_overtakes_ours_leaves_one_release_whole() {
        let mut tenant = running("overtake").await;
        tenant.publish("v2", &[]);
        tenant.tag("v2");
        let (gate, path) = Gate::before_socket(tenant.folder.path(), SOCKET);
        tenant.stop_agent().await;
        tenant.docker_host = Some(format!("unix://{}", path.display()));
        tenant.start_agent().await;
        // Ours is about to make the first container; theirs makes all of them.
        gate.turn_at("/containers/create", Way::Hung);
        tenant.submit("two", tenant.request("ImageOnly")).await.unwrap();
        gate.turned().await;
        compose(&tenant.directory(), &["up", "-d"]);
        gate.turn(Way::Open);
        let status = tenant.ended("two").await;
        one_release(&tenant, &status);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn p10_a_service_that_the_kernel_ends_for_want_of_memory_fails_the_release() {
        let mut tenant = running("memory").await;
        tenant.publish("v2", &[]);
        tenant.write("conf.d/big", "small\n");
        let settings = "{STANDIN_CONFIG: /etc/web.conf";
        // Not started again, so that it is seen to have ended whenever it is looked at.
        let once = tenant.compose().replacen("    restart: unless-stopped\n", "", 1);
        let hungry = once.replace(
            &format!("    environment: {settings}"),
            &format!("    mem_limit: 24m\n    memswap_limit: 24m\n    environment: {settings}, STANDIN_FILES: /conf.d/big"),
        );
        assert!(once != tenant.compose() && hungry != once);
        tenant.manage("docker-compose.yml", &hungry);
        tenant.verify["stableForMs"] = 10_000.into();
        // What decides is that it has ended, on a machine of any speed.
        tenant.verify["timeoutMs"] = 600_000.into();
        tenant.tag("v2");
        tenant.extra["overwrite"] = true.into();
        tenant.submit("two", tenant.request("Release")).await.unwrap();
        reaches(&tenant, "two", OperationPhase::Verify).await;
        let web = tenant.container("web");
        let healthy = || docker(&["inspect", "--format", "{{.State.Health.Status}}", &web]) == "healthy";
        let deadline = Instant::now() + Duration::from_secs(30);
        while !healthy() {
            assert!(Instant::now() < deadline, "it does not come up");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // It is told to read what does not fit.
        let big = std::fs::File::create(tenant.directory().join("conf.d/big")).unwrap();
        big.set_len(256 << 20).unwrap();
        docker(&["kill", "--signal", "HUP", &web]);
        let status = tenant.ended("two").await;
        assert_outcome(&status, Outcome::RolledBack);
        let failure = failure(&status);
        let expected = (OperationPhase::Verify, FailureCategory::Crashed);
        assert_eq!((failure.during, failure.category), expected, "{failure:?}");
        assert!(failure.message.contains("web ended with code 137 (out of memory)"), "{failure:?}");
        assert_eq!(tenant.version_of("web"), "v1");
    }
}
