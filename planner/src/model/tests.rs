use super::*;

const JSON: &str = r#"{"name":"acme","services":{
 "migrate":{"image":"r/x:1","restart":"no"},
 "seed":{"image":"r/x:1","restart":"no"},
 "web":{"image":"r/x:1","env_file":[{"path":"/stage/acme/.env"}],"environment":{"A":"p$$q"},
  "depends_on":{"migrate":{"condition":"service_completed_successfully","required":true},"db":{"condition":"service_healthy"}},
  "volumes":[{"type":"bind","source":"/stage/acme/c/web.conf","target":"/w","bind":{}},
             {"type":"bind","source":"/stage/acme/conf.d","target":"/d","bind":{"create_host_path":false}},
             {"type":"bind","source":"/stage/acme/docs/site","target":"/s"},
             {"type":"volume","source":"data","target":"/v","volume":{}}],
  "configs":[{"source":"k","target":"/k"}],"deploy":{"replicas":2},
  "healthcheck":{"test":["CMD","a"]},"restart":"unless-stopped","stop_grace_period":"1m30.5s"},
 "db":{"build":{"context":"."},"scale":0,"healthcheck":{"disable":true}}},
 "configs":{"k":{"name":"acme_k","file":"/stage/acme/k.conf"}}}"#;

fn model() -> Model {
    Model::parse(JSON.as_bytes(), "/stage/acme", "/srv/acme").unwrap()
}

fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap()
}

fn path(text: &str) -> RelativePath {
    RelativePath::parse(text).unwrap()
}

#[test]
fn a_service_is_read_with_the_paths_of_the_directory_that_it_is_for() {
    let model = model();
    let web = &model.services[&name("web")];
    assert_eq!((web.replicas, web.restart, web.stop_grace_ms), (2, Restart::Always, Some(90_500)));
    assert!(web.healthcheck && web.image_from == ImageFrom::Registry);
    assert_eq!(web.mounts("/srv/acme", &path("c/web.conf")), Some(Mounted::Singly));
    assert_eq!(web.mounts("/srv/acme", &path("k.conf")), Some(Mounted::Singly));
    assert_eq!(web.mounts("/srv/acme", &path("conf.d/a/b.conf")), Some(Mounted::InDirectory));
    assert_eq!(web.mounts("/srv/acme", &path("conf.d2/b.conf")), None);
    assert!(web.reads_env_file("/srv/acme", ".env"));
    let db = &model.services[&name("db")];
    assert_eq!(
        (db.image.as_str(), db.image_from, db.replicas, db.healthcheck),
        ("acme-db", ImageFrom::Host, 0, false)
    );
}

#[test]
fn volumes_networks_and_ports_are_read_with_the_engines_names() {
    let json = r#"{"name":"acme","services":{"db":{"image":"x","container_name":"the-db",
      "ports":[{"mode":"ingress","host_ip":"127.0.0.1","target":80,"published":"8080","protocol":"tcp"},
               {"target":81,"published":"9000-9010"},{"target":82}],
      "volumes":[{"type":"volume","source":"data","target":"/v","volume":{}},{"type":"volume","target":"/anonymous"}]}},
     "volumes":{"data":{"name":"acme_data","driver_opts":{"o":"size=1m"}},"old":{"name":"old","external":true},"none":null},
     "networks":{"default":{"name":"acme_default","ipam":{}}}}"#;
    let model = Model::parse(json.as_bytes(), "/x", "/x").unwrap();
    let db = &model.services[&name("db")];
    assert_eq!((db.volumes.clone(), db.container_name.as_deref()), (vec!["data".to_owned()], Some("the-db")));
    let port = Port { host_ip: Some("127.0.0.1".into()), published: 8080, protocol: "tcp".into() };
    assert_eq!(db.ports, [port]);
    let data = &model.volumes["data"];
    assert_eq!((data.name.as_str(), data.driver.as_deref(), data.external), ("acme_data", None, false));
    assert_eq!(data.driver_opts["o"], "size=1m");
    assert!(model.volumes["old"].external && model.volumes.contains_key("none"));
    assert_eq!(model.networks["default"].name, "acme_default");
}

#[test]
fn a_one_shot_is_waited_for_or_named_a_job() {
    let model = model();
    assert_eq!(model.one_shots(&[]), [&name("migrate")]);
    assert_eq!(model.one_shots(&[name("seed")]), [&name("migrate"), &name("seed")]);
}

#[test]
fn p1_a_missing_bind_source_below_a_protected_path_would_be_made_by_dockerd() {
    let protect = [ProtectedPath::parse("docs/").unwrap(), ProtectedPath::parse("conf.d").unwrap()];
    assert_eq!(model().protected_binds("/srv/acme", &protect), [path("docs/site")]);
}

#[test]
fn the_definition_covers_all_but_the_image() {
    let changed = |from: &str, to: &str| {
        let other = Model::parse(JSON.replace(from, to).as_bytes(), "/stage/acme", "/srv/acme").unwrap();
        other.services[&name("web")].definition != model().services[&name("web")].definition
    };
    assert!(!changed("r/x:1", "r/x:2"));
    assert!(changed("p$$q", "p"));
}

#[test]
fn an_image_that_only_local_services_use_is_not_pulled() {
    assert_eq!(
        model().references().into_iter().collect::<Vec<_>>(),
        [("acme-db", ImageFrom::Host), ("r/x:1", ImageFrom::Registry)]
    );
}

#[test]
fn what_does_not_decode_is_refused_without_quoting_it() {
    let error = Model::parse(br#"{"services":{"web":{"image":5,"environment":{"P":"hunter2"}}}}"#, "/", "/")
        .unwrap_err();
    assert_eq!(error.to_string(), "services.web: is not as compose prints services");
    let error = Model::parse(b"hunter2", "/", "/").unwrap_err().to_string();
    assert!(error.contains("line 1") && !error.contains("hunter2"), "{error}");
}

const SHARED: &str = r#"{"name":"acme","services":{
 "vpn":{"image":"x","volumes":[{"type":"bind","source":"/d/app.conf","target":"/c"}]},
 "torrent":{"image":"x","network_mode":"service:vpn","pid":"service:vpn","ipc":"shareable","volumes_from":["vpn:ro","container:other"],
  "depends_on":{"vpn":{"condition":"service_started","restart":true,"required":true},"db":{"condition":"service_healthy"}}},
 "more":{"image":"x","volumes_from":["torrent"],"configs":[{"source":"app","target":"/c"},{"source":"file"}],"secrets":[{"source":"key"}]},
 "db":{"image":"x"}},
 "configs":{"app":{"content":"backend=v1"},"file":{"file":"/d/file.conf"}},"secrets":{"key":{"environment":"KEY"}}}"#;

fn shared(from: &str, to: &str) -> Model {
    Model::parse(SHARED.replace(from, to).as_bytes(), "/d", "/d").unwrap()
}

#[test]
fn p19_who_shares_with_whom_and_restarts_with_whom_is_read() {
    let model = shared("", "");
    let torrent = &model.services[&name("torrent")];
    assert_eq!(torrent.shares, ["vpn".to_owned()].into());
    assert_eq!(torrent.restarts_with, ["vpn".to_owned()].into());
}

#[test]
fn p19_what_a_source_mounts_is_mounted_by_all_who_have_its_volumes() {
    let model = shared("", "");
    for service in ["vpn", "torrent", "more"] {
        let mounted = model.services[&name(service)].mounts("/d", &path("app.conf"));
        assert_eq!(mounted, Some(Mounted::Singly), "{service}");
    }
    assert_eq!(model.services[&name("db")].mounts("/d", &path("app.conf")), None);
}

#[test]
fn p12_p19_inline_configs_and_secrets_are_known_by_hashes_and_told_apart_by_name() {
    let copied = |model: &Model| model.services[&name("more")].copied.clone();
    let resolved = |value: &str| {
        let mut copied = copied(&shared("", ""));
        assert!(copied.has_variables());
        copied.resolve(&variables_told(&format!("OTHER=1\nKEY={value}\nLAST=x\n")));
        assert!(!copied.has_variables());
        copied
    };
    let v1 = resolved("hunter2");
    assert!(v1.differing(&resolved("hunter2")).is_empty());
    assert_eq!(v1.differing(&resolved("hunter3")), ["secret key"]);
    assert_eq!(v1.differing(&resolved("hunter2\nand a second line")), ["secret key"]);
    assert_eq!(copied(&shared("v1", "v2")).differing(&copied(&shared("", ""))), ["config app"]);
    // One that is a file now is mounted, and no longer copied.
    let file = copied(&shared(r#""content":"backend=v1""#, r#""file":"/d/x""#));
    assert_eq!(file.differing(&copied(&shared("", ""))), ["config app"]);
    assert!(!serde_json::to_string(&v1).unwrap().contains("hunter2"));
    let read: Copied = serde_json::from_str(&serde_json::to_string(&v1).unwrap()).unwrap();
    assert_eq!(read, v1);
}

#[test]
fn p19_what_variables_hold_is_told_in_any_order() {
    let one = variables_told("KEY=a\nOTHER=x\nMORE=1\nsecond\nOTHER=y\n");
    assert_eq!(one, variables_told("MORE=1\nsecond\nOTHER=y\nOTHER=x\nKEY=a\n"));
    assert_eq!((one["MORE"].as_str(), one["OTHER"].as_str()), ("1\nsecond", "xy"));
}

#[test]
fn p19_what_may_be_one_of_two_differs_from_each_and_an_untold_variable_from_none() {
    let copied = |content: &str| {
        let model = shared("v1", content);
        let mut copied = model.services[&name("more")].copied.clone();
        copied.resolve(&variables_told("KEY=hunter2\n"));
        copied
    };
    let (one, two) = (copied("v1"), copied("v2"));
    let doubtful = one.clone().or(&two);
    assert_eq!(doubtful.differing(&one), ["config app"]);
    assert_eq!(two.differing(&doubtful), ["config app"]);
    assert_eq!(one.clone().or(&one), one);
    let read: Copied = serde_json::from_str(&serde_json::to_string(&doubtful).unwrap()).unwrap();
    assert_eq!(read, doubtful);
    // A compose that can't tell what is in a variable is no reason to make anything anew.
    let untold = shared("", "").services[&name("more")].copied.clone();
    assert!(untold.differing(&one).is_empty() && one.differing(&untold).is_empty());
}
