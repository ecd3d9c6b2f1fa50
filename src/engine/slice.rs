//! What one pass computes of a prompt.
//!
//! Beside answers that are being written a pass has little time for prompts. A few tokens through the whole model would be the
//! least that can be had for it: products with so few take longest for each, and each pass reads all keys and values that the
//! prompt has so far. So many tokens go through a few layers, and in the next pass through the next ones.

use std::ops::Range;

/// Tokens that go through layer after layer together. More make no product faster.
pub(super) const WIDE: usize = 64;

/// Tokens of a prompt, and how many layers they pass through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) tokens: usize,
    pub(super) layers: usize,
}

/// Tokens that have passed through the first layers and wait for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Halfway {
    pub(super) tokens: usize,
    /// Layers that they have passed through.
    pub(super) layers: usize,
}

impl Slice {
    /// A slice of `most` tokens at most for `work`, in tokens through all `layers`: some tokens through all, or where it `may` be
    /// more through some. `None`: there is nothing to do, or no work left for it.
    pub(super) fn new(work: f64, most: usize, layers: usize, may: bool) -> Option<Self> {
        let wide = WIDE.min(most);
        if !may || layers < 2 || work >= wide as f64 {
            let tokens = whole(work).min(most);
            return (tokens > 0).then_some(Self { tokens, layers });
        }
        let steps = whole(work * layers as f64);
        // Two layers, so that there can be half of it.
        let tokens = wide.min(steps.div_ceil(2));
        (tokens > 0).then(|| Self { tokens, layers: nearest(steps, tokens).clamp(1, layers) })
    }

    /// How tokens that wait go on, of `layers`, for `work`.
    pub(super) fn further(halfway: Halfway, work: f64, layers: usize) -> Option<Self> {
        let Halfway { tokens, layers: passed } = halfway;
        let steps = whole(work * layers as f64);
        let left = layers.saturating_sub(passed);
        (steps > 0).then(|| Self { tokens, layers: nearest(steps, tokens.max(1)).clamp(1, left.max(1)) })
    }

    /// The layers that it passes through behind those of `halfway`, where not all of `layers`.
    pub(super) fn depth(self, halfway: Option<Halfway>, layers: usize) -> Option<Range<usize>> {
        let passed = halfway.map_or(0, |halfway| halfway.layers);
        let depth = passed..passed + self.layers;
        (depth != (0..layers)).then_some(depth)
    }

    /// What it is, in tokens through all `layers`.
    pub(super) fn work(self, layers: usize) -> f64 {
        work(self.tokens, self.layers, layers)
    }
}

/// `tokens` through `some` of `layers`, in tokens through all.
pub(super) fn work(tokens: usize, some: usize, layers: usize) -> f64 {
    tokens as f64 * some as f64 / layers.max(1) as f64
}

fn nearest(steps: usize, tokens: usize) -> usize {
    (steps + tokens / 2) / tokens
}

/// Rounded up, but not for what rounding has added.
fn whole(work: f64) -> usize {
    (work * (1.0 - 1e-9)).ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(work: f64, most: usize, layers: usize) -> Option<(usize, usize)> {
        Slice::new(work, most, layers, true).map(|slice| (slice.tokens, slice.layers))
    }

    #[test]
    fn little_work_is_many_tokens_through_a_few_layers() {
        assert_eq!(slice(4.0, 2000, 32), Some((64, 2)));
        assert_eq!(slice(3.0, 2000, 32), Some((48, 2)));
        assert_eq!(slice(1.0, 2000, 32), Some((16, 2)));
        assert_eq!(slice(0.01, 2000, 32), Some((1, 1)));
        assert_eq!(slice(40.0, 2000, 32), Some((64, 20)));
        // As many as there are.
        assert_eq!(slice(4.0, 10, 32), Some((10, 13)));
        assert_eq!(slice(20.0, 10, 32), Some((10, 32)));
        assert_eq!(slice(4.0, 0, 32), None);
        assert_eq!(slice(0.0, 10, 32), None);
    }

    #[test]
    fn much_work_is_tokens_through_all() {
        assert_eq!(slice(64.0, 2000, 32), Some((64, 32)));
        assert_eq!(slice(300.0, 2000, 32), Some((300, 32)));
        // As it is where a model passes in one, or rows of logits are wanted.
        assert_eq!(slice(4.2, 2000, 1), Some((5, 1)));
        let whole = Slice::new(4.0, 2000, 32, false);
        assert_eq!(whole, Some(Slice { tokens: 4, layers: 32 }));
        assert_eq!(Slice::new(0.0, 2000, 32, false), None);
    }

    #[test]
    fn tokens_that_wait_go_on_to_the_last_layer() {
        let further = |passed, work| {
            Slice::further(Halfway { tokens: 64, layers: passed }, work, 32).map(|slice| slice.layers)
        };
        assert_eq!([further(2, 4.0), further(2, 0.1), further(31, 4.0)], [Some(2), Some(1), Some(1)]);
        assert_eq!([further(2, 2.9), further(2, 3.1)], [Some(1), Some(2)]);
        assert_eq!([further(2, 500.0), further(2, 0.0)], [Some(30), None]);
    }

    #[test]
    fn shares_of_a_whole_add_up_to_it() {
        let thirds: f64 = (1..=3).map(|_| Slice { tokens: 64, layers: 1 }.work(32)).sum();
        assert_eq!(thirds, 6.0);
        assert_eq!(slice(thirds / 3.0, 2000, 32), Some((32, 2)));
    }
}
