//! How likely the tokens of given continuations are: a request that writes nothing.
//!
//! The prompt is computed once. The row after its last token says how likely the first token of every continuation is; the other
//! tokens of a continuation are computed from the end of the prompt on, one continuation after the other. A backend that
//! cannot go back to the end of the prompt reads it again.

use crate::error::{Error, Result};
use crate::sampling::{Logprobs, TokenLogprob};

/// The continuations of one prompt, and what is known of them.
pub(super) struct Scores {
    continuations: Vec<Vec<u32>>,
    found: Vec<Vec<TokenLogprob>>,
    reader: Logprobs,
    /// The continuation that is being computed.
    current: usize,
    /// How many of its tokens were.
    computed: usize,
}

/// What comes after a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// More of the same continuation.
    Tokens,
    /// Another continuation, from the end of the prompt on.
    Continuation,
    /// Nothing: all is known.
    Nothing,
}

impl Scores {
    /// For `continuations` of at least one token each, with the `top` likeliest tokens beside every one.
    pub(super) fn new(continuations: Vec<Vec<u32>>, top: usize) -> Self {
        let found = continuations.iter().map(|tokens| Vec::with_capacity(tokens.len())).collect();
        Self { continuations, found, reader: Logprobs::new(top), current: 0, computed: 0 }
    }

    /// The most tokens that a continuation has.
    pub(super) fn longest(&self) -> usize {
        self.continuations.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// How many tokens of the current continuation were computed.
    pub(super) fn computed(&self) -> usize {
        self.computed
    }

    /// The tokens of the current continuation that are to be computed: what follows the last one is not asked for.
    pub(super) fn left(&self) -> &[u32] {
        let tokens = self.continuations.get(self.current).map_or(&[][..], Vec::as_slice);
        tokens.get(self.computed..tokens.len().saturating_sub(1)).unwrap_or_default()
    }

    /// Notes that `count` tokens of the current continuation were computed.
    pub(super) fn advance(&mut self, count: usize) {
        self.computed += count;
    }

    /// Takes the row after the prompt's last token (`place` 0), or after the `place`-th token of the current continuation.
    ///
    /// # Errors
    /// [`ErrorKind::Numerical`](crate::ErrorKind::Numerical) for a row that is none.
    pub(super) fn accept(&mut self, place: usize, logits: &[f32]) -> Result<Next> {
        self.reader.read(logits)?;
        if place == 0 {
            for (tokens, found) in self.continuations.iter().zip(&mut self.found) {
                if let Some(&first) = tokens.first() {
                    found.push(self.reader.of(first)?);
                }
            }
        } else {
            let token = self.continuations.get(self.current).and_then(|tokens| tokens.get(place));
            let (Some(&token), Some(found)) = (token, self.found.get_mut(self.current)) else {
                return Err(Error::internal("There is no continuation for a row of logits."));
            };
            found.push(self.reader.of(token)?);
            if found.len() < self.continuations[self.current].len() {
                return Ok(Next::Tokens);
            }
        }
        let mut rest = self.continuations.iter().zip(&self.found);
        Ok(match rest.position(|(tokens, found)| found.len() < tokens.len()) {
            None => Next::Nothing,
            Some(next) => {
                (self.current, self.computed) = (next, 0);
                if place == 0 { Next::Tokens } else { Next::Continuation }
            }
        })
    }

    /// What was found: for each continuation its tokens, as far as they are known.
    pub(super) fn into_found(self) -> Vec<Vec<TokenLogprob>> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_after_the_prompt_serves_every_continuation() {
        let mut scores = Scores::new(vec![vec![0], vec![1, 2, 0], vec![2, 2]], 0);
        assert_eq!(scores.longest(), 3);
        assert_eq!(scores.accept(0, &[0.0, 1.0, 2.0]).unwrap(), Next::Tokens);
        assert_eq!(scores.left(), [1, 2]);
        scores.advance(1);
        assert_eq!((scores.left(), scores.computed()), (&[2][..], 1));
        scores.advance(1);
        assert_eq!(scores.accept(1, &[0.0; 3]).unwrap(), Next::Tokens);
        assert_eq!(scores.accept(2, &[0.0; 3]).unwrap(), Next::Continuation);
        assert_eq!((scores.left(), scores.computed()), (&[2][..], 0));
        scores.advance(1);
        assert_eq!(scores.accept(1, &[0.0; 3]).unwrap(), Next::Nothing);
        assert!(scores.left().is_empty());
        let tokens: Vec<Vec<u32>> =
            scores.into_found().iter().map(|found| found.iter().map(|found| found.token).collect()).collect();
        assert_eq!(tokens, [vec![0], vec![1, 2, 0], vec![2, 2]]);
    }

    #[test]
    fn one_token_each_takes_one_row() {
        let mut scores = Scores::new(vec![vec![1], vec![0]], 1);
        assert_eq!(scores.accept(0, &[0.0, 1.0]).unwrap(), Next::Nothing);
        let found = scores.into_found();
        assert!(found[0][0].logprob > found[1][0].logprob);
        assert_eq!(found[0][0].top, found[1][0].top);
    }

    #[test]
    fn a_row_for_no_continuation_is_an_error() {
        assert!(Scores::new(vec![vec![1]], 0).accept(1, &[0.0, 1.0]).is_err());
    }
}
