//! Ids to text as they come, in whole characters.

use std::sync::Arc;

use super::Tokenizer;
use crate::error::Result;

/// Bytes to text, a few at a time: what is not yet a whole character waits (at most 3 bytes), what never can be one
/// becomes U+FFFD, one for each maximal ill-formed part, as `String::from_utf8_lossy` does.
#[derive(Debug, Default)]
pub(crate) struct Utf8Decoder {
    pending: Vec<u8>,
}

impl Utf8Decoder {
    /// Takes `bytes` and appends to `text` every character that is now complete.
    pub(crate) fn push(&mut self, bytes: &[u8], text: &mut String) {
        self.pending.extend_from_slice(bytes);
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    self.pending.clear();
                    return;
                }
                Err(error) => {
                    let (valid, bad) = rest.split_at(error.valid_up_to());
                    text.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    let Some(length) = error.error_len() else {
                        self.pending = bad.to_vec();
                        return;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = bad.get(length..).unwrap_or_default();
                }
            }
        }
    }

    /// Ends the text: an unfinished character becomes one U+FFFD.
    pub(crate) fn finish(&mut self, text: &mut String) {
        if !std::mem::take(&mut self.pending).is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// The state of decoding: characters in progress, and whether the text has begun.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    utf8: Utf8Decoder,
    begun: bool,
}

impl Progress {
    /// Takes the bytes of one token. `strip` drops a space at the very start of the text.
    pub(crate) fn push(&mut self, mut bytes: &[u8], strip: bool, text: &mut String) {
        if !self.begun && !bytes.is_empty() {
            self.begun = true;
            if strip {
                bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            }
        }
        self.utf8.push(bytes, text);
    }

    /// Ends the text.
    pub(crate) fn finish(&mut self, text: &mut String) {
        self.utf8.finish(text);
    }
}

/// Decodes generated ids one at a time, in constant time each.
///
/// All pushes and [`finish`](Self::finish), joined, are exactly [`Tokenizer::decode`] of the same ids with control
/// tokens left out.
#[derive(Debug)]
pub struct TokenStream {
    tokenizer: Arc<Tokenizer>,
    progress: Progress,
}

impl TokenStream {
    /// A stream at the start of a text.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, progress: Progress::default() }
    }

    /// The text that `id` completes: whole code points only, and "" while a character is incomplete. Control tokens
    /// give "". An id outside the vocabulary is an error of kind [`Tokenizer`](crate::ErrorKind::Tokenizer).
    pub fn push(&mut self, id: u32) -> Result<String> {
        let mut text = String::new();
        self.tokenizer.decode_one(id, true, &mut self.progress, &mut text)?;
        Ok(text)
    }

    /// Ends the text: "" or, when a character was left incomplete, U+FFFD. The stream may then be used for a new text.
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        std::mem::take(&mut self.progress).finish(&mut text);
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_cut_of_any_bytes_decodes_as_from_utf8_lossy(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0xC0u8..=0xFF, 0x80u8..=0xBF], 0..64),
            size in 1usize..6,
        ) {
            let (mut decoder, mut text) = (Utf8Decoder::default(), String::new());
            for part in bytes.chunks(size) {
                decoder.push(part, &mut text);
                prop_assert!(decoder.pending.len() <= 3);
            }
            decoder.finish(&mut text);
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
