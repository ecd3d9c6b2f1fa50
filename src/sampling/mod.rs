//! From a row of logits to the next token.
//!
//! [`SamplingParams`] says what a request wants; [`Sampler`] applies it, one row at a time, with scratch that it keeps.
//! The steps, in order:
//!
//! 1. `logit_bias` is added;
//! 2. the repeat penalty over the last `repeat_last_n` generated tokens;
//! 3. frequency and presence penalties over all generated tokens;
//! 4. banned tokens go to minus infinity;
//! 5. with a temperature below 1e-7 the largest logit wins (the first of equals); otherwise
//! 6. `softmax(logits / temperature)`, then the filters `top_k`, `top_p`, `min_p` and `typical_p`, each on what the one
//!    before left, then one weighted draw.
//!
//! Where Candle's `LogitsProcessor` has a mode (greedy, all, top-k, top-p, top-k then top-p), the same logits and seed
//! give the same tokens as it does, draw after draw: the float operations run in its order, and the generator is
//! the same. No mode orders a whole row: at most the tokens that a filter keeps are put in order.

mod filters;
mod logprobs;
mod overflow;
mod params;
mod penalties;
mod sampler;
mod softmax;
#[cfg(test)]
mod tests;

pub use logprobs::{Logprobs, MOST_LOGPROBS, TokenLogprob};
pub use overflow::Overflow;
pub use params::{SamplingParams, check_top, timeout};
pub use sampler::Sampler;
