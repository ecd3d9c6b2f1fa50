//! Root mean square normalisation (arXiv 1910.07467).

#![allow(
    clippy::inline_always,
    reason = "a function without the tier's features must vanish into one that has them"
)]

use super::simd::{LANES, Simd, load_some, store_some};

/// Writes `x * scale * weight`, where `scale = 1 / sqrt(mean(x^2) + eps)`. All three are equally long.
///
/// Lane `j` of 16 sums the squares of elements `j`, `j + 16` and so on; then the lanes are added by halves.
#[inline(always)]
pub(crate) fn rms_norm_row<S: Simd>(s: S, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let n = x.len().min(weight.len()).min(out.len());
    let mut squares = s.splat(0.0);
    let mut at = 0;
    while at < n {
        let v = load_some(s, &x[at..n]);
        squares = s.fma(v, v, squares);
        at += LANES;
    }
    let scale = s.splat(1.0 / (s.sum(squares) / n as f32 + eps).sqrt());
    at = 0;
    while at < n {
        let y = s.mul(s.mul(load_some(s, &x[at..n]), scale), load_some(s, &weight[at..n]));
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

    struct Norm<'a>(&'a [f32], &'a [f32], f32, &'a mut [f32]);

    impl Op for Norm<'_> {
        type Out = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            rms_norm_row(s, self.0, self.1, self.2, self.3);
        }
    }

    #[test]
    fn rows_equal_the_formula_on_every_tier() {
        let mut random = StdRng::seed_from_u64(3);
        for n in [1, 15, 16, 33, 576, 3072] {
            let x: Vec<f32> = (0..n).map(|_| random.random_range(-3.0..3.0)).collect();
            let weight: Vec<f32> = (0..n).map(|_| random.random_range(0.1..2.0)).collect();
            let mut wanted = vec![0.0; n];
            dispatch(Tier::SCALAR, Norm(&x, &weight, 1e-5, &mut wanted));
            let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n as f64;
            for ((&x, &weight), &found) in x.iter().zip(&weight).zip(&wanted) {
                let exact = f64::from(x) / (mean + 1e-5).sqrt() * f64::from(weight);
                let found = f64::from(found);
                assert!((found - exact).abs() <= 1e-6 * exact.abs() + 1e-30, "{found}, not {exact}");
            }
            for tier in Tier::all() {
                let mut found = vec![f32::NAN; n];
                dispatch(tier, Norm(&x, &weight, 1e-5, &mut found));
                assert_eq!(found, wanted, "{}", tier.isa().name());
            }
        }
    }

    #[test]
    fn zeros_stay() {
        let mut out = [1.0; 3];
        dispatch(Tier::SCALAR, Norm(&[0.0; 3], &[2.0; 3], 1e-6, &mut out));
        assert_eq!(out, [0.0; 3]);
    }
}
