//! Prompts, from the pairs that `phicandle.prompt` makes to the core's enum.

use pyo3::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::chat::Message;
use crate::engine::Prompt;
use crate::error::{Error, Result};

/// The second half of the pair.
#[derive(FromPyObject)]
pub(super) enum Content {
    Text(String),
    Ids(Vec<u32>),
    /// Messages and tools, both JSON.
    Pair(String, String),
}

/// What follows a prompt.
#[derive(FromPyObject)]
pub(super) enum Continuation {
    Text(String),
    Ids(Vec<u32>),
}

/// The core's prompt for a form (`text`, `raw`, `turn`, `messages`, `with_tools` or `ids`) and its content.
///
/// # Errors
/// [`ErrorKind::InvalidParameter`](crate::ErrorKind::InvalidParameter) for messages that are not messages.
pub(super) fn prompt(form: &str, content: Content) -> Result<Prompt> {
    match (form, content) {
        ("text", Content::Text(text)) => Ok(Prompt::Text(text)),
        ("raw", Content::Text(text)) => Ok(Prompt::Raw(text)),
        ("turn", Content::Text(text)) => Ok(Prompt::Messages(vec![Message::new("user", text)])),
        ("messages", Content::Text(json)) => messages(&json).map(Prompt::Messages),
        ("with_tools", Content::Pair(json, schemas)) => {
            Ok(Prompt::WithTools { messages: messages(&json)?, tools: tools(&schemas)? })
        }
        ("ids", Content::Ids(ids)) => Ok(Prompt::Tokens(ids)),
        (form, _) => Err(Error::internal(format!("The Python package sent a prompt of the form {form:?}."))),
    }
}

/// Messages from their JSON.
///
/// # Errors
/// [`ErrorKind::InvalidParameter`](crate::ErrorKind::InvalidParameter) when it is not a list of messages.
pub(super) fn messages(json: &str) -> Result<Vec<Message>> {
    let messages: Vec<Map<String, Value>> =
        serde_json::from_str(json).map_err(|error| unusable(&error.to_string()))?;
    messages.into_iter().map(message).collect()
}

/// Tools from their JSON.
///
/// # Errors
/// [`ErrorKind::InvalidParameter`](crate::ErrorKind::InvalidParameter) when it is not a list.
pub(super) fn tools(json: &str) -> Result<Vec<Value>> {
    serde_json::from_str(json).map_err(|error| {
        Error::invalid(
            "tools",
            format!("The tools cannot be used: {error}."),
            "Pass a list of JSON schemas of functions.",
        )
    })
}

fn message(mut fields: Map<String, Value>) -> Result<Message> {
    let mut text = |name: &str| match fields.shift_remove(name) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(unusable(&format!("one has no text as {name}"))),
    };
    let (role, content) = (text("role")?, text("content")?);
    let token_ids = match fields.shift_remove("token_ids") {
        None | Some(Value::Null) => Vec::new(),
        Some(ids) => {
            Vec::deserialize(ids).map_err(|_| unusable("the token_ids of one are no list of token ids"))?
        }
    };
    Ok(Message { role, content, extra: fields, token_ids })
}

fn unusable(reason: &str) -> Error {
    Error::invalid(
        "prompt",
        format!("The messages cannot be used: {reason}."),
        "Pass a list of mappings with a str as \"role\" and a str as \"content\".",
    )
}
