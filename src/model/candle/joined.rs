//! The parts of a model as the one file that Candle reads: end to end, in their order.

use std::io::{self, Read, Seek, SeekFrom};

use crate::gguf::{GgufFile, Header, TensorInfo};

/// Where a tensor's data begin in the parts laid end to end.
pub(super) fn position(header: &Header, tensor: &TensorInfo) -> u64 {
    let before: u64 = header.parts.iter().take(tensor.part).map(|part| part.file_len).sum();
    let own = header.parts.get(tensor.part).map_or(0, |part| part.data_offset);
    before + own + tensor.offset
}

/// A reader of all parts.
pub(super) struct Joined<'a> {
    parts: Vec<&'a [u8]>,
    position: u64,
}

impl<'a> Joined<'a> {
    pub(super) fn new(file: &'a GgufFile) -> Self {
        let parts = (0..file.header().parts.len()).map(|part| file.part_bytes(part)).collect();
        Self { parts, position: 0 }
    }
}

impl Read for Joined<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut start = self.position;
        for part in &self.parts {
            let length = part.len() as u64;
            if start < length {
                let mut rest = &part[start as usize..];
                let read = rest.read(into)?;
                self.position += read as u64;
                return Ok(read);
            }
            start -= length;
        }
        Ok(0)
    }
}

impl Seek for Joined<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let from = |start: u64, by: i64| start.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput);
        self.position = match to {
            SeekFrom::Start(position) => position,
            SeekFrom::Current(by) => from(self.position, by)?,
            SeekFrom::End(by) => from(self.parts.iter().map(|part| part.len() as u64).sum(), by)?,
        };
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_as_one_file() {
        let parts: Vec<&[u8]> = vec![b"abc", b"", b"defg", b"h"];
        let mut joined = Joined { parts, position: 0 };
        let mut all = String::new();
        joined.read_to_string(&mut all).unwrap();
        assert_eq!(all, "abcdefgh");
        let mut three = [0; 3];
        joined.seek(SeekFrom::Start(2)).unwrap();
        joined.read_exact(&mut three).unwrap();
        assert_eq!((&three, joined.stream_position().unwrap()), (b"cde", 5));
        assert_eq!(joined.seek(SeekFrom::End(-1)).unwrap(), 7);
        assert_eq!(joined.seek(SeekFrom::Current(-3)).unwrap(), 4);
        assert!(joined.seek(SeekFrom::Current(-5)).is_err());
        joined.seek(SeekFrom::Start(100)).unwrap();
        assert_eq!(joined.read(&mut three).unwrap(), 0);
    }
}
