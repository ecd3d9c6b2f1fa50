//! The key-value part of a header: kept as it lies in the file, read through typed getters whose errors name the key.

#![forbid(unsafe_code)]

use super::cursor::Cursor;
use super::strings::StringArray;
use crate::error::{Error, ErrorKind, Result};

/// Most keys that a file may have; real files have 20 to 60.
const MAX_KEYS: u64 = 65_536;
/// Longest key, in bytes (the GGUF specification).
const MAX_KEY: u64 = 65_535;
/// Longest string outside arrays, in bytes.
const MAX_STRING: u64 = 1 << 20;
/// Longest token or merge, in bytes.
const MAX_TOKEN: u64 = 64 << 10;
/// Longest chat template, in bytes; the longest published ones have 20 KB.
const MAX_TEMPLATE: u64 = 64 << 10;
/// Most strings in one array: merges can be several for each token.
const MAX_STRINGS: u64 = 1 << 22;
/// Most numbers in one array.
const MAX_NUMBERS: u64 = 1 << 24;
/// Fewest bytes of a key with its value: length, one character, type, one byte.
const LEAST_PAIR: u64 = 14;

/// The value types of GGUF, by their numbers in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    Str = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl Kind {
    fn from_number(number: u32) -> Option<Self> {
        use Kind::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, Str, Array, U64, I64, F64].get(number as usize).copied()
    }

    fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::Str => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }

    /// Bytes of one value; `None` for those of varying length.
    fn width(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Str | Self::Array => None,
        }
    }
}

/// One key and where its value lies in `Metadata::raw`.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    key: (u32, u32),
    /// First byte of the value's data: past a string's length, past an array's type and count.
    start: u32,
    end: u32,
    /// Number of elements of an array; 1 otherwise.
    count: u32,
    /// Index into `string_starts` of an array of strings.
    strings: u32,
    kind: Kind,
    element: Option<Kind>,
}

/// The metadata of a GGUF file. Holds a copy of that part of the file, plus 4 bytes for each string in an array and 28
/// for each key, so it never takes more than four times the bytes that it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    raw: Vec<u8>,
    /// Byte offset of `raw` in the file.
    offset: u64,
    /// Sorted by key.
    entries: Vec<Entry>,
    string_starts: Vec<u32>,
}

impl Metadata {
    /// Reads `count` pairs.
    pub(super) fn parse(cursor: &mut Cursor<'_>, count: u64) -> Result<Self> {
        let offset = cursor.position();
        if count > MAX_KEYS || count > cursor.remaining() / LEAST_PAIR {
            let message = format!(
                "The header announces {count} metadata keys; the limit is {MAX_KEYS}, and {} bytes are left for them.",
                cursor.remaining()
            );
            return Err(Error::corrupt("metadata", Some(offset), message));
        }
        let mut whole = cursor.clone();
        let mut entries = Vec::new();
        reserve(&mut entries, count as usize, "metadata keys")?;
        let mut string_starts = Vec::new();
        for _ in 0..count {
            entries.push(read_pair(cursor, offset, &mut string_starts)?);
        }
        let bytes = whole.take(cursor.position() - offset, "metadata")?;
        let mut raw = Vec::new();
        reserve(&mut raw, bytes.len(), "metadata")?;
        raw.extend_from_slice(bytes);

        let mut metadata = Self { raw, offset, entries: Vec::new(), string_starts };
        entries.sort_unstable_by(|a, b| metadata.key_bytes(a).cmp(metadata.key_bytes(b)));
        for pair in entries.windows(2) {
            if let [first, second] = pair
                && metadata.key_bytes(first) == metadata.key_bytes(second)
            {
                let key = metadata.key_name(first);
                let message = format!("The metadata key `{}` appears twice.", shown(key));
                let place = offset + u64::from(first.key.0.max(second.key.0));
                return Err(Error::corrupt(clip(key), Some(place), message));
            }
        }
        metadata.entries = entries;
        Ok(metadata)
    }

    /// The keys, in alphabetical order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.iter().map(|entry| self.key_name(entry))
    }

    /// Whether the file has this key.
    pub fn contains(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// Whether `other` has the key with the same type and value.
    pub(super) fn same_value(&self, other: &Self, key: &str) -> bool {
        match (self.find(key), other.find(key)) {
            (Some(own), Some(others)) => {
                (own.kind, own.element, self.data(own)) == (others.kind, others.element, other.data(others))
            }
            _ => false,
        }
    }

    /// Bytes of memory that this metadata holds.
    pub fn memory_bytes(&self) -> usize {
        self.raw.capacity()
            + self.entries.capacity() * size_of::<Entry>()
            + self.string_starts.capacity() * size_of::<u32>()
    }

    /// A UTF-8 string.
    ///
    /// # Errors
    /// `CorruptModel` that names the key when the value is not a string or not UTF-8.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        let Some(entry) = self.find(key) else { return Ok(None) };
        if entry.kind != Kind::Str {
            return Err(self.wrong_type(entry, "a string"));
        }
        match std::str::from_utf8(self.data(entry)) {
            Ok(text) => Ok(Some(text)),
            Err(error) => {
                let place = self.offset + u64::from(entry.start) + error.valid_up_to() as u64;
                let message = format!("The metadata key `{}` is a string that is not UTF-8.", shown(key));
                Err(Error::corrupt(clip(key), Some(place), message))
            }
        }
    }

    /// A whole number of any integer type; a negative one is an error.
    ///
    /// # Errors
    /// `CorruptModel` that names the key.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        let Some(entry) = self.find(key) else { return Ok(None) };
        match self.integer(entry) {
            Some(value) => u64::try_from(value)
                .map(Some)
                .map_err(|_| self.at(entry, format!("is {value}; it should not be negative."))),
            None => Err(self.wrong_type(entry, "a whole number")),
        }
    }

    /// An f32 or f64. It may be infinite or NaN: that is for the caller to judge.
    ///
    /// # Errors
    /// `CorruptModel` that names the key.
    pub fn f64(&self, key: &str) -> Result<Option<f64>> {
        let Some(entry) = self.find(key) else { return Ok(None) };
        match (entry.kind, self.data(entry)) {
            (Kind::F32, &[a, b, c, d]) => Ok(Some(f64::from(f32::from_le_bytes([a, b, c, d])))),
            (Kind::F64, &[a, b, c, d, e, f, g, h]) => Ok(Some(f64::from_le_bytes([a, b, c, d, e, f, g, h]))),
            _ => Err(self.wrong_type(entry, "a float")),
        }
    }

    /// A boolean.
    ///
    /// # Errors
    /// `CorruptModel` that names the key.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        let Some(entry) = self.find(key) else { return Ok(None) };
        match (entry.kind, self.data(entry)) {
            (Kind::Bool, &[byte]) => Ok(Some(byte == 1)),
            _ => Err(self.wrong_type(entry, "a boolean")),
        }
    }

    /// An array of strings, as bytes.
    ///
    /// # Errors
    /// `CorruptModel` that names the key.
    pub fn strings(&self, key: &str) -> Result<Option<StringArray<'_>>> {
        let Some(entry) = self.find(key) else { return Ok(None) };
        if entry.element != Some(Kind::Str) {
            return Err(self.wrong_type(entry, "an array of strings"));
        }
        let first = entry.strings as usize;
        let starts = self.string_starts.get(first..first + entry.count as usize).unwrap_or(&[]);
        Ok(Some(StringArray::new(&self.raw, starts, entry.end)))
    }

    /// An array of f32.
    ///
    /// # Errors
    /// `CorruptModel` that names the key; `OutOfMemory` when the copy does not fit.
    pub fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.numbers(key, Kind::F32, "an array of f32", f32::from_le_bytes)
    }

    /// An array of i32.
    ///
    /// # Errors
    /// `CorruptModel` that names the key; `OutOfMemory` when the copy does not fit.
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.numbers(key, Kind::I32, "an array of i32", i32::from_le_bytes)
    }

    /// The length of an array; `None` when the key is absent or no array.
    pub fn array_len(&self, key: &str) -> Option<usize> {
        self.find(key).filter(|entry| entry.element.is_some()).map(|entry| entry.count as usize)
    }

    /// The type and a short form of the value, at most 80 characters: for people, not for programs.
    pub fn describe(&self, key: &str) -> String {
        let Some(entry) = self.find(key) else { return "absent".to_owned() };
        match entry.kind {
            Kind::Str => {
                let text = String::from_utf8_lossy(self.data(entry));
                format!("\"{}\"", shown_to(&text, 72))
            }
            // An f32 read as f64 would show digits that the file does not hold.
            Kind::F32 => (self.f64(key).ok().flatten().unwrap_or(f64::NAN) as f32).to_string(),
            Kind::F64 => self.f64(key).ok().flatten().unwrap_or(f64::NAN).to_string(),
            Kind::Bool => self.bool(key).ok().flatten().unwrap_or(false).to_string(),
            Kind::Array => self.type_of(entry),
            _ => self.integer(entry).unwrap_or(0).to_string(),
        }
    }

    /// A u32 of exactly that type: what the format asks of `general.alignment`.
    pub(super) fn exact_u32(&self, key: &str) -> Result<Option<u32>> {
        let Some(entry) = self.find(key) else { return Ok(None) };
        match (entry.kind, self.data(entry)) {
            (Kind::U32, &[a, b, c, d]) => Ok(Some(u32::from_le_bytes([a, b, c, d]))),
            _ => Err(self.wrong_type(entry, "a u32")),
        }
    }

    /// An error about the value of `key`: "The metadata key `key` " and then `what`.
    #[cold]
    pub(super) fn bad_value(&self, key: &str, what: impl AsRef<str>) -> Error {
        let place = self.find(key).map(|entry| self.offset + u64::from(entry.start));
        Error::corrupt(clip(key), place, format!("The metadata key `{}` {}", shown(key), what.as_ref()))
    }

    fn numbers<T, const N: usize>(
        &self,
        key: &str,
        element: Kind,
        wanted: &str,
        read: impl Fn([u8; N]) -> T,
    ) -> Result<Option<Vec<T>>> {
        let Some(entry) = self.find(key) else { return Ok(None) };
        if entry.element != Some(element) {
            return Err(self.wrong_type(entry, wanted));
        }
        let mut values = Vec::new();
        reserve(&mut values, entry.count as usize, key)?;
        let (chunks, _) = self.data(entry).as_chunks::<N>();
        values.extend(chunks.iter().map(|&chunk| read(chunk)));
        Ok(Some(values))
    }

    fn integer(&self, entry: &Entry) -> Option<i128> {
        Some(match (entry.kind, self.data(entry)) {
            (Kind::U8, &[a]) => i128::from(a),
            (Kind::I8, &[a]) => i128::from(i8::from_le_bytes([a])),
            (Kind::U16, &[a, b]) => i128::from(u16::from_le_bytes([a, b])),
            (Kind::I16, &[a, b]) => i128::from(i16::from_le_bytes([a, b])),
            (Kind::U32, &[a, b, c, d]) => i128::from(u32::from_le_bytes([a, b, c, d])),
            (Kind::I32, &[a, b, c, d]) => i128::from(i32::from_le_bytes([a, b, c, d])),
            (Kind::U64, &[a, b, c, d, e, f, g, h]) => {
                i128::from(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
            }
            (Kind::I64, &[a, b, c, d, e, f, g, h]) => {
                i128::from(i64::from_le_bytes([a, b, c, d, e, f, g, h]))
            }
            _ => return None,
        })
    }

    fn find(&self, key: &str) -> Option<&Entry> {
        let index = self.entries.binary_search_by(|entry| self.key_bytes(entry).cmp(key.as_bytes())).ok()?;
        self.entries.get(index)
    }

    fn data(&self, entry: &Entry) -> &[u8] {
        self.raw.get(entry.start as usize..entry.end as usize).unwrap_or(&[])
    }

    fn key_bytes(&self, entry: &Entry) -> &[u8] {
        self.raw.get(entry.key.0 as usize..entry.key.1 as usize).unwrap_or(&[])
    }

    /// Keys were checked to be ASCII when they were read.
    fn key_name(&self, entry: &Entry) -> &str {
        std::str::from_utf8(self.key_bytes(entry)).unwrap_or("")
    }

    fn type_of(&self, entry: &Entry) -> String {
        match entry.element {
            Some(element) => format!("array of {} {}", entry.count, element.name()),
            None => entry.kind.name().to_owned(),
        }
    }

    #[cold]
    fn wrong_type(&self, entry: &Entry, wanted: &str) -> Error {
        self.at(entry, format!("has the type {}; it should be {wanted}.", self.type_of(entry)))
    }

    #[cold]
    fn at(&self, entry: &Entry, what: impl AsRef<str>) -> Error {
        self.bad_value(self.key_name(entry), what)
    }
}

fn read_pair(cursor: &mut Cursor<'_>, offset: u64, string_starts: &mut Vec<u32>) -> Result<Entry> {
    let place = cursor.position();
    let key = cursor.string(MAX_KEY, "metadata key")?;
    let key_end = cursor.position() - offset;
    if key.is_empty() || !key.iter().all(|byte| (0x20..0x7f).contains(byte)) {
        let message = "A metadata key is empty, or has a character that is not printable ASCII.";
        return Err(Error::corrupt("metadata", Some(place), message));
    }
    let name = String::from_utf8_lossy(key);
    let span = (index(key_end - key.len() as u64)?, index(key_end)?);
    read_value(cursor, &name, span, offset, string_starts).map_err(|error| match error.kind() {
        ErrorKind::CorruptModel { offset, .. } => Error::corrupt(clip(&name), *offset, error.message()),
        _ => error,
    })
}

/// Reads the value of the key `name`, which lies at `key` in the metadata that begins at byte `offset`.
fn read_value(
    cursor: &mut Cursor<'_>,
    name: &str,
    key: (u32, u32),
    offset: u64,
    string_starts: &mut Vec<u32>,
) -> Result<Entry> {
    let what = format!("value of `{}`", shown(name));
    let kind = read_kind(cursor, name)?;
    let first_string = string_starts.len() as u64;
    let (mut element, mut count) = (None, 1);
    let start;
    match kind {
        Kind::Str => {
            let limit = if name.starts_with("tokenizer.chat_template") { MAX_TEMPLATE } else { MAX_STRING };
            let length = cursor.string(limit, &what)?.len() as u64;
            start = cursor.position() - length;
        }
        Kind::Array => {
            let inner = read_kind(cursor, name)?;
            count = read_count(cursor, name, inner)?;
            start = cursor.position();
            element = Some(inner);
            read_elements(cursor, inner, count, offset, &what, string_starts)?;
        }
        _ => {
            start = cursor.position();
            read_elements(cursor, kind, 1, offset, &what, string_starts)?;
        }
    }
    Ok(Entry {
        key,
        start: index(start - offset)?,
        end: index(cursor.position() - offset)?,
        count: index(count)?,
        strings: index(first_string)?,
        kind,
        element,
    })
}

/// Reads the number of elements of an array, which the bytes that are left must be able to hold.
fn read_count(cursor: &mut Cursor<'_>, name: &str, inner: Kind) -> Result<u64> {
    let place = cursor.position();
    let count = cursor.u64("array length")?;
    let (most, least) = match inner.width() {
        Some(width) => (MAX_NUMBERS, width),
        None => (MAX_STRINGS, 8),
    };
    let message = if inner == Kind::Array {
        format!("The metadata key `{}` is an array of arrays.", shown(name))
    } else if count > most || count > cursor.remaining() / least {
        format!(
            "The metadata key `{}` is an array of {count} elements; the limit is {most}, and {} bytes are left.",
            shown(name),
            cursor.remaining()
        )
    } else {
        return Ok(count);
    };
    Err(Error::corrupt(clip(name), Some(place), message))
}

/// Steps over `count` values of one type; checks booleans, and notes where strings begin.
fn read_elements(
    cursor: &mut Cursor<'_>,
    kind: Kind,
    count: u64,
    offset: u64,
    what: &str,
    string_starts: &mut Vec<u32>,
) -> Result<()> {
    let place = cursor.position();
    if let Some(width) = kind.width() {
        let bytes = cursor.take(count.saturating_mul(width), what)?;
        if kind == Kind::Bool && bytes.iter().any(|&byte| byte > 1) {
            let message = format!("The {what} has a boolean that is neither 0 nor 1.");
            return Err(Error::corrupt(what, Some(place), message));
        }
        return Ok(());
    }
    // Not exactly: many small arrays must not make as many moves of the whole table.
    string_starts.try_reserve(count as usize).map_err(|_| no_room::<u32>(count, what))?;
    for _ in 0..count {
        let length = cursor.string(MAX_TOKEN, what)?.len() as u64;
        string_starts.push(index(cursor.position() - offset - length)?);
    }
    Ok(())
}

fn read_kind(cursor: &mut Cursor<'_>, key: &str) -> Result<Kind> {
    let place = cursor.position();
    let number = cursor.u32("value type")?;
    Kind::from_number(number).ok_or_else(|| {
        let message =
            format!("The metadata key `{}` has the value type {number}; GGUF has 0 to 12.", shown(key));
        Error::corrupt(clip(key), Some(place), message)
    })
}

/// Offsets fit 32 bits because a header is at most 256 MiB.
fn index(value: u64) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::internal("A header offset does not fit 32 bits."))
}

/// Makes room for exactly `count` more elements, or says how much was asked for.
pub(super) fn reserve<T>(values: &mut Vec<T>, count: usize, what: &str) -> Result<()> {
    values.try_reserve_exact(count).map_err(|_| no_room::<T>(count as u64, what))
}

#[cold]
fn no_room<T>(count: u64, what: &str) -> Error {
    let needed = count.saturating_mul(size_of::<T>() as u64);
    Error::new(
        ErrorKind::OutOfMemory { needed, available: 0 },
        format!("There is no room for {needed} bytes of the {} of this file.", shown(what)),
        "Close other programs, or use a smaller model.",
    )
}

/// A name from a file as an error may show it: no control characters, at most 64 characters.
pub(super) fn shown(name: &str) -> String {
    shown_to(name, 64)
}

fn shown_to(text: &str, limit: usize) -> String {
    let mut safe = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == limit {
            safe.push('…');
            break;
        }
        if character.is_control() { safe.extend(character.escape_default()) } else { safe.push(character) }
    }
    safe
}

fn clip(key: &str) -> String {
    key.chars().take(64).collect()
}
