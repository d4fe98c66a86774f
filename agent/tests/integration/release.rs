//! Releases that write files, on a real engine.

use crate::support::{Sandbox, assert_outcome, failure};
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{FailureCategory, FileState, MountFreshness, ObserveResponse, OperationPhase};

/// A tenant whose files the bundle renders, at release v1.
async fn released(name: &str) -> Sandbox {
    let mut tenant = Sandbox::new(name).await;
    tenant.write(".env", "IMAGE_TAG=none\n");
    tenant.publish("v1", &[]);
    tenant.manage("docker-compose.yml", &tenant.compose());
    tenant.manage("config/web.conf", "GREETING=one\n");
    tenant.manage("conf.d/a.conf", "one\n");
    tenant.tag("v1");
    assert_outcome(&tenant.run("one", "Release").await, Outcome::Succeeded);
    tenant
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_changed_file_that_is_mounted_restarts_the_service_that_mounts_it() {
    let mut tenant = released("mounted").await;
    let (web, worker) = (tenant.container("web"), tenant.container("worker"));
    let (web_started, worker_started) = (tenant.started_at("web"), tenant.started_at("worker"));
    tenant.manage("config/web.conf", "GREETING=two\n");
    let status = tenant.run("two", "Release").await;
    assert_outcome(&status, Outcome::Succeeded);
    assert_eq!((tenant.container("web"), tenant.container("worker")), (web, worker), "nothing is recreated");
    assert_ne!(tenant.started_at("web"), web_started);
    assert_eq!(tenant.started_at("worker"), worker_started);
    let plan = status.plan.clone().unwrap();
    assert_eq!((plan.files.modified, plan.files.unchanged), (1, 2));
    assert_eq!(plan.recreates[0].cause, "mounts config/web.conf");
    let observation = tenant.observe().await;
    assert!(observation.services.iter().all(|service| service.mounts == MountFreshness::Current));
    let (before, after) = tenant.by_hand();
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declared_signal_is_sent_instead_of_a_restart() {
    let mut tenant = released("signal").await;
    let started = tenant.started_at("web");
    tenant.manifest["onChange"] =
        serde_json::json!([{"paths": ["conf.d"], "services": ["web"], "signal": "SIGHUP"}]);
    tenant.manage("conf.d/a.conf", "two\n");
    let status = tenant.run("two", "Release").await;
    assert_outcome(&status, Outcome::Succeeded);
    assert_eq!(tenant.started_at("web"), started);
    let start = status.phases.iter().find(|phase| format!("{:?}", phase.name) == "Start").unwrap();
    assert_eq!(start.message.as_deref(), Some("told of changed files by a signal: web"));
    let observation = tenant.observe().await;
    assert!(
        observation.services.iter().all(|service| service.mounts == MountFreshness::Current),
        "{observation:#?}"
    );

    tenant.manifest["onChange"] =
        serde_json::json!([{"paths": ["config"], "services": ["web"], "signal": "SIGHUP"}]);
    tenant.manage("config/web.conf", "GREETING=three\n");
    let status = tenant.run("three", "Release").await;
    assert_outcome(&status, Outcome::Aborted);
    assert!(failure(&status).message.contains("mounts that file by itself"), "{:?}", failure(&status));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_a_file_that_was_edited_by_hand_is_not_overwritten() {
    let mut tenant = released("edited").await;
    tenant.write("conf.d/a.conf", "mine\n");
    tenant.manage("conf.d/a.conf", "two\n");
    let status = tenant.run("two", "Release").await;
    assert_outcome(&status, Outcome::Aborted);
    assert_eq!(failure(&status).category, FailureCategory::HandEdited);
    assert!(failure(&status).message.contains("conf.d/a.conf"));
    assert_eq!(tenant.read("conf.d/a.conf"), "mine\n");
    let seen = tenant.observe().await;
    let file = seen.files.iter().find(|file| file.path.as_str() == "conf.d/a.conf").unwrap();
    assert!(file.hand_edited && file.state == FileState::Differs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_only_upgrade_that_would_change_a_file_is_refused() {
    let mut tenant = released("needed").await;
    tenant.manage("conf.d/a.conf", "two\n");
    let status = tenant.run("two", "ImageOnly").await;
    assert_outcome(&status, Outcome::Aborted);
    assert_eq!(failure(&status).category, FailureCategory::ReleaseNeeded);
    assert_eq!(tenant.read("conf.d/a.conf"), "one\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_and_services_that_a_release_no_longer_has_are_taken_away_and_what_was_edited_is_left() {
    let mut tenant = released("gone").await;
    tenant.manage("extra.conf", "extra\n");
    tenant.manage("other.conf", "other\n");
    assert_outcome(&tenant.run("two", "Release").await, Outcome::Succeeded);
    tenant.write("other.conf", "mine\n");
    tenant.unmanage("extra.conf");
    tenant.unmanage("other.conf");
    let without_worker = tenant.compose().split("  worker:").next().unwrap().to_owned();
    tenant.manage("docker-compose.yml", &without_worker);
    let status = tenant.run("three", "Release").await;
    assert_outcome(&status, Outcome::Succeeded);
    assert!(!tenant.directory().join("extra.conf").exists());
    assert_eq!(tenant.read("other.conf"), "mine\n");
    assert_eq!(
        (status.left_files.as_slice(), status.left_running.as_slice()),
        (&["other.conf".to_owned()][..], &[][..])
    );
    assert!(!tenant.containers().iter().any(|(service, _)| service == "worker"), "it was in the plan");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_missing_bind_source_below_a_protected_path_is_refused() {
    let mut tenant = released("bind").await;
    tenant.manifest["protect"] = serde_json::json!(["mkdocs/"]);
    let mounted = tenant.compose().replace("./conf.d:/conf.d:ro", "./mkdocs/site:/conf.d:ro");
    tenant.manage("docker-compose.yml", &mounted);
    let status = tenant.run("two", "Release").await;
    assert_outcome(&status, Outcome::Aborted);
    assert_eq!(failure(&status).category, FailureCategory::PathRefused);
    assert!(!tenant.directory().join("mkdocs").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_reads_the_patched_env_file_is_listed_and_recreated() {
    let mut tenant = released("envfile").await;
    let reads = tenant.compose().replace("  worker:\n", "  worker:\n    env_file: .env\n");
    tenant.manage("docker-compose.yml", &reads);
    assert_outcome(&tenant.run("two", "Release").await, Outcome::Succeeded);
    let worker = tenant.container("worker");
    tenant.manifest["env"]["patch"] = serde_json::json!([{"name": "IMAGE_TAG", "value": "v1"}, {"name": "COLOUR", "value": "a $b 'c' \"d\" #e"}]);
    let status = tenant.run("three", "ImageOnly").await;
    assert_outcome(&status, Outcome::Succeeded);
    let plan = status.plan.unwrap();
    assert_eq!(
        plan.recreates.iter().map(|one| (one.service.as_str(), one.cause.as_str())).collect::<Vec<_>>(),
        [("worker", "reads .env")]
    );
    assert_ne!(tenant.container("worker"), worker);
    let env =
        crate::support::docker(&["inspect", "--format", "{{json .Config.Env}}", &tenant.container("worker")]);
    let env: Vec<String> = serde_json::from_str(&env).unwrap();
    assert!(env.iter().any(|one| one == "COLOUR=a $b 'c' \"d\" #e"), "{env:?}");
    let (before, after) = tenant.by_hand();
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_managed_env_file_is_written_with_the_others() {
    let mut tenant = released("managed").await;
    std::fs::remove_file(tenant.directory().join(".env")).unwrap();
    tenant.manifest["env"] = serde_json::json!({"ownership": "managed"});
    tenant.manage(".env", "IMAGE_TAG=v1\nCOLOUR=green\n");
    let status = tenant.run("two", "Release").await;
    assert_outcome(&status, Outcome::Succeeded);
    assert_eq!(tenant.read(".env"), "IMAGE_TAG=v1\nCOLOUR=green\n");
    let (before, after) = tenant.by_hand();
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compose_file_that_does_not_parse_aborts_with_file_and_line() {
    let mut tenant = released("broken").await;
    tenant.manage("docker-compose.yml", "services:\n  web:\n    image: x\n   ports: [\n");
    let status = tenant.run("two", "Release").await;
    assert_outcome(&status, Outcome::Aborted);
    let failure = failure(&status);
    assert_eq!(failure.category, FailureCategory::ComposeInvalid, "{failure:?}");
    assert!(failure.message.contains("line"), "{failure:?}");
    assert_eq!(tenant.read("docker-compose.yml"), tenant.compose());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_compose_files_name_are_found_where_compose_finds_them() {
    let mut tenant = Sandbox::new("named").await;
    let directory = tenant.directory().display().to_string();
    tenant.publish("v1", &[]);
    tenant.write(".env", "IMAGE_TAG=none\nENVF=web.env\n");
    tenant.write("web.env", "A=1\n");
    tenant.write("here.env", "B=1\n");
    // Nothing of this folder is read by compose itself, and the staged tree must have it all the same.
    tenant.write("parts/data/kept", "x");
    tenant.write("parts/key.txt", "canary");
    let named =
        format!("    env_file: [\"${{ENVF}}\", \"{directory}/here.env\"]\n    restart: unless-stopped\n");
    let compose = tenant.compose().replacen("    restart: unless-stopped\n", &named, 1);
    let include = "include: [{path: sub/part.yml, project_directory: parts}]\n";
    tenant.manage("docker-compose.yml", &format!("{include}{compose}"));
    let part = format!(
        "services:\n  part:\n    image: {}:${{IMAGE_TAG:?}}\n    stop_grace_period: 1s\n    volumes: [\"./data:/data:ro\"]\n    \
         secrets: [key]\nsecrets: {{key: {{file: key.txt}}}}\n",
        tenant.repository
    );
    tenant.manage("sub/part.yml", &part);
    tenant.manage("config/web.conf", "GREETING=one\n");
    tenant.manage("conf.d/a.conf", "one\n");
    tenant.tag("v1");
    assert_outcome(&tenant.run("one", "Release").await, Outcome::Succeeded);
    let part = tenant.container("part");
    let mounted =
        crate::support::docker(&["inspect", "--format", "{{range .Mounts}}{{.Source}} {{end}}", &part]);
    assert!(mounted.contains(&format!("{directory}/parts/data")), "{mounted}");
    let web = crate::support::docker(&["inspect", "--format", "{{.Config.Env}}", &tenant.container("web")]);
    assert!(web.contains("A=1") && web.contains("B=1"), "{web}");
    let (before, after) = tenant.by_hand();
    assert_eq!(before, after);

    // Compose reads environment files, and the engine mounts, only when containers are made: what is wrong is found before.
    tenant.publish("v2", &[]);
    tenant.tag("v2");
    for (id, path, text, category, says) in [
        (
            "env",
            "here.env",
            None,
            FailureCategory::ComposeInvalid,
            "services.web.env_file: DIR/here.env is not there",
        ),
        (
            "quote",
            "here.env",
            Some("B=\"canary\n"),
            FailureCategory::ComposeInvalid,
            "services.web.env_file: compose can't read DIR/here.env, line ",
        ),
        (
            "key",
            "parts/key.txt",
            None,
            FailureCategory::PathRefused,
            "services.part mounts parts/key.txt, which is not there",
        ),
    ] {
        let before = tenant.read(path);
        std::fs::remove_file(tenant.directory().join(path)).unwrap();
        if let Some(text) = text {
            tenant.write(path, text);
        }
        let status = tenant.run(id, "Release").await;
        tenant.write(path, &before);
        assert_outcome(&status, Outcome::Aborted);
        let why = failure(&status);
        assert_eq!((why.category, why.during), (category, OperationPhase::Preflight));
        assert!(why.message.starts_with(&says.replace("DIR", &directory)), "{why:?}");
        assert!(!why.message.contains("canary"), "P12: {why:?}");
        assert_eq!(tenant.containers(), after, "nothing was stopped");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p19_a_link_that_a_person_leads_elsewhere_is_told_at_once_and_followed_by_the_next_release() {
    let mut tenant = Sandbox::new("led").await;
    tenant.publish("v1", &[]);
    tenant.write("docker-compose.yml", &tenant.compose());
    for (path, text) in
        [(".env", "IMAGE_TAG=v1\n"), ("one/web.conf", "GREETING=one\n"), ("two/web.conf", "GREETING=two\n")]
    {
        tenant.write(path, text);
    }
    tenant.manage("conf.d/a.conf", "one\n");
    let (config, link) = (tenant.directory().join("config"), tenant.directory().join("config/web.conf"));
    std::fs::create_dir(config).unwrap();
    std::os::unix::fs::symlink("../one/web.conf", &link).unwrap();
    tenant.tag("v1");
    tenant.extra = serde_json::json!({"overwrite": true});
    assert_outcome(&tenant.run("one", "Release").await, Outcome::Succeeded);
    let sees = |tenant: &Sandbox| {
        let pid =
            crate::support::docker(&["inspect", "--format", "{{.State.Pid}}", &tenant.container("web")]);
        std::fs::read_to_string(format!("/proc/{pid}/root/etc/web.conf")).unwrap()
    };
    assert_eq!(sees(&tenant), "GREETING=one\n");
    let ObserveResponse::Seen { hash, observation } = tenant.look(None).await else {
        panic!("nothing was known")
    };
    assert!(observation.services.iter().all(|service| service.mounts == MountFreshness::Current));

    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("../two/web.conf", &link).unwrap();
    let ObserveResponse::Seen { observation, .. } = tenant.look(Some(hash)).await else {
        panic!("it is not seen")
    };
    let web = observation.services.iter().find(|service| service.name.as_str() == "web").unwrap();
    let MountFreshness::Stale { files } = &web.mounts else { panic!("{:?}", web.mounts) };
    assert_eq!(files[0].path.as_str(), "two/web.conf");

    let made = tenant.container("web");
    tenant.manage("note.txt", "of a release that has nothing to do with it\n");
    let status = tenant.run("two", "Release").await;
    assert_outcome(&status, Outcome::Succeeded);
    let recreates = status.plan.unwrap().recreates;
    let told: Vec<(&str, &str)> =
        recreates.iter().map(|one| (one.service.as_str(), one.cause.as_str())).collect();
    assert_eq!(told, [("web", "a symlink of its mounts leads elsewhere now")]);
    assert_eq!((sees(&tenant).as_str(), tenant.container("web")), ("GREETING=two\n", made));
    let after = tenant.observe().await;
    assert!(after.services.iter().all(|service| service.mounts == MountFreshness::Current), "{after:#?}");
}
