//! What a request sends back, and the queue that it travels through: from the worker to one reader.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::stats::{Dropped, Metrics, Usage};
use crate::error::Error;
use crate::sampling::TokenLogprob;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Instant, Mutex, MutexGuard};

/// One message of a request.
#[derive(Debug, Clone)]
pub enum Event {
    /// New text.
    Chunk(Chunk),
    /// The end, after which nothing comes.
    Finish(Box<Finish>),
    /// A failure, after which nothing comes.
    Failed(Error),
}

/// Text that has become final: whole code points, no part of a stop string.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Chunk {
    /// The text; never empty.
    pub text: String,
    /// The tokens sampled since the last chunk.
    pub token_ids: Vec<u32>,
    /// How likely each of them was, when [`SamplingParams::logprobs`](crate::sampling::SamplingParams::logprobs) asks for it.
    pub logprobs: Option<Vec<TokenLogprob>>,
}

/// How a request ended.
#[derive(Debug, Clone)]
pub struct Finish {
    /// Why.
    pub reason: FinishReason,
    /// What stopped it, for [`FinishReason::Stop`].
    pub stop_reason: Option<StopReason>,
    /// Tokens sampled since the last chunk: the token that ended the turn, for one.
    pub token_ids: Vec<u32>,
    /// How likely each of those was, when that was asked for.
    pub logprobs: Option<Vec<TokenLogprob>>,
    /// How likely the tokens of the prompt were from the second one on, as far as it was read, when
    /// [`SamplingParams::prompt_logprobs`](crate::sampling::SamplingParams::prompt_logprobs) asks for it.
    pub prompt_logprobs: Option<Vec<TokenLogprob>>,
    /// For each continuation of a [`ScoreRequest`](super::ScoreRequest) its tokens, as far as they are known; else empty.
    pub scores: Vec<Vec<TokenLogprob>>,
    /// Tokens read and written.
    pub usage: Usage,
    /// Times and sizes.
    pub metrics: Metrics,
    /// The seed that gives the same text again.
    pub seed: u64,
}

/// Why a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// A token that ends the turn, a stop string or a stop token; for a [`ScoreRequest`](super::ScoreRequest), that all is known.
    Stop,
    /// `max_tokens`, or the end of the context.
    Length,
    /// The caller.
    Cancelled,
    /// `timeout`.
    Timeout,
}

impl FinishReason {
    /// `stop`, `length`, `cancelled` or `timeout`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
        }
    }
}

/// What stopped a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// A token: one that ends the turn, or one of `stop_token_ids`.
    Token(u32),
    /// One of the `stop` strings.
    Text(String),
}

/// What [`EventStream::next`] found.
#[derive(Debug)]
pub enum Poll {
    /// The next event.
    Event(Event),
    /// Nothing yet.
    Pending,
    /// The last event was given out before.
    End,
}

/// Called after each event, from the engine's thread or one of the model's; it hears whether the event was the last one, and nothing
/// after that. It must not block.
pub type Waker = Box<dyn Fn(bool) + Send + Sync>;

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    ended: bool,
    /// Threads that wait for an event.
    waiting: usize,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    cancelled: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // The queue is whole at every instant, so a panic elsewhere leaves nothing half-done in it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whoever has to know of what is new; `waiting` are the threads that waited when it came, `ended` says that it is the end.
    fn wake(&self, waiting: usize, ended: bool) {
        // Even in vain, it is a system call.
        if waiting > 0 {
            self.ready.notify_all();
        }
        // Under the lock that the end takes as well: so nothing is heard after it.
        if let Some(waker) = &*self.waker()
            && (ended || !self.queue().ended)
        {
            waker(ended);
        }
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reader's end of a request. Dropping it cancels the request.
pub struct EventStream {
    shared: Arc<Shared>,
    dropped: Dropped,
}

/// The worker's end of a request. Dropping it without a last event fails the request.
pub(super) struct EventSender {
    shared: Arc<Shared>,
}

/// That there is new text, for whoever waits. May be told from any thread, and late: until then the text is there, and nobody knows.
/// The end of a stream is told with it.
#[must_use]
pub(super) struct News {
    shared: Arc<Shared>,
    /// Threads that waited when the text came.
    waiting: usize,
}

impl News {
    /// Tells them: a system call.
    pub(super) fn tell(self) {
        self.shared.wake(self.waiting, false);
    }
}

/// Both ends of a new request.
pub(super) fn channel() -> (EventSender, EventStream) {
    let shared = Arc::new(Shared::default());
    (EventSender { shared: Arc::clone(&shared) }, EventStream { shared, dropped: Dropped::default() })
}

impl EventStream {
    /// The stream of a prompt that lacks something.
    pub(super) fn lacking(mut self, dropped: Dropped) -> Self {
        self.dropped = dropped;
        self
    }

    /// What was left out of the prompt, as [`SamplingParams::overflow`](crate::sampling::SamplingParams::overflow) allows.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// The next event, waiting for it up to `wait`. Any number of threads may wait; each event goes to one of them.
    pub fn next(&self, wait: Duration) -> Poll {
        let deadline = Instant::now().checked_add(wait);
        let mut queue = self.shared.queue();
        loop {
            if let Some(event) = queue.events.pop_front() {
                return Poll::Event(event);
            }
            if queue.ended {
                return Poll::End;
            }
            let left = deadline.map_or(wait, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Poll::Pending;
            }
            queue.waiting += 1;
            queue = self.shared.ready.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
            queue.waiting -= 1;
        }
    }

    /// Asks the worker to end this request, from any thread, in any phase. The text so far and a [`Finish`] still come.
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::Release);
    }

    /// Sets what is called after each event, for a reader that cannot wait.
    pub fn on_event(&self, waker: Waker) {
        *self.shared.waker() = Some(waker);
        let (due, ended) = {
            let queue = self.shared.queue();
            (queue.ended || !queue.events.is_empty(), queue.ended)
        };
        if due {
            // Threads that wait were told when the events came.
            self.shared.wake(0, ended);
        }
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl EventSender {
    /// Whether the reader wants no more.
    pub(super) fn is_cancelled(&self) -> bool {
        self.shared.cancelled.load(Ordering::Acquire)
    }

    /// Sends new text. Gives the news of it where somebody has to be told.
    pub(super) fn chunk(&self, chunk: Chunk) -> Option<News> {
        let waiting = {
            let mut queue = self.shared.queue();
            queue.events.push_back(Event::Chunk(chunk));
            queue.waiting
        };
        (waiting > 0 || self.shared.waker().is_some())
            .then(|| News { shared: Arc::clone(&self.shared), waiting })
    }

    /// Sends the last event.
    pub(super) fn end(&self, event: Event) {
        let waiting = {
            let mut queue = self.shared.queue();
            if queue.ended {
                return;
            }
            queue.events.push_back(event);
            queue.ended = true;
            queue.waiting
        };
        self.shared.wake(waiting, true);
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        self.end(Event::Failed(super::closed()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    /// Sends a chunk, and tells of it.
    fn tell(sender: &EventSender, text: &str) {
        let chunk = Chunk { text: text.to_owned(), token_ids: vec![1], logprobs: None };
        sender.chunk(chunk).into_iter().for_each(News::tell);
    }

    #[test]
    fn events_arrive_in_order_and_then_end() {
        let (sender, stream) = channel();
        tell(&sender, "a");
        sender.end(Event::Failed(super::super::closed()));
        drop(sender);
        assert!(matches!(stream.next(SOON), Poll::Event(Event::Chunk(chunk)) if chunk.text == "a"));
        assert!(matches!(stream.next(SOON), Poll::Event(Event::Failed(_))));
        assert!(matches!(stream.next(SOON), Poll::End));
    }

    #[test]
    fn every_waiting_thread_is_woken() {
        let (sender, stream) = channel();
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..3).map(|_| scope.spawn(|| stream.next(SOON))).collect();
            while stream.shared.queue().waiting < 3 {
                std::thread::yield_now();
            }
            tell(&sender, "a");
            sender.end(Event::Failed(super::super::closed()));
            let found: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
            let count = |wanted: fn(&Poll) -> bool| found.iter().filter(|&poll| wanted(poll)).count();
            assert_eq!(count(|poll| matches!(poll, Poll::Event(Event::Chunk(_)))), 1, "{found:?}");
            assert_eq!(count(|poll| matches!(poll, Poll::Event(Event::Failed(_)))), 1, "{found:?}");
            assert_eq!(count(|poll| matches!(poll, Poll::End)), 1, "{found:?}");
        });
        assert_eq!(stream.shared.queue().waiting, 0);
    }

    #[test]
    fn a_lost_sender_ends_the_stream() {
        let (sender, stream) = channel();
        assert!(matches!(stream.next(Duration::ZERO), Poll::Pending));
        drop(sender);
        assert!(matches!(stream.next(SOON), Poll::Event(Event::Failed(_))));
        assert!(matches!(stream.next(SOON), Poll::End));
    }

    #[test]
    fn a_dropped_stream_cancels() {
        let (sender, stream) = channel();
        assert!(!sender.is_cancelled());
        drop(stream);
        assert!(sender.is_cancelled());
    }

    #[test]
    fn a_late_waker_is_told_of_waiting_events() {
        let (sender, stream) = channel();
        tell(&sender, "a");
        let calls = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&calls);
        stream.on_event(Box::new(move |ended| seen.lock().unwrap().push(ended)));
        assert_eq!(*calls.lock().unwrap(), [false]);
        drop(sender);
        assert_eq!(*calls.lock().unwrap(), [false, true]);
    }
}
