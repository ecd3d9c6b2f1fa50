//! Candle's errors as this crate's. They stand here, and not in `crate::error`, so that errors and the file reader build
//! without Candle: the fuzz target needs that.

use crate::error::Error;

impl From<candle_core::Error> for Error {
    /// Candle is called only with inputs that have been checked, so an error of its own is unexpected.
    fn from(error: candle_core::Error) -> Self {
        Self::internal(format!("Candle failed: {error}."))
    }
}
