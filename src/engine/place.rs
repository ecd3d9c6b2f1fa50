//! Which backend runs a model, with how much memory and for how long a context.

use std::sync::Arc;

use super::options::{Backend, LoadOptions};
use crate::error::{Error, Result};
use crate::gguf::{GgufFile, ModelPlan};
use crate::kernels::check_threads;
use crate::model::native::{self, NativeBackend, NativeOptions};
use crate::model::{CandleBackend, Forward, KvDtype, MemoryMode, MemoryPlan, available_memory};

/// The smallest context that is worth shrinking to when memory is short, in tokens.
const SMALLEST_CONTEXT: usize = 512;

/// Where a model will run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Never [`Backend::Auto`].
    pub(super) backend: Backend,
    /// Never [`MemoryMode::Auto`].
    mode: MemoryMode,
    pub(super) memory: MemoryPlan,
}

impl Place {
    /// The place for the context asked for, or for the longest that fits into memory.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedModel`](crate::ErrorKind::UnsupportedModel) when the backend would run the model wrongly,
    /// [`ErrorKind::InvalidParameter`](crate::ErrorKind::InvalidParameter) for options out of range.
    pub(super) fn find(file: &GgufFile, plan: &ModelPlan, options: &LoadOptions) -> Result<Self> {
        options.threads.map_or(Ok(()), check_threads)?;
        if options.max_batch == 0 {
            return Err(Error::invalid(
                "max_batch",
                "A batch of 0 sequences computes nothing.",
                "Ask for 1 or more.",
            ));
        }
        let backend = options.backend()?;
        let place = |context| Self::at(backend, file, plan, options, context);
        if let Some(asked) = options.context_length {
            if asked == 0 {
                return Err(Error::invalid(
                    "context_length",
                    "A context of 0 tokens holds nothing.",
                    "Ask for 1 or more.",
                ));
            }
            return Ok(place(asked));
        }
        let name = file.name();
        let longest = match backend {
            Backend::Native => NativeBackend::longest_context(plan)?,
            _ => CandleBackend::longest_context(plan)?,
        };
        if longest < plan.context_length {
            log::warn!(
                "{name}: the context is {longest} tokens, not the file's {}: past that this backend would give wrong text",
                plan.context_length
            );
        }
        let mut best = place(longest);
        while !best.memory.fits() && best.memory.context_length / 2 >= SMALLEST_CONTEXT {
            best = place(best.memory.context_length / 2);
        }
        if best.memory.context_length < longest {
            log::warn!(
                "{name}: the context is {} tokens, not {longest}: more does not fit into memory",
                best.memory.context_length
            );
        }
        Ok(best)
    }

    fn at(
        backend: Backend,
        file: &GgufFile,
        plan: &ModelPlan,
        options: &LoadOptions,
        context: usize,
    ) -> Self {
        let available = available_memory().min(options.memory_limit.unwrap_or(u64::MAX));
        let (mode, memory) = match backend {
            Backend::Native => {
                let needs =
                    NativeBackend::needs(context, options.kv_dtype, options.threads, options.max_batch);
                native::memory(&file.header().tensors, plan, &needs, options.memory, available)
            }
            _ => {
                let memory = CandleBackend::memory(plan, context);
                (MemoryMode::Repack, MemoryPlan { available_bytes: available, ..memory })
            }
        };
        Self { backend, mode, memory }
    }

    /// Loads the model there.
    ///
    /// # Errors
    /// Those of the backend.
    pub(super) fn load(
        &self,
        file: GgufFile,
        plan: &ModelPlan,
        options: &LoadOptions,
    ) -> Result<Box<dyn Forward>> {
        let context_length = self.memory.context_length;
        if self.backend != Backend::Native {
            warn_unused(options);
            return Ok(Box::new(CandleBackend::load(&file, plan, options.device, context_length)?));
        }
        if options.memory == MemoryMode::Auto && self.mode == MemoryMode::Mmap {
            log::warn!(
                "{}: the weights stay in the file (memory=mmap): memory for a copy, which is faster, is short",
                file.name()
            );
        }
        let native = NativeOptions {
            threads: options.threads,
            isa: options.isa,
            memory: self.mode,
            kv_dtype: options.kv_dtype,
            context_length,
            slots: options.max_batch,
        };
        let silent = |_, _| {};
        let progress: &dyn Fn(u64, u64) = match &options.progress {
            Some(progress) => &*progress.0,
            None => &silent,
        };
        Ok(Box::new(NativeBackend::load(&Arc::new(file), plan, &native, progress)?))
    }
}

/// Says what of the options has no effect on the candle backend. Its thread pool is one for the process and takes its size
/// from the environment.
fn warn_unused(options: &LoadOptions) {
    let used = candle_core::utils::get_num_threads();
    if let Some(asked) = options.threads.filter(|&asked| asked != used) {
        log::warn!(
            "threads={asked} has no effect on the candle backend, which uses {used}: set RAYON_NUM_THREADS={asked} before the program starts"
        );
    }
    if options.memory != MemoryMode::Auto {
        log::warn!(
            "memory={} has no effect on the candle backend, which copies the weights",
            options.memory.name()
        );
    }
    if options.kv_dtype != KvDtype::F16 {
        log::warn!(
            "kv_dtype={} has no effect on the candle backend, which keeps 32 bits",
            options.kv_dtype.name()
        );
    }
}
