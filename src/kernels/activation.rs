//! Activations of feed-forward layers: SiLU of the gate times the other half, and GELU.

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

/// `sqrt(2 / pi)` and the weight of the cube in the argument of the hyperbolic tangent.
const GELU: [f32; 2] = [0.797_884_6, 0.044_715];

/// Writes `gelu(x + bias)`, where `gelu(x) = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`: the approximation of
/// arXiv 1606.08415 that Phi-2 was trained with (`gelu_new` in transformers). All slices are equally long.
#[inline(always)]
pub(crate) fn gelu_row<S: Simd>(s: S, x: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
    let n = out.len().min(x.len());
    let one = s.splat(1.0);
    // (1 + tanh(u)) / 2 is the logistic function of 2 u.
    let (linear, cubic) = (s.splat(-2.0 * GELU[0]), s.splat(GELU[1]));
    let mut at = 0;
    while at < n {
        let mut x = load_some(s, &x[at..n]);
        if let Some(bias) = bias {
            x = s.add(x, load_some(s, &bias[at..n]));
        }
        let inner = s.fma(s.mul(s.mul(x, x), cubic), x, x);
        let logistic = s.add(one, exp(s, s.mul(inner, linear)));
        store_some(s, s.div(x, logistic), &mut out[at..n]);
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

    struct Gelu<'a>(&'a [f32], Option<&'a [f32]>, &'a mut [f32]);

    impl Op for Gelu<'_> {
        type Out = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            gelu_row(s, self.0, self.1, self.2);
        }
    }

    #[test]
    fn gelu_equals_its_formula_on_every_tier() {
        let mut random = StdRng::seed_from_u64(4);
        for n in [1, 15, 16, 17, 4099] {
            let mut values = || (0..n).map(|_| random.random_range(-4.0..4.0)).collect::<Vec<f32>>();
            let (x, bias) = (values(), values());
            for bias in [None, Some(&bias[..])] {
                let mut wanted = vec![0.0; n];
                dispatch(Tier::SCALAR, Gelu(&x, bias, &mut wanted));
                for (i, &found) in wanted.iter().enumerate() {
                    let x = f64::from(x[i] + bias.map_or(0.0, |bias| bias[i]));
                    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                    // As tanh says it, and without its loss of digits far below zero.
                    let exact = x / (1.0 + (-2.0 * inner).exp());
                    assert!((exact - x / 2.0 * (1.0 + inner.tanh())).abs() < 1e-14);
                    // An error of the exponent counts by its size.
                    let bound = f64::from(f32::EPSILON) * (4.0 + 4.0 * inner.abs()) * exact.abs();
                    assert!((f64::from(found) - exact).abs() <= bound, "{x}: {found}, not {exact}");
                }
                for tier in Tier::all() {
                    let mut found = vec![f32::NAN; n];
                    dispatch(tier, Gelu(&x, bias, &mut found));
                    assert_eq!(found, wanted, "{}", tier.isa().name());
                }
            }
        }
    }

    #[test]
    fn edges_of_gelu() {
        let x = [0.0, -0.0, 1e30, -1e30, 12.0, -12.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        let mut out = [1.0; 9];
        dispatch(Tier::SCALAR, Gelu(&x, None, &mut out));
        assert_eq!((out[0], out[1], out[2], out[4]), (0.0, 0.0, 1e30, 12.0));
        assert!(out[3].abs() < 1e-7 && out[5].abs() < 1e-30);
        assert!(out[6].is_nan() && out[7] == f32::INFINITY && !out[8].is_finite());
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
