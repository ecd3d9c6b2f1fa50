//! A reader over a byte slice that checks every step and names what it was reading when the bytes end.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// Most bytes that a header may take: real ones take 1 to 12 MB, nearly all of it vocabulary.
pub(super) const MAX_HEADER: u64 = 256 << 20;

/// A position in the first bytes of a file whose whole length is known.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    file_len: u64,
    /// Where what was asked for last ends, if the file has it and the bytes at hand do not.
    wanted: Option<u64>,
}

impl<'a> Cursor<'a> {
    /// `bytes` is the start of a file of `file_len` bytes.
    pub(super) fn new(bytes: &'a [u8], file_len: u64) -> Self {
        Self { bytes, position: 0, file_len, wanted: None }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position as u64
    }

    /// How far the bytes at hand would have to reach, if that is why reading failed.
    pub(super) fn wanted(&self) -> Option<u64> {
        self.wanted
    }

    /// Bytes of the file that are not read yet, whether or not they are at hand.
    pub(super) fn remaining(&self) -> u64 {
        self.file_len.saturating_sub(self.position())
    }

    /// The next `count` bytes; `what` names them in an error.
    pub(super) fn take(&mut self, count: u64, what: &str) -> Result<&'a [u8]> {
        let taken = usize::try_from(count)
            .ok()
            .and_then(|count| self.position.checked_add(count))
            .filter(|&end| end as u64 <= MAX_HEADER)
            .and_then(|end| Some((self.bytes.get(self.position..end)?, end)));
        match taken {
            Some((slice, end)) => {
                self.position = end;
                Ok(slice)
            }
            None => Err(self.out_of_bytes(count, what)),
        }
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let slice = self.take(N as u64, what)?;
        slice.try_into().map_err(|_| self.out_of_bytes(N as u64, what))
    }

    /// The next little-endian `u32`.
    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// The next little-endian `u64`.
    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// The next string: its length as `u64`, then that many bytes, at most `limit`.
    pub(super) fn string(&mut self, limit: u64, what: &str) -> Result<&'a [u8]> {
        let start = self.position();
        let length = self.u64(what)?;
        if length > limit && length <= self.remaining() {
            return Err(Error::corrupt(
                what,
                Some(start),
                format!("The {what} is {length} bytes long, and the limit is {limit}."),
            ));
        }
        self.take(length, what)
    }

    #[cold]
    fn out_of_bytes(&mut self, count: u64, what: &str) -> Error {
        let start = self.position();
        let end = start.saturating_add(count);
        let message = if end > self.file_len {
            format!(
                "The file ends inside its header: the {what} needs {count} bytes from byte {start}, and the file has {}.",
                self.file_len
            )
        } else if end > MAX_HEADER {
            format!(
                "The header is longer than {MAX_HEADER} bytes, the limit: the {what} would end at byte {end}."
            )
        } else {
            self.wanted = Some(end);
            format!(
                "The first {} bytes do not hold the whole header: the {what} ends at byte {end}.",
                self.bytes.len()
            )
        };
        Error::corrupt(what, Some(start), message)
    }
}
