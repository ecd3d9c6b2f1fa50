//! All the state of one generation, and the one place where a row of logits becomes text.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::crossing::Crossing;
use super::event::{Chunk, Event, EventSender, Finish, FinishReason, News, StopReason};
use super::guess::Guesser;
use super::noted::Noted;
use super::scores::{Next, Scores};
use super::slice::{Halfway, Slice};
use super::stats::{Clock, Metrics, Stats, Usage};
use super::stop::StopMatcher;
use super::ticket::Ticket;
use crate::error::{Error, Result};
use crate::model::{Factors, KV_BLOCK, Limits, Run};
use crate::sampling::{Sampler, SamplingParams, TokenLogprob};
use crate::tokenizer::{TokenStream, Tokenizer};

/// One request on its way from prompt to answer.
pub(super) struct Sequence {
    /// The tokens of the prompt, then those that were sampled.
    text: Vec<u32>,
    /// How many of them are the prompt's.
    prompt: usize,
    /// How many of them have keys and values, in the reading that the sequence began with.
    computed: usize,
    /// Those after them that wait behind some of the layers.
    halfway: Option<Halfway>,
    /// Tokens of the prompt that were computed, and that were there already.
    prefilled: usize,
    cached: usize,
    /// Position of the first token of the prompt whose row of logits is wanted.
    rows_from: usize,
    /// Continuations to score in place of an answer.
    scores: Option<Scores>,
    /// The factors that it begins with.
    factors: Factors,
    /// There when it may go on with others.
    crossing: Option<Crossing>,
    prompt_logprobs: Option<Noted>,
    /// Of the sampled tokens.
    logprobs: Option<Noted>,
    /// There when it may guess.
    guesser: Option<Guesser>,
    /// Tokens of the guess that is being checked.
    guessed: usize,
    /// Tokens of guesses that were right.
    accepted: usize,
    /// How many of the sampled tokens were sent.
    sent: usize,
    params: SamplingParams,
    seed: u64,
    sampler: Sampler,
    speller: TokenStream,
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
    /// When it came, among all that came.
    arrival: u64,
    /// Whether to look for what others have computed of its beginning, and whether others wait for what it computes.
    seeks: bool,
    lends: bool,
    events: EventSender,
    /// That there is text which its reader was not told of.
    news: Option<News>,
    /// Held until the last event, so that the engine knows how many requests it has.
    ticket: Ticket,
}

/// The order of sequences: higher priority first, then earlier arrival.
pub(super) type Rank = (Reverse<i32>, u64);

/// Why a sequence ended, and by what.
pub(super) type Ending = (FinishReason, Option<StopReason>);

/// What a new sequence starts from.
pub(super) struct Start {
    pub(super) prompt: Vec<u32>,
    pub(super) params: SamplingParams,
    pub(super) scores: Option<Scores>,
    /// Whether to guess at tokens.
    pub(super) guesses: bool,
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
        let Start { prompt, params, scores, guesses, seed, end_of_turn, .. } = start;
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
            prompt: prompt.len(),
            text: prompt,
            computed: 0,
            halfway: None,
            prefilled: 0,
            cached: 0,
            guesser: (guesses && limits.shares && scores.is_none()).then(Guesser::new),
            guessed: 0,
            accepted: 0,
            scores,
            factors: limits.factors(given),
            crossing: Crossing::of(&limits, given, most.min(limits.context_length)),
            prompt_logprobs: Noted::of(params.prompt_logprobs),
            logprobs: Noted::of(params.logprobs),
            sent: 0,
            seed,
            sampler: Sampler::new(&params, seed),
            vocabulary: tokenizer.vocab_size(),
            speller: TokenStream::new(tokenizer),
            stop: StopMatcher::new(&params.stop, params.include_stop),
            banned: end_ids.iter().copied().collect(),
            end_ids,
            limits,
            deadline: params.timeout.and_then(|timeout| clock.deadline(timeout)),
            clock,
            load,
            arrival: 0,
            seeks: true,
            lends: false,
            events,
            news: None,
            params,
            ticket,
        }
    }

    /// Who goes first: the smaller one.
    pub(super) fn rank(&self) -> Rank {
        (Reverse(self.params.priority), self.arrival)
    }

    /// Says when it came.
    pub(super) fn arrives(&mut self, arrival: u64) {
        self.arrival = arrival;
    }

    /// The factors that it is read with, unless it is read again.
    pub(super) fn factors(&self) -> Factors {
        self.factors
    }

    /// The tokens of prompt and answer so far.
    pub(super) fn text(&self) -> &[u32] {
        &self.text
    }

    /// How many of them have keys and values.
    pub(super) fn computed(&self) -> usize {
        self.computed
    }

    /// The tokens that may be taken from another sequence: all but the last one, whose row of logits is wanted; none when more
    /// rows are.
    pub(super) fn sharable(&self) -> &[u32] {
        let most = self.text.len().saturating_sub(1).min(self.rows_from);
        if self.limits.shares { &self.text[..most] } else { &[] }
    }

    /// Notes that keys and values of the first `len` tokens were taken from others.
    pub(super) fn adopt(&mut self, len: usize) {
        if self.is_new() {
            self.cached = len.max(self.cached).min(self.prompt);
        }
        (self.computed, self.halfway) = (len, None);
    }

    /// Has it look for what others have computed.
    pub(super) fn seek(&mut self) {
        self.seeks = true;
    }

    /// Whether it was to look; once.
    pub(super) fn sought(&mut self) -> bool {
        std::mem::take(&mut self.seeks)
    }

    /// Notes that others wait for its prompt to be computed.
    pub(super) fn lend(&mut self) {
        self.lends = true;
    }

    /// Whether others wait for its prompt.
    pub(super) fn lends(&self) -> bool {
        self.lends
    }

    /// Notes that they have got it.
    pub(super) fn has_lent(&mut self) {
        self.lends = false;
    }

    /// Whether nothing was sampled yet.
    fn is_new(&self) -> bool {
        self.text.len() == self.prompt
    }

    /// Begins anew, as its keys and values were given to others. What was written stays.
    pub(super) fn restart(&mut self) {
        let most = self.most_text();
        (self.computed, self.halfway) = (0, None);
        self.factors = self.limits.factors(self.text.len());
        self.crossing = Crossing::of(&self.limits, self.text.len(), most);
        self.seeks = true;
        self.rows_from = self.rows_from.max(if self.is_new() { 0 } else { self.text.len() - 1 });
    }

    /// Whether it can begin anew.
    pub(super) fn restarts(&self) -> bool {
        self.scores.is_none()
    }

    /// How many tokens are to be computed before the next one can be sampled, or before all is scored.
    pub(super) fn pending(&self) -> usize {
        if let Some(scores) = self.scores.as_ref().filter(|_| self.computed >= self.prompt) {
            return scores.left().len();
        }
        match self.crossing.and_then(|crossing| crossing.next(self.last(), usize::MAX, false)) {
            Some(again) if !self.is_new() => again.len(),
            _ => self.text.len() - self.computed.min(self.text.len()),
        }
    }

    /// Whether it is reading what is given, from the first token on.
    pub(super) fn reads(&self) -> bool {
        self.computed < self.sharable().len()
    }

    /// Whether each pass gives it a token.
    pub(super) fn writes(&self) -> bool {
        self.scores.is_none() && self.pending() == 1
    }

    /// Tokens that wait behind some of the layers.
    pub(super) fn halfway(&self) -> usize {
        self.halfway.map_or(0, |halfway| halfway.tokens)
    }

    /// What the next pass computes of what is given, for so much `work`; `room` more tokens may wait behind some of the layers, if
    /// any `may`.
    pub(super) fn slice(&self, work: f64, room: usize, may: bool) -> Option<Slice> {
        let layers = self.limits.layers;
        if let Some(halfway) = self.halfway {
            return Slice::further(halfway, work, layers);
        }
        // Only behind the last layer are there rows of logits, and only of the last token is one wanted.
        let is_plain = self.computed < self.text.len() && self.rows_from + 1 >= self.text.len();
        let is_read_once = self.crossing.is_none() || self.is_new();
        Slice::new(work, self.pending().min(room), layers, may && is_plain && is_read_once)
    }

    /// The next tokens to compute in `slot`, those of `slice` if it is given: a piece of the prompt, of a continuation to score, the
    /// token sampled last and at most `guesses` guesses at those after it, or what has to be read again before that. At most
    /// `rows` rows of logits are wanted besides those of guesses; one is always allowed, as one token is. `company` says whether
    /// other sequences wait for the pass.
    pub(super) fn next_run(
        &mut self,
        slot: usize,
        slice: Option<Slice>,
        rows: usize,
        guesses: usize,
        company: bool,
    ) -> Run {
        self.clock.begin();
        self.guessed = 0;
        let (limit, rows) = (slice.map_or(1, |slice| slice.tokens.max(1)), rows.max(1));
        let (length, start, factors) = (self.text.len(), self.computed, self.factors);
        if let Some(scores) = self.scores.as_ref().filter(|_| start >= length) {
            let left = scores.left();
            let tokens = left[..left.len().min(limit).min(rows)].to_vec();
            let start = length + scores.computed();
            return Run { slot, factors, start, tokens, logits_from: 0, layers: None };
        }
        let again = self.crossing.and_then(|crossing| crossing.next(self.last(), limit, company));
        if let Some(again) = again.filter(|_| !self.is_new()) {
            return self.read_again(slot, again);
        }
        let wanted = self.rows_from.max(start);
        let end = length.min(start + limit).min(wanted + rows);
        let mut tokens = self.text[start..end].to_vec();
        if start + 1 == length {
            tokens.extend(self.guess(guesses));
            self.guessed = tokens.len() - 1;
        }
        let layers = slice.and_then(|slice| slice.depth(self.halfway, self.limits.layers));
        let is_last = layers.as_ref().is_none_or(|layers| layers.end == self.limits.layers);
        let logits_from = if is_last { wanted.min(end) - start } else { tokens.len() };
        Run { slot, factors, start, tokens, logits_from, layers }
    }

    /// What may come after the token sampled last, at most `most` tokens.
    fn guess(&mut self, most: usize) -> Vec<u32> {
        let Some(guesser) = self.guesser.as_mut().filter(|_| most > 0) else { return Vec::new() };
        let last = self.text.len() - 1;
        // Where another token would end the answer, or be read with other factors, there is nothing to gain.
        let left = self.params.max_tokens.map_or(usize::MAX, |most| most - (self.text.len() - self.prompt));
        let end = self.limits.original_context.filter(|&border| last < border);
        let room = end.unwrap_or(self.limits.context_length).saturating_sub(self.text.len());
        guesser.guess(&self.text, most.min(left.saturating_sub(1)).min(room))
    }

    /// Tokens to read again in the same pass, at most `limit`: the sequence will need them with other factors.
    pub(super) fn run_ahead(&self, slot: usize, limit: usize, company: bool) -> Option<Run> {
        let crossing = self.crossing.filter(|_| !self.is_new() && self.writes())?;
        let again = crossing.ahead(self.last(), limit, company);
        (!again.is_empty()).then(|| self.read_again(slot, again))
    }

    /// Whether the keys and values of the short factors are of no use any more. True once.
    pub(super) fn outgrows(&mut self) -> bool {
        let last = self.last();
        !self.is_new() && self.crossing.as_mut().is_some_and(|crossing| crossing.outgrows(last))
    }

    /// The position of the token sampled last, which is computed next.
    fn last(&self) -> usize {
        self.text.len().saturating_sub(1)
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
            tokens: self.text[positions].to_vec(),
            layers: None,
        }
    }

    /// Tokens that the prompt and the answer have at most.
    pub(super) fn most_text(&self) -> usize {
        let answer = match &self.scores {
            Some(scores) => scores.longest(),
            None => answer_tokens(&self.params),
        };
        self.prompt.saturating_add(answer).min(self.limits.context_length)
    }

    /// Tokens for which there should be memory before it gets a slot, in whole blocks: what it has, and a little of what it will
    /// write; all when it cannot begin anew.
    pub(super) fn first_tokens(&self) -> usize {
        let most = self.most_text();
        if self.restarts() { self.held(most.min(self.text.len() + KV_BLOCK)) } else { self.held(most) }
    }

    /// Tokens whose keys and values are held at once, at most, of a text that grows to `most` tokens: in whole blocks of memory.
    pub(super) fn held(&self, most: usize) -> usize {
        let kept = self.limits.kept_tokens.unwrap_or(usize::MAX);
        let held = |tokens: usize| tokens.next_multiple_of(KV_BLOCK).min(kept);
        match self.crossing.filter(|crossing| crossing.is_near(most)) {
            Some(crossing) => crossing.most_held(most, held),
            None => held(most),
        }
    }

    /// Tells the sequence that `run` was computed; returns how many of its tokens were given, not sampled, and computed for the
    /// first time.
    pub(super) fn advance(&mut self, run: &Run) -> usize {
        let (count, end) = (run.tokens.len(), run.start + run.tokens.len());
        if run.factors != self.factors {
            if let Some(crossing) = &mut self.crossing {
                crossing.advance(end);
                if crossing.is_outgrown() && end == self.text.len() {
                    // From here on it is a sequence like any other.
                    (self.factors, self.computed, self.crossing) = (run.factors, end, None);
                }
            }
            return 0;
        }
        let passed = run.depth(self.limits.layers).end;
        self.halfway = (passed < self.limits.layers).then_some(Halfway { tokens: count, layers: passed });
        if self.halfway.is_some() {
            return 0;
        }
        if self.computed < self.text.len() {
            self.computed = end;
        } else if let Some(scores) = &mut self.scores {
            scores.advance(count);
            return count;
        }
        let given = end.min(self.prompt).saturating_sub(run.start);
        self.prefilled += if self.is_new() { given } else { 0 };
        given
    }

    /// Whether the text has `token` at `position`, as far as it is known.
    pub(super) fn has(&self, position: usize, token: u32) -> bool {
        self.text.get(position).is_none_or(|&known| known == token)
    }

    /// Tells it how many `rows` of `run` were of use. What was computed of wrong guesses counts for nothing.
    pub(super) fn settle(&mut self, run: &Run, rows: usize) {
        if self.scores.is_some() || run.factors != self.factors {
            return;
        }
        self.computed = self.computed.min(self.last());
        if let Some(guesser) = self.guesser.as_mut().filter(|_| self.guessed > 0) {
            let accepted = rows.saturating_sub(1);
            guesser.checked(self.guessed, accepted);
            self.accepted += accepted;
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

    /// Takes the row of logits after the token at `position`, and says whether the request has ended.
    ///
    /// # Errors
    /// [`ErrorKind::Numerical`](crate::ErrorKind::Numerical) when no token can be chosen.
    pub(super) fn accept(&mut self, position: usize, logits: &mut [f32]) -> Result<Option<Ending>> {
        if let Some(&next) = self.text.get(position + 1) {
            self.rows_from = position + 1;
            if let Some(noted) = &mut self.prompt_logprobs {
                noted.read(logits)?;
                noted.note(next)?;
            }
            return Ok(None);
        }
        let Some(scores) = &mut self.scores else { return self.write(logits) };
        match scores.accept(position + 1 - self.prompt, logits)? {
            Next::Nothing => return Ok(Some((FinishReason::Stop, None))),
            Next::Continuation if !self.limits.rewinds => {
                // All over again, but its rows are known.
                (self.computed, self.rows_from) = (0, self.prompt);
            }
            Next::Continuation | Next::Tokens => {}
        }
        Ok(None)
    }

    /// Samples a token, sends the text that became final, and says whether the answer has ended.
    fn write(&mut self, logits: &mut [f32]) -> Result<Option<Ending>> {
        // The sampler changes the row, so it is read before.
        if let Some(noted) = &mut self.logprobs {
            noted.read(logits)?;
        }
        let early = self.completion_tokens() < self.params.min_tokens;
        let banned = if early { self.banned.as_slice() } else { &[] };
        let token = self.sampler.sample(logits, &self.text[self.prompt..], banned)?;
        self.clock.token();
        self.text.push(token);
        self.rows_from = self.last();
        if let Some(noted) = &mut self.logprobs {
            noted.note(token)?;
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
        let full = self.text.len() >= self.limits.context_length;
        let long = self.params.max_tokens.is_some_and(|most| self.completion_tokens() >= most);
        Ok((full || long).then_some((FinishReason::Length, None)))
    }

    /// That there is text which its reader was not told of; the end of the sequence tells it too.
    pub(super) fn take_news(&mut self) -> Option<News> {
        self.news.take()
    }

    /// Tokens sampled so far.
    pub(super) fn completion_tokens(&self) -> usize {
        self.text.len() - self.prompt
    }

    /// Adds what it did to `stats`.
    pub(super) fn count(&self, stats: &mut Stats) {
        stats.request(self.clock.active());
        stats.cached_tokens += self.cached as u64;
        stats.completion_tokens += self.completion_tokens() as u64;
        stats.accepted_guesses += self.accepted as u64;
    }

    /// Sends what is left and the last event.
    pub(super) fn finish(mut self, (reason, stop_reason): Ending, kv_bytes: u64) {
        if !matches!(stop_reason, Some(StopReason::Text(_))) {
            let tail = self.speller.finish();
            let mut passed = self.stop.push(&tail);
            passed.text.push_str(&self.stop.finish());
            self.send(passed.text);
        }
        let usage = Usage {
            prompt_tokens: self.prompt,
            completion_tokens: self.completion_tokens(),
            cached_tokens: self.cached,
        };
        let metrics = Metrics {
            accepted_guesses: self.accepted,
            ..self.clock.metrics(usage, self.prefilled, self.load, kv_bytes)
        };
        let (token_ids, logprobs) = self.unsent();
        // Whoever has read the last event may ask again at once.
        drop(self.ticket);
        self.events.end(Event::Finish(Box::new(Finish {
            reason,
            stop_reason,
            token_ids,
            logprobs,
            prompt_logprobs: self.prompt_logprobs.map(|mut noted| noted.take()),
            scores: self.scores.map(Scores::into_found).unwrap_or_default(),
            usage,
            metrics,
            seed: self.seed,
        })));
    }

    /// Ends the sequence with a failure.
    pub(super) fn fail(self, error: Error) {
        drop(self.ticket);
        self.events.end(Event::Failed(error));
    }

    /// The text that `token` completes. A row of padding has none: Phi-3-mini has 32,064 rows, and its `tokenizer.json`
    /// 32,011 tokens.
    fn spell(&mut self, token: u32) -> Result<String> {
        if token as usize >= self.vocabulary {
            return Ok(String::new());
        }
        self.speller.push(token)
    }

    fn send(&mut self, text: String) {
        if !text.is_empty() {
            let (token_ids, logprobs) = self.unsent();
            // Of text before it the new one tells too.
            self.news = self.events.chunk(Chunk { text, token_ids, logprobs }).or(self.news.take());
        }
    }

    /// The tokens that no event has told of yet, and what is known of them.
    fn unsent(&mut self) -> (Vec<u32>, Option<Vec<TokenLogprob>>) {
        let token_ids = self.text[self.prompt + self.sent..].to_vec();
        self.sent = self.completion_tokens();
        (token_ids, self.logprobs.as_mut().map(Noted::take))
    }
}
