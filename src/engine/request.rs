//! What a caller asks for.

use crate::chat::Message;
use crate::sampling::SamplingParams;

/// A prompt and how to answer it.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to answer.
    pub prompt: Prompt,
    /// How.
    pub params: SamplingParams,
}

/// The three forms of a prompt.
#[derive(Debug, Clone)]
pub enum Prompt {
    /// One user turn, put into the chat template; text that begins with a control token of the template (as the tutorial's
    /// prompt does) is taken as [`Prompt::Raw`].
    Text(String),
    /// Text for the model as it stands; control tokens in it are control tokens.
    Raw(String),
    /// A conversation, put into the chat template.
    Messages(Vec<Message>),
    /// Token ids, taken as they are.
    Tokens(Vec<u32>),
}
