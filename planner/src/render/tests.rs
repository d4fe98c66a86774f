// Values are written where they are used.
#![allow(clippy::needless_pass_by_value)]

use super::*;
use crate::bundle::Sources;
use serde_json::json;
use tenantry_api::tenant::TenantSpec;

fn intent() -> Intent {
    let spec: TenantSpec = serde_json::from_value(json!({
        "host": "n5", "project": "acme", "directory": "/srv/acme", "imageTag": "v2", "bundle": "hello",
    }))
    .unwrap();
    Intent::parse("0a1b2c3d-0000-4000-8000-000000000001", "fleet", "acme", &spec).unwrap()
}

fn render_text(template: &str, values: serde_json::Value) -> Result<String, Refusal> {
    render_files(&[("a.tera", template)], values, TIME_LIMIT).map(|files| files[0].clone())
}

fn render_files(
    templates: &[(&str, &str)],
    values: serde_json::Value,
    within: Duration,
) -> Result<Vec<String>, Refusal> {
    let entries: Vec<_> = templates.iter().map(|(path, _)| format!("- source: {path}\n")).collect();
    let yaml = format!("files:\n{}", entries.concat());
    let mut sources: Sources =
        templates.iter().map(|(path, text)| ((*path).to_owned(), Arc::from(text.as_bytes()))).collect();
    sources.insert("bundle.yaml".to_owned(), Arc::from(yaml.as_bytes()));
    let bundle = Bundle::parse("hello", sources).unwrap();
    let values = values.as_object().unwrap().clone();
    let rendered = render(&bundle, &intent(), &values, Instant::now() + within)?;
    Ok(rendered.contents.into_iter().map(|file| String::from_utf8(file.content.0).unwrap()).collect())
}

#[test]
fn a_template_sees_what_is_documented() {
    let template = "{{ imageTag }} {{ values.domain }} {{ tenant.name }} {{ tenant.namespace }} {{ project }} {{ directory }}";
    let text = render_text(template, json!({"domain": "acme.example"})).unwrap();
    assert_eq!(text, "v2 acme.example acme fleet acme /srv/acme");
}

#[test]
fn nothing_is_escaped_and_every_byte_is_kept() {
    let text = render_text(
        "a: \"{{ values.x }}\"\r\n{% for i in [1, 2] -%}\n {{ i }}{% endfor %}\n",
        json!({"x": "<&'\""}),
    );
    assert_eq!(text.unwrap(), "a: \"<&'\"\"\r\n12\n");
}

#[test]
fn other_files_are_copied_byte_for_byte() {
    let files = render_files(&[("a.conf", "{{ undefined }} {% for"), ("b.tera", "x")], json!({}), TIME_LIMIT)
        .unwrap();
    assert_eq!(files, ["{{ undefined }} {% for", "x"]);
}

#[test]
fn a_template_that_cannot_be_parsed_makes_its_bundle_invalid() {
    let refused = |text: &[u8]| {
        let files: [(&str, &[u8]); 3] = [
            ("bundle.yaml", b"files:\n- source: a.tera\n"),
            ("a.tera", b"{% include \"not-written-yet.tera\" %}{{ values.x | nofilter }}"),
            ("parts/b.tera", text),
        ];
        let sources: Sources =
            files.iter().map(|(path, text)| ((*path).to_owned(), Arc::from(*text))).collect();
        Bundle::parse("hello", sources).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(
        refused(b"{% for x in values.list %}{{ x }}{% endfor %}"),
        Ok(()),
        "what else is wrong is told by rendering"
    );
    let syntax = refused(b"one\n{{ imageTag\n").unwrap_err();
    assert!(
        syntax.starts_with("parts/b.tera, line ") && syntax.ends_with("; correct the template"),
        "{syntax}"
    );
    assert_eq!(refused(b"\xff").unwrap_err(), "parts/b.tera: is not UTF-8 text");
}

#[test]
fn one_template_may_include_another_of_its_bundle_and_nothing_else() {
    let include = |name: &str| format!("{{% include \"{name}\" %}}");
    let inside = include("b.tera");
    let files =
        render_files(&[("a.tera", &inside), ("b.tera", "b of {{ imageTag }}")], json!({}), TIME_LIMIT);
    assert_eq!(files.unwrap()[0], "b of v2");
    for outside in ["/etc/passwd", "../secret", "bundle.yaml"] {
        let refusal = render_text(&include(outside), json!({})).unwrap_err();
        assert_eq!(refusal.reason, RefusalReason::RenderFailed);
        assert!(refusal.message.contains(outside), "{}", refusal.message);
    }
}

#[rstest::rstest]
#[case::undefined("\n\n{{ values.domian }}", &["domian", "line 3", "a.tera"])]
#[case::undefined_root("{{ nothing }}", &["nothing", "a.tera"])]
#[case::unknown_filter("{{ imageTag | nofilter }}", &["nofilter"])]
#[case::the_environment("{{ get_env(name=\"HOME\") }}", &["get_env"])]
#[case::recursion("{% include \"a.tera\" %}", &["a.tera"])]
fn a_template_that_fails_says_where_and_why(#[case] template: &str, #[case] named: &[&str]) {
    let refusal = render_text(template, json!({})).unwrap_err();
    assert!(refusal.message.starts_with("TemplateBundle hello, "), "{}", refusal.message);
    assert!(!refusal.message.contains('\n'), "{}", refusal.message);
    for name in named {
        assert!(refusal.message.contains(name), "{name}: {}", refusal.message);
    }
}

#[test]
fn an_optional_value_can_be_asked_for() {
    let text = render_text(
        "{% if values.tls %}a{% else %}b{% endif %}{{ values.port | default(value=80) }}",
        json!({}),
    );
    assert_eq!(text.unwrap(), "b80");
}

#[test]
fn p15_output_without_end_ends() {
    let loops =
        "{% for a in range(end=10000) %}{% for b in range(end=10000) %}0123456789{% endfor %}{% endfor %}";
    let refusal = render_text(loops, json!({})).unwrap_err();
    assert!(refusal.message.contains("1 MiB") && !refusal.may_pass, "{}", refusal.message);
}

#[test]
fn p15_a_loop_without_output_ends_in_time() {
    let loops = "{% for a in range(end=100000) %}{% for b in range(end=100000) %}{% set c = b %}{% endfor %}{% endfor %}";
    let begun = Instant::now();
    let refusal = render_files(&[("a.tera", loops)], json!({}), Duration::from_millis(200)).unwrap_err();
    assert!(refusal.message.contains("longer than it may") && refusal.may_pass, "{}", refusal.message);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn p15_a_bundle_of_many_files_is_bounded_as_a_whole() {
    let big = "x".repeat(FILE_LIMIT);
    let names: Vec<String> = (0..9).map(|index| format!("{index}.tera")).collect();
    let template = "{{ values.big }}";
    let templates: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), template)).collect();
    let refusal = render_files(&templates, json!({"big": big}), TIME_LIMIT).unwrap_err();
    assert!(refusal.message.contains("8 MiB"), "{}", refusal.message);
}
