//! How a backend keeps weights.

use crate::error::{Error, Result};

/// Where the weights are while a model runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MemoryMode {
    /// [`MemoryMode::Repack`] where there is room for it, or else [`MemoryMode::Mmap`].
    #[default]
    Auto,
    /// Copied once, in an order that the kernels read fastest. The file's own pages are given back.
    Repack,
    /// Left in the file, which the system maps: there at once, shared with other processes that run the same file, slower.
    Mmap,
}

impl MemoryMode {
    /// Reads `auto`, `repack` or `mmap`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameter`](crate::ErrorKind::InvalidParameter) for any other text.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "repack" => Ok(Self::Repack),
            "mmap" => Ok(Self::Mmap),
            _ => Err(Error::invalid(
                "memory",
                format!("There is no way {text:?} to keep the weights in memory."),
                "Use \"auto\", \"repack\" or \"mmap\".",
            )),
        }
    }

    /// The name that [`MemoryMode::parse`] reads.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Repack => "repack",
            Self::Mmap => "mmap",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::kernels::KvDtype;

    #[test]
    fn names_are_read_back() {
        for mode in [MemoryMode::Auto, MemoryMode::Repack, MemoryMode::Mmap] {
            assert_eq!(MemoryMode::parse(mode.name()).unwrap(), mode);
        }
        for kind in [KvDtype::F16, KvDtype::Q8] {
            assert_eq!(KvDtype::parse(kind.name()).unwrap(), kind);
        }
    }

    #[test]
    fn other_names_are_errors_that_say_which_argument() {
        let memory = MemoryMode::parse("swap").unwrap_err();
        assert!(
            matches!(memory.kind(), ErrorKind::InvalidParameter { parameter, .. } if parameter == "memory")
        );
        let kv = KvDtype::parse("q8_0").unwrap_err();
        assert!(
            matches!(kv.kind(), ErrorKind::InvalidParameter { parameter, .. } if parameter == "kv_dtype")
        );
    }
}
