//! The header of a GGUF file, from bytes that nobody vouches for.
//!
//! The rules are those of llama.cpp (`gguf.cpp`) and some more: each limit stands at the head of the file that checks it.

#![forbid(unsafe_code)]

use super::cursor::Cursor;
use super::metadata::{Metadata, reserve, shown};
use super::tensor::{TensorInfo, bad_tensor, parse_tensors};
use crate::error::{Error, Result};

const MAGIC: [u8; 4] = *b"GGUF";
/// Versions whose layout this reader knows: both count in 64 bits.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;
/// Alignment of the data when the file does not say (the GGUF specification).
const DEFAULT_ALIGNMENT: u32 = 32;
/// Alignments that a file may ask for.
const ALIGNMENTS: std::ops::RangeInclusive<u32> = 8..=65_536;

/// One file of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Byte of the file at which its tensors' data begins.
    pub data_offset: u64,
    /// Bytes of the file.
    pub file_len: u64,
}

/// What the first bytes of a file give.
#[derive(Debug, Clone, PartialEq)]
pub enum Prefix {
    /// They hold the header.
    Whole(Header),
    /// The header goes on behind them: it has at least this many bytes.
    Needs(u64),
}

/// A validated header: every tensor it lists lies inside the file, and no two overlap.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Version of the format: 2 or 3.
    pub version: u32,
    /// Every tensor begins at a multiple of this many bytes: a power of two.
    pub alignment: u64,
    /// The files that the model lies in: one, unless it is split.
    pub parts: Vec<Part>,
    /// Bytes of all files together.
    pub file_len: u64,
    /// The key-value part.
    pub metadata: Metadata,
    /// The tensors, in the order of the parts and of their data.
    pub tensors: Vec<TensorInfo>,
    /// Positions in `tensors`, sorted by name.
    by_name: Vec<u32>,
}

impl Header {
    /// Reads the header of a file of `file_len` bytes from its first bytes: all of them, or enough to hold the header.
    ///
    /// # Errors
    /// `CorruptModel` for anything that breaks the format, `UnsupportedModel` for a tensor type that this build does not
    /// know, `OutOfMemory` when the header does not fit.
    pub fn parse(bytes: &[u8], file_len: u64) -> Result<Self> {
        let file_len = file_len.max(bytes.len() as u64);
        Self::read(&mut Cursor::new(bytes, file_len), file_len)
    }

    /// As [`Header::parse`], for bytes that may end inside the header.
    ///
    /// # Errors
    /// Those of [`Header::parse`], as soon as `bytes` show one.
    pub fn parse_prefix(bytes: &[u8], file_len: u64) -> Result<Prefix> {
        let file_len = file_len.max(bytes.len() as u64);
        let mut cursor = Cursor::new(bytes, file_len);
        match (Self::read(&mut cursor, file_len), cursor.wanted()) {
            (Ok(header), _) => Ok(Prefix::Whole(header)),
            (Err(_), Some(wanted)) => Ok(Prefix::Needs(wanted)),
            (Err(error), None) => Err(error),
        }
    }

    fn read(cursor: &mut Cursor<'_>, file_len: u64) -> Result<Self> {
        let version = read_version(cursor)?;
        let n_tensors = cursor.u64("tensor count")?;
        let n_pairs = cursor.u64("metadata count")?;
        let metadata = Metadata::parse(cursor, n_pairs)?;
        let alignment = read_alignment(&metadata)?;
        let (tensors, data_len, padded_len) = parse_tensors(cursor, n_tensors, alignment)?;
        let header_end = cursor.position();
        let data_offset = header_end
            .checked_next_multiple_of(alignment)
            .ok_or_else(|| Error::internal("A header offset does not fit 64 bits."))?;
        // A file may end where its last tensor ends, or after the padding behind it; without tensors, with its header.
        let (least, most) = if tensors.is_empty() {
            (header_end, data_offset)
        } else {
            (data_offset.saturating_add(data_len), data_offset.saturating_add(padded_len))
        };
        check_length(file_len, least, most)?;
        let parts = vec![Part { data_offset, file_len }];
        let mut header = Self { version, alignment, parts, file_len, metadata, tensors, by_name: Vec::new() };
        header.index()?;
        Ok(header)
    }

    /// Sorts the names anew, after tensors were added.
    pub(super) fn index(&mut self) -> Result<()> {
        self.by_name = index_names(&self.tensors)?;
        Ok(())
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let named = |&position: &u32| self.tensors.get(position as usize);
        let found = self
            .by_name
            .binary_search_by(|position| named(position).map_or("", |tensor| &tensor.name).cmp(name))
            .ok()?;
        self.by_name.get(found).and_then(named)
    }
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32> {
    let magic = cursor.array::<4>("magic number")?;
    if magic != MAGIC {
        let message = match &magic {
            b"FUGG" => "The file is a GGUF file in big-endian order.",
            b"ggjt" | b"tjgg" | b"ggla" | b"algg" | b"lmgg" | b"fmgg" => {
                "The file is in a format older than GGUF."
            }
            b"PK\x03\x04" => "The file is a zip archive, perhaps a PyTorch checkpoint, not a GGUF file.",
            _ => "The file does not begin with `GGUF`, so it is no GGUF file.",
        };
        return Err(Error::corrupt("magic number", Some(0), message));
    }
    let version = cursor.u32("version")?;
    if !VERSIONS.contains(&version) {
        let order =
            if VERSIONS.contains(&version.swap_bytes()) { " (it is in big-endian order)" } else { "" };
        let message = format!("The file has GGUF version {version}{order}; this build reads 2 and 3.");
        return Err(Error::corrupt("version", Some(4), message));
    }
    Ok(version)
}

fn read_alignment(metadata: &Metadata) -> Result<u64> {
    const KEY: &str = "general.alignment";
    let alignment = metadata.exact_u32(KEY)?.unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() || !ALIGNMENTS.contains(&alignment) {
        let wanted = format!("is {alignment}; it should be a power of two from 8 to 65536.");
        return Err(metadata.bad_value(KEY, wanted));
    }
    Ok(u64::from(alignment))
}

fn check_length(file_len: u64, least: u64, most: u64) -> Result<()> {
    if file_len < least {
        let message = format!(
            "The file has {file_len} bytes and its header describes {least}: {} are missing, perhaps from an unfinished download.",
            least - file_len
        );
        return Err(Error::corrupt("file length", Some(file_len), message));
    }
    if file_len > most {
        let message =
            format!("The file has {} bytes after the last one its header describes.", file_len - most);
        return Err(Error::corrupt("file length", Some(most), message));
    }
    Ok(())
}

fn index_names(tensors: &[TensorInfo]) -> Result<Vec<u32>> {
    let mut by_name: Vec<u32> = Vec::new();
    reserve(&mut by_name, tensors.len(), "tensors")?;
    by_name.extend(0..tensors.len() as u32);
    let name = |position: u32| tensors.get(position as usize).map_or("", |tensor| tensor.name.as_str());
    by_name.sort_unstable_by(|&a, &b| name(a).cmp(name(b)));
    for pair in by_name.windows(2) {
        if let &[first, second] = pair
            && name(first) == name(second)
        {
            return Err(bad_tensor(name(first), None, "appears twice in the header."));
        }
    }
    Ok(by_name)
}

/// Escapes a name for an error text.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", shown(name))
}
