//! What a restore point says to a person who has nothing but a shell and `tar`.

use std::fmt::Write as _;
use std::path::Path;

use tenantry_protocol::TenantRef;

use crate::files::{KeptFiles, Was};
use crate::host::restore_points::RestorePoint;
use crate::snapshot::{Part, What};

/// Those that belong to data; without being asked to, `tar` leaves them out.
const ATTRIBUTES: &str = "--xattrs --xattrs-include='*'";

/// The text. Lines that begin with four spaces are commands.
pub fn readme(directory: &Path, tenant: &TenantRef, point: &RestorePoint, kept: &KeptFiles) -> String {
    let at = directory.join(".tenantry/restore").join(point.operation.as_str());
    let (directory, at) = (quoted(&directory.to_string_lossy()), quoted(&at.to_string_lossy()));
    let up = point.compose.as_ref().map_or("docker compose up -d", |compose| compose.command.as_str());
    let mut text = format!(
        "Restore point {} of the tenant {}/{}, made at {}.\n",
        point.operation, tenant.namespace, tenant.name, point.at
    );
    let release = &point.baseline.release.image_tag;
    if !release.is_empty() {
        let _ = writeln!(text, "It leads back to the release {release}.");
    }
    text.push_str(
        "\nUsually nobody needs this: `tenantry rollback` does all of it, and checks the result. By hand, as root:\n",
    );
    let mut step = |what: &str, commands: &[String]| {
        if !commands.is_empty() {
            let _ = write!(text, "\n{what}\n\n    {}\n", commands.join("\n    "));
        }
    };
    if !point.data.is_empty() {
        let command = up.strip_suffix("up -d").unwrap_or("docker compose ");
        step("Stop what writes to the data.", &[format!("cd {directory} && {command}stop")]);
    }
    step("Put the files back, with their modes and owners.", &files(&directory, &at, kept));
    step("Take away the files that were not there.", &absent(&directory, kept));
    let data: Vec<String> = point.data.iter().map(|part| data(&directory, &at, part)).collect();
    step("Put the data back. What was written to it since is lost.", &data);
    step("Put the image references back.", &images(point));
    step("Start it.", &[format!("cd {directory} && {up}")]);
    step(
        "Then tell Tenantry that the host is right as it is.",
        &[format!("tenantry accept-host {} -n {}", tenant.name, tenant.namespace)],
    );
    text
}

fn files(directory: &str, at: &str, kept: &KeptFiles) -> Vec<String> {
    let there = kept.files.iter().filter(|file| matches!(file.before, Was::File { .. }));
    let names: Vec<String> = there.map(|file| quoted(file.path.as_str())).collect();
    if names.is_empty() {
        return Vec::new();
    }
    // Files by name: an archive of folders would bring their modes along.
    vec![format!("tar -C {at}/files -cf - -- {} | tar -C {directory} -xpf -", names.join(" "))]
}

fn absent(directory: &str, kept: &KeptFiles) -> Vec<String> {
    let absent = kept.files.iter().filter(|file| file.before == Was::Absent);
    let names: Vec<String> = absent.map(|file| quoted(file.path.as_str())).collect();
    if names.is_empty() {
        return Vec::new();
    }
    vec![format!("cd {directory} && rm -f -- {}", names.join(" "))]
}

/// A path or volume is emptied and unpacked again. The entries of a path's archive begin with the path itself.
fn data(directory: &str, at: &str, part: &Part) -> String {
    let unpacked = |place: &str| {
        part.archive.as_ref().map(|archive| {
            format!(" && tar -C {place} --zstd {ATTRIBUTES} -xpf {at}/data/{}", quoted(&archive.archive))
        })
    };
    match &part.what {
        What::Path(path) => {
            let unpacked = unpacked(directory).unwrap_or_default();
            format!("rm -rf -- {directory}/{}{unpacked}", quoted(path.as_str()))
        }
        What::Volume { name, .. } => {
            let place = format!("\"$(docker volume inspect -f '{{{{.Mountpoint}}}}' {})\"", quoted(name));
            format!("find {place} -mindepth 1 -delete{}", unpacked(&place).unwrap_or_default())
        }
    }
}

fn images(point: &RestorePoint) -> Vec<String> {
    let tagged = |reference: &&str| !reference.contains('@');
    let mut references: Vec<&str> = point.references.iter().map(|known| known.reference.as_str()).collect();
    references.dedup();
    let references = references.into_iter().filter(tagged);
    references
        .filter_map(|reference| Some(format!("docker tag {} {}", point.image(reference)?, quoted(reference))))
        .collect()
}

/// A word for a shell.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
