//! How fast attention is, on one thread: `cargo test --lib attention::tests::speed -- --ignored --nocapture`.

use std::hint::black_box;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::kernels::Arena;
use crate::kernels::rope::{Factors, Pairs, Rope, Stretch};
use crate::kernels::simd::{BYTES, Op, Simd};

/// Phi-3-mini's heads.
const HEADS: Heads = Heads { n_head: 32, n_kv_head: 32, head_dim: 96, window: None };
/// Phi-4-mini's.
const GROUPED: Heads = Heads { n_head: 24, n_kv_head: 8, head_dim: 128, window: None };
/// Layers that are passed in turn, so that decoding reads from memory and not from a cache.
const LAYERS: usize = 8;

/// A batch of `runs` (rows, position), whose caches are filled; and the least seconds that a layer took.
fn fastest(
    tier: Tier,
    heads: Heads,
    dtype: KvDtype,
    layers: usize,
    runs: &[(usize, usize)],
    rounds: usize,
) -> f64 {
    let mut random = StdRng::seed_from_u64(5);
    let compute = Compute { pool: Pool::new(1).unwrap(), tier };
    let stride = (heads.n_head + 2 * heads.n_kv_head) * heads.head_dim;
    let end = runs.iter().map(|run| run.0 + run.1).max().unwrap();
    let mut random_rows =
        |rows: usize| -> Vec<f32> { (0..rows * stride).map(|_| random.random_range(-1.0..1.0)).collect() };
    let history = random_rows(end);
    let rows: usize = runs.iter().map(|run| run.0).sum();
    let batch = random_rows(rows);
    let (k, v) = (heads.n_head * heads.head_dim, (heads.n_head + heads.n_kv_head) * heads.head_dim);
    let view = |data| Rows { data, stride, q: 0, k, v };
    let rope = Rope::new(heads.head_dim, 10_000.0, Pairs::Halves, &Stretch::None, None).unwrap();
    let mut rotation = rope.rotation();
    rope.add(&mut rotation, 0..end, Factors::Short);
    let shape = KvShape { layers, kv_heads: heads.n_kv_head, head_dim: heads.head_dim, dtype };
    let spare = Arc::new(Spare::new(0, usize::MAX));
    let mut caches: Vec<KvCache> =
        runs.iter().map(|_| KvCache::new(shape, Factors::Short, &spare).unwrap()).collect();
    let all = AttentionPlan::new(heads, &[Run { row: 0, rows: end, position: 0 }], 1).unwrap();
    for cache in &mut caches {
        cache.reserve(0, end).unwrap();
        for layer in 0..layers {
            all.append(&compute, layer, view(&history), &rotation, &mut [cache]).unwrap();
        }
    }
    let mut row = 0;
    let mut planned = Vec::new();
    for &(rows, position) in runs {
        planned.push(Run { row, rows, position });
        row += rows;
    }
    let plan = AttentionPlan::new(heads, &planned, 1).unwrap();
    let mut caches: Vec<&mut KvCache> = caches.iter_mut().collect();
    let mut out = vec![0.0; rows * heads.n_head * heads.head_dim];
    let mut best = f64::MAX;
    for _ in 0..rounds {
        for layer in 0..layers {
            let start = Instant::now();
            plan.attend(&compute, layer, view(&batch), &rotation, &caches, &mut out, &|| false).unwrap();
            best = best.min(start.elapsed().as_secs_f64());
            black_box(&out);
        }
    }
    let start = Instant::now();
    plan.append(&compute, 0, view(&batch), &rotation, &mut caches).unwrap();
    let append = start.elapsed().as_secs_f64();
    print!("append {:8.1} us  ", append * 1e6);
    best
}

/// Reads memory and does nothing with it: what decoding could reach at best.
struct Read<'a>(&'a [u8]);

impl Op for Read<'_> {
    type Out = [i32; 16];

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Out {
        let mut sums = [s.splat_i(0); 4];
        let mut out = [0; 16];
        let mut at = 0;
        while at + 4 * BYTES <= self.0.len() {
            for (i, sum) in sums.iter_mut().enumerate() {
                let from = self.0.as_ptr().wrapping_add(at + i * BYTES);
                s.prefetch(from.wrapping_add(8192));
                // SAFETY: 64 bytes are left; an array has room for 16 numbers.
                *sum = s.add_i(*sum, unsafe { s.load_i(from.cast()) });
            }
            at += 4 * BYTES;
        }
        let sum = s.add_i(s.add_i(sums[0], sums[1]), s.add_i(sums[2], sums[3]));
        // SAFETY: an array has room for 16 numbers.
        unsafe { s.store_i(sum, out.as_mut_ptr()) };
        out
    }
}

/// The most bytes per second that one thread reads from memory, or from the cache of a core.
fn read_speed(tier: Tier, bytes: usize, rounds: usize) -> f64 {
    let mut memory = Arena::new(bytes).unwrap();
    memory.fill(1);
    let mut best = f64::MAX;
    // Pieces as long as a layer of decoding takes: what interrupts one leaves others whole.
    for _ in 0..rounds {
        for piece in memory.chunks(bytes.min(25 << 20)) {
            let start = Instant::now();
            black_box(dispatch(tier, Read(black_box(piece))));
            best = best.min(start.elapsed().as_secs_f64() / piece.len() as f64);
        }
    }
    1.0 / best
}

fn kv_bytes(heads: Heads, dtype: KvDtype, positions: usize) -> f64 {
    let shape = KvShape { layers: 1, kv_heads: heads.n_kv_head, head_dim: heads.head_dim, dtype };
    shape.bytes(positions).unwrap() as f64
}

/// The tiers to measure: those that `PHICANDLE_ISA` names, or all but the scalar one.
fn tiers() -> Vec<Tier> {
    let forced = std::env::var("PHICANDLE_ISA").ok();
    let wanted =
        |tier: &Tier| forced.as_deref().map_or(*tier != Tier::SCALAR, |name| tier.isa().name() == name);
    Tier::all().into_iter().filter(wanted).collect()
}

const SHAPES: [(&str, Heads); 2] = [("32 heads of 96", HEADS), ("24/8 heads of 128", GROUPED)];

#[test]
#[ignore = "a measurement"]
fn decode() {
    for tier in tiers() {
        let name = tier.isa().name();
        println!(
            "{name:>12}  read: {:.1} GB/s from memory, {:.1} GB/s from the L2 cache",
            read_speed(tier, 200 << 20, 5) / 1e9,
            read_speed(tier, 768 << 10, 300) / 1e9
        );
        for dtype in [KvDtype::F16, KvDtype::Q8] {
            // One layer of one head is passed often enough to stay in the cache.
            let heads = Heads { n_head: 1, n_kv_head: 1, ..HEADS };
            let time = fastest(tier, heads, dtype, 1, &[(1, 1800)], 300);
            let speed = kv_bytes(heads, dtype, 1800) / time / 1e9;
            println!(
                "{name:>12}  decode from the L2 cache, {dtype:?}: {:8.1} us {speed:6.1} GB/s",
                time * 1e6
            );
        }
        for (what, heads) in SHAPES {
            for dtype in [KvDtype::F16, KvDtype::Q8] {
                for rows in [1, 5] {
                    let time = fastest(tier, heads, dtype, LAYERS, &[(rows, 2048 - rows)], 40);
                    let speed = kv_bytes(heads, dtype, 2048) / time / 1e9;
                    println!(
                        "{name:>12}  decode {rows} at 2048, {what}, {dtype:?}: {:8.1} us {speed:6.1} GB/s",
                        time * 1e6
                    );
                }
            }
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn prefill() {
    for tier in tiers() {
        let name = tier.isa().name();
        for (what, all) in SHAPES {
            // One head of keys and values: so short that some of the rounds are not interrupted.
            let heads = Heads { n_head: all.n_head / all.n_kv_head, n_kv_head: 1, ..all };
            for dtype in [KvDtype::F16, KvDtype::Q8] {
                for (rows, position) in [(512, 0), (512, 1536)] {
                    let time = fastest(tier, heads, dtype, 1, &[(rows, position)], 40);
                    let pairs = rows * position + rows * (rows + 1) / 2;
                    let flops = 4.0 * (pairs * heads.n_head * heads.head_dim) as f64;
                    println!(
                        "{name:>12}  prefill {rows} at {position}, one of {what}, {dtype:?}: {:8.1} ms {:6.1} GFLOP/s",
                        time * 1e3,
                        flops / time / 1e9
                    );
                }
            }
        }
    }
}
