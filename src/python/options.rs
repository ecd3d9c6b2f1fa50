//! Arguments of a `Generator`, from Python's dict to the core's options.

use std::path::PathBuf;

use pyo3::prelude::*;

use crate::engine::{Backend, Engine, LoadOptions, ModelSource};
use crate::error::{Error, ErrorKind, Result};
use crate::hub::{CancelFn, Hub, HubOptions, ModelSpec, ProgressFn};
use crate::model::{Device, MemoryPlan};

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
    memory: Option<u64>,
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
    /// Any error of the hub and of [`Engine::load`], and [`ErrorKind::OutOfMemory`] past `memory`.
    pub(super) fn load(self, progress: ProgressFn, cancel: CancelFn) -> Result<Engine> {
        let memory = self.memory;
        let options = self.into_core(progress, cancel)?;
        if let Some(limit) = memory {
            within(&Engine::estimate(&options)?, limit)?;
        }
        Engine::load(&options)
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
            max_queue: self.max_queue,
            ..LoadOptions::new(ModelSource::File(source))
        })
    }
}

/// Refuses a plan past the limit that the caller set.
fn within(plan: &MemoryPlan, limit: u64) -> Result<()> {
    let needed = plan.total_bytes();
    if needed <= limit {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::OutOfMemory { needed, available: limit },
        format!(
            "The model needs {needed} bytes at a context of {}, and memory= allows {limit}.",
            plan.context_length
        ),
        "Use a smaller context_length=, a smaller quantisation, or a larger memory=.",
    ))
}
