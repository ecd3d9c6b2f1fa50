//! What callers want of the worker besides answers: to take out what it knows of a text, and to put it back.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::prefix::Prefix;
use super::scheduler::Scheduler;
use crate::error::Result;
use crate::model::{Factors, Forward};

/// One of them, and where its outcome goes. Dropped undone, it tells the caller that the engine closed.
pub(super) enum Errand {
    /// The beginning of a text that is known.
    Find { text: Vec<u32>, found: SyncSender<(Factors, Prefix)> },
    /// A block of keys and values: the last one of `text`.
    Learn { factors: Factors, text: Arc<[u32]>, end: usize, bytes: Vec<u8>, learnt: SyncSender<Result<bool>> },
}

impl Errand {
    /// Asks for the beginning of `text` that is known.
    pub(super) fn find(text: &[u32]) -> (Self, Receiver<(Factors, Prefix)>) {
        let (found, outcome) = sync_channel(1);
        (Self::Find { text: text.to_vec(), found }, outcome)
    }

    /// Hands in the block that holds the last of the first `end` tokens of `text`; whether it was kept.
    pub(super) fn learn(
        factors: Factors,
        text: &Arc<[u32]>,
        end: usize,
        bytes: Vec<u8>,
    ) -> (Self, Receiver<Result<bool>>) {
        let (learnt, outcome) = sync_channel(1);
        (Self::Learn { factors, text: Arc::clone(text), end, bytes, learnt }, outcome)
    }

    /// Does it. A caller who is gone does not want to know.
    pub(super) fn run(self, scheduler: &mut Scheduler, model: &mut dyn Forward) {
        match self {
            Self::Find { text, found } => {
                let _ = found.send(scheduler.known(&text));
            }
            Self::Learn { factors, text, end, bytes, learnt } => {
                let _ = learnt.send(scheduler.learn(factors, &text[..end], &bytes, model));
            }
        }
    }
}
