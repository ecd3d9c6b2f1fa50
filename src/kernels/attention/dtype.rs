//! Numbers that keys and values are kept in.

use crate::error::{Error, Result};

/// Numbers that keys and values are kept in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KvDtype {
    /// Half precision, 16 bits.
    #[default]
    F16,
    /// 8-bit integers with a scale for each head and position: half the memory, a little less exact.
    Q8,
}

impl KvDtype {
    /// Reads `f16` or `q8`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameter`](crate::ErrorKind::InvalidParameter) for any other text.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "f16" => Ok(Self::F16),
            "q8" => Ok(Self::Q8),
            _ => Err(Error::invalid(
                "kv_dtype",
                format!("There is no kv_dtype {text:?}."),
                "Use \"f16\" or \"q8\".",
            )),
        }
    }

    /// The name that [`KvDtype::parse`] reads.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Q8 => "q8",
        }
    }
}
