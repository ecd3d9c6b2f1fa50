//! Keys and values of a text in a file of their own, so that a conversation goes on another day where it stopped.
//!
//! The file (numbers little-endian): the magic `PHICANKV`; a `u32` version, 2; the SHA-256 of what the keys and values depend on,
//! which is the model's files and how they are read; a `u32` of the rope factors, 0 short and 1 long; a `u64` count of tokens; a
//! `u64` of bytes in a block; the tokens, each a `u32`; the blocks, one for each 64 tokens; the SHA-256 of all before it.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Factors, KV_BLOCK, KvBlock};

const MAGIC: &[u8; 8] = b"PHICANKV";
const VERSION: u32 = 2;
/// Most tokens of a file: more than any context.
const MOST_TOKENS: u64 = 1 << 24;
/// Most bytes of a block: of a model of 200 layers with 128 heads of 512 elements.
const MOST_BLOCK: u64 = 1 << 32;

/// What keys and values depend on: a SHA-256.
pub(super) type Fingerprint = [u8; 32];

/// What a file holds, before its blocks.
pub(super) struct Head {
    pub(super) factors: Factors,
    pub(super) text: Arc<[u32]>,
    block_bytes: usize,
}

/// Writes through a hash.
struct Hashed<T> {
    inner: T,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.hash.update(&bytes[..read]);
        Ok(read)
    }
}

/// Writes `blocks`, which hold `text`, to `path`: in full or not at all.
///
/// # Errors
/// [`ErrorKind::InvalidParameter`] when the file cannot be written.
pub(super) fn write(
    path: &Path,
    fingerprint: &Fingerprint,
    factors: Factors,
    text: &[u32],
    blocks: &[Arc<KvBlock>],
) -> Result<()> {
    let beside = beside(path);
    let written =
        write_all(&beside, fingerprint, factors, text, blocks).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| {
        // The error that is told is the first one.
        let _ = std::fs::remove_file(&beside);
        Error::invalid(
            "path",
            format!("The keys and values cannot be written to `{}`: {error}.", path.display()),
            "Give a path in a folder that can be written to, on a disk with room for them.",
        )
    })
}

/// The name that a file has until it is whole.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    name.into()
}

fn write_all(
    path: &Path,
    fingerprint: &Fingerprint,
    factors: Factors,
    text: &[u32],
    blocks: &[Arc<KvBlock>],
) -> std::io::Result<()> {
    let mut out = Hashed { inner: BufWriter::new(File::create(path)?), hash: Sha256::new() };
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(fingerprint)?;
    out.write_all(&u32::from(factors == Factors::Long).to_le_bytes())?;
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(&blocks.first().map_or(0, |block| block.bytes().len() as u64).to_le_bytes())?;
    for token in text {
        out.write_all(&token.to_le_bytes())?;
    }
    for block in blocks {
        out.write_all(block.bytes())?;
    }
    let Hashed { mut inner, hash } = out;
    inner.write_all(&hash.finalize())?;
    inner.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}

/// Reads a file: checks that all of it is there as it was written, for a model of this `fingerprint`, then gives its head and
/// each of its blocks to `block`, with the number of tokens up to its end, until that says false.
///
/// # Errors
/// [`ErrorKind::ModelRead`], [`ErrorKind::CorruptModel`] for a file that is none or is damaged, [`ErrorKind::InvalidParameter`]
/// for one of another model, and what `block` says.
pub(super) fn read(
    path: &Path,
    fingerprint: &Fingerprint,
    mut block: impl FnMut(&Head, usize, Vec<u8>) -> Result<bool>,
) -> Result<()> {
    // Nothing of a damaged file is used: so it is read twice.
    let mut check = Reader::open(path)?;
    let head = check.head(fingerprint)?;
    let blocks = head.text.len().div_ceil(KV_BLOCK);
    for _ in 0..blocks {
        check.bytes(head.block_bytes)?;
    }
    check.end()?;
    let mut file = Reader::open(path)?;
    let head = file.head(fingerprint)?;
    for number in 0..blocks {
        let bytes = file.bytes(head.block_bytes)?;
        let end = head.text.len().min((number + 1) * KV_BLOCK);
        if !block(&head, end, bytes)? {
            break;
        }
    }
    Ok(())
}

struct Reader<'a> {
    path: &'a Path,
    file: Hashed<BufReader<File>>,
    /// Bytes that the file has.
    size: u64,
}

impl<'a> Reader<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let open = || {
            let file = File::open(path)?;
            Ok((file.metadata()?.len(), file))
        };
        let (size, file) = open().map_err(|error| unreadable(path, &error))?;
        Ok(Self { path, file: Hashed { inner: BufReader::new(file), hash: Sha256::new() }, size })
    }

    /// The next `count` bytes, which the file must have.
    fn bytes(&mut self, count: usize) -> Result<Vec<u8>> {
        if count as u64 > self.size {
            return Err(self.damaged("ends early"));
        }
        let mut bytes = vec![0; count];
        match self.file.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(self.damaged("ends early"))
            }
            Err(error) => Err(unreadable(self.path, &error)),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes(N)?);
        Ok(array)
    }

    fn head(&mut self, fingerprint: &Fingerprint) -> Result<Head> {
        if &self.array()? != MAGIC {
            return Err(self.damaged("holds no keys and values"));
        }
        if u32::from_le_bytes(self.array()?) != VERSION {
            return Err(self.damaged("has a format of another version"));
        }
        let found: Fingerprint = self.array()?;
        let factors = match u32::from_le_bytes(self.array()?) {
            0 => Factors::Short,
            1 => Factors::Long,
            _ => return Err(self.damaged("has rope factors of no kind")),
        };
        let (tokens, block_bytes) = (u64::from_le_bytes(self.array()?), u64::from_le_bytes(self.array()?));
        if tokens > MOST_TOKENS || block_bytes > MOST_BLOCK {
            return Err(self.damaged("has sizes that cannot be"));
        }
        let tokens = self.bytes(tokens as usize * 4)?;
        if &found != fingerprint {
            return Err(Error::invalid(
                "path",
                format!(
                    "The keys and values in `{}` are of another model, or of other settings.",
                    self.path.display()
                ),
                "Load them into a Generator with the model file, kv_dtype= and sliding_window= that they were saved with.",
            ));
        }
        let (tokens, _) = tokens.as_chunks::<4>();
        let text = tokens.iter().map(|token| u32::from_le_bytes(*token)).collect();
        Ok(Head { factors, text, block_bytes: block_bytes as usize })
    }

    /// The end, after the hash of all before it.
    fn end(mut self) -> Result<()> {
        let hash: Fingerprint = self.file.hash.clone().finalize().into();
        let found: Fingerprint = self.array()?;
        let more = self.file.read(&mut [0]).map_err(|error| unreadable(self.path, &error))?;
        if found != hash || more > 0 {
            return Err(self.damaged("was changed after it was written"));
        }
        Ok(())
    }

    fn damaged(&self, how: &str) -> Error {
        Error::new(
            ErrorKind::CorruptModel { place: None, offset: None, expected_sha256: None },
            format!("The file of keys and values `{}` {how}.", self.path.display()),
            "Save it again; without it the prompt is computed anew, which gives the same text.",
        )
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::new(
        ErrorKind::ModelRead,
        format!("The keys and values in `{}` cannot be read: {error}.", path.display()),
        "Check the path, and that this user may read the file.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{KvShape, Spare};
    use crate::model::KvDtype;

    const SHAPE: KvShape = KvShape { layers: 1, kv_heads: 1, head_dim: 2, dtype: KvDtype::F16 };
    const MODEL: Fingerprint = [7; 32];

    /// A file of 70 tokens in two blocks: its path, and what it was made of.
    fn saved(folder: &Path) -> (PathBuf, Vec<u32>, Vec<Vec<u8>>) {
        let spare = Arc::new(Spare::new(0, usize::MAX));
        let size = SHAPE.block_bytes().unwrap();
        let bytes: Vec<Vec<u8>> = (1..3).map(|mark| vec![mark; size]).collect();
        let blocks: Vec<_> =
            bytes.iter().map(|bytes| Arc::new(KvBlock::from_bytes(&SHAPE, &spare, bytes).unwrap())).collect();
        let text: Vec<u32> = (0..70).collect();
        let path = folder.join("kv");
        write(&path, &MODEL, Factors::Long, &text, &blocks).unwrap();
        (path, text, bytes)
    }

    /// Reads a file; the ends and the bytes of its blocks.
    fn blocks(path: &Path, fingerprint: &Fingerprint) -> Result<Vec<(usize, Vec<u8>)>> {
        let mut found = Vec::new();
        read(path, fingerprint, |head, end, bytes| {
            assert_eq!(head.factors, Factors::Long);
            assert_eq!(*head.text, (0..70).collect::<Vec<u32>>());
            found.push((end, bytes));
            Ok(true)
        })?;
        Ok(found)
    }

    #[test]
    fn what_is_written_is_read_and_nothing_lies_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _, bytes) = saved(folder.path());
        let expected: Vec<_> = [64, 70].into_iter().zip(bytes).collect();
        assert_eq!(blocks(&path, &MODEL).unwrap(), expected);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let mut count = 0;
        read(&path, &MODEL, |_, _, _| {
            count += 1;
            Ok(false)
        })
        .unwrap();
        assert_eq!(count, 1, "until it has enough");
    }

    #[test]
    fn a_file_of_another_model_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let (path, ..) = saved(folder.path());
        let error = blocks(&path, &[8; 32]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidParameter { .. }), "{error}");
        assert!(error.message().contains("another model"), "{error}");
    }

    #[test]
    fn a_file_with_any_byte_changed_or_missing_is_refused_before_any_of_it_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let (path, ..) = saved(folder.path());
        let sound = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8], what: &str| {
            std::fs::write(&path, bytes).unwrap();
            let mut used = false;
            let outcome = read(&path, &MODEL, |_, _, _| {
                used = true;
                Ok(true)
            });
            assert!(outcome.is_err() && !used, "{what}");
        };
        let places = (0..400).chain((400..sound.len()).step_by(97)).chain(sound.len() - 33..sound.len());
        for place in places {
            for flip in [1, 0x80] {
                let mut bytes = sound.clone();
                bytes[place] ^= flip;
                refused(&bytes, &format!("byte {place} of {}", sound.len()));
            }
            refused(&sound[..place], &format!("{place} bytes of {}", sound.len()));
        }
        refused(&[&sound[..], b"x"].concat(), "more than there was");
        // Sizes of which nothing may be allocated.
        for at in [48, 56] {
            let mut bytes = sound.clone();
            bytes[at..at + 8].fill(0xff);
            refused(&bytes, "a huge size");
        }
    }

    #[test]
    fn a_path_that_cannot_be_written_or_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("no folder").join("kv");
        let error = write(&missing, &MODEL, Factors::Short, &[], &[]).unwrap_err();
        assert!(error.message().contains("no folder"), "{error}");
        let error = read(&missing, &MODEL, |_, _, _| Ok(true)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ModelRead), "{error}");
    }
}
