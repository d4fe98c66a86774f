//! Lines as a terminal shows them best: broken between words, with a colour for how something ended.

use console::Style;

/// A line broken between words where it is wider than the terminal; what follows is indented as the first is, and a bit
/// more. A word that is wider stands alone.
pub fn wrapped(line: &str, width: usize) -> String {
    let indent: String = line.chars().take_while(|c| *c == ' ').collect();
    let mut lines: Vec<String> = Vec::new();
    let mut current = indent.clone();
    let mut is_empty = true;
    for word in line.split_whitespace() {
        if !is_empty && current.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::replace(&mut current, format!("{indent}  ")));
            is_empty = true;
        }
        if !is_empty {
            current.push(' ');
        }
        current.push_str(word);
        is_empty = false;
    }
    lines.push(current);
    lines.join("\n")
}

/// Green for what went well, red for what did not. Only for a terminal, and there only where colours are wanted.
pub fn coloured(line: &str) -> String {
    let first = line.trim_start().split([' ', ':']).next().unwrap_or_default();
    let style = match first {
        "✓" | "Succeeded" | "Ready" => Style::new().green(),
        "✗" | "Aborted" | "RolledBack" | "Held" | "RollbackFailed" | "Refused" | "Degraded"
        | "AdoptionNeeded" => Style::new().red(),
        _ => return line.to_owned(),
    };
    style.apply_to(line).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_breaks_between_words() {
        assert_eq!(wrapped("  ✓ Pulling: three images", 16), "  ✓ Pulling:\n    three images");
        assert_eq!(wrapped("short", 80), "short");
        assert_eq!(wrapped("a verylongwordindeed b", 8), "a\n  verylongwordindeed\n  b");
        assert_eq!(wrapped("", 10), "");
    }

    #[test]
    fn only_how_something_ended_has_a_colour() {
        assert_eq!(coloured("Upgrade from v1 to v2"), "Upgrade from v1 to v2");
        assert!(coloured("  ✗ Verifying: web").contains("  ✗ Verifying: web"));
    }
}
