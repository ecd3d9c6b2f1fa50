//! Who computes next: requests wait in order of rank, move into free slots, and share the passes and the memory.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::errand::Errand;
use super::guess::LONGEST;
use super::pace::{Load, Pace};
use super::prefix::{Prefix, PrefixTree, common};
use super::sequence::{Rank, Sequence};
use super::slice::{Slice, work};
use super::worker::Order;
use crate::error::Result;
use crate::model::{Batch, Factors, Forward, KV_BLOCK, LOGIT_ROWS, Limits, Run};

/// Most tokens of prompts in a pass for several sequences none of which writes yet: whoever is cancelled takes a pass of the
/// others with it, and one who comes waits for it.
const IN_COMPANY: usize = 96;
/// Tokens that a prompt must have in common with one that is being computed, beyond what it has, to wait for it.
const WORTH_WAITING: usize = 32;
/// Rows of a pass up to which guesses are checked: beyond, a row costs as much as it may gain.
const GUESS_ROWS: usize = 16;

/// Waiting sequences, those in a slot, and what is left of those that were.
pub(super) struct Scheduler {
    waiting: BTreeMap<Rank, Sequence>,
    slots: Vec<Option<Sequence>>,
    limits: Limits,
    /// Blocks of keys and values that may exist.
    budget: usize,
    /// Sequences that came so far.
    arrivals: u64,
    /// There when beginnings are shared.
    prefixes: Option<PrefixTree>,
    pace: Pace,
    errands: Vec<Errand>,
    /// Sequences that gave their slot back before their end.
    preempted: u64,
}

impl Scheduler {
    /// For a model of `limits`. `shares`: sequences begin with what others have computed.
    pub(super) fn new(limits: Limits, shares: bool) -> Self {
        Self {
            waiting: BTreeMap::new(),
            slots: (0..limits.slots.max(1)).map(|_| None).collect(),
            limits,
            budget: limits.kv_tokens.div_ceil(KV_BLOCK),
            arrivals: 0,
            prefixes: (shares && limits.shares).then(PrefixTree::default),
            pace: Pace::default(),
            errands: Vec::new(),
            preempted: 0,
        }
    }

    /// Takes in what came through the door.
    pub(super) fn take_in(&mut self, order: Order) {
        match order {
            Order::Request(sequence) => self.push(*sequence),
            Order::Errand(errand) => self.errands.push(errand),
        }
    }

    /// What is to be done between two passes.
    pub(super) fn errands(&mut self) -> Vec<Errand> {
        std::mem::take(&mut self.errands)
    }

    pub(super) fn push(&mut self, mut sequence: Sequence) {
        self.arrivals += 1;
        sequence.arrives(self.arrivals);
        self.waiting.insert(sequence.rank(), sequence);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.slots.iter().all(Option::is_none)
    }

    /// Waiting and active sequences.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.waiting.len(), self.slots.iter().flatten().count())
    }

    /// Sequences that gave their slot back before their end, so far.
    pub(super) fn preempted(&self) -> u64 {
        self.preempted
    }

    /// Bytes of keys and values that are kept for texts to come, and for nobody now.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.prefixes.as_ref().map_or(0, PrefixTree::free_bytes)
    }

    /// The beginning of `text` that is known, read as a text of its length is.
    pub(super) fn known(&mut self, text: &[u32]) -> (Factors, Prefix) {
        let factors = self.limits.factors(text.len());
        (
            factors,
            self.prefixes.as_mut().map_or_else(Prefix::default, |prefixes| prefixes.find(factors, text)),
        )
    }

    /// Keeps `bytes` as the last block of `text`, whose other blocks are known. False: there is no memory for it, or nothing is
    /// kept here.
    ///
    /// # Errors
    /// Those of [`BlockCache::block_from`](crate::model::BlockCache::block_from).
    pub(super) fn learn(
        &mut self,
        factors: Factors,
        text: &[u32],
        bytes: &[u8],
        model: &mut dyn Forward,
    ) -> Result<bool> {
        let last = text.len().div_ceil(KV_BLOCK).saturating_sub(1);
        let (Some(prefixes), Some(cache)) = (&mut self.prefixes, model.cache()) else { return Ok(false) };
        let known = prefixes.find(factors, &text[..last * KV_BLOCK]).len / KV_BLOCK;
        while cache.blocks() >= self.budget {
            // What was just used is the youngest; all that is left is that, or in use.
            if prefixes.free() <= last || !prefixes.forget_oldest() {
                return Ok(false);
            }
        }
        if known < last {
            return Ok(false);
        }
        let block = cache.block_from(bytes)?;
        prefixes.keep(factors, text, |number| (number == last).then(|| Arc::clone(&block)));
        Ok(true)
    }

    /// Moves waiting sequences into free slots, those of the highest rank first, as long as there is memory for their prompts and
    /// a little more. Where there is no slot or no memory for one of higher priority, the last of lower priority waits in its
    /// place. One that fits nowhere alone goes alone.
    pub(super) fn admit(&mut self, model: &mut dyn Forward) {
        while let Some((&rank, next)) = self.waiting.first_key_value() {
            let free = self.slots.iter().position(Option::is_none);
            // Held here, so that it counts as used.
            let prefix =
                self.prefixes.as_mut().map(|prefixes| prefixes.find(next.factors(), next.sharable()));
            let known = prefix.as_ref().map_or(0, |prefix: &Prefix| prefix.len / KV_BLOCK);
            let needs = next.first_tokens().div_ceil(KV_BLOCK).saturating_sub(known);
            if let Some(slot) = free.filter(|_| self.has_room(model, needs)) {
                self.slots[slot] = self.waiting.remove(&rank);
                continue;
            }
            drop(prefix);
            match self.last_below(rank.0) {
                Some(last) => self.put_back(last, model),
                None => return,
            }
        }
    }

    /// The slot of the last sequence of a priority lower than `priority`, if it can begin anew.
    fn last_below(&self, priority: Reverse<i32>) -> Option<usize> {
        self.last_where(|sequence| sequence.rank().0 > priority)
    }

    /// The slot of the last of the sequences that `may` and can begin anew.
    fn last_where(&self, may: impl Fn(&Sequence) -> bool) -> Option<usize> {
        let slots = self.slots.iter().enumerate();
        let sequences = slots.filter_map(|(slot, sequence)| Some((slot, sequence.as_ref()?)));
        let able = sequences.filter(|(_, sequence)| sequence.restarts() && may(sequence));
        able.max_by_key(|(_, sequence)| sequence.rank()).map(|(slot, _)| slot)
    }

    /// Whether `blocks` more may be taken, beside what the sequences in slots will soon take. Alone, a sequence always may.
    fn has_room(&self, model: &mut dyn Forward, blocks: usize) -> bool {
        let mut needed = blocks;
        let mut alone = true;
        for sequence in self.slots.iter().flatten() {
            alone = false;
            let held = if self.limits.shares { sequence.computed().div_ceil(KV_BLOCK) } else { 0 };
            needed += sequence.first_tokens().div_ceil(KV_BLOCK).saturating_sub(held);
        }
        let used = blocks_of(model).saturating_sub(self.prefixes.as_ref().map_or(0, PrefixTree::free));
        alone || used + needed <= self.budget
    }

    /// Takes the sequence out of `slot` and lets it wait, to begin anew with what is left of it then.
    fn put_back(&mut self, slot: usize, model: &mut dyn Forward) {
        self.keep_text(slot, model);
        model.release(slot);
        if let Some(mut sequence) = self.slots[slot].take() {
            sequence.restart();
            self.preempted += 1;
            self.waiting.insert(sequence.rank(), sequence);
        }
    }

    /// Lets the last of the sequences wait, unless it is alone. False: there is none that could.
    fn put_last_back(&mut self, model: &mut dyn Forward) -> bool {
        let last = self.last_where(|_| true).filter(|_| self.counts().1 > 1);
        if let Some(last) = last {
            self.put_back(last, model);
        }
        last.is_some()
    }

    /// Whether any sequence in a slot was ended by its caller or the clock.
    pub(super) fn is_interrupted(&self) -> bool {
        self.slots.iter().flatten().any(|sequence| sequence.interrupted().is_some())
    }

    /// The next pass, for which there is memory: what is kept for later goes first, then the last sequence of the lowest priority
    /// waits.
    pub(super) fn next_batch(&mut self, model: &mut dyn Forward) -> Batch {
        loop {
            let behind = self.behind();
            self.adopt_prefixes(&behind, model);
            let batch = self.plan(&behind);
            if blocks_after(&batch, model) <= self.budget {
                return batch;
            }
            if self.prefixes.as_mut().is_some_and(PrefixTree::forget_oldest) {
                continue;
            }
            if !self.put_last_back(model) {
                return batch;
            }
        }
    }

    /// Makes do with the memory that there is, after the system refused more: all begin anew, the last one later. False: there is
    /// nothing to give up.
    pub(super) fn shrink(&mut self, model: &mut dyn Forward) -> bool {
        let kept = self.prefixes.as_mut().is_some_and(PrefixTree::forget_oldest);
        let active = self.active();
        if (active.len() < 2 && !kept) || !self.slots.iter().flatten().all(Sequence::restarts) {
            return false;
        }
        self.budget = self.budget.min(blocks_of(model)).max(1);
        log::warn!(
            "the system refused memory for keys and values: {} blocks of {KV_BLOCK} tokens must do",
            self.budget
        );
        if let Some(prefixes) = &mut self.prefixes {
            prefixes.clear();
        }
        for slot in active {
            model.release(slot);
            if let Some(sequence) = self.slot_mut(slot) {
                sequence.restart();
            }
        }
        self.put_last_back(model);
        true
    }

    /// For each slot whether its prompt waits for another that begins alike and is ahead of it.
    fn behind(&mut self) -> Vec<bool> {
        let mut behind = vec![false; self.slots.len()];
        if self.prefixes.is_none() {
            return behind;
        }
        let mut lends = Vec::new();
        for (slot, sequence) in self.slots.iter().enumerate() {
            let Some(sequence) = sequence.as_ref().filter(|sequence| sequence.reads()) else { continue };
            let others = self.slots.iter().enumerate().filter(|&(other, _)| other != slot);
            let ahead = others.filter_map(|(other, leader)| Some((other, leader.as_ref()?)));
            let leader = ahead.filter(|(_, leader)| leader.reads()).find(|(_, leader)| {
                let order = |sequence: &Sequence| (Reverse(sequence.computed()), sequence.rank());
                if leader.factors() != sequence.factors() || order(leader) >= order(sequence) {
                    return false;
                }
                let alike = common(leader.text(), sequence.sharable());
                let until = alike.next_multiple_of(KV_BLOCK).min(leader.text().len());
                alike >= sequence.computed() + WORTH_WAITING && leader.computed() < until
            });
            if let Some((leader, _)) = leader {
                behind[slot] = true;
                lends.push(leader);
            }
        }
        for leader in lends {
            if let Some(leader) = self.slot_mut(leader) {
                leader.lend();
            }
        }
        for (sequence, behind) in self.slots.iter_mut().zip(&behind) {
            if let Some(sequence) = sequence.as_mut().filter(|_| *behind) {
                sequence.seek();
            }
        }
        behind
    }

    /// Gives those that look for it what others have computed of their beginning.
    fn adopt_prefixes(&mut self, behind: &[bool], model: &mut dyn Forward) {
        let (Some(prefixes), Some(cache)) = (&mut self.prefixes, model.cache()) else { return };
        for (slot, sequence) in self.slots.iter_mut().enumerate() {
            let Some(sequence) = sequence.as_mut().filter(|_| !behind[slot]) else { continue };
            if !sequence.sought() {
                continue;
            }
            let found = prefixes.find(sequence.factors(), sequence.sharable());
            if found.len <= sequence.computed() {
                continue;
            }
            match cache.adopt(slot, sequence.factors(), &found.blocks, found.len) {
                Ok(()) => sequence.adopt(found.len),
                Err(error) => log::warn!("a known beginning is computed again: {error}"),
            }
        }
    }

    /// The next pass: the next tokens of every sequence in a slot, and those that some will need with other factors. Those that
    /// write get a token each, and guesses when nobody reads; what prompts get is so little that the others are not held up, and
    /// is shared evenly by those of the same priority.
    fn plan(&mut self, behind: &[bool]) -> Batch {
        let (mut rows, mut left) = (LOGIT_ROWS, self.limits.run_tokens);
        let company = self.counts().1 > 1;
        let mut writers = self.slots.iter().flatten().filter(|sequence| sequence.writes()).count();
        let slices = self.slices(behind, writers, company);
        let reads = self.slots.iter().flatten().any(|sequence| !sequence.writes());
        let mut guesses = if reads { 0 } else { GUESS_ROWS.saturating_sub(writers) };
        let mut runs = Vec::new();
        for (slot, sequence) in self.slots.iter_mut().enumerate() {
            let Some(sequence) = sequence else { continue };
            let writes = sequence.writes();
            let slice = slices[slot];
            if !writes && slice.is_none() {
                continue;
            }
            let guess =
                if writes { LONGEST.min(guesses.div_ceil(writers)).min(rows.saturating_sub(1)) } else { 0 };
            let run = sequence.next_run(slot, slice, rows, guess, company);
            if writes {
                writers -= 1;
                guesses = guesses.saturating_sub(run.tokens.len() - 1);
            }
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

    /// What each slot that reads computes: by priority, and evenly among equals.
    fn slices(&self, behind: &[bool], writers: usize, company: bool) -> Vec<Option<Slice>> {
        let mut slices = vec![None; self.slots.len()];
        let slots = self.slots.iter().enumerate().filter(|&(slot, _)| !behind[slot]);
        let readers = slots.filter_map(|(slot, sequence)| Some((slot, sequence.as_ref()?)));
        let mut readers: Vec<_> = readers.filter(|(_, sequence)| !sequence.writes()).collect();
        let most = if company { IN_COMPANY } else { usize::MAX }.min(self.limits.run_tokens);
        let mut left = most as f64;
        if writers > 0 {
            left = self.pace.work(writers, readers.len(), left);
        }
        // All that wait behind some of the layers may meet in one of them.
        let halfway: usize = self.slots.iter().flatten().map(Sequence::halfway).sum();
        let mut room = self.limits.run_tokens.saturating_sub(halfway);
        readers.sort_by_key(|(_, sequence)| (sequence.rank().0, sequence.pending(), sequence.rank()));
        for equals in readers.chunk_by(|(_, one), (_, two)| one.rank().0 == two.rank().0) {
            for (number, (slot, sequence)) in equals.iter().enumerate() {
                let others = equals.len() - number;
                let (work, room_each) = (left / others as f64, room.div_ceil(others));
                let Some(slice) = sequence.slice(work, room_each, writers > 0) else { continue };
                slices[*slot] = Some(slice);
                left = (left - slice.work(self.limits.layers)).max(0.0);
                room = room.saturating_sub(if sequence.halfway() == 0 { slice.tokens } else { 0 });
            }
        }
        slices
    }

    /// What goes through the model with `batch`.
    fn load(&self, batch: &Batch) -> Load {
        let mut load = Load { written: 0, read: 0.0 };
        for run in &batch.runs {
            if self.slots[run.slot].as_ref().is_some_and(Sequence::writes) {
                load.written += run.tokens.len();
            } else {
                let layers = self.limits.layers;
                load.read += work(run.tokens.len(), run.depth(layers).len(), layers);
            }
        }
        load
    }

    /// How long `batch` takes, as far as that is known, and how to note it.
    pub(super) fn expected(&self, batch: &Batch) -> (Option<Duration>, Load) {
        let load = self.load(batch);
        (self.pace.expected(load), load)
    }

    /// Takes note of how long a pass of such a load took.
    pub(super) fn note(&mut self, load: Load, took: Duration) {
        self.pace.note(load, took);
    }

    /// Keeps the blocks that `run` has filled.
    pub(super) fn keep(&mut self, run: &Run, model: &mut dyn Forward) {
        let (Some(prefixes), Some(cache), Some(sequence)) =
            (&mut self.prefixes, model.cache(), &mut self.slots[run.slot])
        else {
            return;
        };
        let end = run.start + run.tokens.len();
        let done = if run.factors == sequence.factors() { sequence.computed() } else { end };
        let done = done.min(sequence.text().len());
        let whole = done - done % KV_BLOCK;
        let lent = sequence.lends() && sequence.writes();
        let kept = if lent { done } else { whole };
        if lent || whole > run.start {
            prefixes.keep(run.factors, &sequence.text()[..kept], |block| {
                cache.block(run.slot, run.factors, block)
            });
        }
        if lent {
            sequence.has_lent();
        }
    }

    /// Keeps all that is computed of the text in `slot`.
    fn keep_text(&mut self, slot: usize, model: &mut dyn Forward) {
        if let (Some(prefixes), Some(cache), Some(sequence)) =
            (&mut self.prefixes, model.cache(), &self.slots[slot])
        {
            let (factors, text) = (sequence.factors(), sequence.text());
            let known = &text[..sequence.computed().min(text.len())];
            prefixes.keep(factors, known, |block| cache.block(slot, factors, block));
        }
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

    /// Empties `slot`, and keeps what may be of use to others where it is `sound`.
    pub(super) fn take(&mut self, slot: usize, sound: bool, model: &mut dyn Forward) -> Option<Sequence> {
        if sound {
            self.keep_text(slot, model);
        }
        model.release(slot);
        self.slots.get_mut(slot)?.take()
    }

    /// The sequences that wait and have been ended by their caller or the clock.
    pub(super) fn take_interrupted_waiting(&mut self) -> Vec<Sequence> {
        if self.waiting.values().all(|sequence| sequence.interrupted().is_none()) {
            return Vec::new();
        }
        let (ended, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(_, sequence)| sequence.interrupted().is_some());
        self.waiting = waiting;
        BTreeMap::into_values(ended).collect()
    }

    /// The slots in use.
    pub(super) fn active(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|&slot| self.slots[slot].is_some()).collect()
    }

    /// Everything, waiting or active.
    pub(super) fn drain(&mut self) -> Vec<Sequence> {
        let waiting = std::mem::take(&mut self.waiting);
        self.errands.clear();
        self.slots.iter_mut().filter_map(Option::take).chain(waiting.into_values()).collect()
    }

    /// What sequences begin with.
    #[cfg(test)]
    pub(super) fn prefixes(&mut self) -> Option<&mut PrefixTree> {
        self.prefixes.as_mut()
    }
}

/// Blocks of keys and values that exist.
fn blocks_of(model: &mut dyn Forward) -> usize {
    model.cache().map_or(0, |cache| cache.blocks())
}

/// Those that exist once `batch` is computed.
fn blocks_after(batch: &Batch, model: &mut dyn Forward) -> usize {
    model.cache().map_or(0, |cache| {
        let growth = batch.runs.iter().map(|run| cache.growth(run)).sum();
        cache.blocks().saturating_add_signed(growth)
    })
}
