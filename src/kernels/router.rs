//! Which experts a token goes through, and how much each counts: SparseMixer (arXiv 2310.00811) as Phi-3.5-MoE's published
//! model runs it (arXiv 2409.12136; `sparsemixer` of transformers, not training).

#![allow(
    clippy::inline_always,
    reason = "a function without the tier's features must vanish into one that has them"
)]

use super::Compute;
use super::exp::exp;
use super::simd::{LANES, Op, Simd, dispatch, load_some};

/// Scores that lie below the best one by more than this share of their size do not count: twice the model's
/// `router_jitter_noise`, 0.01.
const FAR: f32 = 0.02;

/// An expert and what its output is multiplied by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Choice {
    pub(crate) expert: usize,
    pub(crate) weight: f32,
}

/// One token: the scores of all experts, and room for as many numbers.
struct Route<'a> {
    scores: &'a [f32],
    kept: &'a mut Vec<f32>,
}

impl Op for Route<'_> {
    type Out = [Choice; 2];

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Out {
        let first = choose(s, self.scores, None, self.kept);
        [first, choose(s, self.scores, Some(first.expert), self.kept)]
    }
}

/// The best expert but for `taken`, and its share by softmax among those that are near to it: nearly always the whole.
#[inline(always)]
fn choose<S: Simd>(s: S, scores: &[f32], taken: Option<usize>, kept: &mut Vec<f32>) -> Choice {
    let (mut expert, mut best) = (usize::from(taken == Some(0)), f32::NEG_INFINITY);
    for (i, &score) in scores.iter().enumerate() {
        if Some(i) != taken && score > best {
            (expert, best) = (i, score);
        }
    }
    kept.clear();
    kept.extend(scores.iter().enumerate().map(|(i, &score)| {
        let far = (best - score) / score.abs().max(best) > FAR;
        if far || Some(i) == taken { f32::NEG_INFINITY } else { score }
    }));
    let mut sums = s.splat(0.0);
    for part in kept.chunks(LANES) {
        let power = exp(s, s.sub(load_some(s, part), s.splat(best)));
        sums = s.add(sums, s.first(part.len(), power, s.splat(0.0)));
    }
    // The best one's own power is 1.
    Choice { expert, weight: 1.0 / s.sum(sums) }
}

impl Compute {
    /// Chooses two of `experts` experts, 2 or more, for each row of `scores`: `[token][expert]`. The better one comes first, of
    /// equal ones that with the lower number. The weights do not add up to 1: each is the expert's share among those near it.
    pub(crate) fn route(&self, scores: &[f32], experts: usize) -> Vec<[Choice; 2]> {
        let mut kept = Vec::with_capacity(experts);
        scores
            .chunks_exact(experts)
            .map(|scores| dispatch(self.tier, Route { scores, kept: &mut kept }))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::super::simd::Tier;
    use super::super::{Isa, Pool};
    use super::*;

    fn route(scores: &[f32]) -> [Choice; 2] {
        let plain = Compute::new(1, Isa::Scalar).unwrap();
        let wanted = plain.route(scores, scores.len())[0];
        for tier in Tier::all() {
            let compute = Compute { pool: Pool::new(1).unwrap(), tier };
            let found = compute.route(scores, scores.len())[0];
            let same = wanted.iter().zip(&found).all(|(w, f)| {
                // All that is no number is alike.
                let weights =
                    w.weight.to_bits() == f.weight.to_bits() || (w.weight.is_nan() && f.weight.is_nan());
                w.expert == f.expert && weights
            });
            assert!(same, "{}: {found:?}, not {wanted:?}", tier.isa().name());
        }
        wanted
    }

    #[test]
    fn the_two_best_count_in_full_when_they_stand_alone() {
        let choice = |expert| Choice { expert, weight: 1.0 };
        assert_eq!(route(&[0.5, 2.0, -3.0, 1.0]), [choice(1), choice(3)]);
        assert_eq!(route(&[-0.5, -2.0]), [choice(0), choice(1)]);
    }

    #[test]
    fn near_ones_share() {
        // 2.0 and 1.97 are 1.5 % apart, 1.0 is far; without the best, 1.97 stands alone.
        let [first, second] = route(&[1.0, 2.0, 1.97]);
        assert_eq!((first.expert, second.expert, second.weight), (1, 2, 1.0));
        assert!((first.weight - 1.0 / (1.0 + (-0.03_f32).exp())).abs() < 1e-6);
        // Below zero the distance is measured by the lower one: 0.03 of 2.03 is 1.5 %.
        let [first, _] = route(&[-2.03, -2.0, -4.0]);
        assert!((first.weight - 1.0 / (1.0 + (-0.03_f32).exp())).abs() < 1e-6);
        // The third counts for the second, and the first does not.
        let [first, second] = route(&[10.0, 2.0, 1.99, 1.98]);
        assert_eq!((first.expert, first.weight, second.expert), (0, 1.0, 1));
        assert!((second.weight - 1.0 / (1.0 + (-0.01_f32).exp() + (-0.02_f32).exp())).abs() < 1e-6);
    }

    #[test]
    fn of_equals_the_first_is_taken() {
        let [first, second] = route(&[3.0; 5]);
        assert_eq!((first.expert, second.expert), (0, 1));
        assert!((first.weight - 0.2).abs() < 1e-7 && (second.weight - 0.25).abs() < 1e-7);
    }

    #[test]
    fn rows_equal_the_formula() {
        let mut random = StdRng::seed_from_u64(7);
        for n in [2, 3, 15, 16, 17, 40] {
            let scores: Vec<f32> = (0..n).map(|_| random.random_range(0.9..1.0)).collect();
            let mut left: Vec<usize> = (0..n).collect();
            for found in route(&scores) {
                let best = left.iter().copied().max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();
                let top = f64::from(scores[best]);
                let near = left.iter().map(|&i| f64::from(scores[i])).filter(|&x| (top - x) / top <= 0.02);
                let sum: f64 = near.map(|x| (x - top).exp()).sum();
                assert_eq!(found.expert, best);
                assert!((f64::from(found.weight) - 1.0 / sum).abs() < 1e-6);
                left.retain(|&i| i != best);
            }
        }
    }

    #[test]
    fn what_is_no_number_is_not_lost() {
        for scores in [[f32::NAN, 1.0, 2.0], [1.0, f32::INFINITY, 2.0], [f32::NAN; 3], [f32::NEG_INFINITY; 3]]
        {
            let found = route(&scores);
            assert!(found.iter().any(|choice| !choice.weight.is_finite()), "{scores:?}: {found:?}");
            assert!(found.iter().all(|choice| choice.expert < 3) && found[0].expert != found[1].expert);
        }
    }
}
