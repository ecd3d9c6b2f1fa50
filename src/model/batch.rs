//! What goes through a model in one pass, and what comes out.

/// One forward pass: runs of new tokens, each of another sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The runs, each in a slot of its own.
    pub runs: Vec<Run>,
}

/// Consecutive new tokens of one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Where the sequence keeps its keys and values.
    pub slot: usize,
    /// Position in the sequence of the first token.
    pub start: usize,
    /// The tokens, at least one.
    pub tokens: Vec<u32>,
    /// Whether a row of logits for the next position is wanted.
    pub wants_logits: bool,
}

/// Rows of logits, one per run that wants them. The memory is reused from pass to pass.
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

    /// The rows, in the order of the runs that wanted them.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.values.chunks_exact_mut(self.width.max(1))
    }
}
