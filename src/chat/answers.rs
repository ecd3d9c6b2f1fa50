//! Answers in a prompt, with the token ids that the model wrote them as.
//!
//! A text can be cut into tokens in more than one way, and a model does not always choose the tokenizer's. After a rendered answer
//! was encoded anew, a prompt would then no longer begin with the tokens of the turn before, and the keys and values of all that
//! follows would have to be computed again.

use serde_json::Value;

use super::message::Message;
use super::template::ChatTemplate;
use crate::error::Result;
use crate::tokenizer::{RenderedPrompt, Tokenizer, unused};

impl ChatTemplate {
    /// The token ids of a conversation: those of the rendered prompt, but for messages with
    /// [`token_ids`](Message::token_ids). Such a message has its own ids, without those that ended the turn, when they spell its
    /// content, none of them is a control token, and the template writes the content as it stands. The text of the prompt is the
    /// same in either case.
    ///
    /// # Errors
    /// As [`render_with_tools`](Self::render_with_tools).
    pub fn encode(
        &self,
        messages: &[Message],
        tools: &[Value],
        add_generation_prompt: bool,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<u32>> {
        let render = |messages: &[Message]| {
            self.render_with_tools(messages, tools, add_generation_prompt, tokenizer.special_tokens())
        };
        let plain = render(messages)?;
        let known: Vec<Option<&[u32]>> =
            messages.iter().map(|message| spelling_ids(message, tokenizer)).collect();
        let texts: Vec<(&str, &[u32])> = messages
            .iter()
            .zip(&known)
            .filter_map(|(message, ids)| Some((message.content.as_str(), (*ids)?)))
            .collect();
        if texts.is_empty() {
            return tokenizer.encode_rendered(&plain, None);
        }
        // A character on both sides of each answer shows where the template puts it.
        let joint = unused(self.texts(messages, tools).into_iter())?;
        let mut between = messages.to_vec();
        for (message, _) in between.iter_mut().zip(&known).filter(|(_, ids)| ids.is_some()) {
            message.content = format!("{joint}{}{joint}", message.content);
        }
        // A template that cannot bear the character, or moves it, does not write the content as it stands.
        let joined: Option<RenderedPrompt> =
            render(&between).ok().and_then(|prompt| prompt.joined(joint, &texts, &plain));
        tokenizer.encode_rendered(joined.as_ref().unwrap_or(&plain), None)
    }
}

/// The token ids of a message, without those that ended its turn, if they are its content and nothing but text.
fn spelling_ids<'m>(message: &'m Message, tokenizer: &Tokenizer) -> Option<&'m [u32]> {
    let text = |id: &u32| !tokenizer.is_control(*id);
    let ids = message.token_ids.get(..=message.token_ids.iter().rposition(text)?)?;
    let spelled = ids.iter().all(text) && tokenizer.decode(ids, true).ok()? == message.content;
    spelled.then_some(ids)
}
