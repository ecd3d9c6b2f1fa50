//! The time between passes: what the engine adds to a token (sampling, text, events), measured around the model.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::passes::SEED;
use crate::cli::failure::Failure;
use crate::engine::{Engine, Event, Poll, Prompt, Request};
use crate::error::{Error, Result};
use crate::model::{Batch, BlockCache, Factors, Forward, Limits, Logits};
use crate::sampling::SamplingParams;

/// How long Ctrl-C may go unheard.
const TICK: Duration = Duration::from_millis(50);

/// A model that notes how long it waited between two passes of an answer.
pub(super) struct Stopwatch {
    model: Box<dyn Forward>,
    waits: Waits,
    /// When the pass before this one ended.
    ended: Option<Instant>,
}

/// Seconds between passes, shared with whoever reads them.
#[derive(Clone, Default)]
pub(super) struct Waits(Arc<Mutex<Vec<f64>>>);

impl Waits {
    /// Those since the last call.
    pub(super) fn take(&self) -> Vec<f64> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, seconds: f64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(seconds);
    }
}

impl Stopwatch {
    pub(super) fn new(model: Box<dyn Forward>, waits: Waits) -> Self {
        Self { model, waits, ended: None }
    }
}

impl Forward for Stopwatch {
    fn limits(&self) -> Limits {
        self.model.limits()
    }

    fn forward(&mut self, batch: &Batch, logits: &mut Logits, stop: &dyn Fn() -> bool) -> Result<bool> {
        // Before the first pass of an answer the engine waits for somebody to ask.
        if let Some(ended) = self.ended
            && batch.runs.iter().all(|run| run.start > 0)
        {
            self.waits.push(ended.elapsed().as_secs_f64());
        }
        let done = self.model.forward(batch, logits, stop);
        self.ended = Some(Instant::now());
        done
    }

    fn release(&mut self, slot: usize) {
        self.model.release(slot);
    }

    fn forget(&mut self, slot: usize, factors: Factors) {
        self.model.forget(slot, factors);
    }

    fn kv_bytes(&self, slot: usize) -> u64 {
        self.model.kv_bytes(slot)
    }

    fn cache(&mut self) -> Option<&mut dyn BlockCache> {
        self.model.cache()
    }
}

/// Writes one answer of `tokens` tokens with the tutorial's sampling, and reads it as a door does.
pub(super) fn answer(
    engine: &Engine,
    prompt: &[u32],
    tokens: usize,
    stop: &dyn Fn() -> bool,
) -> std::result::Result<(), Failure> {
    let params = SamplingParams {
        max_tokens: Some(tokens),
        ignore_eos: true,
        seed: Some(SEED),
        ..SamplingParams::default()
    };
    let stream = engine.submit(Request { prompt: Prompt::Tokens(prompt.to_vec()), params })?;
    loop {
        if stop() {
            return Err(Failure::Interrupted);
        }
        match stream.next(TICK) {
            Poll::Event(Event::Finish(_)) => return Ok(()),
            Poll::Event(Event::Failed(error)) => return Err(error.into()),
            Poll::Event(Event::Chunk(_)) | Poll::Pending => {}
            Poll::End => return Err(Error::internal("An answer ended without an end.").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Run;

    struct Nothing;

    impl Forward for Nothing {
        fn limits(&self) -> Limits {
            Limits {
                slots: 1,
                run_tokens: 8,
                context_length: 8,
                kv_tokens: 8,
                vocab_size: 1,
                original_context: None,
                kept_tokens: None,
                rewinds: true,
                shares: false,
            }
        }

        fn forward(&mut self, _: &Batch, _: &mut Logits, _: &dyn Fn() -> bool) -> Result<bool> {
            Ok(true)
        }

        fn release(&mut self, _: usize) {}

        fn forget(&mut self, _: usize, _: Factors) {}

        fn kv_bytes(&self, _: usize) -> u64 {
            0
        }

        fn cache(&mut self) -> Option<&mut dyn BlockCache> {
            None
        }
    }

    #[test]
    fn waits_are_those_within_an_answer() {
        let waits = Waits::default();
        let mut model = Stopwatch::new(Box::new(Nothing), waits.clone());
        let mut pass = |start| {
            let runs = vec![Run { slot: 0, factors: Factors::Short, start, tokens: vec![0], logits_from: 0 }];
            model.forward(&Batch { runs }, &mut Logits::default(), &|| false).unwrap();
        };
        pass(0);
        std::thread::sleep(Duration::from_millis(2));
        pass(1);
        pass(2);
        pass(0);
        pass(1);
        let taken = waits.take();
        assert_eq!(taken.len(), 3);
        assert!(taken[0] >= 0.002, "{taken:?}");
        assert!(waits.take().is_empty());
    }
}
