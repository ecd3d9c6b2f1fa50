//! What this machine can do at most: bytes read and products summed in a second. Measured, not looked up, by the same threads
//! and instructions as a model's.

use std::hint::black_box;
use std::time::Instant;

use super::simd::{BYTES, LANES, Op, Simd, Tier, dispatch};
use super::{Arena, DisjointMut, Isa, Pool};
use crate::error::Result;

/// Bytes that a thread reads before it asks for more.
const CHUNK: usize = 2 << 20;
/// Bytes of one round of reading: a cache line for each of the sums that go on at once.
const LINES: usize = 8;
/// How far ahead of reading a line is asked for, in bytes.
const AHEAD: usize = 4096;
/// Passes over the memory; every other one asks for lines ahead.
const READS: usize = 10;

/// Passes of arithmetic.
const PASSES: usize = 5;
/// Seconds of one of them.
const PASS: f64 = 0.1;
/// Rounds of arithmetic before a thread asks for more.
const ROUNDS: usize = 2000;
/// Steps of a round, each with operands of its own, as the compiler would else compute them once.
const STEPS: usize = 4;

/// Rates of one number of threads, one figure for each pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates {
    /// Threads that worked at once.
    pub threads: usize,
    /// Bytes read from memory, per second.
    pub bandwidth: Vec<f64>,
    /// Products of 8-bit integers summed as i32, per second; a multiplication and an addition count as two operations.
    pub int8: Vec<f64>,
    /// The same of f32, multiplied and added in one step.
    pub f32: Vec<f64>,
}

/// Measures with the instructions of `isa` and `threads` threads, reading `bytes` of memory in huge pages where there are
/// any. Takes about two seconds; `bytes` should be many times the size of the CPU's caches.
///
/// # Errors
/// [`ErrorKind::UnsupportedCpu`](crate::ErrorKind::UnsupportedCpu) for a tier that this CPU lacks,
/// [`ErrorKind::OutOfMemory`](crate::ErrorKind::OutOfMemory), [`ErrorKind::InvalidParameter`](crate::ErrorKind::InvalidParameter)
/// for a number of threads that makes no pool.
pub fn measure_rates(isa: Isa, threads: usize, bytes: usize) -> Result<Rates> {
    let (tier, pool) = (Tier::new(isa)?, Pool::new(threads)?);
    Ok(Rates {
        threads: pool.threads(),
        bandwidth: bandwidth(tier, &pool, bytes)?,
        int8: int8(tier, &pool)?,
        f32: f32(tier, &pool)?,
    })
}

fn bandwidth(tier: Tier, pool: &Pool, bytes: usize) -> Result<Vec<f64>> {
    let chunks = bytes.div_ceil(CHUNK).max(1);
    let mut arena = Arena::new(chunks * CHUNK)?;
    let shared = DisjointMut::new(&mut arena);
    // Pages exist, and lie near who wrote them, once they are written.
    pool.for_each(chunks, &|unit, _| {
        // SAFETY: each unit has a chunk of its own.
        unsafe { shared.slice(unit * CHUNK..(unit + 1) * CHUNK) }.fill(1);
    })?;
    let bytes = &*arena;
    let mut rates = Vec::with_capacity(READS);
    for read in 0..READS {
        let start = Instant::now();
        pool.for_each(chunks, &|unit, _| {
            let chunk = &bytes[unit * CHUNK..(unit + 1) * CHUNK];
            black_box(if read % 2 == 0 {
                dispatch(tier, Read::<true>(chunk))
            } else {
                dispatch(tier, Read::<false>(chunk))
            });
        })?;
        rates.push(bytes.len() as f64 / start.elapsed().as_secs_f64());
    }
    Ok(rates)
}

/// Reads bytes and adds them up as numbers of 32 bits.
struct Read<'a, const PREFETCH: bool>(&'a [u8]);

impl<const PREFETCH: bool> Op for Read<'_, PREFETCH> {
    type Out = i32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> i32 {
        let mut sums = [simd.splat_i(0); LINES];
        for block in self.0.chunks_exact(LINES * BYTES) {
            for (line, sum) in sums.iter_mut().enumerate() {
                let at = block.as_ptr().wrapping_add(line * BYTES);
                if PREFETCH {
                    simd.prefetch(at.wrapping_add(AHEAD));
                }
                // SAFETY: the block has `LINES` lines of 64 bytes.
                *sum = simd.add_i(*sum, unsafe { simd.load_i(at.cast()) });
            }
        }
        let mut total = simd.splat_i(0);
        for sum in sums {
            total = simd.add_i(total, sum);
        }
        let mut lanes = [0; LANES];
        // SAFETY: there is room for 16 values.
        unsafe { simd.store_i(total, lanes.as_mut_ptr()) };
        lanes.into_iter().fold(0, i32::wrapping_add)
    }
}

/// Numbers to compute with, in the nearest cache.
#[repr(align(64))]
struct Operands {
    weights: [u8; 16 * BYTES],
    activations: [i8; 256],
    floats: [f32; 16 * LANES],
}

impl Operands {
    /// Products that cancel out in pairs, so that no sum ever overflows.
    fn new() -> Self {
        let mut operands =
            Self { weights: [0; 16 * BYTES], activations: [0; 256], floats: [0.0; 16 * LANES] };
        for (i, pair) in operands.weights.chunks_exact_mut(2).enumerate() {
            pair.fill((i * 37 % 64) as u8);
        }
        for (i, pair) in operands.activations.chunks_exact_mut(2).enumerate() {
            let value = (i * 53 % 127) as i8;
            pair.copy_from_slice(&[value, -value]);
        }
        for (i, float) in operands.floats.iter_mut().enumerate() {
            *float = if i % 2 == 0 { 0.5 } else { -0.25 };
        }
        operands
    }
}

/// Sums of products: `W * A` of them go on at once. Twelve hide the latency where there are 32 registers of 64 bytes; where
/// there are 16 of 32 bytes, six fit.
struct Int8<'a, const W: usize, const A: usize>(&'a Operands);

impl<const W: usize, const A: usize> Op for Int8<'_, W, A> {
    type Out = i32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> i32 {
        let mut sums = [[simd.dot_zero(); A]; W];
        for _ in 0..ROUNDS {
            let operands = black_box(self.0);
            for step in 0..STEPS {
                let weights = &operands.weights[step * W * BYTES..];
                let activations = &operands.activations[step * A * 4..];
                for (w, sums) in sums.iter_mut().enumerate() {
                    let weights = &weights[w * BYTES..(w + 1) * BYTES];
                    // SAFETY: the slice has 64 bytes.
                    let weights = unsafe { simd.load_b(weights.as_ptr()) };
                    for (a, sum) in sums.iter_mut().enumerate() {
                        let activations = &activations[a * 4..(a + 1) * 4];
                        // SAFETY: the slice has 4 bytes.
                        let activations = unsafe { simd.splat4(activations.as_ptr()) };
                        *sum = simd.dot(*sum, weights, activations);
                    }
                }
            }
        }
        let mut total = simd.splat_i(0);
        for sum in sums.as_flattened() {
            total = simd.add_i(total, simd.dot_sum(*sum));
        }
        let mut lanes = [0; LANES];
        // SAFETY: there is room for 16 values.
        unsafe { simd.store_i(total, lanes.as_mut_ptr()) };
        lanes.into_iter().fold(0, i32::wrapping_add)
    }
}

/// As [`Int8`], of f32.
struct F32<'a, const W: usize, const A: usize>(&'a Operands);

impl<const W: usize, const A: usize> Op for F32<'_, W, A> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let mut sums = [[simd.splat(0.0); A]; W];
        for _ in 0..ROUNDS {
            let operands = black_box(self.0);
            for step in 0..STEPS {
                let vectors = &operands.floats[step * W * LANES..];
                for (w, sums) in sums.iter_mut().enumerate() {
                    let vector = &vectors[w * LANES..(w + 1) * LANES];
                    // SAFETY: the slice has 16 values.
                    let vector = unsafe { simd.load(vector.as_ptr()) };
                    for (a, sum) in sums.iter_mut().enumerate() {
                        *sum = simd.fma(vector, simd.splat(operands.floats[step * A + a]), *sum);
                    }
                }
            }
        }
        let mut total = simd.splat(0.0);
        for sum in sums.as_flattened() {
            total = simd.add(total, *sum);
        }
        simd.sum(total)
    }
}

/// Operations of one unit with `sums` vectors of sums, of `products` products each: multiplications and additions.
fn operations(sums: usize, products: usize) -> f64 {
    (2 * ROUNDS * STEPS * sums * products) as f64
}

fn int8(tier: Tier, pool: &Pool) -> Result<Vec<f64>> {
    let operands = Operands::new();
    best_of(
        pool,
        [
            (operations(12, BYTES), &|| _ = black_box(dispatch(tier, Int8::<3, 4>(&operands)))),
            (operations(6, BYTES), &|| _ = black_box(dispatch(tier, Int8::<1, 6>(&operands)))),
        ],
    )
}

fn f32(tier: Tier, pool: &Pool) -> Result<Vec<f64>> {
    let operands = Operands::new();
    best_of(
        pool,
        [
            (operations(12, LANES), &|| _ = black_box(dispatch(tier, F32::<3, 4>(&operands)))),
            (operations(6, LANES), &|| _ = black_box(dispatch(tier, F32::<1, 6>(&operands)))),
        ],
    )
}

/// A way to keep the units of arithmetic busy: the operations of one unit of work, and the unit.
type Way<'a> = (f64, &'a (dyn Fn() + Sync));

/// Rates of whichever way is faster here.
fn best_of(pool: &Pool, ways: [Way<'_>; 2]) -> Result<Vec<f64>> {
    let (mut best, mut fastest) = (None, 0.0);
    for (operations, unit) in ways {
        let start = Instant::now();
        unit();
        let each = start.elapsed().as_secs_f64().max(1e-9);
        let units = pool.threads() * (PASS / each).ceil() as usize;
        let pass = move || -> Result<f64> {
            let start = Instant::now();
            pool.for_each(units, &|_, _| unit())?;
            Ok(operations * units as f64 / start.elapsed().as_secs_f64())
        };
        let rate = pass()?;
        if best.is_none() || rate > fastest {
            (best, fastest) = (Some(pass), rate);
        }
    }
    best.map_or_else(|| Ok(Vec::new()), |pass| (0..PASSES).map(|_| pass()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_read_once() {
        let bytes: Vec<u8> = (0..4 * LINES * BYTES).map(|i| (i * 7 % 251) as u8).collect();
        let words = bytes.chunks_exact(4).map(|word| i32::from_le_bytes(word.try_into().unwrap()));
        let expected = words.fold(0, i32::wrapping_add);
        for tier in Tier::all() {
            assert_eq!(dispatch(tier, Read::<true>(&bytes)), expected, "{tier:?}");
            assert_eq!(dispatch(tier, Read::<false>(&bytes)), expected, "{tier:?}");
        }
    }

    #[test]
    fn the_sums_are_those_of_the_operands() {
        let mut operands = Operands::new();
        for tier in Tier::all() {
            assert_eq!(dispatch(tier, Int8::<3, 4>(&operands)), 0, "{tier:?}: the products cancel out");
        }
        // A 1 for each lane in place of a 0: its products no longer cancel out.
        operands.weights.fill(0);
        operands.weights[..BYTES].iter_mut().step_by(4).for_each(|byte| *byte = 1);
        operands.activations.fill(0);
        operands.activations[0] = 1;
        for tier in Tier::all() {
            // Every tier sums at least i16 without a loss.
            let sum = dispatch(tier, Int8::<1, 6>(&operands));
            assert_eq!(sum, (LANES * ROUNDS) as i32, "{tier:?}");
        }
        operands.floats.fill(0.0);
        operands.floats[..LANES].fill(1.0);
        for tier in Tier::all() {
            // Of the first step's vector of ones, each of the six factors is a 1; later vectors are zeros.
            assert_eq!(dispatch(tier, F32::<1, 6>(&operands)), (6 * LANES * ROUNDS) as f32, "{tier:?}");
        }
    }

    #[test]
    fn rates_are_measured_with_the_threads_asked_for() {
        for threads in [1, 2] {
            let rates = measure_rates(Isa::Scalar, threads, 1).unwrap();
            assert_eq!(rates.threads, threads);
            assert_eq!((rates.bandwidth.len(), rates.int8.len(), rates.f32.len()), (READS, PASSES, PASSES));
            let all = [rates.bandwidth, rates.int8, rates.f32].concat();
            assert!(all.iter().all(|rate| rate.is_finite() && *rate > 0.0), "{all:?}");
        }
        assert!(measure_rates(Isa::Scalar, 0, 1).is_err());
    }
}
