//! The door of the engine: callers that submit and close, and the worker that takes in, works and ends.
//!
//! The worker of the crate computes, and cannot be built here. So this is its skeleton: the steps of `Engine::submit`, of errands,
//! of `close` and of the loop of `src/engine/worker.rs`, in their order, around the crate's own queue of events and places. Who changes the order
//! there has to change it here.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::event::{Chunk, Event, EventSender, EventStream, News, Poll, channel};
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

/// What comes through the door: a request, or an errand with the way back to its caller.
enum Order {
    Request(Sequence),
    Errand(Post<()>),
}

/// What the worker has taken in.
#[derive(Default)]
struct Scheduler {
    waiting: Vec<Sequence>,
    errands: Vec<Post<()>>,
}

impl Scheduler {
    fn take_in(&mut self, order: Order) {
        match order {
            Order::Request(sequence) => self.waiting.push(sequence),
            Order::Errand(errand) => self.errands.push(errand),
        }
    }

    /// The requests. Dropping an errand tells its caller that the engine closed.
    fn drain(&mut self) -> Vec<Sequence> {
        self.errands.clear();
        std::mem::take(&mut self.waiting)
    }
}

#[derive(Default)]
struct Status {
    closing: AtomicBool,
    broken: Mutex<Option<Error>>,
}

struct Engine {
    door: Mutex<Option<(Post<Order>, thread::JoinHandle<()>)>>,
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
        self.check_alive()?;
        let ticket = Ticket::take(&self.taken, MOST).ok_or_else(|| {
            Error::new(ErrorKind::QueueFull { retry_after: Duration::ZERO }, "Full.", "Wait.")
        })?;
        let (events, stream) = channel();
        self.send(Order::Request(Sequence { events, panics, _ticket: ticket }))?;
        Ok(stream)
    }

    /// Has the worker do something that is no request, and waits for it.
    fn run(&self) -> Result<(), Error> {
        self.check_alive()?;
        let (done, outcome) = inbox();
        self.send(Order::Errand(done))?;
        outcome.wait().ok_or_else(|| self.gone())
    }

    fn check_alive(&self) -> Result<(), Error> {
        if self.status.closing.load(Ordering::Acquire) {
            return Err(super::closed());
        }
        self.status.broken.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    fn gone(&self) -> Error {
        self.status.broken.lock().unwrap().clone().unwrap_or_else(super::closed)
    }

    fn send(&self, order: Order) -> Result<(), Error> {
        let door = self.door.lock().unwrap();
        let sent = door.as_ref().ok_or_else(super::closed)?.0.send(order);
        drop(door);
        sent.map_err(|_| self.gone())
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

fn work(requests: &Inbox<Order>, status: &Status) {
    let mut scheduler = Scheduler::default();
    while receive(&mut scheduler, requests, status) {
        let stepped = catch_unwind(AssertUnwindSafe(|| step(&mut scheduler.waiting)));
        if stepped.is_err() {
            let error = Error::internal("The worker panicked.");
            *status.broken.lock().unwrap() = Some(error.clone());
            requests.rest().into_iter().for_each(|order| scheduler.take_in(order));
            for sequence in scheduler.drain() {
                sequence.events.end(Event::Failed(error.clone()));
            }
            return;
        }
        for errand in std::mem::take(&mut scheduler.errands) {
            // A caller who is gone does not want to know.
            let _ = errand.send(());
        }
    }
    drop(scheduler.drain());
}

/// Takes in what has arrived, waiting for it when there is nothing to do. False: the engine closes.
fn receive(scheduler: &mut Scheduler, requests: &Inbox<Order>, status: &Status) -> bool {
    if scheduler.waiting.is_empty() {
        match requests.wait() {
            Some(order) => scheduler.take_in(order),
            None => return false,
        }
    }
    if status.closing.load(Ordering::Acquire) {
        return false;
    }
    requests.rest().into_iter().for_each(|order| scheduler.take_in(order));
    true
}

/// Ends the first one, as its last event says. None: it came for an errand.
fn step(waiting: &mut Vec<Sequence>) {
    if waiting.is_empty() {
        return;
    }
    if waiting[0].panics {
        resume_unwind(Box::new("scripted"));
    }
    let sequence = waiting.remove(0);
    let news = sequence.events.chunk(Chunk { text: "a".to_owned(), ..Chunk::default() });
    news.into_iter().for_each(News::tell);
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

/// How an errand ended.
fn send_out(engine: &Engine) -> Ended {
    match engine.run() {
        Ok(()) => Ended::Whole,
        Err(error) => kind(&error),
    }
}

/// An errand is done beside a request, whichever comes first.
pub fn an_errand_and_a_request_are_both_done() {
    let engine = Arc::new(Engine::start());
    let other = Arc::clone(&engine);
    let asking = thread::spawn(move || ask(&other, false));
    assert_eq!(send_out(&engine), Ended::Whole);
    assert_eq!(asking.join().unwrap(), Ended::Whole);
    engine.close();
    assert_eq!(send_out(&engine), Ended::Closed);
}

/// One thread sends on an errand while another closes: nobody waits for ever.
pub fn an_errand_and_a_close_both_end() {
    let engine = Arc::new(Engine::start());
    let other = Arc::clone(&engine);
    let sending = thread::spawn(move || send_out(&other));
    engine.close();
    let ended = sending.join().unwrap();
    assert!(matches!(ended, Ended::Whole | Ended::Closed), "{ended:?}");
}

/// One thread sends on an errand while another asks for a panic.
pub fn an_errand_ends_when_the_worker_panics() {
    let engine = Arc::new(Engine::start());
    let other = Arc::clone(&engine);
    let sending = thread::spawn(move || send_out(&other));
    assert_eq!(ask(&engine, true), Ended::Broken);
    let ended = sending.join().unwrap();
    assert!(matches!(ended, Ended::Whole | Ended::Broken), "{ended:?}");
    assert_eq!(send_out(&engine), Ended::Broken);
    engine.close();
}
