//! The steps of a softmax over one row, apart from each other: whoever wants the bits of another program sums in its order.

#![allow(
    clippy::inline_always,
    reason = "a function without the tier's features must vanish into one that has them"
)]

use super::simd::{LANES, Op, Simd, dispatch_best, load_some, store_some};

/// Sums that [`exp_below`] keeps beside each other.
pub(crate) const SUM_LANES: usize = 2 * LANES;

/// The greatest of `row`; nothing when a number of it is NaN or plus infinity, when all are minus infinity, or when there is none.
pub(crate) fn greatest(row: &[f32]) -> Option<f32> {
    dispatch_best(Greatest(row))
}

/// Replaces every `x` of `row` by `e^(x * scale - max)`, for a `max` that no `x * scale` exceeds. As exact as `expf` of glibc,
/// whose bits these are.
///
/// Returns sums of the results in whole blocks of 32: lane `i` has results `i`, `i + 32` and so on, added in this order.
pub(crate) fn exp_below(row: &mut [f32], scale: f32, max: f32) -> [f32; SUM_LANES] {
    dispatch_best(ExpBelow { row, scale, max })
}

/// Divides every number of `row`.
pub(crate) fn divide(row: &mut [f32], divisor: f32) {
    dispatch_best(Divide { row, divisor });
}

struct Greatest<'a>(&'a [f32]);

impl Op for Greatest<'_> {
    type Out = Option<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Out {
        let (least, zero, one) = (s.splat(f32::NEG_INFINITY), s.splat(0.0), s.splat(1.0));
        // What was found in every fourth vector: each has to wait for the one before it.
        let mut found = [(least, zero); 4];
        let look = |x, (greatest, unfit): &mut (S::F, S::F)| {
            // A NaN is not greater than anything, nor less.
            *greatest = s.max(x, *greatest);
            *unfit = s.add(*unfit, s.unless_below(x, s.splat(f32::INFINITY), one));
        };
        let (blocks, rest) = self.0.as_chunks::<{ 4 * LANES }>();
        for block in blocks {
            for (part, found) in block.as_chunks::<LANES>().0.iter().zip(&mut found) {
                look(load_some(s, part), found);
            }
        }
        for (part, found) in rest.chunks(LANES).zip(&mut found) {
            look(s.first(part.len(), load_some(s, part), least), found);
        }
        let join = |one: (S::F, S::F), other: (S::F, S::F)| (s.max(one.0, other.0), s.add(one.1, other.1));
        let (greatest, unfit) = found.into_iter().fold((least, zero), join);
        let greatest = s.greatest(greatest);
        (greatest.is_finite() && s.greatest(unfit) == 0.0).then_some(greatest)
    }
}

struct ExpBelow<'a> {
    row: &'a mut [f32],
    scale: f32,
    max: f32,
}

impl Op for ExpBelow<'_> {
    type Out = [f32; SUM_LANES];

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Out {
        let (scale, max) = (s.splat(self.scale), s.splat(self.max));
        let mut sums = [s.splat(0.0); SUM_LANES / LANES];
        let (blocks, rest) = self.row.as_chunks_mut::<SUM_LANES>();
        for block in blocks {
            for (sum, part) in sums.iter_mut().zip(block.as_chunks_mut::<LANES>().0) {
                *sum = s.add(*sum, exp_part(s, part, scale, max));
            }
        }
        for part in rest.chunks_mut(LANES) {
            exp_part(s, part, scale, max);
        }
        let mut out = [0.0; SUM_LANES];
        for (out, sum) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            store_some(s, sum, out);
        }
        out
    }
}

#[inline(always)]
fn exp_part<S: Simd>(s: S, part: &mut [f32], scale: S::F, max: S::F) -> S::F {
    let power = s.expf(s.sub(s.mul(load_some(s, part), scale), max));
    store_some(s, power, part);
    power
}

struct Divide<'a> {
    row: &'a mut [f32],
    divisor: f32,
}

impl Op for Divide<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let divisor = s.splat(self.divisor);
        let (parts, rest) = self.row.as_chunks_mut::<LANES>();
        for part in parts {
            store_some(s, s.div(load_some(s, part), divisor), part);
        }
        store_some(s, s.div(load_some(s, rest), divisor), rest);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::simd::{Tier, dispatch};
    use super::*;

    fn tiers() -> Vec<Tier> {
        let tiers = Tier::all();
        assert!(!tiers.is_empty());
        tiers
    }

    /// The library of another system, or without FMA, may differ in the last bit of a few.
    #[test]
    fn it_is_the_librarys() {
        let from: Vec<f32> = (0..2_000_000).map(|i| (i as f32).mul_add(-1e-4, 40.0)).collect();
        for tier in tiers() {
            let mut row = from.clone();
            dispatch(tier, ExpBelow { row: &mut row, scale: 0.7, max: 28.0 });
            let mut other = 0;
            for (x, found) in from.iter().zip(&row) {
                let wanted = (x * 0.7 - 28.0).exp();
                assert!(wanted.to_bits().abs_diff(found.to_bits()) <= 1, "{x}: {found}, not {wanted}");
                other += usize::from(wanted != *found);
            }
            let same = cfg!(all(target_os = "linux", target_env = "gnu")) && tiers().len() > 1;
            let most = if same { 0 } else { 2 };
            assert!(other <= most, "{tier:?}: {other} of {} differ in the last bit", from.len());
        }
    }

    #[test]
    fn far_below_there_is_nothing() {
        let mut row = [0.0, -200.0, -1e30, f32::NEG_INFINITY, f32::MIN];
        exp_below(&mut row, 1.0, 0.0);
        assert_eq!(row, [1.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_row_with_anything_unfit_has_no_greatest() {
        let inf = f32::INFINITY;
        for length in [1, 15, 16, 17, 31, 32, 33, 64, 100] {
            for tier in tiers() {
                let mut row = vec![-inf; length];
                assert_eq!(dispatch(tier, Greatest(&row)), None);
                for at in 0..length {
                    for (value, wanted) in
                        [(f32::NAN, None), (inf, None), (-3.0, Some(-3.0)), (0.0, Some(0.0))]
                    {
                        row[at] = value;
                        assert_eq!(dispatch(tier, Greatest(&row)), wanted, "{value} at {at} of {length}");
                    }
                    row[at] = -inf;
                }
            }
        }
        assert_eq!(greatest(&[]), None);
    }

    proptest! {
        #[test]
        fn every_tier_sums_each_lane_in_order(
            from in prop::collection::vec(-30.0f32..0.0, 0..300),
        ) {
            for tier in tiers() {
                let mut row = from.clone();
                let sums = dispatch(tier, ExpBelow { row: &mut row, scale: 1.0, max: 0.0 });
                let mut wanted = [0.0f32; SUM_LANES];
                for block in row.as_chunks::<SUM_LANES>().0 {
                    wanted.iter_mut().zip(block).for_each(|(sum, power)| *sum += power);
                }
                prop_assert_eq!(sums, wanted);
                let mut shares = row.clone();
                dispatch(tier, Divide { row: &mut shares, divisor: 0.7 });
                prop_assert!(shares.iter().zip(&row).all(|(share, power)| *share == power / 0.7));
            }
        }
    }
}
