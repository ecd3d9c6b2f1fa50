//! Attention against a naive one in f64, and its promise: the same bits however the work is cut.

mod speed;

use std::sync::Arc;

use half::f16;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::Pool;
use super::super::rope::{Factors, Pairs, Rope, Stretch};
use super::super::simd::Tier;
use super::*;

/// A sequence of one layer: what the projections left for each position.
struct Sequence {
    heads: Heads,
    dtype: KvDtype,
    data: Vec<f32>,
}

/// How a sequence is computed.
#[derive(Clone, Copy, Debug)]
struct How {
    tier: Tier,
    threads: usize,
    /// Rows of one pass, over and over.
    pieces: &'static [usize],
}

const PLAIN: How = How { tier: Tier::SCALAR, threads: 1, pieces: &[usize::MAX] };

impl AttentionPlan {
    /// Appends and attends, as one layer of a pass does.
    fn forward(
        &self,
        compute: &Compute,
        layer: usize,
        rows: Rows<'_>,
        rotation: &Rotation,
        caches: &mut [&mut KvCache],
        out: &mut [f32],
    ) -> Result<(), Halt> {
        self.append(compute, layer, rows, rotation, caches)?;
        self.attend(compute, layer, rows, rotation, caches, out, &|| false)
    }
}

impl Sequence {
    fn random(heads: Heads, dtype: KvDtype, len: usize, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let stride = (heads.n_head + 2 * heads.n_kv_head) * heads.head_dim;
        let mut data: Vec<f32> = (0..len * stride).map(|_| random.random_range(-2.0..2.0)).collect();
        // Some tokens stand out, so that the greatest score grows now and then.
        for (row, values) in data.chunks_mut(stride).enumerate() {
            if row % 13 == 5 {
                values.iter_mut().for_each(|value| *value *= 3.0);
            }
        }
        Self { heads, dtype, data }
    }

    fn stride(&self) -> usize {
        (self.heads.n_head + 2 * self.heads.n_kv_head) * self.heads.head_dim
    }

    fn len(&self) -> usize {
        self.data.len() / self.stride()
    }

    fn rows(&self, from: usize) -> Rows<'_> {
        let Heads { n_head, n_kv_head, head_dim, .. } = self.heads;
        let (k, v) = (n_head * head_dim, (n_head + n_kv_head) * head_dim);
        Rows { data: &self.data[from * self.stride()..], stride: self.stride(), q: 0, k, v }
    }

    fn cache(&self) -> KvCache {
        let Heads { n_kv_head: kv_heads, head_dim, .. } = self.heads;
        let shape = KvShape { layers: 2, kv_heads, head_dim, dtype: self.dtype };
        KvCache::new(shape, Factors::Short, &Arc::new(Spare::new(usize::MAX, usize::MAX))).unwrap()
    }

    /// The results of all positions, as layer 1 of 2.
    fn attend(&self, how: How, rope: &Rope) -> Vec<f32> {
        let compute = Compute { pool: Pool::new(how.threads).unwrap(), tier: how.tier };
        let mut cache = self.cache();
        let width = self.heads.n_head * self.heads.head_dim;
        let mut out = vec![f32::NAN; self.len() * width];
        let mut at = 0;
        for &piece in how.pieces.iter().cycle() {
            let rows = piece.min(self.len() - at);
            let plan =
                AttentionPlan::new(self.heads, &[Run { row: 0, rows, position: at }], how.threads).unwrap();
            let mut rotation = rope.rotation();
            rope.add(&mut rotation, at..at + rows, Factors::Short);
            cache.reserve(at, at + rows).unwrap();
            let to = &mut out[at * width..(at + rows) * width];
            plan.forward(&compute, 1, self.rows(at), &rotation, &mut [&mut cache], to).unwrap();
            at += rows;
            cache.set_len(at);
            if at == self.len() {
                break;
            }
        }
        out
    }

    /// The same in f64, without rope, from keys, values and (for 8 bits) queries rounded as documented.
    fn reference(&self) -> Vec<f64> {
        let Heads { n_head, head_dim, .. } = self.heads;
        let group = self.heads.group();
        let part = |row: usize, start: usize| {
            let start = row * self.stride() + start * head_dim;
            &self.data[start..start + head_dim]
        };
        let kept = |values: &[f32]| match self.dtype {
            KvDtype::F16 => values.iter().map(|&x| f16::from_f32(x).to_f64()).collect(),
            KvDtype::Q8 => eight_bits(values),
        };
        let mut out = Vec::new();
        for row in 0..self.len() {
            for head in 0..n_head {
                let scale = self.heads.scale();
                let query: Vec<f32> = part(row, head).iter().map(|&x| x * scale).collect();
                let query: Vec<f64> = match self.dtype {
                    KvDtype::F16 => query.iter().map(|&x| f64::from(x)).collect(),
                    KvDtype::Q8 => eight_bits(&query),
                };
                let first = (row + 1).saturating_sub(self.heads.window());
                let scores: Vec<f64> = (first..=row)
                    .map(|at| {
                        let key: Vec<f64> = kept(part(at, n_head + head / group));
                        key.iter().zip(&query).map(|(k, q)| k * q).sum()
                    })
                    .collect();
                let greatest = scores.iter().copied().fold(f64::MIN, f64::max);
                let total: f64 = scores.iter().map(|score| (score - greatest).exp()).sum();
                let mut sums = vec![0.0; head_dim];
                for (at, score) in (first..=row).zip(&scores) {
                    let value: Vec<f64> = kept(part(at, n_head + self.heads.n_kv_head + head / group));
                    let weight = (score - greatest).exp() / total;
                    sums.iter_mut().zip(&value).for_each(|(sum, value)| *sum += weight * value);
                }
                out.extend(sums);
            }
        }
        out
    }
}

/// Values as one scale and 8 bits each keep them.
fn eight_bits(values: &[f32]) -> Vec<f64> {
    let greatest = values.iter().fold(0_f32, |most, value| most.max(value.abs()));
    let (scale, inverse) = (greatest / 127.0, 127.0 / greatest);
    values.iter().map(|value| f64::from(scale) * f64::from((value * inverse).round_ties_even())).collect()
}

fn no_rope() -> Rope {
    Rope::new(0, 10_000.0, Pairs::Halves, &Stretch::None, None).unwrap()
}

fn heads(n_head: usize, n_kv_head: usize, head_dim: usize, window: Option<usize>) -> Heads {
    Heads { n_head, n_kv_head, head_dim, window }
}

/// Shapes and lengths: one head and groups, odd sizes of heads, windows, lengths around the borders of groups and blocks.
fn shapes() -> Vec<(Heads, usize)> {
    vec![
        (heads(1, 1, 8, None), 1),
        (heads(2, 1, 10, None), 15),
        (heads(3, 3, 16, Some(4)), 17),
        (heads(4, 2, 18, None), 16),
        (heads(7, 1, 34, Some(1)), 33),
        (heads(9, 3, 64, None), 64),
        (heads(2, 2, 96, None), 63),
        (heads(3, 1, 96, Some(20)), 130),
        (heads(2, 1, 80, Some(64)), 129),
        (heads(13, 1, 12, Some(63)), 131),
        (heads(2, 2, 128, None), 65),
        (heads(1, 1, 144, Some(100)), 193),
        (heads(1, 1, 256, None), 20),
        (heads(2, 1, 512, None), 9),
        (heads(70, 1, 6, Some(7)), 21),
    ]
}

/// Error relative to the signal, in energy.
fn error(found: &[f32], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let energy: f64 = wanted.iter().map(|wanted| wanted * wanted).sum();
    let wrong: f64 = found.iter().zip(wanted).map(|(&f, w)| (f64::from(f) - w).powi(2)).sum();
    wrong / energy
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn it_equals_the_naive_one() {
    for dtype in [KvDtype::F16, KvDtype::Q8] {
        for (seed, (heads, len)) in shapes().into_iter().enumerate() {
            let sequence = Sequence::random(heads, dtype, len, seed as u64);
            let found = sequence.attend(PLAIN, &no_rope());
            let error = error(&found, &sequence.reference());
            assert!(error < 1e-12, "{heads:?}, {len} positions as {dtype:?}: relative error {error}");
        }
    }
}

#[test]
fn bits_do_not_depend_on_tiers_threads_or_pieces() {
    let cuts: [&[usize]; 6] = [&[usize::MAX], &[1], &[2, 5], &[7, 1, 13], &[64], &[40, 3, 90]];
    for dtype in [KvDtype::F16, KvDtype::Q8] {
        for (seed, (heads, len)) in shapes().into_iter().enumerate() {
            let sequence = Sequence::random(heads, dtype, len, 100 + seed as u64);
            let rope =
                Rope::new(heads.head_dim.min(48), 10_000.0, Pairs::Halves, &Stretch::None, None).unwrap();
            let wanted = bits(&sequence.attend(PLAIN, &rope));
            for tier in Tier::all() {
                for pieces in cuts {
                    for threads in [1, 3] {
                        let how = How { tier, threads, pieces };
                        let found = bits(&sequence.attend(how, &rope));
                        assert!(found == wanted, "{heads:?}, {len} positions as {dtype:?}, {how:?}");
                    }
                }
            }
        }
    }
}

/// Several sequences in one batch, at different positions, and rows of the batch in another order than the runs.
#[test]
fn sequences_of_a_batch_do_not_touch_each_other() {
    let heads = heads(4, 2, 32, None);
    for dtype in [KvDtype::F16, KvDtype::Q8] {
        let lens = [(70, 1), (0, 20), (64, 5), (130, 40)];
        let sequences: Vec<_> =
            lens.iter().map(|(a, b)| Sequence::random(heads, dtype, a + b, (a + b) as u64)).collect();
        let (stride, width) = (sequences[0].stride(), 4 * 32);
        let rope = Rope::new(32, 10_000.0, Pairs::Interleaved, &Stretch::None, None).unwrap();
        for tier in Tier::all() {
            let how = How { tier, ..PLAIN };
            let compute = Compute { pool: Pool::new(2).unwrap(), tier };
            let mut caches: Vec<KvCache> = sequences.iter().map(Sequence::cache).collect();
            let first_rows = [45, 0, 20, 66];
            let (mut data, mut runs) = (vec![0.0; 106 * stride], Vec::new());
            let mut rotations = vec![(0, 0); 106];
            for (at, &(before, rows)) in lens.iter().enumerate() {
                let cache = &mut caches[at];
                cache.reserve(0, before + rows).unwrap();
                if before > 0 {
                    let run = Run { row: 0, rows: before, position: 0 };
                    let plan = AttentionPlan::new(heads, &[run], 2).unwrap();
                    let mut rotation = rope.rotation();
                    rope.add(&mut rotation, 0..before, Factors::Short);
                    plan.append(&compute, 1, sequences[at].rows(0), &rotation, &mut [cache]).unwrap();
                }
                let row = first_rows[at];
                runs.push(Run { row, rows, position: before });
                data[row * stride..(row + rows) * stride]
                    .copy_from_slice(&sequences[at].data[before * stride..]);
                (0..rows).for_each(|i| rotations[row + i] = (before + i, 1));
            }
            let mut rotation = rope.rotation();
            rotations.iter().for_each(|&(at, _)| rope.add(&mut rotation, at..at + 1, Factors::Short));
            let plan = AttentionPlan::new(heads, &runs, 2).unwrap();
            let rows = Rows { data: &data, ..sequences[0].rows(0) };
            let mut out = vec![f32::NAN; 106 * width];
            let mut caches: Vec<&mut KvCache> = caches.iter_mut().collect();
            plan.forward(&compute, 1, rows, &rotation, &mut caches, &mut out).unwrap();
            for (at, &(before, rows)) in lens.iter().enumerate() {
                let alone = sequences[at].attend(how, &rope);
                let row = first_rows[at];
                let found = &out[row * width..(row + rows) * width];
                assert!(bits(found) == bits(&alone[before * width..]), "sequence {at} on {how:?}");
            }
            assert!(out[40 * width].is_nan(), "rows of no run are left alone");
        }
    }
}

/// A step of a sequence beside a piece of a long prompt: few key and value heads still keep all threads at work.
#[test]
fn threads_end_at_about_the_same_time() {
    for heads in [heads(9, 3, 64, None), heads(24, 8, 128, None), heads(32, 32, 96, None)] {
        for runs in [&[(40, 1), (1990, 10)][..], &[(1990, 10), (40, 1)], &[(0, 64), (1500, 16)], &[(700, 1)]]
        {
            let mut row = 0;
            let runs: Vec<Run> = runs
                .iter()
                .map(|&(position, rows)| {
                    row += rows;
                    Run { row: row - rows, rows, position }
                })
                .collect();
            // As the pool hands them out: the next one to the thread that is free first.
            let mut busy = [0; 2];
            let plan = AttentionPlan::new(heads, &runs, 2).unwrap();
            for unit in &plan.units {
                let cost: usize = plan.tiles[unit.clone()].iter().map(|tile| tile.cost(&heads)).sum();
                *busy.iter_mut().min().unwrap() += cost;
            }
            let (longest, all) = (busy[0].max(busy[1]), busy[0] + busy[1]);
            assert!(longest * 100 <= all * 58, "{heads:?} {runs:?}: {busy:?}");
        }
    }
}

/// Short tiles are taken together, long ones alone, and each once.
#[test]
fn every_tile_is_in_one_unit() {
    let heads = heads(32, 32, 96, None);
    let run = |at: usize, position| Run { row: at, rows: 1, position };
    for (position, sequences, threads, most) in
        [(130, 16, 2, 31), (130, 1, 2, 8), (130, 1, 64, 1), (5000, 3, 1, 1)]
    {
        let runs: Vec<_> = (0..sequences).map(|at| run(at, position)).collect();
        let plan = AttentionPlan::new(heads, &runs, threads).unwrap();
        let tiles: Vec<_> = plan.units.iter().flat_map(Clone::clone).collect();
        assert_eq!(tiles, (0..32 * sequences).collect::<Vec<_>>());
        assert_eq!(plan.units.iter().map(Range::len).max(), Some(most), "{position} {sequences} {threads}");
        assert_eq!(plan.units.last().map(Range::len), Some(1), "small pieces at the end");
    }
}

/// What a sequence leaves behind when it is cut back, or in memory that is used again, is not seen by what comes next.
#[test]
fn stale_positions_are_not_seen() {
    let heads = heads(2, 1, 32, None);
    for dtype in [KvDtype::F16, KvDtype::Q8] {
        let long = Sequence::random(heads, dtype, 80, 1);
        let wanted = long.attend(PLAIN, &no_rope());
        for tier in Tier::all() {
            let compute = Compute { pool: Pool::new(1).unwrap(), tier };
            let mut rotation = no_rope().rotation();
            no_rope().add(&mut rotation, 0..80, Factors::Short);
            let mut cache = long.cache();
            cache.reserve(0, 80).unwrap();
            let spoilt = vec![f32::NAN; long.data.len()];
            let mut out = vec![0.0; 80 * 64];
            let plan =
                |position, rows| AttentionPlan::new(heads, &[Run { row: 0, rows, position }], 1).unwrap();
            let all = Rows { data: &spoilt, ..long.rows(0) };
            plan(0, 80).forward(&compute, 1, all, &rotation, &mut [&mut cache], &mut out).unwrap();
            assert!(out.iter().all(|x| x.is_nan()), "faults are passed on");
            cache.truncate(0);
            cache.reserve(0, 80).unwrap();
            for (from, rows) in [(0, 70), (70, 1), (71, 9)] {
                let to = &mut out[from * 64..(from + rows) * 64];
                let plan = plan(from, rows);
                plan.forward(&compute, 1, long.rows(from), &rotation, &mut [&mut cache], to).unwrap();
            }
            assert_eq!(bits(&out), bits(&wanted), "{dtype:?}");
            // In memory that is kept, as after rejected guesses.
            let at = Rows { data: &spoilt, ..long.rows(0) };
            plan(60, 20).append(&compute, 1, at, &rotation, &mut [&mut cache]).unwrap();
            for at in 60..80 {
                let to = &mut out[at * 64..(at + 1) * 64];
                plan(at, 1).forward(&compute, 1, long.rows(at), &rotation, &mut [&mut cache], to).unwrap();
            }
            assert_eq!(bits(&out), bits(&wanted), "{dtype:?}");
        }
    }
}

/// Reads an element of a block as the documented layout has it.
fn kept(cache: &KvCache, at: usize, head: usize, element: usize) -> (f64, f64) {
    let (shape, layout) = (cache.shape(), cache.shape().layout());
    let bytes = cache.head(at / BLOCK, 1, head);
    let place = at % BLOCK;
    let float = |at: usize| f64::from(f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()));
    let half = |at: usize| f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f64();
    match shape.dtype {
        KvDtype::F16 => (
            half(((place / 32 * shape.head_dim + element) * 32 + place % 32) * 2),
            half(layout.values + (place * layout.width + element) * 2),
        ),
        KvDtype::Q8 => {
            let key = bytes[((place / 16 * layout.quads + element / 4) * 16 + place % 16) * 4 + element % 4];
            let value = bytes[layout.values + place * layout.width + element].cast_signed();
            let scales = [layout.key_scales, layout.value_scales].map(|start| float(start + place * 4));
            ((f64::from(key) - 128.0) * scales[0], f64::from(value) * scales[1])
        }
    }
}

#[test]
fn keys_are_turned_and_kept_with_values() {
    for (dtype, tolerance) in [(KvDtype::F16, 0.5 / 1024.0), (KvDtype::Q8, 0.5 / 127.0)] {
        for (pairs, head_dim, dims) in [
            (Pairs::Halves, 96, 96),
            (Pairs::Interleaved, 64, 64),
            (Pairs::Halves, 22, 12),
            (Pairs::Halves, 6, 4),
        ] {
            let heads = heads(2, 2, head_dim, None);
            let sequence = Sequence::random(heads, dtype, 90, 9);
            let rope = Rope::new(dims, 500.0, pairs, &Stretch::None, None).unwrap();
            for tier in Tier::all() {
                let mut cache = sequence.cache();
                cache.reserve(0, 90).unwrap();
                let mut rotation = rope.rotation();
                rope.add(&mut rotation, 0..90, Factors::Short);
                let plan = AttentionPlan::new(heads, &[Run { row: 0, rows: 90, position: 0 }], 2).unwrap();
                let compute = Compute { pool: Pool::new(2).unwrap(), tier };
                plan.append(&compute, 1, sequence.rows(0), &rotation, &mut [&mut cache]).unwrap();
                for (at, head) in [(0, 0), (5, 1), (63, 0), (64, 1), (89, 0)] {
                    let rows = sequence.rows(at);
                    let key = &rows.data[rows.k + head * head_dim..][..head_dim];
                    let value = &rows.data[rows.v + head * head_dim..][..head_dim];
                    let turned = turned(key, pairs, dims, at, 500.0);
                    let most = |values: &[f64]| values.iter().fold(0_f64, |most, x| most.max(x.abs()));
                    let values: Vec<f64> = value.iter().map(|&x| f64::from(x)).collect();
                    for element in 0..head_dim {
                        let (key, value) = kept(&cache, at, head, element);
                        assert!((key - turned[element]).abs() <= tolerance * 1.01 * most(&turned));
                        assert!((value - values[element]).abs() <= tolerance * 1.01 * most(&values));
                    }
                }
            }
        }
    }
}

/// Rope in f64, by its definition; what is turned lies in halves.
fn turned(x: &[f32], pairs: Pairs, dims: usize, position: usize, base: f64) -> Vec<f64> {
    let mut out: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    for pair in 0..dims / 2 {
        let (a, b) = match pairs {
            Pairs::Halves => (pair, pair + dims / 2),
            Pairs::Interleaved => (2 * pair, 2 * pair + 1),
        };
        let (sin, cos) = (position as f64 * base.powf(-2.0 * pair as f64 / dims as f64)).sin_cos();
        (out[pair], out[pair + dims / 2]) =
            (f64::from(x[a]) * cos - f64::from(x[b]) * sin, f64::from(x[b]) * cos + f64::from(x[a]) * sin);
    }
    out
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let good = heads(4, 2, 32, None);
    let run = Run { row: 0, rows: 3, position: 0 };
    assert!(AttentionPlan::new(heads(3, 2, 32, None), &[run], 1).is_err());
    assert!(AttentionPlan::new(heads(4, 0, 32, None), &[run], 1).is_err());
    assert!(AttentionPlan::new(heads(4, 2, 32, Some(0)), &[run], 1).is_err());
    assert!(AttentionPlan::new(good, &[run, Run { row: 2, ..run }], 1).is_err());
    assert!(AttentionPlan::new(good, &[Run { rows: 0, ..run }], 1).is_err());
    assert!(AttentionPlan::new(good, &[Run { position: 1 << 32, ..run }], 1).is_err());

    let sequence = Sequence::random(good, KvDtype::F16, 3, 1);
    let plan = AttentionPlan::new(good, &[run], 1).unwrap();
    let compute = Compute { pool: Pool::new(1).unwrap(), tier: Tier::SCALAR };
    let mut rotation = no_rope().rotation();
    let mut out = vec![0.0; 3 * 128];
    let mut cache = sequence.cache();
    let forward = |layer, rows, rotation: &Rotation, cache: &mut KvCache, out: &mut [f32]| {
        plan.forward(&compute, layer, rows, rotation, &mut [cache], out)
    };
    let rows = sequence.rows(0);
    assert!(forward(1, rows, &rotation, &mut cache, &mut out).is_err(), "a rotation without rows");
    no_rope().add(&mut rotation, 0..3, Factors::Short);
    assert!(forward(1, rows, &rotation, &mut cache, &mut out).is_err(), "no room");
    cache.reserve(0, 3).unwrap();
    assert!(forward(2, rows, &rotation, &mut cache, &mut out).is_err(), "no such layer");
    assert!(forward(1, Rows { v: rows.v + 1, ..rows }, &rotation, &mut cache, &mut out).is_err());
    assert!(forward(1, sequence.rows(1), &rotation, &mut cache, &mut out).is_err(), "a row too few");
    assert!(forward(1, rows, &rotation, &mut cache, &mut out[1..]).is_err());
    assert!(plan.append(&compute, 1, rows, &rotation, &mut []).is_err());
    assert!(forward(1, rows, &rotation, &mut cache, &mut out).is_ok());
}
