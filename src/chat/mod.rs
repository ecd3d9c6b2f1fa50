//! Conversations to prompts: messages and the model's chat template.

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

pub use message::Message;
pub use template::ChatTemplate;
