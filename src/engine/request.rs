//! What a caller asks for.

use std::time::Duration;

use serde_json::Value;

use crate::chat::{Message, without_oldest};
use crate::sampling::SamplingParams;

/// A prompt and how to answer it.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to answer.
    pub prompt: Prompt,
    /// How.
    pub params: SamplingParams,
}

/// A prompt, and continuations of it of which the model shall say how likely they are.
#[derive(Debug, Clone)]
pub struct ScoreRequest {
    /// What comes before each continuation.
    pub prompt: Prompt,
    /// Token ids, at least one in each; [`Engine::continuation_tokens`](super::Engine::continuation_tokens) makes them of text.
    /// All are read with the rope factors that the longest needs.
    pub continuations: Vec<Vec<u32>>,
    /// How many of the likeliest tokens to list at each place, up to [`MOST_LOGPROBS`](crate::sampling::MOST_LOGPROBS).
    pub top: usize,
    /// Ends the work with what is known by then.
    pub timeout: Option<Duration>,
}

/// The forms of a prompt.
#[derive(Debug, Clone)]
pub enum Prompt {
    /// One user turn, put into the chat template; text that begins with a control token of the template (as the tutorial's
    /// prompt does) is taken as [`Prompt::Raw`].
    Text(String),
    /// Text for the model as it stands; control tokens in it are control tokens.
    Raw(String),
    /// A conversation, put into the chat template.
    Messages(Vec<Message>),
    /// A conversation in which the model may call tools.
    WithTools {
        /// The conversation.
        messages: Vec<Message>,
        /// JSON schemas of functions.
        tools: Vec<Value>,
    },
    /// Token ids, taken as they are.
    Tokens(Vec<u32>),
}

impl Prompt {
    /// The messages of a conversation; `None` for the other forms.
    pub fn messages(&self) -> Option<&[Message]> {
        match self {
            Self::Messages(messages) | Self::WithTools { messages, .. } => Some(messages),
            Self::Text(_) | Self::Raw(_) | Self::Tokens(_) => None,
        }
    }

    /// A conversation without its `count` oldest [`turns`](crate::chat::turns); the other forms as they are.
    #[must_use]
    pub fn without_oldest(&self, count: usize) -> Self {
        match self {
            Self::Messages(messages) => Self::Messages(without_oldest(messages, count)),
            Self::WithTools { messages, tools } => {
                Self::WithTools { messages: without_oldest(messages, count), tools: tools.clone() }
            }
            Self::Text(_) | Self::Raw(_) | Self::Tokens(_) => self.clone(),
        }
    }

    /// The tools that come with a conversation.
    pub fn tools(&self) -> &[Value] {
        match self {
            Self::WithTools { tools, .. } => tools,
            _ => &[],
        }
    }
}
