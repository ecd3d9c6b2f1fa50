//! One sampler per sequence: its random generator, its rules, its scratch.

use rand::SeedableRng;
use rand::distr::{Distribution, Uniform};
use rand::rngs::StdRng;

use super::params::SamplingParams;
use super::{filters, penalties, softmax};
use crate::error::{Error, Result};

/// Temperatures below this are greedy, as in Candle's `LogitsProcessor::new`.
const GREEDY_BELOW: f64 = 1e-7;

/// A share of a sum that is less than half of its last bit, whatever the sum: 2^-26.
const TOO_SMALL: f32 = 1.0 / 67_108_864.0;

/// Chooses tokens from rows of logits, by the rules of one [`SamplingParams`].
///
/// The same parameters, seed and rows give the same tokens. Its scratch (about 25 bytes for each token of the
/// vocabulary in the modes that need most) is made on first use and kept.
///
/// ```
/// use phicandle::sampling::{Sampler, SamplingParams};
///
/// let params = SamplingParams { temperature: 0.0, ..Default::default() };
/// let mut sampler = Sampler::new(&params, 299_792_458);
/// assert_eq!(sampler.sample(&mut [0.5, 2.0, 1.0], &[], &[])?, 1);
/// # Ok::<(), phicandle::Error>(())
/// ```
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    rng: StdRng,
    scratch: Scratch,
}

/// Buffers that live as long as the sampler.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Probabilities of the whole row, in row order.
    row: Vec<f32>,
    /// Weights of the tokens that `top_k` kept, and their ids.
    kept: Vec<f32>,
    ids: Vec<u32>,
    /// Sort keys of the filters.
    keys: Vec<u64>,
    /// One count per token for the penalties, all zero between calls.
    counts: Vec<u32>,
}

impl Sampler {
    /// A sampler for `params`, which [`SamplingParams::validate`] has accepted, drawing from `seed` (`params.seed` is not
    /// looked at).
    pub fn new(params: &SamplingParams, seed: u64) -> Self {
        Self { params: params.clone(), rng: StdRng::seed_from_u64(seed), scratch: Scratch::default() }
    }

    /// Chooses the next token from `logits` (one per token of the vocabulary), which bias, penalties and bans change
    /// in place.
    ///
    /// `generated` holds all tokens of the answer so far, oldest first, without the prompt. Tokens in `banned` are
    /// never chosen. Greedy choices draw no random number.
    ///
    /// # Errors
    /// [`ErrorKind::Numerical`](crate::ErrorKind::Numerical) when a logit is NaN or plus infinity, or when no token is
    /// left to choose from.
    pub fn sample(&mut self, logits: &mut [f32], generated: &[u32], banned: &[u32]) -> Result<u32> {
        let Self { params, rng, scratch } = self;
        penalties::apply(params, logits, generated, banned, &mut scratch.counts);
        if params.temperature < GREEDY_BELOW {
            return Ok(softmax::argmax(logits)? as u32);
        }
        let (weights, ids) = weigh(params, logits, scratch)?;
        let place = draw(weights, rng)?;
        match ids {
            None => Ok(place as u32),
            Some(ids) => {
                ids.get(place).copied().ok_or_else(|| Error::internal("A draw fell outside its tokens."))
            }
        }
    }
}

/// Turns `logits` into the weights to draw from. They stand for all tokens in order, or for the ids returned.
pub(super) fn weigh<'a>(
    params: &SamplingParams,
    logits: &[f32],
    scratch: &'a mut Scratch,
) -> Result<(&'a mut [f32], Option<&'a [u32]>)> {
    let Scratch { row, kept, ids, keys, .. } = scratch;
    softmax::softmax(logits, params.temperature, row)?;
    // When the nucleus is looked for at all follows Candle: alone, `top_p` is off from 1.0 on; after a `top_k` that
    // kept a part of the row, from the sum of that part on; after one that kept it all, never.
    let (weights, ids, nucleus) = match params.top_k {
        None => (row.as_mut_slice(), None, params.top_p.filter(|p| *p < 1.0)),
        Some(k) if k >= row.len() => (row.as_mut_slice(), None, params.top_p),
        Some(k) => {
            filters::top_k(row, k, keys, ids, kept);
            let sum = kept.iter().sum::<f32>();
            (kept.as_mut_slice(), Some(ids.as_slice()), params.top_p.filter(|p| (*p as f32) < sum))
        }
    };
    if let Some(p) = nucleus {
        filters::top_p(weights, p as f32, keys);
    }
    if let Some(share) = params.min_p.filter(|share| *share > 0.0) {
        filters::min_p(weights, share as f32);
    }
    if let Some(p) = params.typical_p.filter(|p| *p < 1.0) {
        let scale = softmax::scale(params.temperature);
        let logit = |place: usize| {
            let id = ids.map_or(Some(place), |ids| ids.get(place).map(|id| *id as usize));
            id.and_then(|id| logits.get(id)).map_or(f32::NEG_INFINITY, |logit| logit * scale)
        };
        filters::typical_p(weights, p, logit, keys);
    }
    Ok((weights, ids))
}

/// Draws a place with a chance in proportion to its weight. Overwrites `weights` with their running sums.
///
/// The same choice, from the same random number, as `rand`'s `WeightedIndex` over the same weights, without its
/// allocation: one `f32` uniform below the total, then the first running sum above it.
fn draw(weights: &mut [f32], rng: &mut StdRng) -> Result<usize> {
    let mut total = 0.0f32;
    let (blocks, rest) = weights.as_chunks_mut::<16>();
    for block in blocks {
        // Less than half of the last bit of the total: each sum rounds to the total again.
        let least = total * TOO_SMALL;
        if block.iter().all(|&weight| weight < least) {
            block.fill(total);
            continue;
        }
        for weight in block {
            total += *weight;
            *weight = total;
        }
    }
    for weight in rest {
        total += *weight;
        *weight = total;
    }
    let uniform =
        Uniform::new(0.0, total).map_err(|_| Error::internal("The weights of a draw have no sum."))?;
    let chosen = uniform.sample(rng);
    let last = weights.len().saturating_sub(1);
    Ok(weights.get(..last).map_or(0, |sums| sums.partition_point(|sum| *sum <= chosen)))
}
