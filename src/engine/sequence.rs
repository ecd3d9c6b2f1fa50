//! All the state of one generation, and the one place where a row of logits becomes text.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::{Chunk, Event, EventSender, Finish, FinishReason, StopReason};
use super::scores::{Next, Scores};
use super::stats::{Clock, Usage};
use super::stop::StopMatcher;
use super::ticket::Ticket;
use crate::error::{Error, Result};
use crate::sampling::{Logprobs, Sampler, SamplingParams, TokenLogprob};
use crate::tokenizer::{TokenStream, Tokenizer};

/// Tokens for which a backend takes memory at a time.
const KV_BLOCK: usize = 64;

/// Tokens with what the model said of them, where that was asked for.
struct Noted {
    reader: Logprobs,
    tokens: Vec<TokenLogprob>,
}

impl Noted {
    fn of(top: Option<usize>) -> Option<Self> {
        top.map(|top| Self { reader: Logprobs::new(top), tokens: Vec::new() })
    }
}

/// One request on its way from prompt to answer.
pub(super) struct Sequence {
    prompt: Vec<u32>,
    prefilled: usize,
    /// Position of the first token of the prompt whose row of logits is wanted.
    rows_from: usize,
    /// Continuations to score in place of an answer.
    scores: Option<Scores>,
    /// Whether the backend can go back to the end of the prompt.
    rewinds: bool,
    prompt_logprobs: Option<Noted>,
    /// Of `generated`.
    logprobs: Option<Noted>,
    generated: Vec<u32>,
    /// How many of `generated` were sent.
    sent: usize,
    params: SamplingParams,
    seed: u64,
    sampler: Sampler,
    text: TokenStream,
    /// Tokens of the tokenizer; the model may have more rows, for padding.
    vocabulary: usize,
    stop: StopMatcher,
    /// Tokens that end the answer.
    end_ids: BTreeSet<u32>,
    /// `end_ids` as the sampler wants them: not to be chosen before `min_tokens`.
    banned: Vec<u32>,
    context_length: usize,
    clock: Clock,
    deadline: Option<Instant>,
    load: Duration,
    events: EventSender,
    /// Held to the end, so that the engine knows how many requests it has.
    _ticket: Ticket,
}

/// Why a sequence ended, and by what.
pub(super) type Ending = (FinishReason, Option<StopReason>);

/// What a new sequence starts from.
pub(super) struct Start {
    pub(super) prompt: Vec<u32>,
    pub(super) params: SamplingParams,
    pub(super) scores: Option<Scores>,
    pub(super) rewinds: bool,
    pub(super) seed: u64,
    pub(super) end_of_turn: BTreeSet<u32>,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) context_length: usize,
    pub(super) load: Duration,
    pub(super) events: EventSender,
    pub(super) ticket: Ticket,
}

impl Sequence {
    pub(super) fn new(start: Start) -> Self {
        let Start { prompt, params, scores, rewinds, seed, end_of_turn, .. } = start;
        let Start { tokenizer, context_length, load, events, ticket, .. } = start;
        let mut end_ids: BTreeSet<u32> = params.stop_token_ids.iter().copied().collect();
        if !params.ignore_eos {
            end_ids.extend(end_of_turn);
        }
        let clock = Clock::start();
        let every_row = params.prompt_logprobs.is_some();
        Self {
            rows_from: if every_row { 0 } else { prompt.len().saturating_sub(1) },
            prompt,
            prefilled: 0,
            scores,
            rewinds,
            prompt_logprobs: Noted::of(params.prompt_logprobs),
            logprobs: Noted::of(params.logprobs),
            generated: Vec::new(),
            sent: 0,
            seed,
            sampler: Sampler::new(&params, seed),
            vocabulary: tokenizer.vocab_size(),
            text: TokenStream::new(tokenizer),
            stop: StopMatcher::new(&params.stop, params.include_stop),
            banned: end_ids.iter().copied().collect(),
            end_ids,
            context_length,
            deadline: params.timeout.and_then(|timeout| clock.deadline(timeout)),
            clock,
            load,
            events,
            params,
            _ticket: ticket,
        }
    }

    /// The next tokens to compute, at most `limit` of them, with the position of the first and the index of the first one whose
    /// logits are wanted: a piece of the prompt, of a continuation to score, or the token sampled last. At most `rows` rows are
    /// wanted; one is always allowed, as one token is.
    pub(super) fn next_tokens(&mut self, limit: usize, rows: usize) -> (usize, &[u32], usize) {
        self.clock.begin();
        let (limit, rows) = (limit.max(1), rows.max(1));
        let (length, start) = (self.prompt.len(), self.prefilled);
        if start < length {
            let wanted = self.rows_from.max(start);
            let end = length.min(start + limit).min(wanted + rows);
            return (start, &self.prompt[start..end], wanted.min(end) - start);
        }
        match &self.scores {
            Some(scores) => {
                let left = scores.left();
                (length + scores.computed(), &left[..left.len().min(limit).min(rows)], 0)
            }
            None => {
                let last = self.generated.len().saturating_sub(1);
                (length + last, &self.generated[last..], 0)
            }
        }
    }

    /// Tokens that the prompt and the answer have at most, in whole blocks of memory.
    pub(super) fn most_tokens(&self) -> usize {
        let answer = match &self.scores {
            Some(scores) => scores.longest(),
            None => self.params.max_tokens.unwrap_or(self.context_length),
        };
        let most = self.prompt.len().saturating_add(answer).min(self.context_length);
        most.next_multiple_of(KV_BLOCK)
    }

    /// Tells the sequence that `count` of its tokens were computed; returns how many of them were given, not sampled.
    pub(super) fn advance(&mut self, count: usize) -> usize {
        if self.prefilled < self.prompt.len() {
            self.prefilled += count;
        } else if let Some(scores) = &mut self.scores {
            scores.advance(count);
        } else {
            return 0;
        }
        count
    }

    /// Whether the caller or the clock has ended this sequence.
    pub(super) fn interrupted(&self) -> Option<Ending> {
        if self.events.is_cancelled() {
            Some((FinishReason::Cancelled, None))
        } else if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            Some((FinishReason::Timeout, None))
        } else {
            None
        }
    }

    /// Takes the row of logits after the token at `position`, and says whether the request has ended.
    ///
    /// # Errors
    /// [`ErrorKind::Numerical`](crate::ErrorKind::Numerical) when no token can be chosen.
    pub(super) fn accept(&mut self, position: usize, logits: &mut [f32]) -> Result<Option<Ending>> {
        if let Some(&next) = self.prompt.get(position + 1) {
            if let Some(noted) = &mut self.prompt_logprobs {
                noted.reader.read(logits)?;
                noted.tokens.push(noted.reader.of(next)?);
            }
            return Ok(None);
        }
        let Some(scores) = &mut self.scores else { return self.write(logits) };
        match scores.accept(position + 1 - self.prompt.len(), logits)? {
            Next::Nothing => return Ok(Some((FinishReason::Stop, None))),
            Next::Continuation if !self.rewinds => {
                // All over again, but its rows are known.
                (self.prefilled, self.rows_from) = (0, self.prompt.len());
            }
            Next::Continuation | Next::Tokens => {}
        }
        Ok(None)
    }

    /// Samples a token, sends the text that became final, and says whether the answer has ended.
    fn write(&mut self, logits: &mut [f32]) -> Result<Option<Ending>> {
        // The sampler changes the row, so it is read before.
        if let Some(noted) = &mut self.logprobs {
            noted.reader.read(logits)?;
        }
        let early = self.generated.len() < self.params.min_tokens;
        let banned = if early { self.banned.as_slice() } else { &[] };
        let token = self.sampler.sample(logits, &self.generated, banned)?;
        self.clock.token();
        self.generated.push(token);
        if let Some(noted) = &mut self.logprobs {
            noted.tokens.push(noted.reader.of(token)?);
        }
        if self.end_ids.contains(&token) {
            if self.params.include_stop && self.params.stop_token_ids.contains(&token) {
                let text = self.spell(token)?;
                let text = self.stop.pass(&text);
                self.send(text);
            }
            return Ok(Some((FinishReason::Stop, Some(StopReason::Token(token)))));
        }
        let text = self.spell(token)?;
        if early {
            let text = self.stop.pass(&text);
            self.send(text);
        } else {
            let passed = self.stop.push(&text);
            self.send(passed.text);
            if let Some(stop) = passed.stop {
                return Ok(Some((FinishReason::Stop, Some(StopReason::Text(stop)))));
            }
        }
        let full = self.prompt.len() + self.generated.len() >= self.context_length;
        let long = self.params.max_tokens.is_some_and(|most| self.generated.len() >= most);
        Ok((full || long).then_some((FinishReason::Length, None)))
    }

    /// Tokens sampled so far.
    pub(super) fn completion_tokens(&self) -> usize {
        self.generated.len()
    }

    /// Sends what is left and the last event.
    pub(super) fn finish(mut self, (reason, stop_reason): Ending, kv_bytes: u64) {
        if !matches!(stop_reason, Some(StopReason::Text(_))) {
            let tail = self.text.finish();
            let mut passed = self.stop.push(&tail);
            passed.text.push_str(&self.stop.finish());
            self.send(passed.text);
        }
        let usage = Usage {
            prompt_tokens: self.prompt.len(),
            completion_tokens: self.generated.len(),
            cached_tokens: 0,
        };
        let metrics = self.clock.metrics(usage, self.prefilled, self.load, kv_bytes);
        let (token_ids, logprobs) = self.unsent();
        self.events.end(Event::Finish(Box::new(Finish {
            reason,
            stop_reason,
            token_ids,
            logprobs,
            prompt_logprobs: self.prompt_logprobs.map(|noted| noted.tokens),
            scores: self.scores.map(Scores::into_found).unwrap_or_default(),
            usage,
            metrics,
            seed: self.seed,
        })));
    }

    /// Ends the sequence with a failure.
    pub(super) fn fail(self, error: Error) {
        self.events.end(Event::Failed(error));
    }

    /// The text that `token` completes. A row of padding has none: Phi-3-mini has 32,064 rows, and its `tokenizer.json`
    /// 32,011 tokens.
    fn spell(&mut self, token: u32) -> Result<String> {
        if token as usize >= self.vocabulary {
            return Ok(String::new());
        }
        self.text.push(token)
    }

    fn send(&mut self, text: String) {
        if !text.is_empty() {
            let (token_ids, logprobs) = self.unsent();
            self.events.chunk(Chunk { text, token_ids, logprobs });
        }
    }

    /// The tokens that no event has told of yet, and what is known of them.
    fn unsent(&mut self) -> (Vec<u32>, Option<Vec<TokenLogprob>>) {
        let token_ids = self.generated[self.sent..].to_vec();
        self.sent = self.generated.len();
        (token_ids, self.logprobs.as_mut().map(|noted| std::mem::take(&mut noted.tokens)))
    }
}
