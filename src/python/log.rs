//! The crate's log records, handed to `logging.getLogger("phicandle")`.
//!
//! Records come from threads that must not touch Python, so they wait in a short queue until a Python thread passes
//! through a door.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};
use pyo3::prelude::*;

/// Records kept while no Python thread passes; the oldest make room.
const CAPACITY: usize = 256;

/// The name of the Python logger.
const LOGGER: &str = "phicandle";

static BRIDGE: Bridge = Bridge { queue: Mutex::new(VecDeque::new()), waiting: AtomicBool::new(false) };
/// The process that the bridge was set up in.
static PID: OnceLock<u32> = OnceLock::new();

struct Bridge {
    queue: Mutex<VecDeque<(Level, String)>>,
    waiting: AtomicBool,
}

impl Bridge {
    fn queue(&self) -> MutexGuard<'_, VecDeque<(Level, String)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Bridge {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().split("::").next() == Some(LOGGER)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let mut queue = self.queue();
            if queue.len() == CAPACITY {
                queue.pop_front();
            }
            queue.push_back((record.level(), record.args().to_string()));
            self.waiting.store(true, Ordering::Release);
        }
    }

    fn flush(&self) {}
}

/// Sets the bridge up and takes over the Python logger's level. Called when something is about to be loaded.
pub(super) fn connect(py: Python<'_>) -> PyResult<()> {
    let mine = PID.get_or_init(std::process::id);
    if *mine == std::process::id() {
        // Refused when the command line has set a logger of its own; that one then shows the records.
        let _ = log::set_logger(&BRIDGE);
        log::set_max_level(level(py)?);
    }
    Ok(())
}

fn level(py: Python<'_>) -> PyResult<LevelFilter> {
    let level: i64 = logger(py)?.call_method0("getEffectiveLevel")?.extract()?;
    Ok(match level {
        ..10 => LevelFilter::Trace,
        10..20 => LevelFilter::Debug,
        20..30 => LevelFilter::Info,
        30..40 => LevelFilter::Warn,
        _ => LevelFilter::Error,
    })
}

/// Hands over the records that have gathered.
pub(super) fn drain(py: Python<'_>) {
    // In a forked child the queue's lock may be held by a thread that is not there.
    if !BRIDGE.waiting.load(Ordering::Acquire) || PID.get() != Some(&std::process::id()) {
        return;
    }
    BRIDGE.waiting.store(false, Ordering::Release);
    let records = std::mem::take(&mut *BRIDGE.queue());
    if let Err(error) = emit(py, records) {
        // A handler that fails must not fail the caller's request.
        error.write_unraisable(py, None);
    }
}

fn emit(py: Python<'_>, records: VecDeque<(Level, String)>) -> PyResult<()> {
    let logger = logger(py)?;
    for (level, message) in records {
        logger.call_method1("log", (number(level), "%s", message))?;
    }
    Ok(())
}

fn logger(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import("logging")?.call_method1("getLogger", (LOGGER,))
}

/// Python's number for a level; it has no name below `DEBUG`.
fn number(level: Level) -> u8 {
    match level {
        Level::Error => 40,
        Level::Warn => 30,
        Level::Info => 20,
        Level::Debug => 10,
        Level::Trace => 5,
    }
}
