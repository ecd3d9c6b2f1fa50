//! A look over raw weights for numbers that are not numbers.

#![forbid(unsafe_code)]

use super::dtype::GgmlType;
use super::file::GgufFile;
use super::tensor::TensorInfo;
use crate::error::Error;

/// The index of the first block of `bytes` whose value (plain floats) or scale (quantised types) is infinite or NaN.
/// `None` when all are finite, and for types that are not weights. One such scale makes every later token NaN.
pub fn check_finite(kind: GgmlType, bytes: &[u8]) -> Option<usize> {
    use GgmlType::*;
    match kind {
        F32 => first::<4>(bytes, |&block| single(block)),
        F16 => first::<2>(bytes, |&block| half(block)),
        BF16 => first::<2>(bytes, |&block| brain(block)),
        Q4_0 => first::<18>(bytes, |&[a, b, ..]| half([a, b])),
        Q4_1 => first::<20>(bytes, |&[a, b, c, d, ..]| half([a, b]) && half([c, d])),
        Q5_0 => first::<22>(bytes, |&[a, b, ..]| half([a, b])),
        Q5_1 => first::<24>(bytes, |&[a, b, c, d, ..]| half([a, b]) && half([c, d])),
        Q8_0 => first::<34>(bytes, |&[a, b, ..]| half([a, b])),
        Q8_1 => first::<36>(bytes, |&[a, b, c, d, ..]| half([a, b]) && half([c, d])),
        Q2_K => first::<84>(bytes, |&[.., a, b, c, d]| half([a, b]) && half([c, d])),
        Q3_K => first::<110>(bytes, |&[.., a, b]| half([a, b])),
        Q4_K => first::<144>(bytes, |&[a, b, c, d, ..]| half([a, b]) && half([c, d])),
        Q5_K => first::<176>(bytes, |&[a, b, c, d, ..]| half([a, b]) && half([c, d])),
        Q6_K => first::<210>(bytes, |&[.., a, b]| half([a, b])),
        IQ4_NL => first::<18>(bytes, |&[a, b, ..]| half([a, b])),
        IQ4_XS => first::<136>(bytes, |&[a, b, ..]| half([a, b])),
        Q8_K => first::<292>(bytes, |&[a, b, c, d, ..]| single([a, b, c, d])),
        _ => None,
    }
}

/// The error of weights that are not numbers: they would turn every answer into noise without a word. `block` is what
/// [`check_finite`] found.
pub fn not_finite(file: &GgufFile, tensor: &TensorInfo, block: usize) -> Error {
    let name = &tensor.name;
    let (part, offset) = file.place(tensor);
    Error::corrupt(
        name,
        offset,
        format!("The tensor {name} of {part} holds a value that is not finite, in block {block}."),
    )
}

/// The first block that is not `finite`; bytes after the last whole block are not looked at.
fn first<const N: usize>(bytes: &[u8], finite: impl Fn(&[u8; N]) -> bool) -> Option<usize> {
    bytes.as_chunks::<N>().0.iter().position(|block| !finite(block))
}

fn single(bytes: [u8; 4]) -> bool {
    f32::from_le_bytes(bytes).is_finite()
}

/// Half precision has five bits of exponent; all set means infinite or NaN.
fn half(bytes: [u8; 2]) -> bool {
    u16::from_le_bytes(bytes) & 0x7c00 != 0x7c00
}

/// bfloat16 has the exponent of an f32.
fn brain(bytes: [u8; 2]) -> bool {
    u16::from_le_bytes(bytes) & 0x7f80 != 0x7f80
}
