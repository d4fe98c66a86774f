//! Rendering a bundle for one tenant: strict, bounded in output and in time, and never beyond the bundle's own files.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use sha2::{Digest as _, Sha256 as Hasher};
use tenantry_api::names::Sha256;
use tenantry_protocol::{Bytes, FileContent, FileManifest};
use tera::{Context, Error as TeraError, ErrorKind, Kwargs, State, Tera};

use crate::bundle::{Bundle, BundleFile, Sources, TEMPLATE_SUFFIX};
use crate::target::{Intent, Refusal, RefusalReason, Rendered, hex};

mod ticks;

/// The most bytes that one file may be rendered to.
pub const FILE_LIMIT: usize = 1024 * 1024;
/// The most bytes that a bundle may be rendered to.
pub const TOTAL_LIMIT: usize = 8 * 1024 * 1024;
/// How long rendering a whole bundle may take.
pub const TIME_LIMIT: Duration = Duration::from_secs(5);

/// What a template sees.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    image_tag: &'a str,
    values: &'a serde_json::Map<String, serde_json::Value>,
    tenant: TenantView<'a>,
    project: &'a str,
    directory: &'a str,
}

#[derive(Serialize)]
struct TenantView<'a> {
    name: &'a str,
    namespace: &'a str,
}

/// Renders every file of a bundle. `deadline` ends it, whatever the templates do.
pub fn render(
    bundle: &Bundle,
    intent: &Intent,
    values: &serde_json::Map<String, serde_json::Value>,
    deadline: Instant,
) -> Result<Rendered, Refusal> {
    let refused = |refusal: Refusal| if Instant::now() < deadline { refusal } else { refusal.of_time() };
    let renderer = Renderer::new(bundle, intent, values, deadline)?;
    let mut out = Rendered { files: Vec::new(), contents: Vec::new() };
    let mut left = TOTAL_LIMIT;
    for file in &bundle.files {
        let content = renderer.file(file, left).map_err(refused)?;
        left -= content.len();
        let sha256 = Sha256::parse(hex(&Hasher::digest(&content)))
            .map_err(|error| failed(bundle, file, &error.to_string()))?;
        out.files.push(FileManifest {
            path: file.destination.clone(),
            sha256,
            size: content.len() as u64,
            mode: file.mode,
            owner: file.owner,
            sensitive: file.sensitive,
        });
        out.contents.push(FileContent { path: file.destination.clone(), content: Bytes(content) });
    }
    Ok(out)
}

fn failed(bundle: &Bundle, file: &BundleFile, problem: &str) -> Refusal {
    let message = format!("TemplateBundle {}, {}: {problem}.", bundle.identity.name, file.source);
    Refusal::new(RefusalReason::RenderFailed, message)
}

/// Whether every template of a bundle can be parsed: the place and what is wrong there, of the first that can't.
pub fn check(sources: &Sources) -> Result<(), (String, String)> {
    let mut tera = Tera::new();
    tera.register_function(ticks::NAME, |_: Kwargs, _: &State| String::new());
    for (path, text) in templates(sources).map_err(|(path, problem)| (path, problem.to_owned()))? {
        let parsed = tera.add_raw_templates([(path.clone(), text)]);
        if let Err(ErrorKind::SyntaxError(report)) = parsed.as_ref().map_err(TeraError::kind) {
            let place = format!("{path}, line {}", report.span().start_line);
            return Err((place, format!("{}; correct the template", one_line(report.message()))));
        }
    }
    Ok(())
}

struct Renderer<'a> {
    bundle: &'a Bundle,
    tera: Tera,
    context: Context,
    deadline: Instant,
}

impl<'a> Renderer<'a> {
    fn new(
        bundle: &'a Bundle,
        intent: &Intent,
        values: &serde_json::Map<String, serde_json::Value>,
        deadline: Instant,
    ) -> Result<Self, Refusal> {
        let refuse = |problem: String| {
            let message = format!("TemplateBundle {}, {problem}.", bundle.identity.name);
            Refusal::new(RefusalReason::RenderFailed, message)
        };
        let mut tera = Tera::new();
        tera.autoescape_on(Vec::<&str>::new());
        tera.register_function(ticks::NAME, move |_: Kwargs, _: &State| tick(deadline));
        let templates =
            templates(&bundle.sources).map_err(|(path, problem)| refuse(format!("{path}: {problem}")))?;
        tera.add_raw_templates(templates).map_err(|error| refuse(explain(&error)))?;
        let view = View {
            image_tag: intent.image_tag.as_str(),
            values,
            tenant: TenantView { name: &intent.tenant.name, namespace: &intent.tenant.namespace },
            project: intent.place.project.as_str(),
            directory: intent.place.directory.as_str(),
        };
        let context = Context::from_serialize(&view).map_err(|error| refuse(explain(&error)))?;
        Ok(Self { bundle, tera, context, deadline })
    }

    fn file(&self, file: &BundleFile, left: usize) -> Result<Vec<u8>, Refusal> {
        let mut out =
            Bounded { bytes: Vec::new(), limit: FILE_LIMIT.min(left), deadline: self.deadline, over: None };
        if file.template {
            let result = self.tera.render_to(&file.source, &self.context, &mut out);
            if let Some(over) = out.over {
                return Err(failed(self.bundle, file, over));
            }
            result.map_err(|error| failed(self.bundle, file, &explain(&error)))?;
            return Ok(out.bytes);
        }
        let content = self.bundle.sources.get(&file.source).map_or(&[][..], |content| content);
        let copied = io::Write::write_all(&mut out, content);
        match out.over {
            Some(over) => Err(failed(self.bundle, file, over)),
            None => copied.map(|()| out.bytes).map_err(|error| failed(self.bundle, file, &error.to_string())),
        }
    }
}

/// Every template of the bundle under its own path, so that one may include another but nothing else.
fn templates(sources: &Sources) -> Result<Vec<(String, String)>, (String, &'static str)> {
    let named = sources.iter().filter(|(path, _)| path.ends_with(TEMPLATE_SUFFIX));
    named
        .map(|(path, content): (&String, &Arc<[u8]>)| {
            let text = std::str::from_utf8(content).map_err(|_| (path.clone(), "is not UTF-8 text"))?;
            Ok((path.clone(), ticks::insert(text)))
        })
        .collect()
}

const TOO_LONG: &str = "rendering took longer than it may; look for loops within loops";

/// Called at each turn of a loop, for a loop without output would never meet the writer.
fn tick(deadline: Instant) -> Result<String, TeraError> {
    if Instant::now() < deadline { Ok(String::new()) } else { Err(TeraError::message(TOO_LONG)) }
}

/// A place for output that ends in time and in size.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    deadline: Instant,
    over: Option<&'static str>,
}

impl io::Write for Bounded {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + part.len() > self.limit {
            self.over = Some("is rendered to more than 1 MiB, or the bundle to more than 8 MiB");
        } else if Instant::now() >= self.deadline {
            self.over = Some(TOO_LONG);
        }
        if let Some(over) = self.over {
            return Err(io::Error::other(over));
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One line: what was wrong, in which template, on which line. The library's own report spans several.
fn explain(error: &TeraError) -> String {
    match error.kind() {
        ErrorKind::SyntaxError(report) | ErrorKind::RenderingError(report) => one_line(&format!(
            "{} in {}, line {}",
            report.message(),
            report.filename(),
            report.span().start_line
        )),
        _ => one_line(&error.to_string()),
    }
}

fn one_line(text: &str) -> String {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("can't be rendered");
    tenantry_api::conditions::bounded(first.trim().trim_end_matches('.'), 512)
}

#[cfg(test)]
mod tests;
