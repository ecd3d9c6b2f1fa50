//! Conversations to prompts: messages and the model's chat template.

mod answers;
mod builtin;
mod environment;
mod json;
mod message;
mod methods;
mod sums;
mod template;
#[cfg(test)]
mod tests;
mod tools;
mod turns;

pub use message::Message;
pub use template::ChatTemplate;
pub(crate) use turns::is_standing;
pub use turns::{turns, without_oldest};
