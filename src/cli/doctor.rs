//! `phicandle doctor`: what this machine and this build offer, and what stands in the way.

use std::fs::OpenOptions;
use std::path::Path;

use serde_json::{Value, json};
use sysinfo::{CpuRefreshKind, RefreshKind, System};

use super::args::DoctorArgs;
use super::console::{Console, Style};
use super::report::{row, size, table};
use super::{Failure, Outcome};
use crate::env::{PHICANDLE_ISA, PHICANDLE_MODEL};
use crate::error::Error;
use crate::hub::{Hub, HubOptions};
use crate::kernels::{CpuInfo, default_threads};
use crate::model::available_memory;

/// Environment variables that change what phicandle does. Tokens are not among them: their values are secret.
const VARIABLES: [&str; 8] = [
    PHICANDLE_MODEL,
    PHICANDLE_ISA,
    "RAYON_NUM_THREADS",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "HF_HUB_DOWNLOAD_TIMEOUT",
];

/// Findings under one title.
struct Section {
    title: &'static str,
    /// Key, words for people, value for programs.
    rows: Vec<(&'static str, String, Value)>,
}

impl Section {
    fn new(title: &'static str) -> Self {
        Self { title, rows: Vec::new() }
    }

    /// Adds a finding; for programs it is `value`, for people the words.
    fn add(&mut self, key: &'static str, words: impl Into<String>, value: impl Into<Value>) {
        self.rows.push((key, words.into(), value.into()));
    }
}

/// Writes the findings. The exit code is 1 when something here stops models from running.
pub(super) fn run(args: &DoctorArgs, console: &mut Console<'_>) -> Outcome {
    let mut problems = Vec::new();
    let mut notes = Vec::new();
    let sections =
        [build(), cpu(&mut problems), memory(), hub(args, &mut problems, &mut notes), environment()];
    if args.json {
        let mut report = serde_json::Map::new();
        for section in sections {
            let rows =
                section.rows.into_iter().map(|(key, _, value)| (key.replace(' ', "_"), value)).collect();
            report.insert(section.title.to_lowercase(), Value::Object(rows));
        }
        report.insert("problems".to_owned(), json!(problems));
        report.insert("notes".to_owned(), json!(notes));
        writeln!(console.out, "{}", Value::Object(report))?;
    } else {
        for section in &sections {
            write_section(section, console)?;
        }
        for note in &notes {
            writeln!(console.out, "note: {note}")?;
        }
        for problem in &problems {
            let label = console.paint(Style::Red, "problem:");
            writeln!(console.err, "{label} {problem}")?;
        }
        if problems.is_empty() {
            writeln!(console.out, "Models run here.")?;
        }
    }
    Ok(i32::from(!problems.is_empty()))
}

fn write_section(section: &Section, console: &mut Console<'_>) -> Result<(), Failure> {
    let rows: Vec<_> = section.rows.iter().map(|(key, words, _)| row([key, words])).collect();
    if !rows.is_empty() {
        writeln!(console.out, "{}", section.title)?;
        for line in table(&rows).lines() {
            writeln!(console.out, "  {line}")?;
        }
        writeln!(console.out)?;
    }
    Ok(())
}

fn build() -> Section {
    let mut section = Section::new("Build");
    let version = env!("CARGO_PKG_VERSION");
    section.add("version", version, version);
    let system = format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH);
    section.add("system", system.clone(), system);
    let all = [
        ("hub", cfg!(feature = "hub")),
        ("cli", cfg!(feature = "cli")),
        ("python", cfg!(feature = "python")),
        ("cuda", cfg!(feature = "cuda")),
        ("metal", cfg!(feature = "metal")),
    ];
    let features: Vec<&str> = all.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    section.add("features", features.join(" "), json!(features));
    section
}

fn cpu(problems: &mut Vec<String>) -> Section {
    let mut section = Section::new("CPU");
    match CpuInfo::detect() {
        Ok(cpu) => {
            let features = if cpu.features.is_empty() {
                "none that kernels ask for".into()
            } else {
                cpu.features.join(" ")
            };
            section.add("features", features, json!(cpu.features));
            let forced = if std::env::var_os(PHICANDLE_ISA).is_some() {
                format!(", by {PHICANDLE_ISA}")
            } else {
                String::new()
            };
            section.add("tier", format!("{}{forced}", cpu.tier.name()), cpu.tier.name());
        }
        Err(error) => problems.push(describe(&error)),
    }
    if let Ok(system) = System::new_with_specifics(RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing()))
    {
        section.add("logical cpus", system.cpus().len().to_string(), system.cpus().len());
    }
    if let Ok(cores) = System::physical_core_count() {
        section.add("cores", cores.to_string(), cores);
    }
    let threads = default_threads();
    section.add(
        "threads",
        format!("{threads}: the cores that this process may use (affinity and container limits counted)"),
        threads,
    );
    // Candle's pool is one for the process, sized when it is first used.
    let candle = candle_core::utils::get_num_threads();
    section.add("candle threads", format!("{candle}, by RAYON_NUM_THREADS or the system"), candle);
    section
}

fn memory() -> Section {
    let mut section = Section::new("Memory");
    if let Ok(mut system) = System::new() {
        system.refresh_memory();
        let total = system.total_memory();
        section.add("total", size(total), total);
        if let Some(limits) = system.cgroup_limits().filter(|limits| limits.total_memory < total) {
            section.add("container limit", size(limits.total_memory), limits.total_memory);
        }
    }
    let available = available_memory();
    section.add("available", size(available), available);
    section
}

fn hub(args: &DoctorArgs, problems: &mut Vec<String>, notes: &mut Vec<String>) -> Section {
    let mut section = Section::new("Hub");
    let options = HubOptions {
        cache_dir: args.cache_dir.clone(),
        offline: args.offline.then_some(true),
        connect_timeout: Some(std::time::Duration::from_secs(5)),
        stall_timeout: Some(std::time::Duration::from_secs(5)),
        tries: Some(1),
        ..HubOptions::default()
    };
    let hub = match Hub::new(options) {
        Ok(hub) => hub,
        Err(error) => {
            problems.push(describe(&error));
            return section;
        }
    };
    let folder = hub.cache_dir().display().to_string();
    section.add("cache", folder.clone(), folder.clone());
    match hub.cached_models() {
        Ok(models) => {
            let bytes: u64 = models.iter().map(|model| model.bytes).sum();
            section.add("models", format!("{} ({})", models.len(), size(bytes)), models.len());
        }
        Err(error) => problems.push(describe(&error)),
    }
    if let Err(error) = writable(hub.cache_dir()) {
        notes.push(format!(
            "The cache folder {folder} cannot be written ({error}): no model can be downloaded."
        ));
    }
    section.add("endpoint", hub.endpoint(), hub.endpoint());
    match hub.reachable() {
        Ok(answer) => {
            let words = if answer.reachable {
                format!("yes, in {:.0} ms", answer.elapsed.as_secs_f64() * 1000.0)
            } else {
                format!("no: {}", answer.detail)
            };
            section.add("reachable", words, answer.reachable);
            if !answer.reachable {
                notes.push("Without the hub, models come from the cache or from files; `--model demo` needs neither.".to_owned());
            }
        }
        Err(error) => problems.push(describe(&error)),
    }
    section
}

/// Tries to write in `folder`; one that is not there yet is made when it is needed.
fn writable(folder: &Path) -> std::io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let probe = folder.join(format!(".phicandle-doctor-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).open(&probe)?;
    std::fs::remove_file(&probe)
}

fn environment() -> Section {
    let mut section = Section::new("Environment");
    for name in VARIABLES {
        if let Some(value) = std::env::var_os(name) {
            let value = value.to_string_lossy().into_owned();
            section.add(name, value.clone(), value);
        }
    }
    section
}

fn describe(error: &Error) -> String {
    format!("{} {}", error.message(), error.hint())
}
