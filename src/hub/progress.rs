//! How far a download has come: told to a callback, drawn as a bar.

use std::io::IsTerminal;

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
