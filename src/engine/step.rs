//! One step of the engine: plan, forward, accept. No thread and no channel, so that it is tested without either.

use super::scheduler::Scheduler;
use super::sequence::{Ending, Sequence};
use crate::error::{Error, Result};
use crate::model::{Factors, Forward, Logits, Run};

/// What one step changed.
#[derive(Default)]
pub(super) struct Progress {
    /// Tokens of prompts computed.
    pub(super) prompt_tokens: u64,
    /// Sequences that ended. Their readers are told by [`Ended::tell`], after the statistics are up to date.
    pub(super) ended: Vec<Ended>,
}

/// A sequence that has left its slot, and why.
pub(super) struct Ended {
    sequence: Sequence,
    ending: Result<Ending>,
    kv_bytes: u64,
}

impl Ended {
    /// Tokens that the sequence sampled.
    pub(super) fn completion_tokens(&self) -> usize {
        self.sequence.completion_tokens()
    }

    /// Sends the last event.
    pub(super) fn tell(self) {
        match self.ending {
            Ok(ending) => self.sequence.finish(ending, self.kv_bytes),
            Err(error) => self.sequence.fail(error),
        }
    }
}

/// Ends what was interrupted, fills the free slots, and runs one pass for all of them.
/// `closing` says that the engine wants to end.
pub(super) fn step(
    scheduler: &mut Scheduler,
    model: &mut dyn Forward,
    logits: &mut Logits,
    closing: &dyn Fn() -> bool,
) -> Progress {
    let mut progress = Progress::default();
    end_interrupted(scheduler, model, &mut progress);
    scheduler.admit();
    for slot in scheduler.outgrown() {
        model.forget(slot, Factors::Short);
    }
    let batch = scheduler.plan();
    if batch.runs.is_empty() {
        return progress;
    }
    match model.forward(&batch, logits, &|| closing() || scheduler.is_interrupted()) {
        Ok(true) => {}
        // Whoever asked for it leaves at the next step; the others' tokens come again.
        Ok(false) => return progress,
        Err(error) => {
            for run in &batch.runs {
                leave(scheduler, model, run.slot, Err(error.clone()), &mut progress);
            }
            return progress;
        }
    }
    let mut rows = logits.rows_mut();
    for run in &batch.runs {
        let Some(sequence) = scheduler.slot_mut(run.slot) else { continue };
        progress.prompt_tokens += sequence.advance(run) as u64;
        let wanted: Vec<&mut [f32]> = rows.by_ref().take(run.logit_rows()).collect();
        if let Some(ending) = accept(sequence, run, wanted).transpose() {
            leave(scheduler, model, run.slot, ending, &mut progress);
        }
    }
    progress
}

/// Gives a sequence the rows that it asked for, until it ends.
fn accept(sequence: &mut Sequence, run: &Run, rows: Vec<&mut [f32]>) -> Result<Option<Ending>> {
    if rows.len() < run.logit_rows() {
        return Err(Error::internal("The model gave fewer rows of logits than it was asked for."));
    }
    for (row, position) in rows.into_iter().zip(run.start + run.logits_from..) {
        if let Some(ending) = sequence.accept(position, row)? {
            return Ok(Some(ending));
        }
    }
    Ok(None)
}

fn end_interrupted(scheduler: &mut Scheduler, model: &mut dyn Forward, progress: &mut Progress) {
    for sequence in scheduler.take_interrupted_waiting() {
        if let Some(ending) = sequence.interrupted() {
            progress.ended.push(Ended { sequence, ending: Ok(ending), kv_bytes: 0 });
        }
    }
    for slot in scheduler.active() {
        if let Some(ending) = scheduler.slot_mut(slot).and_then(|sequence| sequence.interrupted()) {
            leave(scheduler, model, slot, Ok(ending), progress);
        }
    }
}

/// Takes the sequence out of `slot` and frees its keys and values.
fn leave(
    scheduler: &mut Scheduler,
    model: &mut dyn Forward,
    slot: usize,
    ending: Result<Ending>,
    progress: &mut Progress,
) {
    if let Some(sequence) = scheduler.take(slot) {
        let kv_bytes = model.kv_bytes(slot);
        model.release(slot);
        progress.ended.push(Ended { sequence, ending, kv_bytes });
    }
}
