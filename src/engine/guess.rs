//! Guesses at the tokens that come next, from the text itself: where three tokens came before, what followed them may follow
//! again (prompt lookup decoding, Saxena 2023). The model checks a guess in one pass, and what it would not have written is
//! dropped, so the text is the same with and without.

use std::collections::HashMap;

/// Tokens that must have come before in the same order.
const CONTEXT: usize = 3;
/// Most tokens of a guess. A pass of nine rows takes about half as long again as one of one row.
pub(super) const LONGEST: usize = 8;
/// What a guessed token costs, in passes of one row: measured 0.06 to 0.09 with up to 16 rows.
const COST: f32 = 0.1;
/// What a text may lose at first, in passes.
const CREDIT: f32 = 0.5;
/// What it may lose with each token after that, in passes: so the worst text is slower by less than 3 %.
const ALLOWANCE: f32 = 0.015;
/// The most that what was gained allows to be lost later.
const MOST_BALANCE: f32 = 8.0;

/// What is known of one text's habit to repeat itself.
#[derive(Debug)]
pub(super) struct Guesser {
    /// Where three tokens came last: the position after them.
    seen: HashMap<[u32; CONTEXT], usize>,
    /// Tokens of the text that were looked at.
    read: usize,
    /// The position of the token that should come next.
    cursor: Option<usize>,
    /// How many tokens in a row came as they had before.
    agreed: usize,
    /// Passes gained by guesses less those lost, and what may be lost.
    balance: f32,
}

impl Guesser {
    pub(super) fn new() -> Self {
        Self { seen: HashMap::new(), read: 0, cursor: None, agreed: 0, balance: CREDIT }
    }

    /// The tokens that may follow `text`, at most `most`; often none. `text` begins with what it was at the last call.
    pub(super) fn guess(&mut self, text: &[u32], most: usize) -> Vec<u32> {
        while self.read < text.len() {
            self.read(text);
        }
        let Some(start) = self.cursor else { return Vec::new() };
        let length = match self.agreed {
            ..5 => 2,
            5..9 => 4,
            _ => LONGEST,
        };
        let affordable = (self.balance / COST).max(0.0) as usize;
        // What repeats itself in steps shorter than a guess goes on doing so.
        text[start..].iter().copied().cycle().take(length.min(most).min(affordable)).collect()
    }

    /// Looks at the next token of `text`.
    fn read(&mut self, text: &[u32]) {
        let (token, end) = (text[self.read], self.read + 1);
        self.read = end;
        self.balance = self.balance.max((self.balance + ALLOWANCE).min(CREDIT));
        match self.cursor {
            Some(cursor) if text[cursor] == token => {
                (self.cursor, self.agreed) = (Some(cursor + 1), self.agreed + 1);
            }
            _ => self.cursor = None,
        }
        let Some(last) = text[..end].last_chunk::<CONTEXT>() else { return };
        let before = self.seen.insert(*last, end);
        if self.cursor.is_none() {
            (self.cursor, self.agreed) = (before, CONTEXT);
        }
    }

    /// Tells of a guess of `guessed` tokens, the first `accepted` of which the model wrote.
    pub(super) fn checked(&mut self, guessed: usize, accepted: usize) {
        let gained = accepted as f32 - COST * guessed as f32;
        self.balance = (self.balance + gained).min(MOST_BALANCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes `text` on from `prompt` with guesses, and gives the passes that it took and the tokens guessed.
    fn write(text: &[u32], prompt: usize) -> (usize, usize) {
        let (mut guesser, mut at, mut passes, mut tokens) = (Guesser::new(), prompt, 0, 0);
        while at < text.len() {
            let guessed = guesser.guess(&text[..at], text.len() - at - 1);
            let accepted =
                guessed.iter().zip(&text[at..]).take_while(|(guess, token)| guess == token).count();
            if !guessed.is_empty() {
                guesser.checked(guessed.len(), accepted);
            }
            (at, passes, tokens) = (at + accepted + 1, passes + 1, tokens + guessed.len());
        }
        (passes, tokens)
    }

    #[test]
    fn what_came_before_is_guessed_once_three_tokens_of_it_have_come() {
        let mut guesser = Guesser::new();
        assert!(guesser.guess(&[1, 2, 3, 4, 5, 6, 7, 9, 1, 2], 8).is_empty());
        assert_eq!(guesser.guess(&[1, 2, 3, 4, 5, 6, 7, 9, 1, 2, 3], 8), [4, 5]);
        assert_eq!(guesser.guess(&[1, 2, 3, 4, 5, 6, 7, 9, 1, 2, 3, 4, 5], 8), [6, 7, 9, 1]);
        assert_eq!(guesser.guess(&[1, 2, 3, 4, 5, 6, 7, 9, 1, 2, 3, 4, 5], 1), [6]);
        assert!(guesser.guess(&[1, 2, 3, 4, 5, 6, 7, 9, 1, 2, 3, 4, 5, 8], 8).is_empty(), "another way");
    }

    #[test]
    fn a_copy_takes_a_pass_for_nine_tokens() {
        let text: Vec<u32> = (0..200).chain(0..200).collect();
        let (passes, _) = write(&text, 200);
        assert!((200 / 9..=200 / 9 + 8).contains(&passes), "{passes}");
    }

    #[test]
    fn what_repeats_itself_in_short_steps_takes_a_pass_for_nine_tokens() {
        let mut guesser = Guesser::new();
        assert_eq!(guesser.guess(&[4, 4, 4, 4], 8), [4, 4]);
        assert_eq!(guesser.guess(&[4, 4, 4, 4, 4, 4], 8), [4, 4, 4, 4]);
        assert_eq!(Guesser::new().guess(&[1, 2, 3, 1, 2, 3, 1, 2, 3], 8), [1, 2, 3, 1]);
        for step in 1..8 {
            let text: Vec<u32> = (0..200).map(|at| at % step).collect();
            let (passes, _) = write(&text, 0);
            assert!((200 / 9..=200 / 9 + 8 + step as usize).contains(&passes), "{passes}");
        }
    }

    /// The worst case: three tokens always come again, and what followed them never does.
    #[test]
    fn guesses_that_are_always_wrong_cost_less_than_three_percent() {
        for length in [40, 64, 100, 500, 5000] {
            let mut text: Vec<u32> = vec![0, 1, 2, 3];
            for turn in 0..length {
                let end = text.len();
                // After each (0, 1, 2) another token.
                text.push(if end % 4 == 3 { 10 + turn } else { (end % 4) as u32 });
            }
            let (passes, guessed) = write(&text, 4);
            let lost = COST * guessed as f32 - (length as f32 - passes as f32);
            assert!(guessed > 0 && lost <= CREDIT + ALLOWANCE * length as f32 + COST, "{length}: {lost}");
            assert!(length < 64 || lost < 0.03 * length as f32, "{length}: {lost}");
        }
    }
}
