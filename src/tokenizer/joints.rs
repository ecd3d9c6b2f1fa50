//! Where text of a SentencePiece vocabulary may be cut before merging, without a change to its ids.

use std::collections::HashSet;

/// The pairs of neighbouring characters inside tokens.
///
/// Merging only ever makes tokens. So between two characters that stand side by side in no token nothing is merged, and
/// what lies left and right of them has the same ids alone as together: a text is cut there into words, which are short
/// and repeat. (SentencePiece has no other words: without cuts the whole text is one.)
#[derive(Debug)]
pub(crate) struct Joints(HashSet<u64>);

impl Joints {
    /// The pairs in `tokens`.
    pub(crate) fn of<'t>(tokens: impl Iterator<Item = &'t str>) -> Self {
        let mut pairs = HashSet::new();
        for token in tokens {
            pairs.extend(token.chars().zip(token.chars().skip(1)).map(key));
        }
        Self(pairs)
    }

    /// The words of `text`; joined they are the text.
    pub(crate) fn words<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let mut rest = text;
        std::iter::from_fn(move || {
            let mut chars = rest.char_indices();
            let (_, mut before) = chars.next()?;
            let end = chars.find_map(|(at, c)| {
                let cut = !self.0.contains(&key((before, c)));
                before = c;
                cut.then_some(at)
            });
            let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
            rest = after;
            Some(word)
        })
    }
}

fn key((left, right): (char, char)) -> u64 {
    u64::from(u32::from(left)) << 32 | u64::from(u32::from(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_where_no_token_reaches_over() {
        let joints = Joints::of(["▁", "▁a", "ab", "▁▁", "日"].into_iter());
        let words = |text| joints.words(text).collect::<Vec<_>>().join("¦");
        assert_eq!(words("▁ab▁▁abba日日"), "▁ab¦▁▁ab¦b¦a¦日¦日");
        assert_eq!(words(""), "");
        assert_eq!(words("x"), "x");
    }
}
