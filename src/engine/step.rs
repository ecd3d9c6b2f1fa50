//! One step of the engine: plan, forward, accept. No thread and no channel, so that it is tested without either.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use super::scheduler::Scheduler;
use super::sequence::{Ending, Sequence};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Factors, Forward, Logits, Run};

/// A pass that ends within this time is not stopped for those who want to leave: all others in it would lose what it computed.
/// One that is late by as much is.
const SOON: Duration = Duration::from_millis(60);

/// How often to look, during a pass, at what has come and who wants to leave.
const OFTEN: Duration = Duration::from_millis(1);

/// What one step changed.
#[derive(Default)]
pub(super) struct Progress {
    /// Tokens of prompts computed.
    pub(super) prompt_tokens: u64,
    /// Rows that gave a token, and how long the pass took, when there was one.
    pub(super) pass: Option<(usize, Duration)>,
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
    /// One that waited, and was ended by its caller or the clock.
    fn waiting(sequence: Sequence, ending: Ending) -> Self {
        Self { sequence, ending: Ok(ending), kv_bytes: 0 }
    }

    /// The sequence, for what it counted.
    pub(super) fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// Sends the last event.
    pub(super) fn tell(self) {
        match self.ending {
            Ok(ending) => self.sequence.finish(ending, self.kv_bytes),
            Err(error) => self.sequence.fail(error),
        }
    }
}

/// Ends what was interrupted, and there it ends if there was any: whoever left hears of it before anything is computed for others.
/// Else it fills the free slots, and runs one pass for all of them.
///
/// `watch` is called now and then during the pass, which may be long: it may take in new sequences and end those that wait, and
/// says whether the engine wants to end.
pub(super) fn step(
    scheduler: &mut Scheduler,
    model: &mut dyn Forward,
    logits: &mut Logits,
    watch: &dyn Fn(&mut Scheduler) -> bool,
) -> Progress {
    let mut progress = Progress { ended: end_waiting(scheduler), ..Progress::default() };
    end_interrupted(scheduler, model, &mut progress);
    if !progress.ended.is_empty() {
        return progress;
    }
    scheduler.admit(model);
    for slot in scheduler.outgrown() {
        model.forget(slot, Factors::Short);
    }
    let batch = scheduler.next_batch(model);
    if batch.runs.is_empty() {
        return progress;
    }
    let (expected, load) = scheduler.expected(&batch);
    let begun = Instant::now();
    let done = {
        let scheduler = RefCell::new(&mut *scheduler);
        let is_long = || {
            let elapsed = begun.elapsed();
            expected.is_none_or(|expected| elapsed + SOON < expected || elapsed > expected + SOON)
        };
        let looked = Cell::new(begun);
        model.forward(&batch, logits, &|| {
            // A model asks before each of its operations, which may take microseconds.
            if looked.get().elapsed() < OFTEN {
                return false;
            }
            looked.set(Instant::now());
            let mut scheduler = scheduler.borrow_mut();
            watch(&mut scheduler) || (scheduler.is_interrupted() && is_long())
        })
    };
    match done {
        Ok(true) => {}
        // Whoever asked for it leaves at the next step; the others' tokens come again.
        Ok(false) => return progress,
        Err(error) => {
            if matches!(error.kind(), ErrorKind::OutOfMemory { .. }) && scheduler.shrink(model) {
                return progress;
            }
            for run in &batch.runs {
                leave(scheduler, model, run.slot, Err(error.clone()), &mut progress);
            }
            return progress;
        }
    }
    let took = begun.elapsed();
    scheduler.note(load, took);
    let mut rows = logits.rows_mut();
    let mut useful = 0;
    for run in &batch.runs {
        let Some(sequence) = scheduler.slot_mut(run.slot) else { continue };
        progress.prompt_tokens += sequence.advance(run) as u64;
        let wanted: Vec<&mut [f32]> = rows.by_ref().take(run.logit_rows()).collect();
        let accepted = accept(sequence, run, wanted);
        let (count, ending) = match accepted {
            Ok((count, ending)) => (count, ending.map(Ok)),
            Err(error) => (0, Some(Err(error))),
        };
        useful += count;
        sequence.settle(run, count);
        if ending.is_none()
            && let Some(news) = sequence.take_news()
        {
            model.aside(Box::new(|| news.tell()));
        }
        scheduler.keep(run, model);
        if let Some(ending) = ending {
            // Its end tells of the text as well.
            leave(scheduler, model, run.slot, ending, &mut progress);
        }
    }
    progress.pass = Some((useful, took));
    progress
}

/// Gives a sequence the rows that it asked for, until it ends or writes another token than was guessed. How many were of use, and
/// its ending.
fn accept(sequence: &mut Sequence, run: &Run, rows: Vec<&mut [f32]>) -> Result<(usize, Option<Ending>)> {
    if rows.len() < run.logit_rows() {
        return Err(Error::internal("The model gave fewer rows of logits than it was asked for."));
    }
    let mut count = 0;
    for (row, place) in rows.into_iter().zip(run.logits_from..) {
        let position = run.start + place;
        if count > 0 && !sequence.has(position, run.tokens[place]) {
            break;
        }
        count += 1;
        if let Some(ending) = sequence.accept(position, row)? {
            return Ok((count, Some(ending)));
        }
    }
    Ok((count, None))
}

/// Takes out the sequences that wait and were ended by their caller or the clock.
pub(super) fn end_waiting(scheduler: &mut Scheduler) -> Vec<Ended> {
    let ended = scheduler.take_interrupted_waiting().into_iter();
    ended
        .filter_map(|sequence| sequence.interrupted().map(|ending| Ended::waiting(sequence, ending)))
        .collect()
}

fn end_interrupted(scheduler: &mut Scheduler, model: &mut dyn Forward, progress: &mut Progress) {
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
    let kv_bytes = model.kv_bytes(slot);
    if let Some(sequence) = scheduler.take(slot, ending.is_ok(), model) {
        progress.ended.push(Ended { sequence, ending, kv_bytes });
    }
}
