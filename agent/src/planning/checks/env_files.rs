//! Whether compose can read the environment files of services. It reads them only when it makes containers: one that is
//! missing, or that it can't take apart, would be found once others had been stopped.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tenantry_api::names::RelativePath;
use tenantry_planner::env::EnvFile;
use tenantry_planner::model::{Model, beneath};
use tenantry_protocol::FailureCategory;

use crate::files::Stage;
use crate::planning::context::RequestContext;
use crate::planning::error::StepError;
use crate::planning::stage::ResolvedStage;

const CHECK_LIMIT: Duration = Duration::from_secs(30);

/// An environment file of a service, as it will be once the release is written.
struct Read {
    service: String,
    /// As people know it: below the tenant's directory, or from `/`.
    shown: String,
    /// Where it can be read now.
    path: String,
    /// Whether compose does without it.
    may_miss: bool,
    /// The format, where the compose file gives one.
    format: Option<Value>,
}

/// Has compose itself read the environment files of a release that it might not be able to read, with what it reads them by,
/// and nothing else.
pub async fn check(context: &RequestContext, plan: &str, staged: &ResolvedStage) -> Result<(), StepError> {
    if staged.model.services.values().all(|service| service.env_files.is_empty()) {
        return Ok(());
    }
    let json: Value = serde_json::from_slice(&staged.json).unwrap_or_default();
    let inputs = &staged.tree.discovered.inputs;
    let will_be = |path: &str| will_be(context.directory(), &staged.tree.path, inputs, path);
    let reads = reads(&json, &staged.model, will_be);
    let (tree, plan) = (context.tree()?, plan.to_owned());
    let own_env = staged.tree.discovered.env.then(|| staged.tree.path.join(".env"));
    let doubtful = context
        .blocking(move || {
            missing(&reads)?;
            // Compose's own look costs a process: what any reader of such files understands is not asked about, nor what
            // compose has read for the model.
            if reads.iter().all(|read| own_env.as_deref() == Some(Path::new(&read.path)) || is_plain(read)) {
                return Ok(None);
            }
            let aside = Stage::aside(&tree, &plan, "env-files")?;
            let path = RelativePath::parse("compose.yaml")
                .map_err(|error| StepError::new(FailureCategory::AgentFault, error.to_string()))?;
            aside.write(&path, probe(&json, &reads).to_string().as_bytes())?;
            Ok(Some((aside.path().to_owned(), reads)))
        })
        .await?;
    let Some((folder, reads)) = doubtful else { return Ok(()) };
    let mut arguments: Vec<OsString> =
        ["-p", "probe", "-f", "compose.yaml", "--project-directory", "."].map(OsString::from).into();
    if staged.tree.discovered.env {
        arguments.extend(["--env-file".into(), staged.tree.path.join(".env").into_os_string()]);
    }
    arguments.extend(["config", "--quiet"].map(OsString::from));
    let output = context.compose().await?.run(&folder, &arguments, CHECK_LIMIT, None).await?;
    if output.status.success() {
        return Ok(());
    }
    match unreadable(&reads, &output.stderr) {
        Some(problem) => Err(problem),
        // It is about something else than these files: it is not for this question to judge that.
        None => Ok(()),
    }
}

/// Where a file of the real directory can be read as it will be, and whether it is known to be there then: a file that the
/// stage has not, for only compose knows its name, may be one that the release writes.
fn will_be(directory: &str, stage: &Path, inputs: &[RelativePath], path: &str) -> (String, bool) {
    let inside = beneath(directory, path).and_then(|inside| RelativePath::parse(inside).ok());
    match inside {
        Some(inside) if inputs.contains(&inside) => (stage.join(inside.as_str()).display().to_string(), true),
        Some(_) => (path.to_owned(), false),
        None => (path.to_owned(), true),
    }
}

/// The environment files of all services. Compose prints them in the order in which the model has them.
fn reads(json: &Value, model: &Model, will_be: impl Fn(&str) -> (String, bool)) -> Vec<Read> {
    let of = |(name, service): (&tenantry_api::names::ServiceName, &tenantry_planner::model::Service)| {
        let printed = json["services"][name.as_str()]["env_file"].as_array().cloned().unwrap_or_default();
        let read = |(real, entry): (&String, Value)| {
            // `config` writes a dollar sign twice.
            let real = real.replace("$$", "$");
            let (path, known) = will_be(&real);
            let may_miss = !known || entry["required"] == json!(false);
            let format = entry.get("format").cloned();
            Read { service: name.to_string(), shown: real, path, may_miss, format }
        };
        service.env_files.iter().zip(printed).map(read).collect::<Vec<_>>()
    };
    model.services.iter().flat_map(of).collect()
}

/// A project of the services that read such files, with nothing but these and the variables that count for them.
fn probe(json: &Value, reads: &[Read]) -> Value {
    let mut services = serde_json::Map::new();
    for read in reads {
        let mut entry = json!({"path": read.path.replace('$', "$$"), "required": !read.may_miss});
        if let Some(format) = &read.format {
            entry["format"] = format.clone();
        }
        let environment = &json["services"][&read.service]["environment"];
        let service = services
            .entry(read.service.clone())
            .or_insert_with(|| json!({"image": "probe", "environment": environment, "env_file": []}));
        if let Some(files) = service["env_file"].as_array_mut() {
            files.push(entry);
        }
    }
    json!({ "services": services })
}

/// Whether there can be no doubt that compose reads a file: it is of the usual format, and refers to no variable.
fn is_plain(read: &Read) -> bool {
    let content = match std::fs::read(&read.path) {
        Ok(content) => content,
        Err(error) => return read.may_miss && error.kind() == std::io::ErrorKind::NotFound,
    };
    read.format.is_none() && !content.contains(&b'$') && EnvFile::parse(&content).is_ok()
}

fn missing(reads: &[Read]) -> Result<(), StepError> {
    let gone = |read: &&Read| !read.may_miss && !Path::new(&read.path).exists();
    let Some(read) = reads.iter().find(gone) else { return Ok(()) };
    let Read { service, shown, .. } = read;
    Err(invalid(format!(
        "services.{service}.env_file: {shown} is not there, and compose makes no container of {service} without it: put it \
         back, or correct its name in the compose file (`required: false` lets it be absent)"
    )))
}

/// What compose says of one of these files, by its place alone: it quotes what is in them.
fn unreadable(reads: &[Read], stderr: &str) -> Option<StepError> {
    let named = |read: &&Read| stderr.contains(&read.path);
    // Of two names one may begin with the other.
    let read = reads.iter().filter(named).max_by_key(|read| read.path.len())?;
    let behind = stderr.split(read.path.as_str()).nth(1).and_then(|rest| rest.split("line ").nth(1));
    let line = behind.map(|rest| rest.chars().take_while(char::is_ascii_digit));
    let line = line.map(Iterator::collect::<String>).filter(|line| !line.is_empty());
    let at = line.map(|line| format!(", line {line}")).unwrap_or_default();
    let Read { service, shown, .. } = read;
    Some(invalid(format!(
        "services.{service}.env_file: compose can't read {shown}{at}, and makes no container of {service} before it can: \
         each line is NAME=VALUE, with quotes that are closed and variables that are set"
    )))
}

fn invalid(message: String) -> StepError {
    StepError::new(FailureCategory::ComposeInvalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(required: bool) -> Vec<Read> {
        let json = json!({"name": "a", "services": {
            "web": {"image": "x", "environment": {"A": "$$b"}, "env_file": [
                {"path": "/d/web.env"}, {"path": "/d/a$$b.env", "required": required, "format": "raw"}]},
            "db": {"image": "x", "env_file": ["/srv/out.env"]}}});
        let model = Model::parse(json.to_string().as_bytes(), "/d", "/d").unwrap();
        let inputs = [RelativePath::parse("a$b.env").unwrap()];
        let will_be = |path: &str| super::will_be("/d", Path::new("/stage"), &inputs, path);
        let reads = reads(&json, &model, will_be);
        let asked = probe(&json, &reads);
        assert_eq!(asked["services"]["web"]["environment"], json!({"A": "$$b"}));
        let staged = json!({"path": "/stage/a$$b.env", "required": required, "format": "raw"});
        assert_eq!(asked["services"]["web"]["env_file"][1], staged);
        assert_eq!(asked["services"]["db"]["env_file"], json!([{"path": "/srv/out.env", "required": true}]));
        reads
    }

    fn said(result: Result<(), StepError>) -> String {
        result.err().map(|error| error.message).unwrap_or_default()
    }

    #[test]
    fn a_file_is_missed_where_compose_needs_it_and_the_release_does_not_write_it() {
        let reads = read(true);
        let gone: Vec<(&str, bool)> = reads.iter().map(|read| (read.shown.as_str(), read.may_miss)).collect();
        // Of `web.env` compose alone knew the name: it may be one that is written.
        assert_eq!(gone, [("/srv/out.env", false), ("/d/web.env", true), ("/d/a$b.env", false)]);
        assert!(said(missing(&reads)).starts_with("services.db.env_file: /srv/out.env is not there"));
        assert_eq!(said(missing(&read(false)[1..])), "");
    }

    #[test]
    fn compose_is_asked_about_what_is_not_plain() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let plain = |content: &str, format: Option<Value>, may_miss: bool| {
            std::fs::write(at("some.env"), content).unwrap();
            let (service, shown) = ("web".to_owned(), String::new());
            is_plain(&Read { service, shown, path: at("some.env"), may_miss, format })
        };
        assert!(plain("# ours\nA=1\nexport B='two words'\n", None, false));
        assert!(!plain("A=\"open\n", None, false));
        assert!(!plain("A=${B:?}\n", None, false));
        assert!(!plain("A=1\n", Some(json!("raw")), false));
        let gone = |may_miss| Read {
            service: String::new(),
            shown: String::new(),
            path: at("gone"),
            may_miss,
            format: None,
        };
        assert!(is_plain(&gone(true)) && !is_plain(&gone(false)));
    }

    #[test]
    fn p12_what_compose_can_not_read_is_told_by_its_place_alone() {
        let told =
            |stderr: &str| unreadable(&read(true), stderr).map(|error| error.message).unwrap_or_default();
        let open = told("failed to read /stage/a$b.env: line 4: unterminated quoted value \"canary");
        assert!(
            open.starts_with("services.web.env_file: compose can't read /d/a$b.env, line 4, and"),
            "{open}"
        );
        assert!(!open.contains("canary"));
        let unset = told("failed to read /srv/out.env: required variable X is missing a value: canary");
        assert!(unset.starts_with("services.db.env_file: compose can't read /srv/out.env, and"), "{unset}");
        assert_eq!(told("something else is wrong with canary"), "");
    }
}
