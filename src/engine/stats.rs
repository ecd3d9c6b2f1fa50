//! What a request used and how long it took, and what the engine is doing.

use std::time::{Duration, Instant};

/// Tokens of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens sampled, the one that ended the turn included.
    pub completion_tokens: usize,
    /// Tokens of the prompt that were already computed, for another request.
    pub cached_tokens: usize,
}

impl Usage {
    /// Prompt and completion together.
    pub fn total_tokens(&self) -> usize {
        self.prompt_tokens + self.completion_tokens
    }
}

/// What was left out of a prompt, so that its answer has room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Whole turns, the oldest of the conversation.
    pub turns: usize,
    /// By how many tokens the prompt became shorter.
    pub tokens: usize,
}

/// Times and sizes of one request. Times are in seconds of the wall clock.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Metrics {
    /// Waiting for the requests before it.
    pub queue_s: f64,
    /// Loading the model, when this generator was made.
    pub load_s: f64,
    /// From the call to the first token.
    pub ttft_s: f64,
    /// Computing the prompt.
    pub prefill_s: f64,
    /// From the first token to the last.
    pub decode_s: f64,
    /// From the call to the end.
    pub total_s: f64,
    /// Prompt tokens per second.
    pub prefill_tps: f64,
    /// Sampled tokens per second, the first one not counted.
    pub decode_tps: f64,
    /// Tokens that came of guesses which were right: each saved a pass.
    pub accepted_guesses: usize,
    /// Bytes of keys and values at the end.
    pub kv_bytes: u64,
    /// The most memory that this process has held, in bytes, where the system says.
    pub peak_rss: Option<u64>,
}

/// What the engine is doing now, and what it has done.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stats {
    /// Requests that wait.
    pub queued: usize,
    /// Requests in a slot.
    pub active: usize,
    /// Requests ended, in any way.
    pub finished: u64,
    /// Times that a request gave its slot back before its end, for want of memory or for one of higher priority.
    pub preempted: u64,
    /// Tokens of prompts computed.
    pub prompt_tokens: u64,
    /// Tokens of prompts that were already computed, of the requests ended.
    pub cached_tokens: u64,
    /// Tokens sampled, of the requests ended.
    pub completion_tokens: u64,
    /// Tokens that came of guesses which were right, of the requests ended.
    pub accepted_guesses: u64,
    /// Bytes of keys and values held by requests in a slot; shared ones count for each.
    pub kv_bytes: u64,
    /// Bytes of keys and values kept for prompts to come. They give way when requests need the memory.
    pub cache_bytes: u64,
    /// Passes of the model.
    pub passes: u64,
    /// Requests in a slot in a pass, on average over the last ones.
    pub batch_size: f64,
    /// Tokens sampled per second of computing, over the last passes.
    pub tokens_per_second: f64,
    /// Seconds that a request is in a slot, on average over the last ones.
    pub request_s: f64,
}

/// The weight of the newest pass in the averages over the last ones.
const NEWEST: f64 = 1.0 / 16.0;

impl Stats {
    /// The share of the prompts' tokens that was already computed, 0 to 1.
    pub fn hit_rate(&self) -> f64 {
        let all = self.cached_tokens + self.prompt_tokens;
        if all == 0 { 0.0 } else { self.cached_tokens as f64 / all as f64 }
    }

    /// Counts a pass for `active` requests that gave `rows` tokens.
    pub(super) fn pass(&mut self, active: usize, rows: usize, took: Duration) {
        self.passes += 1;
        let weight = if self.passes == 1 { 1.0 } else { NEWEST };
        self.batch_size += weight * (active as f64 - self.batch_size);
        self.tokens_per_second += weight * (rate(rows, took.as_secs_f64()) - self.tokens_per_second);
    }

    /// Counts a request that was in a slot for so long.
    pub(super) fn request(&mut self, took: Duration) {
        self.finished += 1;
        let weight = if self.finished == 1 { 1.0 } else { NEWEST };
        self.request_s += weight * (took.as_secs_f64() - self.request_s);
    }
}

/// The instants of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    submitted: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { submitted: Instant::now(), started: None, first_token: None }
    }

    /// Marks the moment when the request got its slot.
    pub(super) fn begin(&mut self) {
        self.started.get_or_insert_with(Instant::now);
    }

    /// Marks a token; the first one ends the prefill.
    pub(super) fn token(&mut self) {
        self.first_token.get_or_insert_with(Instant::now);
    }

    /// How long the request has had its slot.
    pub(super) fn active(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |started| started.elapsed())
    }

    /// When `timeout` runs out.
    pub(super) fn deadline(&self, timeout: Duration) -> Option<Instant> {
        self.submitted.checked_add(timeout)
    }

    /// The metrics of a request that ends now.
    pub(super) fn metrics(&self, usage: Usage, prefilled: usize, load: Duration, kv_bytes: u64) -> Metrics {
        let end = Instant::now();
        let started = self.started.unwrap_or(end);
        let first = self.first_token.unwrap_or(end);
        let prefill_s = first.duration_since(started).as_secs_f64();
        let decode_s = end.duration_since(first).as_secs_f64();
        Metrics {
            queue_s: started.duration_since(self.submitted).as_secs_f64(),
            load_s: load.as_secs_f64(),
            ttft_s: first.duration_since(self.submitted).as_secs_f64(),
            prefill_s,
            decode_s,
            total_s: end.duration_since(self.submitted).as_secs_f64(),
            prefill_tps: rate(prefilled, prefill_s),
            decode_tps: rate(usage.completion_tokens.saturating_sub(1), decode_s),
            accepted_guesses: 0,
            kv_bytes,
            peak_rss: crate::model::peak_rss(),
        }
    }
}

fn rate(tokens: usize, seconds: f64) -> f64 {
    if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 }
}
