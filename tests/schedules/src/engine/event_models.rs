//! The queue of a request: its readers, its sender, and all that may happen to either end.

use std::sync::Arc;
use std::time::Duration;

use loom::thread;

use super::event::{Chunk, Event, EventSender, EventStream, News, Poll, channel};
use crate::sync::{Condvar, Mutex};

const LONG: Duration = Duration::from_secs(3600);

/// What one reader got until the end.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Got {
    chunks: Vec<String>,
    failures: usize,
}

impl Got {
    fn add(&mut self, event: Event) {
        match event {
            Event::Chunk(chunk) => self.chunks.push(chunk.text),
            Event::Failed(_) => self.failures += 1,
            Event::Finish(_) => panic!("nobody sends one here"),
        }
    }
}

fn chunk(text: &str) -> Chunk {
    Chunk { text: text.to_owned(), ..Chunk::default() }
}

/// Sends a chunk, and tells of it.
fn tell(sender: &EventSender, text: &str) {
    sender.chunk(chunk(text)).into_iter().for_each(News::tell);
}

fn end(sender: &EventSender) {
    sender.end(Event::Failed(super::closed()));
}

/// Waits for every event.
fn read(stream: &EventStream) -> Got {
    let mut got = Got::default();
    loop {
        match stream.next(LONG) {
            Poll::Event(event) => got.add(event),
            Poll::Pending => panic!("an hour has not passed"),
            Poll::End => return got,
        }
    }
}

/// A bell that a waker rings, for a reader that cannot wait in [`EventStream::next`].
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    ring: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.ring.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.ring.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// Two readers wait while two events come.
pub fn each_event_reaches_one_reader_and_the_end_reaches_all() {
    let (sender, stream) = channel();
    let stream = Arc::new(stream);
    let other = Arc::clone(&stream);
    let reader = thread::spawn(move || read(&other));
    let writer = thread::spawn(move || {
        tell(&sender, "a");
        end(&sender);
    });
    let (mine, theirs) = (read(&stream), reader.join().unwrap());
    writer.join().unwrap();
    assert_eq!(mine.chunks.len() + theirs.chunks.len(), 1);
    assert_eq!(mine.failures + theirs.failures, 1);
}

/// One reader, three events.
pub fn events_arrive_in_order() {
    let (sender, stream) = channel();
    let writer = thread::spawn(move || {
        tell(&sender, "a");
        tell(&sender, "b");
        end(&sender);
    });
    assert_eq!(read(&stream), Got { chunks: vec!["a".to_owned(), "b".to_owned()], failures: 1 });
    writer.join().unwrap();
}

/// The sender works until it hears of the cancel; one thread cancels, another reads.
pub fn a_cancel_is_heard_and_the_reader_gets_the_end() {
    let (sender, stream) = channel();
    let stream = Arc::new(stream);
    let other = Arc::clone(&stream);
    let writer = thread::spawn(move || {
        tell(&sender, "a");
        while !sender.is_cancelled() {
            thread::yield_now();
        }
        end(&sender);
    });
    let canceller = thread::spawn(move || other.cancel());
    assert_eq!(read(&stream), Got { chunks: vec!["a".to_owned()], failures: 1 });
    canceller.join().unwrap();
    writer.join().unwrap();
}

/// The reader goes away at any moment; the sender notices, and nothing waits.
pub fn a_dropped_stream_is_noticed() {
    let (sender, stream) = channel();
    let writer = thread::spawn(move || {
        tell(&sender, "a");
        while !sender.is_cancelled() {
            thread::yield_now();
        }
        end(&sender);
    });
    let first = stream.next(Duration::ZERO);
    assert!(matches!(first, Poll::Pending | Poll::Event(Event::Chunk(_))), "{first:?}");
    drop(stream);
    writer.join().unwrap();
}

/// A third thread tells of a chunk, before the end comes or after it.
pub fn news_may_be_told_late() {
    let (sender, stream) = channel();
    let writer = thread::spawn(move || {
        let news = sender.chunk(chunk("a"));
        let teller = thread::spawn(move || news.into_iter().for_each(News::tell));
        end(&sender);
        teller.join().unwrap();
    });
    assert_eq!(read(&stream), Got { chunks: vec!["a".to_owned()], failures: 1 });
    writer.join().unwrap();
}

/// The sender goes away at any moment, with two threads waiting.
pub fn a_lost_sender_ends_every_wait() {
    let (sender, stream) = channel();
    let stream = Arc::new(stream);
    let other = Arc::clone(&stream);
    let reader = thread::spawn(move || read(&other));
    let writer = thread::spawn(move || drop(sender));
    let (mine, theirs) = (read(&stream), reader.join().unwrap());
    writer.join().unwrap();
    assert_eq!(mine.failures + theirs.failures, 1);
}

/// A reader sets its waker while events come, and then reads only when it was woken.
pub fn a_waker_that_is_set_late_misses_nothing() {
    let (sender, stream) = channel();
    let writer = thread::spawn(move || {
        tell(&sender, "a");
        end(&sender);
    });
    let bell = Arc::new(Bell::default());
    let rung = Arc::clone(&bell);
    stream.on_event(Box::new(move |_| rung.ring()));
    let mut got = Got::default();
    bell.wait();
    loop {
        match stream.next(Duration::ZERO) {
            Poll::Event(event) => got.add(event),
            Poll::Pending => bell.wait(),
            Poll::End => break,
        }
    }
    writer.join().unwrap();
    assert_eq!(got, Got { chunks: vec!["a".to_owned()], failures: 1 });
}

/// One thread waits in the queue while another is woken by a waker.
pub fn a_waker_and_a_waiting_thread_are_both_told() {
    let (sender, stream) = channel();
    let stream = Arc::new(stream);
    let other = Arc::clone(&stream);
    let reader = thread::spawn(move || read(&other));
    let bell = Arc::new(Bell::default());
    let rung = Arc::clone(&bell);
    stream.on_event(Box::new(move |_| rung.ring()));
    let writer = thread::spawn(move || end(&sender));
    bell.wait();
    let mine = match stream.next(Duration::ZERO) {
        Poll::Event(_) => 1,
        Poll::End => 0,
        Poll::Pending => panic!("woken for nothing"),
    };
    assert_eq!(mine + reader.join().unwrap().failures, 1);
    writer.join().unwrap();
}
