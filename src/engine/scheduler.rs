//! Who computes next: requests wait in order of arrival and move into free slots.

use std::collections::VecDeque;

use super::sequence::Sequence;
use crate::model::{Batch, LOGIT_ROWS, Limits};

/// Waiting sequences, and those in a slot.
pub(super) struct Scheduler {
    waiting: VecDeque<Sequence>,
    slots: Vec<Option<Sequence>>,
    run_tokens: usize,
    /// Tokens for which there is memory.
    kv_tokens: usize,
}

impl Scheduler {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            waiting: VecDeque::new(),
            slots: (0..limits.slots.max(1)).map(|_| None).collect(),
            run_tokens: limits.run_tokens,
            kv_tokens: limits.kv_tokens,
        }
    }

    pub(super) fn push(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.slots.iter().all(Option::is_none)
    }

    /// Waiting and active sequences.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.waiting.len(), self.slots.iter().flatten().count())
    }

    /// Moves waiting sequences into free slots, the longest-waiting first, as long as there is memory for all that they may
    /// grow to. One that fits nowhere alone goes alone.
    pub(super) fn admit(&mut self) {
        let mut taken: usize = self.slots.iter().flatten().map(Sequence::most_tokens).sum();
        for slot in self.slots.iter_mut().filter(|slot| slot.is_none()) {
            let Some(next) = self.waiting.front() else { return };
            let most = next.most_tokens();
            if taken > 0 && taken + most > self.kv_tokens {
                return;
            }
            taken += most;
            *slot = self.waiting.pop_front();
        }
    }

    /// Whether any sequence in a slot was ended by its caller or the clock.
    pub(super) fn is_interrupted(&self) -> bool {
        self.slots.iter().flatten().any(|sequence| sequence.interrupted().is_some())
    }

    /// The next pass: the next tokens of every sequence in a slot, and those that some will need with other factors. A run's worth
    /// of tokens is shared by all of them, so that a pass is not longer for many prompts than for one; a sequence for which none
    /// is left gets one. Rows of logits are shared out in the same way.
    pub(super) fn plan(&mut self) -> Batch {
        let (mut left, mut rows) = (self.run_tokens, LOGIT_ROWS);
        let company = self.slots.iter().flatten().count() > 1;
        let mut runs = Vec::new();
        for (slot, sequence) in self.slots.iter_mut().enumerate() {
            let Some(sequence) = sequence else { continue };
            let run = sequence.next_run(slot, left, rows, company);
            rows = rows.saturating_sub(run.logit_rows());
            left = left.saturating_sub(run.tokens.len());
            runs.push(run);
            if let Some(run) = sequence.run_ahead(slot, left, company) {
                left -= run.tokens.len();
                runs.push(run);
            }
        }
        Batch { runs }
    }

    /// Slots whose keys and values of the short factors are of no use to this pass and any later one. Each is told once.
    pub(super) fn outgrown(&mut self) -> Vec<usize> {
        let slots = self.slots.iter_mut().enumerate();
        slots.filter_map(|(slot, sequence)| sequence.as_mut()?.outgrows().then_some(slot)).collect()
    }

    /// The sequence in `slot`.
    pub(super) fn slot_mut(&mut self, slot: usize) -> Option<&mut Sequence> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Empties `slot`.
    pub(super) fn take(&mut self, slot: usize) -> Option<Sequence> {
        self.slots.get_mut(slot)?.take()
    }

    /// The sequences that wait and have been ended by their caller or the clock.
    pub(super) fn take_interrupted_waiting(&mut self) -> Vec<Sequence> {
        let (ended, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|sequence| sequence.interrupted().is_some());
        self.waiting = waiting;
        Vec::from_iter::<VecDeque<_>>(ended)
    }

    /// The slots in use.
    pub(super) fn active(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|&slot| self.slots[slot].is_some()).collect()
    }

    /// Everything, waiting or active.
    pub(super) fn drain(&mut self) -> Vec<Sequence> {
        self.slots.iter_mut().filter_map(Option::take).chain(self.waiting.drain(..)).collect()
    }
}
