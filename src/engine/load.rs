//! From a file to what the engine works with.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::info::{Loaded, ModelInfo};
use super::options::{LoadOptions, ModelSource};
use super::place::Place;
use crate::chat::ChatTemplate;
use crate::error::{Error, ErrorKind, Result};
use crate::gguf::{GgufFile, Metadata, ModelPlan};
use crate::model::Forward;
use crate::tokenizer::Tokenizer;

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
    let file = source.open()?;
    let plan = ModelPlan::from_header(file.header())?;
    Ok((file, plan))
}

/// Loads the model.
pub(super) fn load(options: &LoadOptions) -> Result<Parts> {
    let start = Instant::now();
    if let ModelSource::Header(name, _) = &options.source {
        return Err(Error::new(
            ErrorKind::ModelNotFound { candidates: Vec::new() },
            format!("Only the header of `{name}` is here, and no weights."),
            "Download the model first, with `phicandle pull` or by its name on the hub.",
        ));
    }
    let (file, plan) = open(&options.source)?;
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
