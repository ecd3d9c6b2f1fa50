//! Descriptions of tensors: names, shapes, and where their bytes lie.

#![forbid(unsafe_code)]

use super::cursor::Cursor;
use super::dtype::GgmlType;
use super::metadata::{reserve, shown};
use crate::error::{Error, ErrorKind, Result};

/// Most tensors that a file may have; Phi-3-mini has 195.
const MAX_TENSORS: u64 = 65_536;
/// Longest tensor name in bytes (ggml's `GGML_MAX_NAME` less its closing zero, and one to spare).
const MAX_NAME: u64 = 64;
/// Most dimensions of a tensor.
const MAX_DIMS: u32 = 4;
/// Fewest bytes of a description: name's length and one character, dimensions, type, offset.
const LEAST_TENSOR: u64 = 25;
/// Type numbers up to this one may come to mean something; a larger one is damage.
const LAST_PLAUSIBLE_TYPE: u32 = 255;

/// What the header says of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name, for example `blk.0.attn_qkv.weight`.
    pub name: String,
    /// The type of its elements.
    pub kind: GgmlType,
    /// Dimensions in GGUF order: `shape[0]` is the length of a row.
    pub shape: Vec<u64>,
    /// The part of the model that has the data, from 0: the position in the header's `parts`.
    pub part: usize,
    /// First byte of the data, counted from the part's `data_offset`.
    pub offset: u64,
    /// Bytes of data.
    pub n_bytes: u64,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |product: u64, &dim| product.saturating_mul(dim))
    }

    /// The shape as people write it, row length first: `[3072, 32064]`.
    pub fn shape_text(&self) -> String {
        shape_text(&self.shape)
    }

    /// An error about this tensor: "The tensor `name` " and then `what`.
    #[cold]
    pub(super) fn bad(&self, what: impl AsRef<str>) -> Error {
        bad_tensor(&self.name, None, what)
    }
}

/// `[3072, 32064]`.
pub(super) fn shape_text(shape: &[u64]) -> String {
    let dims: Vec<String> = shape.iter().map(u64::to_string).collect();
    format!("[{}]", dims.join(", "))
}

/// Reads `count` descriptions, and checks that their data lies end to end, in order, each start aligned.
/// Returns them with the bytes that the data takes, without and with the padding after the last tensor.
pub(super) fn parse_tensors(
    cursor: &mut Cursor<'_>,
    count: u64,
    alignment: u64,
) -> Result<(Vec<TensorInfo>, u64, u64)> {
    if count > MAX_TENSORS || count > cursor.remaining() / LEAST_TENSOR {
        let message = format!(
            "The header announces {count} tensors; the limit is {MAX_TENSORS}, and {} bytes are left for them.",
            cursor.remaining()
        );
        return Err(Error::corrupt("tensors", Some(cursor.position()), message));
    }
    let mut tensors: Vec<TensorInfo> = Vec::new();
    reserve(&mut tensors, count as usize, "tensors")?;
    let (mut end, mut padded_end) = (0u64, 0u64);
    for _ in 0..count {
        let place = cursor.position();
        let tensor = read_tensor(cursor)?;
        if tensor.offset != padded_end {
            let message = format!(
                "begins at byte {} of the data; the tensors before it end, with padding, at {padded_end}.",
                tensor.offset
            );
            return Err(bad_tensor(&tensor.name, Some(place), message));
        }
        let ends = padded_end.checked_add(tensor.n_bytes).and_then(|end| {
            let padded = end.checked_next_multiple_of(alignment)?;
            (padded < i64::MAX as u64).then_some((end, padded))
        });
        let Some(ends) = ends else {
            return Err(bad_tensor(&tensor.name, Some(place), "makes the file larger than 2^63 bytes."));
        };
        (end, padded_end) = ends;
        tensors.push(tensor);
    }
    Ok((tensors, end, padded_end))
}

fn read_tensor(cursor: &mut Cursor<'_>) -> Result<TensorInfo> {
    let place = cursor.position();
    let bytes = cursor.string(MAX_NAME, "tensor name")?;
    let name = match std::str::from_utf8(bytes) {
        Ok(name) if !name.is_empty() && !name.chars().any(char::is_control) => name.to_owned(),
        _ => {
            let message = "A tensor's name is empty, is not UTF-8, or has control characters.";
            return Err(Error::corrupt("tensors", Some(place), message));
        }
    };
    let dims = cursor.u32("tensor dimensions")?;
    if dims > MAX_DIMS {
        let message = format!("has {dims} dimensions; the most is {MAX_DIMS}.");
        return Err(bad_tensor(&name, Some(place), message));
    }
    let mut shape = Vec::new();
    reserve(&mut shape, dims as usize, "tensors")?;
    for _ in 0..dims {
        shape.push(cursor.u64("tensor dimensions")?);
    }
    let number = cursor.u32("tensor type")?;
    let offset = cursor.u64("tensor offset")?;
    let kind = tensor_type(&name, number, place)?;
    let Some((n_bytes, _)) = kind.size_of(&shape) else {
        let message = format!(
            "has the shape {}, which is too large, or whose rows are not whole blocks of {} ({} elements).",
            shape_text(&shape),
            kind.name(),
            kind.block_size()
        );
        return Err(bad_tensor(&name, Some(place), message));
    };
    Ok(TensorInfo { name, kind, shape, part: 0, offset, n_bytes })
}

fn tensor_type(name: &str, number: u32, place: u64) -> Result<GgmlType> {
    if let Some(kind) = GgmlType::from_number(number) {
        return Ok(kind);
    }
    if number > LAST_PLAUSIBLE_TYPE {
        return Err(bad_tensor(
            name,
            Some(place),
            format!("has the type number {number}, which ggml does not have."),
        ));
    }
    let quant = format!("type {number}");
    Err(Error::new(
        ErrorKind::UnsupportedModel { arch: None, tensor: Some(name.to_owned()), quant: Some(quant) },
        format!(
            "The tensor `{}` has the ggml type {number}, which was withdrawn or is newer than this build.",
            shown(name)
        ),
        "Choose a file in Q4_K_M, Q5_K_M, Q6_K, Q8_0 or F16, or update phicandle.",
    ))
}

/// An error about the tensor `name`: "The tensor `name` " and then `what`.
#[cold]
pub(super) fn bad_tensor(name: &str, place: Option<u64>, what: impl AsRef<str>) -> Error {
    Error::corrupt(name, place, format!("The tensor `{}` {}", shown(name), what.as_ref()))
}
