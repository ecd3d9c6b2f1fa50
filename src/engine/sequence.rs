//! All the state of one generation, and the one place where a row of logits becomes text.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::crossing::Crossing;
use super::event::{Chunk, Event, EventSender, Finish, FinishReason, StopReason};
use super::scores::{Next, Scores};
use super::stats::{Clock, Usage};
use super::stop::StopMatcher;
use super::ticket::Ticket;
use crate::error::{Error, Result};
use crate::model::{Factors, KV_BLOCK, Limits, Run};
use crate::sampling::{Logprobs, Sampler, SamplingParams, TokenLogprob};
use crate::tokenizer::{TokenStream, Tokenizer};

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
    /// The factors that it begins with.
    factors: Factors,
    /// There when it may go on with others.
    crossing: Option<Crossing>,
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
    limits: Limits,
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
    pub(super) seed: u64,
    pub(super) end_of_turn: BTreeSet<u32>,
    pub(super) tokenizer: Arc<Tokenizer>,
    /// What the model can take.
    pub(super) limits: Limits,
    pub(super) load: Duration,
    pub(super) events: EventSender,
    pub(super) ticket: Ticket,
}

/// Tokens that an answer has at most.
fn answer_tokens(params: &SamplingParams) -> usize {
    params.max_tokens.unwrap_or(usize::MAX)
}

impl Sequence {
    pub(super) fn new(start: Start) -> Self {
        let Start { prompt, params, scores, seed, end_of_turn, .. } = start;
        let Start { tokenizer, limits, load, events, ticket, .. } = start;
        let mut end_ids: BTreeSet<u32> = params.stop_token_ids.iter().copied().collect();
        if !params.ignore_eos {
            end_ids.extend(end_of_turn);
        }
        let clock = Clock::start();
        // The continuations of a request are all read with the factors of the longest, after whose last token nothing is asked.
        let given = prompt.len() + scores.as_ref().map_or(0, |scores| scores.longest().saturating_sub(1));
        let most = given.saturating_add(if scores.is_some() { 0 } else { answer_tokens(&params) });
        let every_row = params.prompt_logprobs.is_some();
        Self {
            rows_from: if every_row { 0 } else { prompt.len().saturating_sub(1) },
            prompt,
            prefilled: 0,
            scores,
            factors: limits.factors(given),
            crossing: Crossing::of(&limits, given, most.min(limits.context_length)),
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
            limits,
            deadline: params.timeout.and_then(|timeout| clock.deadline(timeout)),
            clock,
            load,
            events,
            params,
            _ticket: ticket,
        }
    }

    /// The next tokens to compute in `slot`, at most `limit` of them: a piece of the prompt, of a continuation to score, the
    /// token sampled last, or what has to be read again before that. At most `rows` rows of logits are wanted; one is always
    /// allowed, as one token is. `company` says whether other sequences wait for the pass.
    pub(super) fn next_run(&mut self, slot: usize, limit: usize, rows: usize, company: bool) -> Run {
        self.clock.begin();
        let (limit, rows) = (limit.max(1), rows.max(1));
        let (length, start) = (self.prompt.len(), self.prefilled);
        let run =
            |start, tokens, logits_from| Run { slot, factors: self.factors, start, tokens, logits_from };
        if start < length {
            let wanted = self.rows_from.max(start);
            let end = length.min(start + limit).min(wanted + rows);
            return run(start, self.prompt[start..end].to_vec(), wanted.min(end) - start);
        }
        if let Some(scores) = &self.scores {
            let left = scores.left();
            return run(length + scores.computed(), left[..left.len().min(limit).min(rows)].to_vec(), 0);
        }
        let last = self.last();
        match self.crossing.and_then(|crossing| crossing.next(last, limit, company)) {
            Some(again) => self.read_again(slot, again),
            None => run(last, self.text_tokens(last..last + 1), 0),
        }
    }

    /// Tokens to read again in the same pass, at most `limit`: the sequence will need them with other factors.
    pub(super) fn run_ahead(&self, slot: usize, limit: usize, company: bool) -> Option<Run> {
        let crossing = self.crossing.filter(|_| !self.generated.is_empty())?;
        let again = crossing.ahead(self.last(), limit, company);
        (!again.is_empty()).then(|| self.read_again(slot, again))
    }

    /// Whether the keys and values of the short factors are of no use any more. True once.
    pub(super) fn outgrows(&mut self) -> bool {
        let last = self.last();
        !self.generated.is_empty() && self.crossing.as_mut().is_some_and(|crossing| crossing.outgrows(last))
    }

    /// The position of the token sampled last, which is computed next.
    fn last(&self) -> usize {
        (self.prompt.len() + self.generated.len()).saturating_sub(1)
    }

    fn text_tokens(&self, positions: Range<usize>) -> Vec<u32> {
        let tokens = self.prompt.iter().chain(&self.generated);
        tokens.skip(positions.start).take(positions.len()).copied().collect()
    }

    /// A run of tokens that were read with the short factors. A row is wanted after the newest of all, whose own it is.
    fn read_again(&self, slot: usize, positions: Range<usize>) -> Run {
        let is_last =
            positions.end > self.last() && positions.end > self.limits.original_context.unwrap_or(0);
        Run {
            slot,
            factors: Factors::Long,
            start: positions.start,
            logits_from: positions.len() - usize::from(is_last),
            tokens: self.text_tokens(positions),
        }
    }

    /// Tokens that the prompt and the answer have at most, in whole blocks of memory: those that are held at once.
    pub(super) fn most_tokens(&self) -> usize {
        let answer = match &self.scores {
            Some(scores) => scores.longest(),
            None => answer_tokens(&self.params),
        };
        let most = self.prompt.len().saturating_add(answer).min(self.limits.context_length);
        let kept = self.limits.kept_tokens.unwrap_or(usize::MAX);
        let held = |tokens: usize| tokens.next_multiple_of(KV_BLOCK).min(kept);
        self.crossing.map_or_else(|| held(most), |crossing| crossing.most_held(most, held))
    }

    /// Tells the sequence that `run` was computed; returns how many of its tokens were given, not sampled, and computed for the
    /// first time.
    pub(super) fn advance(&mut self, run: &Run) -> usize {
        let count = run.tokens.len();
        if let Some(crossing) = self.crossing.as_mut().filter(|_| run.factors == Factors::Long) {
            crossing.advance(run.start + count);
            return 0;
        }
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
            Next::Continuation if !self.limits.rewinds => {
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
        let full = self.prompt.len() + self.generated.len() >= self.limits.context_length;
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
