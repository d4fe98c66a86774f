//! Files that nobody would read: a compose file of the release that compose does not choose.

use tenantry_protocol::FailureCategory;

use crate::compose::{Discovered, left_unread};
use crate::planning::context::RequestContext;
use crate::planning::error::StepError;

/// Refuses a release of which a compose file would not be read.
pub fn check(context: &RequestContext, staged: &Discovered) -> Result<(), StepError> {
    let unread = left_unread(&context.request.manifest.files, staged);
    let Some(first) = unread.first() else { return Ok(()) };
    let read: Vec<&str> = staged.files.iter().map(tenantry_api::names::RelativePath::as_str).collect();
    let message = format!(
        "the bundle writes {first}, which compose would not read in {}: it reads {}. Give the file that name in the \
         bundle, move the other one away, or name both in spec.compose.files",
        context.directory(),
        read.join(", ")
    );
    Err(StepError::new(FailureCategory::ComposeFileUnread, message))
}
