//! From the flags to what is measured, as far as the model's context holds it.

use crate::cli::args::BenchArgs;
use crate::error::{Error, Result};

/// Passes over guessed tokens in one repetition, each beside a pass for one token.
pub(super) const CHECKS: usize = 8;

/// Tokens of the prompt of the answers that the engine writes.
pub(super) const ENGINE_PROMPT: usize = 8;

const PROMPT: usize = 512;
const GENERATE: usize = 128;
const BATCHES: [usize; 3] = [1, 4, 16];
const DEPTHS: [usize; 2] = [0, 2048];
const VERIFY: usize = 5;

/// The fewest tokens that a depth is worth shrinking to, where the default does not fit.
const SHALLOW: usize = 64;

/// Sequences filled to one depth, and what is measured from there on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Station {
    pub(super) batch: usize,
    pub(super) depth: usize,
    /// Tokens that each sequence writes against the clock; 0 for none.
    pub(super) generate: usize,
    /// Guessed tokens to check at once; 0 for none. Only for one sequence.
    pub(super) verify: usize,
}

impl Station {
    /// Tokens that each sequence writes. A pass outside the clock comes before those that are timed.
    pub(super) fn written(&self) -> usize {
        if self.generate > 0 { self.generate.saturating_add(1) } else { 0 }
    }

    /// Tokens that a sequence holds in the end.
    fn extent(&self) -> usize {
        let checks = if self.verify > 0 { CHECKS.saturating_mul(self.verify.saturating_add(1)) } else { 0 };
        self.depth.saturating_add(self.written()).saturating_add(checks)
    }
}

/// Something that was left out, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Skipped {
    pub(super) what: String,
    pub(super) why: String,
}

/// All that is measured with one number of threads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Lengths of prompts.
    pub(super) prompts: Vec<usize>,
    pub(super) stations: Vec<Station>,
    /// Tokens of an answer through the engine; 0 for none.
    pub(super) engine: usize,
    pub(super) skipped: Vec<Skipped>,
}

impl Plan {
    /// What `args` ask for, within a context of `longest` tokens.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameter`](crate::ErrorKind::InvalidParameter) for a number that means nothing.
    pub(super) fn new(args: &BenchArgs, longest: usize) -> Result<Self> {
        check(args)?;
        let generates = args.generate.is_some() || !args.batch.is_empty() || !args.depth.is_empty();
        let all = !generates && args.prompt.is_empty() && args.verify.is_none();
        let mut plan = Self::default();

        let prompts = if all { vec![PROMPT.min(longest)] } else { args.prompt.clone() };
        for tokens in prompts.into_iter().filter(|&tokens| tokens > 0) {
            if tokens <= longest {
                plan.prompts.push(tokens);
            } else {
                plan.too_long(format!("prefill {tokens}"), tokens, longest);
            }
        }

        let generate = if all || generates { args.generate.unwrap_or(GENERATE.min(longest / 2)) } else { 0 };
        let verify = args.verify.unwrap_or(if all { VERIFY } else { 0 });
        let batches = match args.batch.as_slice() {
            [] if all => BATCHES.to_vec(),
            [] => vec![1],
            batches => batches.to_vec(),
        };
        let depths = match args.depth.as_slice() {
            [] if all => DEPTHS.to_vec(),
            [] => vec![0],
            depths => depths.to_vec(),
        };
        for (place, &depth) in depths.iter().enumerate() {
            let alone = Station { batch: 1, depth, generate, verify };
            // A default shrinks to what fits; a depth that was asked for does not.
            let depth = if all && alone.extent() > longest {
                longest.saturating_sub(alone.extent() - depth)
            } else {
                depth
            };
            if all && place > 0 && depth < SHALLOW {
                continue;
            }
            if verify > 0 && !batches.contains(&1) {
                plan.add(Station { batch: 1, depth, generate: 0, verify }, longest);
            }
            for &batch in batches.iter().filter(|&&batch| batch == 1 || place == 0) {
                let verify = if batch == 1 { verify } else { 0 };
                plan.add(Station { batch, depth, generate, verify }, longest);
            }
        }
        plan.engine = if generate > 1 && generate + ENGINE_PROMPT < longest { generate } else { 0 };
        Ok(plan)
    }

    fn add(&mut self, station: Station, longest: usize) {
        if station.generate == 0 && station.verify == 0 {
            return;
        }
        if station.extent() <= longest {
            self.stations.push(station);
        } else {
            self.too_long(format!("decode at depth {}", station.depth), station.extent(), longest);
        }
    }

    fn too_long(&mut self, what: String, needed: usize, longest: usize) {
        let why = format!("It needs a context of {needed} tokens, and {longest} is the longest here.");
        self.skipped.push(Skipped { what, why });
    }

    /// Leaves out what needs more sequences than the model holds.
    pub(super) fn limit_batches(&mut self, slots: usize) {
        let (fit, too_many): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.stations).into_iter().partition(|station| station.batch <= slots);
        self.stations = fit;
        self.skipped.extend(too_many.into_iter().map(|station| Skipped {
            what: format!("{} sequences together", station.batch),
            why: format!("The backend holds {slots} at once."),
        }));
    }

    /// The context that everything fits into, in tokens.
    pub(super) fn context_length(&self) -> usize {
        let engine = if self.engine > 0 { self.engine + ENGINE_PROMPT + 1 } else { 1 };
        let stations = self.stations.iter().map(Station::extent);
        stations.chain(self.prompts.iter().copied()).fold(engine, usize::max)
    }
}

fn check(args: &BenchArgs) -> Result<()> {
    let zero = |name: &str, what: &str| {
        Err(Error::invalid(name, format!("{what} of 0 measures nothing."), "Ask for 1 or more."))
    };
    if args.repetitions == 0 {
        return zero("repetitions", "A number of repetitions");
    }
    if args.batch.contains(&0) {
        return zero("batch", "A batch");
    }
    if args.threads.contains(&0) {
        return zero("threads", "A number of threads");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Arguments, Command};

    fn args(line: &str) -> BenchArgs {
        let words = ["phicandle", "bench"].into_iter().chain(line.split_whitespace());
        let Command::Bench(args) = Arguments::try_parse_from(words).unwrap().command else { panic!() };
        args
    }

    fn plan(line: &str, longest: usize) -> Plan {
        Plan::new(&args(line), longest).unwrap()
    }

    fn station(batch: usize, depth: usize, generate: usize, verify: usize) -> Station {
        Station { batch, depth, generate, verify }
    }

    #[test]
    fn nothing_asked_for_is_everything() {
        let plan = plan("", 4096);
        assert_eq!((plan.prompts.as_slice(), plan.engine), ([512].as_slice(), 128));
        let expected =
            [station(1, 0, 128, 5), station(4, 0, 128, 0), station(16, 0, 128, 0), station(1, 2048, 128, 5)];
        assert_eq!(plan.stations, expected);
        assert_eq!(plan.context_length(), 2048 + 1 + 128 + 8 * 6);
        assert_eq!(plan.skipped, []);
    }

    #[test]
    fn what_is_asked_for_is_all_there_is() {
        assert_eq!(plan("-p 64,512", 4096), Plan { prompts: vec![64, 512], ..Plan::default() });
        let decode = plan("-n 32", 4096);
        assert_eq!((decode.stations.as_slice(), decode.engine), ([station(1, 0, 32, 0)].as_slice(), 32));
        assert_eq!(
            plan("--depth 100,200", 4096).stations,
            [station(1, 100, 128, 0), station(1, 200, 128, 0)]
        );
        assert_eq!(plan("--verify 7", 4096).stations, [station(1, 0, 0, 7)]);
        assert_eq!(plan("-n 9 -b 4 --verify 3", 4096).stations, [station(1, 0, 0, 3), station(4, 0, 9, 0)]);
        assert_eq!(plan("-p 0 -n 0", 4096), Plan::default());
    }

    #[test]
    fn several_sequences_are_measured_at_the_first_depth() {
        let expected = [station(2, 10, 4, 0), station(1, 10, 4, 0), station(1, 20, 4, 0)];
        assert_eq!(plan("-n 4 -b 2,1 -d 10,20", 4096).stations, expected);
    }

    #[test]
    fn defaults_shrink_to_a_short_context_and_wishes_are_skipped() {
        let defaults = plan("", 1024);
        assert_eq!(defaults.prompts, [512]);
        assert_eq!(defaults.stations.last(), Some(&station(1, 1024 - 1 - 128 - 48, 128, 5)));
        assert_eq!((defaults.context_length(), defaults.skipped.len()), (1024, 0));
        let tiny = plan("", 128);
        assert_eq!((tiny.prompts.as_slice(), tiny.engine), ([128].as_slice(), 64));
        assert!(tiny.stations.iter().all(|station| station.depth == 0 && station.extent() <= 128));

        let wishes = plan("-p 2000,8 -d 1000 -n 30", 1024);
        assert_eq!((wishes.prompts.as_slice(), wishes.stations.as_slice()), ([8].as_slice(), [].as_slice()));
        let what: Vec<_> = wishes.skipped.iter().map(|skipped| skipped.what.as_str()).collect();
        assert_eq!(what, ["prefill 2000", "decode at depth 1000"]);
        assert!(wishes.skipped[1].why.contains("1031"), "{wishes:?}");
    }

    #[test]
    fn a_backend_of_one_sequence_takes_no_batches() {
        let mut plan = plan("", 4096);
        plan.limit_batches(4);
        assert!(plan.stations.iter().all(|station| station.batch <= 4));
        assert_eq!(plan.skipped.len(), 1);
        assert_eq!(plan.skipped[0].what, "16 sequences together");
    }

    #[test]
    fn numbers_that_measure_nothing_are_refused() {
        for line in ["-r 0", "-b 4,0", "-t 0"] {
            assert!(Plan::new(&args(line), 4096).is_err(), "{line}");
        }
    }
}
