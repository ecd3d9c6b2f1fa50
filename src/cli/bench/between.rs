//! The time between passes: what the engine adds to a token (sampling, text, events), measured around the model.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::passes::SEED;
use super::samples::ratio;
use crate::cli::failure::Failure;
use crate::engine::{Engine, Event, Poll, Prompt, Request};
use crate::error::Error;
use crate::model::{Around, Forward};
use crate::sampling::SamplingParams;

/// How long Ctrl-C may go unheard.
const TICK: Duration = Duration::from_millis(50);

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

/// A model that notes how long it waited between two passes of an answer.
pub(super) fn timed(model: Box<dyn Forward>, waits: Waits) -> Box<dyn Forward> {
    // When the pass before this one ended.
    let mut before: Option<Instant> = None;
    Box::new(Around::new(model, move |model, batch, logits, stop| {
        // Before the first pass of an answer the engine waits for somebody to ask.
        if let Some(ended) = before
            && batch.runs.iter().all(|run| run.start > 0)
        {
            waits.push(ended.elapsed().as_secs_f64());
        }
        let done = model.forward(batch, logits, stop);
        before = Some(Instant::now());
        done
    }))
}

/// CPU time of this thread, where it is known how to ask for it.
fn cpu_time() -> Option<Duration> {
    #[cfg(target_os = "linux")]
    return nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).ok().map(Duration::from);
    #[cfg(not(target_os = "linux"))]
    None
}

/// Writes one answer of `tokens` tokens with the tutorial's sampling, and reads it as a door does. Returns the CPU time that a
/// chunk cost its reader, where that is known: what a door in another language is compared with.
pub(super) fn answer(
    engine: &Engine,
    prompt: &[u32],
    tokens: usize,
    stop: &dyn Fn() -> bool,
) -> std::result::Result<Option<f64>, Failure> {
    let params = SamplingParams {
        max_tokens: Some(tokens),
        ignore_eos: true,
        seed: Some(SEED),
        ..SamplingParams::default()
    };
    let stream = engine.submit(Request { prompt: Prompt::Tokens(prompt.to_vec()), params })?;
    // Chunks, and the time after the first: what comes before it is the call.
    let (mut chunks, mut started) = (0, None);
    loop {
        if stop() {
            return Err(Failure::Interrupted);
        }
        match stream.next(TICK) {
            Poll::Event(Event::Finish(_)) => {
                let took = cpu_time().zip(started).map(|(end, started)| end.saturating_sub(started));
                return Ok(took.map(|took| ratio(took.as_secs_f64(), f64::from(chunks - 1))));
            }
            Poll::Event(Event::Failed(error)) => return Err(error.into()),
            Poll::Event(Event::Chunk(_)) => {
                chunks += 1;
                started = started.or_else(cpu_time);
            }
            Poll::Pending => {}
            Poll::End => return Err(Error::internal("An answer ended without an end.").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;
    use crate::model::{Batch, BlockCache, Factors, Limits, Logits, Run};

    struct Nothing;

    impl Forward for Nothing {
        fn limits(&self) -> Limits {
            Limits {
                slots: 1,
                run_tokens: 8,
                layers: 1,
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
        let mut model = timed(Box::new(Nothing), waits.clone());
        let mut pass = |start| {
            let runs = vec![Run {
                slot: 0,
                factors: Factors::Short,
                start,
                tokens: vec![0],
                logits_from: 0,
                layers: None,
            }];
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
