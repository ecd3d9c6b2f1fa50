//! Root mean square normalisation (arXiv 1910.07467).

#![allow(
    clippy::inline_always,
    reason = "a function without the tier's features must vanish into one that has them"
)]

use super::simd::{LANES, Op, Simd, Tier, dispatch, load_some, store_some};
use super::{DisjointMut, Pool};
use crate::error::{Error, Result};

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

/// Normalises the rows of `x`, each as long as `weight`, into `out`.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::ErrorKind::Internal) when the lengths do not agree, or as [`Pool::for_each`].
pub(crate) fn rms_norm(
    pool: &Pool,
    tier: Tier,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) -> Result<()> {
    let n = weight.len();
    if n == 0 || x.len() != out.len() || !x.len().is_multiple_of(n) {
        return Err(Error::internal(format!(
            "RMSNorm of rows of {n}: {} numbers in, {} out.",
            x.len(),
            out.len()
        )));
    }
    let rows = x.len() / n;
    let out = DisjointMut::new(out);
    pool.for_each(rows, &|row, _| {
        let range = row * n..(row + 1) * n;
        // SAFETY: each unit has a row of its own.
        let out = unsafe { out.slice(range.clone()) };
        dispatch(tier, Norm { x: &x[range], weight, eps, out });
    })
}

struct Norm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Op for Norm<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        rms_norm_row(s, self.x, self.weight, self.eps, self.out);
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn rows_equal_the_formula_on_every_tier_and_number_of_threads() {
        let mut random = StdRng::seed_from_u64(3);
        for (rows, n) in [(1, 1), (2, 15), (3, 16), (2, 33), (5, 576), (2, 3072)] {
            let x: Vec<f32> = (0..rows * n).map(|_| random.random_range(-3.0..3.0)).collect();
            let weight: Vec<f32> = (0..n).map(|_| random.random_range(0.1..2.0)).collect();
            let mut wanted = vec![0.0; rows * n];
            rms_norm(&Pool::new(1).unwrap(), Tier::SCALAR, &x, &weight, 1e-5, &mut wanted).unwrap();
            for row in 0..rows {
                let x = &x[row * n..(row + 1) * n];
                let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n as f64;
                for i in 0..n {
                    let exact = f64::from(x[i]) / (mean + 1e-5).sqrt() * f64::from(weight[i]);
                    let found = f64::from(wanted[row * n + i]);
                    assert!((found - exact).abs() <= 1e-6 * exact.abs() + 1e-30, "{found}, not {exact}");
                }
            }
            for tier in Tier::all() {
                for threads in [1, 2] {
                    let mut found = vec![f32::NAN; rows * n];
                    rms_norm(&Pool::new(threads).unwrap(), tier, &x, &weight, 1e-5, &mut found).unwrap();
                    assert_eq!(found, wanted, "{} with {threads} threads", tier.isa().name());
                }
            }
        }
    }

    #[test]
    fn zeros_stay_and_lengths_are_checked() {
        let pool = Pool::new(1).unwrap();
        let mut out = [1.0; 6];
        rms_norm(&pool, Tier::SCALAR, &[0.0; 6], &[2.0; 3], 1e-6, &mut out).unwrap();
        assert_eq!(out, [0.0; 6]);
        assert!(rms_norm(&pool, Tier::SCALAR, &[0.0; 6], &[2.0; 4], 1e-6, &mut out).is_err());
        assert!(rms_norm(&pool, Tier::SCALAR, &[0.0; 3], &[2.0; 3], 1e-6, &mut out).is_err());
        assert!(rms_norm(&pool, Tier::SCALAR, &[], &[], 1e-6, &mut []).is_err());
    }
}
