use super::*;

fn sources(yaml: &str) -> Sources {
    let files: [(&str, &str); 6] = [
        (BUNDLE_FILE, yaml),
        ("docker-compose.yml.tera", "services: {}"),
        ("nginx/site.conf", "server {}"),
        ("NGINX/site.conf", "server {}"),
        (".env.tera", "A=1"),
        ("a", "a"),
    ];
    files.iter().map(|(path, text)| ((*path).to_owned(), Arc::from(text.as_bytes()))).collect()
}

fn problem(yaml: &str) -> String {
    Bundle::parse("hello", sources(yaml)).unwrap_err().to_string()
}

#[test]
fn a_bundle_is_understood_with_its_defaults() {
    let yaml = "files:\n\
                - source: docker-compose.yml.tera\n\
                - {source: nginx/site.conf, destination: nginx/conf.d/site.conf, mode: '0640', owner: '101:101'}\n\
                - source: .env.tera\n\
                services: {migrate: {kind: Job}, web: {kind: Service}}\n\
                onChange:\n\
                - {paths: [nginx/conf.d/], services: [nginx], signal: HUP}\n";
    let bundle = Bundle::parse("hello", sources(yaml)).unwrap();
    let shown: Vec<_> =
        bundle.files.iter().map(|file| (file.destination.as_str(), file.mode, file.template)).collect();
    assert_eq!(
        shown,
        [
            (".env", 0o600, true),
            ("docker-compose.yml", 0o644, true),
            ("nginx/conf.d/site.conf", 0o640, false)
        ]
    );
    assert!(bundle.files[0].sensitive && !bundle.files[1].sensitive);
    assert_eq!(bundle.files[2].owner, Some(Owner { uid: 101, gid: 101 }));
    assert_eq!(bundle.jobs.iter().map(ServiceName::as_str).collect::<Vec<_>>(), ["migrate"]);
    assert_eq!(bundle.on_change[0].signal.as_deref(), Some("SIGHUP"));
    assert_eq!(bundle.on_change[0].paths[0].as_str(), "nginx/conf.d");
}

#[rstest::rstest]
#[case::no_files("files: []", "files: is empty")]
#[case::unknown_field("files: [{source: a, colour: red}]", "colour")]
#[case::no_such_source("files: [{source: b}]", "files[0].source: the bundle has no file \"b\"")]
#[case::the_bundle_file("files: [{source: bundle.yaml}]", "itself")]
#[case::leaves_the_directory("files: [{source: a, destination: ../a}]", "'..'")]
#[case::absolute("files: [{source: a, destination: /etc/a}]", "is absolute")]
#[case::the_agents_own("files: [{source: a, destination: .tenantry/a}]", "agent's own")]
#[case::twice("files: [{source: a}, {source: nginx/site.conf, destination: a}]", "twice")]
#[case::case_collision("files: [{source: nginx/site.conf}, {source: NGINX/site.conf}]", "tell apart")]
#[case::unicode_collision(
    "files: [{source: a, destination: \"caf\\u00e9\"}, {source: nginx/site.conf, destination: \"cafe\\u0301\"}]",
    "tell apart"
)]
#[case::file_as_folder(
    "files: [{source: a, destination: x}, {source: nginx/site.conf, destination: x/y}]",
    "beneath"
)]
#[case::setuid("files: [{source: a, mode: '4755'}]", "permission bits")]
#[case::a_name_as_owner("files: [{source: a, owner: 'root:root'}]", "numeric")]
#[case::env_not_sensitive("files: [{source: .env.tera, sensitive: false}]", "always sensitive")]
#[case::killing_signal(
    "files: [{source: a}]\nonChange: [{paths: [a], services: [x], signal: SIGKILL}]",
    "SIGHUP"
)]
#[case::service_name("files: [{source: a}]\nservices: {'--help': {kind: Job}}", "service")]
#[case::duplicate_key("files: [{source: a}]\nfiles: [{source: a}]", "duplicate")]
#[case::not_yaml("files: [", "bundle.yaml")]
fn a_bundle_yaml_is_refused_with_its_place(#[case] yaml: &str, #[case] cause: &str) {
    let problem = problem(yaml);
    assert!(problem.starts_with("bundle.yaml: ") && problem.contains(cause), "{problem}");
    assert!(!problem.contains('\n'), "{problem}");
}

#[test]
fn a_misspelt_field_is_named_with_its_line() {
    let problem = problem("files:\n- source: a\n  colour: red\n");
    assert!(problem.contains("line 3"), "{problem}");
}

#[test]
fn a_bundle_without_bundle_yaml_says_so() {
    let error = Bundle::parse("hello", Sources::new()).unwrap_err();
    assert_eq!(error.to_string(), "bundle.yaml: is missing; a bundle needs it to say which files go where");
}

#[test]
fn the_digest_tells_a_moved_boundary_apart() {
    let one = |path: &str, text: &str| Sources::from([(path.to_owned(), Arc::from(text.as_bytes()))]);
    assert_ne!(digest(&one("ab", "c")), digest(&one("a", "bc")));
    assert_eq!(digest(&one("a", "b")), digest(&one("a", "b")));
}

#[test]
fn a_key_of_a_config_map_is_a_path() {
    assert_eq!(path_of_key("nginx__conf.d__site.conf"), "nginx/conf.d/site.conf");
}

proptest::proptest! {
    #[test]
    fn p15_no_text_makes_the_reader_panic(text in ".{0,200}") {
        let _ = Bundle::parse("any", sources(&text));
    }
}
