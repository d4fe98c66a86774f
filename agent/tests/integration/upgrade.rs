//! Operations on a real engine, with a real registry and the host's own compose.

use crate::support::{Sandbox, assert_outcome, failure};
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{FailureCategory, ObserveResponse};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_only_upgrade_changes_the_tag_and_nothing_else() {
    let mut tenant = Sandbox::usual("imageonly").await;
    tenant.publish("v1", &[]);
    tenant.publish("v2", &[]);
    tenant.tag("v1");
    assert_outcome(&tenant.run("one", "ImageOnly").await, Outcome::Succeeded);
    assert_eq!(tenant.version_of("web"), "v1");

    tenant.tag("v2");
    let status = tenant.run("two", "ImageOnly").await;
    assert_outcome(&status, Outcome::Succeeded);
    for phase in &status.phases {
        let took = phase.finished_at.unwrap().duration_since(phase.started_at);
        println!(
            "{:?}: {} ms {}",
            phase.name,
            took.as_millis(),
            phase.message.as_deref().unwrap_or_default()
        );
    }
    assert_eq!((tenant.version_of("web"), tenant.version_of("worker")), ("v2".to_owned(), "v2".to_owned()));
    assert_eq!(tenant.read(".env"), "# mine\nIMAGE_TAG=v2 # the release\nOTHER='a b'\n");
    assert!(status.images.iter().all(|image| image.repo_digest.is_some()), "{:?}", status.images);
    let (before, after) = tenant.by_hand();
    assert_eq!(before, after, "by hand nothing is created, recreated or removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_that_finds_nothing_new_says_so() {
    let mut tenant = Sandbox::usual("look").await;
    tenant.publish("v1", &[]);
    tenant.tag("v1");
    assert_outcome(&tenant.run("one", "ImageOnly").await, Outcome::Succeeded);
    let ObserveResponse::Seen { hash, observation } = tenant.look(None).await else {
        panic!("nothing was known")
    };
    assert!(observation.health.problems.is_empty(), "{:?}", observation.health);
    assert_eq!(observation.health.without_healthcheck, ["worker"]);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    tenant.look(None).await;
    let began = std::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(tenant.look(Some(hash.clone())).await, ObserveResponse::Same);
    }
    println!("a look that finds nothing: {:?}", began.elapsed() / 100);

    tenant.write("conf.d/a.conf", "b\n");
    assert_eq!(tenant.look(Some(hash.clone())).await, ObserveResponse::Same, "that file is not managed");
    tenant.write(".env", "IMAGE_TAG=v0\n");
    assert_ne!(tenant.look(Some(hash)).await, ObserveResponse::Same);
    crate::support::docker(&["stop", "-t", "0", &tenant.container("worker")]);
    let observation = tenant.observe().await;
    assert!(
        observation.health.problems.iter().any(|problem| problem.contains("worker")),
        "{:?}",
        observation.health
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_image_aborts_before_anything_is_changed() {
    let mut tenant = Sandbox::usual("missing").await;
    tenant.publish("v1", &[]);
    tenant.tag("v1");
    assert_outcome(&tenant.run("one", "ImageOnly").await, Outcome::Succeeded);
    let (containers, env, kept) = (tenant.containers(), tenant.read(".env"), tenant.kept());
    tenant.tag("v9");
    let status = tenant.run("two", "ImageOnly").await;
    assert_outcome(&status, Outcome::Aborted);
    let failure = failure(&status);
    assert_eq!(failure.category, FailureCategory::ImageNotFound, "{failure:?}");
    assert!(failure.message.contains(":v9"), "{failure:?}");
    assert_eq!((tenant.containers(), tenant.read(".env"), tenant.kept()), (containers, env, kept));
}
