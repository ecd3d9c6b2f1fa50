//! What ends an operation before its end.

use crate::error::Error;

/// Whether to stop, asked on the thread that called for the operation.
pub(crate) type Stop<'a> = dyn Fn() -> bool + 'a;

/// What ends an operation early. What it should have written is of no use then.
#[derive(Debug)]
pub(crate) enum Halt {
    /// Its [`Stop`] said so.
    Stopped,
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}
