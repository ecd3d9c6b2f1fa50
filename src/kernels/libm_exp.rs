//! `expf` of the system's C library, many at a time.
//!
//! The exponential of [`super::exp`] is faster still; this one is for probabilities that must equal those of other programs.

use std::sync::LazyLock;

use super::isa::CpuInfo;
use super::simd::{Op, Simd, Tier, dispatch};

/// Parts that an octave is cut into.
const PARTS: usize = 32;
const PARTS_F: f64 = PARTS as f64;
/// Added to a number below 2^51 in size, it leaves the nearest integer in the lowest bits.
const SHIFT: f64 = 6_755_399_441_055_744.0;
/// The polynomial of `2^(r / 32)` for |r| <= 1/2, from `exp2f_data.c` of Arm's optimized routines, which glibc and musl use.
const POLYNOMIAL: [f64; 3] = [
    0.055_503_615_593_415_35 / PARTS_F / PARTS_F / PARTS_F,
    0.240_228_452_244_572_2 / PARTS_F / PARTS_F,
    0.693_147_180_691_620_3 / PARTS_F,
];
/// Below this the result is zero.
const LOW: f64 = -150.0;

/// The bits of `2^(i / 32)`, less what adding `i` to the exponent would add.
static TABLE: LazyLock<[u64; PARTS]> =
    LazyLock::new(|| std::array::from_fn(|i| (i as f64 / PARTS_F).exp2().to_bits() - ((i as u64) << 47)));

static TIER: LazyLock<Option<Tier>> = LazyLock::new(|| Tier::new(CpuInfo::detect().ok()?.tier).ok());

/// Writes `e^(x * scale - max)` for every `x` of `from`, for a `max` that no `x * scale` exceeds. As exact as `expf` of glibc,
/// and with the same bits but for a result in about ten million.
pub(crate) fn exp_below(from: &[f32], scale: f32, max: f32, to: &mut Vec<f32>) {
    to.clear();
    to.resize(from.len(), 0.0);
    let op = ExpBelow { from, scale, max, table: &TABLE, to };
    match *TIER {
        Some(tier) => dispatch(tier, op),
        None => op.compute(),
    }
}

struct ExpBelow<'a> {
    from: &'a [f32],
    scale: f32,
    max: f32,
    table: &'a [u64; PARTS],
    to: &'a mut [f32],
}

impl ExpBelow<'_> {
    /// Plain arithmetic in f64, which the compiler turns into the vectors of the tier.
    #[inline(always)]
    fn compute(self) {
        for (to, &x) in self.to.iter_mut().zip(self.from) {
            let x = f64::from(x * self.scale - self.max).max(LOW);
            let parts = x * (std::f64::consts::LOG2_E * PARTS_F);
            let shifted = parts + SHIFT;
            let bits = shifted.to_bits();
            let r = parts - (shifted - SHIFT);
            let power = f64::from_bits(self.table[bits as usize % PARTS].wrapping_add(bits << 47));
            let high = POLYNOMIAL[0] * r + POLYNOMIAL[1];
            let low = POLYNOMIAL[2] * r + 1.0;
            *to = ((high * (r * r) + low) * power) as f32;
        }
    }
}

impl Op for ExpBelow<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        self.compute();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_librarys() {
        let from: Vec<f32> = (0..2_000_000).map(|i| (i as f32).mul_add(-1e-4, 40.0)).collect();
        let mut to = Vec::new();
        exp_below(&from, 0.7, 28.0, &mut to);
        let mut other = 0;
        for (x, found) in from.iter().zip(&to) {
            let wanted = (x * 0.7 - 28.0).exp();
            assert!(wanted.to_bits().abs_diff(found.to_bits()) <= 1, "{x}: {found}, not {wanted}");
            other += usize::from(wanted != *found);
        }
        assert!(other <= 2, "{other} of {} differ in the last bit", from.len());
    }

    #[test]
    fn far_below_there_is_nothing() {
        let mut to = Vec::new();
        exp_below(&[0.0, -200.0, -1e30, f32::NEG_INFINITY, f32::NAN], 1.0, 0.0, &mut to);
        assert_eq!(to[..4], [1.0, 0.0, 0.0, 0.0]);
    }
}
