//! Every operation of every tier against the scalar one, on random lanes and edge values.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// What goes through the operations.
#[derive(Clone)]
struct Inputs {
    floats: [[f32; LANES]; 3],
    ints: [[i32; LANES]; 3],
    bytes: [[u8; BYTES]; 2],
    halves: [u16; LANES],
    acts: [i8; 4],
    scales: [i32; LANES],
    n: usize,
}

impl Inputs {
    fn random(random: &mut StdRng) -> Self {
        const EDGES: [f32; 9] = [0.0, -0.0, 1.0, -1.0, 0.5, 65504.0, 1e-8, -3e38, f32::INFINITY];
        let mut float = || {
            if random.random_ratio(1, 8) {
                EDGES[random.random_range(0..EDGES.len())]
            } else {
                (random.random::<f32>() - 0.5) * 10f32.powi(random.random_range(-9..9))
            }
        };
        let floats = std::array::from_fn(|_| std::array::from_fn(|_| float()));
        Self {
            floats,
            ints: std::array::from_fn(|_| std::array::from_fn(|_| random.random())),
            bytes: std::array::from_fn(|_| std::array::from_fn(|_| random.random())),
            halves: std::array::from_fn(|_| {
                let bits: u16 = random.random();
                // A signalling NaN may or may not become a quiet one: leave NaNs out.
                if bits & 0x7c00 == 0x7c00 { bits & 0xfc00 } else { bits }
            }),
            acts: std::array::from_fn(|_| random.random_range(-127..=127)),
            scales: std::array::from_fn(|_| random.random_range(-128..128)),
            n: random.random_range(0..=LANES),
        }
    }
}

/// All operations, and the bits that they gave.
struct Everything<'a>(&'a Inputs);

impl Op for Everything<'_> {
    type Out = Vec<Vec<u32>>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Out {
        let x = self.0;
        let mut out = Vec::new();
        // SAFETY: every pointer is to an array of the size that the operation reads or writes.
        unsafe {
            let [a, b, c] = [0, 1, 2].map(|i| s.load(x.floats[i].as_ptr()));
            let [i, j, k] = [0, 1, 2].map(|n| s.load_i(x.ints[n].as_ptr()));
            let [v, w] = [0, 1].map(|n| s.load_b(x.bytes[n].as_ptr()));
            let small = s.load_i8(x.bytes[0].as_ptr().cast());
            let acts = s.splat4(x.acts.as_ptr());
            let scales = s.load_i(x.scales.as_ptr());
            let mut float = |f: S::F| {
                let mut lanes = [0f32; LANES];
                s.store(f, lanes.as_mut_ptr());
                out.push(lanes.map(f32::to_bits).to_vec());
            };
            for f in [
                s.splat(1.5),
                s.add(a, b),
                s.sub(a, b),
                s.mul(a, b),
                s.div(a, b),
                s.fma(a, b, c),
                s.fnma(a, b, c),
                s.max(a, b),
                s.min(a, b),
                s.abs(a),
                s.to_f(i),
                s.pow2(small),
                s.first(x.n, a, b),
                s.unless_below(a, b, c),
                s.unless_below(s.splat(f32::NAN), b, c),
                s.expf(s.min(a, s.splat(0.0))),
                s.expf(s.splat(f32::NAN)),
                load_some(s, &x.floats[0][..x.n]),
                s.splat(s.sum(a)),
                s.splat(s.greatest(a)),
                s.load_f16(x.halves.as_ptr()),
                s.load_bf16(x.halves.as_ptr()),
            ] {
                float(f);
            }
            let mut halves = [0u16; LANES];
            s.store_f16(a, halves.as_mut_ptr());
            out.push(halves.map(u32::from).to_vec());
            let mut int = |n: S::I| {
                let mut lanes = [0i32; LANES];
                s.store_i(n, lanes.as_mut_ptr());
                out.push(lanes.map(i32::cast_unsigned).to_vec());
            };
            // Conversion is for what fits into i32.
            let fits = s.min(s.max(a, s.splat(-2e9)), s.splat(2e9));
            for n in [
                s.to_i(fits),
                s.splat_i(-7),
                s.add_i(i, j),
                s.sub_i(i, j),
                s.mul_i(i, j),
                s.pair(i, j),
                s.dot_pairs(k, i, j),
                small,
                s.load_u8(x.bytes[0].as_ptr()),
            ] {
                int(n);
            }
            for bits in [4, 5, 6] {
                let w = s.and_b(v, s.splat_b((1 << bits) - 1));
                let mut acc = s.dot_zero();
                for _ in 0..S::dot_limit(bits).min(8) {
                    acc = s.dot(acc, w, acts);
                }
                // As many as scalar code adds in any tier: the sums of two calls are the least common limit.
                let two = s.dot(s.dot(s.dot_zero(), w, acts), w, acts);
                int(s.dot_sum(two));
                int(s.drain(k, two, s.scale(scales)));
                // Short where the tier gains by that, with what it lacks then put back, and noise above it.
                let lack = (1 << (bits - 1)) * 2 * x.acts.iter().map(|&act| i32::from(act)).sum::<i32>();
                let noise = 0x5a5a_i32 << 16;
                let short = s.dot(s.dot(s.dot_from(noise.wrapping_sub(lack)), w, acts), w, acts);
                let drained = s.drain_short(k, short, s.scale(scales));
                let lack = s.mul_i(scales, s.splat_i(if S::SHORT { lack } else { 0 }));
                int(s.add_i(drained, lack));
                let eight = (0..8 / S::dot_limit(bits).min(8))
                    .fold(s.splat_i(0), |sum, _| s.add_i(sum, s.dot_sum(acc)));
                int(eight);
            }
            let wide = (0..8).fold(s.wide_zero(), |acc, _| s.wide_dot(acc, v, acts));
            int(s.wide_sum(wide));
            int(s.wide_drain(k, wide, s.scale(scales)));
            let mut low = [0i8; LANES];
            s.store_i8(i, low.as_mut_ptr());
            out.push(low.map(|x| u32::from(x.cast_unsigned())).to_vec());
            for b in [
                s.and_b(v, w),
                s.or_b(v, w),
                s.splat_b(0xa5),
                s.shr_b::<1>(v, s.splat_b(0x7f)),
                s.shr_b::<2>(v, s.splat_b(0x30)),
                s.shr_b::<4>(v, s.splat_b(0x0f)),
                s.shr_b::<6>(v, s.splat_b(0x03)),
                s.shl_b::<1>(v, s.splat_b(0x10)),
                s.shl_b::<4>(v, s.splat_b(0x30)),
            ] {
                let mut bytes = [0u8; BYTES];
                s.store_b(b, bytes.as_mut_ptr());
                out.push(bytes.map(u32::from).to_vec());
            }
            s.prefetch(std::ptr::null());
            s.prefetch_far(std::ptr::null());
        }
        out
    }
}

#[test]
fn every_tier_gives_the_scalar_bits() {
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..2000 {
        let inputs = Inputs::random(&mut random);
        let wanted = dispatch(Tier::SCALAR, Everything(&inputs));
        for tier in Tier::all() {
            same(&wanted, &dispatch(tier, Everything(&inputs)), tier);
        }
    }
}

fn same(wanted: &[Vec<u32>], found: &[Vec<u32>], tier: Tier) {
    assert_eq!(wanted.len(), found.len());
    for (at, (wanted, found)) in wanted.iter().zip(found).enumerate() {
        let nan = |bits: u32| f32::from_bits(bits).is_nan();
        let equal = wanted.iter().zip(found).all(|(&w, &f)| w == f || (nan(w) && nan(f)));
        assert!(equal, "operation {at} of {tier:?}: {found:x?}, not {wanted:x?}");
    }
}
