//! Passes through a model, timed: the model's own `Forward`, without an engine around it.

use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::plan::{CHECKS, Plan, Station};
use crate::cli::failure::Failure;
use crate::model::{Batch, Factors, Forward, Logits, Run};

/// The seed of the token ids: every run measures the same ones.
pub(super) const SEED: u64 = 20_240_423;

/// Seconds of one repetition of a [`Station`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Times {
    /// All passes of `generate`.
    pub(super) generate: f64,
    /// One pass over the guessed tokens, on average.
    pub(super) verify: f64,
    /// One pass over a single token beside them, on average.
    pub(super) step: f64,
}

/// A model, and random tokens to feed it.
pub(super) struct Passes<'a> {
    model: &'a mut dyn Forward,
    logits: Logits,
    random: StdRng,
    /// Those of a sequence as long as what is measured makes it.
    factors: Factors,
    /// Whether the user wants no more.
    stop: &'a dyn Fn() -> bool,
}

impl<'a> Passes<'a> {
    pub(super) fn new(model: &'a mut dyn Forward, stop: &'a dyn Fn() -> bool) -> Self {
        Self {
            model,
            logits: Logits::default(),
            random: StdRng::seed_from_u64(SEED),
            factors: Factors::Short,
            stop,
        }
    }

    /// Makes a short pass of each kind, so that none of the measured ones is the first.
    pub(super) fn warm_up(&mut self, plan: &Plan) -> Result<(), Failure> {
        let run = self.model.limits().run_tokens.max(1);
        if let Some(&longest) = plan.prompts.iter().max() {
            self.prefill(longest.min(run))?;
        }
        for station in &plan.stations {
            self.visit(&Station { depth: 0, generate: station.generate.min(2), ..*station })?;
        }
        Ok(())
    }

    /// Seconds to read a prompt of `tokens` tokens, in runs of the size that the engine uses.
    pub(super) fn prefill(&mut self, tokens: usize) -> Result<f64, Failure> {
        let ids = self.ids(tokens);
        self.factors = self.model.limits().factors(tokens);
        let start = Instant::now();
        self.fill(0, &ids)?;
        let seconds = start.elapsed().as_secs_f64();
        self.model.release(0);
        Ok(seconds)
    }

    /// Fills the sequences of `station` to its depth and measures what it asks for from there on.
    pub(super) fn visit(&mut self, station: &Station) -> Result<Times, Failure> {
        let checked = if station.verify > 0 { CHECKS * (station.verify + 1) } else { 0 };
        let written = if station.generate > 0 { station.generate + 1 } else { 0 };
        self.factors = self.model.limits().factors(station.depth + written + checked);
        for slot in 0..station.batch {
            let ids = self.ids(station.depth);
            self.fill(slot, &ids)?;
        }
        let mut times = Times::default();
        let mut position = station.depth;
        if station.generate > 0 {
            // Outside the clock: at a full block it takes the memory for the next positions, all sequences at once.
            let runs = (0..station.batch).map(|slot| (slot, self.ids(1))).collect();
            self.pass(position, runs)?;
            position += 1;
        }
        for _ in 0..station.generate {
            let runs = (0..station.batch).map(|slot| (slot, self.ids(1))).collect();
            times.generate += self.pass(position, runs)?;
            position += 1;
        }
        // In turns, so that both see the same depth and the same moods of the machine.
        for _ in 0..if station.verify > 0 { CHECKS } else { 0 } {
            for (tokens, seconds) in [(station.verify, &mut times.verify), (1, &mut times.step)] {
                let ids = self.ids(tokens);
                *seconds += self.pass(position, vec![(0, ids)])? / CHECKS as f64;
                position += tokens;
            }
        }
        for slot in 0..station.batch {
            self.model.release(slot);
        }
        Ok(times)
    }

    /// Puts `ids` into an empty `slot`, with logits at the end as the engine asks for them.
    fn fill(&mut self, slot: usize, ids: &[u32]) -> Result<(), Failure> {
        let size = self.model.limits().run_tokens.max(1);
        let mut start = 0;
        for tokens in ids.chunks(size) {
            let last = start + tokens.len() == ids.len();
            let logits_from = tokens.len() - usize::from(last);
            self.forward(vec![Run {
                slot,
                factors: self.factors,
                start,
                tokens: tokens.to_vec(),
                logits_from,
                layers: None,
            }])?;
            start += tokens.len();
        }
        Ok(())
    }

    /// Seconds of one pass that appends tokens to sequences of `start` tokens, each in its slot.
    fn pass(&mut self, start: usize, runs: Vec<(usize, Vec<u32>)>) -> Result<f64, Failure> {
        let run = |(slot, tokens): (_, Vec<u32>)| {
            let logits_from = tokens.len() - 1;
            Run { slot, factors: self.factors, start, tokens, logits_from, layers: None }
        };
        let runs = runs.into_iter().map(run).collect();
        let begin = Instant::now();
        self.forward(runs)?;
        Ok(begin.elapsed().as_secs_f64())
    }

    fn forward(&mut self, runs: Vec<Run>) -> Result<(), Failure> {
        if !(self.stop)() && self.model.forward(&Batch { runs }, &mut self.logits, &self.stop)? {
            return Ok(());
        }
        Err(Failure::Interrupted)
    }

    fn ids(&mut self, count: usize) -> Vec<u32> {
        let size = self.model.limits().vocab_size.max(1) as u32;
        (0..count).map(|_| self.random.random_range(0..size)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Result};
    use crate::model::{BlockCache, Limits};

    /// Keeps count of what it is given, and refuses what no model could do.
    struct Counting {
        limits: Limits,
        held: Vec<usize>,
        passes: Vec<Vec<usize>>,
        rows: usize,
    }

    impl Counting {
        fn new(slots: usize, run_tokens: usize) -> Self {
            let limits = Limits {
                slots,
                run_tokens,
                layers: 1,
                context_length: 100,
                kv_tokens: 100,
                vocab_size: 7,
                original_context: None,
                kept_tokens: None,
                rewinds: true,
                shares: false,
            };
            Self { limits, held: vec![0; slots], passes: Vec::new(), rows: 0 }
        }
    }

    impl Forward for Counting {
        fn limits(&self) -> Limits {
            self.limits
        }

        fn forward(&mut self, batch: &Batch, logits: &mut Logits, _: &dyn Fn() -> bool) -> Result<bool> {
            logits.reset(self.limits.vocab_size);
            for run in &batch.runs {
                let sound = run.start == self.held[run.slot]
                    && (1..=self.limits.run_tokens).contains(&run.tokens.len())
                    && run.tokens.iter().all(|&id| id < 7);
                if !sound {
                    return Err(Error::internal(format!("{run:?} does not follow {:?}", self.held)));
                }
                self.held[run.slot] += run.tokens.len();
                self.rows += run.logit_rows();
            }
            self.passes.push(batch.runs.iter().map(|run| run.tokens.len()).collect());
            Ok(true)
        }

        fn release(&mut self, slot: usize) {
            self.held[slot] = 0;
        }

        fn forget(&mut self, _: usize, _: Factors) {}

        fn kv_bytes(&self, _: usize) -> u64 {
            0
        }

        fn cache(&mut self) -> Option<&mut dyn BlockCache> {
            None
        }
    }

    const GO_ON: &dyn Fn() -> bool = &|| false;

    #[test]
    fn a_prompt_goes_in_in_runs_and_asks_for_one_row() {
        let mut model = Counting::new(1, 8);
        assert!(Passes::new(&mut model, GO_ON).prefill(20).unwrap() > 0.0);
        assert_eq!(model.passes, [vec![8], vec![8], vec![4]]);
        assert_eq!((model.rows, model.held), (1, vec![0]));
    }

    #[test]
    fn sequences_write_together_from_their_depth_on() {
        let mut model = Counting::new(3, 8);
        let station = Station { batch: 3, depth: 8, generate: 4, verify: 0 };
        let times = Passes::new(&mut model, GO_ON).visit(&station).unwrap();
        assert!(times.generate > 0.0 && times.verify == 0.0 && times.step == 0.0, "{times:?}");
        // One pass outside the clock, then four.
        let expected = [vec![vec![8]; 3], vec![vec![1, 1, 1]; 1 + 4]].concat();
        assert_eq!(model.passes, expected);
        assert_eq!((model.rows, model.held), (3 + 3 * (1 + 4), vec![0; 3]));
    }

    #[test]
    fn guesses_and_single_tokens_take_turns() {
        let mut model = Counting::new(1, 8);
        let station = Station { batch: 1, depth: 0, generate: 2, verify: 5 };
        let times = Passes::new(&mut model, GO_ON).visit(&station).unwrap();
        assert!(times.verify > 0.0 && times.step > 0.0);
        let lengths = [vec![1; 1 + 2], [5, 1].repeat(CHECKS)].concat();
        let expected: Vec<Vec<usize>> = lengths.into_iter().map(|length| vec![length]).collect();
        assert_eq!(model.passes, expected);
    }

    #[test]
    fn the_warm_up_is_short_and_leaves_nothing() {
        let mut model = Counting::new(3, 8);
        let station = Station { batch: 3, depth: 80, generate: 9, verify: 0 };
        let plan = Plan { prompts: vec![4, 40], stations: vec![station], ..Plan::default() };
        Passes::new(&mut model, GO_ON).warm_up(&plan).unwrap();
        assert_eq!(model.passes, [vec![8], vec![1, 1, 1], vec![1, 1, 1], vec![1, 1, 1]]);
        assert_eq!(model.held, [0, 0, 0]);
    }

    #[test]
    fn who_presses_ctrl_c_is_heard_before_the_next_pass() {
        let mut model = Counting::new(1, 8);
        let stopped = Passes::new(&mut model, &|| true).prefill(20);
        assert!(matches!(stopped, Err(Failure::Interrupted)));
        assert!(model.passes.is_empty());
    }
}
