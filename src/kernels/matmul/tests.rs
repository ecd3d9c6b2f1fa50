//! Products against themselves in every other way to compute them, and against Candle's own reading of the blocks.

use std::ops::Range;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

// Where the kernels are built alone there is no Candle to compare with.
#[cfg(not(kernels_alone))]
mod candle;
#[cfg(unix)]
mod guarded;
mod speed;

use super::acts::SuperActs;
use super::format::Family;
use super::*;
use crate::gguf::GgmlType;
use crate::kernels::simd::Tier;
use crate::kernels::{Compute, Isa, Pool};

const KINDS: [GgmlType; 15] = [
    GgmlType::Q4_0,
    GgmlType::Q4_1,
    GgmlType::Q5_0,
    GgmlType::Q5_1,
    GgmlType::Q8_0,
    GgmlType::Q2_K,
    GgmlType::Q3_K,
    GgmlType::Q4_K,
    GgmlType::Q5_K,
    GgmlType::Q6_K,
    GgmlType::IQ4_NL,
    GgmlType::IQ4_XS,
    GgmlType::F16,
    GgmlType::BF16,
    GgmlType::F32,
];

/// Where the f16 numbers of a block are.
fn halves(kind: GgmlType) -> &'static [usize] {
    match kind {
        GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q4_K | GgmlType::Q5_K => &[0, 2],
        GgmlType::Q2_K => &[80, 82],
        GgmlType::Q3_K => &[108],
        GgmlType::Q6_K => &[208],
        _ => &[0],
    }
}

/// Blocks of random bits, with scales that are numbers.
fn random_rows(random: &mut StdRng, kind: GgmlType, rows: usize, k: usize) -> Vec<u8> {
    let mut bytes = vec![0; rows * k / kind.block_size() * kind.type_size()];
    random.fill(&mut bytes[..]);
    for block in bytes.chunks_exact_mut(kind.type_size()) {
        match kind {
            GgmlType::F32 => block.copy_from_slice(&random.random_range(-1f32..1.0).to_le_bytes()),
            GgmlType::BF16 => {
                block.copy_from_slice(&half::bf16::from_f32(random.random_range(-1.0..1.0)).to_le_bytes());
            }
            _ => {
                for &at in halves(kind) {
                    let scale = half::f16::from_f32(random.random_range(-0.02..0.02));
                    block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
                }
            }
        }
    }
    bytes
}

fn random_values(random: &mut StdRng, count: usize) -> Vec<f32> {
    (0..count).map(|_| random.random_range(-1f32..1.0).powi(3) * 8.0).collect()
}

fn with(threads: usize, tier: Tier) -> Compute {
    Compute { pool: Pool::new(threads).unwrap(), tier }
}

/// Reads rows that are in memory.
fn reader(bytes: &[u8]) -> impl Fn(Range<usize>, &mut [u8]) + Sync {
    |range, to| to.copy_from_slice(&bytes[range])
}

/// The matrix, as tiles and as the file has it.
fn matrices(compute: &Compute, kind: GgmlType, rows: usize, k: usize, bytes: &[u8]) -> [Matrix; 2] {
    let size = Matrix::packed_bytes(kind, rows, k).unwrap();
    let mut arena = crate::kernels::Arena::new(size).unwrap();
    Matrix::pack(compute, kind, [rows, k], &reader(bytes), &mut arena).unwrap();
    let tiles = Matrix::new(kind, rows, k, true, Arc::new(arena), 0..size).unwrap();
    let mapped = Matrix::new(kind, rows, k, false, Arc::new(bytes.to_vec()), 0..bytes.len()).unwrap();
    [tiles, mapped]
}

fn multiply(compute: &Compute, matrix: &Matrix, values: &[f32], tokens: usize) -> Vec<f32> {
    let mut acts = Activations::default();
    let forms = Forms::default().with(matrix.family());
    compute.quantise(&Copied { values }, tokens, matrix.k(), forms, &mut acts).unwrap();
    let mut out = vec![f32::NAN; tokens * matrix.rows()];
    compute.matmul(&[matrix], &acts, Then::Store, &mut out, &|| false).unwrap();
    out
}

#[test]
fn every_way_to_compute_gives_the_same_bits() {
    let mut random = StdRng::seed_from_u64(3);
    let tiers = Tier::all();
    let scalar = Compute::new(1, Isa::Scalar).unwrap();
    let mut cells = 0;
    for kind in KINDS {
        for (rows, blocks) in [(1, 1), (17, 3), (49, 5), (90, 2)] {
            let k = blocks * kind.block_size().max(32);
            let bytes = random_rows(&mut random, kind, rows, k);
            let tokens = 15;
            let values = random_values(&mut random, tokens * k);
            let [tiles, _] = matrices(&scalar, kind, rows, k, &bytes);
            let wanted = multiply(&scalar, &tiles, &values, tokens);
            for &tier in &tiers {
                for threads in [1, 3] {
                    let compute = with(threads, tier);
                    for matrix in matrices(&compute, kind, rows, k, &bytes) {
                        for piece in [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 15] {
                            let mut found = Vec::new();
                            for values in values.chunks(piece * k) {
                                found.extend(multiply(&compute, &matrix, values, values.len() / k));
                            }
                            let same = wanted.iter().zip(&found).all(|(w, f)| w.to_bits() == f.to_bits());
                            assert!(
                                same,
                                "{kind} {rows}x{k} on {tier:?}, {threads} threads, {piece} tokens at a time"
                            );
                            cells += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(cells >= KINDS.len() * 4 * 2 * 2 * 11);
}

/// Two matrices as the halves of a feed-forward layer.
fn gate(compute: &Compute, halves: [&Matrix; 2], values: &[f32], tokens: usize) -> Vec<f32> {
    let mut acts = Activations::default();
    let forms = Forms::default().with(halves[0].family());
    compute.quantise(&Copied { values }, tokens, halves[0].k(), forms, &mut acts).unwrap();
    let mut out = vec![f32::NAN; tokens * halves[0].rows()];
    compute.gated(halves, [None; 2], &acts, &mut out, &|| false).unwrap();
    out
}

#[test]
fn many_tokens_give_the_bits_of_each_alone() {
    let mut random = StdRng::seed_from_u64(6);
    let scalar = Compute::new(1, Isa::Scalar).unwrap();
    // More than meet a strip at once, in pieces of which the last is shorter.
    let (rows, tokens) = (49, 199);
    for kind in KINDS {
        let k = 2 * kind.block_size().max(32);
        let bytes = random_rows(&mut random, kind, rows, k);
        let mut values = random_values(&mut random, tokens * k);
        // The greatest sums of activations that there are.
        values[..k].fill(1.0);
        values[k..2 * k].fill(-1.0);
        let [tiles, _] = matrices(&scalar, kind, rows, k, &bytes);
        let alone = |one: &dyn Fn(&[f32]) -> Vec<f32>| values.chunks(k).flat_map(one).collect::<Vec<f32>>();
        let wanted = alone(&|value| multiply(&scalar, &tiles, value, 1));
        let wanted_gated = alone(&|value| gate(&scalar, [&tiles; 2], value, 1));
        for tier in Tier::all() {
            let compute = with(2, tier);
            for matrix in matrices(&compute, kind, rows, k, &bytes) {
                for (wanted, found) in [
                    (&wanted, multiply(&compute, &matrix, &values, tokens)),
                    (&wanted_gated, gate(&compute, [&matrix; 2], &values, tokens)),
                ] {
                    let same = wanted.iter().zip(&found).all(|(w, f)| w.to_bits() == f.to_bits());
                    assert!(same && wanted.len() == found.len(), "{kind} on {tier:?}");
                }
            }
        }
    }
}

#[test]
fn outputs_stand_side_by_side_and_add_up() {
    let mut random = StdRng::seed_from_u64(4);
    let compute = Compute::new(2, Isa::Scalar).unwrap();
    let k = 256;
    let stack: Vec<Matrix> = [(GgmlType::Q4_K, 20), (GgmlType::Q8_0, 5), (GgmlType::F32, 33)]
        .into_iter()
        .map(|(kind, rows)| {
            let bytes = random_rows(&mut random, kind, rows, k);
            let [tiles, _] = matrices(&compute, kind, rows, k, &bytes);
            tiles
        })
        .collect();
    let stack: Vec<&Matrix> = stack.iter().collect();
    let values = random_values(&mut random, 3 * k);
    let forms = stack.iter().fold(Forms::default(), |forms, matrix| forms.with(matrix.family()));
    let mut acts = Activations::default();
    compute.quantise(&Copied { values: &values }, 3, k, forms, &mut acts).unwrap();
    let mut out = vec![1.0; 3 * 58];
    compute.matmul(&stack, &acts, Then::Add, &mut out, &|| false).unwrap();
    let mut column = 0;
    for matrix in stack {
        let alone = multiply(&compute, matrix, &values, 3);
        for token in 0..3 {
            for row in 0..matrix.rows() {
                assert_eq!(out[token * 58 + column + row], 1.0 + alone[token * matrix.rows() + row]);
            }
        }
        column += matrix.rows();
    }
}

#[test]
fn what_is_not_a_number_is_not_lost() {
    let mut random = StdRng::seed_from_u64(5);
    let compute = Compute::new(1, Isa::Scalar).unwrap();
    for kind in KINDS {
        let k = 2 * kind.block_size().max(32);
        let bytes = random_rows(&mut random, kind, 3, k);
        let [tiles, _] = matrices(&compute, kind, 3, k, &bytes);
        for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = random_values(&mut random, k);
            values[k / 2 + 1] = poison;
            let out = multiply(&compute, &tiles, &values, 1);
            assert!(out.iter().all(|x| !x.is_finite()), "{kind}, {poison}: {out:?}");
        }
        let values = random_values(&mut random, k);
        for &at in halves(kind) {
            let mut bytes = bytes.clone();
            if matches!(kind, GgmlType::F32 | GgmlType::BF16) {
                bytes[..kind.type_size()].fill(0xff);
            } else {
                bytes[at..at + 2].copy_from_slice(&half::f16::NAN.to_le_bytes());
            }
            let [tiles, mapped] = matrices(&compute, kind, 3, k, &bytes);
            for matrix in [tiles, mapped] {
                let out = multiply(&compute, &matrix, &values, 1);
                assert!(out[0].is_nan() && out[1..].iter().all(|x| x.is_finite()), "{kind}: {out:?}");
            }
        }
    }
}

#[test]
fn a_block_of_zeros_has_no_scale() {
    let compute = Compute::new(1, Isa::Scalar).unwrap();
    let mut acts = Activations::default();
    let forms = Forms::default().with(Family::Super);
    compute.quantise(&Copied { values: &[0.0; 256] }, 1, 256, forms, &mut acts).unwrap();
    assert!(matches!(acts.supers[..], [SuperActs { d: 0.0, .. }]) && acts.supers[0].q == [0; 256]);
}

/// 256 whole numbers, of which each 16 come to 1023 without their signs: the most that is mild. One is 127, so they are their own
/// quantised values.
fn mild_limit(sign: f32) -> Vec<f32> {
    let mut values = [[63.0; 15].as_slice(), &[78.0]].concat().repeat(16);
    values[..16].copy_from_slice(&[[59.0; 15].as_slice(), &[127.0]].concat());
    values[0] += 11.0;
    values.iter().map(|x| x * sign).collect()
}

#[test]
fn sums_are_short_up_to_the_last_number() {
    let mut random = StdRng::seed_from_u64(7);
    let scalar = Compute::new(1, Isa::Scalar).unwrap();
    let mut beyond = mild_limit(1.0);
    beyond[200] += 1.0;
    // The last token is one step beyond what is mild, those before it are not.
    let tokens = [mild_limit(1.0), mild_limit(-1.0), beyond].concat();
    let mut acts = Activations::default();
    let forms = Forms::default().with(Family::Super);
    scalar.quantise(&Copied { values: &tokens }, 3, 256, forms, &mut acts).unwrap();
    assert_eq!(acts.supers.iter().map(|acts| acts.is_mild).collect::<Vec<_>>(), [true, true, false]);
    for (acts, values) in acts.supers.iter().zip(tokens.chunks(256)) {
        assert!(acts.q.iter().zip(values).all(|(&q, &x)| f32::from(q) == x));
    }
    for kind in [GgmlType::Q2_K, GgmlType::Q3_K, GgmlType::Q4_K, GgmlType::Q5_K, GgmlType::Q6_K] {
        for byte in [0, 0xff] {
            // The least and the greatest weights there are, with any scales.
            let mut bytes = random_rows(&mut random, kind, 33, 256);
            for block in bytes.chunks_exact_mut(kind.type_size()) {
                let values = match kind {
                    GgmlType::Q2_K => 16..80,
                    GgmlType::Q3_K => 0..96,
                    GgmlType::Q6_K => 0..192,
                    _ => 16..kind.type_size(),
                };
                block[values].fill(byte);
            }
            for count in 1..=20 {
                for values in [tokens[..512].repeat(count), tokens.repeat(count)] {
                    let values = &values[values.len() - count * 256..];
                    let [tiles, _] = matrices(&scalar, kind, 33, 256, &bytes);
                    let wanted = multiply(&scalar, &tiles, values, count);
                    for tier in Tier::all() {
                        let compute = with(1, tier);
                        for matrix in matrices(&compute, kind, 33, 256, &bytes) {
                            let found = multiply(&compute, &matrix, values, count);
                            assert_eq!(wanted, found, "{kind} of {byte:#x}, {count} tokens on {tier:?}");
                        }
                    }
                }
            }
        }
    }
}
