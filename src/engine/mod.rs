//! Requests to batches to events: the only token loop, and the one object that every door shares.

mod crossing;
mod errand;
mod event;
mod guess;
mod info;
mod kv_file;
mod load;
mod loaded;
mod noted;
mod options;
mod overflow;
mod pace;
mod place;
mod prefix;
mod request;
mod saved;
mod scheduler;
mod scores;
mod sequence;
mod slice;
mod stats;
mod step;
mod stop;
#[cfg(test)]
mod tests;
mod ticket;
mod windows;
mod worker;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use event::{Chunk, Event, EventStream, Finish, FinishReason, Poll, StopReason, Waker};
pub use info::ModelInfo;
pub use loaded::LoadedModel;
pub use options::{Backend, DEFAULT_MAX_BATCH, DEFAULT_MAX_QUEUE, LoadOptions, ModelSource, Progress};
pub use overflow::CUT_MARK;
pub use request::{Prompt, Request, ScoreRequest};
pub use stats::{Dropped, Metrics, Stats, Usage};
pub use windows::{Window, stride_windows};
#[cfg(feature = "python")]
pub(crate) use worker::panic_text;

use serde_json::Value;

use crate::chat::{ChatTemplate, Message};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Forward, Limits, MemoryPlan};
use crate::sampling::{SamplingParams, check_top};
use crate::tokenizer::Tokenizer;
use load::Parts;
use overflow::Fitted;
use place::Place;
use saved::Identity;
use scheduler::Scheduler;
use scores::Scores;
use sequence::{Sequence, Start};
use ticket::Ticket;
use worker::{Order, Status};

/// A loaded model and its worker thread. Clones share both; any number of threads may submit at once.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    tokenizer: Arc<Tokenizer>,
    template: ChatTemplate,
    end_of_turn: BTreeSet<u32>,
    info: ModelInfo,
    limits: Limits,
    load: Duration,
    identity: Identity,
    policy: Policy,
    taken: Arc<AtomicUsize>,
    status: Arc<Status>,
    door: Mutex<Option<Door>>,
    /// The process that the worker runs in: a forked child has none.
    pid: u32,
}

/// Seconds after which a caller who found the queue full may try again: at least, and at most.
const SHORTEST_RETRY: f64 = 0.1;
const LONGEST_RETRY: f64 = 60.0;

/// How an engine treats its requests.
#[derive(Debug, Clone, Copy)]
struct Policy {
    max_queue: usize,
    /// Whether they share what was computed of their beginnings.
    shares: bool,
    /// Whether to guess at tokens.
    guesses: bool,
    /// Most tokens of prompts in a pass.
    prefill_tokens: usize,
}

impl Policy {
    fn of(options: &LoadOptions) -> Self {
        let LoadOptions { max_queue, prefix_cache, speculation, prefill_tokens, .. } = *options;
        let prefill_tokens = prefill_tokens.unwrap_or(usize::MAX).max(1);
        Self { max_queue, shares: prefix_cache, guesses: speculation, prefill_tokens }
    }
}

/// The way to the worker, there until the engine closes.
struct Door {
    requests: Sender<Order>,
    worker: JoinHandle<()>,
}

impl Engine {
    /// Validates and loads a model, and starts its worker.
    ///
    /// # Errors
    /// Any error of the file, the tokenizer, the template, the device or the memory; see [`ErrorKind`].
    pub fn load(options: &LoadOptions) -> Result<Self> {
        Self::start(load::load(options)?, Policy::of(options))
    }

    /// The memory that a model would take, from its header alone.
    ///
    /// # Errors
    /// Any error of the file's header, [`ErrorKind::UnsupportedModel`] for a model that would run wrongly, and
    /// [`ErrorKind::InvalidParameter`] for options out of range.
    pub fn estimate(options: &LoadOptions) -> Result<MemoryPlan> {
        let (file, plan) = load::open(options)?;
        Ok(Place::find(&file, &plan, options)?.memory)
    }

    fn start(parts: Parts, policy: Policy) -> Result<Self> {
        let Parts { model, tokenizer, template, end_of_turn, info, load, identity } = parts;
        let (limits, status) = (model.limits(), Arc::<Status>::default());
        let limits = Limits { run_tokens: limits.run_tokens.min(policy.prefill_tokens), ..limits };
        let door = Door::open(model, Scheduler::new(limits, policy.shares), Arc::clone(&status))?;
        Ok(Self {
            inner: Arc::new(Inner {
                tokenizer,
                template,
                end_of_turn,
                info,
                limits,
                load,
                identity,
                policy,
                taken: Arc::default(),
                status,
                door: Mutex::new(Some(door)),
                pid: std::process::id(),
            }),
        })
    }

    /// Starts answering `request`. Returns at once; the answer comes through the stream.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameter`] for a parameter or prompt that cannot be used, [`ErrorKind::Template`],
    /// [`ErrorKind::ContextOverflow`], [`ErrorKind::QueueFull`], [`ErrorKind::Closed`], [`ErrorKind::Fork`], or
    /// [`ErrorKind::Internal`] after the worker broke.
    pub fn submit(&self, request: Request) -> Result<EventStream> {
        let inner = &*self.inner;
        inner.check_alive()?;
        request.params.validate(inner.limits.vocab_size)?;
        let Fitted { tokens, dropped } = self.fit(&request.prompt, &request.params)?;
        Ok(self.start_sequence(tokens, request.params, None)?.lacking(dropped))
    }

    /// Starts to find out how likely continuations of a prompt are. Returns at once; what is found comes with the last event,
    /// in [`Finish::scores`]. The prompt is computed once for all of them, where the backend can go back to its end.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameter`] for a prompt or continuations that cannot be used, and those of [`Engine::submit`].
    pub fn score(&self, request: ScoreRequest) -> Result<EventStream> {
        let inner = &*self.inner;
        inner.check_alive()?;
        check_top("top_logprobs", request.top)?;
        let prompt = self.prompt_tokens(&request.prompt)?;
        if request.continuations.is_empty() || request.continuations.iter().any(Vec::is_empty) {
            return Err(Error::invalid(
                "continuations",
                "There is no continuation, or one without a token.",
                "Give at least one continuation, and text or token ids in each.",
            ));
        }
        for tokens in &request.continuations {
            inner.check_ids("continuations", tokens)?;
        }
        let scores = Scores::new(request.continuations, request.top);
        let (limit, length) = (inner.limits.context_length, prompt.len().saturating_add(scores.longest()));
        if length > limit {
            return Err(Error::new(
                ErrorKind::ContextOverflow { prompt_tokens: length, limit },
                format!(
                    "The prompt and its longest continuation have {length} tokens, and the context holds {limit}."
                ),
                "Shorten them, or make the Generator with a larger context_length= if the model allows it.",
            ));
        }
        let params = SamplingParams { timeout: request.timeout, seed: Some(0), ..SamplingParams::default() };
        params.validate(inner.limits.vocab_size)?;
        self.start_sequence(prompt, params, Some(scores))
    }

    /// The token ids of a text that follows `prompt`: what encoding both together adds to the prompt's own tokens, where the
    /// prompt is raw text and its tokens stay what they are; else those of the text alone.
    ///
    /// # Errors
    /// As [`Engine::prompt_tokens`].
    pub fn continuation_tokens(&self, prompt: &Prompt, text: &str) -> Result<Vec<u32>> {
        let tokenizer = &self.inner.tokenizer;
        let raw = match prompt {
            Prompt::Raw(raw) => Some(raw),
            Prompt::Text(raw) if tokenizer.begins_with_control(raw) => Some(raw),
            _ => None,
        };
        if let Some(raw) = raw {
            let (before, whole) = (
                tokenizer.encode_prompt(raw, None)?,
                tokenizer.encode_prompt(&format!("{raw}{text}"), None)?,
            );
            if let Some(rest) = whole.strip_prefix(&*before).filter(|rest| !rest.is_empty()) {
                return Ok(rest.to_vec());
            }
        }
        tokenizer.encode(text, Some(false))
    }

    /// Sends a new sequence to the worker.
    fn start_sequence(
        &self,
        prompt: Vec<u32>,
        params: SamplingParams,
        scores: Option<Scores>,
    ) -> Result<EventStream> {
        let inner = &*self.inner;
        let most = inner.policy.max_queue.saturating_add(inner.limits.slots);
        let ticket = Ticket::take(&inner.taken, most).ok_or_else(|| inner.queue_full())?;
        let (events, stream) = event::channel();
        let sequence = Sequence::new(Start {
            prompt,
            seed: params.seed.unwrap_or_else(rand::random),
            params,
            scores,
            guesses: inner.policy.guesses,
            end_of_turn: inner.end_of_turn.clone(),
            tokenizer: Arc::clone(&inner.tokenizer),
            limits: inner.limits,
            load: inner.load,
            events,
            ticket,
        });
        inner.send(Order::Request(Box::new(sequence)))?;
        Ok(stream)
    }

    /// The token ids that `prompt` becomes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameter`] for an empty prompt or an unknown token id, [`ErrorKind::Template`].
    pub fn prompt_tokens(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        let tokenizer = &self.inner.tokenizer;
        let tokens = match prompt {
            Prompt::Text(text) | Prompt::Raw(text) if text.is_empty() => return Err(empty_prompt()),
            Prompt::Text(text) if tokenizer.begins_with_control(text) => {
                tokenizer.encode_prompt(text, None)?
            }
            Prompt::Raw(text) => tokenizer.encode_prompt(text, None)?,
            Prompt::Text(text) => self.templated(&[Message::new("user", text)], &[])?,
            Prompt::Messages(messages) | Prompt::WithTools { messages, .. } if messages.is_empty() => {
                return Err(empty_prompt());
            }
            Prompt::Messages(messages) | Prompt::WithTools { messages, .. } => {
                self.templated(messages, prompt.tools())?
            }
            Prompt::Tokens(ids) => {
                self.inner.check_ids("prompt", ids)?;
                ids.clone()
            }
        };
        if tokens.is_empty() { Err(empty_prompt()) } else { Ok(tokens) }
    }

    fn templated(&self, messages: &[Message], tools: &[Value]) -> Result<Vec<u32>> {
        self.inner.template.encode(messages, tools, true, &self.inner.tokenizer)
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.inner.tokenizer
    }

    /// The chat template.
    pub fn template(&self) -> &ChatTemplate {
        &self.inner.template
    }

    /// Facts about the model.
    pub fn info(&self) -> &ModelInfo {
        &self.inner.info
    }

    /// What the engine is doing.
    pub fn stats(&self) -> Stats {
        let mut stats = self.inner.status.stats();
        stats.queued = self.inner.taken.load(Ordering::Acquire).saturating_sub(stats.active);
        stats
    }

    /// Whether [`Engine::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.inner.status.closing.load(Ordering::Acquire)
    }

    /// Ends every request, the worker and the model. Waits for the pass that is under way. A second call does nothing.
    pub fn close(&self) {
        self.inner.close();
    }
}

/// A stream of which nothing ever comes.
#[cfg(feature = "python")]
pub(crate) fn silence() -> EventStream {
    let (sender, stream) = event::channel();
    // Dropped, it would tell of an end.
    std::mem::forget(sender);
    stream
}

impl Inner {
    /// Sends something to the worker.
    fn send(&self, order: Order) -> Result<()> {
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = door.as_ref().ok_or_else(closed)?.requests.send(order);
        drop(door);
        sent.map_err(|_| self.gone())
    }

    /// Why the worker is not there any more.
    fn gone(&self) -> Error {
        self.status.broken().unwrap_or_else(closed)
    }

    fn check_alive(&self) -> Result<()> {
        if self.pid != std::process::id() {
            return Err(Error::new(
                ErrorKind::Fork,
                "This generator was made in the parent process; a forked child has none of its threads.",
                "Make a new Generator in the child, or start workers with spawn or forkserver.",
            ));
        }
        if self.status.closing.load(Ordering::Acquire) {
            return Err(closed());
        }
        self.status.broken().map_or(Ok(()), Err)
    }

    fn check_ids(&self, parameter: &str, ids: &[u32]) -> Result<()> {
        let size = self.limits.vocab_size;
        match ids.iter().find(|&&id| id as usize >= size) {
            None => Ok(()),
            Some(id) => Err(Error::invalid(
                parameter,
                format!("`{parameter}` holds the token id {id}, and the vocabulary has {size} entries."),
                format!("Use ids from 0 to {}.", size.saturating_sub(1)),
            )),
        }
    }

    fn queue_full(&self) -> Error {
        // With all slots busy, one of them is free again after this time on average.
        let seconds = self.status.stats().request_s / self.limits.slots.max(1) as f64;
        let retry_after = Duration::from_secs_f64(seconds.clamp(SHORTEST_RETRY, LONGEST_RETRY));
        let max_queue = self.policy.max_queue;
        Error::new(
            ErrorKind::QueueFull { retry_after },
            format!("{max_queue} requests are waiting, as many as max_queue allows."),
            format!(
                "Try again in {:.1} seconds, or make the Generator with a larger max_queue=.",
                retry_after.as_secs_f64()
            ),
        )
    }

    fn close(&self) {
        if self.pid != std::process::id() {
            return;
        }
        self.status.closing.store(true, Ordering::Release);
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Door { requests, worker }) = door {
            drop(requests);
            // The worker catches its own panics; there is nothing to learn from a failed join.
            let _ = worker.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            self.close();
        } else {
            // The thread and the locks of the channel stayed in the parent: nothing here may touch them.
            std::mem::forget(self.door.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

impl Door {
    fn open(model: Box<dyn Forward>, scheduler: Scheduler, status: Arc<Status>) -> Result<Self> {
        let (requests, inbox) = channel();
        let worker = std::thread::Builder::new()
            .name("phicandle".to_owned())
            .spawn(move || worker::work(model, scheduler, &inbox, &status))
            .map_err(|error| Error::internal(format!("The engine's thread did not start: {error}.")))?;
        Ok(Self { requests, worker })
    }
}

/// The error of a generator that was closed.
fn closed() -> Error {
    Error::new(ErrorKind::Closed, "The generator is closed.", "Make a new Generator.")
}

fn empty_prompt() -> Error {
    Error::invalid("prompt", "The prompt is empty.", "Give some text, messages or token ids.")
}
