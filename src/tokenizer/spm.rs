//! SentencePiece vocabularies: merges from tokens and scores.

use std::collections::HashMap;

use super::vocabulary::{broken, id_at};
use crate::error::Result;

/// Longest token that merges can build, in characters. Published vocabularies end at 16, SentencePiece's own limit.
const MAX_CHARS: usize = 64;

/// Most bytes of all mergeable tokens together: what keeps the time for a hostile file bounded. Real: 0.3 to 2 MB.
const MAX_BYTES: usize = 16 << 20;

/// The merge list that gives the ids of SentencePiece's own algorithm.
///
/// SentencePiece joins the neighbours whose joint token has the best score. A merge list says the same: every way to
/// cut a token in two known tokens is a merge, and merges are ordered by the score of what they make; among equals the
/// longer left part goes first, then the longer right part, then the smaller ids. This is the order that transformers'
/// `LlamaConverter` gives the published `tokenizer.json` files; llama.cpp takes the leftmost of equals instead, which
/// differs only where one token can be cut in two ways at once.
pub(crate) fn merges(tokens: &HashMap<String, u32>, scores: &[f32]) -> Result<Vec<(String, String)>> {
    let size: usize = tokens.keys().map(String::len).sum();
    if size > MAX_BYTES {
        return Err(broken(format!(
            "The vocabulary's text is {size} bytes long, over the limit of {MAX_BYTES}."
        )));
    }
    struct Cut<'t> {
        score: f32,
        chars: (usize, usize),
        ids: (u32, u32, u32),
        parts: (&'t str, &'t str),
    }
    let mut cuts: Vec<Cut<'_>> = Vec::with_capacity(tokens.len() * 2);
    for (token, &id) in tokens {
        let count = token.chars().count();
        if count > MAX_CHARS {
            continue;
        }
        let score = scores.get(id as usize).copied().unwrap_or(f32::MIN);
        for (place, (at, _)) in token.char_indices().enumerate().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&l), Some(&r)) = (tokens.get(left), tokens.get(right)) {
                cuts.push(Cut {
                    score,
                    chars: (place, count - place),
                    ids: (id, l, r),
                    parts: (left, right),
                });
            }
        }
    }
    cuts.sort_unstable_by(|a, b| {
        b.score.total_cmp(&a.score).then_with(|| b.chars.cmp(&a.chars)).then_with(|| a.ids.cmp(&b.ids))
    });
    id_at(cuts.len())?;
    Ok(cuts.into_iter().map(|cut| (cut.parts.0.to_owned(), cut.parts.1.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_are_ordered_by_score_then_by_the_longer_left_part() {
        let tokens = ["a", "b", "ab", "aa", "aaa"];
        let tokens = tokens.iter().enumerate().map(|(i, t)| ((*t).to_owned(), i as u32)).collect();
        let merges = merges(&tokens, &[0.0, 0.0, -2.0, -1.0, -3.0]).unwrap();
        let merges: Vec<_> = merges.iter().map(|(l, r)| (l.as_str(), r.as_str())).collect();
        assert_eq!(merges, [("a", "a"), ("a", "b"), ("aa", "a"), ("a", "aa")]);
    }
}
