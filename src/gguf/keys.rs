//! Getters for the keys of one architecture, `phi3.block_count` and so on, with the ranges they must keep.

#![forbid(unsafe_code)]

use std::ops::RangeInclusive;

use super::metadata::Metadata;
use crate::error::{Error, ErrorKind, Result};

/// The metadata of a file, seen through the prefix of its architecture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'static str,
}

impl<'a> Keys<'a> {
    pub(super) fn new(metadata: &'a Metadata, architecture: &'static str) -> Self {
        Self { metadata, architecture }
    }

    pub(super) fn architecture(&self) -> &'static str {
        self.architecture
    }

    /// The whole key.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// A whole number, when the file has one; it must be in `range`.
    pub(super) fn count(&self, key: &str, range: RangeInclusive<u64>) -> Result<Option<usize>> {
        let Some(value) = self.metadata.u64(&self.name(key))? else { return Ok(None) };
        match usize::try_from(value) {
            Ok(count) if range.contains(&value) => Ok(Some(count)),
            _ => {
                Err(self
                    .bad(key, format!("is {value}; it should be from {} to {}.", range.start(), range.end())))
            }
        }
    }

    /// A whole number in `range`, or the default when the file has none.
    pub(super) fn count_or(&self, key: &str, range: RangeInclusive<u64>, default: usize) -> Result<usize> {
        Ok(self.count(key, range)?.unwrap_or(default))
    }

    /// A whole number that must be there, in `range`.
    pub(super) fn required(&self, key: &str, range: RangeInclusive<u64>) -> Result<usize> {
        self.count(key, range)?.ok_or_else(|| self.missing(key))
    }

    /// A float, when the file has one; it must be in `range`, so neither infinite nor NaN.
    pub(super) fn float(&self, key: &str, range: RangeInclusive<f64>) -> Result<Option<f64>> {
        let Some(value) = self.number(key)? else { return Ok(None) };
        if range.contains(&value) {
            return Ok(Some(value));
        }
        Err(self
            .bad(key, format!("is {value:e}; it should be from {:e} to {:e}.", range.start(), range.end())))
    }

    /// A number of any size, when the file has one; it may be infinite or NaN.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.metadata.f64(&self.name(key))
    }

    /// A boolean, when the file has one.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.metadata.bool(&self.name(key))
    }

    /// Whether the file has the key.
    pub(super) fn contains(&self, key: &str) -> bool {
        self.metadata.contains(&self.name(key))
    }

    /// A string, when the file has one.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.metadata.str(&self.name(key))
    }

    /// An error about the value of `key`: "The metadata key `phi3.key` " and then `what`.
    #[cold]
    pub(super) fn bad(&self, key: &str, what: impl AsRef<str>) -> Error {
        self.metadata.bad_value(&self.name(key), what)
    }

    /// An error about a file that asks for something which no backend does.
    #[cold]
    pub(super) fn unsupported(&self, message: String) -> Error {
        let arch = Some(self.architecture.to_owned());
        Error::new(
            ErrorKind::UnsupportedModel { arch, tensor: None, quant: None },
            message,
            "Choose another file of this model; leaving that out would give wrong text.",
        )
    }

    #[cold]
    pub(super) fn missing(&self, key: &str) -> Error {
        self.metadata.bad_value(&self.name(key), "is absent; a model needs it.")
    }
}
