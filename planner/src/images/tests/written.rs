use rstest::rstest;

use crate::images::written::*;

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn said(part: &Part) -> String {
    format!("{}<{}>", part.text, part.variables.join(","))
}

/// Name, tag and digest, each with its variables.
fn parts(value: &str) -> (String, String, String) {
    let written = Written::parse(value);
    let tag = match &written.tag {
        Tag::Absent => "-".to_owned(),
        Tag::Written(part) => said(part),
        Tag::Hidden { variables } => format!("?<{}>", variables.join(",")),
    };
    (said(&written.name), tag, written.digest.as_ref().map_or("-".to_owned(), said))
}

#[rstest]
#[case::a_name_alone("redis", "redis<>", "-", "-")]
#[case::a_tag("acme/app:v1", "acme/app<>", "v1<>", "-")]
#[case::a_port_is_no_tag("host:5000/app", "host:5000/app<>", "-", "-")]
#[case::a_port_and_a_tag("host:5000/app:v1", "host:5000/app<>", "v1<>", "-")]
#[case::a_digest("app@sha256:00", "app<>", "-", "sha256:00<>")]
#[case::a_tag_and_a_digest("app:v1@sha256:00", "app<>", "v1<>", "sha256:00<>")]
#[case::an_empty_tag("app:", "app<>", "<>", "-")]
#[case::a_variable_as_a_whole("${IMAGE}", "${IMAGE}<IMAGE>", "?<IMAGE>", "-")]
#[case::without_braces("$IMAGE", "$IMAGE<IMAGE>", "?<IMAGE>", "-")]
#[case::with_a_default(
    "${IMAGE:-a.io/b:v1@sha256:0}",
    "${IMAGE:-a.io/b:v1@sha256:0}<IMAGE>",
    "?<IMAGE>",
    "-"
)]
#[case::a_registry("${REGISTRY}/app:v1", "${REGISTRY}/app<REGISTRY>", "v1<>", "-")]
#[case::a_registry_without_a_tag("${REGISTRY}/app", "${REGISTRY}/app<REGISTRY>", "-", "-")]
#[case::a_registry_with_a_port("${HOST:-a}:${PORT}/app", "${HOST:-a}:${PORT}/app<HOST,PORT>", "-", "-")]
#[case::a_tag_from_a_variable("app:${TAG}", "app<>", "${TAG}<TAG>", "-")]
#[case::a_tag_without_braces("app:$TAG", "app<>", "$TAG<TAG>", "-")]
#[case::a_tag_in_part("app:v${MAJOR}.${MINOR-0}", "app<>", "v${MAJOR}.${MINOR-0}<MAJOR,MINOR>", "-")]
#[case::a_tag_with_a_default("app:${TAG:-v1:/@x}", "app<>", "${TAG:-v1:/@x}<TAG>", "-")]
#[case::a_default_of_a_variable("app:${A:-${B:-x}-$C}y", "app<>", "${A:-${B:-x}-$C}y<A,B,C>", "-")]
#[case::an_error_gets_into_no_tag(
    "app:${A:?no ${B:-x} or $C}${D?e}",
    "app<>",
    "${A:?no ${B:-x} or $C}${D?e}<A,D>",
    "-"
)]
#[case::another_value("app${A:+:v1}", "app${A:+:v1}<A>", "?<A>", "-")]
#[case::the_same_twice("${A}/${A}:$A", "${A}/${A}<A>", "$A<A>", "-")]
#[case::a_tag_behind_a_variable("${IMAGE}:v1", "${IMAGE}<IMAGE>", "v1<>", "-")]
#[case::a_last_part_in_part("a.io/app-${X}", "a.io/app-${X}<X>", "?<X>", "-")]
#[case::a_digest_from_a_variable("app:v1@${D}", "app<>", "v1<>", "${D}<D>")]
#[case::a_digest_behind_a_variable("${A}@sha256:0", "${A}<A>", "?<A>", "sha256:0<>")]
#[case::two_dollars_are_one_character("a$$B:v1", "a$$B<>", "v1<>", "-")]
#[case::two_dollars_in_a_default("app:${A:-$$B}", "app<>", "${A:-$$B}<A>", "-")]
#[case::a_brace_of_its_own("a}b:v1", "a}b<>", "v1<>", "-")]
#[case::a_name_of_any_letters("app:$ſ_1K.x", "app<>", "$ſ_1K.x<ſ_1K>", "-")]
fn a_reference_is_taken_apart(
    #[case] value: &str,
    #[case] name: &str,
    #[case] tag: &str,
    #[case] digest: &str,
) {
    assert_eq!(parts(value), (name.to_owned(), tag.to_owned(), digest.to_owned()));
    assert_eq!(Written::parse(value).with(&Change::default()).unwrap_or(value.to_owned()), value);
}

fn change(new_name: &str, new_tag: &str, digest: &str) -> Change {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Change { new_name: some(new_name), new_tag: some(new_tag), digest: some(digest) }
}

#[rstest]
#[case::a_tag("app:v1", change("", "v2", ""), "app:v2")]
#[case::a_tag_where_there_is_none("host:5000/app", change("", "v2", ""), "host:5000/app:v2")]
#[case::a_tag_drops_the_digest("app:v1@sha256:0", change("", "v2", ""), "app:v2")]
#[case::a_digest_drops_the_tag("app:v1", change("", "", DIGEST), "app@D")]
#[case::a_digest_replaces_a_digest("app:v1@sha256:0", change("", "", DIGEST), "app@D")]
#[case::both("app@sha256:0", change("", "v2", DIGEST), "app:v2@D")]
#[case::a_name_keeps_tag_and_digest("app:v1@sha256:0", change("b.io/c", "", ""), "b.io/c:v1@sha256:0")]
#[case::all("app:v1", change("host:1/b", "v2", DIGEST), "host:1/b:v2@D")]
#[case::nothing("app:v1", change("", "", ""), "app:v1")]
#[case::a_tag_beside_a_variable("${REGISTRY}/app:v1", change("", "v2", ""), "${REGISTRY}/app:v2")]
#[case::a_first_tag_beside_a_variable("${REGISTRY}/app", change("", "v2", ""), "${REGISTRY}/app:v2")]
#[case::a_tag_behind_a_variable("${IMAGE:-a:1}:v1", change("", "v2", ""), "${IMAGE:-a:1}:v2")]
#[case::a_name_before_a_variable("app:${TAG:-v1}", change("b", "", ""), "b:${TAG:-v1}")]
#[case::a_name_before_a_digest_variable("app:v1@${D}", change("b", "", ""), "b:v1@${D}")]
#[case::a_tag_with_a_line_end("app:v1\n", change("", "v2", ""), "app:v2")]
fn literal_parts_change(#[case] value: &str, #[case] change: Change, #[case] after: &str) {
    assert_eq!(Written::parse(value).with(&change).unwrap(), after.replace("@D", &format!("@{DIGEST}")));
}

#[rstest]
#[case::the_tag(
    "app:v$A.${B:-$C}",
    change("", "v2", ""),
    "its tag comes from the variables A, B, C; set that with env.patch"
)]
#[case::the_tag_that_a_digest_would_drop(
    "app:${TAG}",
    change("", "", DIGEST),
    "its tag comes from the variable TAG;"
)]
#[case::a_tag_that_may_be_hidden(
    "a.io/${IMAGE}",
    change("", "v2", ""),
    "its tag comes from the variable IMAGE;"
)]
#[case::the_whole("${IMAGE:-app:v1}", change("", "v2", ""), "its tag comes from the variable IMAGE;")]
#[case::the_name("${IMAGE:-app:v1}", change("b", "", ""), "its name comes from the variable IMAGE;")]
#[case::the_name_in_part("${R}/app:v1", change("b", "v2", ""), "its name comes from the variable R;")]
#[case::the_digest("app@${D}", change("", "v2", ""), "its digest comes from the variable D;")]
#[case::a_lone_sign("app:v1$", change("", "v2", ""), "it has a '$'")]
#[case::open_braces("app:${TAG", change("", "v2", ""), "it has a '$'")]
#[case::braces_without_a_name("app:${}", change("b", "", ""), "it has a '$'")]
#[case::a_bad_operator("app:${TAG:v1}", change("b", "", ""), "it has a '$'")]
#[case::a_bad_default("app:${TAG:-$}", change("b", "", ""), "it has a '$'")]
#[case::a_number("app:$1", change("b", "", ""), "it has a '$'")]
#[case::no_reference("A B", change("", "v2", ""), "what is written is no image's name")]
#[case::nothing("", change("", "v2", ""), "what is written is no image's name")]
#[case::a_bad_name("app", change("b:v1", "", ""), "the new name is no image's name")]
#[case::a_variable_as_name("app", change("${A}", "", ""), "the new name is no image's name")]
#[case::a_bad_tag("app", change("", ".v1", ""), "the new tag is no tag")]
#[case::a_long_tag("app", change("", &"v".repeat(129), ""), "the new tag is no tag")]
#[case::a_bad_digest("app", change("", "", "sha256:00"), "the digest is none")]
#[case::a_digest_in_capitals("app", change("", "", &DIGEST.replace('a', "A")), "the digest is none")]
fn what_cannot_change_says_why(#[case] value: &str, #[case] change: Change, #[case] words: &str) {
    let error = Written::parse(value).with(&change).unwrap_err().to_string();
    assert!(error.starts_with(words), "{error}");
}

#[test]
fn deep_and_long_text_is_read_once() {
    let begun = std::time::Instant::now();
    for part in ["${A:-", "$A", "${A}", "$$", "$", "}", ":", "@", "/", "${A?"] {
        let written = Written::parse(&part.repeat(100_000));
        let _ = written.with(&Change { new_tag: Some("v2".to_owned()), ..Change::default() });
    }
    assert!(begun.elapsed() < std::time::Duration::from_mins(1), "{:?}", begun.elapsed());
}
