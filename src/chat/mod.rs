//! Conversations to prompts: messages and the model's chat template.

mod environment;
mod json;
mod message;
mod methods;
mod sums;
mod template;
#[cfg(test)]
mod tests;

pub use message::Message;
pub use template::ChatTemplate;
