//! From a file to what the engine works with.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::info::{Loaded, ModelInfo};
use super::options::{Backend, LoadOptions, ModelSource};
use crate::chat::ChatTemplate;
use crate::error::{Error, Result};
use crate::gguf::{GgufFile, Metadata, ModelPlan};
use crate::kernels::check_threads;
use crate::model::{CandleBackend, Forward, KvDtype, MemoryMode, MemoryPlan};
use crate::tokenizer::Tokenizer;

/// The smallest context that is worth shrinking to when memory is short, in tokens.
const SMALLEST_CONTEXT: usize = 512;

/// The metadata key of the chat template.
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// Everything that a loaded model is made of.
pub(super) struct Parts {
    pub(super) model: Box<dyn Forward>,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) template: ChatTemplate,
    pub(super) end_of_turn: BTreeSet<u32>,
    pub(super) info: ModelInfo,
    pub(super) load: Duration,
}

/// Opens and validates the file.
pub(super) fn open(source: &ModelSource) -> Result<(GgufFile, ModelPlan)> {
    let file = match source {
        ModelSource::File(path) => GgufFile::open(path)?,
        ModelSource::Static(name, bytes) => GgufFile::from_static(name, bytes)?,
    };
    let plan = ModelPlan::from_header(file.header())?;
    Ok((file, plan))
}

/// Loads the model.
pub(super) fn load(options: &LoadOptions) -> Result<Parts> {
    let start = Instant::now();
    let (file, plan) = open(&options.source)?;
    let metadata = &file.header().metadata;
    let memory = plan_memory(&plan, options, file.name())?;
    memory.check(file.name())?;
    warn_unused(options);
    let tokenizer = Arc::new(tokenizer(options.tokenizer.as_deref(), metadata)?);
    if tokenizer.vocab_size() > plan.vocab_size {
        return Err(Error::corrupt(
            "tokenizer.ggml.tokens",
            None,
            format!(
                "The tokenizer has {} tokens and the model's embeddings (token_embd.weight) have {}.",
                tokenizer.vocab_size(),
                plan.vocab_size
            ),
        ));
    }
    let (template, has_chat_template) = template(options.chat_template.as_deref(), metadata, &tokenizer)?;
    let end_of_turn = tokenizer.end_of_turn_ids(Some(template.source()));
    let model = match options.backend {
        Backend::Auto | Backend::Candle => {
            CandleBackend::load(&file, &plan, options.device, memory.context_length)?
        }
        Backend::Native => return Err(no_native()),
    };
    let load = start.elapsed();
    let info = ModelInfo::new(
        &plan,
        &Loaded {
            source: file.name(),
            chat_template: template.source(),
            has_chat_template,
            device: options.device,
            memory,
            load_s: load.as_secs_f64(),
        },
    );
    Ok(Parts { model: Box::new(model), tokenizer, template, end_of_turn, info, load })
}

/// The memory plan for the context asked for, or for the longest that fits.
///
/// # Errors
/// [`ErrorKind::UnsupportedModel`](crate::ErrorKind::UnsupportedModel) when the backend would run the model wrongly,
/// [`ErrorKind::InvalidParameter`](crate::ErrorKind::InvalidParameter) for options out of range.
pub(super) fn plan_memory(plan: &ModelPlan, options: &LoadOptions, name: &str) -> Result<MemoryPlan> {
    options.threads.map_or(Ok(()), check_threads)?;
    if options.backend == Backend::Native {
        return Err(no_native());
    }
    let longest = CandleBackend::longest_context(plan)?;
    let planned = |context| {
        let memory = CandleBackend::memory(plan, context);
        let limit = options.memory_limit.unwrap_or(u64::MAX);
        MemoryPlan { available_bytes: memory.available_bytes.min(limit), ..memory }
    };
    if let Some(asked) = options.context_length {
        if asked == 0 {
            return Err(Error::invalid(
                "context_length",
                "A context of 0 tokens holds nothing.",
                "Ask for 1 or more.",
            ));
        }
        return Ok(planned(asked));
    }
    if longest < plan.context_length {
        log::warn!(
            "{name}: the context is {longest} tokens, not the file's {}: past that the candle backend would give wrong text",
            plan.context_length
        );
    }
    let mut memory = planned(longest);
    while !memory.fits() && memory.context_length / 2 >= SMALLEST_CONTEXT {
        memory = planned(memory.context_length / 2);
    }
    if memory.context_length < longest {
        log::warn!(
            "{name}: the context is {} tokens, not {longest}: more does not fit into memory",
            memory.context_length
        );
    }
    Ok(memory)
}

fn tokenizer(file: Option<&Path>, metadata: &Metadata) -> Result<Tokenizer> {
    match file {
        Some(path) => Tokenizer::from_file(path),
        None => Tokenizer::from_gguf(metadata),
    }
}

/// The template to use, and whether it is the caller's or the file's.
fn template(given: Option<&str>, metadata: &Metadata, tokenizer: &Tokenizer) -> Result<(ChatTemplate, bool)> {
    let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
    let source = match given {
        Some(source) => Some(source),
        None => metadata.str(CHAT_TEMPLATE)?,
    };
    match source {
        Some(source) => {
            let template = ChatTemplate::parse(source, &text(tokenizer.bos_id()), &text(tokenizer.eos_id()))?;
            Ok((template, true))
        }
        None => {
            log::warn!("the file has no chat template ({CHAT_TEMPLATE}): Phi-3's is used");
            Ok((ChatTemplate::phi3()?, false))
        }
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

#[cold]
fn no_native() -> Error {
    Error::invalid(
        "backend",
        "This version has no native backend yet.",
        "Use backend=\"auto\" or backend=\"candle\".",
    )
}
