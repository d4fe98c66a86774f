//! How files that somebody edited differ from what is wanted: counted in lines, for what they say is a person's own and does
//! not travel.

use std::time::{Duration, Instant};

use similar::{ChangeTag, TextDiff};
use tenantry_protocol::{FileContent, LineCounts, Observation};

use crate::files::{FILE_LIMIT, Tree};

/// How long all of them are compared at most. What is left then is not counted.
const COMPARED_WITHIN: Duration = Duration::from_secs(1);

/// Counts, for each file that was edited by hand and whose wanted content is given.
pub fn count(observation: &mut Observation, wanted: &[FileContent], tree: &Tree) {
    let end = Instant::now() + COMPARED_WITHIN;
    for file in observation.files.iter_mut().filter(|file| file.hand_edited) {
        let Some(wanted) = wanted.iter().find(|wanted| wanted.path == file.path) else { continue };
        // One that can't be read any more was not counted; whoever writes it meets that, too.
        let Ok(Some(found)) = tree.read(&file.path, FILE_LIMIT) else { continue };
        if Instant::now() < end {
            file.lines = Some(compared(&wanted.content.0, &found, end));
        }
    }
}

fn compared(wanted: &[u8], found: &[u8], end: Instant) -> LineCounts {
    let (wanted, found) = (String::from_utf8_lossy(wanted), String::from_utf8_lossy(found));
    let diff = TextDiff::configure().deadline(end).diff_lines(&*wanted, &*found);
    let counted = |tag| {
        let changes = diff.iter_all_changes().filter(|change| change.tag() == tag);
        u32::try_from(changes.count()).unwrap_or(u32::MAX)
    };
    LineCounts { added: counted(ChangeTag::Insert), removed: counted(ChangeTag::Delete) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_somebody_added_and_took_away_are_counted() {
        let far = Instant::now() + Duration::from_mins(1);
        let counts = |wanted: &str, found: &str| compared(wanted.as_bytes(), found.as_bytes(), far);
        assert_eq!(counts("a\nb\nc\n", "a\nc\nd\ne\n"), LineCounts { added: 2, removed: 1 });
        assert_eq!(counts("a\n", "a"), LineCounts { added: 1, removed: 1 });
        assert_eq!(counts("", "a\n"), LineCounts { added: 1, removed: 0 });
    }

    #[test]
    fn p15_a_comparison_that_is_out_of_time_still_ends() {
        let lines = |of: usize| {
            let all: Vec<String> = (0..20_000).map(|line| (line * of % 7919).to_string()).collect();
            all.join("\n")
        };
        let counts = compared(lines(31).as_bytes(), lines(17).as_bytes(), Instant::now());
        assert!(counts.added > 0 && counts.removed > 0);
    }
}
