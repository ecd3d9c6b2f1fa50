//! What goes through a model in one pass, and what comes out.

/// Rows of logits that the sequences of one pass share, beyond one for each of them: they are what scoring a text asks for, and
/// a row of the largest vocabulary of the family takes 800 kB.
pub const LOGIT_ROWS: usize = 32;

use std::ops::Range;

use super::Factors;

/// One forward pass: runs of new tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The runs, no two of them with the same slot and factors.
    pub runs: Vec<Run>,
}

/// Consecutive new tokens of one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Where the sequence keeps its keys and values.
    pub slot: usize,
    /// The factors that its keys are turned with. A slot keeps those of [`Factors::Short`] and of [`Factors::Long`] apart, as
    /// two readings of one sequence, each from its beginning.
    pub factors: Factors,
    /// Position in the sequence of the first token.
    pub start: usize,
    /// The tokens, at least one.
    pub tokens: Vec<u32>,
    /// Index into `tokens` of the first one whose row of logits, for the position after it, is wanted; those of all tokens that
    /// follow are wanted too. `tokens.len()`: none.
    pub logits_from: usize,
    /// The layers that the tokens pass through now, of [`Limits::layers`](super::Limits::layers); `None`: all. Behind any but the
    /// last they wait in the slot, where the next run has to go on with them: with the same tokens, from that layer on. Only
    /// behind the last do they count as computed, and are there rows of logits.
    pub layers: Option<Range<usize>>,
}

impl Run {
    /// Rows of logits that are wanted.
    pub fn logit_rows(&self) -> usize {
        self.tokens.len().saturating_sub(self.logits_from)
    }

    /// The layers that it passes through, of `layers`.
    pub fn depth(&self, layers: usize) -> Range<usize> {
        self.layers.clone().unwrap_or(0..layers)
    }
}

/// Rows of logits, those that the runs want. The memory is reused from pass to pass.
#[derive(Debug, Clone, Default)]
pub struct Logits {
    values: Vec<f32>,
    width: usize,
}

impl Logits {
    /// Drops all rows; the next ones have `width` entries, one per token of the vocabulary.
    pub fn reset(&mut self, width: usize) {
        self.values.clear();
        self.width = width;
    }

    /// Appends a row of zeros and returns it.
    pub fn push_row(&mut self) -> &mut [f32] {
        self.push_rows(1)
    }

    /// Appends `count` rows of zeros and returns them, one after the other.
    pub fn push_rows(&mut self, count: usize) -> &mut [f32] {
        let start = self.values.len();
        self.values.resize(start + count * self.width, 0.0);
        &mut self.values[start..]
    }

    /// The rows, in the order of the runs and of their tokens.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.values.chunks_exact_mut(self.width.max(1))
    }
}
