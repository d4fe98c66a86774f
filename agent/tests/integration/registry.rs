//! A registry that says no, and one that hands out something else than was asked for: the operation is aborted before
//! anything is changed, with a sentence that says what the registry did.

mod proxy;

mod tests {
    use std::path::Path;

    use tenantry_api::tenant_status::Outcome;
    use tenantry_protocol::{FailureCategory, OperationPhase};
    use test_images::Image;

    use super::proxy::{Proxy, Twist};
    use crate::support::{Containers, Sandbox, assert_outcome, docker, failure, required};

    /// A tenant that runs v1, and whose v2 comes through a proxy that twists what the registry says.
    async fn behind_a_proxy(name: &str) -> (Sandbox, Proxy) {
        let proxy = Proxy::before(required("TENANTRY_TEST_REGISTRY")).await;
        let mut sandbox = Sandbox::with_registry(name, proxy.address()).await;
        sandbox.write("docker-compose.yml", &sandbox.compose());
        sandbox.write("config/web.conf", "GREETING=hello\n");
        sandbox.write("conf.d/a.conf", "a\n");
        sandbox.write(".env", "IMAGE_TAG=none\n");
        sandbox.publish("v1", &[]);
        sandbox.tag("v1");
        assert_outcome(&sandbox.run("one", "ImageOnly").await, Outcome::Succeeded);
        // With a layer that is not on this host yet.
        let reference = format!("{}:v2", sandbox.repository);
        let image = Image::version("v2").unique(256 * 1024);
        image.publish(Path::new(&required("TENANTRY_STANDIN")), &reference).unwrap();
        sandbox.tag("v2");
        (sandbox, proxy)
    }

    /// Everything that an upgrade would change.
    fn state(sandbox: &Sandbox) -> (Containers, Vec<String>, String) {
        let started = sandbox.containers().iter().map(|(_, id)| started(id)).collect();
        (sandbox.containers(), started, sandbox.read(".env"))
    }

    fn started(id: &str) -> String {
        docker(&["inspect", "--format", "{{.State.StartedAt}}", id])
    }

    /// Runs an upgrade while the registry does this; nothing may come of it, and the next one succeeds.
    async fn aborted_by(
        sandbox: &Sandbox,
        proxy: &Proxy,
        id: &str,
        twist: Twist,
    ) -> (FailureCategory, String) {
        let before = state(sandbox);
        proxy.twist(Some(twist));
        let status = sandbox.run(id, "ImageOnly").await;
        proxy.twist(None);
        assert!(proxy.was_asked(), "the registry was never asked for what is twisted");
        assert_outcome(&status, Outcome::Aborted);
        let failure = failure(&status);
        assert_eq!(failure.during, OperationPhase::Pull, "{failure:?}");
        assert_eq!(state(sandbox), before, "{failure:?}");
        assert!(failure.message.contains(&sandbox.repository), "it names the image: {failure:?}");
        (failure.category, failure.message)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn p8_a_registry_that_was_asked_too_often_aborts_the_pull() {
        let (sandbox, proxy) = behind_a_proxy("toooften").await;
        for (id, twist) in [("a", Twist::TooOften("/manifests/")), ("b", Twist::TooOften("/blobs/"))] {
            let (category, message) = aborted_by(&sandbox, &proxy, id, twist).await;
            assert_eq!(category, FailureCategory::RegistryRefused, "{message}");
            assert!(message.contains("toomanyrequests") || message.contains("429"), "{message}");
        }
        assert_outcome(&sandbox.run("well", "ImageOnly").await, Outcome::Succeeded);
        assert_eq!(sandbox.version_of("web"), "v2");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn p16_an_image_that_is_not_what_its_digest_says_is_never_taken() {
        let (sandbox, proxy) = behind_a_proxy("otherbytes").await;
        // The very manifest that was resolved, and then a layer.
        for (id, twist) in
            [("a", Twist::OtherBytes("/manifests/sha256:")), ("b", Twist::OtherBytes("/blobs/"))]
        {
            let (_, message) = aborted_by(&sandbox, &proxy, id, twist).await;
            assert!(message.contains("verification failed"), "{message}");
        }
        assert_outcome(&sandbox.run("well", "ImageOnly").await, Outcome::Succeeded);
        assert_eq!(sandbox.version_of("web"), "v2");
    }
}
