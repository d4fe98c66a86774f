use rstest::rstest;

use super::*;
use crate::compare::tests::container;
use crate::model::Model;

const MODEL: &str = r#"{"name":"acme","services":{
  "web":{"image":"x","networks":{"default":null},"ports":[
     {"mode":"ingress","host_ip":"127.0.0.1","target":8080,"published":"80","protocol":"tcp"},
     {"mode":"ingress","target":8081,"protocol":"tcp"},
     {"mode":"ingress","target":9000,"published":"9000-9002","protocol":"udp"}]},
  "fixed":{"image":"x","networks":{"fix":{"ipv4_address":"10.0.0.7"},"inner":null}},
  "inside":{"image":"x","networks":{"inner":null},"ports":[{"target":80,"published":"80","protocol":"tcp"}]},
  "old":{"image":"x","network_mode":"bridge","ports":[{"target":80,"published":"81","protocol":"tcp"}]},
  "six":{"image":"x","networks":{"default":null},"ports":[{"host_ip":"::1","target":80,"published":"80","protocol":"tcp"}]},
  "host":{"image":"x","network_mode":"host"},
  "none":{"image":"x","network_mode":"none"},
  "sharer":{"image":"x","network_mode":"service:web"},
  "outside":{"image":"x","networks":{"theirs":null}},
  "far":{"image":"x","networks":{"lan":null,"default":null},"ports":[{"target":80,"published":"80","protocol":"tcp"}]}},
 "networks":{"default":{"name":"acme_default"},"fix":{"name":"acme_fix"},"inner":{"name":"acme_inner","internal":true},
  "theirs":{"name":"proxy","external":true},"lan":{"name":"acme_lan","driver":"macvlan"}}}"#;

fn network(name: &str, kind: NetworkKind) -> Network {
    Network { id: format!("{name}-today"), name: name.to_owned(), kind, made: at(10) }
}

fn at(second: i64) -> Option<Timestamp> {
    Timestamp::from_second(second).ok()
}

fn networks() -> Networks {
    use NetworkKind::{Internal, Other, Publishes};
    let shown = vec![
        network("bridge", Publishes),
        network("acme_default", Publishes),
        network("acme_fix", Publishes),
        network("acme_inner", Internal),
        network("acme_lan", Other),
        network("proxy", Publishes),
    ];
    Networks { shown, may_hide: false }
}

fn end(name: &str) -> Endpoint {
    let (aliases, ipv4) = (vec!["web".to_owned()], "172.20.0.2".parse().ok());
    Endpoint { network: format!("{name}-today"), name: name.to_owned(), aliases, ipv4, ipv6: None }
}

fn binding(target: &str, host_ip: &str, host_port: u16) -> Binding {
    Binding { target: target.to_owned(), host_ip: host_ip.parse().ok(), host_port }
}

fn on(names: &[&str]) -> Attached {
    Attached { endpoints: names.iter().copied().map(end).collect(), ports: Vec::new() }
}

/// As compose makes a container of `web`.
fn web() -> Attached {
    let ports = vec![
        binding("8080/tcp", "127.0.0.1", 80),
        binding("8081/tcp", "0.0.0.0", 32_768),
        binding("8081/tcp", "::", 32_768),
        binding("9000/udp", "0.0.0.0", 9_001),
    ];
    Attached { ports, ..on(&["acme_default"]) }
}

fn fixed(address: &str) -> Attached {
    let mut attached = on(&["acme_fix", "acme_inner"]);
    attached.endpoints[0].ipv4 = address.parse().ok();
    attached
}

fn meant(service: &str, networks: Networks) -> Attachments {
    let model = Model::parse(MODEL.as_bytes(), "/d", "/d").unwrap();
    let (_, service) = model.services.iter().find(|(name, _)| name.as_str() == service).unwrap();
    service.attachments(&Arc::new(networks))
}

fn has(attached: Attached) -> Container {
    Container { attached, ..container("web") }
}

fn six() -> Attached {
    let mut attached = on(&["acme_default"]);
    attached.endpoints[0].ipv4 = None;
    attached
}

fn without(mut attached: Attached, target: &str) -> Attached {
    attached.ports.retain(|port| port.target != target);
    attached
}

fn earlier(mut attached: Attached) -> Attached {
    attached.endpoints[0].network = "gone".to_owned();
    attached
}

#[rstest]
#[case::as_compose_makes_it("web", web(), "")]
#[case::without_its_network("web", on(&[]), "is not on network acme_default")]
#[case::on_its_network_as_it_was(
    "web",
    earlier(web()),
    "is not on network acme_default as it is now: it was made anew"
)]
#[case::on_more_than_it_should_be("web", Attached { endpoints: [web().endpoints, on(&["proxy"]).endpoints].concat(), ..web() }, "")]
#[case::with_a_fixed_port_that_is_not_published(
    "web",
    without(web(), "8080/tcp"),
    "does not publish 127.0.0.1:80:8080/tcp"
)]
#[case::with_a_port_of_the_engines_choice_that_is_not_published(
    "web",
    without(web(), "8081/tcp"),
    "does not publish 8081/tcp"
)]
#[case::with_a_port_of_a_range_that_is_not_published(
    "web",
    without(web(), "9000/udp"),
    "does not publish 9000-9002:9000/udp"
)]
#[case::with_the_address_that_is_written_out("fixed", fixed("10.0.0.7"), "")]
#[case::with_another_address(
    "fixed",
    fixed("10.0.0.9"),
    "has the address 10.0.0.9 on network acme_fix, the compose files say 10.0.0.7"
)]
#[case::on_one_of_two_networks("fixed", on(&["acme_inner"]), "is not on network acme_fix")]
#[case::on_an_internal_network_whose_ports_are_never_published("inside", on(&["acme_inner"]), "")]
#[case::on_the_engines_bridge("old", Attached { ports: vec![binding("80/tcp", "0.0.0.0", 81)], ..on(&["bridge"]) }, "")]
#[case::off_the_engines_bridge("old", on(&[]), "is not on network bridge")]
#[case::with_a_port_of_version_six_where_that_is_off("six", on(&["acme_default"]), "")]
#[case::on_a_network_of_version_six_alone("web", six(), "")]
#[case::in_the_hosts_network("host", on(&[]), "")]
#[case::in_no_network("none", on(&[]), "")]
#[case::in_the_network_of_another("sharer", on(&[]), "")]
#[case::on_another_s_network("outside", on(&["proxy"]), "")]
#[case::whose_ports_another_driver_sees_to("far", on(&["acme_lan", "acme_default"]), "")]
fn p19_a_container(#[case] service: &str, #[case] attached: Attached, #[case] lacking: &str) {
    let found = meant(service, networks()).lacking(&has(attached));
    assert_eq!(found.unwrap_or_default(), lacking);
}

#[rstest]
#[case::is_told(false, Some("is not on network proxy, which is not on this host any more"))]
#[case::may_be_hidden_by_a_swarm(true, None)]
fn p19_a_network_that_is_not_there(#[case] may_hide: bool, #[case] lacking: Option<&str>) {
    let shown = networks().shown.into_iter().filter(|one| one.name != "proxy").collect();
    let meant = meant("outside", Networks { shown, may_hide });
    assert_eq!(meant.lacking(&has(on(&[]))).as_deref(), lacking);
}

#[rstest]
#[case::ended(ContainerState::Exited)]
#[case::was_never_started(ContainerState::Created)]
#[case::is_about_to_be_started_again(ContainerState::Restarting)]
fn a_container_is_not_blamed_for_what_it_can_t_have_while_it(#[case] state: ContainerState) {
    let container = Container { state, ..has(on(&[])) };
    assert_eq!(meant("web", networks()).lacking(&container), None);
}

#[rstest]
#[case::that_ended_on_a_network_that_is_gone(ContainerState::Exited, earlier(web()), true)]
#[case::that_ended_on_its_network(ContainerState::Exited, web(), false)]
#[case::that_ended_on_none(ContainerState::Exited, on(&[]), false)]
#[case::that_runs(ContainerState::Running, earlier(web()), false)]
fn p19_a_stranded_container_is_one(
    #[case] state: ContainerState,
    #[case] attached: Attached,
    #[case] stranded: bool,
) {
    let container = Container { state, ..has(attached) };
    assert_eq!(meant("web", networks()).is_stranded(&container), stranded);
}

#[rstest]
#[case::that_compose_connected_without_it(5, &["0123456789ab"], true)]
#[case::that_has_it(5, &["web", "0123456789ab"], false)]
#[case::that_was_so_before(15, &[], false)]
fn p19_others_don_t_find_by_name_a_container(
    #[case] since: i64,
    #[case] aliases: &[&str],
    #[case] unnamed: bool,
) {
    let mut attached = web();
    attached.endpoints[0].aliases = aliases.iter().map(|&alias| alias.to_owned()).collect();
    assert_eq!(meant("web", networks()).is_unnamed(&has(attached), at(since).unwrap()), unnamed);
}

#[test]
fn p19_a_service_without_its_network_is_not_as_expected() {
    let attached = Some(meant("web", networks()));
    let expected = crate::compare::Expected {
        lifetime: crate::compare::Lifetime::RunsOn,
        replicas: 1,
        image_id: None,
        attached,
    };
    let (good, bad) = (has(web()), has(on(&[])));
    assert_eq!(crate::compare::problem("web", &expected, &[&good]), None);
    let wrong = crate::compare::problem("web", &expected, &[&bad]).unwrap();
    assert_eq!(wrong.text(), "web is not on network acme_default");
}
