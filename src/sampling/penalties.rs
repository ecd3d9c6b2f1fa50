//! What changes logits before a token is chosen: bias, penalties, bans.

use super::params::SamplingParams;

/// Scratch: a bit and a count for each token of the vocabulary.
///
/// What only has to be known once is a bit: the counts of a vocabulary are too many to be in the cache after a pass of the model.
#[derive(Debug, Default)]
pub(super) struct Marks {
    seen: Vec<u64>,
    counts: Vec<u32>,
}

/// Applies bias, penalties and bans to `logits`, in the order that the module's page gives.
///
/// The scratch is all zeros before and after. Ids outside the row are skipped, as Candle does.
pub(super) fn apply(
    params: &SamplingParams,
    logits: &mut [f32],
    generated: &[u32],
    banned: &[u32],
    Marks { seen, counts }: &mut Marks,
) {
    for (id, bias) in &params.logit_bias {
        if let Some(logit) = logits.get_mut(*id as usize) {
            *logit += bias;
        }
    }
    let repeat = params.repeat_penalty != 1.0 && params.repeat_last_n > 0;
    let counted = params.presence_penalty != 0.0 || params.frequency_penalty != 0.0;
    if repeat {
        seen.resize(logits.len().div_ceil(64).max(seen.len()), 0);
        let window = &generated[generated.len().saturating_sub(params.repeat_last_n)..];
        repeat_penalty(params.repeat_penalty, logits, window, seen);
    }
    if counted {
        counts.resize(logits.len().max(counts.len()), 0);
        count_penalties(params.presence_penalty, params.frequency_penalty, logits, generated, counts);
    }
    for id in banned {
        if let Some(logit) = logits.get_mut(*id as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// `candle_transformers::utils::apply_repeat_penalty`: each distinct token of `window` once, positive (and zero)
/// logits divided, negative ones multiplied.
fn repeat_penalty(penalty: f32, logits: &mut [f32], window: &[u32], seen: &mut [u64]) {
    for id in window {
        let (word, bit) = (*id as usize / 64, 1 << (*id % 64));
        let (Some(logit), Some(seen)) = (logits.get_mut(*id as usize), seen.get_mut(word)) else { continue };
        if *seen & bit == 0 {
            *seen |= bit;
            if *logit >= 0.0 {
                *logit /= penalty;
            } else {
                *logit *= penalty;
            }
        }
    }
    for id in window {
        if let Some(seen) = seen.get_mut(*id as usize / 64) {
            *seen = 0;
        }
    }
}

/// The formula of OpenAI's API reference: `logit -= count * frequency + (count > 0) * presence`.
fn count_penalties(presence: f32, frequency: f32, logits: &mut [f32], generated: &[u32], counts: &mut [u32]) {
    for id in generated {
        if let Some(count) = counts.get_mut(*id as usize) {
            *count += 1;
        }
    }
    for id in generated {
        let id = *id as usize;
        let (Some(logit), Some(count)) = (logits.get_mut(id), counts.get_mut(id)) else { continue };
        // Zero when an earlier place in the text has already settled this token.
        if *count > 0 {
            *logit -= *count as f32 * frequency + presence;
            *count = 0;
        }
    }
}
