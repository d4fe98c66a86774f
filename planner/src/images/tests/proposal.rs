//! Proposals for the kinds of projects that people have.

use std::collections::BTreeMap;

use tenantry_api::names::{EnvKey, RelativePath, ServiceName};
use tenantry_api::tenant::ImageSetting;

use super::super::proposal::{FoundService, FoundVariable, Moves, Other, Proposal, WrittenAt, propose};
use super::super::variable::{Settable, Use};
use crate::model::ImageFrom;

/// A service whose compose file writes `text`, which compose reads as `reference`.
fn read_as(name: &str, text: &str, reference: &str) -> FoundService {
    FoundService {
        name: ServiceName::parse(name).unwrap(),
        reference: reference.to_owned(),
        from: ImageFrom::Registry,
        written: Some(WrittenAt {
            path: RelativePath::parse("compose.yaml").unwrap(),
            line: 3,
            text: text.to_owned(),
        }),
    }
}

fn written(name: &str, text: &str) -> FoundService {
    read_as(name, text, text)
}

fn built(name: &str, reference: &str) -> FoundService {
    FoundService { from: ImageFrom::Host, written: None, ..written(name, reference) }
}

fn variable(name: &str, uses: &[(&str, Use)]) -> FoundVariable {
    let uses = uses.iter().map(|(name, how)| (ServiceName::parse(*name).unwrap(), how.clone()));
    FoundVariable {
        name: EnvKey::parse(name).unwrap(),
        settable: Settable::AsItIs,
        uses: uses.collect::<BTreeMap<_, _>>(),
    }
}

fn tag(tag: &str) -> Use {
    Use::Tag(tag.to_owned())
}

fn of(services: &[FoundService], variables: &[FoundVariable]) -> Proposal {
    propose(services, variables).unwrap()
}

fn patch(proposal: &Proposal) -> Vec<(&str, &str)> {
    proposal.patch.iter().map(|patch| (patch.name.as_str(), patch.value.as_str())).collect()
}

fn setting(name: &str, new_tag: Option<&str>) -> ImageSetting {
    ImageSetting { name: name.to_owned(), new_tag: new_tag.map(str::to_owned), ..ImageSetting::default() }
}

#[test]
fn a_variable_that_sets_tags_is_the_release() {
    let services = [
        read_as("web", "r/shop:${TAG:-v1}", "r/shop:v1"),
        read_as("job", "r/job:${TAG:-v1}", "r/job:v1"),
        written("db", "postgres:16"),
    ];
    let proposal = of(&services, &[variable("TAG", &[("web", tag("v1")), ("job", tag("v1"))])]);
    assert_eq!(proposal.image_tag.as_deref(), Some("v1"));
    assert_eq!(patch(&proposal), [("TAG", "$(imageTag)")]);
    assert_eq!((proposal.services.len(), proposal.images.len()), (2, 0));
    assert_eq!(proposal.others, [Other::Image(setting("postgres", Some("16")))]);
}

#[rstest::rstest]
#[case::the_one_that_reaches_most("A_VERSION", &["web"], "B_VERSION", &["job", "mail"], "B_VERSION")]
#[case::never_a_database_s("PG_VERSION", &["db", "db2"], "APP", &["web"], "APP")]
#[case::the_one_that_sounds_like_it("SHOP", &["web"], "TAG", &["job"], "TAG")]
fn of_several_variables_one_is_the_release(
    #[case] first: &str,
    #[case] reached: &[&str],
    #[case] second: &str,
    #[case] also: &[&str],
    #[case] release: &str,
) {
    let names =
        [("web", "r/web"), ("job", "r/job"), ("mail", "r/mail"), ("db", "postgres"), ("db2", "mariadb")];
    let services: Vec<FoundService> = names
        .iter()
        .map(|(name, image)| read_as(name, &format!("{image}:${{V}}"), &format!("{image}:1")))
        .collect();
    let uses = |names: &[&'static str]| names.iter().map(|name| (*name, tag("1"))).collect::<Vec<_>>();
    let known = |names: &[&str]| -> Vec<&'static str> {
        ["web", "job", "mail", "db", "db2"].into_iter().filter(|name| names.contains(name)).collect()
    };
    let variables = [variable(first, &uses(&known(reached))), variable(second, &uses(&known(also)))];
    let proposal = of(&services, &variables);
    assert_eq!(proposal.moves, Moves::Variable(EnvKey::parse(release).unwrap()));
    assert_eq!(proposal.others.len(), 1, "the other is told, and left alone");
}

#[test]
fn a_whole_image_in_a_variable_keeps_its_name() {
    let services = [read_as("web", "${IMAGE}", "r:5000/shop:v1")];
    let variables = [variable("IMAGE", &[("web", Use::Reference("r:5000/shop:v1".to_owned()))])];
    let proposal = of(&services, &variables);
    assert_eq!(proposal.image_tag.as_deref(), Some("v1"));
    assert_eq!(patch(&proposal), [("IMAGE", "r:5000/shop:$(imageTag)")]);
}

#[rstest::rstest]
#[case::a_tag("r/shop:1.2", Some("1.2"), "r/shop", Some("$(imageTag)"))]
#[case::no_tag("r/shop", Some("latest"), "r/shop", Some("$(imageTag)"))]
fn what_is_written_out_is_set_there(
    #[case] text: &str,
    #[case] image_tag: Option<&str>,
    #[case] name: &str,
    #[case] new_tag: Option<&str>,
) {
    let proposal = of(&[written("cache", "redis:7"), written("web", text)], &[]);
    assert_eq!(proposal.image_tag.as_deref(), image_tag);
    assert_eq!(proposal.images, [setting(name, new_tag)]);
    assert_eq!(proposal.others, [Other::Image(setting("redis", Some("7")))]);
}

#[test]
fn a_name_that_comes_from_a_variable_is_named_as_compose_reads_it() {
    let proposal = of(&[read_as("web", "${REGISTRY}/shop:v1", "r:5000/shop:v1")], &[]);
    assert_eq!(proposal.images, [setting("r:5000/shop", Some("$(imageTag)"))]);
}

#[test]
fn a_digest_is_named_with_the_tag_beside_it_and_needs_no_release() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let proposal = of(&[written("web", &format!("r/shop:v1@{digest}"))], &[]);
    assert_eq!((proposal.moves.clone(), proposal.image_tag.clone()), (Moves::Digest, None));
    let image = &proposal.images[0];
    assert_eq!((image.new_tag.as_deref(), image.digest.as_deref()), (Some("v1"), Some(digest.as_str())));
}

#[test]
fn services_are_named_where_others_have_the_same_image_at_another_tag() {
    let services = [written("a", "r/shop:v1"), written("b", "r/shop:v1"), written("c", "r/shop:v2")];
    let proposal = of(&services, &[]);
    assert_eq!(proposal.image_tag.as_deref(), Some("v1"));
    assert_eq!(proposal.images[0].services, ["a", "b"]);
}

#[rstest::rstest]
#[case::built_here(built("web", "shop-web"), &[], "shop-web", "latest", "built on this host")]
#[case::a_variable_without_a_tag(
    read_as("web", "${IMAGE}", "r/shop"),
    &[("IMAGE", Use::Other)],
    "r/shop",
    "latest",
    "compose.yaml line 3 comes from IMAGE"
)]
fn what_no_tag_can_move_is_named_as_it_is(
    #[case] service: FoundService,
    #[case] uses: &[(&str, Use)],
    #[case] name: &str,
    #[case] new_tag: &str,
    #[case] why: &str,
) {
    let variables: Vec<FoundVariable> =
        uses.iter().map(|(name, how)| variable(name, &[("web", how.clone())])).collect();
    let proposal = of(&[service], &variables);
    assert_eq!(proposal.image_tag, None);
    assert_eq!(proposal.images, [setting(name, Some(new_tag))]);
    let Moves::Nothing(said) = &proposal.moves else { panic!("{proposal:?}") };
    assert!(said.contains(why), "{said}");
}

#[test]
fn a_database_is_never_the_release_of_what_is_built_here() {
    let proposal = of(&[built("web", "shop-web"), written("db", "postgres:16")], &[]);
    assert!(matches!(proposal.moves, Moves::Nothing(_)), "{proposal:?}");
    assert_eq!((proposal.image_tag, proposal.images), (None, vec![setting("shop-web", Some("latest"))]));
    assert_eq!(proposal.others, [Other::Image(setting("postgres", Some("16")))]);
    let alone = of(&[written("db", "postgres:16")], &[]);
    assert_eq!(alone.image_tag.as_deref(), Some("16"), "where nothing else is, it is");
}

#[test]
fn a_variable_that_env_makes_of_others_is_left_alone() {
    let services = [read_as("web", "r/shop:${TAG}", "r/shop:v1")];
    let derived =
        FoundVariable { settable: Settable::MadeOfOthers, ..variable("TAG", &[("web", tag("v1"))]) };
    let base = variable("VERSION", &[("web", tag("1"))]);
    assert_eq!(patch(&of(&services, &[derived, base])), [("VERSION", "$(imageTag)")]);
}

#[test]
fn a_variable_with_another_default_elsewhere_is_left_alone_and_said() {
    let services = [
        read_as("netbox", "r/netbox:${VERSION-latest}", "r/netbox:latest"),
        written("db", "postgres:16"),
        written("nginx", "nginx:1.13"),
    ];
    let elsewhere = FoundVariable {
        settable: Settable::OtherwiseElsewhere,
        ..variable("VERSION", &[("netbox", tag("latest"))])
    };
    let proposal = of(&services, &[elsewhere]);
    assert_eq!((patch(&proposal), proposal.image_tag.as_deref()), (vec![], None));
    let Moves::Nothing(why) = &proposal.moves else { panic!("{proposal:?}") };
    assert!(why.contains("netbox") && why.contains("`VERSION=latest`"), "{why}");
}
