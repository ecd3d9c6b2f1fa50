//! What changes logits before a token is chosen: bias, penalties, bans.

use super::params::SamplingParams;

/// Applies bias, penalties and bans to `logits`, in the order that the module's page gives.
///
/// `counts` is scratch: it is all zeros before and after. Ids outside the row are skipped, as Candle does.
pub(super) fn apply(
    params: &SamplingParams,
    logits: &mut [f32],
    generated: &[u32],
    banned: &[u32],
    counts: &mut Vec<u32>,
) {
    for (id, bias) in &params.logit_bias {
        if let Some(logit) = logits.get_mut(*id as usize) {
            *logit += bias;
        }
    }
    let repeat = params.repeat_penalty != 1.0 && params.repeat_last_n > 0;
    let counted = params.presence_penalty != 0.0 || params.frequency_penalty != 0.0;
    if (repeat || counted) && counts.len() < logits.len() {
        counts.resize(logits.len(), 0);
    }
    if repeat {
        let window = &generated[generated.len().saturating_sub(params.repeat_last_n)..];
        repeat_penalty(params.repeat_penalty, logits, window, counts);
    }
    if counted {
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
fn repeat_penalty(penalty: f32, logits: &mut [f32], window: &[u32], seen: &mut [u32]) {
    for id in window {
        let id = *id as usize;
        let (Some(logit), Some(seen)) = (logits.get_mut(id), seen.get_mut(id)) else { continue };
        if *seen == 0 {
            *seen = 1;
            if *logit >= 0.0 {
                *logit /= penalty;
            } else {
                *logit *= penalty;
            }
        }
    }
    clear(window, seen);
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

fn clear(ids: &[u32], counts: &mut [u32]) {
    for id in ids {
        if let Some(count) = counts.get_mut(*id as usize) {
            *count = 0;
        }
    }
}
