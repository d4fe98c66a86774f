//! What compose's complaints mean, without quoting them: they may hold values of `.env`.

use tenantry_protocol::FailureCategory;

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

/// Explains what compose printed on stderr; `doing` is what it was run for, for example `up`.
pub fn explain(doing: &str, code: Option<i32>, stderr: &str) -> Explained {
    let read = doing == "config";
    stderr.lines().rev().find_map(|line| line_meaning(line, read)).unwrap_or_else(|| {
        let code = code.map_or_else(|| "by a signal".to_owned(), |code| format!("with code {code}"));
        let category = if read { FailureCategory::ComposeInvalid } else { FailureCategory::StartFailed };
        Explained::new(category, format!("docker compose {doing} ended {code}; what it said is in the compose.log of this tenant on the host"))
    })
}

fn line_meaning(line: &str, read: bool) -> Option<Explained> {
    if read { config_meaning(line) } else { start_meaning(line) }
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
fn schema_problem(line: &str) -> Option<(String, &'static str)> {
    const KNOWN: [&str; 7] = [
        "must be a list",
        "must be a mapping",
        "must be a string",
        "must be a boolean",
        "must be a number",
        "must be a integer",
        "additional properties",
    ];
    let start = ["services.", "volumes.", "networks.", "configs.", "secrets."]
        .iter()
        .filter_map(|p| line.find(p))
        .min()?;
    let field = first_name(&line[start..])?;
    let problem =
        KNOWN.into_iter().find(|known| line.contains(known)).unwrap_or("is not as compose allows it");
    let problem =
        if problem == "additional properties" { "has members that compose does not know" } else { problem };
    Some((field.to_owned(), problem))
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

fn start_meaning(line: &str) -> Option<Explained> {
    let failed = |message: String| Some(Explained::new(FailureCategory::StartFailed, message));
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
    if line.contains("port is already allocated") || line.contains("address already in use") {
        let port = line
            .split([' ', '/'])
            .filter_map(|word| word.trim_end_matches(':').rsplit_once(':'))
            .find_map(|(_, port)| port.parse::<u16>().ok());
        let port = port.map_or_else(|| "a port".to_owned(), |port| format!("port {port}"));
        return failed(format!("{port} is in use by another container or program on this host"));
    }
    if line.contains("No such image")
        || line.contains("pull access denied")
        || line.contains("not found: manifest")
    {
        return failed("an image that a service needs is not on this host".to_owned());
    }
    if line.contains("is already in use by container") {
        return failed("a container's name is in use already, by a container that compose does not take for this service's".to_owned());
    }
    if line.contains("no space left on device") {
        return Some(Explained::new(FailureCategory::DiskFull, "no space left on the engine's disk"));
    }
    if line.contains("Cannot connect to the Docker daemon") {
        return Some(Explained::new(FailureCategory::EngineFault, "the Docker engine does not answer"));
    }
    if line.contains("OCI runtime create failed") || line.contains("failed to create task") {
        let what = [
            "executable file not found",
            "permission denied",
            "not a directory",
            "no such file or directory",
        ];
        let cause =
            what.into_iter().find(|cause| line.contains(cause)).unwrap_or("the engine's runtime refused it");
        return failed(format!("a container could not be started: {cause}"));
    }
    None
}

fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.find(mark).map(|at| &text[at + mark.len()..])
}

/// The first word, if it can only be a name: no value of a variable gets through here with spaces or signs.
fn first_name(text: &str) -> Option<&str> {
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
        use FailureCategory::{ComposeInvalid, Crashed, DiskFull, StartFailed, Unhealthy};
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
                StartFailed,
                "port 8080",
            ),
            ("up", "write /x: no space left on device hunter2", DiskFull, "no space"),
            ("up", "hunter2", StartFailed, "compose.log"),
        ];
        for (doing, line, category, says) in cases {
            let explained = explain(doing, Some(1), &format!("time=x level=warning msg=\"y\"\n{line}\n"));
            assert_eq!(explained.category, category, "{line}");
            assert!(explained.message.contains(says), "{line}: {}", explained.message);
            assert!(!explained.message.contains("hunter2"), "P12: {}", explained.message);
        }
    }
}
