//! From a file to what the engine works with.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::info::{Loaded, ModelInfo};
use super::options::{LoadOptions, ModelSource};
use super::place::Place;
use crate::chat::ChatTemplate;
use crate::error::{Error, Result};
use crate::gguf::{GgufFile, Metadata, ModelPlan};
use crate::model::Forward;
use crate::tokenizer::Tokenizer;

/// The metadata key of the chat template.
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// That of the architecture's name.
const ARCHITECTURE: &str = "general.architecture";

/// Everything that a loaded model is made of.
pub(super) struct Parts {
    pub(super) model: Box<dyn Forward>,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) template: ChatTemplate,
    pub(super) end_of_turn: BTreeSet<u32>,
    pub(super) info: ModelInfo,
    pub(super) load: Duration,
}

/// Opens and validates the file, and plans for what `options` say of the model itself.
pub(super) fn open(options: &LoadOptions) -> Result<(GgufFile, ModelPlan)> {
    let file = match &options.source {
        ModelSource::File(path) => GgufFile::open(path)?,
        ModelSource::Static(name, bytes) => GgufFile::from_static(name, bytes)?,
    };
    let mut plan = ModelPlan::from_header(file.header())?;
    plan.sliding_window = plan.sliding_window.filter(|_| options.sliding_window);
    Ok((file, plan))
}

/// Loads the model.
pub(super) fn load(options: &LoadOptions) -> Result<Parts> {
    let start = Instant::now();
    let (file, plan) = open(options)?;
    let metadata = &file.header().metadata;
    let place = Place::find(&file, &plan, options)?;
    place.memory.check(file.name())?;
    let source = file.name().to_owned();
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
    let model = place.load(file, &plan, options)?;
    let load = start.elapsed();
    let info = ModelInfo::new(
        &plan,
        &Loaded {
            source: &source,
            chat_template: template.source(),
            has_chat_template,
            device: options.device,
            backend: place.backend,
            memory: place.memory,
            load_s: load.as_secs_f64(),
        },
    );
    Ok(Parts { model, tokenizer, template, end_of_turn, info, load })
}

fn tokenizer(file: Option<&Path>, metadata: &Metadata) -> Result<Tokenizer> {
    match file {
        Some(path) => Tokenizer::from_file(path),
        None => Tokenizer::from_gguf(metadata),
    }
}

/// The template to use, and whether it is the caller's or the file's.
fn template(given: Option<&str>, metadata: &Metadata, tokenizer: &Tokenizer) -> Result<(ChatTemplate, bool)> {
    let source = match given {
        Some(source) => Some(source),
        None => metadata.str(CHAT_TEMPLATE)?,
    };
    match source {
        Some(source) => Ok((ChatTemplate::of(source, tokenizer)?, true)),
        None => Ok((ChatTemplate::built_in(tokenizer, metadata.str(ARCHITECTURE)?)?, false)),
    }
}
