//! The end of a long-rope model's original context, and how a text gets past it.
//!
//! A text within it is read with the short factors, a longer one with the long factors at every position: keys and values of the
//! first kind are of no use to the second, as every layer's input depends on the keys of the layers before. So a text that may
//! outgrow its original context is read a second time while it is written, a few tokens in each pass, in time for the token that
//! needs it. What was not read by then, as in a prompt that ends just before the border, is read before that token.

use std::ops::Range;

use crate::model::Limits;

/// Most tokens of one sequence that are read again in a pass which others wait for: such a pass takes little longer than one
/// of a single token, as both wait for the weights.
const BESIDE: usize = 8;

/// Tokens that are read again in each pass when there is time, by a sequence alone: it begins as late as that allows, as a text
/// may end before.
const AT_EASE: usize = 4;

/// The same beside others, who may be doing so too.
const AT_EASE_IN_COMPANY: usize = 2;

/// One sequence on its way past its original context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crossing {
    /// The original context, in tokens.
    border: usize,
    /// Tokens that were read again.
    again: usize,
    /// Whether it was said that the first reading is of no use any more.
    outgrown: bool,
}

impl Crossing {
    /// For a request that gives `given` tokens, and whose text has `most` in the end; `None` where all have the same factors.
    pub(super) fn of(limits: &Limits, given: usize, most: usize) -> Option<Self> {
        let border = limits.original_context?;
        // The last token of an answer is not read.
        (given <= border && most > border + 1).then_some(Self { border, again: 0, outgrown: false })
    }

    /// What the token at `position` needs to be read with the long factors, itself included, at most `limit` tokens of it;
    /// `None` when it is within the original context. `company` says whether other sequences wait for the pass.
    pub(super) fn next(&self, position: usize, limit: usize, company: bool) -> Option<Range<usize>> {
        let most = if company { limit.min(BESIDE) } else { limit };
        (position >= self.border)
            .then(|| self.again..(position + 1).min(self.again.saturating_add(most.max(1))))
    }

    /// What to read again in the pass that computes the token at `position` within the original context, at most `limit` tokens.
    pub(super) fn ahead(&self, position: usize, limit: usize, company: bool) -> Range<usize> {
        let passes = self.border.saturating_sub(position);
        let left = self.border.saturating_sub(self.again);
        let pace = if company { AT_EASE_IN_COMPANY } else { AT_EASE };
        if passes == 0 || left < pace * passes {
            return self.again..self.again;
        }
        let known = (position + 1).saturating_sub(self.again);
        self.again..self.again + left.div_ceil(passes).min(BESIDE).min(limit).min(known)
    }

    /// Tells it that the tokens before `end` were read again.
    pub(super) fn advance(&mut self, end: usize) {
        self.again = end;
    }

    /// True once: when the token at `position` is the first that the first reading is of no use for.
    pub(super) fn outgrows(&mut self, position: usize) -> bool {
        position >= self.border && !std::mem::replace(&mut self.outgrown, true)
    }

    /// Whether a text of `tokens` tokens may have two readings.
    pub(super) fn is_near(&self, tokens: usize) -> bool {
        tokens > self.border / 2
    }

    /// Whether it was said that the first reading is of no use any more.
    pub(super) fn is_outgrown(&self) -> bool {
        self.outgrown
    }

    /// Tokens held at most of a text that grows to `most`, when `held` says how many of so many are held in one reading.
    pub(super) fn most_held(&self, most: usize, held: impl Fn(usize) -> usize) -> usize {
        held(most).max(2 * held(self.border))
    }
}
