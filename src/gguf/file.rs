//! A GGUF file on disk or in memory, opened and checked.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::Path;

use super::header::Header;
use super::metadata::shown;
use super::mmap::Map;
use super::split::{PartName, join, part_names};
use super::tensor::{TensorInfo, bad_tensor};
use crate::error::{Error, ErrorKind, Result};

/// Most names that an error offers instead of the one asked for.
const MAX_CANDIDATES: usize = 8;
/// Most entries of a folder that are looked at for such names.
const MAX_ENTRIES: usize = 10_000;

/// An open model: the header of its GGUF file, or of its parts together, checked, and their bytes, mapped.
#[derive(Debug)]
pub struct GgufFile {
    name: String,
    parts: Vec<PartFile>,
    header: Header,
}

/// One file of a model.
#[derive(Debug)]
struct PartFile {
    name: String,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Map),
    Static(&'static [u8]),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
        }
    }
}

impl GgufFile {
    /// Maps the file at `path` and checks its header. Of a split model any part may be given: the others are found beside it by
    /// their names. The weights are not read yet.
    ///
    /// # Errors
    /// `ModelNotFound` (with near names) for a missing file or part, or a folder, `ModelRead` when the system refuses,
    /// `CorruptModel` for parts that contradict each other, and those of [`Header::parse`].
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let (file, header) = open_part(path)?;
        let own = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(part) = part_names(&own, &header).map_err(|error| about(&name, &error))? else {
            return Ok(Self { name, parts: vec![file], header });
        };
        let mut found = Some((file, header));
        let (mut parts, mut headers) = (Vec::new(), Vec::new());
        for (number, sibling) in (1..).zip(part.all()) {
            let (file, header) = match found.take_if(|_| number == part.number) {
                Some(own) => own,
                None => open_sibling(&path.with_file_name(&sibling), number, &part, &own)?,
            };
            parts.push(file);
            headers.push((sibling, header));
        }
        Ok(Self { name, parts, header: join(headers)? })
    }

    /// Checks a file that is already in memory; `name` stands for it in errors.
    ///
    /// # Errors
    /// Those of [`Header::parse`].
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self> {
        let header = Header::parse(bytes, bytes.len() as u64).map_err(|error| about(name, &error))?;
        let part = PartFile { name: name.to_owned(), bytes: Bytes::Static(bytes) };
        Ok(Self { name: name.to_owned(), parts: vec![part], header })
    }

    /// A model of which only the header is here: every look at its weights is an error.
    pub fn without_weights(name: &str, header: Header) -> Self {
        Self { name: name.to_owned(), parts: Vec::new(), header }
    }

    /// The path, or the name given; of a split model that of the part that was opened.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The checked header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// All bytes of one of the header's parts; none when it is not here.
    pub fn part_bytes(&self, part: usize) -> &[u8] {
        self.parts.get(part).map_or(&[], |part| &part.bytes)
    }

    /// Where the data of one tensor lie in the bytes of its part.
    ///
    /// # Errors
    /// `CorruptModel` when the tensor is of another file, and does not fit this one.
    pub fn tensor_range(&self, tensor: &TensorInfo) -> Result<Range<usize>> {
        let range = self.header.parts.get(tensor.part).and_then(|part| {
            let start = part.data_offset.checked_add(tensor.offset)?;
            let end = start.checked_add(tensor.n_bytes)?;
            Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
        });
        range
            .filter(|range| range.end <= self.part_bytes(tensor.part).len())
            .ok_or_else(|| bad_tensor(&tensor.name, None, "lies outside the file."))
    }

    /// The data of one tensor of this file.
    ///
    /// # Errors
    /// As [`GgufFile::tensor_range`].
    pub fn tensor_bytes(&self, tensor: &TensorInfo) -> Result<&[u8]> {
        let range = self.tensor_range(tensor)?;
        let bytes = self.part_bytes(tensor.part).get(range);
        bytes.ok_or_else(|| bad_tensor(&tensor.name, None, "lies outside the file."))
    }

    /// The file that has a tensor's data, and their first byte in it, for errors.
    pub(super) fn place(&self, tensor: &TensorInfo) -> (&str, Option<u64>) {
        let name = self.parts.get(tensor.part).map_or(self.name(), |part| &part.name);
        (
            name,
            self.header.parts.get(tensor.part).and_then(|part| part.data_offset.checked_add(tensor.offset)),
        )
    }

    /// Copies the bytes of `tensor` from `at` on to `to`. Mapped files are read by the system, so their pages do not count as this
    /// process's memory.
    ///
    /// # Errors
    /// As [`GgufFile::tensor_range`], also when the tensor has not as many bytes, and `ModelRead` when the system fails to read.
    pub fn read(&self, tensor: &TensorInfo, at: usize, to: &mut [u8]) -> Result<()> {
        let range = self.tensor_range(tensor)?;
        let fits = at.checked_add(to.len()).is_some_and(|end| end <= range.len());
        let part = self.parts.get(tensor.part).filter(|_| fits);
        let part = part.ok_or_else(|| bad_tensor(&tensor.name, None, "has fewer bytes than are read."))?;
        let at = range.start + at;
        match &part.bytes {
            Bytes::Mapped(map) => map.read(at, to).map_err(|error| unreadable(Path::new(&part.name), &error)),
            Bytes::Static(bytes) => {
                to.copy_from_slice(&bytes[at..at + to.len()]);
                Ok(())
            }
        }
    }

    /// Has the system begin to read the bytes at `range` of `tensor` into its memory, if they are not there yet. A hint.
    pub fn read_ahead(&self, tensor: &TensorInfo, range: Range<usize>) {
        let Ok(whole) = self.tensor_range(tensor) else { return };
        if let Some(PartFile { bytes: Bytes::Mapped(map), .. }) = self.parts.get(tensor.part)
            && range.end <= whole.len()
        {
            map.read_ahead(whole.start + range.start..whole.start + range.end);
        }
    }
}

/// Maps one file and checks its header.
fn open_part(path: &Path) -> Result<(PartFile, Header)> {
    let name = path.display().to_string();
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if metadata.is_dir() {
        return Err(is_folder(path));
    }
    if !metadata.is_file() {
        return Err(Error::new(
            ErrorKind::ModelRead,
            format!("`{}` is a device or a pipe, not a regular file.", shown(&name)),
            "Copy the model into a file first.",
        ));
    }
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let length = file.metadata().map_err(|error| unreadable(path, &error))?.len();
    if length == 0 {
        return Err(about(&name, &Error::corrupt("file length", Some(0), "The file is empty.")));
    }
    let map = Map::of(file).map_err(|error| unreadable(path, &error))?;
    let header = Header::parse(&map, map.len() as u64).map_err(|error| about(&name, &error))?;
    Ok((PartFile { name, bytes: Bytes::Mapped(map) }, header))
}

/// Opens another part of the model that `own` is a part of.
fn open_sibling(path: &Path, number: u64, part: &PartName, own: &str) -> Result<(PartFile, Header)> {
    open_part(path).map_err(|error| match error.kind() {
        ErrorKind::ModelNotFound { candidates } => Error::new(
            ErrorKind::ModelNotFound { candidates: candidates.clone() },
            format!(
                "`{}` is part {} of {}, and part {number} is missing: there is no file `{}`.",
                shown(own),
                part.number,
                part.count,
                shown_path(&path.display().to_string())
            ),
            format!(
                "Put all {} parts into one folder, under the names that they were published with.",
                part.count
            ),
        ),
        _ => error,
    })
}

/// The same error with the file's name before it.
#[cold]
fn about(name: &str, error: &Error) -> Error {
    Error::new(
        error.kind().clone(),
        format!("{} (file `{}`)", error.message(), shown_path(name)),
        error.hint(),
    )
}

/// The end of a long path says more than its beginning.
fn shown_path(path: &str) -> String {
    let skip = path.chars().count().saturating_sub(120);
    let tail: String = path.chars().skip(skip).flat_map(|c| c.escape_debug()).collect();
    if skip == 0 { tail } else { format!("…{tail}") }
}

#[cold]
fn unreadable(path: &Path, error: &io::Error) -> Error {
    let name = shown_path(&path.display().to_string());
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            let folder = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            let candidates = near_names(gguf_files(folder), path);
            Error::new(
                ErrorKind::ModelNotFound { candidates: candidates.clone() },
                format!("There is no file `{name}`."),
                choose(&candidates, "Check the path, or give a hub id such as `owner/name`."),
            )
        }
        io::ErrorKind::PermissionDenied => Error::new(
            ErrorKind::ModelRead,
            format!("This user may not read the file `{name}`."),
            "Change the file's permissions, or run as a user who may read it.",
        ),
        io::ErrorKind::UnexpectedEof => Error::new(
            ErrorKind::ModelRead,
            format!("The file `{name}` has become shorter while it was read."),
            "Load it again when nothing writes into it any more.",
        ),
        // A limit on this process's address space; the system does not say how much of it is left.
        io::ErrorKind::OutOfMemory => Error::new(
            ErrorKind::OutOfMemory { needed: fs::metadata(path).map_or(0, |file| file.len()), available: 0 },
            format!("The system gave this process no room to map the file `{name}`."),
            "Raise the process's memory limit, or use a smaller model.",
        ),
        _ => Error::new(
            ErrorKind::ModelRead,
            format!("The file `{name}` could not be read: {error}."),
            "Check the disk and the path, then try again.",
        ),
    }
}

#[cold]
fn is_folder(path: &Path) -> Error {
    let mut candidates = gguf_files(path);
    candidates.truncate(MAX_CANDIDATES);
    Error::new(
        ErrorKind::ModelNotFound { candidates: candidates.clone() },
        format!("`{}` is a folder, not a model file.", shown_path(&path.display().to_string())),
        choose(&candidates, "Give the path of a .gguf file."),
    )
}

fn choose(candidates: &[String], otherwise: &str) -> String {
    if candidates.is_empty() {
        return otherwise.to_owned();
    }
    let names: Vec<String> = candidates.iter().map(|name| format!("`{}`", shown(name))).collect();
    format!("Files near it: {}.", names.join(", "))
}

/// The names of the .gguf files in a folder, sorted; none when it cannot be read.
fn gguf_files(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .take(MAX_ENTRIES)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.to_ascii_lowercase().ends_with(".gguf"))
        .collect();
    names.sort_unstable();
    names
}

/// The names most like that of `path`, by the letter pairs that they share.
fn near_names(mut names: Vec<String>, path: &Path) -> Vec<String> {
    let asked = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let pairs = |text: &str| -> Vec<(char, char)> { text.chars().zip(text.chars().skip(1)).collect() };
    let wanted = pairs(&asked);
    names.sort_by_cached_key(|name| {
        let own = pairs(&name.to_lowercase());
        std::cmp::Reverse(wanted.iter().filter(|pair| own.contains(pair)).count())
    });
    names.truncate(MAX_CANDIDATES);
    names
}
