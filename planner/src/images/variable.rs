//! What a variable is to an image, told from what compose makes of the image with the variable marked.

use super::written::{Tag, Written};

/// What stands for the release in a spec.
const IMAGE_TAG: &str = "$(imageTag)";

/// What a variable is to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// The variable holds the tag, or a part of it: this.
    Tag(String),
    /// The variable holds the reference's end, its tag included: this.
    Reference(String),
    /// The variable holds something else of the image.
    Other,
}

/// Whether a Tenant that sets a variable to what it holds leaves everything as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settable {
    /// It is written out in `.env`, or a default that is the same wherever the variable stands.
    AsItIs,
    /// `.env` makes it of other variables.
    MadeOfOthers,
    /// `.env` does not set it, and with the value that it has for the image something else would be another.
    OtherwiseElsewhere,
}

impl Use {
    /// What a reference's variable is: `marked` is the reference with the variable set to `mark`. `None` where the image
    /// does not depend on it.
    pub fn of(mark: &str, marked: &str, reference: &str) -> Option<Self> {
        let (before, after) = marked.split_once(mark)?;
        let holds = reference.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        let Some(holds) = holds.filter(|_| !after.contains(mark)) else { return Some(Self::Other) };
        let written = Written::parse(marked);
        if written.digest.as_ref().is_some_and(|digest| digest.text.contains(mark)) {
            return Some(Self::Reference(holds.to_owned()).with_a_version());
        }
        // Beside a digest a tag decides nothing.
        let decides = written.digest.is_none();
        match &written.tag {
            Tag::Written(tag) if tag.text.contains(mark) && decides => Some(Self::Tag(holds.to_owned())),
            Tag::Absent if after.is_empty() => Some(Self::Reference(holds.to_owned()).with_a_version()),
            Tag::Written(_) | Tag::Absent | Tag::Hidden { .. } => Some(Self::Other),
        }
    }

    fn with_a_version(self) -> Self {
        if self.release().is_some() { self } else { Self::Other }
    }

    /// What the variable is set to, or its default; `None` where it holds no release.
    pub fn value(&self) -> Option<String> {
        self.release().map(|(tag, value)| value.replace(IMAGE_TAG, &tag))
    }

    /// The release that it holds, and its value with the release left open; `None` where it holds none.
    pub fn release(&self) -> Option<(String, String)> {
        let holds = match self {
            Self::Tag(tag) => {
                // What no tag begins with stays in the variable: `app${VERSION}` of `-1.2`.
                let release = tag.trim_start_matches(['-', '.']);
                let before = &tag[..tag.len() - release.len()];
                return Some((release.to_owned(), format!("{before}{IMAGE_TAG}")));
            }
            Self::Reference(holds) => holds,
            Self::Other => return None,
        };
        // Of a digest it is the digits that change.
        let at = match holds.rfind('@') {
            Some(at) => at + holds[at..].find(':')?,
            None => holds.rfind(':')?,
        };
        let (name, version) = holds.split_at(at + 1);
        let is_version = !version.is_empty() && !version.contains('/');
        is_version.then(|| (version.to_owned(), format!("{name}{IMAGE_TAG}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &str = "0.0.0-m.end";

    #[rstest::rstest]
    #[case::a_tag("r/app:0.0.0-m.end", "r/app:v1", Some(("v1", "$(imageTag)")))]
    #[case::part_of_a_tag("r/app:v0.0.0-m.end-alpine", "r/app:v1.2-alpine", Some(("1.2", "$(imageTag)")))]
    #[case::a_tag_s_end_with_its_hyphen("r/app:web0.0.0-m.end", "r/app:web-1.2", Some(("1.2", "-$(imageTag)")))]
    #[case::the_whole_image("0.0.0-m.end", "r:5000/app:v1", Some(("v1", "r:5000/app:$(imageTag)")))]
    #[case::all_but_the_registry("r/0.0.0-m.end", "r/app:v1", Some(("v1", "app:$(imageTag)")))]
    #[case::the_end("r/app0.0.0-m.end", "r/app:v1", Some(("v1", ":$(imageTag)")))]
    #[case::a_digest_s_end("r/app@0.0.0-m.end", "r/app@sha256:0a", Some(("0a", "sha256:$(imageTag)")))]
    #[case::a_whole_image_with_a_digest(
        "0.0.0-m.end",
        "app:1@sha256:0a",
        Some(("0a", "app:1@sha256:$(imageTag)"))
    )]
    #[case::an_image_without_a_tag("0.0.0-m.end", "r:5000/app", None)]
    #[case::a_registry("0.0.0-m.end/app:v1", "r/app:v1", None)]
    #[case::a_tag_beside_a_digest("app:0.0.0-m.end@sha256:0a", "app:1@sha256:0a", None)]
    #[case::twice("app:0.0.0-m.end-0.0.0-m.end", "app:1-1", None)]
    #[case::a_switch("app:0.0.0-m.end", "db:1", None)]
    fn what_a_variable_holds_of_a_release(
        #[case] marked: &str,
        #[case] reference: &str,
        #[case] holds: Option<(&str, &str)>,
    ) {
        let release = Use::of(MARK, marked, reference).and_then(|how| how.release());
        assert_eq!(release, holds.map(|(tag, value)| (tag.to_owned(), value.to_owned())));
    }

    #[test]
    fn an_image_that_does_not_change_does_not_depend_on_it() {
        assert_eq!(Use::of(MARK, "r/app:v1", "r/app:v1"), None);
    }
}
