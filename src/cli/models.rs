//! From what the user calls a model to a file on this machine, and to a running engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Demo;
use super::args::{EngineArgs, HubArgs};
use super::console::Console;
use super::failure::Failure;
use super::log_lines::Drawn;
use crate::engine::{Backend, Engine, LoadOptions, ModelSource, Progress};
use crate::env::PHICANDLE_MODEL;
use crate::error::{Error, ErrorKind};
use crate::hub::{
    DEFAULT_REPO, DEFAULT_TOKENIZER_REPO, Described, Hub, HubOptions, LocalModel, ModelSpec, TOKENIZER_FILE,
};
use crate::kernels::check_threads;
use crate::model::{Device, KvDtype, MemoryMode, available_memory};

/// The name of the model that comes with phicandle.
pub(super) const DEMO: &str = "demo";

/// A model on this machine.
pub(super) struct Located {
    pub(super) source: ModelSource,
    /// A `tokenizer.json` that belongs to it.
    pub(super) tokenizer: Option<PathBuf>,
}

/// Finds `model`: `demo`, a path, or a hub name, which is downloaded when it is not in the cache.
pub(super) fn locate(
    model: Option<&str>,
    hub: &HubArgs,
    demo: &Demo,
    console: &Console<'_>,
) -> Result<Located, Failure> {
    find(model, hub, demo, |spec| {
        let local = resolve(spec, hub, console)?;
        Ok(Located { source: ModelSource::File(local.model), tokenizer: local.tokenizer })
    })
}

/// As [`locate`], but of a hub model that is not in the cache only the header is read.
pub(super) fn describe(
    model: Option<&str>,
    hub: &HubArgs,
    demo: &Demo,
    console: &Console<'_>,
) -> Result<Located, Failure> {
    find(model, hub, demo, |spec| {
        Ok(match with_hub(hub, console, |hub| hub.describe(spec))? {
            Described::Local(local) => {
                Located { source: ModelSource::File(local.model), tokenizer: local.tokenizer }
            }
            Described::Remote { name, header } => {
                Located { source: ModelSource::Header(name, Box::new(header)), tokenizer: None }
            }
        })
    })
}

fn find(
    model: Option<&str>,
    hub: &HubArgs,
    demo: &Demo,
    on_hub: impl FnOnce(&ModelSpec) -> Result<Located, Failure>,
) -> Result<Located, Failure> {
    let of_hub = hub.filename.is_some() || hub.revision.is_some();
    let model = model.map(str::to_owned).or_else(preset);
    let source = match model.as_deref() {
        Some(DEMO) => match demo {
            Demo::File(path) => ModelSource::File(path.clone()),
            Demo::Bytes(bytes) => ModelSource::Static(DEMO, bytes),
        },
        Some(path) if is_file(path) => ModelSource::File(path.into()),
        model => {
            let spec = ModelSpec::from_parts(model, hub.filename.as_deref(), hub.revision.as_deref())?;
            return on_hub(&spec);
        }
    };
    if of_hub {
        return Err(Error::invalid(
            "filename",
            "--filename and --revision choose inside a repository of the hub, and the model is a file.",
            "Leave them out, or give `owner/name` with --model.",
        )
        .into());
    }
    Ok(Located { source, tokenizer: None })
}

/// As [`locate`], for the tokenizer alone: of the tutorial's model only the small `tokenizer.json` is fetched.
pub(super) fn locate_tokenizer(
    model: Option<&str>,
    args: &HubArgs,
    demo: &Demo,
    console: &Console<'_>,
) -> Result<Located, Failure> {
    let chosen = model.map(str::to_owned).or_else(preset);
    if chosen.is_none() || chosen.as_deref() == Some(DEFAULT_REPO) {
        let path = with_hub(args, console, |hub| hub.file(DEFAULT_TOKENIZER_REPO, None, TOKENIZER_FILE))?;
        return Ok(Located { source: ModelSource::File(path), tokenizer: None });
    }
    locate(chosen.as_deref(), args, demo, console)
}

/// The model that `PHICANDLE_MODEL` names.
fn preset() -> Option<String> {
    std::env::var(PHICANDLE_MODEL).ok().filter(|name| !name.is_empty())
}

/// Whether the demo model is meant.
pub(super) fn is_demo(model: Option<&str>) -> bool {
    model.map(str::to_owned).or_else(preset).as_deref() == Some(DEMO)
}

/// Whether `model` names a file here: it exists, or it ends as a model file's name does.
fn is_file(model: &str) -> bool {
    let path = Path::new(model);
    path.exists() || path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// The files of a hub model, downloaded when needed.
pub(super) fn resolve(
    spec: &ModelSpec,
    args: &HubArgs,
    console: &Console<'_>,
) -> Result<LocalModel, Failure> {
    with_hub(args, console, |hub| hub.resolve(spec))
}

/// Asks the hub. Ctrl-C stops a download, which goes on from there next time.
fn with_hub<T>(
    args: &HubArgs,
    console: &Console<'_>,
    ask: impl FnOnce(&Hub) -> Result<T, Error>,
) -> Result<T, Failure> {
    let interrupts = Arc::clone(&console.interrupts);
    let hub = Hub::new(HubOptions {
        cache_dir: args.cache_dir.clone(),
        offline: args.offline.then_some(true),
        bar: console.err_terminal && !console.quiet,
        memory: Some(available_memory()),
        cancel: Some(Arc::new(move || interrupts.pressed())),
        ..HubOptions::default()
    })?;
    let _guard = console.interrupts.answering();
    let found = ask(&hub);
    if console.interrupts.pressed() && found.is_err() { Err(Failure::Interrupted) } else { Ok(found?) }
}

/// How to load the model that `args` describe.
pub(super) fn load_options(
    args: &EngineArgs,
    demo: &Demo,
    console: &Console<'_>,
) -> Result<LoadOptions, Failure> {
    // Cheap checks first: no download for the sake of a typing mistake.
    let (backend, device) = (Backend::parse(&args.backend)?, Device::parse(&args.device)?);
    let (memory, kv_dtype) = (MemoryMode::parse(&args.memory)?, KvDtype::parse(&args.kv_dtype)?);
    args.threads.map_or(Ok(()), check_threads)?;
    let chat_template = args.chat_template.as_deref().map(read_template).transpose()?;
    let Located { source, tokenizer } = locate(args.model.as_deref(), &args.hub, demo, console)?;
    Ok(LoadOptions {
        tokenizer: args.tokenizer.clone().or(tokenizer),
        chat_template,
        device,
        backend,
        threads: args.threads,
        context_length: args.context_length,
        memory,
        sliding_window: !args.no_sliding_window,
        kv_dtype,
        // A command has one answer at a time.
        max_batch: 1,
        ..LoadOptions::new(source)
    })
}

fn read_template(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|error| {
        Error::new(
            ErrorKind::ModelRead,
            format!("The chat template {} could not be read: {error}.", path.display()),
            "Give --chat-template the path of a UTF-8 text file.",
        )
    })
}

/// Loads the model, with a sign of life on a terminal.
pub(super) fn load(args: &EngineArgs, demo: &Demo, console: &Console<'_>) -> Result<Engine, Failure> {
    let mut options = load_options(args, demo, console)?;
    let _drawn = (console.err_terminal && !console.quiet).then(|| {
        let spinner = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            spinner.set_style(style);
        }
        spinner.set_message("loading the model");
        spinner.enable_steady_tick(Duration::from_millis(120));
        let told = spinner.clone();
        options.progress = Some(Progress(Arc::new(move |done, total| {
            told.set_message(format!("loading the model: {} %", 100 * done / total.max(1)));
        })));
        Drawn::new(spinner)
    });
    Ok(Engine::load(&options)?)
}
