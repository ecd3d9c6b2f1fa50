//! Arguments of a `Generator`, from Python's dict to the core's options.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;

use crate::engine::{Backend, Engine, LoadOptions, ModelSource, Progress};
use crate::error::Result;
use crate::hub::{CancelFn, Described, Hub, HubOptions, ModelSpec, ProgressFn, work_bar};
use crate::model::{Device, KvDtype, MemoryMode, MemoryPlan, available_memory};

/// `phicandle._phicandle._Options`: types are checked in Python, meanings here and below.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(super) struct Options {
    model: Option<String>,
    path: Option<PathBuf>,
    filename: Option<String>,
    revision: Option<String>,
    tokenizer: Option<PathBuf>,
    chat_template: Option<String>,
    device: String,
    backend: String,
    threads: Option<usize>,
    context_length: Option<usize>,
    sliding_window: bool,
    kv_dtype: String,
    memory: String,
    memory_limit: Option<u64>,
    max_batch: usize,
    max_queue: usize,
    prefix_cache: bool,
    speculation: bool,
    cache_dir: Option<PathBuf>,
    token: Option<String>,
    offline: Option<bool>,
    bar: bool,
}

impl Options {
    /// Finds the files, on the hub where need be, and loads them.
    ///
    /// # Errors
    /// Any error of the hub and of [`Engine::load`].
    pub(super) fn load(self, progress: ProgressFn, cancel: CancelFn) -> Result<Engine> {
        Engine::load(&self.into_core(progress, cancel)?)
    }

    /// Finds the model, or reads its header from the hub, and plans its memory.
    ///
    /// # Errors
    /// Any error of the hub and of [`Engine::estimate`].
    pub(super) fn estimate(self, progress: ProgressFn, cancel: CancelFn) -> Result<MemoryPlan> {
        Engine::estimate(&self.into_described(progress, cancel)?)
    }

    fn into_core(mut self, progress: ProgressFn, cancel: CancelFn) -> Result<LoadOptions> {
        // What needs no file is checked before one is downloaded.
        self.check()?;
        let (source, found) = match self.path.take() {
            Some(path) => (ModelSource::File(path), None),
            None => {
                let (hub, spec) = self.hub(progress, cancel)?;
                let local = hub.resolve(&spec)?;
                (ModelSource::File(local.model), local.tokenizer)
            }
        };
        self.with_source(source, found)
    }

    /// As [`Self::into_core`]; of a model that is not on this machine, only the header is read.
    fn into_described(mut self, progress: ProgressFn, cancel: CancelFn) -> Result<LoadOptions> {
        self.check()?;
        let (source, found) = match self.path.take() {
            Some(path) => (ModelSource::File(path), None),
            None => {
                let (hub, spec) = self.hub(progress, cancel)?;
                match hub.describe(&spec)? {
                    Described::Local(local) => (ModelSource::File(local.model), local.tokenizer),
                    Described::Remote { name, header } => (ModelSource::Header(name, Box::new(header)), None),
                }
            }
        };
        self.with_source(source, found)
    }

    fn check(&self) -> Result<()> {
        Device::parse(&self.device)?;
        Backend::parse(&self.backend)?;
        MemoryMode::parse(&self.memory)?;
        KvDtype::parse(&self.kv_dtype)?;
        Ok(())
    }

    fn hub(&self, progress: ProgressFn, cancel: CancelFn) -> Result<(Hub, ModelSpec)> {
        let spec =
            ModelSpec::from_parts(self.model.as_deref(), self.filename.as_deref(), self.revision.as_deref())?;
        let hub = Hub::new(HubOptions {
            cache_dir: self.cache_dir.clone(),
            token: self.token.clone(),
            offline: self.offline,
            progress: Some(progress),
            bar: self.bar,
            memory: Some(available_memory().min(self.memory_limit.unwrap_or(u64::MAX))),
            cancel: Some(cancel),
            ..HubOptions::default()
        })?;
        Ok((hub, spec))
    }

    fn with_source(self, source: ModelSource, found: Option<PathBuf>) -> Result<LoadOptions> {
        Ok(LoadOptions {
            tokenizer: self.tokenizer.or(found),
            chat_template: self.chat_template,
            device: Device::parse(&self.device)?,
            backend: Backend::parse(&self.backend)?,
            threads: self.threads,
            context_length: self.context_length,
            memory: MemoryMode::parse(&self.memory)?,
            memory_limit: self.memory_limit,
            sliding_window: self.sliding_window,
            kv_dtype: KvDtype::parse(&self.kv_dtype)?,
            max_batch: self.max_batch,
            max_queue: self.max_queue,
            prefix_cache: self.prefix_cache,
            speculation: self.speculation,
            progress: self.bar.then(|| Progress(Arc::new(work_bar("laying out the weights")))),
            ..LoadOptions::new(source)
        })
    }
}
