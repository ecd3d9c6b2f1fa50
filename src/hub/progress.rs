//! How far a download has come: told to a callback, drawn as a bar.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressStyle};

use super::options::Settings;

/// How far the download of one file has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Name of the file in its repository.
    pub file: String,
    /// Bytes on this machine, those of earlier tries included. It falls when a download starts over.
    pub done: u64,
    /// Bytes of the whole file, when the server says.
    pub total: Option<u64>,
}

/// Work on fewer bytes is done before a bar could be read.
const WORTH_A_BAR: u64 = 64 << 20;

/// A bar for work in bytes that is no download, such as laying out weights: to be told the bytes done and the bytes in all.
/// It is drawn when standard error is a terminal and the work is not small, and goes away at the end.
pub fn work_bar(what: &'static str) -> impl Fn(u64, u64) + Send + Sync {
    let bar = Mutex::new(None::<ProgressBar>);
    move |done, total| {
        if total < WORTH_A_BAR || !std::io::stderr().is_terminal() {
            return;
        }
        let mut bar = bar.lock().unwrap_or_else(PoisonError::into_inner);
        let file = || Progress { file: what.to_owned(), done, total: Some(total) };
        let drawn = bar.get_or_insert_with(|| new_bar(&file()));
        drawn.set_position(done);
        if done >= total {
            drawn.finish_and_clear();
            *bar = None;
        }
    }
}

/// A bar for work that is counted in things, of which there are `total` if that is known. indicatif draws it on standard error
/// when that is a terminal.
pub fn count_bar(doing: &str, things: &str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => {
            (ProgressBar::new(total), format!("{doing} [{{wide_bar}}] {{pos}}/{{len}} {things} ({{eta}})"))
        }
        None => (ProgressBar::no_length(), format!("{{spinner}} {doing} {{pos}} {things} ({{elapsed}})")),
    };
    // A template that indicatif refuses leaves its default style.
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}

/// Passes progress on to the caller's callback and to the bar.
pub(super) struct Reporter<'a> {
    settings: &'a Settings,
    bar: Option<(String, ProgressBar)>,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        Self { settings, bar: None }
    }

    pub(super) fn show(&mut self, progress: &Progress) {
        if let Some(callback) = &self.settings.progress {
            callback(progress);
        }
        if !self.settings.bar || !std::io::stderr().is_terminal() {
            return;
        }
        if self.bar.as_ref().is_none_or(|(file, _)| *file != progress.file) {
            self.finish();
            self.bar = Some((progress.file.clone(), new_bar(progress)));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_position(progress.done);
        }
    }

    fn finish(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.abandon();
        }
    }
}

impl Drop for Reporter<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

fn new_bar(progress: &Progress) -> ProgressBar {
    let bar = match progress.total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::no_length(),
    };
    // A template that indicatif refuses leaves its default style, so a bar never fails a download.
    if let Ok(style) =
        ProgressStyle::with_template("{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} ({eta})")
    {
        bar.set_style(style);
    }
    bar.set_message(progress.file.clone());
    bar
}
