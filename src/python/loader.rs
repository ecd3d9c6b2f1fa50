//! Loading on a thread of its own, while the calling Python thread listens for Ctrl-C and passes progress on.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;

use super::error::raise;
use super::{gil, log};
use crate::engine::panic_text;
use crate::error::{Error, ErrorKind, Result};
use crate::hub::{CancelFn, Progress, ProgressFn};

/// The first process that loaded a model here; 0 before that.
static LOADED_IN: AtomicU32 = AtomicU32::new(0);

enum News<T> {
    Progress(Progress),
    Done(Result<T>),
}

/// Runs `work` on a thread of its own and returns its result. `callback` gets the progress of downloads, on the calling
/// thread.
///
/// # Errors
/// The error of `work`; what `callback` raises; `KeyboardInterrupt`. In the last two cases `work` is told to stop.
pub(super) fn load<T, W>(py: Python<'_>, callback: Option<&Bound<'_, PyAny>>, work: W) -> PyResult<T>
where
    T: Send + 'static,
    W: FnOnce(ProgressFn, CancelFn) -> Result<T> + Send + 'static,
{
    log::connect(py)?;
    let stopped = Arc::new(AtomicBool::new(false));
    let news = start(Arc::clone(&stopped), work).map_err(|error| raise(py, &error))?;
    let outcome = listen(py, callback, &news);
    if outcome.is_err() {
        stopped.store(true, Ordering::Release);
    }
    outcome?.map_err(|error| raise(py, &error))
}

/// Refuses to compute in a forked child of a process that has computed: the threads that Candle keeps are not there, and
/// it would wait for them forever.
///
/// # Errors
/// [`ErrorKind::Fork`].
pub(super) fn check_fork() -> Result<()> {
    let here = std::process::id();
    match LOADED_IN.compare_exchange(0, here, Ordering::AcqRel, Ordering::Acquire) {
        Err(there) if there != here => Err(Error::new(
            ErrorKind::Fork,
            "The parent process loaded a model before this one was forked from it, so the threads that compute are missing here.",
            "Load models only in the child, or start workers with spawn or forkserver.",
        )),
        _ => Ok(()),
    }
}

/// The process that the threads which compute are in; 0 before the first load.
pub(super) fn loaded_in() -> u32 {
    LOADED_IN.load(Ordering::Acquire)
}

fn start<T, W>(stopped: Arc<AtomicBool>, work: W) -> Result<Mutex<Receiver<News<T>>>>
where
    T: Send + 'static,
    W: FnOnce(ProgressFn, CancelFn) -> Result<T> + Send + 'static,
{
    let (sender, news) = channel();
    let run = move || {
        let progress = progress(sender.clone());
        let cancel: CancelFn = Arc::new(move || stopped.load(Ordering::Acquire));
        let body = std::panic::AssertUnwindSafe(|| work(progress, cancel));
        let result = std::panic::catch_unwind(body).unwrap_or_else(|panic| {
            Err(Error::internal(format!("Loading panicked: {}.", panic_text(panic.as_ref()))))
        });
        // The listener has left when Ctrl-C came: the result is dropped here.
        let _ = sender.send(News::Done(result));
    };
    std::thread::Builder::new()
        .name("phicandle-load".to_owned())
        .spawn(run)
        .map_err(|error| Error::internal(format!("The thread that loads did not start: {error}.")))?;
    Ok(Mutex::new(news))
}

fn progress<T: Send + 'static>(sender: Sender<News<T>>) -> ProgressFn {
    let sender = Mutex::new(sender);
    Arc::new(move |progress: &Progress| {
        let sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = sender.send(News::Progress(progress.clone()));
    })
}

fn listen<T: Send>(
    py: Python<'_>,
    callback: Option<&Bound<'_, PyAny>>,
    news: &Mutex<Receiver<News<T>>>,
) -> PyResult<Result<T>> {
    loop {
        let next = gil::wait(py, |slice| {
            let news = news.lock().unwrap_or_else(PoisonError::into_inner);
            match news.recv_timeout(slice) {
                Ok(next) => Some(next),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    Some(News::Done(Err(Error::internal("The thread that loads went away."))))
                }
            }
        })?;
        match (next, callback) {
            (News::Done(result), _) => return Ok(result),
            (News::Progress(now), Some(callback)) => {
                callback.call1((now.file, now.done, now.total))?;
            }
            (News::Progress(_), None) => {}
        }
    }
}
