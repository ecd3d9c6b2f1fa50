//! Everything that is measured with one number of threads.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Progress;
use super::between::{self, Waits};
use super::passes::Passes;
use super::plan::{CHECKS, ENGINE_PROMPT, Plan, Station};
use super::samples::{Samples, ratio};
use super::work::{Floor, Peaks, Work};
use crate::cli::failure::Failure;
use crate::cli::interrupt::Interrupts;
use crate::engine::{Engine, LoadOptions, LoadedModel};
use crate::error::Result;
use crate::model::{MemoryPlan, Resident, forget_peak, resident};

/// Seconds that loading the model again and again may take.
const LOADING: f64 = 3.0;

/// Something that was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// A prompt of so many tokens, read.
    Prefill(usize),
    /// Tokens written.
    Decode(Station),
    /// Guessed tokens checked in one pass.
    Verify(Station),
}

impl What {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Prefill(tokens) => format!("prefill {tokens}"),
            Self::Decode(Station { batch: 1, depth: 0, generate, .. }) => format!("decode {generate}"),
            Self::Decode(Station { batch: 1, depth, generate, .. }) => {
                format!("decode {generate} at {depth}")
            }
            Self::Decode(Station { batch, depth: 0, generate, .. }) => format!("{batch} x decode {generate}"),
            Self::Decode(Station { batch, depth, generate, .. }) => {
                format!("{batch} x decode {generate} at {depth}")
            }
            Self::Verify(station) => format!("check {} at {}", station.verify, Self::middle(station)),
        }
    }

    /// Tokens that one sample's seconds are for.
    fn tokens(&self) -> usize {
        match self {
            Self::Prefill(tokens) => *tokens,
            Self::Decode(station) => station.batch * station.generate,
            Self::Verify(station) => station.verify,
        }
    }

    /// The least time that a machine with these `peaks` needs.
    fn floor(&self, work: &Work, peaks: &Peaks) -> Floor {
        match self {
            Self::Prefill(tokens) => work.prefill(*tokens, peaks),
            Self::Decode(station) => work.decode(station.batch, station.depth, station.generate, peaks),
            Self::Verify(station) => work.check(Self::middle(station), station.verify, peaks),
        }
    }

    /// Where the checks of a station are on average.
    fn middle(station: &Station) -> usize {
        station.depth + station.written() + CHECKS * (station.verify + 1) / 2
    }

    fn json(&self) -> Value {
        match self {
            Self::Prefill(tokens) => json!({ "test": "prefill", "batch": 1, "depth": 0, "tokens": tokens }),
            Self::Decode(station) => json!({
                "test": "decode",
                "batch": station.batch,
                "depth": station.depth,
                "tokens": self.tokens(),
                "passes": station.generate,
            }),
            Self::Verify(station) => json!({
                "test": "verify",
                "batch": 1,
                "depth": Self::middle(station),
                "tokens": station.verify,
                "checks": CHECKS,
            }),
        }
    }
}

/// The times of one thing.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) what: What,
    pub(super) times: Samples,
    /// For [`What::Verify`]: a pass over one token, measured beside it.
    step: Samples,
}

impl Row {
    fn new(what: What) -> Self {
        Self { what, times: Samples::default(), step: Samples::default() }
    }

    /// Tokens per second at the median.
    pub(super) fn rate(&self) -> f64 {
        ratio(self.what.tokens() as f64, self.times.median())
    }

    /// Tokens per second at best.
    pub(super) fn best_rate(&self) -> f64 {
        ratio(self.what.tokens() as f64, self.times.shortest())
    }

    /// How many times as long as one token a check takes.
    pub(super) fn steps(&self) -> Option<f64> {
        matches!(self.what, What::Verify(_)).then(|| ratio(self.times.median(), self.step.median()))
    }

    /// The least time, the rate it makes, and the share of it that was reached.
    pub(super) fn limit(&self, work: &Work, peaks: &Peaks) -> (Floor, f64, f64) {
        let floor = self.what.floor(work, peaks);
        (floor, ratio(self.what.tokens() as f64, floor.seconds), ratio(floor.seconds, self.times.median()))
    }

    fn json(&self, work: &Work, peaks: Option<&Peaks>) -> Value {
        let mut row = self.what.json();
        row["time"] = self.times.json();
        row["tokens_per_s"] = json!({ "median": self.rate(), "best": self.best_rate() });
        if let Some(steps) = self.steps() {
            row["step_time"] = self.step.json();
            row["steps"] = json!(steps);
        }
        row["limit"] = peaks.map_or(Value::Null, |peaks| {
            let (floor, rate, share) = self.limit(work, peaks);
            json!({ "by": floor.by, "time_s": floor.seconds, "tokens_per_s": rate, "reached": share })
        });
        row
    }
}

/// The time between passes, in the engine.
#[derive(Debug, Clone, Default)]
pub(super) struct Between {
    /// Seconds per token, the mean of each repetition.
    pub(super) means: Samples,
    /// Every wait of every repetition.
    waits: Vec<Vec<f64>>,
    /// Seconds of CPU that a chunk cost its reader; empty where the system does not say.
    reader: Samples,
}

/// Memory, planned and found.
#[derive(Debug, Clone)]
pub(super) struct MemoryUse {
    pub(super) planned: MemoryPlan,
    /// Growth since before the model was loaded; `None` where the system does not say.
    pub(super) grown: Option<Growth>,
}

/// Bytes of physical memory beyond those before the model was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Growth {
    /// After loading: this process's own.
    pub(super) anonymous: u64,
    /// Of these, in huge pages.
    pub(super) huge: u64,
    /// After loading: pages of files, shared with other processes.
    pub(super) of_files: u64,
    /// The most while loading; `None` where the system keeps one peak for the whole life of a process.
    pub(super) loading_peak: Option<u64>,
    /// The most while loading and computing.
    pub(super) peak: Option<u64>,
}

/// Results with one number of threads.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) threads: usize,
    /// What computed; empty before the model is loaded.
    pub(super) backend: &'static str,
    pub(super) rows: Vec<Row>,
    pub(super) between: Option<Between>,
    pub(super) load: Samples,
    /// Of the first load of the process only: what later ones take may come from what earlier ones gave back.
    pub(super) memory: Option<MemoryUse>,
}

/// What a series needs of its surroundings.
pub(super) struct Setting<'a> {
    pub(super) plan: &'a mut Plan,
    pub(super) repetitions: usize,
    pub(super) interrupts: Arc<Interrupts>,
    pub(super) progress: &'a Progress,
}

impl Setting<'_> {
    fn say(&self, what: &str) {
        self.progress.say(what);
    }
}

impl Series {
    pub(super) fn new(threads: usize) -> Self {
        Self { threads, backend: "", rows: Vec::new(), between: None, load: Samples::default(), memory: None }
    }

    /// Loads the model and measures everything; what there is when the user interrupts stays.
    pub(super) fn run(
        &mut self,
        options: &LoadOptions,
        first: bool,
        setting: &mut Setting<'_>,
    ) -> std::result::Result<(), Failure> {
        setting.say(&format!("loading the model, {} threads", self.threads));
        let before = if first { resident() } else { None };
        let fresh_peak = first && forget_peak();
        let mut loaded = LoadedModel::load(options)?;
        self.load.push(loaded.load_time().as_secs_f64());
        let after = before.and_then(|_| resident());
        let planned = loaded.info().memory;
        self.backend = loaded.info().backend;
        setting.plan.limit_batches(loaded.model().limits().slots);

        let listening = setting.interrupts.answering();
        let interrupts = Arc::clone(&setting.interrupts);
        let stop = move || interrupts.pressed();
        let measured =
            self.measure(&mut loaded, setting, &stop).and_then(|()| self.engine(loaded, setting, &stop));
        drop(listening);
        if first {
            let grown = before.zip(after).zip(resident());
            let grown = grown.map(|((before, after), end)| Growth::new(&before, &after, &end, fresh_peak));
            self.memory = Some(MemoryUse { planned, grown });
        }
        measured?;
        setting.say("loading the model again");
        while self.load.all().len() < setting.repetitions && self.load.all().iter().sum::<f64>() < LOADING {
            self.load.push(LoadedModel::load(options)?.load_time().as_secs_f64());
        }
        Ok(())
    }

    /// Calls the model itself.
    fn measure(
        &mut self,
        loaded: &mut LoadedModel,
        setting: &Setting<'_>,
        stop: &dyn Fn() -> bool,
    ) -> std::result::Result<(), Failure> {
        let plan = &*setting.plan;
        let mut passes = Passes::new(loaded.model(), stop);
        setting.say("warming up");
        passes.warm_up(plan)?;
        // All of the first repetition, then all of the second: what changes with time touches all alike.
        for repetition in 1..=setting.repetitions {
            let threads = self.threads;
            let say = |what: &What| {
                let of = setting.repetitions;
                setting.say(&format!("{}, {threads} threads, {repetition} of {of}", what.name()));
            };
            for &tokens in &plan.prompts {
                let what = What::Prefill(tokens);
                say(&what);
                self.record(what, passes.prefill(tokens)?, None);
            }
            for station in &plan.stations {
                let (decode, verify) = (What::Decode(*station), What::Verify(*station));
                say(if station.generate > 0 { &decode } else { &verify });
                let times = passes.visit(station)?;
                if station.generate > 0 {
                    self.record(decode, times.generate, None);
                }
                if station.verify > 0 {
                    self.record(verify, times.verify, Some(times.step));
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, what: What, seconds: f64, step: Option<f64>) {
        let place = self.rows.iter().position(|row| row.what == what).unwrap_or_else(|| {
            self.rows.push(Row::new(what));
            self.rows.len() - 1
        });
        if let Some(row) = self.rows.get_mut(place) {
            row.times.push(seconds);
            step.into_iter().for_each(|step| row.step.push(step));
        }
    }

    /// Writes answers with an engine around the model.
    fn engine(
        &mut self,
        loaded: LoadedModel,
        setting: &Setting<'_>,
        stop: &dyn Fn() -> bool,
    ) -> std::result::Result<(), Failure> {
        let tokens = setting.plan.engine;
        if tokens == 0 {
            return Ok(());
        }
        let waits = Waits::default();
        let engine = start(loaded, waits.clone())?;
        let mut between = Between::default();
        // The first answer warms up.
        for repetition in 0..=setting.repetitions {
            setting.say(&format!("the engine, {repetition} of {}", setting.repetitions));
            let reader = between::answer(&engine, &[0; ENGINE_PROMPT], tokens, stop)?;
            let waits = waits.take();
            if repetition > 0 {
                between.means.push(ratio(waits.iter().sum(), waits.len() as f64));
                between.waits.push(waits);
                reader.into_iter().for_each(|seconds| between.reader.push(seconds));
                self.between = Some(between.clone());
            }
        }
        Ok(())
    }

    pub(super) fn json(&self, work: &Work, peaks: Option<&Peaks>) -> Value {
        json!({
            "threads": self.threads,
            "tests": self.rows.iter().map(|row| row.json(work, peaks)).collect::<Vec<_>>(),
            "between_passes": self.between.as_ref().map(|between| json!({
                "mean": between.means.json(),
                "waits_s": between.waits,
                "reader": (!between.reader.all().is_empty()).then(|| between.reader.json()),
            })),
            "load": self.load.json(),
            "memory": self.memory.as_ref().map(MemoryUse::json),
        })
    }
}

fn start(loaded: LoadedModel, waits: Waits) -> Result<Engine> {
    loaded.wrap(|model| between::timed(model, waits)).into_engine()
}

impl Growth {
    fn new(before: &Resident, loaded: &Resident, end: &Resident, fresh_peak: bool) -> Self {
        let grown = |now: u64, then: u64| now.saturating_sub(then);
        Self {
            anonymous: grown(loaded.anonymous, before.anonymous),
            huge: grown(loaded.huge, before.huge),
            of_files: grown(loaded.of_files(), before.of_files()),
            loading_peak: fresh_peak.then(|| grown(loaded.peak, before.total)),
            peak: fresh_peak.then(|| grown(end.peak, before.total)),
        }
    }
}

impl MemoryUse {
    fn json(&self) -> Value {
        let planned = &self.planned;
        json!({
            "context_length": planned.context_length,
            "planned": {
                "weights_bytes": planned.weights_bytes,
                "mapped_bytes": planned.mapped_bytes,
                "kv_bytes": planned.kv_bytes,
                "scratch_bytes": planned.scratch_bytes,
                "total_bytes": planned.total_bytes(),
            },
            "measured": self.grown.map(|grown| json!({
                "anonymous_bytes": grown.anonymous,
                "huge_page_bytes": grown.huge,
                "file_bytes": grown.of_files,
                "loading_peak_bytes": grown.loading_peak,
                "peak_bytes": grown.peak,
            })),
        })
    }
}
