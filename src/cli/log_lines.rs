//! The library's log as lines on standard error.

use std::io::Write;

use log::{Level, LevelFilter, Log, Metadata, Record};

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
            // Nothing can be done about a log line that finds no reader.
            let _ = writeln!(std::io::stderr(), "{label}: {}", record.args());
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
