//! Prompts that leave no room for their answer, made shorter as [`Overflow`] says.

use super::Engine;
use super::request::Prompt;
use super::stats::Dropped;
use crate::chat::{Message, is_standing, turns};
use crate::error::{Error, ErrorKind, Result};
use crate::sampling::{Overflow, SamplingParams};
use crate::tokenizer::Tokenizer;

/// What stands in a text where its middle was cut out.
pub const CUT_MARK: &str = "\n[...]\n";

/// Room that is kept for an answer without `max_tokens`: a quarter of the context, and no more than this many tokens.
const MOST_RESERVED: usize = 1024;

/// The tokens to read, and what they lack of the prompt.
pub(super) struct Fitted {
    pub(super) tokens: Vec<u32>,
    pub(super) dropped: Dropped,
}

impl Engine {
    /// The tokens of a prompt, made shorter by `params.overflow` when they and the answer do not fit the context. The answer's room
    /// is `max_tokens`, half the context at most; without `max_tokens` a quarter of it, 1024 at most.
    ///
    /// A prompt that cannot become short enough is taken as short as it can be, if that leaves room for a token.
    ///
    /// # Errors
    /// Those of [`Engine::prompt_tokens`], and [`ErrorKind::ContextOverflow`](crate::ErrorKind::ContextOverflow).
    pub(super) fn fit(&self, prompt: &Prompt, params: &SamplingParams) -> Result<Fitted> {
        let whole = self.prompt_tokens(prompt)?;
        let limit = self.inner.limits.context_length;
        let most = limit.saturating_sub(answer_room(params.max_tokens, limit));
        let (length, policy) = (whole.len(), params.overflow);
        let (tokens, turns) = match policy {
            Overflow::DropOldestTurns if length > most => self.drop_oldest(prompt, most, whole)?,
            Overflow::TruncateMiddle if length > most => (self.truncate(prompt, most, whole)?, 0),
            _ => (whole, 0),
        };
        if tokens.len() >= limit {
            return Err(refused(length, tokens.len(), limit, policy));
        }
        let dropped = Dropped { turns, tokens: length.saturating_sub(tokens.len()) };
        if dropped != Dropped::default() {
            log::info!(
                "overflow={policy}: of a prompt of {length} tokens {} were left out, {turns} whole turns; the context holds {limit}",
                dropped.tokens
            );
        }
        Ok(Fitted { tokens, dropped })
    }

    /// The prompt without as few of its oldest turns as possible, and their number. The tokens that have to go are counted in quarters
    /// of the context, where there are as many to drop: while a conversation grows by that much, its prompts begin alike, so that
    /// what is computed of one is of use to the next.
    fn drop_oldest(&self, prompt: &Prompt, most: usize, whole: Vec<u32>) -> Result<(Vec<u32>, usize)> {
        let Some(messages) = prompt.messages() else { return Ok((whole, 0)) };
        let mut enough = turns(messages).len().saturating_sub(1);
        if enough == 0 {
            return Ok((whole, 0));
        }
        let without = |count| self.prompt_tokens(&prompt.without_oldest(count));
        let mut shortened = without(enough)?;
        let step = (self.inner.limits.context_length / 4).max(1);
        let steady = whole.len().saturating_sub((whole.len() - most).div_ceil(step) * step);
        let most = if shortened.len() <= steady { steady } else { most };
        let mut fewest = if shortened.len() <= most { 1 } else { enough };
        // By halves: a conversation is the shorter the more turns are gone.
        while fewest < enough {
            let count = fewest.midpoint(enough);
            let tokens = without(count)?;
            if tokens.len() <= most {
                (shortened, enough) = (tokens, count);
            } else {
                fewest = count + 1;
            }
        }
        Ok((shortened, enough))
    }

    /// The prompt without the middle of its longest texts.
    fn truncate(&self, prompt: &Prompt, most: usize, whole: Vec<u32>) -> Result<Vec<u32>> {
        let tokenizer = &*self.inner.tokenizer;
        let lone;
        let messages = match prompt {
            Prompt::Tokens(_) => return Ok(without_middle(tokenizer, &whole, most, &[])),
            Prompt::Raw(_) => return self.truncate_raw(&whole, most),
            Prompt::Text(text) if tokenizer.begins_with_control(text) => {
                return self.truncate_raw(&whole, most);
            }
            Prompt::Text(text) => {
                lone = [Message::new("user", text)];
                &lone[..]
            }
            Prompt::Messages(messages) | Prompt::WithTools { messages, .. } => messages,
        };
        let mark = tokenizer.encode(CUT_MARK, Some(false))?.len();
        // The tokens of what may be cut; system messages have none here.
        let texts = messages.iter().map(|message| match is_standing(message) {
            true => Ok(Vec::new()),
            false => tokenizer.encode(&message.content, Some(false)),
        });
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let (mut excess, mut shortened) = (whole.len().saturating_sub(most), whole);
        loop {
            let cap = cap_of(&texts, excess, mark);
            let cut = messages.iter().zip(&texts).map(|(message, ids)| {
                let mut message = message.clone();
                if ids.len() > cap {
                    message.content = cut_text(tokenizer, &message.content, ids, cap.saturating_sub(mark));
                }
                message
            });
            let tokens = self.templated(&cut.collect::<Vec<_>>(), prompt.tools())?;
            let over = tokens.len().saturating_sub(most);
            if tokens.len() < shortened.len() {
                shortened = tokens;
            }
            if over == 0 || cap <= mark {
                return Ok(shortened);
            }
            // Where the parts of a text meet, their tokens may be others, and more.
            excess += over;
        }
    }

    fn truncate_raw(&self, whole: &[u32], most: usize) -> Result<Vec<u32>> {
        let tokenizer = &*self.inner.tokenizer;
        let mark = tokenizer.encode(CUT_MARK, Some(false))?;
        Ok(without_middle(tokenizer, whole, most, &mark))
    }
}

/// The error of a prompt of `length` tokens that the policy could shorten to `left`.
fn refused(length: usize, left: usize, limit: usize, policy: Overflow) -> Error {
    let left = match left < length {
        true => format!(", {left} after overflow={policy:?}", policy = policy.name()),
        false => String::new(),
    };
    let another = match policy {
        Overflow::Error => ", choose what overflow= may leave out",
        _ => "",
    };
    Error::new(
        ErrorKind::ContextOverflow { prompt_tokens: length, limit },
        format!(
            "The prompt has {length} tokens{left}, and the context holds {limit} with room for one to answer."
        ),
        format!(
            "Shorten the prompt{another}, or make the Generator with a larger context_length= if the model allows it."
        ),
    )
}

/// Tokens to keep free for an answer.
fn answer_room(max_tokens: Option<usize>, limit: usize) -> usize {
    max_tokens.map_or((limit / 4).min(MOST_RESERVED), |most| most.min(limit / 2))
}

/// The most tokens that a text may have so that all of them together lose `excess`; never less than the mark that stands for the
/// rest.
fn cap_of(texts: &[Vec<u32>], excess: usize, mark: usize) -> usize {
    let lost = |cap: usize| texts.iter().map(|ids| ids.len().saturating_sub(cap)).sum::<usize>();
    let (mut low, mut high) = (mark, texts.iter().map(Vec::len).max().unwrap_or(0).max(mark));
    while low < high {
        let cap = low.midpoint(high + 1);
        if lost(cap) >= excess { low = cap } else { high = cap - 1 }
    }
    low
}

/// The beginning and the end of `ids`, `most` in all, with `mark` between them. Ids that are no longer than that stay as they are.
fn without_middle(tokenizer: &Tokenizer, ids: &[u32], most: usize, mark: &[u32]) -> Vec<u32> {
    if ids.len() <= most || mark.len() > most {
        return ids.to_vec();
    }
    let (head, tail) = middle(tokenizer, ids, most - mark.len());
    [&ids[..head], mark, &ids[tail..]].concat()
}

/// `content`, whose tokens are `ids`, with [`CUT_MARK`] in place of all but `keep` of them: the beginning and the end.
fn cut_text(tokenizer: &Tokenizer, content: &str, ids: &[u32], keep: usize) -> String {
    let (head, tail) = middle(tokenizer, ids, keep);
    let bytes = |ids: &[u32]| {
        ids.iter().filter_map(|&id| tokenizer.token_bytes(id)).map(|text| text.len()).sum::<usize>()
    };
    // A SentencePiece vocabulary begins a text with a space of its own.
    let before = bytes(ids).saturating_sub(content.len());
    let head = bytes(&ids[..head]).saturating_sub(before).min(content.len());
    let tail = content.len().saturating_sub(bytes(&ids[tail..])).max(head);
    // Only where a token stands for text that is not its own can these be inside a character.
    let whole = |at: &usize| content.is_char_boundary(*at);
    let (head, tail) = ((0..=head).rfind(whole), (tail..=content.len()).find(whole));
    let (head, tail) = (head.unwrap_or(0), tail.unwrap_or(content.len()));
    format!("{}{CUT_MARK}{}", &content[..head], &content[tail..])
}

/// Where the middle of `ids` begins and ends when `keep` of them are kept around it. Neither place is inside a character, for which
/// fewer may stay.
fn middle(tokenizer: &Tokenizer, ids: &[u32], keep: usize) -> (usize, usize) {
    let inside = |at: usize| {
        let first = ids.get(at).and_then(|&id| tokenizer.token_bytes(id)?.first().copied());
        // How UTF-8 marks every byte of a character but the first.
        first.is_some_and(|byte| byte & 0xC0 == 0x80)
    };
    let (mut head, mut tail) = (keep.div_ceil(2).min(ids.len()), ids.len().saturating_sub(keep / 2));
    while head > 0 && inside(head) {
        head -= 1;
    }
    while tail < ids.len() && inside(tail) {
        tail += 1;
    }
    (head, tail.max(head))
}
