//! The filters `top_k`, `top_p`, `min_p` and `typical_p`, over unnormalised weights, without putting a whole row in order.
//!
//! A filter that wants the first few of an order packs order and place into one integer per entry, `sort key << 32 |
//! place`. The keys are distinct, so the unstable selection and sort below give what a stable sort would, and the last
//! key let in says for every entry whether it stays: one comparison, in row order.

use crate::kernels::greatest;

/// How many keys are put in order at first; each further round takes [`GROWTH`] times as many. A nucleus is seldom
/// larger than the first round.
const FIRST_ROUND: usize = 256;
const GROWTH: usize = 4;

/// Weights that are passed over together when none of them is large.
const SKIPPED: usize = 32;

/// Packs `high` above a place in the row. Vocabularies have far fewer than 2^32 tokens.
fn key(high: u32, place: usize) -> u64 {
    u64::from(high) << 32 | place as u64
}

fn place(key: u64) -> usize {
    (key & u64::from(u32::MAX)) as usize
}

/// Sort key for descending order: weights are never negative or NaN, and such floats sort as their bits do.
fn descending(weight: f32, place: usize) -> u64 {
    key(!weight.to_bits(), place)
}

/// Moves the `k` largest of `weights` to `kept` and their places to `ids`; `k` is less than the row's length.
///
/// Candle draws from the kept tokens in the order in which `select_nth_unstable_by` leaves them, so the same call runs
/// here, with a comparison that answers alike for every pair. Its order depends on nothing but those answers. The
/// packed keys only spare it the lookups.
pub(super) fn top_k(weights: &[f32], k: usize, keys: &mut Vec<u64>, ids: &mut Vec<u32>, kept: &mut Vec<f32>) {
    keys.clear();
    keys.extend(weights.iter().enumerate().map(|(i, weight)| key(weight.to_bits(), i)));
    let (largest, _, _) = keys.select_nth_unstable_by(k, |a, b| (b >> 32).cmp(&(a >> 32)));
    ids.clear();
    ids.extend(largest.iter().map(|key| place(*key) as u32));
    kept.clear();
    kept.extend(largest.iter().map(|key| f32::from_bits((key >> 32) as u32)));
}

/// Zeroes all but the nucleus: going down by weight, equals by place, an entry stays while the `f32` sum of those
/// before it is below `p`. The largest always stays.
///
/// The sum runs in exactly the order of Candle's stable sort, since its rounding decides where the nucleus ends.
pub(super) fn top_p(weights: &mut [f32], p: f32, keys: &mut Vec<u64>) {
    let mut sum = 0.0f32;
    let mut first = true;
    let row = &*weights;
    let mut take = |key: u64| {
        let stays = first || sum < p;
        if stays {
            first = false;
            sum += row.get(place(key)).copied().unwrap_or_default();
        }
        stays
    };
    // Entries below this share cannot matter, rounding aside: all of them together are less than 1 - p. They are
    // looked at only when rounding kept the sum of the others below p.
    let floor = (1.0 - p) / row.len() as f32;
    let mut refused = None;
    for large in [true, false] {
        keys.clear();
        for (block, start) in row.chunks(SKIPPED).zip((0..).step_by(SKIPPED)) {
            let wanted = |weight: f32| (weight >= floor) == large;
            // Without a branch for each, so that most of the row is passed at once.
            if block.iter().fold(false, |any, weight| any | wanted(*weight)) {
                let found = (start..).zip(block).filter(|(_, weight)| wanted(**weight));
                keys.extend(found.map(|(i, weight)| descending(*weight, i)));
            }
        }
        refused = first_refused(keys, &mut take);
        if refused.is_some() {
            break;
        }
    }
    // The smaller entries sort after every refused one, so they go as well.
    if let Some(refused) = refused {
        let (least, from) = (f32::from_bits(!((refused >> 32) as u32)), place(refused));
        let (before, after) = weights.split_at_mut(from);
        before.iter_mut().for_each(|weight| *weight = if *weight < least { 0.0 } else { *weight });
        after.iter_mut().for_each(|weight| *weight = if *weight <= least { 0.0 } else { *weight });
    }
}

/// Zeroes weights below `share` of the largest.
pub(super) fn min_p(weights: &mut [f32], share: f32) {
    let floor = greatest(weights).unwrap_or(0.0) * share;
    for weight in weights {
        *weight = if *weight < floor { 0.0 } else { *weight };
    }
}

/// Locally typical sampling (Meister et al., arXiv 2202.00666): going up by `|surprise - entropy|`, equals by place, an
/// entry stays while the probability of those before it is below `p`. The most typical always stays.
///
/// `logit` gives an entry's scaled logit `z`. With `q = exp(z) / Z`, surprise is `ln Z - z` and entropy is
/// `ln Z - sum(q z)`, so the distance is `|z - sum(q z)|`: no logarithm is taken. Zero weights are out already.
pub(super) fn typical_p(weights: &mut [f32], p: f64, logit: impl Fn(usize) -> f32, keys: &mut Vec<u64>) {
    let (mut total, mut mean) = (0.0f64, 0.0f64);
    for (i, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        total += f64::from(*weight);
        mean += f64::from(*weight) * f64::from(logit(i));
    }
    mean /= total;
    let distance = |i: usize| key(((f64::from(logit(i)) - mean).abs() as f32).to_bits(), i);
    keys.clear();
    keys.extend((0..).zip(&*weights).filter(|(_, weight)| **weight > 0.0).map(|(i, _)| distance(i)));

    let (mut sum, target) = (0.0f64, p * total);
    let row = &*weights;
    let refused = first_refused(keys, &mut |key| {
        let stays = sum == 0.0 || sum < target;
        sum += row.get(place(key)).copied().map_or(0.0, f64::from);
        stays
    });
    if let Some(refused) = refused {
        for (i, weight) in weights.iter_mut().enumerate() {
            if *weight > 0.0 && distance(i) >= refused {
                *weight = 0.0;
            }
        }
    }
}

/// Offers `keys` to `take` in ascending order until it says no, and returns the key that it refused.
///
/// Only the part that is offered is put in order: rounds of selection, each four times the size of the last.
fn first_refused(keys: &mut [u64], take: &mut impl FnMut(u64) -> bool) -> Option<u64> {
    let mut rest = keys;
    let mut round = FIRST_ROUND;
    while !rest.is_empty() {
        let size = round.min(rest.len());
        if size < rest.len() {
            rest.select_nth_unstable(size);
        }
        let (head, tail) = rest.split_at_mut(size);
        head.sort_unstable();
        if let Some(refused) = head.iter().find(|key| !take(**key)) {
            return Some(*refused);
        }
        rest = tail;
        round = round.saturating_mul(GROWTH);
    }
    None
}
