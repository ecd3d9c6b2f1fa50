//! `phicandle bench`: how fast a model runs here, beside what the machine could do.
//!
//! Everything is called as the engine calls it: prompts in runs of the backend's size, one token for each sequence in a pass.
//! The limits are measured in the same run, since on a shared machine they change from hour to hour.

mod between;
mod machine;
mod passes;
mod plan;
mod samples;
mod series;
mod subject;
mod table;
mod work;

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::args::BenchArgs;
use super::console::{Console, Style};
use super::failure::{Failure, INTERRUPTED};
use super::log_lines::Drawn;
use super::models::{self, Located};
use super::report::{count, plain, size};
use super::{Demo, Outcome};
use crate::engine::{Backend, Engine, LoadOptions};
use crate::kernels::{check_threads, default_threads};
use crate::model::{KvDtype, MemoryMode};
use machine::{Limits, Machine};
use plan::{Plan, Skipped};
use series::{Series, Setting};
use subject::Subject;

/// A line on the terminal that says what is being done.
struct Progress {
    bar: Option<ProgressBar>,
    _drawn: Option<Drawn>,
}

impl Progress {
    fn new(shown: bool) -> Self {
        let bar = shown.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        let drawn = bar.clone().map(Drawn::new);
        Self { bar, _drawn: drawn }
    }

    fn say(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }
}

/// Everything that a run found out.
struct Found {
    date: Timestamp,
    machine: Machine,
    subject: Subject,
    plan: Plan,
    /// Before the model, and after it.
    limits: Limits,
    limits_after: Limits,
    series: Vec<Series>,
    /// Whether Ctrl-C ended it.
    interrupted: bool,
}

/// Measures a model.
pub(super) fn run(args: &BenchArgs, demo: &Demo, console: &mut Console<'_>) -> Outcome {
    let backend = Backend::parse(&args.backend)?;
    let (memory, kv_dtype) = (MemoryMode::parse(&args.memory)?, KvDtype::parse(&args.kv_dtype)?);
    args.threads.iter().try_for_each(|&threads| check_threads(threads))?;
    let machine = Machine::look()?;
    let Located { source, tokenizer } = models::locate(args.model.as_deref(), &args.hub, demo, console)?;
    // Nothing is to be there already, and every token is to take a pass.
    let (prefix_cache, speculation) = (false, false);
    let mut options = LoadOptions {
        tokenizer,
        backend,
        memory,
        kv_dtype,
        prefix_cache,
        speculation,
        ..LoadOptions::new(source)
    };
    let longest = Engine::estimate(&options)?.context_length;
    let mut plan = Plan::new(args, longest)?;
    let threads = threads(backend, &args.threads, &mut plan.skipped);
    options.context_length = Some(plan.context_length());

    let mut found = Found {
        date: Timestamp::now(),
        subject: Subject::new(&options.source)?,
        machine,
        plan,
        limits: Limits::default(),
        limits_after: Limits::default(),
        series: Vec::new(),
        interrupted: false,
    };
    if !args.json {
        for line in found.head() {
            writeln!(console.out, "{line}")?;
        }
        console.out.flush()?;
    }
    let shown = console.err_terminal && !console.quiet;
    if !args.no_limits {
        let progress = Progress::new(shown);
        found.limits = found.machine.limits(&with_one(&threads), |what| progress.say(&what))?;
        drop(progress);
        if !args.json {
            writeln!(console.out, "\n{}", table::limits(&found.limits.0))?;
            console.out.flush()?;
        }
    }
    measure(&mut found, &mut options, &threads, args, console)?;
    if args.json {
        writeln!(console.out, "{}", found.json(args))?;
    } else {
        found.write(console)?;
    }
    Ok(if found.interrupted { INTERRUPTED } else { 0 })
}

/// Fills in the series, and the limits after them. After Ctrl-C what there is stays.
fn measure(
    found: &mut Found,
    options: &mut LoadOptions,
    threads: &[usize],
    args: &BenchArgs,
    console: &Console<'_>,
) -> Result<(), Failure> {
    let progress = Progress::new(console.err_terminal && !console.quiet);
    for (place, &threads) in threads.iter().enumerate() {
        options.threads = Some(threads);
        let mut series = Series::new(threads);
        let mut setting = Setting {
            plan: &mut found.plan,
            repetitions: args.repetitions,
            interrupts: Arc::clone(&console.interrupts),
            progress: &progress,
        };
        let ran = series.run(options, place == 0, &mut setting);
        found.subject.keep(series.backend, options.kv_dtype);
        found.series.push(series);
        match ran {
            Err(Failure::Interrupted) => {
                found.interrupted = true;
                return Ok(());
            }
            ran => ran?,
        }
    }
    if !args.no_limits {
        found.limits_after = found.machine.limits(threads, |what| progress.say(&what))?;
    }
    Ok(())
}

/// The numbers of threads to run with: those asked for that the backend can have, or its own.
fn threads(backend: Backend, asked: &[usize], skipped: &mut Vec<Skipped>) -> Vec<usize> {
    if backend != Backend::Candle {
        return if asked.is_empty() { vec![default_threads()] } else { asked.to_vec() };
    }
    // Candle's pool is one for the process and takes its size from the environment.
    let own = candle_core::utils::get_num_threads();
    skipped.extend(asked.iter().filter(|&&asked| asked != own).map(|asked| Skipped {
        what: format!("{asked} threads"),
        why: format!(
            "The candle backend has {own} in this process; set RAYON_NUM_THREADS={asked} before it starts."
        ),
    }));
    if asked.is_empty() || asked.contains(&own) { vec![own] } else { Vec::new() }
}

/// `threads` with a 1 before them: how one compares with several says whether they are cores.
fn with_one(threads: &[usize]) -> Vec<usize> {
    let mut all = vec![1];
    all.extend(threads.iter().filter(|&&threads| threads != 1));
    all
}

impl Found {
    /// What is known before anything is measured.
    fn head(&self) -> Vec<String> {
        let Subject { name, plan, file_bytes, work, .. } = &self.subject;
        vec![
            format!(
                "phicandle {} on {}, {} threads, {}, {}",
                env!("CARGO_PKG_VERSION"),
                plain(&self.machine.cpu),
                self.machine.threads,
                self.machine.tier.name(),
                self.date.strftime("%Y-%m-%d %H:%M UTC")
            ),
            format!(
                "{}: {}, {} parameters, {}; each token reads {} of weights, and each of a prompt takes {} operations",
                plain(name),
                plan.architecture.name(),
                count(plan.parameters),
                size(*file_bytes),
                size(work.weight_bytes),
                count(work.ops_per_token())
            ),
        ]
    }

    fn write(&self, console: &mut Console<'_>) -> Result<(), Failure> {
        write!(console.out, "{}", table::results(self))?;
        for series in &self.series {
            if let Some(memory) = &series.memory {
                write!(console.out, "\n{}", table::memory(memory))?;
            }
        }
        for note in table::notes(self) {
            console.note(&note)?;
        }
        if self.interrupted {
            let line = console.paint(Style::Dim, "(stopped)");
            console.note(&line)?;
        }
        Ok(())
    }

    fn json(&self, args: &BenchArgs) -> Value {
        let work = &self.subject.work;
        let series = self.series.iter().map(|series| {
            let peaks = self.limits.peaks(&self.limits_after, series.threads);
            series.json(work, peaks.as_ref())
        });
        json!({
            "phicandle": env!("CARGO_PKG_VERSION"),
            "date": self.date.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "machine": self.machine.json(),
            "model": self.subject.json(),
            "backend": self.series.first().map(|series| series.backend),
            "memory": args.memory,
            "kv_dtype": args.kv_dtype,
            "repetitions": args.repetitions,
            "seed": passes::SEED,
            "context_length": self.plan.context_length(),
            "limits": { "before": self.limits.json(), "after": self.limits_after.json() },
            "series": series.collect::<Vec<_>>(),
            "skipped": self.plan.skipped.iter()
                .map(|skipped| json!({ "what": skipped.what, "why": skipped.why }))
                .collect::<Vec<_>>(),
            "interrupted": self.interrupted,
        })
    }
}
