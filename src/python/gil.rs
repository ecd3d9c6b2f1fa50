//! The one way in from Python and the one way out of the GIL.
//!
//! [`enter`] or [`guard`] is around every door: a panic arrives as `InternalError`, never as `PanicException`, which `except
//! Exception` would miss. [`free`] and [`wait`] give the GIL back while Rust computes or waits. No thread of Rust's
//! own ever attaches to Python.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::thread::ThreadId;
use std::time::Duration;

use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;

use super::error::raise;
use super::log;
use crate::engine::panic_text;
use crate::error::{Error, ErrorKind, Result};

/// Longest wait between two looks at Python's signals: Ctrl-C has an effect within it. A token of a large model comes sooner,
/// so that its reader wakes for the token alone.
pub(super) const SLICE: Duration = Duration::from_millis(100);

/// The thread that ends the interpreter, once it does.
static LEAVING: OnceLock<ThreadId> = OnceLock::new();

/// Runs a door's body as [`guard`] does, and ends the thread once the interpreter ends, as [`leave`] says.
pub(super) fn enter<T>(py: Python<'_>, body: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    let outcome = guard(py, body);
    if is_left() {
        // Of all the ways to end a thread, `threading` is silent about this one.
        return Err(PySystemExit::new_err(()));
    }
    outcome
}

/// Runs a door's body: a panic in it becomes `InternalError`, and log records that have gathered go to `logging`. For what only
/// tells something that is there.
pub(super) fn guard<T>(py: Python<'_>, body: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic_text(panic.as_ref());
        Err(raise(py, &Error::internal(format!("The Rust core panicked: {text}."))))
    });
    log::drain(py);
    outcome
}

/// Whether another thread ends the interpreter.
fn is_left() -> bool {
    LEAVING.get().is_some_and(|leaver| *leaver != std::thread::current().id())
}

/// Whether another thread ends the interpreter, and an event loop runs in this one. Its task would end with an error that nobody
/// asks for, and asyncio would say so; it may wait instead.
pub(super) fn is_left_in_loop(py: Python<'_>) -> bool {
    let runs = || py.import("asyncio.events")?.call_method0("_get_running_loop");
    is_left() && runs().is_ok_and(|found| !found.is_none())
}

/// Notes that the interpreter ends, on the thread that ends it. From now on every door ends the thread that passes through it,
/// if it is another one: a daemon thread in the middle of an answer would else show an error that nobody can do anything
/// about, and one that stayed at its door would block whoever joins it.
#[pyfunction]
pub(super) fn leave() {
    LEAVING.get_or_init(|| std::thread::current().id());
}

/// Runs `work`, which takes no longer than its input asks for, without the GIL.
pub(super) fn free<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    py.detach(work).map_err(|error| raise(py, &error))
}

/// Calls `look` without the GIL until it has something, and Python's signal handlers in between. `look` may wait for up
/// to the time that it is given.
///
/// # Errors
/// What a signal handler raises: `KeyboardInterrupt`, as a rule.
pub(super) fn wait<T: Send>(
    py: Python<'_>,
    mut look: impl FnMut(Duration) -> Option<T> + Send,
) -> PyResult<T> {
    loop {
        if let Some(found) = py.detach(|| look(SLICE)) {
            return Ok(found);
        }
        py.check_signals()?;
        log::drain(py);
    }
}

/// Refuses what was made in another process: a forked child has the memory of its parent, but not its threads.
pub(super) fn same_process(pid: u32) -> Result<()> {
    if pid == std::process::id() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Fork,
        "This object was made in the parent process; a forked child has none of its threads.",
        "Make a new Generator in the child, or start workers with spawn or forkserver.",
    ))
}

/// Panics on purpose, so that a test can see a panic arrive as `InternalError`: no input of a caller is known to make
/// the core panic, and the way out must not be tried for the first time by a user.
#[pyfunction]
pub(super) fn panic_for_test(py: Python<'_>) -> PyResult<()> {
    #[expect(clippy::panic, reason = "the purpose of this door")]
    enter(py, || free(py, || panic!("a panic for a test")))
}
