//! Arguments of a `Generator`, from Python's dict to the core's options.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;

use crate::engine::{Backend, Engine, LoadOptions, ModelSource, Progress};
use crate::error::Result;
use crate::hub::{CancelFn, Hub, HubOptions, ModelSpec, ProgressFn, work_bar};
use crate::model::{Device, KvDtype, MemoryMode, MemoryPlan};

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

    /// Finds the model file and plans its memory.
    ///
    /// # Errors
    /// Any error of the hub and of [`Engine::estimate`].
    pub(super) fn estimate(self, progress: ProgressFn, cancel: CancelFn) -> Result<MemoryPlan> {
        Engine::estimate(&self.into_core(progress, cancel)?)
    }

    fn into_core(self, progress: ProgressFn, cancel: CancelFn) -> Result<LoadOptions> {
        // What needs no file is checked before one is downloaded.
        let (device, backend) = (Device::parse(&self.device)?, Backend::parse(&self.backend)?);
        let (memory, kv_dtype) = (MemoryMode::parse(&self.memory)?, KvDtype::parse(&self.kv_dtype)?);
        let (source, found) = match self.path {
            Some(path) => (path, None),
            None => {
                let spec = ModelSpec::from_parts(
                    self.model.as_deref(),
                    self.filename.as_deref(),
                    self.revision.as_deref(),
                )?;
                let hub = Hub::new(HubOptions {
                    cache_dir: self.cache_dir,
                    token: self.token,
                    offline: self.offline,
                    progress: Some(progress),
                    bar: self.bar,
                    cancel: Some(cancel),
                    ..HubOptions::default()
                })?;
                let local = hub.resolve(&spec)?;
                (local.model, local.tokenizer)
            }
        };
        Ok(LoadOptions {
            tokenizer: self.tokenizer.or(found),
            chat_template: self.chat_template,
            device,
            backend,
            threads: self.threads,
            context_length: self.context_length,
            memory,
            memory_limit: self.memory_limit,
            sliding_window: self.sliding_window,
            kv_dtype,
            max_batch: self.max_batch,
            max_queue: self.max_queue,
            progress: self.bar.then(|| Progress(Arc::new(work_bar("laying out the weights")))),
            ..LoadOptions::new(ModelSource::File(source))
        })
    }
}
