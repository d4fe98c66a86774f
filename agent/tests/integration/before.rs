//! What was so before an operation (P18), beside what else, and by which files (P16): on a real engine.

use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{FailureCategory, OperationPhase};

use crate::support::{Sandbox, assert_outcome, docker, failure};

/// One of each: a web server, a database, a finished one-shot that nobody waits for, one that is tried again until it ends
/// well, and one that a test can break.
fn compose(tenant: &Sandbox) -> String {
    let repository = &tenant.repository;
    format!(
        "services:\n  web: {{image: '{repository}:${{IMAGE_TAG}}', restart: unless-stopped, stop_grace_period: 1s, \
         healthcheck: {{test: [CMD, /standin, health], interval: 300ms, timeout: 5s, retries: 2}}}}\n  \
         db: {{image: '{repository}:db', restart: unless-stopped, stop_grace_period: 1s}}\n  \
         seed: {{image: '{repository}:db', depends_on: [web], restart: 'no', environment: {{MODE: job}}}}\n  \
         buckets: {{image: '{repository}:${{IMAGE_TAG}}', restart: on-failure, environment: {{MODE: job}}}}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p18_what_was_so_before_stops_an_upgrade_and_is_never_told_as_its_failure() {
    let mut tenant = Sandbox::new("before").await;
    for tag in ["v1", "v2", "db"] {
        tenant.publish(tag, &[]);
    }
    // Brought up by hand: at first contact both one-shots have ended.
    tenant.write("docker-compose.yml", &compose(&tenant));
    tenant.write(".env", "IMAGE_TAG=v1\n");
    tenant.tag("v1");
    tenant.by_hand();
    for job in ["seed", "buckets"] {
        docker(&["wait", &tenant.container(job)]);
    }
    let contact = tenant.observe().await;
    assert_eq!((contact.health.problems.as_slice(), contact.image_differences.len()), (&[][..], 0));
    tenant.claim().await.unwrap();

    docker(&["pause", &tenant.container("db")]);
    tenant.tag("v2");
    let paused = tenant.run("two", "ImageOnly").await;
    assert_outcome(&paused, Outcome::Aborted);
    let why = failure(&paused);
    assert_eq!((why.category, why.during), (FailureCategory::UnhealthyBefore, OperationPhase::Preflight));
    assert!(why.message.contains("db is paused: `docker compose unpause db`"), "{why:?}");
    docker(&["unpause", &tenant.container("db")]);
    let upgraded = tenant.run("three", "ImageOnly").await;
    assert_outcome(&upgraded, Outcome::Succeeded);
    let said = format!("{:?}", upgraded.phases);
    assert!(said.contains("ended with code 0 and done by that: buckets, seed"), "{said}");
    let (before, after) = tenant.by_hand();
    assert_eq!(before, after, "by hand nothing is recreated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p18_a_way_back_that_finds_things_as_bad_as_they_were_has_arrived() {
    let mut tenant = Sandbox::new("asbefore").await;
    tenant.write(".env", "IMAGE_TAG=none\n");
    // Healthy for as long as the installation is watched.
    tenant.publish("v1", &[("UNHEALTHY_FROM", "6s")]);
    tenant.publish("v2", &[("HEALTHY_AFTER", "1h")]);
    tenant.publish("db", &[]);
    let text = compose(&tenant);
    tenant.manage("docker-compose.yml", &text);
    tenant.tag("v1");
    let first = tenant.run("one", "Release").await;
    assert_outcome(&first, Outcome::Succeeded);
    let said = format!("{:?}", first.phases);
    assert!(said.contains("ended with code 0 and done by that: buckets, seed"), "{said}");
    let health = || docker(&["inspect", "--format", "{{.State.Health.Status}}", &tenant.container("web")]);
    let began = std::time::Instant::now();
    while health() != "unhealthy" && began.elapsed() < std::time::Duration::from_mins(1) {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    tenant.verify["timeoutMs"] = 4_000.into();
    tenant.tag("v2");
    let status = tenant.run("two", "ImageOnly").await;
    assert_outcome(&status, Outcome::RolledBack);
    assert_eq!(tenant.version_of("web"), "v1");
    let said = format!("{:?}", status.phases);
    // Recreated, it may be well again for the moment.
    assert!(said.contains("the previous release runs again and"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_p18_a_second_stack_a_file_that_nobody_reads_and_one_of_the_tenants_own_stop_a_release() {
    let mut tenant = Sandbox::new("beside").await;
    tenant.publish("v1", &[]);
    tenant.publish("db", &[]);
    let text = compose(&tenant);
    tenant.write("compose.yaml", &text);
    tenant.write(".env", &format!("IMAGE_TAG=v1\nCOMPOSE_PROJECT_NAME={}-shop\n", tenant.project));
    let directory = tenant.directory().display().to_string();
    let by_hand =
        |command: &[&str]| docker(&[&["compose", "--project-directory", &directory], command].concat());
    tenant.tag("v1");
    let named = tenant.observe().await.other_projects;
    assert_eq!(named[0].named_by.as_deref(), Some("COMPOSE_PROJECT_NAME in .env"), "{named:?}");
    by_hand(&["up", "-d", "--no-deps", "db"]);
    let other = tenant.observe().await.other_projects;
    assert_eq!(other[0].name, format!("{}-shop", tenant.project), "{other:?}");
    let refused = tenant.run("one", "ImageOnly").await;
    assert_outcome(&refused, Outcome::Aborted);
    assert_eq!(failure(&refused).category, FailureCategory::AdoptionNeeded, "{:?}", failure(&refused));
    assert!(tenant.containers().is_empty(), "no second stack");
    by_hand(&["down"]);

    tenant.write(".env", "IMAGE_TAG=v1\n");
    tenant.manage("docker-compose.yml", &text);
    let unread = tenant.observe().await.unread_files;
    assert!(unread[0].path.as_str() == "docker-compose.yml" && unread[0].read[0].as_str() == "compose.yaml");
    let refused = tenant.run("two", "Release").await;
    assert_eq!(failure(&refused).category, FailureCategory::ComposeFileUnread, "{:?}", failure(&refused));

    tenant.unmanage("docker-compose.yml");
    tenant.manage("compose.yaml", &format!("# a bundle's\n{text}"));
    assert!(tenant.observe().await.files[0].unmanaged);
    let refused = tenant.run("three", "Release").await;
    assert_eq!(failure(&refused).category, FailureCategory::AdoptionNeeded, "{:?}", failure(&refused));
    assert_eq!(tenant.read("compose.yaml"), text, "nothing was replaced");
}
