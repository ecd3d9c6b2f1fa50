//! What a model says of the tokens of a text, where that was asked for.

use crate::error::Result;
use crate::sampling::{Logprobs, TokenLogprob};

/// Tokens with their log-probabilities.
pub(super) struct Noted {
    reader: Logprobs,
    tokens: Vec<TokenLogprob>,
}

impl Noted {
    /// With the `top` most likely tokens beside each; `None` for none at all.
    pub(super) fn of(top: Option<usize>) -> Option<Self> {
        top.map(|top| Self { reader: Logprobs::new(top), tokens: Vec::new() })
    }

    /// Reads the row that the next token is chosen from.
    ///
    /// # Errors
    /// Those of [`Logprobs::read`].
    pub(super) fn read(&mut self, logits: &[f32]) -> Result<()> {
        self.reader.read(logits)
    }

    /// Notes the token that was chosen from the row read last.
    ///
    /// # Errors
    /// Those of [`Logprobs::of`].
    pub(super) fn note(&mut self, token: u32) -> Result<()> {
        self.tokens.push(self.reader.of(token)?);
        Ok(())
    }

    /// The tokens noted since the last time.
    pub(super) fn take(&mut self) -> Vec<TokenLogprob> {
        std::mem::take(&mut self.tokens)
    }
}
