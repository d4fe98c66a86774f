//! Compose files as values, with aliases followed and merge keys applied.
//!
//! What a file expands to is bounded, not how many aliases it has: forty services that share one anchor are ordinary,
//! and twelve anchors of which each has nine aliases of the one before are a bomb. Errors name lines, never values.

use serde_json::Value;
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{Error, Options};

/// The most values that a file may hold with every alias followed: forty times the largest seen.
pub const MAX_VALUES: usize = 250_000;
/// The most bytes of text that a file may hold with every alias followed: sixteen times what is read of one.
pub const MAX_TEXT: usize = 16 * 1024 * 1024;
/// The most levels that a file may nest.
pub const MAX_DEPTH: usize = 64;

/// Every document of a file, for compose reads them all; says what is wrong with a file that can't be read.
pub fn documents(text: &str) -> Result<Vec<Value>, String> {
    within(text, MAX_VALUES)
}

fn within(text: &str, max_values: usize) -> Result<Vec<Value>, String> {
    serde_saphyr::from_multiple_with_options(text, options(max_values))
        .map_err(|error| unreadable(&error, text))
}

fn options(max_values: usize) -> Options {
    // The parser counts what it replays for an alias like what stands in the file, so these bound the expansion. Its
    // bounds on aliases and merge keys are no tighter, and its ratio of aliases to anchors refuses ordinary files.
    let budget = serde_saphyr::budget! {
        max_nodes: max_values,
        max_total_scalar_bytes: MAX_TEXT,
        max_depth: MAX_DEPTH,
        max_aliases: max_values,
        max_merge_keys: max_values,
        enforce_alias_anchor_ratio: false,
    };
    serde_saphyr::options! { with_snippet: false, budget: budget }
}

fn unreadable(error: &Error, text: &str) -> String {
    let at = error.location().map_or_else(String::new, |at| format!(" at line {}", at.line()));
    match cause(error) {
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            format!("nests too deep{at}: at most {MAX_DEPTH} levels are read")
        }
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } => format!(
            "expands too far{at}: with its aliases followed it holds more than {MAX_VALUES} values or \
             {MAX_TEXT} bytes, as alias bombs do"
        ),
        Error::DuplicateMappingKey { .. } => format!("can't be read as YAML{at}: a key stands there twice"),
        _ => match error.location().and_then(|at| indented_by_tab(text, at.line())) {
            Some(line) => {
                format!(
                    "can't be read as YAML at line {line}: it is indented with a tab; YAML takes spaces only"
                )
            }
            None => format!("can't be read as YAML{at}: it is malformed"),
        },
    }
}

/// The line that a parser could not read, or the one before or after it, where a tab stands before its first word: a text that
/// a tab ends is told by the line where it began.
fn indented_by_tab(text: &str, line: impl TryInto<usize>) -> Option<usize> {
    let line: usize = line.try_into().ok()?;
    let by_tab =
        |line: &&str| line.split(|c: char| !c.is_whitespace()).next().unwrap_or_default().contains('\t');
    let near = text.lines().enumerate().skip(line.saturating_sub(2)).take(3);
    near.filter(|(at, _)| *at <= line).find(|(_, text)| by_tab(text)).map(|(at, _)| at + 1)
}

/// An error inside an alias is wrapped in one that says where the alias stands.
fn cause(error: &Error) -> &Error {
    match error {
        Error::AliasError { error, .. } => cause(error),
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    /// A bomb that is followed takes hours; this is a busy machine's share for reading as much as is allowed.
    const QUICKLY: Duration = Duration::from_mins(1);

    /// Refused with these words, and quickly.
    fn refused(what: &str, text: &str, words: &str) {
        let begun = Instant::now();
        // A lower bound than that of files: what is tried is the same and takes a tenth of the time.
        let problem = within(text, MAX_VALUES / 10).expect_err(what);
        assert!(problem.starts_with(words), "{what}: {problem}");
        assert!(problem.len() < 200, "{what}: {problem}");
        assert!(begun.elapsed() < QUICKLY, "{what} took {:?}", begun.elapsed());
    }

    fn shared_by(services: usize) -> String {
        let service = |n: usize| format!("  s{n}:\n    <<: *common\n    command: [\"{n}\"]\n");
        let services: String = (0..services).map(service).collect();
        format!("x-common: &common\n  image: x\n  restart: unless-stopped\nservices:\n{services}")
    }

    #[test]
    fn one_anchor_that_many_services_share_is_ordinary() {
        for count in [1, 40, 100, 101, 1_000] {
            let found = documents(&shared_by(count)).unwrap();
            let services = found[0]["services"].as_object().unwrap();
            assert_eq!(services.len(), count);
            assert!(services.values().all(|service| service["restart"] == "unless-stopped"));
        }
    }

    #[test]
    fn p15_bombs_are_called_so_and_refused_quickly() {
        let nine = |n: i32| format!("a{n}: &a{n} [{}]\n", [format!("*a{}", n - 1).as_str(); 9].join(","));
        let lists = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned() + &(1..12).map(nine).collect::<String>();
        let merge = |n: i32| format!("a{n}: &a{n} {{x: [*a{0}, *a{0}, *a{0}], <<: *a{0}}}\n", n - 1);
        let merges = "a0: &a0 {k: v}\n".to_owned() + &(1..30).map(merge).collect::<String>();
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), ["*a"; 1_000].join(","));
        let square =
            format!("a: &a [{}]\nb: [{}]\n", vec!["x"; 10_000].join(","), vec!["*a"; 10_000].join(","));
        for (what, bomb) in [
            ("lists of lists", lists),
            ("merges of merges", merges),
            ("one long text", text),
            ("one long list", square),
        ] {
            refused(what, &bomb, "expands too far at line ");
        }
    }

    #[test]
    fn p15_what_is_deep_or_malformed_is_told_apart_from_a_bomb() {
        let block = (0..70).map(|level| " ".repeat(level) + "a:\n").collect::<Vec<_>>().concat();
        refused("deep blocks", &block, "nests too deep at line 6");
        let closed = |open: &str, close: &str| open.repeat(70) + &close.repeat(70);
        refused("deep lists", &closed("[", "]"), "nests too deep at line 1");
        refused("deep mappings", &closed("{a: ", "}"), "nests too deep at line 1");
        refused("never closed", "services: [", "can't be read as YAML at line 1: it is malformed");
        refused(
            "a tab",
            "services:\n\tweb: {}\n",
            "can't be read as YAML at line 2: it is indented with a tab",
        );
        let deeper = "services:\n  web:\n\t  image: x\n";
        refused("a tab in the midst", deeper, "can't be read as YAML at line 3: it is indented with a tab");
        let ended_by = "services:\n  web:\n    image: x\n\tcommand: y\n";
        refused("a tab after a text", ended_by, "can't be read as YAML at line 4: it is indented with a tab");
        refused("a key twice", "a: 1\na: 2\n", "can't be read as YAML at line 2: a key stands there twice");
        refused("an alias of itself", "a: &a [*a]\n", "can't be read as YAML at line 1: it is malformed");
        refused("an alias of nothing", "a: *b\n", "can't be read as YAML at line 1: it is malformed");
    }

    /// `a` is an anchor of `size` values, `b` lists it so often.
    fn listed(size: usize, aliases: usize) -> String {
        format!("a: &a [{}]\nb: [{}]\n", vec!["x"; size].join(","), vec!["*a"; aliases].join(","))
    }

    /// How often an anchor may be listed: the mapping, its keys and the list `b` are values, too.
    fn most(max_values: usize, size: usize) -> usize {
        (max_values - 4) / (1 + size) - 1
    }

    #[test]
    fn p15_aliases_are_followed_up_to_the_bound() {
        let most = most(MAX_VALUES, 200);
        assert!(most > 1_200);
        assert_eq!(documents(&listed(200, most)).unwrap()[0]["b"].as_array().unwrap().len(), most);
        assert!(documents(&listed(200, most + 1)).unwrap_err().starts_with("expands too far at line 2"));
    }

    proptest! {
        /// The same of any anchor and any bound, so that it is what aliases expand to that counts, and nothing else.
        #[test]
        fn p15_any_number_of_aliases_is_followed_that_expands_within_the_bound(
            bound in 500_usize..3_000,
            size in 1_usize..200,
            some in 0_usize..100,
        ) {
            let read = |aliases| within(&listed(size, aliases), bound);
            let most = most(bound, size);
            for aliases in [most * some / 100, most] {
                prop_assert_eq!(read(aliases).unwrap()[0]["b"].as_array().unwrap().len(), aliases);
            }
            let problem = read(most + 1).unwrap_err();
            prop_assert!(problem.starts_with("expands too far"), "{}", problem);
        }
    }
}
