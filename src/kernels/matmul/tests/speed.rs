//! How fast products are, from memory: `cargo test --lib matmul::tests::speed -- --ignored --nocapture`. The variables `THREADS`
//! and `TOKENS` choose others than the defaults.

use std::hint::black_box;
use std::time::Instant;

use super::*;
use crate::kernels::CpuInfo;

/// Bytes of a matrix that no cache holds.
const BYTES: usize = 128 << 20;
/// Operations after which a matrix is large enough.
const OPERATIONS: f64 = 5e10;
/// Elements of a row: Phi-3-mini's embedding.
const K: usize = 3072;
/// Rounds in which all numbers of tokens take turns, as machines change their minds.
const ROUNDS: usize = 9;

fn list(name: &str, default: &str) -> Vec<usize> {
    let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
    text.split(',').map(|word| word.parse().unwrap()).collect()
}

/// A matrix for products with `tokens` rows, and its bytes.
fn matrix(compute: &Compute, kind: GgmlType, tokens: usize) -> (Matrix, usize) {
    let row = K / kind.block_size() * kind.type_size();
    let most = OPERATIONS / (2 * K * tokens) as f64;
    let rows = (BYTES / row).min(most as usize).next_multiple_of(32);
    let mut random = StdRng::seed_from_u64(7);
    let source = random_rows(&mut random, kind, 32, K).repeat(rows / 32);
    let size = Matrix::packed_bytes(kind, rows, K).unwrap();
    let mut arena = crate::kernels::Arena::new(size).unwrap();
    Matrix::pack(compute, kind, [rows, K], &reader(&source), &mut arena).unwrap();
    (Matrix::new(kind, rows, K, true, Arc::new(arena), 0..size).unwrap(), size)
}

fn measure(compute: &Compute, kind: GgmlType, counts: &[usize]) {
    let mut random = StdRng::seed_from_u64(8);
    let cases: Vec<_> = counts
        .iter()
        .map(|&tokens| {
            let (matrix, size) = matrix(compute, kind, tokens);
            let mut acts = Activations::default();
            let forms = Forms::default().with(matrix.family());
            let values = random_values(&mut random, tokens * K);
            compute.quantise(&Copied { values: &values }, tokens, K, forms, &mut acts).unwrap();
            (matrix, size, acts)
        })
        .collect();
    let mut seconds = vec![Vec::new(); counts.len()];
    for _ in 0..ROUNDS {
        for ((matrix, _, acts), seconds) in cases.iter().zip(&mut seconds) {
            let mut out = vec![0.0; acts.rows * matrix.rows()];
            let start = Instant::now();
            compute.matmul(&[matrix], acts, Then::Store, black_box(&mut out), &|| false).unwrap();
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    for ((&tokens, (matrix, size, _)), mut seconds) in counts.iter().zip(&cases).zip(seconds) {
        seconds.sort_by(f64::total_cmp);
        let operations = (2 * K * matrix.rows() * tokens) as f64;
        let rates = |seconds: f64| (*size as f64 / seconds / 1e9, operations / seconds / 1e9);
        let ((bytes, ops), (best_bytes, best_ops)) = (rates(seconds[ROUNDS / 2]), rates(seconds[0]));
        println!(
            "{} threads, {kind}, {tokens:4} tokens: {bytes:5.1} GB/s {ops:4.0} GOPS (best {best_bytes:5.1} GB/s {best_ops:4.0} GOPS)",
            compute.threads()
        );
    }
}

#[test]
#[ignore = "measures"]
fn products() {
    for threads in list("THREADS", "1,2") {
        // What `PHICANDLE_ISA` names, or the best.
        let compute = with(threads, Tier::new(CpuInfo::detect().unwrap().tier).unwrap());
        for kind in [GgmlType::Q4_K, GgmlType::Q5_K, GgmlType::Q6_K, GgmlType::Q4_1] {
            measure(&compute, kind, &list("TOKENS", "1,4,8,12,16,32,512"));
        }
    }
}
