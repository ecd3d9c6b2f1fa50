//! Norms: by the root mean square (arXiv 1910.07467), and by the standard deviation about the mean (arXiv 1607.06450).

#![allow(
    clippy::inline_always,
    reason = "a function without the tier's features must vanish into one that has them"
)]

use super::simd::{LANES, Simd, load_some, store_some};

/// What a norm takes for the size of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// The root mean square.
    Rms,
    /// The standard deviation, after the mean was subtracted (LayerNorm).
    Layer,
}

/// Writes `(x - mean) * scale * weight + bias`, where `scale = 1 / sqrt(mean((x - mean)^2) + eps)`; for [`NormKind::Rms`] the
/// mean of `x` counts as zero. All slices are equally long.
///
/// Sums are made in 16 lanes: lane `j` takes elements `j`, `j + 16` and so on; then the lanes are added by halves.
#[inline(always)]
pub(crate) fn norm_row<S: Simd>(
    s: S,
    kind: NormKind,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    eps: f32,
    out: &mut [f32],
) {
    let n = x.len().min(weight.len()).min(out.len());
    // A number less zero is that number, to the bit.
    let mean = s.splat(match kind {
        NormKind::Rms => 0.0,
        NormKind::Layer => mean(s, &x[..n]),
    });
    let mut squares = s.splat(0.0);
    let mut at = 0;
    while at < n {
        // Lanes past the end are zeros, and would not be after the mean was subtracted.
        let v = s.first((n - at).min(LANES), s.sub(load_some(s, &x[at..n]), mean), s.splat(0.0));
        squares = s.fma(v, v, squares);
        at += LANES;
    }
    let scale = s.splat(1.0 / (s.sum(squares) / n as f32 + eps).sqrt());
    at = 0;
    while at < n {
        let v = s.mul(s.sub(load_some(s, &x[at..n]), mean), scale);
        let mut y = s.mul(v, load_some(s, &weight[at..n]));
        if let Some(bias) = bias {
            y = s.add(y, load_some(s, &bias[at..n]));
        }
        store_some(s, y, &mut out[at..n]);
        at += LANES;
    }
}

#[inline(always)]
fn mean<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut sums = s.splat(0.0);
    for part in x.chunks(LANES) {
        sums = s.add(sums, load_some(s, part));
    }
    s.sum(sums) / x.len() as f32
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::super::simd::{Op, Tier, dispatch};
    use super::*;

    struct Norm<'a>(NormKind, [&'a [f32]; 2], Option<&'a [f32]>, f32, &'a mut [f32]);

    impl Op for Norm<'_> {
        type Out = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            norm_row(s, self.0, self.1[0], self.1[1], self.2, self.3, self.4);
        }
    }

    #[test]
    fn rows_equal_the_formula_on_every_tier() {
        let mut random = StdRng::seed_from_u64(3);
        for n in [1, 15, 16, 33, 576, 3072] {
            let mut values = |low, high| (0..n).map(|_| random.random_range(low..high)).collect::<Vec<f32>>();
            let (x, weight, bias) = (values(-3.0, 5.0), values(0.1, 2.0), values(-1.0, 1.0));
            for kind in [NormKind::Rms, NormKind::Layer] {
                for bias in [None, Some(&bias[..])] {
                    let mut wanted = vec![0.0; n];
                    dispatch(Tier::SCALAR, Norm(kind, [&x, &weight], bias, 1e-5, &mut wanted));
                    let mean = match kind {
                        NormKind::Rms => 0.0,
                        NormKind::Layer => x.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64,
                    };
                    let square = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n as f64;
                    for (i, &found) in wanted.iter().enumerate() {
                        let scaled = (f64::from(x[i]) - mean) / (square + 1e-5).sqrt() * f64::from(weight[i]);
                        let exact = scaled + bias.map_or(0.0, |bias| f64::from(bias[i]));
                        // Where the mean or the bias takes most of it away, what is left has their noise.
                        let size = scaled.abs().max(mean.abs() * f64::from(weight[i])).max(exact.abs());
                        assert!(
                            (f64::from(found) - exact).abs() <= 1e-6 * size + 1e-30,
                            "{found}, not {exact}"
                        );
                    }
                    for tier in Tier::all() {
                        let mut found = vec![f32::NAN; n];
                        dispatch(tier, Norm(kind, [&x, &weight], bias, 1e-5, &mut found));
                        assert_eq!(found, wanted, "{}", tier.isa().name());
                    }
                }
            }
        }
    }

    #[test]
    fn zeros_stay_and_what_is_the_same_everywhere_vanishes() {
        let mut out = [1.0; 3];
        dispatch(Tier::SCALAR, Norm(NormKind::Rms, [&[0.0; 3], &[2.0; 3]], None, 1e-6, &mut out));
        assert_eq!(out, [0.0; 3]);
        let (same, bias) = ([0.75; 17], [0.5; 17]);
        let mut out = [1.0; 17];
        dispatch(Tier::SCALAR, Norm(NormKind::Layer, [&same, &[2.0; 17]], Some(&bias), 1e-6, &mut out));
        assert_eq!(out, bias);
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let mut out = [0.0; 3];
        for kind in [NormKind::Rms, NormKind::Layer] {
            dispatch(Tier::SCALAR, Norm(kind, [&[1.0, f32::NAN, 2.0], &[1.0; 3]], None, 1e-6, &mut out));
            assert!(out.iter().all(|y| y.is_nan()));
        }
    }
}
