//! One sampler per sequence: its random generator, its rules, its scratch.

use rand::SeedableRng;
use rand::distr::{Distribution, Uniform};
use rand::rngs::StdRng;

use super::params::SamplingParams;
use super::penalties::{self, Marks};
use super::{filters, softmax};
use crate::error::{Error, Result};
use crate::kernels::{SUM_BLOCK, running_sum};

/// Temperatures below this are greedy, as in Candle's `LogitsProcessor::new`.
const GREEDY_BELOW: f64 = 1e-7;

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
    marks: Marks,
    scratch: Scratch,
    /// Running sums of the weights.
    sums: Vec<f32>,
}

/// Buffers of the filters, which live as long as the sampler.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The row as the penalties left it, for `typical_p`.
    logits: Vec<f32>,
    /// Weights of the tokens that `top_k` kept, and their ids.
    kept: Vec<f32>,
    ids: Vec<u32>,
    /// Sort keys of the filters.
    keys: Vec<u64>,
}

/// What to draw from: tokens, each with a chance in proportion to its weight.
pub(super) struct Weights<'a> {
    /// To be divided by `divisor`, so that they are numbers of Candle's.
    pub(super) weights: &'a [f32],
    divisor: f32,
    /// Whose weights they are; those of all tokens in order, if nothing.
    pub(super) ids: Option<&'a [u32]>,
}

impl Sampler {
    /// A sampler for `params`, which [`SamplingParams::validate`] has accepted, drawing from `seed` (`params.seed` is not
    /// looked at).
    pub fn new(params: &SamplingParams, seed: u64) -> Self {
        Self {
            params: params.clone(),
            rng: StdRng::seed_from_u64(seed),
            marks: Marks::default(),
            scratch: Scratch::default(),
            sums: Vec::new(),
        }
    }

    /// Chooses the next token from `logits` (one per token of the vocabulary), which it overwrites: a choice at temperature 0 with
    /// what bias, penalties and bans make of them, another with its own intermediate results.
    ///
    /// `generated` holds all tokens of the answer so far, oldest first, without the prompt. Tokens in `banned` are
    /// never chosen. Greedy choices draw no random number.
    ///
    /// # Errors
    /// [`ErrorKind::Numerical`](crate::ErrorKind::Numerical) when a logit is NaN or plus infinity, or when no token is
    /// left to choose from.
    pub fn sample(&mut self, logits: &mut [f32], generated: &[u32], banned: &[u32]) -> Result<u32> {
        let Self { params, rng, marks, scratch, sums } = self;
        penalties::apply(params, logits, generated, banned, marks);
        if params.temperature < GREEDY_BELOW {
            return Ok(softmax::argmax(logits)? as u32);
        }
        let weights = weigh(params, logits, scratch)?;
        let place = draw(&weights, sums, rng)?;
        match weights.ids {
            None => Ok(place as u32),
            Some(ids) => {
                ids.get(place).copied().ok_or_else(|| Error::internal("A draw fell outside its tokens."))
            }
        }
    }
}

/// Turns `logits` into the weights to draw from.
pub(super) fn weigh<'a>(
    params: &SamplingParams,
    row: &'a mut [f32],
    scratch: &'a mut Scratch,
) -> Result<Weights<'a>> {
    let Scratch { logits, kept, ids, keys } = scratch;
    // When the nucleus is looked for at all follows Candle: alone, `top_p` is off from 1.0 on; after a `top_k` that
    // kept a part of the row, from the sum of that part on; after one that kept it all, never.
    let top_p = params.top_p.filter(|p| params.top_k.is_some() || *p < 1.0);
    let top_k = params.top_k.filter(|k| *k < row.len());
    let min_p = params.min_p.filter(|share| *share > 0.0);
    let typical_p = params.typical_p.filter(|p| *p < 1.0);
    if top_k.is_none() && top_p.is_none() && min_p.is_none() && typical_p.is_none() {
        let divisor = softmax::powers(row, params.temperature)?;
        return Ok(Weights { weights: row, divisor, ids: None });
    }
    if typical_p.is_some() {
        logits.clear();
        logits.extend_from_slice(row);
    }
    softmax::softmax(row, params.temperature)?;
    let (weights, ids, nucleus) = match top_k {
        None => (row, None, top_p),
        Some(k) => {
            filters::top_k(row, k, keys, ids, kept);
            let sum = kept.iter().sum::<f32>();
            (kept.as_mut_slice(), Some(ids.as_slice()), top_p.filter(|p| (*p as f32) < sum))
        }
    };
    if let Some(p) = nucleus {
        filters::top_p(weights, p as f32, keys);
    }
    if let Some(share) = min_p {
        filters::min_p(weights, share as f32);
    }
    if let Some(p) = typical_p {
        let scale = softmax::scale(params.temperature);
        let logit = |place: usize| {
            let id = ids.map_or(Some(place), |ids| ids.get(place).map(|id| *id as usize));
            id.and_then(|id| logits.get(id)).map_or(f32::NEG_INFINITY, |logit| logit * scale)
        };
        filters::typical_p(weights, p, logit, keys);
    }
    Ok(Weights { weights, divisor: 1.0, ids })
}

/// Draws a place with a chance in proportion to its weight. `sums` is scratch.
///
/// The same choice, from the same random number, as `rand`'s `WeightedIndex` over the same weights: one `f32` uniform below the
/// total, then the first running sum above it. Only the sums at the ends of blocks are kept, and those of one block made again.
fn draw(from: &Weights<'_>, sums: &mut Vec<f32>, rng: &mut StdRng) -> Result<usize> {
    let Weights { weights, divisor, .. } = *from;
    let total = running_sum(weights, divisor, sums);
    let uniform =
        Uniform::new(0.0, total).map_err(|_| Error::internal("The weights of a draw have no sum."))?;
    let chosen = uniform.sample(rng);
    let last = weights.len().saturating_sub(1);
    let block = sums.partition_point(|sum| *sum <= chosen);
    let mut sum = block.checked_sub(1).and_then(|before| sums.get(before)).copied().unwrap_or(0.0);
    let start = block * SUM_BLOCK;
    let within = weights.get(start..last).unwrap_or_default().iter().position(|weight| {
        sum += weight / divisor;
        sum > chosen
    });
    Ok(within.map_or(last, |within| start + within))
}
