//! Rotary position embedding (arXiv 2104.09864): pairs of elements are turned by an angle that grows with the position.

#![allow(
    clippy::inline_always,
    reason = "a function without the tier's features must vanish into one that has them"
)]

use std::f64::consts::TAU;
use std::ops::Range;

use super::simd::{LANES, Simd, load_some, store_some};
use crate::error::{Error, Result};

/// Which elements of a head are turned together, of the first `dims`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pairs {
    /// `i` and `i + dims / 2`: the `phi3` architecture.
    Halves,
    /// `2 i` and `2 i + 1`: files of the `llama` architecture.
    Interleaved,
}

/// Ways to stretch the rotation to longer contexts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stretch {
    /// None.
    None,
    /// Positions are divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Phi-3's long-rope: each frequency is divided by its own factor.
    LongRope {
        /// Divisors for sequences within the original context.
        short: Vec<f32>,
        /// Divisors for longer ones.
        long: Vec<f32>,
        /// Multiplies the turned elements, in short sequences too; see [`long_rope_magnitude`].
        magnitude: f64,
    },
    /// YaRN (arXiv 2309.00071): high frequencies are kept, low ones divided by `factor`, those between mixed.
    Yarn {
        /// Ratio of the new context to the original one.
        factor: f64,
        /// Tokens of the first training.
        original_context: usize,
        /// Turns over the original context above which a frequency is kept.
        beta_fast: f64,
        /// Turns below which a frequency is divided by the whole factor.
        beta_slow: f64,
        /// Multiplies the paper's `1 + 0.1 ln(factor)`, by which the turned elements are multiplied (llama.cpp's
        /// `attn_factor`; 1 by default).
        magnitude: f64,
    },
}

/// Which factors of a long-rope model turn the keys of a sequence. Other models have one set only, which both name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factors {
    /// For sequences within the original context.
    Short,
    /// For longer ones, at every position of them.
    Long,
}

/// The rotation of one model.
#[derive(Debug, Clone)]
pub(crate) struct Rope {
    pairs: Pairs,
    /// Angle of each pair at position 1.
    short: Vec<f64>,
    long: Option<Vec<f64>>,
    magnitude: f64,
}

/// Cosines and sines for the rows of one pass, in the order in which they were [added](Rope::add).
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    pairs: Pairs,
    half: usize,
    rows: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// One row of a [`Rotation`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn<'a> {
    pairs: Pairs,
    cos: &'a [f32],
    sin: &'a [f32],
}

/// The magnitude of a long-rope model whose file names none: `sqrt(1 + ln(context / original) / ln(original))`, 1 for a context
/// that is not stretched.
pub(crate) fn long_rope_magnitude(context: usize, original: usize) -> f64 {
    let (context, original) = (context as f64, original as f64);
    if context <= original || original <= 1.0 {
        return 1.0;
    }
    (1.0 + (context / original).ln() / original.ln()).sqrt()
}

impl Rope {
    /// A rotation of the first `dims` elements of each head, an even number, with frequencies `base^(-2 i / dims)`.
    /// `divisors`: one for each frequency, at every length (`rope_freqs.weight`).
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) when a list of divisors has another length than `dims / 2`.
    pub(crate) fn new(
        dims: usize,
        base: f64,
        pairs: Pairs,
        stretch: &Stretch,
        divisors: Option<&[f32]>,
    ) -> Result<Self> {
        let half = dims / 2;
        let mut plain: Vec<f64> = (0..half).map(|i| base.powf(-2.0 * i as f64 / dims as f64)).collect();
        if let Some(divisors) = divisors {
            plain = divided(&plain, divisors)?;
        }
        let (short, long, magnitude) = match stretch {
            Stretch::None => (plain, None, 1.0),
            Stretch::Linear { factor } => (plain.iter().map(|angle| angle / factor).collect(), None, 1.0),
            Stretch::LongRope { short, long, magnitude } => {
                (divided(&plain, short)?, Some(divided(&plain, long)?), *magnitude)
            }
            &Stretch::Yarn { factor, original_context, beta_fast, beta_slow, magnitude } => {
                // The pair that makes `turns` turns over the original context.
                let pair = |turns: f64| {
                    dims as f64 * (original_context as f64 / (turns * TAU)).ln() / (2.0 * base.ln())
                };
                let low = pair(beta_fast).floor().max(0.0);
                let high = pair(beta_slow).ceil().min(dims as f64 - 1.0);
                let mixed = plain.iter().enumerate().map(|(i, angle)| {
                    let keep = 1.0 - ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                    angle / factor * (1.0 - keep) + angle * keep
                });
                (mixed.collect(), None, magnitude * (1.0 + 0.1 * factor.ln()))
            }
        };
        Ok(Self { pairs, short, long, magnitude })
    }

    /// A rotation of no rows yet, to be filled by [`Rope::add`].
    pub(crate) fn rotation(&self) -> Rotation {
        Rotation { pairs: self.pairs, half: self.short.len(), rows: 0, cos: Vec::new(), sin: Vec::new() }
    }

    /// Appends rows for `positions` to `rotation`, which this rope made. Angles are computed in f64.
    pub(crate) fn add(&self, rotation: &mut Rotation, positions: Range<usize>, factors: Factors) {
        let angles = match (factors, &self.long) {
            (Factors::Long, Some(long)) => long,
            _ => &self.short,
        };
        rotation.rows += positions.len();
        for position in positions {
            for angle in angles {
                let (sin, cos) = (position as f64 * angle).sin_cos();
                rotation.cos.push((cos * self.magnitude) as f32);
                rotation.sin.push((sin * self.magnitude) as f32);
            }
        }
    }
}

fn divided(angles: &[f64], by: &[f32]) -> Result<Vec<f64>> {
    if angles.len() != by.len() {
        return Err(Error::internal(format!(
            "A rotation of {} frequencies has {} factors.",
            angles.len(),
            by.len()
        )));
    }
    Ok(angles.iter().zip(by).map(|(angle, &by)| angle / f64::from(by)).collect())
}

impl Rotation {
    /// Rows added so far.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Elements of each head that are turned.
    pub(crate) fn dims(&self) -> usize {
        2 * self.half
    }

    /// Forgets the rows and keeps their memory.
    pub(crate) fn clear(&mut self) {
        self.rows = 0;
        self.cos.clear();
        self.sin.clear();
    }

    pub(super) fn row(&self, row: usize) -> Turn<'_> {
        let range = row * self.half..(row + 1) * self.half;
        Turn { pairs: self.pairs, cos: &self.cos[range.clone()], sin: &self.sin[range] }
    }
}

/// Writes the turned elements of the head `x`, and the others as they are, all times `scale`. `out` is as long as `x`.
///
/// Whatever the pairs of `x`, those of `out` are [`Pairs::Halves`]: so the sums of products with other heads have the same
/// terms in the same order, and the same bits, for both layouts of one model.
#[inline(always)]
pub(super) fn turn<S: Simd>(s: S, turn: Turn<'_>, x: &[f32], scale: f32, out: &mut [f32]) {
    let half = turn.cos.len();
    let dims = 2 * half;
    let scales = s.splat(scale);
    match turn.pairs {
        Pairs::Halves => {
            let (low, high) = out[..dims].split_at_mut(half);
            let mut at = 0;
            while at < half {
                let (a, b) = (load_some(s, &x[at..half]), load_some(s, &x[half + at..dims]));
                let (cos, sin) = (load_some(s, &turn.cos[at..]), load_some(s, &turn.sin[at..]));
                store_some(s, s.mul(s.fnma(b, sin, s.mul(a, cos)), scales), &mut low[at..]);
                store_some(s, s.mul(s.fma(a, sin, s.mul(b, cos)), scales), &mut high[at..]);
                at += LANES;
            }
        }
        Pairs::Interleaved => {
            let mut at = 0;
            while at < half {
                let (a, b) = (x[2 * at], x[2 * at + 1]);
                let (cos, sin) = (turn.cos[at], turn.sin[at]);
                out[at] = (-b).mul_add(sin, a * cos) * scale;
                out[half + at] = a.mul_add(sin, b * cos) * scale;
                at += 1;
            }
        }
    }
    let mut at = dims;
    while at < x.len() {
        store_some(s, s.mul(load_some(s, &x[at..]), scales), &mut out[at..]);
        at += LANES;
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::super::simd::{Op, Tier, dispatch};
    use super::*;

    struct TurnOp<'a>(Turn<'a>, &'a [f32], f32);

    impl Op for TurnOp<'_> {
        type Out = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Out {
            let mut out = vec![f32::NAN; self.1.len()];
            turn(s, self.0, self.1, self.2, &mut out);
            out
        }
    }

    fn angles(
        stretch: &Stretch,
        dims: usize,
        base: f64,
        position: usize,
        factors: Factors,
    ) -> Vec<(f32, f32)> {
        let rope = Rope::new(dims, base, Pairs::Halves, stretch, None).unwrap();
        let mut rotation = rope.rotation();
        rope.add(&mut rotation, position..position + 1, factors);
        rotation.cos.into_iter().zip(rotation.sin).collect()
    }

    #[test]
    fn heads_are_turned_as_complex_numbers() {
        let mut random = StdRng::seed_from_u64(4);
        for (dims, head) in [(2, 2), (8, 8), (32, 34), (96, 96), (48, 64), (30, 30), (66, 80), (0, 10)] {
            for pairs in [Pairs::Halves, Pairs::Interleaved] {
                let rope = Rope::new(dims, 10_000.0, pairs, &Stretch::None, None).unwrap();
                let mut rotation = rope.rotation();
                rope.add(&mut rotation, 0..1, Factors::Short);
                rope.add(&mut rotation, 4000..4002, Factors::Short);
                assert_eq!((rotation.rows(), rotation.dims()), (3, dims));
                let x: Vec<f32> = (0..head).map(|_| random.random_range(-2.0..2.0)).collect();
                for (row, position) in [0.0, 4000.0, 4001.0].into_iter().enumerate() {
                    let found = dispatch(Tier::SCALAR, TurnOp(rotation.row(row), &x, 0.25));
                    for i in 0..head {
                        let half = dims / 2;
                        let pair = if i < half { i } else { i.wrapping_sub(half) };
                        let angle = position / 10_000_f64.powf(2.0 * pair as f64 / dims.max(1) as f64);
                        let pair = match pairs {
                            Pairs::Halves => [pair, pair + half],
                            Pairs::Interleaved => [2 * pair, 2 * pair + 1],
                        };
                        let wanted = if i >= dims {
                            f64::from(x[i])
                        } else {
                            let [a, b] = pair.map(|at| f64::from(x[at]));
                            if i < half {
                                a * angle.cos() - b * angle.sin()
                            } else {
                                b * angle.cos() + a * angle.sin()
                            }
                        };
                        assert!((f64::from(found[i]) - wanted * 0.25).abs() < 1e-7, "{i} of {dims}/{head}");
                    }
                    for tier in Tier::all() {
                        let other = dispatch(tier, TurnOp(rotation.row(row), &x, 0.25));
                        assert!(other.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits()));
                    }
                }
            }
        }
    }

    #[test]
    fn stretched_rotations_have_their_published_angles() {
        let (cos, sin) = angles(&Stretch::Linear { factor: 4.0 }, 4, 100.0, 8, Factors::Short)[1];
        assert_eq!((cos, sin), (0.2_f64.cos() as f32, 0.2_f64.sin() as f32));

        let long_rope = Stretch::LongRope { short: vec![1.0, 2.0], long: vec![4.0, 5.0], magnitude: 1.5 };
        for (factors, divisor) in [(Factors::Short, 2.0), (Factors::Long, 5.0)] {
            let (cos, sin) = angles(&long_rope, 4, 100.0, 7, factors)[1];
            let angle: f64 = 0.7 / divisor;
            assert_eq!((cos, sin), ((1.5 * angle.cos()) as f32, (1.5 * angle.sin()) as f32));
        }
        // Phi-3-mini-128k: ln 32 / ln 4096 is 5 / 12.
        assert!((long_rope_magnitude(131_072, 4096) - (17.0_f64 / 12.0).sqrt()).abs() < 1e-15);
        assert_eq!(long_rope_magnitude(4096, 4096), 1.0);
    }

    #[test]
    fn yarn_keeps_high_frequencies_and_divides_low_ones() {
        let stretch = Stretch::Yarn {
            factor: 16.0,
            original_context: 4096,
            beta_fast: 32.0,
            beta_slow: 1.0,
            magnitude: 1.0,
        };
        let found = angles(&stretch, 128, 10_000.0, 1, Factors::Short);
        let magnitude = 1.0 + 0.1 * 16_f64.ln();
        let angle = |i: usize| f64::from(found[i].1).atan2(f64::from(found[i].0));
        let plain = |i: usize| 10_000_f64.powf(-(i as f64) / 64.0);
        for (cos, sin) in &found {
            assert!((f64::from(*cos).hypot(f64::from(*sin)) - magnitude).abs() < 1e-6);
        }
        // 4096 tokens hold 32 turns of pair 20.94 and one turn of pair 45.03: kept up to 20, divided from 46 on.
        for i in 0..64 {
            let wanted = match i {
                0..=20 => plain(i),
                46.. => plain(i) / 16.0,
                _ => {
                    let divided = (i as f64 - 20.0) / 26.0;
                    plain(i) / 16.0 * divided + plain(i) * (1.0 - divided)
                }
            };
            assert!(
                (angle(i) - wanted).abs() < 1e-6 * wanted.max(0.01),
                "pair {i}: {}, not {wanted}",
                angle(i)
            );
        }
    }

    #[test]
    fn every_frequency_has_its_divisor() {
        let rope = Rope::new(4, 100.0, Pairs::Halves, &Stretch::None, Some(&[1.0, 8.0])).unwrap();
        let mut rotation = rope.rotation();
        rope.add(&mut rotation, 3..4, Factors::Long);
        assert_eq!(rotation.sin, [3_f64.sin() as f32, (0.3_f64 / 8.0).sin() as f32]);
        rotation.clear();
        assert_eq!((rotation.rows(), rotation.cos.len()), (0, 0));
        assert!(Rope::new(4, 100.0, Pairs::Halves, &Stretch::None, Some(&[1.0])).is_err());
    }
}
