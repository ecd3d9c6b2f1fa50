//! Time to choose one token from a row of logits, per mode, for the vocabularies of Phi-3 (32064) and Phi-4-mini (200064).

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use phicandle::sampling::{Sampler, SamplingParams};
use rand::{Rng, SeedableRng};

/// Logits with about the spread of a language model's: a bulk, and a few tokens well ahead.
fn logits(size: usize) -> Vec<f32> {
    let mut rng = rand::rngs::StdRng::seed_from_u64(1);
    let mut row: Vec<f32> = (0..size).map(|_| (0..6).map(|_| rng.random_range(-1.5f32..1.5)).sum()).collect();
    for ahead in 0..30 {
        let at = rng.random_range(0..size);
        row[at] = 16.0 - 0.3 * ahead as f32;
    }
    row
}

fn sampling(criterion: &mut Criterion) {
    let off = SamplingParams { repeat_penalty: 1.0, ..Default::default() };
    let modes = [
        ("greedy", SamplingParams { temperature: 0.0, ..off.clone() }),
        ("all", off.clone()),
        ("tutorial", SamplingParams::default()),
        ("top_k_40", SamplingParams { top_k: Some(40), ..off.clone() }),
        ("top_p_0.9", SamplingParams { top_p: Some(0.9), ..off.clone() }),
        ("top_p_0.9_hot", SamplingParams { top_p: Some(0.9), temperature: 5.0, ..off.clone() }),
        ("top_k_then_top_p", SamplingParams { top_k: Some(40), top_p: Some(0.9), ..off.clone() }),
        ("min_p_0.05", SamplingParams { min_p: Some(0.05), ..off.clone() }),
        ("typical_p_0.9", SamplingParams { typical_p: Some(0.9), ..off }),
    ];
    let generated: Vec<u32> = (0..200).map(|i| i * 97 % 32_000).collect();
    for size in [32_064, 200_064] {
        let row = logits(size);
        let mut group = criterion.benchmark_group(format!("sample_{size}"));
        for (name, params) in &modes {
            let mut sampler = Sampler::new(params, 7);
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher.iter_batched_ref(
                    || row.clone(),
                    |row| sampler.sample(black_box(row), &generated, &[]),
                    BatchSize::LargeInput,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, sampling);
criterion_main!(benches);
