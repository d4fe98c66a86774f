//! P9: going back over several releases, against a model that remembers every state.

use proptest::prelude::*;

use super::*;

type Files = BTreeMap<&'static str, u8>;

const NAMES: [&str; 4] = ["a", "b", "c/d", "c/e"];

fn kept(at: &str, was: Option<u8>) -> KeptFile {
    let before = was.map_or(Was::Absent, |content| Was::File {
        sha256: sha256(&[content]),
        size: 1,
        mode: 0o644,
        uid: 0,
        gid: 0,
    });
    KeptFile { path: path(at), before }
}

/// Each release changes some files to some content, or removes them; gives every state and the restore points.
fn released(releases: &[Vec<(usize, Option<u8>)>]) -> (Vec<Files>, Vec<KeptFiles>) {
    let (mut states, mut points) = (vec![Files::new()], Vec::new());
    for (number, release) in releases.iter().enumerate() {
        let before = states.last().unwrap().clone();
        let mut after = before.clone();
        for (at, content) in release {
            match content {
                Some(content) => after.insert(NAMES[*at], *content),
                None => after.remove(NAMES[*at]),
            };
        }
        let changed = NAMES.into_iter().filter(|name| before.get(name) != after.get(name));
        let files = changed.map(|name| kept(name, before.get(name).copied())).collect();
        let operation = OperationId::parse(format!("op-{number}")).unwrap();
        points.push(KeptFiles { operation, files, new_folders: vec![] });
        states.push(after);
    }
    (states, points)
}

proptest! {
    #[test]
    fn p9_of_several_restore_points_the_first_that_has_a_path_decides(
        releases in prop::collection::vec(prop::collection::vec((0..NAMES.len(), prop::option::of(0u8..3)), 0..4), 1..8),
        to in any::<prop::sample::Index>(),
    ) {
        let (states, points) = released(&releases);
        let to = to.index(points.len());
        let mut found: BTreeMap<String, String> = states
            .last()
            .unwrap()
            .iter()
            .map(|(name, content)| ((*name).to_owned(), sha256(&[*content]).to_string()))
            .collect();
        for (path, (operation, kept)) in earliest_states(&points[to..]) {
            prop_assert!(points[to..].iter().any(|point| point.operation == *operation && point.files.contains(kept)));
            match &kept.before {
                Was::Absent => found.remove(path.as_str()),
                Was::File { sha256, .. } => found.insert(path.to_string(), sha256.to_string()),
            };
        }
        let wanted: BTreeMap<String, String> =
            states[to].iter().map(|(name, content)| ((*name).to_owned(), sha256(&[*content]).to_string())).collect();
        prop_assert_eq!(found, wanted);
    }
}
