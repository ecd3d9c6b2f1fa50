//! How a text longer than the context is cut for scoring.

/// Part of a text, in token positions: what is between `begin` and `scored` is only looked back at, and every token from
/// `scored` to `end` is scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first token.
    pub begin: usize,
    /// The first token that is scored, after `begin`: the first token of a text follows nothing, so it never is.
    pub scored: usize,
    /// Past the last token.
    pub end: usize,
}

/// The windows of a strided perplexity, as Hugging Face's guide to perplexity of fixed-length models cuts a text: each has
/// `window` tokens, the last one fewer, and begins `stride` tokens after the one before; in each are scored those tokens that
/// no window before has scored. So every token but the first is scored once. A text of less than two tokens has no window.
///
/// A `window` of less than 2 counts as 2, and `stride` is kept from 1 to `window - 1`: a token must follow another one.
pub fn stride_windows(length: usize, window: usize, stride: usize) -> impl Iterator<Item = Window> {
    let window = window.max(2);
    let stride = stride.clamp(1, window - 1);
    let mut next = (length > 1).then_some(Window { begin: 0, scored: 1, end: window.min(length) });
    std::iter::from_fn(move || {
        let now = next?;
        next = (now.end < length).then(|| {
            let begin = now.begin + stride;
            Window { begin, scored: now.end, end: (begin + window).min(length) }
        });
        Some(now)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn windows_worked_out_by_hand() {
        let cut = |length, window, stride| {
            stride_windows(length, window, stride)
                .map(|window| (window.begin, window.scored, window.end))
                .collect::<Vec<_>>()
        };
        assert_eq!(cut(10, 4, 2), [(0, 1, 4), (2, 4, 6), (4, 6, 8), (6, 8, 10)]);
        assert_eq!(cut(9, 4, 2), [(0, 1, 4), (2, 4, 6), (4, 6, 8), (6, 8, 9)]);
        assert_eq!(cut(4, 4, 2), [(0, 1, 4)]);
        assert_eq!(cut(5, 4, 9), [(0, 1, 4), (3, 4, 5)]);
        assert_eq!((cut(1, 4, 2), cut(0, 4, 2)), (vec![], vec![]));
        assert_eq!(cut(2, 0, 0), [(0, 1, 2)]);
    }

    proptest! {
        #[test]
        fn every_token_but_the_first_is_scored_once(
            length in 2_usize..200, window in 0_usize..50, stride in 0_usize..60,
        ) {
            let scored: Vec<usize> =
                stride_windows(length, window, stride).flat_map(|window| window.scored..window.end).collect();
            prop_assert_eq!(scored, (1..length).collect::<Vec<_>>());
            for cut in stride_windows(length, window, stride) {
                prop_assert!(cut.begin < cut.scored && cut.scored < cut.end && cut.end - cut.begin <= window.max(2));
            }
        }
    }
}
