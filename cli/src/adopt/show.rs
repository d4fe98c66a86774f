//! What was found of a project and what will be done, for a person to say yes or no to, in 80 columns.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use tenantry_agent::survey::{Listed, Project};
use tenantry_api::tenant_status::Lacking;
use tenantry_planner::images::proposal::{FoundService, Moves, Proposal};
use tenantry_planner::model::ImageFrom;
use tenantry_planner::text::listed;

/// How wide a terminal is at least.
const WIDTH: usize = 80;
/// How many services a line spells out.
const SHOWN: usize = 4;

/// What was found.
pub fn found(project: &Project, proposal: &Proposal) -> String {
    let place = &project.place;
    let (running, all) =
        (project.containers.iter().filter(|one| one.running).count(), project.containers.len());
    let count = project.services.len();
    let services = if count == 1 { "1 service".to_owned() } else { format!("{count} services") };
    let runs = match (running, all) {
        (_, 0) => "nothing of it runs".to_owned(),
        (running, all) if running == all => format!("{all} containers run"),
        (running, all) => format!("{running} of {all} containers run"),
    };
    let files = listed(&project.compose.files, 8);
    let mut text = format!("{} in {}: {services}, {runs}.", place.project, place.directory);
    let profiles = &project.compose.profiles;
    let with =
        if profiles.is_empty() { String::new() } else { format!(", profiles {}", profiles.join(", ")) };
    let _ = write!(text, "\nRead from {files}{with}.");
    let mut text = wrapped(&text, "");
    let _ = write!(text, "\n\n{}\n\n", table(project, proposal));
    let _ = writeln!(text, "{}", wrapped(&release(proposal), ""));
    for caution in &project.cautions {
        let _ = writeln!(text, "{}", wrapped(caution, "! "));
    }
    text
}

/// Its images, those that are alike on one line.
fn table(project: &Project, proposal: &Proposal) -> String {
    let mut lines: BTreeMap<(bool, String, String), Vec<&str>> = BTreeMap::new();
    for service in &project.services {
        let key =
            (!proposal.services.contains(&service.name), service.reference.clone(), set_by(project, service));
        lines.entry(key).or_default().push(service.name.as_str());
    }
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(u16::try_from(WIDTH).unwrap_or(u16::MAX)).set_header(["SERVICES", "IMAGE", "SAID BY"]);
    for ((_, image, by), services) in lines {
        table.add_row([listed(&services, SHOWN), image, by]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// What says a service's image: variables, or a line.
fn set_by(project: &Project, service: &FoundService) -> String {
    let uses = project.variables.iter().filter(|variable| variable.uses.contains_key(&service.name));
    let names: Vec<&str> = uses.map(|variable| variable.name.as_str()).collect();
    match (&service.written, names.is_empty()) {
        (_, false) => names.join(", "),
        (Some(at), true) => format!("{} line {}", at.path, at.line),
        (None, true) if service.from == ImageFrom::Host => "built on this host".to_owned(),
        (None, true) => "-".to_owned(),
    }
}

/// By what the release is set.
fn release(proposal: &Proposal) -> String {
    let tag = proposal.image_tag.as_deref().unwrap_or_default();
    let services: Vec<&str> =
        proposal.services.iter().map(tenantry_api::names::ServiceName::as_str).collect();
    let of = listed(&services, SHOWN);
    match &proposal.moves {
        Moves::Variable(name) => format!("Its release is {tag}: {name}, which sets the image of {of}."),
        Moves::Written => format!(
            "Its release is {tag}: the tag that the compose files write for {of}. An upgrade changes exactly that tag there."
        ),
        Moves::Digest => {
            format!("The image of {of} is said by its digest: a release is another digest in spec.images.")
        }
        Moves::Nothing(why) => {
            format!("No tag sets a release of it, for {why}. Until then it is watched as it is.")
        }
    }
}

/// What the host's policy lacks.
pub fn lacking(lacking: &Lacking) -> String {
    let mut text = String::new();
    if !lacking.grants.is_empty() {
        let _ = writeln!(
            text,
            "{}",
            wrapped(&format!("It needs lines that {} does not have:", lacking.file), "")
        );
        for grant in &lacking.grants {
            let _ = writeln!(text, "  allow.{}: {}", grant.list, grant.item);
            let _ = writeln!(text, "{}", wrapped(&format!("{}, for {}.", grant.means, grant.at), "      "));
        }
    }
    if lacking.more > 0 {
        let _ = writeln!(text, "  and {} more", lacking.more);
    }
    for never in &lacking.ungrantable {
        let _ = writeln!(text, "{}", wrapped(&format!("No line grants this: {never}."), "! "));
    }
    text
}

/// What will be done.
pub fn doing(project: &Project, tenant: &str, cluster: &str, granted: Option<&str>) -> String {
    let mut text = String::new();
    if let Some(file) = granted {
        let _ = writeln!(text, "{}", wrapped(&format!("The lines above are appended to {file}."), "- "));
    }
    let _ = writeln!(text, "{}", wrapped(&format!("The Tenant {tenant} is made {cluster}."), "- "));
    let running = project.containers.iter().any(|one| one.running);
    let what = match (project.containers.is_empty(), running) {
        (true, _) => "Nothing of it is there yet: what the compose files say is pulled and started.",
        (false, true) => {
            "On the host nothing is changed: no file, and no container is made, restarted or removed."
        }
        (false, false) => "Its containers are stopped and stay so: it shows Degraded until you start them.",
    };
    text.push_str(&wrapped(what, "- "));
    text
}

/// The projects that can be adopted, for whoever named none.
pub fn projects(all: &[Listed]) -> String {
    if all.is_empty() {
        return "There is no container of a compose project on this host.".to_owned();
    }
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["PROJECT", "RUNNING", "DIRECTORY"]);
    for one in all {
        let directories: Vec<&String> = one.directories.iter().collect();
        table.add_row([
            one.project.clone(),
            format!("{} of {}", one.running, one.containers),
            listed(&directories, 2),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A text in lines that fit; `mark` stands before the first, and the others are as far in.
pub fn wrapped(text: &str, mark: &str) -> String {
    let indent = " ".repeat(mark.len());
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.lines() {
        let mut line = if lines.is_empty() { mark.to_owned() } else { indent.clone() };
        let mut begun = false;
        for word in paragraph.split(' ').filter(|word| !word.is_empty()) {
            if begun && line.chars().count() + 1 + word.chars().count() > WIDTH {
                lines.push(std::mem::replace(&mut line, indent.clone()));
                begun = false;
            }
            if begun {
                line.push(' ');
            }
            line.push_str(word);
            begun = true;
        }
        lines.push(line);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_a_terminal_and_no_word_is_lost() {
        let text = "word ".repeat(60) + &"x".repeat(100);
        let shown = wrapped(&text, "- ");
        assert!(shown.starts_with("- word"));
        let long: Vec<&str> = shown.lines().filter(|line| line.len() > WIDTH).collect();
        assert_eq!(long, [format!("  {}", "x".repeat(100))]);
        assert_eq!(shown.split_whitespace().count(), 62);
        assert!(shown.lines().skip(1).all(|line| line.starts_with("  ")), "{shown}");
    }
}
