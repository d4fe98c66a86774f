//! The bad inputs, row by row of the table that they come from.

pub mod endpoints;

mod compose;
mod env;
mod model;
mod names;
mod numbers;
mod paths;
mod requests;
mod tricks;

use serde_json::Value;

use crate::hostile::host::Host;

/// Something that is put in the way on disk, and taken away when it is dropped.
pub type Prepare = Box<dyn Fn(&Host) -> Box<dyn std::any::Any>>;

/// One bad input.
pub struct Case {
    pub name: String,
    pub input: Input,
    pub expect: Expect,
    pub prepare: Option<Prepare>,
}

/// What is sent.
pub enum Input {
    Call { method: &'static str, path: String, body: Vec<u8> },
    Operation(Value),
}

/// Where it is refused, and how.
pub enum Expect {
    /// By the call itself.
    Refused { status: u16, code: &'static str, field: String },
    /// In the answer to a question.
    Problem { says: String },
    /// By the operation, before anything was changed.
    Ended { category: &'static str, during: &'static str, says: String, composed: bool },
}

impl Case {
    pub fn new(name: impl Into<String>, input: Input, expect: Expect) -> Self {
        Self { name: name.into(), input, expect, prepare: None }
    }
}

impl Input {
    pub fn call(method: &'static str, path: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self::Call { method, path: path.into(), body: body.into() }
    }

    /// What makes a case another one: epochs and hashes aside.
    pub fn key(&self, name: &str) -> String {
        match self {
            Self::Call { method, path, body } => {
                format!("{method} {path} {}", tenantry_agent::files::sha256(body))
            }
            Self::Operation(body) => {
                let mut body = body.clone();
                if body["targetHash"].as_str().is_some_and(|hash| hash.starts_with("sha256:")) {
                    body["targetHash"] = Value::Null;
                }
                if body["epoch"].as_u64().is_some_and(|epoch| epoch > 0) {
                    body["epoch"] = Value::Null;
                }
                let prepared = if name.starts_with("on disk") { name } else { "" };
                format!("{prepared}{}", crate::hostile::text(&body))
            }
        }
    }
}

impl Expect {
    /// The request does not decode or contradicts itself.
    pub fn invalid(field: impl Into<String>) -> Self {
        Self::Refused { status: 400, code: "Invalid", field: field.into() }
    }

    pub fn policy(field: impl Into<String>) -> Self {
        Self::Refused { status: 403, code: "PolicyRefused", field: field.into() }
    }

    /// Refused before compose was run.
    pub fn unseen(category: &'static str, says: impl Into<String>) -> Self {
        Self::Ended { category, during: "Preflight", says: says.into(), composed: false }
    }

    /// Refused by what compose resolved.
    pub fn resolved(category: &'static str, says: impl Into<String>) -> Self {
        Self::Ended { category, during: "Preflight", says: says.into(), composed: true }
    }

    /// Nothing is wrong with it but that the engine can't change anything.
    pub fn pull() -> Self {
        Self::Ended { category: "RegistryUnreachable", during: "Pull", says: String::new(), composed: true }
    }
}

/// Every row with its cases. The order is that of the epochs.
pub fn all(host: &mut Host) -> Vec<(&'static str, Vec<Case>)> {
    vec![
        // First, while the agent still remembers its first operation.
        ("endpoints", endpoints::cases(host)),
        ("paths", paths::cases(host)),
        ("names", names::cases(host)),
        ("env", env::cases(host)),
        ("numbers", numbers::cases(host)),
        ("requests", requests::cases(host)),
        ("compose", compose::cases(host)),
        ("model", model::cases(host)),
        ("tricks", tricks::cases(host)),
    ]
}

/// Requests in which one field is another.
pub fn with(host: &mut Host, pointer: &str, value: Value) -> Value {
    let mut body = host.operation();
    set(&mut body, pointer, value);
    body
}

/// Sets a field, making what is missing above it.
pub fn set(body: &mut Value, pointer: &str, value: Value) {
    let mut at = body;
    for part in pointer.trim_start_matches('/').split('/') {
        at = match part.parse::<usize>() {
            Ok(index) => {
                let list = at.as_array_mut().unwrap();
                list.resize(list.len().max(index + 1), Value::Null);
                &mut list[index]
            }
            Err(_) => &mut at[part],
        };
    }
    *at = value;
}
