//! Conversations to prompts: messages and the model's chat template.
