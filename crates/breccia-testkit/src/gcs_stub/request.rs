//! A request taken apart, and the answers that every call may give.
//!
//! Knows nothing of objects. Invariant: path and query are percent-decoded once, after they are split.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::fields;
use crate::http_message::{Head, HttpReply, percent_decoded};

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) path: Vec<String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn new(head: &Head, body: Vec<u8>) -> Result<Request> {
        let mut words = head.start.split(' ');
        let method = words.next().context("no method")?.to_owned();
        let target = words.next().context("no target")?.to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let path = path.trim_start_matches('/').split('/');
        let query = query.split('&').filter(|pair| !pair.is_empty());
        Ok(Request {
            method,
            path: path.map(percent_decoded).collect(),
            query: query.map(pair).collect(),
            target,
            headers: head.headers.clone(),
            body,
        })
    }

    /// A parameter of the query.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(present, _)| present == name);
        found.map(|(_, value)| value.as_str())
    }

    /// A parameter that is a number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let bad = |_| Refusal::new(400, "invalidParameter", &format!("{name} is not a number"));
        self.parameter(name)
            .map(str::parse)
            .transpose()
            .map_err(bad)
    }

    /// A header line; `name` in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(present, _)| present == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON; an empty one is an empty object.
    pub(super) fn json(&self) -> Result<Value, Refusal> {
        parse_json(&self.body)
    }

    /// A JSON answer, cut down to the parameter `fields`.
    pub(super) fn answer(&self, value: &Value) -> HttpReply {
        let shown = match self.parameter("fields") {
            Some(wanted) => fields::select(value, wanted),
            None => value.clone(),
        };
        json_reply(200, &shown)
    }
}

/// A JSON object from bytes; none is an empty object.
pub(super) fn parse_json(bytes: &[u8]) -> Result<Value, Refusal> {
    if bytes.trim_ascii().is_empty() {
        return Ok(json!({}));
    }
    let value = serde_json::from_slice(bytes).ok().filter(Value::is_object);
    value.ok_or_else(|| Refusal::new(400, "parseError", "Parse Error"))
}

fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let decoded = |text: &str| percent_decoded(&text.replace('+', " "));
    (decoded(name), decoded(value))
}

pub(super) fn json_reply(status: u16, value: &Value) -> HttpReply {
    let kind = "application/json; charset=UTF-8".to_owned();
    HttpReply {
        status,
        headers: vec![("content-type".to_owned(), kind)],
        body: value.to_string().into_bytes(),
    }
}

/// Why a request is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: u16,
    reason: &'static str,
    message: String,
}

impl Refusal {
    pub(super) fn new(status: u16, reason: &'static str, message: &str) -> Refusal {
        let message = message.to_owned();
        Refusal {
            status,
            reason,
            message,
        }
    }

    pub(super) fn no_object(bucket: &str, name: &str) -> Refusal {
        Refusal::new(404, "notFound", &format!("No such object: {bucket}/{name}"))
    }

    pub(super) fn no_bucket() -> Refusal {
        Refusal::new(404, "notFound", "The specified bucket does not exist.")
    }

    pub(super) fn precondition() -> Refusal {
        let message = "At least one of the pre-conditions you specified did not hold.";
        Refusal::new(412, "conditionNotMet", message)
    }

    pub(super) fn reply(self) -> HttpReply {
        if self.status == 304 {
            return HttpReply {
                status: 304,
                ..HttpReply::default()
            };
        }
        let error = json!({
            "code": self.status,
            "message": self.message,
            "errors": [{"message": self.message, "domain": "global", "reason": self.reason}],
        });
        json_reply(self.status, &json!({ "error": error }))
    }
}
