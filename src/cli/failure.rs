//! How a command fails: what it writes, and the exit code.

use std::io;

use crate::error::{Error, ErrorKind};

/// Wrong usage, or a parameter out of range.
pub(super) const USAGE: i32 = 2;
/// `--timeout` ran out (the code that `timeout(1)` gives).
pub(super) const TIMED_OUT: i32 = 124;
/// Ctrl-C (128 and the signal's number).
pub(super) const INTERRUPTED: i32 = 130;

/// Why a command ended early.
#[derive(Debug)]
pub(super) enum Failure {
    /// Something of phicandle's failed.
    Error(Error),
    /// A stream could not be read or written.
    Stream(io::Error),
    /// Ctrl-C, before there was anything to keep.
    Interrupted,
    /// The reader of standard output went away: no failure, nothing more to do.
    Closed,
}

impl Failure {
    /// The exit code, as `--help` documents it.
    pub(super) fn code(&self) -> i32 {
        match self {
            Self::Closed => 0,
            Self::Interrupted => INTERRUPTED,
            Self::Stream(_) => 1,
            Self::Error(error) => match error.kind() {
                ErrorKind::InvalidParameter { .. } => USAGE,
                ErrorKind::ModelNotFound { .. }
                | ErrorKind::ModelRead
                | ErrorKind::Download { .. }
                | ErrorKind::Offline { .. }
                | ErrorKind::GatedModel { .. } => 3,
                ErrorKind::CorruptModel { .. }
                | ErrorKind::UnsupportedModel { .. }
                | ErrorKind::Tokenizer
                | ErrorKind::Template { .. } => 4,
                ErrorKind::OutOfMemory { .. } => 5,
                _ => 1,
            },
        }
    }

    /// What happened and what to do, as two lines; `None` when there is nothing to say.
    pub(super) fn lines(&self) -> Option<(String, String)> {
        match self {
            Self::Closed => None,
            Self::Interrupted => Some(("Interrupted.".to_owned(), String::new())),
            Self::Stream(error) => Some((
                format!("A standard stream failed: {error}."),
                "Check where input comes from and where output goes.".to_owned(),
            )),
            Self::Error(error) => Some((error.message().to_owned(), self.hint(error))),
        }
    }

    /// The error's hint; without a model, the demo is always a way on.
    fn hint(&self, error: &Error) -> String {
        let hint = error.hint();
        let no_model = matches!(
            error.kind(),
            ErrorKind::ModelNotFound { .. }
                | ErrorKind::Download { .. }
                | ErrorKind::Offline { .. }
                | ErrorKind::GatedModel { .. }
        );
        if no_model && !hint.contains("--model demo") {
            format!("{hint} Or try `--model demo`, which needs no download.")
        } else {
            hint.to_owned()
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Stream(error) }
    }
}
