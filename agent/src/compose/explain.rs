//! What compose's complaints mean, in our own words. They may hold values of `.env`: what is not known is quoted redacted.

use tenantry_api::conditions::bounded;
use tenantry_planner::redact::Redactor;
use tenantry_protocol::FailureCategory;

use super::refusals::meaning;

/// The most that is quoted of a complaint that is not known: lines and bytes.
const QUOTED_LINES: usize = 3;
const QUOTED: usize = 400;

/// A complaint in our own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// What kind of failure it is.
    pub category: FailureCategory,
    /// What is wrong, where, and what to do.
    pub message: String,
}

impl Explained {
    pub(crate) fn new(category: FailureCategory, message: impl Into<String>) -> Self {
        Self { category, message: message.into() }
    }
}

/// Explains what compose printed on stderr; `doing` is what it was run for, for example `up`. What is not known is quoted as
/// far as `redactor` lets it.
pub fn explain(doing: &str, code: Option<i32>, stderr: &str, redactor: &Redactor) -> Explained {
    let read = doing == "config";
    let known = stderr.lines().rev().find_map(|line| line_meaning(line, read, redactor));
    known.unwrap_or_else(|| unknown(doing, code, stderr, redactor))
}

fn unknown(doing: &str, code: Option<i32>, stderr: &str, redactor: &Redactor) -> Explained {
    let how = code.map_or_else(|| "by a signal".to_owned(), |code| format!("with code {code}"));
    let category =
        if doing == "config" { FailureCategory::ComposeInvalid } else { FailureCategory::StartFailed };
    let message =
        format!("docker compose {doing} ended {how}; the whole is in this tenant's compose.log on the host");
    let bare = Explained::new(category, message);
    let told = |line: &&str| !line.trim().is_empty() && !line.contains("level=warning");
    let mut last: Vec<&str> = stderr.lines().rev().filter(told).take(QUOTED_LINES).map(str::trim).collect();
    last.reverse();
    if last.is_empty() { bare } else { quoting(&bare, &last, redactor) }
}

fn line_meaning(line: &str, read: bool, redactor: &Redactor) -> Option<Explained> {
    if read { config_meaning(line) } else { start_meaning(line, redactor) }
}

fn config_meaning(line: &str) -> Option<Explained> {
    let invalid = |message: String| Some(Explained::new(FailureCategory::ComposeInvalid, message));
    if let Some(rest) = after(line, "required variable ")
        && let Some(name) = first_name(rest)
    {
        return invalid(format!("the compose files require the variable {name}, which .env does not set"));
    }
    if let Some(at) = yaml_position(line) {
        return invalid(at);
    }
    if let Some(rest) = after(line, "invalid interpolation format for ")
        && let Some(field) = first_name(rest)
    {
        return invalid(format!("{field}: the variables in it are not written as compose reads them"));
    }
    if let Some(rest) = after(line, "service \"")
        && let Some((service, rest)) = rest.split_once('"')
        && is_name(service)
    {
        let problem = if let Some(other) = after(rest, "depends on undefined service \"") {
            let other = other.split('"').next().filter(|name| is_name(name)).unwrap_or("another service");
            format!("depends on {other}, which is not defined")
        } else if rest.contains("refers to undefined") {
            "refers to a volume, network, config or secret that is not defined".to_owned()
        } else if rest.contains("has neither an image nor a build context") {
            "has neither image nor build".to_owned()
        } else {
            "is not valid".to_owned()
        };
        return invalid(format!("services.{service} {problem}"));
    }
    if let Some((field, problem)) = schema_problem(line) {
        return invalid(format!("{field} {problem}"));
    }
    if line.contains("env file ") && line.contains("not found") {
        return invalid("an env_file that the compose files name is missing".to_owned());
    }
    None
}

/// `validating …: services.web.ports must be a list` and the like: the field and the known part of the sentence.
fn schema_problem(line: &str) -> Option<(String, String)> {
    const KNOWN: [(&str, &str); 7] = [
        ("must be a list", "must be a list"),
        ("must be a array", "must be a list"),
        ("must be a mapping", "must be a mapping"),
        ("must be a string", "must be a string"),
        ("must be a boolean", "must be true or false"),
        ("must be a number", "must be a number"),
        ("must be a integer", "must be a whole number"),
    ];
    let start = ["services.", "volumes.", "networks.", "configs.", "secrets."]
        .iter()
        .filter_map(|p| line.find(p))
        .min()?;
    let field = first_name(&line[start..])?;
    if let Some(rest) = after(line, "additional properties ") {
        let member = first_name(rest.trim_start_matches('\'')).unwrap_or("a member");
        return Some((
            field.to_owned(),
            format!("has {member}, which compose does not know: is it misspelt?"),
        ));
    }
    let known = KNOWN.into_iter().find(|(says, _)| line.contains(says));
    let problem = known.map_or("is not as compose allows it", |(_, means)| means);
    Some((field.to_owned(), problem.to_owned()))
}

fn yaml_position(line: &str) -> Option<String> {
    let rest = after(line, "yaml: ").or_else(|| after(line, "failed to parse "))?;
    let number = after(rest, "line ").or_else(|| after(rest, "Line: "))?;
    let number: String = number.chars().take_while(char::is_ascii_digit).collect();
    if number.is_empty() {
        return None;
    }
    let file = line
        .split([' ', ':', '"'])
        .find(|word| [".yml", ".yaml"].iter().any(|end| word.ends_with(end)) && word.len() < 256);
    let file = file.map_or("a compose file", |path| path.rsplit('/').next().unwrap_or(path));
    Some(format!("{file}, line {number}: not valid YAML"))
}

fn start_meaning(line: &str, redactor: &Redactor) -> Option<Explained> {
    if line.contains("didn't complete successfully") {
        let service = quoted(line)?;
        let code: String = after(line, "exit ")
            .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect())
            .unwrap_or_default();
        return Some(Explained::new(
            FailureCategory::Crashed,
            format!("the one-shot {service} ended with code {code}"),
        ));
    }
    if let Some((before, code)) = line.split_once(" hook exited with status ")
        && let Some(service) = before.rsplit(' ').next().filter(|name| is_name(name))
    {
        let code: String = code.chars().take_while(char::is_ascii_digit).collect();
        let message = format!("a post_start or pre_stop hook of {service} ended with code {code}");
        return Some(Explained::new(FailureCategory::StartFailed, message));
    }
    if let Some(rest) = after(line, "dependency failed to start: container ") {
        let container = first_name(rest)?;
        let (category, how) = if rest.contains("is unhealthy") {
            (FailureCategory::Unhealthy, "is unhealthy, and others wait for it")
        } else if rest.contains("has no healthcheck") {
            (FailureCategory::StartFailed, "has no healthcheck, but others wait for it to be healthy")
        } else {
            (FailureCategory::Crashed, "ended, and others wait for it")
        };
        return Some(Explained::new(category, format!("container {container} {how}")));
    }
    let (explained, open) = meaning(line)?;
    Some(if open { quoting(&explained, &[line], redactor) } else { explained })
}

/// The same with the last of what was said, redacted.
fn quoting(explained: &Explained, lines: &[&str], redactor: &Redactor) -> Explained {
    let said: Vec<String> =
        redactor.redact_lines(lines.iter().copied()).into_iter().map(|line| without_values(&line)).collect();
    let said = bounded(&said.join(" / "), QUOTED);
    Explained::new(explained.category, format!("{}. It said: \"{said}\"", explained.message))
}

/// YAML's parser quotes what it could not take between backquotes.
fn without_values(line: &str) -> String {
    line.split('`').enumerate().map(|(index, part)| if index % 2 == 0 { part } else { "`…`" }).collect()
}

pub(super) fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.find(mark).map(|at| &text[at + mark.len()..])
}

/// The first word, if it can only be a name: no value of a variable gets through here with spaces or signs.
pub(super) fn first_name(text: &str) -> Option<&str> {
    let word = text.split([' ', ':', '"', '\'', ',']).next().unwrap_or_default().trim_end_matches(':');
    is_name(word).then_some(word)
}

fn quoted(text: &str) -> Option<&str> {
    text.split('"').nth(1).filter(|name| is_name(name))
}

fn is_name(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '[' | ']');
    (1..=200).contains(&word.len()) && word.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_told_in_our_own_words() {
        use FailureCategory::{ComposeInvalid, Crashed, DiskFull, PortInUse, StartFailed, Unhealthy};
        let mut redactor = Redactor::default();
        redactor.add_env_file(b"SECRET=hunter2\n");
        let cases = [
            (
                "config",
                "error while interpolating services.web.image: required variable IMAGE_TAG is missing a value: hunter2",
                ComposeInvalid,
                "variable IMAGE_TAG",
            ),
            (
                "config",
                "yaml: line 7: mapping values are not allowed in this context hunter2",
                ComposeInvalid,
                "a compose file, line 7",
            ),
            (
                "config",
                "validating /srv/a/docker-compose.yml: services.web.ports must be a list hunter2",
                ComposeInvalid,
                "services.web.ports must be a list",
            ),
            (
                "config",
                "validating /srv/a/compose.yaml: services.web.ports must be a array",
                ComposeInvalid,
                "services.web.ports must be a list",
            ),
            (
                "config",
                "validating /srv/a/compose.yaml: services.web additional properties 'imagge' not allowed",
                ComposeInvalid,
                "services.web has imagge, which compose does not know",
            ),
            (
                "config",
                "service \"web\" depends on undefined service \"db\": invalid compose project",
                ComposeInvalid,
                "services.web depends on db",
            ),
            ("config", "hunter2 what is this", ComposeInvalid, "ended with code 1"),
            (
                "up",
                "service \"migrate\" didn't complete successfully: exit 3",
                Crashed,
                "migrate ended with code 3",
            ),
            (
                "up",
                "dependency failed to start: container acme-db-1 is unhealthy",
                Unhealthy,
                "container acme-db-1 is unhealthy",
            ),
            (
                "up",
                "Error response from daemon: driver failed programming external connectivity on endpoint x: Bind for 0.0.0.0:8080 failed: port is already allocated",
                PortInUse,
                "port 8080",
            ),
            ("up", "write /x: no space left on device hunter2", DiskFull, "no space"),
            ("restart", "web hook exited with status 3", StartFailed, "hook of web ended with code 3"),
            ("up", "hunter2 is not to my taste", StartFailed, "\"${SECRET} is not to my taste\""),
            (
                "config",
                "line 3: cannot unmarshal !!str `hunt` into int",
                ComposeInvalid,
                "!!str `…` into int",
            ),
        ];
        for (doing, line, category, says) in cases {
            let explained =
                explain(doing, Some(1), &format!("time=x level=warning msg=\"y\"\n{line}\n"), &redactor);
            assert_eq!(explained.category, category, "{line}");
            assert!(explained.message.contains(says), "{line}: {}", explained.message);
            assert!(!explained.message.contains("hunter2"), "P12: {}", explained.message);
        }
    }
}
