//! Work on the network, on a thread of its own, so that the caller's thread stays able to stop it.
//!
//! A read from a silent server, or the lookup of a name, cannot be interrupted. The caller's thread therefore only
//! waits: it passes progress on and asks ten times a second whether to stop.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

use super::faults;
use super::options::Settings;
use super::progress::{Progress, Reporter};

/// How often the caller's thread asks whether to stop.
const TICK: Duration = Duration::from_millis(100);
/// How long a stopped job may take to put its work away before it is left to end by itself.
const FAREWELL: Duration = Duration::from_millis(500);
/// Least time between two reports of progress.
const REPORT: Duration = Duration::from_millis(50);

/// The worker's side: whether to go on, and where progress goes.
pub(super) struct Job {
    stop: Arc<AtomicBool>,
    report: Box<dyn Fn(Progress) + Send>,
    whole: RefCell<Option<Whole>>,
}

/// Several files that are reported as one.
struct Whole {
    name: String,
    /// Bytes of the files that are here.
    before: u64,
    total: Option<u64>,
}

enum Event<T> {
    Progress(Progress),
    Done(Result<T>),
}

impl Job {
    /// An error once the caller has asked to stop.
    pub(super) fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(faults::stopped()) } else { Ok(()) }
    }

    /// Waits, unless stopped.
    pub(super) fn sleep(&self, wait: Duration) -> Result<()> {
        let end = Instant::now() + wait;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(TICK / 2));
        }
    }

    /// Reports the files from here on as one of `total` bytes by the name of `name`.
    pub(super) fn begin_whole(&self, name: &str, total: Option<u64>) {
        self.whole.replace(Some(Whole { name: name.to_owned(), before: 0, total }));
    }

    /// One file of several is here, with `bytes`.
    pub(super) fn add_to_whole(&self, bytes: u64) {
        if let Some(whole) = self.whole.borrow_mut().as_mut() {
            whole.before += bytes;
        }
    }

    /// What follows is reported file by file again.
    pub(super) fn end_whole(&self) {
        self.whole.replace(None);
    }

    fn send(&self, progress: Progress) {
        (self.report)(match self.whole.borrow().as_ref() {
            None => progress,
            Some(whole) => {
                Progress { file: whole.name.clone(), done: whole.before + progress.done, total: whole.total }
            }
        });
    }
}

/// Reports one file's progress, not more often than the eye can follow.
pub(super) struct Meter<'a> {
    job: &'a Job,
    file: &'a str,
    total: Option<u64>,
    last: Option<Instant>,
}

impl<'a> Meter<'a> {
    pub(super) fn new(job: &'a Job, file: &'a str, total: Option<u64>) -> Self {
        Self { job, file, total, last: None }
    }

    /// `done` bytes are here. The first and the last byte are always reported.
    pub(super) fn at(&mut self, done: u64) {
        let due = self.last.is_none_or(|last| last.elapsed() >= REPORT) || Some(done) == self.total;
        if due {
            self.last = Some(Instant::now());
            self.job.send(Progress { file: self.file.to_owned(), done, total: self.total });
        }
    }
}

/// Runs `work` on a thread of its own and waits for it.
pub(super) fn attend<T: Send + 'static>(
    settings: &Settings,
    work: impl FnOnce(&Job) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, events) = channel::<Event<T>>();
    let stop = Arc::new(AtomicBool::new(false));
    let job = Job { stop: Arc::clone(&stop), report: reporter(sender.clone()), whole: RefCell::default() };
    std::thread::Builder::new()
        .name("phicandle-hub".to_owned())
        .spawn(move || {
            let result = work(&job);
            // The caller may have stopped waiting; then nobody wants the result.
            drop(sender.send(Event::Done(result)));
        })
        .map_err(|error| Error::internal(format!("No thread could be started for the hub: {error}.")))?;

    let mut reporter = Reporter::new(settings);
    let mut stopped_at: Option<Instant> = None;
    loop {
        if stopped_at.is_none() && settings.cancel.as_ref().is_some_and(|cancel| cancel()) {
            stop.store(true, Ordering::Relaxed);
            stopped_at = Some(Instant::now());
        }
        if stopped_at.is_some_and(|at| at.elapsed() >= FAREWELL) {
            return Err(faults::stopped());
        }
        match events.recv_timeout(TICK) {
            Ok(Event::Progress(progress)) => reporter.show(&progress),
            Ok(Event::Done(result)) => return result,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::internal("The thread that talks to the hub ended without a result."));
            }
        }
    }
}

fn reporter<T: Send + 'static>(sender: Sender<Event<T>>) -> Box<dyn Fn(Progress) + Send> {
    Box::new(move |progress| drop(sender.send(Event::Progress(progress))))
}
