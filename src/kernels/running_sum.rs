//! The sum of a row as a loop over f32 rounds it, but not in that many steps.
//!
//! While the running sum `S` stays between two powers of two, its last bit has one value, `unit`, and `S` is an integer `m` of
//! those. Adding `x` then gives the integer nearest to `m + x / unit`; unless `x / unit` lies halfway between two integers, that
//! is `m` plus the integer nearest to `x / unit`, whatever `m` is. So the order of the additions no longer matters, and many are
//! made at once. A block in which a power of two is passed or something lies halfway is added number by number.

#![allow(
    clippy::inline_always,
    reason = "a function without the tier's features must vanish into one that has them"
)]

use super::simd::{LANES, Op, Simd, dispatch_best, load_some};

/// Numbers that are added at once.
pub(crate) const SUM_BLOCK: usize = 4 * LANES;

/// 2^23 and 2^24: between them are the `m` of the module's page. A number below the first, added to it, is rounded to an integer.
const UNITS: [f32; 2] = [8_388_608.0, 16_777_216.0];
/// 2^-100. Below it `1 / unit` may be too large for f32.
const LEAST: f32 = 7.888_609e-31;

/// The sum of `x / divisor` over all `x` of `row`, none of them negative or NaN: each quotient and each sum rounded to f32, from
/// first to last. `ends` gets the sums up to and with the last number of each block of [`SUM_BLOCK`].
pub(crate) fn running_sum(row: &[f32], divisor: f32, ends: &mut Vec<f32>) -> f32 {
    dispatch_best(RunningSum { row, divisor, ends })
}

struct RunningSum<'a> {
    row: &'a [f32],
    divisor: f32,
    ends: &'a mut Vec<f32>,
}

impl Op for RunningSum<'_> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        self.ends.clear();
        self.ends.reserve(self.row.len().div_ceil(SUM_BLOCK));
        let divisor = s.splat(self.divisor);
        let mut sum = Sum::of(0.0);
        let (blocks, rest) = self.row.as_chunks::<SUM_BLOCK>();
        for block in blocks {
            match add(s, sum, block, divisor) {
                Some(units) => sum.units = units,
                None => sum = sum.after(block, self.divisor),
            }
            self.ends.push(sum.value());
        }
        if !rest.is_empty() {
            sum = sum.after(rest, self.divisor);
            self.ends.push(sum.value());
        }
        sum.value()
    }
}

/// A sum, counted in its last bit.
#[derive(Clone, Copy)]
struct Sum {
    units: f32,
    unit: f32,
    /// Units in one.
    per_one: f32,
}

impl Sum {
    /// A sum that is too small to be counted has units of 1, and less than the least number of them.
    fn of(value: f32) -> Self {
        if !(LEAST..f32::INFINITY).contains(&value) {
            return Self { units: value, unit: 1.0, per_one: 1.0 };
        }
        // Both are powers of two and normal, and so exact.
        let power = f32::from_bits(value.to_bits() & f32::INFINITY.to_bits());
        let per_one = UNITS[0] / power;
        Self { units: value * per_one, unit: 1.0 / per_one, per_one }
    }

    fn value(self) -> f32 {
        self.units * self.unit
    }

    /// The sum after `block`, added number by number.
    fn after(self, block: &[f32], divisor: f32) -> Self {
        Self::of(block.iter().fold(self.value(), |sum, x| sum + x / divisor))
    }
}

/// The units of `sum` after a block, if they can be had at once.
#[inline(always)]
fn add<S: Simd>(s: S, sum: Sum, block: &[f32; SUM_BLOCK], divisor: S::F) -> Option<f32> {
    let (mut most, mut farthest, mut added) = (s.splat(0.0), s.splat(0.0), s.splat(0.0));
    for part in block.as_chunks::<LANES>().0 {
        let exact = s.mul(s.div(load_some(s, part), divisor), s.splat(sum.per_one));
        let rounded = s.sub(s.add(exact, s.splat(UNITS[0])), s.splat(UNITS[0]));
        most = s.max(exact, most);
        farthest = s.max(s.abs(s.sub(exact, rounded)), farthest);
        added = s.add(added, rounded);
    }
    if sum.units < UNITS[0] {
        // Nothing changes nothing, however small the sum.
        return (s.greatest(most) == 0.0).then_some(sum.units);
    }
    // Sums of integers are exact as long as they are below 2^24, and one that is not stays there. `rounded` is the nearest integer
    // where `exact` is below 2^23; where it is not, neither is `rounded`, and the sum reaches 2^24.
    let units = sum.units + s.sum(added);
    (s.greatest(farthest) < 0.5 && units < UNITS[1]).then_some(units)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::simd::{Tier, dispatch};
    use super::*;

    /// The loop that this file is about.
    fn looped(row: &[f32], divisor: f32) -> (f32, Vec<f32>) {
        let mut sum = 0.0;
        let mut ends = Vec::new();
        for block in row.chunks(SUM_BLOCK) {
            for x in block {
                sum += x / divisor;
            }
            ends.push(sum);
        }
        (sum, ends)
    }

    fn check(row: &[f32], divisor: f32) {
        let (wanted, wanted_ends) = looped(row, divisor);
        let bits = |sums: &[f32]| sums.iter().map(|sum| sum.to_bits()).collect::<Vec<_>>();
        for tier in Tier::all() {
            let mut ends = vec![7.0; 3];
            let found = dispatch(tier, RunningSum { row, divisor, ends: &mut ends });
            assert_eq!(
                found.to_bits(),
                wanted.to_bits(),
                "{tier:?}: {found}, not {wanted}, of {}",
                row.len()
            );
            assert_eq!(bits(&ends), bits(&wanted_ends), "{tier:?}");
        }
    }

    /// Numbers that make a hard sum: far apart, a few bits each, next to powers of two and to halves of units, none at all.
    fn number() -> impl Strategy<Value = f32> {
        prop_oneof![
            4 => (-40i32..1, 1.0f32..2.0).prop_map(|(power, x)| x * 2f32.powi(power)),
            2 => (-40i32..1, 1u8..32).prop_map(|(power, x)| f32::from(x) * 2f32.powi(power)),
            2 => (-26i32..-20).prop_map(|power| 2f32.powi(power)),
            1 => (-26i32..-20, -1i32..2).prop_map(|(power, next)| {
                f32::from_bits(2f32.powi(power).to_bits().wrapping_add_signed(next))
            }),
            1 => (0u32..0x0100_0000).prop_map(f32::from_bits),
            2 => Just(0.0),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn it_is_the_sum_of_a_loop(
            row in prop::collection::vec(number(), 0..700),
            divisor in prop_oneof![Just(1.0f32), 0.001f32..1000.0],
        ) {
            check(&row, divisor);
        }

        /// One kind of number throughout: every block has ties, or none has.
        #[test]
        fn it_is_the_sum_of_a_loop_over_few_values(
            values in prop::collection::vec(number(), 1..4),
            length in 0usize..6000,
            seed in any::<u64>(),
        ) {
            use rand::{Rng, SeedableRng};
            let mut random = rand::rngs::StdRng::seed_from_u64(seed);
            let row: Vec<f32> = (0..length).map(|_| values[random.random_range(0..values.len())]).collect();
            check(&row, 1.0);
        }

        /// Blocks that end on a power of two, or a unit beside it.
        #[test]
        fn it_is_the_sum_of_a_loop_at_powers_of_two(
            power in -90i32..3, before in 1i32..4, steps in prop::collection::vec((0i32..9, 1i32..4), 1..200),
        ) {
            let unit = 2f32.powi(power - 23);
            let mut row = vec![2f32.powi(power) - unit * before as f32];
            row.extend(steps.iter().map(|&(units, half)| unit * (units as f32 / 4.0) / half as f32));
            check(&row, 1.0);
        }
    }

    #[test]
    fn sums_from_the_least_number_to_the_greatest() {
        let tiny = f32::from_bits(1);
        check(&[], 1.0);
        check(&[0.0; 1000], 3.0);
        check(&[tiny; 1000], 1.0);
        check(&[f32::MIN_POSITIVE; 1000], 0.3);
        check(&[1e30; 1000], 1.0);
        check(&[f32::MAX; 100], 1.0);
        let mut row = vec![0.0; 500];
        row[400] = 1.0;
        row.extend([2f32.powi(-24); 300]);
        row.extend([2f32.powi(-24) * 1.000_001; 300]);
        check(&row, 1.0);
        let climb: Vec<f32> = (-149..120).flat_map(|power| [2f32.powi(power); 3]).collect();
        check(&climb, 1.0);
    }
}
