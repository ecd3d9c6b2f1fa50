//! A running answer: `phicandle._phicandle.RawStream`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::error::raise;
use super::waker::RawWaker;
use super::{facts, gil, likelihood};
use crate::engine::{
    Chunk, Dropped, Event, EventStream, Finish, FinishReason, Metrics, Poll, StopReason, Usage,
};
use crate::error::{ErrorKind, Result};
use crate::sampling::TokenLogprob;
use crate::tokenizer::Tokenizer;

/// Nothing yet.
pub(super) const PENDING: u8 = 0;
/// Some text.
pub(super) const CHUNK: u8 = 1;
/// The end of the answer, told once; the outcome is there.
pub(super) const LAST: u8 = 2;
/// After the end.
pub(super) const END: u8 = 3;

/// How long a reader stands aside for another reader of the same stream.
const ASIDE: Duration = Duration::from_millis(5);

/// What one look at the stream gives.
struct Look {
    kind: u8,
    text: String,
    token_ids: Vec<u32>,
    logprobs: Option<Vec<TokenLogprob>>,
}

impl Look {
    fn nothing(kind: u8) -> Self {
        Self { kind, text: String::new(), token_ids: Vec::new(), logprobs: None }
    }
}

/// A kind, text, token ids, and how likely each was where that was asked for.
type RawLook<'py> = (u8, String, Bound<'py, PyTuple>, Option<Bound<'py, PyTuple>>);

/// A running answer, and what it has delivered.
#[pyclass(frozen, module = "phicandle._phicandle")]
pub(super) struct RawStream {
    events: EventStream,
    tokenizer: Arc<Tokenizer>,
    /// Held by the thread that reads, so that text is noted in the order in which it was taken.
    reading: Mutex<()>,
    ledger: Mutex<Ledger>,
    cancelled: AtomicBool,
    /// Whether its waker is told of the end only.
    quiet: Arc<AtomicBool>,
    pid: u32,
}

#[derive(Default)]
struct Ledger {
    text: String,
    token_ids: Vec<u32>,
    logprobs: Option<Vec<TokenLogprob>>,
    end: Option<Result<Outcome>>,
}

impl Ledger {
    fn add(&mut self, token_ids: &[u32], logprobs: Option<&[TokenLogprob]>) {
        self.token_ids.extend_from_slice(token_ids);
        if let Some(logprobs) = logprobs {
            self.logprobs.get_or_insert_default().extend_from_slice(logprobs);
        }
    }
}

/// How the answer ended. A generator that closed under it ends it as cancelled, without the engine's figures.
#[derive(Clone)]
struct Outcome {
    reason: FinishReason,
    stop_reason: Option<StopReason>,
    usage: Usage,
    metrics: Metrics,
    seed: Option<u64>,
    prompt_logprobs: Option<Vec<TokenLogprob>>,
    scores: Vec<Vec<TokenLogprob>>,
}

impl From<&Finish> for Outcome {
    fn from(finish: &Finish) -> Self {
        Self {
            reason: finish.reason,
            stop_reason: finish.stop_reason.clone(),
            usage: finish.usage,
            metrics: finish.metrics,
            seed: Some(finish.seed),
            prompt_logprobs: finish.prompt_logprobs.clone(),
            scores: finish.scores.clone(),
        }
    }
}

impl RawStream {
    pub(super) fn new(events: EventStream, tokenizer: Arc<Tokenizer>) -> Self {
        Self {
            events,
            tokenizer,
            reading: Mutex::default(),
            ledger: Mutex::default(),
            cancelled: AtomicBool::new(false),
            quiet: Arc::default(),
            pid: std::process::id(),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next event, waiting for it up to `wait`; `None` when there is none.
    fn look(&self, wait: Duration) -> Option<Result<Look>> {
        let _reading = match self.reading.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(wait.min(ASIDE));
                return None;
            }
        };
        match self.events.next(wait) {
            Poll::Event(event) => Some(self.note(event)),
            Poll::Pending => None,
            Poll::End => Some(Ok(Look::nothing(END))),
        }
    }

    /// Takes the next event, or with `whole` the last one and all before it, waiting up to `timeout` seconds for it.
    fn take(&self, py: Python<'_>, timeout: Option<f64>, whole: bool) -> PyResult<Look> {
        self.check(py)?;
        // A time too long for the clock is no limit.
        let limit = timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let looked = gil::wait(py, |slice| {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let (over, slice) = (left.is_some_and(|left| left <= slice), left.unwrap_or(slice).min(slice));
            let begin = Instant::now();
            loop {
                match self.look(slice.saturating_sub(begin.elapsed())) {
                    Some(Ok(look)) if whole && look.kind == CHUNK => {}
                    None if over => return Some(Ok(Look::nothing(PENDING))),
                    found => return found,
                }
            }
        });
        if looked.is_err() {
            // Ctrl-C: the reader is gone.
            self.cancel();
        }
        looked?.map_err(|error| raise(py, &error))
    }

    /// Notes what an event brings.
    fn note(&self, event: Event) -> Result<Look> {
        let mut ledger = self.ledger();
        match event {
            Event::Chunk(chunk) => {
                ledger.text.push_str(&chunk.text);
                ledger.add(&chunk.token_ids, chunk.logprobs.as_deref());
                let Chunk { text, token_ids, logprobs } = chunk;
                Ok(Look { kind: CHUNK, text, token_ids, logprobs })
            }
            Event::Finish(finish) => {
                ledger.add(&finish.token_ids, finish.logprobs.as_deref());
                ledger.end = Some(Ok(Outcome::from(&*finish)));
                let Finish { token_ids, logprobs, .. } = *finish;
                Ok(Look { token_ids, logprobs, ..Look::nothing(LAST) })
            }
            Event::Failed(error) if matches!(error.kind(), ErrorKind::Closed) => {
                let completion_tokens = ledger.token_ids.len();
                ledger.end = Some(Ok(Outcome {
                    reason: FinishReason::Cancelled,
                    stop_reason: None,
                    usage: Usage { completion_tokens, ..Usage::default() },
                    metrics: Metrics::default(),
                    seed: None,
                    prompt_logprobs: None,
                    scores: Vec::new(),
                }));
                Ok(Look::nothing(LAST))
            }
            Event::Failed(error) => {
                ledger.end = Some(Err(error.clone()));
                Err(error)
            }
        }
    }

    fn likelihood<'py>(
        &self,
        py: Python<'py>,
        found: Option<&[TokenLogprob]>,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        found.map(|found| likelihood::tokens(py, &self.tokenizer, found)).transpose()
    }

    fn check(&self, py: Python<'_>) -> PyResult<()> {
        gil::same_process(self.pid).map_err(|error| raise(py, &error))
    }
}

#[pymethods]
impl RawStream {
    /// The next event, waiting for it up to `timeout` seconds; `None` waits without limit, 0 does not wait.
    fn next<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<RawLook<'py>> {
        gil::enter(py, || {
            let Look { kind, text, token_ids, logprobs } = self.take(py, timeout, false)?;
            Ok((kind, text, PyTuple::new(py, token_ids)?, self.likelihood(py, logprobs.as_deref())?))
        })
    }

    /// Takes all events up to the end, waiting for them as `next` does. Tells which kind it came to: `LAST` or `END`, or
    /// `PENDING` when the time ran out. Python is not troubled with those before it.
    fn rest(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<u8> {
        gil::enter(py, || Ok(self.take(py, timeout, true)?.kind))
    }

    /// The text, the token ids and their logprobs delivered so far.
    fn written<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(String, Bound<'py, PyTuple>, Option<Bound<'py, PyTuple>>)> {
        gil::guard(py, || {
            self.check(py)?;
            let ledger = self.ledger();
            let logprobs = self.likelihood(py, ledger.logprobs.as_deref())?;
            Ok((ledger.text.clone(), PyTuple::new(py, &ledger.token_ids)?, logprobs))
        })
    }

    /// How the answer ended; `None` before that. Raises the error that it ended with.
    fn outcome<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        gil::guard(py, || {
            self.check(py)?;
            let end = self.ledger().end.clone();
            let Some(outcome) = end.transpose().map_err(|error| raise(py, &error))? else {
                return Ok(None);
            };
            let facts = PyDict::new(py);
            facts.set_item("finish_reason", outcome.reason.name())?;
            match outcome.stop_reason {
                None => facts.set_item("stop_reason", py.None())?,
                Some(StopReason::Token(id)) => facts.set_item("stop_reason", id)?,
                Some(StopReason::Text(text)) => facts.set_item("stop_reason", text)?,
            }
            facts.set_item("usage", facts::usage(py, &outcome.usage)?)?;
            facts.set_item("metrics", facts::metrics(py, &outcome.metrics)?)?;
            facts.set_item("seed", outcome.seed)?;
            facts.set_item("prompt_logprobs", self.likelihood(py, outcome.prompt_logprobs.as_deref())?)?;
            let scores = outcome.scores.iter().map(|found| likelihood::tokens(py, &self.tokenizer, found));
            facts.set_item("scores", scores.collect::<PyResult<Vec<_>>>()?)?;
            Ok(Some(facts))
        })
    }

    /// Whether the end has been delivered.
    fn done(&self, py: Python<'_>) -> PyResult<bool> {
        self.check(py)?;
        Ok(self.ledger().end.is_some())
    }

    /// The turns and the tokens that the prompt lacks.
    fn dropped(&self) -> (usize, usize) {
        let Dropped { turns, tokens } = self.events.dropped();
        (turns, tokens)
    }

    /// Whether `cancel` was called, or Ctrl-C came while waiting.
    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Asks for the end. The events up to it still come.
    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.events.cancel();
    }

    /// Has `waker` told `key` whenever there is news, or of the end only while `quiet`.
    fn wake(&self, waker: &RawWaker, key: u64) {
        let (bell, quiet) = (waker.bell(), Arc::clone(&self.quiet));
        self.events.on_event(Box::new(move |ended| {
            if ended || !quiet.load(Ordering::SeqCst) {
                bell.ring(key);
            }
        }));
    }

    /// Says whether the waker is to be told of the end only. What has come by then may not have been told: look afterwards.
    fn quiet(&self, quiet: bool) {
        self.quiet.store(quiet, Ordering::SeqCst);
    }
}
