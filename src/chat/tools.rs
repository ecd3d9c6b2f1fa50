//! How tools reach a template: as a variable of their own, or in the system message.

use minijinja::Template;
use serde_json::Value;

use super::json;
use super::message::Message;

/// Where a template looks for tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ToolSlot {
    /// The variable `tools`, a list: transformers' way.
    Variable,
    /// The field `tools` of the system message, a text: Phi-4-mini's way.
    SystemMessage,
    /// Nowhere.
    Nowhere,
}

impl ToolSlot {
    /// Read off the parsed template and its source.
    pub(super) fn of(template: &Template<'_, '_>, source: &str) -> Self {
        if template.undeclared_variables(false).contains("tools") {
            Self::Variable
        } else if ["['tools']", "[\"tools\"]", ".tools"].iter().any(|field| source.contains(field)) {
            Self::SystemMessage
        } else {
            Self::Nowhere
        }
    }
}

/// `messages` with `tools` in their system message, which is put first when there is none. A system message that has
/// the field keeps it.
pub(super) fn in_system_message(messages: &[Message], tools: &[Value]) -> Vec<Message> {
    let mut messages = messages.to_vec();
    if !messages.iter().any(|message| message.role == "system") {
        messages.insert(0, Message::new("system", ""));
    }
    let system = messages.iter_mut().find(|message| message.role == "system");
    for message in system.into_iter().filter(|message| !message.extra.contains_key("tools")) {
        message.extra.insert("tools".to_owned(), Value::String(written(tools)));
    }
    messages
}

/// The list that Phi-4-mini's model card shows: the functions themselves, as Python's `json.dumps` writes them.
fn written(tools: &[Value]) -> String {
    let functions = tools.iter().map(|tool| match tool {
        Value::Object(fields) if fields.get("type").and_then(Value::as_str) == Some("function") => {
            fields.get("function").unwrap_or(tool).clone()
        }
        _ => tool.clone(),
    });
    json::text(&functions.collect())
}
