//! The one error type of the crate: what happened, to which thing, and what to do next.
//!
//! Every [`ErrorKind`] has one Python class of the same name (`python/phicandle/errors.py`); the mapping in
//! `src/python/error.rs` has no wildcard, so a new kind does not compile until it has its class.

use std::fmt;
use std::time::Duration;

/// Shorthand for a result with this crate's [`struct@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Longest message or hint kept, in characters: a hostile file must not flood a log through its error.
const MAX_TEXT: usize = 600;

/// What went wrong, with the facts that a program may want to act on.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No such model, file or repository. `candidates`: near names that do exist.
    ModelNotFound {
        /// Names near the one asked for.
        candidates: Vec<String>,
    },
    /// A model file exists but the system would not let it be read.
    ModelRead,
    /// A transfer failed.
    Download {
        /// The address asked.
        url: String,
        /// HTTP status, when there was an answer.
        status: Option<u16>,
        /// Whether the next try continues where this one stopped.
        resumable: bool,
    },
    /// The hub was needed, and the caller or the network ruled it out.
    Offline {
        /// The address that would have been asked.
        url: String,
    },
    /// The hub wants a token, or an accepted licence, for this repository.
    GatedModel {
        /// The address asked.
        url: String,
        /// HTTP status: 401 or 403.
        status: u16,
    },
    /// A file that breaks its format, or does not match its checksum.
    CorruptModel {
        /// The metadata key, tensor or header part at fault.
        place: Option<String>,
        /// Byte offset in the file.
        offset: Option<u64>,
        /// The checksum that the file should have had.
        expected_sha256: Option<String>,
    },
    /// A sound file that this backend would run wrongly, or not at all.
    UnsupportedModel {
        /// The file's `general.architecture`.
        arch: Option<String>,
        /// The tensor at fault.
        tensor: Option<String>,
        /// The quantisation at fault.
        quant: Option<String>,
    },
    /// The CPU lacks instructions that this build, or `PHICANDLE_ISA`, asks for.
    UnsupportedCpu {
        /// The missing features.
        missing: Vec<String>,
    },
    /// The device asked for is absent or was not compiled in.
    Device,
    /// The plan needs more memory than there is. Raised before anything is allocated.
    OutOfMemory {
        /// Bytes that the plan needs.
        needed: u64,
        /// Bytes available to this process.
        available: u64,
    },
    /// A parameter out of range, of the wrong type, or unknown.
    InvalidParameter {
        /// The parameter's name.
        parameter: String,
        /// The nearest known name, for an unknown one.
        suggestion: Option<String>,
    },
    /// A vocabulary or `tokenizer.json` that cannot be used.
    Tokenizer,
    /// A chat template that does not parse, does not end, or refuses these messages.
    Template {
        /// Line in the template, from 1.
        line: Option<usize>,
    },
    /// The prompt leaves no room in the context.
    ContextOverflow {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens that the context holds.
        limit: usize,
    },
    /// The model computed something that is not a number.
    Numerical,
    /// More requests are waiting than the queue may hold.
    QueueFull {
        /// A sensible time to wait before the next try.
        retry_after: Duration,
    },
    /// The generator was closed.
    Closed,
    /// The generator was made in another process and carried over a fork.
    Fork,
    /// A fault of phicandle's own: please report it.
    Internal,
}

/// A failure of any part of phicandle: its [kind](ErrorKind), a sentence that says what happened to which thing, and
/// a hint that says what to do next.
#[derive(Clone, PartialEq, thiserror::Error)]
pub struct Error(Box<Inner>);

#[derive(Clone, PartialEq)]
struct Inner {
    kind: ErrorKind,
    message: String,
    hint: String,
}

impl Error {
    /// An error of `kind`. `message` is a full sentence on what happened; `hint` a full sentence on what to do.
    #[cold]
    pub fn new(kind: ErrorKind, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: clip(message.into()), hint: clip(hint.into()) }))
    }

    /// A file that breaks its format at `place` (a key, tensor or header part).
    #[cold]
    pub fn corrupt(place: impl Into<String>, offset: Option<u64>, message: impl Into<String>) -> Self {
        let kind = ErrorKind::CorruptModel { place: Some(place.into()), offset, expected_sha256: None };
        Self::new(kind, message, "Download or convert the file again; `phicandle show FILE` checks one.")
    }

    /// A parameter out of range or of the wrong type; `message` names the value and the range.
    #[cold]
    pub fn invalid(
        parameter: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::new(
            ErrorKind::InvalidParameter { parameter: parameter.into(), suggestion: None },
            message,
            hint,
        )
    }

    /// A fault of phicandle's own.
    #[cold]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(
            ErrorKind::Internal,
            message,
            "This is a bug in phicandle: please report it with this text. Make a new Generator to go on.",
        )
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// What happened, to which thing.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do next.
    pub fn hint(&self) -> &str {
        &self.0.hint
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.message, self.0.hint)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("hint", &self.0.hint)
            .finish()
    }
}

impl From<candle_core::Error> for Error {
    /// Candle is called only with inputs that have been checked, so an error of its own is unexpected.
    fn from(error: candle_core::Error) -> Self {
        Self::internal(format!("Candle failed: {error}."))
    }
}

fn clip(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_message_then_hint() {
        let error = Error::new(ErrorKind::Closed, "The generator is closed.", "Make a new one.");
        assert_eq!(error.to_string(), "The generator is closed. Make a new one.");
    }

    #[test]
    fn long_text_is_clipped_at_a_character() {
        let error = Error::internal("é".repeat(5_000));
        assert_eq!(error.message().chars().count(), MAX_TEXT + 1);
    }
}
