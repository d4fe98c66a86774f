//! Namespaces that containers share, by `network_mode`, `pid` or `ipc` of `service:` or `container:`.
//!
//! Who shares joins the namespace that the other one has at that moment. Once the other is started anew it has another, and
//! who shared the former is left in one where nobody is: of the network only `lo`. Nothing but a start of its own helps.

use super::{Container, ContainerState};

/// Whose a namespace is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Namespace {
    /// The container's own.
    #[default]
    Own,
    /// The host's.
    Host,
    /// That of the container with this id or name.
    Of(String),
}

/// The namespaces that a container can have of another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Interfaces and addresses.
    pub network: Namespace,
    /// Processes.
    pub pid: Namespace,
    /// Shared memory and queues.
    pub ipc: Namespace,
}

/// Containers that join each other's namespaces in a circle can't be made; should there be one, it ends here.
const LONGEST_CHAIN: usize = 16;

/// The container whose own a namespace is that another one has joined, perhaps through others; `None` where it is the host's,
/// or that of a container which is not of the project, or is gone.
fn owner<'a>(
    container: &Container,
    all: &'a [Container],
    kind: impl Fn(&Namespaces) -> &Namespace,
) -> Option<&'a Container> {
    let mut at = kind(&container.namespaces);
    let mut owner = None;
    for _ in 0..LONGEST_CHAIN {
        match at {
            Namespace::Own => return owner,
            Namespace::Host => return None,
            Namespace::Of(other) => {
                let one = all.iter().find(|one| one.id == *other || one.name == *other)?;
                at = kind(&one.namespaces);
                owner = Some(one);
            }
        }
    }
    None
}

/// The container in whose namespace one runs, where that one was started anew since.
fn outlived<'a>(
    container: &Container,
    all: &'a [Container],
    kind: fn(&Namespaces) -> &Namespace,
) -> Option<&'a Container> {
    let runs = matches!(container.state, ContainerState::Running | ContainerState::Paused);
    owner(container, all, kind).filter(|owner| runs && owner.started_at > container.started_at)
}

/// Whether a container runs in a namespace of another one that has been started anew since.
pub fn is_cut_off(container: &Container, all: &[Container]) -> bool {
    let kinds: [fn(&Namespaces) -> &Namespace; 3] = [|of| &of.network, |of| &of.pid, |of| &of.ipc];
    kinds.into_iter().any(|kind| outlived(container, all, kind).is_some())
}

/// What is wrong with a container whose network has gone from under it, as a sentence.
pub fn problem(container: &Container, all: &[Container]) -> Option<String> {
    let owner = &outlived(container, all, |of| &of.network)?.service;
    let name = &container.service;
    Some(format!(
        "{name} has the network of {owner}, which was started anew since, so that {name} reaches nothing: restart {name}"
    ))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::tests::container;
    use super::*;

    fn at(second: i64, one: Container) -> Container {
        Container { started_at: jiff::Timestamp::from_second(second).ok(), ..one }
    }

    fn sharer(of: Namespace, second: i64) -> Container {
        let namespaces = Namespaces { network: of, ..Namespaces::default() };
        at(second, Container { namespaces, ..container("torrent") })
    }

    fn vpn(second: i64) -> Container {
        at(second, container("vpn"))
    }

    fn of(id: &str) -> Namespace {
        Namespace::Of(id.to_owned())
    }

    #[rstest]
    #[case::that_started_after_its_owner_is_well(sharer(of("vpn-1"), 9), vpn(5), false)]
    #[case::whose_owner_started_anew_is_cut_off(sharer(of("vpn-1"), 3), vpn(5), true)]
    #[case::that_names_its_owner_is_cut_off_as_well(sharer(of("acme-vpn-1"), 3), vpn(5), true)]
    #[case::of_somebody_else_is_not_judged(sharer(of("other"), 3), vpn(5), false)]
    #[case::with_its_own_network_is_well(sharer(Namespace::Own, 3), vpn(5), false)]
    #[case::of_an_owner_on_the_hosts_network_is_well(
        sharer(of("vpn-1"), 3),
        Container { namespaces: Namespaces { network: Namespace::Host, ..Namespaces::default() }, ..vpn(5) },
        false
    )]
    #[case::that_ended_is_not_judged(
        Container { state: ContainerState::Exited, ..sharer(of("vpn-1"), 3) }, vpn(5), false
    )]
    fn p19_a_sharer(#[case] torrent: Container, #[case] vpn: Container, #[case] cut_off: bool) {
        let all = [torrent.clone(), vpn];
        assert_eq!(is_cut_off(&torrent, &all), cut_off);
        assert_eq!(problem(&torrent, &all).is_some(), cut_off);
    }

    #[test]
    fn p19_who_shares_through_another_has_the_namespace_of_the_last() {
        let (torrent, vpn) = (sharer(of("vpn-1"), 3), vpn(2));
        let through = Container {
            id: "x-1".into(),
            name: "acme-x-1".into(),
            service: "x".into(),
            ..sharer(of("torrent-1"), 1)
        };
        let all = [torrent, vpn, through.clone()];
        // `torrent` was started anew; the network is that of `vpn`, which was, too.
        assert!(is_cut_off(&through, &all));
        let through = at(2, through);
        assert!(!is_cut_off(
            &through,
            &all[..2].iter().cloned().chain([through.clone()]).collect::<Vec<_>>()
        ));
    }

    #[test]
    fn p19_a_stale_pid_namespace_is_seen_and_only_the_network_is_told_of() {
        let namespaces = Namespaces { pid: of("vpn-1"), ..Namespaces::default() };
        let torrent = at(3, Container { namespaces, ..container("torrent") });
        let all = [torrent.clone(), vpn(5)];
        assert!(is_cut_off(&torrent, &all));
        assert_eq!(problem(&torrent, &all), None);
    }
}
