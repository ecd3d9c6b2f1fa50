//! One step of the engine: plan, forward, accept. No thread and no channel, so that it is tested without either.

use super::scheduler::Scheduler;
use super::sequence::{Ending, Sequence};
use super::stats::Usage;
use crate::error::Error;
use crate::model::{Forward, Logits};

/// What one step changed, for the engine's statistics.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) prompt_tokens: u64,
    pub(super) finished: u64,
    pub(super) completion_tokens: u64,
}

impl Progress {
    fn count(&mut self, usage: Usage) {
        self.finished += 1;
        self.completion_tokens += usage.completion_tokens as u64;
    }
}

/// Ends what was interrupted, fills the free slots, and runs one pass for all of them.
pub(super) fn step(scheduler: &mut Scheduler, model: &mut dyn Forward, logits: &mut Logits) -> Progress {
    let mut progress = Progress::default();
    end_interrupted(scheduler, model, &mut progress);
    scheduler.admit();
    let batch = scheduler.plan();
    if batch.runs.is_empty() {
        return progress;
    }
    if let Err(error) = model.forward(&batch, logits) {
        for run in &batch.runs {
            fail(scheduler, model, run.slot, &error, &mut progress);
        }
        return progress;
    }
    let mut rows = logits.rows_mut();
    for run in &batch.runs {
        let Some(sequence) = scheduler.slot_mut(run.slot) else { continue };
        if run.tokens.len() > 1 || run.start == 0 || !run.wants_logits {
            progress.prompt_tokens += run.tokens.len() as u64;
        }
        sequence.advance(run.tokens.len());
        if !run.wants_logits {
            continue;
        }
        let accepted = match rows.next() {
            Some(row) => sequence.accept(row),
            None => Err(Error::internal("The model gave fewer rows of logits than it was asked for.")),
        };
        match accepted {
            Ok(None) => {}
            Ok(Some(ending)) => end(scheduler, model, run.slot, ending, &mut progress),
            Err(error) => fail(scheduler, model, run.slot, &error, &mut progress),
        }
    }
    progress
}

fn end_interrupted(scheduler: &mut Scheduler, model: &mut dyn Forward, progress: &mut Progress) {
    for sequence in scheduler.take_interrupted_waiting() {
        if let Some(ending) = sequence.interrupted() {
            progress.count(sequence.finish(ending, 0));
        }
    }
    for slot in scheduler.active() {
        if let Some(ending) = scheduler.slot_mut(slot).and_then(|sequence| sequence.interrupted()) {
            end(scheduler, model, slot, ending, progress);
        }
    }
}

fn end(
    scheduler: &mut Scheduler,
    model: &mut dyn Forward,
    slot: usize,
    ending: Ending,
    progress: &mut Progress,
) {
    if let Some(sequence) = leave(scheduler, model, slot) {
        let (sequence, kv_bytes) = sequence;
        progress.count(sequence.finish(ending, kv_bytes));
    }
}

fn fail(
    scheduler: &mut Scheduler,
    model: &mut dyn Forward,
    slot: usize,
    error: &Error,
    progress: &mut Progress,
) {
    if let Some((sequence, _)) = leave(scheduler, model, slot) {
        sequence.fail(error.clone());
        progress.finished += 1;
    }
}

/// Takes the sequence out of `slot` and frees its keys and values.
fn leave(scheduler: &mut Scheduler, model: &mut dyn Forward, slot: usize) -> Option<(Sequence, u64)> {
    let sequence = scheduler.take(slot)?;
    let kv_bytes = model.kv_bytes(slot);
    model.release(slot);
    Some((sequence, kv_bytes))
}
