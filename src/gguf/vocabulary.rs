//! Agreement between the arrays that describe a vocabulary.

#![forbid(unsafe_code)]

use super::metadata::Metadata;
use crate::error::Result;

/// Most tokens of a vocabulary; Phi-4-mini has 200,064.
pub(super) const MAX_VOCABULARY: u64 = 1 << 20;
/// Largest number of a token type: normal 1, unknown 2, control 3, user-defined 4, unused 5, byte 6 (llama.cpp).
const LAST_TOKEN_TYPE: i32 = 6;
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
/// Switches that must be booleans.
const SWITCHES: [&str; 4] = [
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.add_space_prefix",
    "tokenizer.ggml.remove_extra_whitespaces",
];

impl Metadata {
    /// Checks the vocabulary and returns its number of tokens; `None` when the file has none. Scores and types are as
    /// many as tokens and of the right element type, every `tokenizer.ggml.*_token_id` names a token, strings are UTF-8
    /// where text is meant.
    ///
    /// # Errors
    /// `CorruptModel` that names the key, and both sides of a contradiction.
    pub fn check_vocabulary(&self) -> Result<Option<usize>> {
        for key in ["tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.chat_template"] {
            self.str(key)?;
        }
        for key in SWITCHES {
            self.bool(key)?;
        }
        self.strings(MERGES)?;
        let Some(tokens) = self.strings(TOKENS)? else { return Ok(None) };
        let count = tokens.len();
        if count == 0 || count as u64 > MAX_VOCABULARY {
            return Err(self.bad_value(TOKENS, format!("has {count} tokens; the limit is {MAX_VOCABULARY}.")));
        }
        if let Some(scores) = self.f32s(SCORES)? {
            self.same_length(SCORES, scores.len(), count)?;
            if let Some(position) = scores.iter().position(|score| score.is_nan()) {
                return Err(
                    self.bad_value(SCORES, format!("has a score that is not a number, of token {position}."))
                );
            }
        }
        if let Some(types) = self.i32s(TYPES)? {
            self.same_length(TYPES, types.len(), count)?;
            if let Some(position) = types.iter().position(|kind| !(0..=LAST_TOKEN_TYPE).contains(kind)) {
                return Err(self.bad_value(TYPES, format!("has an unknown type for token {position}.")));
            }
        }
        let ids: Vec<&str> = self
            .keys()
            .filter(|key| key.starts_with("tokenizer.ggml.") && key.ends_with("_token_id"))
            .collect();
        for key in ids {
            if let Some(id) = self.u64(key)?
                && id >= count as u64
            {
                return Err(self.bad_value(key, format!("is {id}, and `{TOKENS}` has only {count} tokens.")));
            }
        }
        Ok(Some(count))
    }

    fn same_length(&self, key: &str, length: usize, tokens: usize) -> Result<()> {
        if length == tokens {
            return Ok(());
        }
        Err(self.bad_value(key, format!("has {length} elements, and `{TOKENS}` has {tokens}.")))
    }
}
