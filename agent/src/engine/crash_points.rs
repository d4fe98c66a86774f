//! Points at which a test kills the agent: around every call that changes something in the engine.

/// What calls that change nothing begin with.
const READS: [&str; 4] = ["look", "list", "tell", "ask"];

/// A point by what is asked of the engine, without names and ids.
pub(super) fn at(doing: &str, when: &str) {
    if cfg!(debug_assertions)
        && let Some(name) = name(doing)
    {
        tenantry_faults::point_named(|| format!("engine.{name}.{when}"));
    }
}

fn name(doing: &str) -> Option<String> {
    let plain = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase());
    let words: Vec<&str> = doing.split(' ').take_while(plain).take(3).collect();
    let first = words.first()?;
    (!READS.contains(first)).then(|| {
        // A tag of ours holds an image; any other is what the compose file says.
        let kept = if doing.contains("tenantry.local/keep") { "-of-ours" } else { "" };
        format!("{}{kept}", words.join("-"))
    })
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn what_changes_something_has_a_name_without_ids() {
        assert_eq!(name("stop a container").as_deref(), Some("stop-a-container"));
        assert_eq!(name("pull 127.0.0.1:5/a@sha256:0").as_deref(), Some("pull"));
        assert_eq!(name("tag an image as tenantry.local/keep/u:1").as_deref(), Some("tag-an-image-of-ours"));
        assert_eq!(name("remove the tag a:b").as_deref(), Some("remove-the-tag"));
        assert_eq!(name("look at a container"), None);
    }
}
