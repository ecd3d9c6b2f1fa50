//! One message of a conversation.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A message: who says what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, or what else the model's template knows.
    pub role: String,
    /// The text. Nothing in it can become a control token.
    #[serde(default)]
    pub content: String,
    /// Further fields for the template, such as `tool_calls`.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
    /// The token ids that a model wrote `content` as, the one that ended its turn included or not; empty when they are not known.
    /// A prompt has them in place of those that `content` would be cut into: see [`ChatTemplate::encode`](super::ChatTemplate::encode).
    #[serde(skip)]
    pub token_ids: Vec<u32>,
}

impl Message {
    /// A message of `role` that says `content`.
    ///
    /// ```
    /// use phicandle::chat::Message;
    ///
    /// let message = Message::new("user", "Write a haiku about ice hockey");
    /// assert_eq!(message.role, "user");
    /// ```
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), ..Self::default() }
    }
}
