//! The door of the engine: callers that submit and close, and the worker that takes in, works and ends.
//!
//! The worker of the crate computes, and cannot be built here. So this is its skeleton: the steps of `Engine::submit`, `close` and
//! the loop of `src/engine/worker.rs`, in their order, around the crate's own queue of events and places. Who changes the order
//! there has to change it here.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::event::{Chunk, Event, EventSender, EventStream, Poll, channel};
use super::inbox::{Inbox, Post, inbox};
use super::ticket::Ticket;
use crate::error::{Error, ErrorKind};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, thread};

/// Places in the engine.
const MOST: usize = 2;

/// A request inside: it asks for a last event, or for a panic.
struct Sequence {
    events: EventSender,
    panics: bool,
    _ticket: Ticket,
}

#[derive(Default)]
struct Status {
    closing: AtomicBool,
    broken: Mutex<Option<Error>>,
}

struct Engine {
    door: Mutex<Option<(Post<Sequence>, thread::JoinHandle<()>)>>,
    status: Arc<Status>,
    taken: Arc<AtomicUsize>,
}

impl Engine {
    fn start() -> Self {
        let status = Arc::new(Status::default());
        let (post, requests) = inbox();
        let seen = Arc::clone(&status);
        let worker = thread::spawn(move || work(&requests, &seen));
        Self { door: Mutex::new(Some((post, worker))), status, taken: Arc::default() }
    }

    fn submit(&self, panics: bool) -> Result<EventStream, Error> {
        if self.status.closing.load(Ordering::Acquire) {
            return Err(super::closed());
        }
        if let Some(error) = self.status.broken.lock().unwrap().clone() {
            return Err(error);
        }
        let ticket = Ticket::take(&self.taken, MOST).ok_or_else(|| {
            Error::new(ErrorKind::QueueFull { retry_after: Duration::ZERO }, "Full.", "Wait.")
        })?;
        let (events, stream) = channel();
        let door = self.door.lock().unwrap();
        let sent =
            door.as_ref().ok_or_else(super::closed)?.0.send(Sequence { events, panics, _ticket: ticket });
        drop(door);
        match sent {
            Ok(()) => Ok(stream),
            Err(_) => Err(self.status.broken.lock().unwrap().clone().unwrap_or_else(super::closed)),
        }
    }

    fn close(&self) {
        self.status.closing.store(true, Ordering::Release);
        let door = self.door.lock().unwrap().take();
        if let Some((post, worker)) = door {
            drop(post);
            worker.join().unwrap();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

fn work(requests: &Inbox<Sequence>, status: &Status) {
    let mut waiting = Vec::new();
    while receive(&mut waiting, requests, status) {
        let stepped = catch_unwind(AssertUnwindSafe(|| step(&mut waiting)));
        if stepped.is_err() {
            let error = Error::internal("The worker panicked.");
            *status.broken.lock().unwrap() = Some(error.clone());
            for sequence in waiting.drain(..).chain(requests.rest()) {
                sequence.events.end(Event::Failed(error.clone()));
            }
            return;
        }
    }
}

/// Takes in what has arrived, waiting for it when there is nothing to do. False: the engine closes.
fn receive(waiting: &mut Vec<Sequence>, requests: &Inbox<Sequence>, status: &Status) -> bool {
    if waiting.is_empty() {
        match requests.wait() {
            Some(sequence) => waiting.push(sequence),
            None => return false,
        }
    }
    if status.closing.load(Ordering::Acquire) {
        return false;
    }
    waiting.extend(requests.rest());
    true
}

/// Ends the first one, as its last event says.
fn step(waiting: &mut Vec<Sequence>) {
    if waiting[0].panics {
        resume_unwind(Box::new("scripted"));
    }
    let sequence = waiting.remove(0);
    sequence.events.chunk(Chunk { text: "a".to_owned(), ..Chunk::default() });
    // A normal end carries nothing that this model looks at: a kind of its own stands for it.
    sequence.events.end(Event::Failed(Error::invalid("end", "The end.", "")));
}

/// How a request ended.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Ended {
    Whole,
    Closed,
    Broken,
    Full,
}

fn kind(error: &Error) -> Ended {
    match error.kind() {
        ErrorKind::InvalidParameter { .. } => Ended::Whole,
        ErrorKind::Closed => Ended::Closed,
        ErrorKind::Internal => Ended::Broken,
        ErrorKind::QueueFull { .. } => Ended::Full,
        other => panic!("{other:?}"),
    }
}

/// Submits, and reads to the end.
fn ask(engine: &Engine, panics: bool) -> Ended {
    let stream = match engine.submit(panics) {
        Ok(stream) => stream,
        Err(error) => return kind(&error),
    };
    loop {
        match stream.next(Duration::from_secs(3600)) {
            Poll::Event(Event::Chunk(_)) => {}
            Poll::Event(Event::Failed(error)) => return kind(&error),
            other => panic!("{other:?}"),
        }
    }
}

/// One thread asks while another closes.
pub fn a_request_and_a_close_both_end() {
    let engine = Arc::new(Engine::start());
    let other = Arc::clone(&engine);
    let asking = thread::spawn(move || ask(&other, false));
    engine.close();
    let ended = asking.join().unwrap();
    assert!(matches!(ended, Ended::Whole | Ended::Closed), "{ended:?}");
    assert_eq!(ask(&engine, false), Ended::Closed);
    assert_eq!(engine.taken.load(Ordering::SeqCst), 0);
}

/// Two threads close at once, one of them by dropping the last handle.
pub fn two_closes_both_end() {
    let engine = Arc::new(Engine::start());
    let other = Arc::clone(&engine);
    let closing = thread::spawn(move || other.close());
    drop(engine);
    closing.join().unwrap();
}

/// Two threads ask, one for a panic: each gets an end, and who comes later is told that the engine broke.
pub fn a_panic_is_told_to_all() {
    let engine = Arc::new(Engine::start());
    let other = Arc::clone(&engine);
    let asking = thread::spawn(move || ask(&other, false));
    assert_eq!(ask(&engine, true), Ended::Broken);
    let ended = asking.join().unwrap();
    // Closed: it came between the worker's last look at its requests and its end.
    assert!(matches!(ended, Ended::Whole | Ended::Broken | Ended::Closed), "{ended:?}");
    assert_eq!(ask(&engine, false), Ended::Broken);
    engine.close();
    assert_eq!(engine.taken.load(Ordering::SeqCst), 0);
}

/// The engine goes away while a thread reads.
pub fn the_last_handle_may_go_first() {
    let engine = Engine::start();
    let stream = engine.submit(false).unwrap();
    let reading = thread::spawn(move || {
        loop {
            match stream.next(Duration::from_secs(3600)) {
                Poll::Event(Event::Chunk(_)) => {}
                Poll::Event(Event::Failed(error)) => return kind(&error),
                other => panic!("{other:?}"),
            }
        }
    });
    drop(engine);
    let ended = reading.join().unwrap();
    assert!(matches!(ended, Ended::Whole | Ended::Closed), "{ended:?}");
}
