//! The library's log as lines on standard error.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;
use log::{Level, LevelFilter, Log, Metadata, Record};

/// What is being drawn on standard error; log lines go above it.
static SPINNER: Mutex<Option<ProgressBar>> = Mutex::new(None);

struct Lines;

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Other crates' news is for people who debug them.
        metadata.target().starts_with("phicandle")
            || metadata.level() <= Level::Warn
            || log::max_level() >= LevelFilter::Debug
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let label = match record.level() {
                Level::Error => "error",
                Level::Warn => "warning",
                Level::Info => "info",
                Level::Debug => "debug",
                Level::Trace => "trace",
            };
            let write = || {
                // Nothing can be done about a log line that finds no reader.
                let _ = writeln!(std::io::stderr(), "{label}: {}", record.args());
            };
            match &*SPINNER.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(spinner) => spinner.suspend(write),
                None => write(),
            }
        }
    }

    fn flush(&self) {}
}

/// Sends log lines of the chosen level to standard error, unless the program has a logger already (Python's does).
pub(super) fn install(quiet: bool, verbose: u8) {
    if log::set_logger(&Lines).is_ok() {
        log::set_max_level(match (quiet, verbose) {
            (true, _) => LevelFilter::Error,
            (false, 0) => LevelFilter::Warn,
            (false, 1) => LevelFilter::Info,
            (false, _) => LevelFilter::Debug,
        });
    }
}

/// Draws `spinner` below the log until it is dropped.
pub(super) struct Drawn;

impl Drawn {
    pub(super) fn new(spinner: ProgressBar) -> Self {
        *SPINNER.lock().unwrap_or_else(PoisonError::into_inner) = Some(spinner);
        Self
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        if let Some(spinner) = SPINNER.lock().unwrap_or_else(PoisonError::into_inner).take() {
            spinner.finish_and_clear();
        }
    }
}
