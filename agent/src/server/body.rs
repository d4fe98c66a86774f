//! Requests are read within bounds of size, time and memory, and decoded without letting anything unknown pass.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tenantry_protocol::{ApiError, BODY_LIMIT, ErrorCode};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long a request waits until others' bodies have left room for its own.
const ROOM_TIME: Duration = Duration::from_secs(10);
const KIB: usize = 1024;

/// Memory that all bodies together may take, and how long each may take to come.
#[derive(Debug)]
pub(super) struct Room {
    kib: Semaphore,
    time: Duration,
}

impl Room {
    /// Room for two of the largest bodies.
    pub fn new(time: Duration) -> Self {
        Self { kib: Semaphore::new(2 * BODY_LIMIT / KIB), time }
    }
}

/// Reads a request's body and decodes it.
pub(super) async fn decode<T: DeserializeOwned>(request: Request<Body>, room: &Room) -> Result<T, ApiError> {
    let declared = declared_length(&request);
    let limit = if tenantry_faults::Bug::AnySize.is_seeded() { usize::MAX } else { BODY_LIMIT };
    if declared.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let kib = declared.unwrap_or(BODY_LIMIT).div_ceil(KIB).max(1);
    let wanted = room.kib.acquire_many(u32::try_from(kib).unwrap_or(u32::MAX));
    let Ok(Ok(_taken)) = timeout(ROOM_TIME, wanted).await else {
        return Err(error(
            ErrorCode::Overloaded,
            "the agent is reading other large requests: try again later",
        ));
    };
    let body = Limited::new(request.into_body(), limit);
    let Ok(collected) = timeout(room.time, body.collect()).await else {
        return Err(invalid(format!("the request's body did not come within {:?}", room.time)));
    };
    let bytes = collected
        .map_err(|e| {
            if e.is::<LengthLimitError>() { too_large() } else { invalid("the request's body broke off") }
        })?
        .to_bytes();
    parse(&bytes)
}

/// Decodes a body. A refusal names the field; values that may be secret are not quoted.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let message = unquoting(&path, &error.into_inner().to_string());
        ApiError { code: ErrorCode::Invalid, field: Some(path).filter(|path| path != "."), message }
    })?;
    json.end().map_err(|_| invalid("something follows the request's JSON"))?;
    Ok(value)
}

/// serde quotes what it found: fine for a path, not for what may be a secret.
fn unquoting(path: &str, message: &str) -> String {
    let may_be_secret = path.starts_with("manifest.env") || path.starts_with("contents");
    let names_fields_only = ["unknown field", "missing field", "variable "];
    if !may_be_secret || names_fields_only.iter().any(|start| message.starts_with(start)) {
        return message.to_owned();
    }
    "is not of the type that the protocol asks for here".to_owned()
}

fn declared_length(request: &Request<Body>) -> Option<usize> {
    request.headers().get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large() -> ApiError {
    invalid(format!(
        "the request is larger than {} MiB, the most that an agent reads",
        BODY_LIMIT / KIB / KIB
    ))
}

/// A refusal for a request that is not well formed.
pub(super) fn invalid(message: impl Into<String>) -> ApiError {
    error(ErrorCode::Invalid, message)
}

/// A refusal without a field.
pub(super) fn error(code: ErrorCode, message: impl Into<String>) -> ApiError {
    ApiError { code, field: None, message: message.into() }
}

#[cfg(test)]
mod tests {
    use tenantry_protocol::{Manifest, ObserveRequest, ReleaseRequest};

    use super::*;

    fn refused<T: DeserializeOwned>(text: &str) -> ApiError {
        parse::<T>(text.as_bytes()).err().unwrap()
    }

    #[test]
    fn a_refusal_names_the_field() {
        let tenant = r#""tenant": {"uid": "a1", "namespace": "n", "name": "t"}"#;
        let observe = |directory: &str| {
            format!(
                r#"{{{tenant}, "place": {{"project": "p", "directory": "{directory}"}},
                    "manifest": {{"files": [], "env": {{"ownership": "managed"}}, "protect": [], "jobs": [], "onChange": []}}}}"#
            )
        };
        assert!(parse::<ObserveRequest>(observe("/srv/a").as_bytes()).is_ok());
        let error = refused::<ObserveRequest>(&observe("/srv/../etc"));
        assert_eq!((error.code, error.field.as_deref()), (ErrorCode::Invalid, Some("place.directory")));
        assert!(error.message.contains("'..'"), "{}", error.message);
    }

    #[test]
    fn unknown_fields_and_trailing_bytes_are_refused() {
        let error = refused::<ReleaseRequest>(
            r#"{"tenant": {"uid": "a1", "namespace": "n", "name": "t", "also": 1}}"#,
        );
        assert!(error.message.contains("unknown field `also`"), "{}", error.message);
        let error =
            refused::<ReleaseRequest>(r#"{"tenant": {"uid": "a1", "namespace": "n", "name": "t"}} x"#);
        assert!(error.message.contains("follows"), "{}", error.message);
    }

    #[derive(Debug, serde::Deserialize)]
    struct Outer {
        #[allow(dead_code)]
        manifest: Manifest,
    }

    #[test]
    fn a_value_of_env_is_never_quoted() {
        let manifest = |value: &str| {
            format!(
                r#"{{"files": [], "env": {{"ownership": "adopted", "patch": [{{"name": "A", "value": {value}}}]}},
                    "protect": [], "jobs": [], "onChange": []}}"#
            )
        };
        assert!(parse::<Manifest>(manifest(r#""x""#).as_bytes()).is_ok());
        let error = refused::<Outer>(&format!(r#"{{"manifest": {}}}"#, manifest("31337")));
        assert!(error.field.as_deref().is_some_and(|f| f.starts_with("manifest.env")), "{error:?}");
        assert!(!error.message.contains("31337"), "{}", error.message);
    }

    #[test]
    fn json_without_end_is_refused_without_a_crash() {
        let error = refused::<ReleaseRequest>(&"[".repeat(1_000_000));
        assert_eq!(error.code, ErrorCode::Invalid);
    }
}
