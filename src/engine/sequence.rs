//! All the state of one generation, and the one place where a row of logits becomes text.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::{Chunk, Event, EventSender, Finish, FinishReason, StopReason};
use super::stats::{Clock, Usage};
use super::stop::StopMatcher;
use super::ticket::Ticket;
use crate::error::{Error, Result};
use crate::sampling::{Sampler, SamplingParams};
use crate::tokenizer::{TokenStream, Tokenizer};

/// Tokens for which a backend takes memory at a time.
const KV_BLOCK: usize = 64;

/// One request on its way from prompt to answer.
pub(super) struct Sequence {
    prompt: Vec<u32>,
    prefilled: usize,
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
        let Start { prompt, params, seed, end_of_turn, tokenizer, context_length, load, events, ticket } =
            start;
        let mut end_ids: BTreeSet<u32> = params.stop_token_ids.iter().copied().collect();
        if !params.ignore_eos {
            end_ids.extend(end_of_turn);
        }
        let clock = Clock::start();
        Self {
            prompt,
            prefilled: 0,
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

    /// The next tokens to compute, at most `limit` of them, with the position of the first and whether their logits are
    /// wanted: a piece of the prompt, or the token sampled last.
    pub(super) fn next_tokens(&mut self, limit: usize) -> (usize, &[u32], bool) {
        self.clock.begin();
        match self.generated.last() {
            None => {
                let end = self.prompt.len().min(self.prefilled + limit.max(1));
                (self.prefilled, &self.prompt[self.prefilled..end], end == self.prompt.len())
            }
            Some(last) => (self.prompt.len() + self.generated.len() - 1, std::slice::from_ref(last), true),
        }
    }

    /// Tokens that the prompt and the answer have at most, in whole blocks of memory.
    pub(super) fn most_tokens(&self) -> usize {
        let answer = self.params.max_tokens.unwrap_or(self.context_length);
        let most = self.prompt.len().saturating_add(answer).min(self.context_length);
        most.next_multiple_of(KV_BLOCK)
    }

    /// Tells the sequence that `count` tokens of its prompt were computed.
    pub(super) fn advance(&mut self, count: usize) {
        if self.generated.is_empty() {
            self.prefilled += count;
        }
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

    /// Takes the logits of the next position: samples a token, sends the text that became final, and says whether the
    /// answer has ended.
    ///
    /// # Errors
    /// [`ErrorKind::Numerical`](crate::ErrorKind::Numerical) when no token can be chosen.
    pub(super) fn accept(&mut self, logits: &mut [f32]) -> Result<Option<Ending>> {
        let early = self.generated.len() < self.params.min_tokens;
        let banned = if early { self.banned.as_slice() } else { &[] };
        let token = self.sampler.sample(logits, &self.generated, banned)?;
        self.clock.token();
        self.generated.push(token);
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
        let token_ids = self.generated.split_off(self.sent.min(self.generated.len()));
        self.events.end(Event::Finish(Finish {
            reason,
            stop_reason,
            token_ids,
            usage,
            metrics,
            seed: self.seed,
        }));
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
            let token_ids = self.generated[self.sent..].to_vec();
            self.sent = self.generated.len();
            self.events.chunk(Chunk { text, token_ids });
        }
    }
}
