//! Where the paths of a staged tree lead from the directory that it is for.
//!
//! A relative path that climbs out of the tree (`../shared`) is printed by compose as a path from `/`, and leads somewhere else
//! than it will from the real directory. Read from a second tree that lies one folder deeper, it leads somewhere else
//! again, and what both have in common says how far it climbs. What is the same in both was written out from `/`.

use serde_json::Value;

use super::{ModelError, beneath, relocate};

/// The folders that one model is read in.
#[derive(Clone, Copy, Debug)]
pub struct Roots<'a> {
    /// The staged tree.
    pub staged: &'a str,
    /// The same, one folder deeper.
    pub deeper: &'a str,
    /// The directory that both are for.
    pub real: &'a str,
}

/// The model that compose printed in the staged tree, with every path as it leads from the real directory.
pub fn seen_from_real(staged: &[u8], deeper: &[u8], roots: Roots<'_>) -> Result<Vec<u8>, ModelError> {
    let read = |json: &[u8]| -> Result<Value, ModelError> {
        serde_json::from_slice(json)
            .map_err(|error| ModelError::Undecodable { line: error.line(), column: error.column() })
    };
    let mut model = read(staged)?;
    settle(&mut model, &read(deeper)?, roots)?;
    Ok(model.to_string().into_bytes())
}

fn settle(one: &mut Value, other: &Value, roots: Roots<'_>) -> Result<(), ModelError> {
    match (one, other) {
        (Value::String(path), Value::String(deeper)) if path != deeper => {
            *path = leads(path, deeper, roots)?;
            Ok(())
        }
        (Value::Array(all), Value::Array(others)) => {
            all.iter_mut().zip(others).try_for_each(|(one, other)| settle(one, other, roots))
        }
        (Value::Object(all), Value::Object(others)) => all
            .iter_mut()
            .filter_map(|(key, one)| Some((one, others.get(key)?)))
            .try_for_each(|(one, other)| settle(one, other, roots)),
        _ => Ok(()),
    }
}

/// Where a path leads from the real directory that is `path` in the staged tree and `deeper` in the other one.
fn leads(path: &str, deeper: &str, roots: Roots<'_>) -> Result<String, ModelError> {
    let mut found: Vec<String> = Vec::new();
    let folders = roots.deeper.matches('/').count();
    for climbed in 0..=folders {
        let rest = beneath(above(roots.staged, climbed), path);
        if let Some(rest) = rest.filter(|rest| beneath(above(roots.deeper, climbed), deeper) == Some(*rest)) {
            let leads = format!("{}/{rest}", above(roots.real, climbed).trim_end_matches('/'));
            let leads = if rest.is_empty() && leads.len() > 1 { leads.trim_end_matches('/') } else { &leads };
            if !found.iter().any(|known| known == leads) {
                found.push(leads.to_owned());
            }
        }
    }
    match found.as_slice() {
        [leads] => Ok(leads.clone()),
        // No path, but a text with one in it.
        [] => Ok(relocate(path, roots.staged, roots.real)),
        _ => Err(ModelError::Climbs { path: path.to_owned() }),
    }
}

/// The folder so many levels above; nothing is above `/`.
fn above(folder: &str, levels: usize) -> &str {
    let mut folder = folder;
    for _ in 0..levels {
        folder = folder.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    if folder.is_empty() { "/" } else { folder }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ROOTS: Roots<'_> = Roots {
        staged: "/srv/acme/.tenantry/stage/p1/acme",
        deeper: "/srv/acme/.tenantry/stage/p1/acme.deeper/acme",
        real: "/srv/acme",
    };

    /// Where a path leads that is written as `written` in a compose file.
    fn from_real(written: &str) -> String {
        let read_in = |root: &str| {
            let path =
                if written.starts_with('/') { written.to_owned() } else { format!("{root}/{written}") };
            json!({"services": {"web": {"volumes": [{"source": crate::model::plain_path(&path)}]}}})
                .to_string()
        };
        let (staged, deeper) = (read_in(ROOTS.staged), read_in(ROOTS.deeper));
        let model = seen_from_real(staged.as_bytes(), deeper.as_bytes(), ROOTS).unwrap();
        let model: Value = serde_json::from_slice(&model).unwrap();
        model["services"]["web"]["volumes"][0]["source"].as_str().unwrap().to_owned()
    }

    #[rstest::rstest]
    #[case("data", "/srv/acme/data")]
    #[case(".", "/srv/acme")]
    #[case("../shared", "/srv/shared")]
    #[case("..", "/srv")]
    #[case("../acme/data", "/srv/acme/data")]
    #[case("../../etc/x", "/etc/x")]
    #[case("../../../../..", "/")]
    #[case("../../../../../srv/x", "/srv/x")]
    #[case("../../../../../../../../../etc", "/etc")]
    #[case("../acme.deeper/x", "/srv/acme.deeper/x")]
    #[case("../../p1/x", "/p1/x")]
    #[case("/srv/shared", "/srv/shared")]
    #[case("/srv/acme/data", "/srv/acme/data")]
    #[case("/srv/acme/.tenantry/stage", "/srv/acme/.tenantry/stage")]
    fn a_path_leads_where_it_will_from_the_real_directory(#[case] written: &str, #[case] leads: &str) {
        assert_eq!(from_real(written), leads);
    }

    /// The trees that hold files from outside of the directory, too.
    #[rstest::rstest]
    #[case("data", "/srv/acme/data")]
    #[case(".", "/srv/acme")]
    #[case("../shared", "/srv/shared")]
    #[case("../../etc/x", "/etc/x")]
    #[case("../../srv/acme/data", "/srv/acme/data")]
    #[case("../../../srv/x", "/srv/x")]
    #[case("/srv/shared", "/srv/shared")]
    fn a_path_leads_the_same_way_from_a_staged_root(#[case] written: &str, #[case] expected: &str) {
        let roots = Roots {
            staged: "/srv/acme/.tenantry/stage/p1/acme.root/srv/acme",
            deeper: "/srv/acme/.tenantry/stage/p1/acme.deeper/root/srv/acme",
            real: "/srv/acme",
        };
        let read_in = |root: &str| {
            let path =
                if written.starts_with('/') { written.to_owned() } else { format!("{root}/{written}") };
            crate::model::plain_path(&path)
        };
        let (staged, deeper) = (read_in(roots.staged), read_in(roots.deeper));
        let found = if staged == deeper { Ok(staged) } else { leads(&staged, &deeper, roots) };
        assert_eq!(found.ok().as_deref(), Some(expected));
    }

    #[test]
    fn p13_a_path_that_could_lead_to_two_places_is_refused() {
        let roots = Roots { staged: "/a/a/s/t", deeper: "/a/a/a/s/t", real: "/b/c" };
        // Seen from both it may climb by two or by three folders.
        assert!(matches!(leads("/a/a/x", "/a/a/a/x", roots), Err(ModelError::Climbs { .. })));
    }

    #[test]
    fn a_text_with_the_tree_in_it_names_the_real_directory() {
        let text = |root: &str| {
            json!({"command": [format!("--root={root}/x")], "environment": {"A": "b"}}).to_string()
        };
        let (staged, deeper) = (text(ROOTS.staged), text(ROOTS.deeper));
        let model = seen_from_real(staged.as_bytes(), deeper.as_bytes(), ROOTS).unwrap();
        assert_eq!(String::from_utf8(model).unwrap(), text(ROOTS.real));
    }
}
