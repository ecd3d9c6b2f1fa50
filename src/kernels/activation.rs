//! SiLU of the gate times the other half: the feed-forward layer's activation.

#![allow(
    clippy::inline_always,
    reason = "a function without the tier's features must vanish into one that has them"
)]

use super::exp::exp;
use super::simd::{LANES, Simd, load_some, store_some};

/// Writes `silu(gate) * up`, where `silu(x) = x / (1 + e^-x)`. All three are equally long.
#[inline(always)]
pub(crate) fn silu_mul_row<S: Simd>(s: S, gate: &[f32], up: &[f32], out: &mut [f32]) {
    let n = out.len().min(gate.len()).min(up.len());
    let one = s.splat(1.0);
    let mut at = 0;
    while at < n {
        let x = load_some(s, &gate[at..n]);
        let sigmoid = s.add(one, exp(s, s.sub(s.splat(0.0), x)));
        let y = s.mul(s.div(x, sigmoid), load_some(s, &up[at..n]));
        store_some(s, y, &mut out[at..n]);
        at += LANES;
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::super::simd::{Op, Tier, dispatch};
    use super::*;

    struct Silu<'a>(&'a [f32], &'a [f32], &'a mut [f32]);

    impl Op for Silu<'_> {
        type Out = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            silu_mul_row(s, self.0, self.1, self.2);
        }
    }

    #[test]
    fn rows_equal_the_formula_on_every_tier() {
        let mut random = StdRng::seed_from_u64(2);
        for n in [1, 15, 16, 17, 4099] {
            let mut values = || (0..n).map(|_| random.random_range(-30.0..30.0)).collect::<Vec<f32>>();
            let (gate, up) = (values(), values());
            let mut wanted = vec![0.0; n];
            dispatch(Tier::SCALAR, Silu(&gate, &up, &mut wanted));
            for ((&x, &up), &found) in gate.iter().zip(&up).zip(&wanted) {
                let (x, up) = (f64::from(x), f64::from(up));
                let exact = x / (1.0 + (-x).exp()) * up;
                assert!((f64::from(found) - exact).abs() <= 1e-6 * exact.abs(), "{found}, not {exact}");
            }
            for tier in Tier::all() {
                let mut found = vec![f32::NAN; n];
                dispatch(tier, Silu(&gate, &up, &mut found));
                assert_eq!(found, wanted, "{}", tier.isa().name());
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let mut out = [0.0; 4];
        let gate = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, -1000.0];
        dispatch(Tier::SCALAR, Silu(&gate, &[1.0; 4], &mut out));
        assert!(out[0].is_nan() && !out[1].is_finite());
        assert_eq!(out[2], f32::INFINITY);
        assert!(out[3].abs() < 1e-30);
    }
}
