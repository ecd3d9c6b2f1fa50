//! The exponential function, for softmax and SiLU.

#![allow(
    clippy::inline_always,
    reason = "a function without the tier's features must vanish into one that has them"
)]

use super::simd::Simd;

/// Below this the result is zero: it would be near the least normal number.
const LOW: f32 = -87.0;
/// Above this the result stays what it is here.
const HIGH: f32 = 88.0;
/// ln 2 as f32, and what that leaves out.
const LN_2: [f32; 2] = [std::f32::consts::LN_2, -1.904_654_2e-9];
/// `Q` of `e^r = 1 + r + r^2 Q(r)` for |r| <= ln 2 / 2, lowest power first: least relative error, 3.1e-9 (Remez exchange).
const Q: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_745, 0.001_381_455];

/// `e^x`, within 2 units in the last place for -87 <= `x` <= 88; 0 below that, and `e^88` above; 1 for 0, and not a number
/// for what is none.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    // In this order of operands a NaN comes through.
    let within = s.min(s.splat(HIGH), s.max(s.splat(LOW), x));
    let n = s.to_i(s.mul(within, s.splat(std::f32::consts::LOG2_E)));
    let times = s.to_f(n);
    let r = s.fnma(times, s.splat(LN_2[0]), within);
    let r = s.fnma(times, s.splat(LN_2[1]), r);
    let q = s.fma(s.splat(Q[4]), r, s.splat(Q[3]));
    let q = s.fma(q, r, s.splat(Q[2]));
    let q = s.fma(q, r, s.splat(Q[1]));
    let q = s.fma(q, r, s.splat(Q[0]));
    let power = s.add(s.splat(1.0), s.fma(s.mul(r, r), q, r));
    s.unless_below(x, s.splat(LOW), s.mul(power, s.pow2(n)))
}

#[cfg(test)]
mod tests {
    use super::super::simd::{LANES, Op, Tier, dispatch};
    use super::*;

    struct Exp<'a>(&'a [f32; LANES]);

    impl Op for Exp<'_> {
        type Out = [f32; LANES];

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Out {
            let mut out = [0.0; LANES];
            // SAFETY: both arrays have 16 numbers.
            unsafe { s.store(exp(s, s.load(self.0.as_ptr())), out.as_mut_ptr()) };
            out
        }
    }

    fn everywhere(x: &[f32; LANES]) -> [f32; LANES] {
        let wanted = dispatch(Tier::SCALAR, Exp(x));
        for tier in Tier::all() {
            let found = dispatch(tier, Exp(x));
            let equal = |(w, f): (&f32, &f32)| w.to_bits() == f.to_bits() || (w.is_nan() && f.is_nan());
            assert!(wanted.iter().zip(&found).all(equal), "{}: {found:?}, not {wanted:?}", tier.isa().name());
        }
        wanted
    }

    #[test]
    fn it_is_within_two_units_in_the_last_place() {
        let mut worst = 0_f64;
        for step in 0..20_000 {
            let x: [f32; LANES] =
                std::array::from_fn(|lane| -87.0 + (step * LANES + lane) as f32 * (175.0 / 320_000.0));
            for (x, found) in x.into_iter().zip(everywhere(&x)) {
                let wanted = f64::from(x).exp();
                let unit = f64::from(f32::EPSILON) * 2_f64.powi(wanted.log2().floor() as i32);
                worst = worst.max((f64::from(found) - wanted).abs() / unit);
            }
        }
        assert!(worst <= 2.0, "{worst} units in the last place");
    }

    #[test]
    fn edges() {
        let mut x = [0.0; LANES];
        x[..9].copy_from_slice(&[
            0.0,
            -0.0,
            f32::NEG_INFINITY,
            f32::MIN,
            -87.01,
            f32::INFINITY,
            f32::MAX,
            f32::NAN,
            f32::MIN_POSITIVE,
        ]);
        let found = everywhere(&x);
        assert_eq!(found[..5], [1.0, 1.0, 0.0, 0.0, 0.0]);
        assert!(found[5] > 1.6e38 && found[5].is_finite() && found[6] == found[5]);
        assert!(found[7].is_nan());
        assert_eq!(found[8], 1.0);
    }
}
