//! What a project lacks of a host's policy, as lines that a person can paste into the policy file.
//!
//! All of it is told at once: whoever grants it knows then that nothing else follows.

use std::fmt::Write as _;

use tenantry_api::tenant_status::{GRANT_LIMIT, Grant, Lacking, UNGRANTABLE_LIMIT};

use super::{AllowedMount, Lack, Need, Policy, Violation, violations};
use crate::model::{ImageFrom, Model};
use crate::text::bounded;

/// The lists of `allow`, in the order in which they are told.
const LISTS: [&str; 4] = ["registries", "compose", "mounts", "verify"];
/// The longest line for pasting, in bytes, that a message holds.
const LINE_LIMIT: usize = 360;
/// How much of what was found a message spells out.
const TOLD: usize = 2;
const PROBLEM_LIMIT: usize = 200;

/// What a project lacks, each line of the policy file once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    lines: Vec<Line>,
    ungrantable: Vec<String>,
    /// Everything that was found, as a sentence's part each.
    problems: Vec<String>,
}

/// A line that is lacking, and which fields ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    need: Need,
    at: String,
    others: usize,
}

impl Grants {
    /// What a model lacks in `directory`. `registry` says of an image reference from which registry it would have to come,
    /// where the policy does not grant that one.
    pub fn lacking(
        model: &Model,
        directory: &str,
        policy: &Policy,
        registry: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let mut grants = Self::default();
        for (name, service) in
            model.services.iter().filter(|(_, service)| service.image_from == ImageFrom::Registry)
        {
            if let Some(registry) = registry(&service.image) {
                let problem = format!("{} comes from the registry {registry}", service.image);
                let lack = Lack::of(Need::Registry(registry), problem);
                grants.add(Violation { at: format!("services.{name}.image"), lack });
            }
        }
        grants.extend(violations(model, directory, policy));
        grants
    }

    /// Takes a violation among them.
    pub fn add(&mut self, violation: Violation) {
        self.problems.push(violation.to_string());
        let Violation { at, lack } = violation;
        let Some(need) = lack.needs else {
            let said = format!("{at}: {}", lack.problem);
            if !self.ungrantable.contains(&said) {
                self.ungrantable.push(said);
            }
            return;
        };
        if let Some(known) = self.lines.iter_mut().find(|line| line.need.covers(&need)) {
            known.others += usize::from(known.at != at);
            return;
        }
        let mut line = Line { need, at, others: 0 };
        self.lines.retain(|other| {
            let covered = line.need.covers(&other.need);
            line.others += if covered { 1 + other.others } else { 0 };
            !covered
        });
        self.lines.push(line);
    }

    /// Whether nothing is lacking.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.ungrantable.is_empty()
    }

    /// The first few of what was found, and how much more there is.
    pub fn problems(&self) -> String {
        let short = |problem: &String| bounded(problem, PROBLEM_LIMIT);
        let mut told: Vec<String> = self.problems.iter().take(TOLD).map(short).collect();
        if self.problems.len() > TOLD {
            told.push(format!("and {} more", self.problems.len() - TOLD));
        }
        told.join("; ")
    }

    /// As it is told to whoever asks; `file` is the policy file.
    pub fn told(self, file: &str) -> Lacking {
        let mut lines = self.lines;
        lines.sort_by_key(|line| (LISTS.iter().position(|list| *list == line.need.list()), line.need.item()));
        let count = lines.len().saturating_sub(GRANT_LIMIT)
            + self.ungrantable.len().saturating_sub(UNGRANTABLE_LIMIT);
        let grant = |line: Line| Grant {
            list: line.need.list().to_owned(),
            item: line.need.item(),
            at: match line.others {
                0 => line.at,
                others => format!("{} and {others} more", bounded(&line.at, 200)),
            },
            means: line.need.means(),
        };
        Lacking {
            file: file.to_owned(),
            grants: lines.into_iter().take(GRANT_LIMIT).map(grant).collect(),
            ungrantable: self.ungrantable.into_iter().take(UNGRANTABLE_LIMIT).collect(),
            more: i32::try_from(count).unwrap_or(i32::MAX),
        }
        .bounded()
    }
}

impl Extend<Violation> for Grants {
    fn extend<T: IntoIterator<Item = Violation>>(&mut self, violations: T) {
        violations.into_iter().for_each(|violation| self.add(violation));
    }
}

impl FromIterator<Violation> for Grants {
    fn from_iter<T: IntoIterator<Item = Violation>>(violations: T) -> Self {
        let mut grants = Self::default();
        grants.extend(violations);
        grants
    }
}

impl Need {
    /// The list of `allow` that it is a line of.
    pub const fn list(&self) -> &'static str {
        match self {
            Self::Registry(_) => "registries",
            Self::Feature(_) => "compose",
            Self::Mount(_) => "mounts",
            Self::Verification(_) => "verify",
        }
    }

    /// The line, as the policy file has it.
    pub fn item(&self) -> String {
        match self {
            Self::Registry(host) => host.clone(),
            Self::Feature(feature) => feature.to_string(),
            Self::Mount(mount) => mount.to_string(),
            Self::Verification(way) => way.to_string(),
        }
    }

    fn means(&self) -> String {
        match self {
            Self::Registry(host) => format!("images of everybody who may push to {host} run on the host"),
            Self::Feature(feature) => feature.means().to_owned(),
            Self::Mount(AllowedMount { path, read_only: true }) => {
                format!("containers read all that is in {}", bounded(path, 160))
            }
            Self::Mount(AllowedMount { path, read_only: false }) => {
                format!("containers read, change and delete all that is in {}", bounded(path, 160))
            }
            Self::Verification(way) => way.means().to_owned(),
        }
    }

    /// Whether this line grants what the other one does.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Mount(wide), Self::Mount(narrow)) => {
                super::is_at_or_below(&narrow.path, &wide.path) && (!wide.read_only || narrow.read_only)
            }
            (own, other) => own == other,
        }
    }
}

/// What a person appends to the policy file, on one line, and how many lines of `allow` it would be too long with.
fn line(lacking: &Lacking) -> (String, usize) {
    let all = lacking.grants.len();
    let fits = |shown: &usize| flow(&lacking.grants[..*shown]).len() <= LINE_LIMIT;
    let shown = (1..=all).rev().find(fits).unwrap_or(all.min(1));
    (flow(&lacking.grants[..shown]), all - shown)
}

fn flow(grants: &[Grant]) -> String {
    let of = |list: &str| -> Vec<String> {
        grants.iter().filter(|grant| grant.list == list).map(|grant| scalar(&grant.item, true)).collect()
    };
    let lists = lists(grants).into_iter().map(|list| format!("{list}: [{}]", of(&list).join(", ")));
    format!("--- {{allow: {{{}}}}}", lists.collect::<Vec<_>>().join(", "))
}

/// The same as a block, each line with what asks for it and what granting it means.
pub fn block(lacking: &Lacking) -> String {
    let mut text = "---\nallow:\n".to_owned();
    for list in lists(&lacking.grants) {
        let _ = writeln!(text, "  {list}:");
        for grant in lacking.grants.iter().filter(|grant| grant.list == list) {
            let comment = |text: &str| text.replace(char::is_control, "?");
            let _ = writeln!(text, "    # {}: {}", comment(&grant.at), comment(&grant.means));
            let _ = writeln!(text, "    - {}", scalar(&grant.item, false));
        }
    }
    text
}

/// All that is lacking as one sentence or two, with the line to paste; without a closing full stop.
pub fn sentences(lacking: &Lacking) -> String {
    let mut said = Vec::new();
    if !lacking.grants.is_empty() {
        let (shown, left) = line(lacking);
        let more = if left > 0 { format!(" and {left} more") } else { String::new() };
        said.push(format!(
            "Where that is meant, a person appends this line to {}, which is read again by itself: {shown}{more}",
            lacking.file
        ));
    }
    if let Some(first) = lacking.ungrantable.first() {
        let others = lacking.ungrantable.len() - 1;
        let more = if others > 0 { format!(" and {others} more") } else { String::new() };
        said.push(format!("No line grants this: {}{more}", bounded(first, PROBLEM_LIMIT)));
    }
    said.join(". ")
}

/// The lists that have lines, in their order; lists that this version does not know come last.
fn lists(grants: &[Grant]) -> Vec<String> {
    let mut all: Vec<String> = LISTS.map(str::to_owned).into();
    all.extend(grants.iter().map(|grant| grant.list.clone()).filter(|list| !LISTS.contains(&list.as_str())));
    all.dedup();
    all.retain(|list| grants.iter().any(|grant| grant.list == *list));
    all
}

/// A text as YAML: bare where it reads as itself, else between quotation marks.
fn scalar(text: &str, in_flow: bool) -> String {
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/') || c == ':' && !in_flow;
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    if begins && text.chars().all(plain) && !text.ends_with(':') {
        return text.to_owned();
    }
    // JSON's texts are YAML's, too.
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Feature;

    fn lack(at: &str, need: Need) -> Violation {
        Violation { at: at.to_owned(), lack: Lack::of(need, "is asked for") }
    }

    fn mount(path: &str, read_only: bool) -> Need {
        Need::Mount(AllowedMount { path: path.to_owned(), read_only })
    }

    fn all(violations: Vec<Violation>) -> Lacking {
        let mut grants = Grants::default();
        grants.extend(violations);
        grants.told("/etc/tenantry/agent.yaml")
    }

    #[test]
    fn each_line_is_told_once_and_the_wider_one_stands_for_the_narrower() {
        let lacking = all(vec![
            lack("services.a.volumes[0].source", mount("/mnt/media/films", true)),
            lack("services.a.volumes[1].source", mount("/mnt/media", true)),
            lack("services.b.volumes[0].source", mount("/mnt/media", false)),
            lack("services.b.volumes[1].source", mount("/mnt/media2", true)),
            lack("services.b.privileged", Need::Feature(Feature::Privileged)),
            lack("services.c.privileged", Need::Feature(Feature::Privileged)),
            lack("services.c.image", Need::Registry("localhost:5000".to_owned())),
        ]);
        let shown: Vec<&str> = lacking.grants.iter().map(|grant| grant.item.as_str()).collect();
        assert_eq!(shown, ["localhost:5000", "Privileged", "/mnt/media", "/mnt/media2:ro"]);
        assert_eq!(
            line(&lacking).0,
            r#"--- {allow: {registries: ["localhost:5000"], compose: [Privileged], mounts: [/mnt/media, "/mnt/media2:ro"]}}"#
        );
        assert_eq!(lacking.grants[1].at, "services.b.privileged and 1 more");
        assert_eq!(lacking.grants[2].at, "services.b.volumes[0].source and 2 more");
    }

    #[test]
    fn the_block_says_of_each_line_who_asks_and_what_it_means_and_is_yaml() {
        let lacking = all(vec![
            lack("services.a.volumes[0].source", mount("/srv/a b: c", true)),
            lack("services.a.volumes[1].source", Need::Feature(Feature::DockerSocket)),
        ]);
        let text = block(&lacking);
        assert!(
            text.contains("    # services.a.volumes[1].source: whoever has the engine's socket is root"),
            "{text}"
        );
        let read: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        let wanted = serde_json::json!({"compose": ["DockerSocket"], "mounts": ["/srv/a b: c:ro"]});
        assert_eq!(read["allow"], wanted);
        let read: serde_json::Value = serde_saphyr::from_str(&line(&lacking).0).unwrap();
        assert_eq!(read["allow"], wanted);
    }

    #[test]
    fn p15_what_is_told_is_bounded_and_says_how_much_is_left_out() {
        let many = (0..100).map(|n| lack("services.a.x", mount(&format!("/mnt/{n:0100}"), true)));
        let never = (0..20)
            .map(|n| Violation { at: format!("services.s{n}"), lack: Lack::never("is never granted") });
        let lacking = all(many.chain(never).collect());
        assert_eq!((lacking.grants.len(), lacking.ungrantable.len(), lacking.more), (64, 16, 36 + 4));
        assert!(line(&lacking).0.len() <= LINE_LIMIT);
        let said = sentences(&lacking);
        assert!(said.contains("and 61 more") && said.contains("and 15 more") && said.len() < 1_500, "{said}");
    }
}
