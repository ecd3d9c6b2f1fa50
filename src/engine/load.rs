//! From a file to what the engine works with.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::info::{Loaded, ModelInfo};
use super::options::{LoadOptions, ModelSource};
use super::place::Place;
use super::saved::Identity;
use crate::chat::ChatTemplate;
use crate::error::{Error, ErrorKind, Result};
use crate::gguf::{GgufFile, Metadata, ModelPlan};
use crate::model::Forward;
use crate::tokenizer::Tokenizer;

/// The metadata key of the chat template.
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// That of the architecture's name.
const ARCHITECTURE: &str = "general.architecture";

/// Most rows of the embeddings without a token, in a model that is used with a tokenizer of another file: they are padding. Phi-2
/// has 905 of them, Phi-3 53.
const MAX_PADDING: usize = 1024;

/// Everything that a loaded model is made of.
pub(super) struct Parts {
    pub(super) model: Box<dyn Forward>,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) template: ChatTemplate,
    pub(super) end_of_turn: BTreeSet<u32>,
    pub(super) info: ModelInfo,
    pub(super) load: Duration,
    pub(super) identity: Identity,
}

/// Opens and validates the file, and plans for what `options` say of the model itself.
pub(super) fn open(options: &LoadOptions) -> Result<(GgufFile, ModelPlan)> {
    let file = options.source.open()?;
    let mut plan = ModelPlan::from_header(file.header())?;
    plan.sliding_window = plan.sliding_window.filter(|_| options.sliding_window);
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
    let (file, plan) = open(options)?;
    let metadata = &file.header().metadata;
    let place = Place::find(&file, &plan, options)?;
    place.memory.check(file.name())?;
    let source = file.name().to_owned();
    let tokenizer = Arc::new(tokenizer(options.tokenizer.as_deref(), metadata)?);
    check_size(tokenizer.vocab_size(), plan.vocab_size, options.tokenizer.as_deref(), &source)?;
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
    let identity = Identity::new(options, &plan);
    Ok(Parts { model, tokenizer, template, end_of_turn, info, load, identity })
}

fn tokenizer(file: Option<&Path>, metadata: &Metadata) -> Result<Tokenizer> {
    match file {
        Some(path) => Tokenizer::from_file(path),
        None => Tokenizer::from_gguf(metadata),
    }
}

/// Compares a tokenizer, the model's own or the one `given`, with the `rows` of the embeddings of `model`.
fn check_size(tokens: usize, rows: usize, given: Option<&Path>, model: &str) -> Result<()> {
    let of_file = |path: &Path| format!("The tokenizer in `{}`", path.display());
    let tokenizer = given.map_or_else(|| "The tokenizer".to_owned(), of_file);
    let sizes = format!(
        "{tokenizer} has {tokens} tokens and the embeddings of `{model}` (token_embd.weight) have {rows} rows"
    );
    let fault = match given {
        _ if tokens > rows => Error::corrupt("tokenizer.ggml.tokens", None, format!("{sizes}.")),
        Some(_) if rows - tokens > MAX_PADDING => Error::corrupt(
            "tokenizer.ggml.tokens",
            None,
            format!("{sizes}: more than {MAX_PADDING} would be without a token, so it is another model's."),
        ),
        _ => return Ok(()),
    };
    let hint = match given {
        Some(_) => {
            "Give the tokenizer.json of this very model, or leave `tokenizer=` out to use the file's own."
        }
        None => return Err(fault),
    };
    Err(Error::new(fault.kind().clone(), fault.message(), hint))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokenizer_of_another_size_is_an_error_that_names_both() {
        let json = Path::new("other/tokenizer.json");
        // Phi-3, Phi-2, and a file that is used with its own tokens alone.
        for (tokens, rows, given) in
            [(32_011, 32_064, Some(json)), (50_295, 51_200, Some(json)), (5, 50_000, None)]
        {
            assert_eq!(check_size(tokens, rows, given, "m.gguf"), Ok(()));
        }
        for (tokens, rows, given) in
            [(50_257, 32_064, Some(json)), (50_257, 100_352, Some(json)), (41, 40, None)]
        {
            let error = check_size(tokens, rows, given, "m.gguf").unwrap_err();
            let sides = [tokens.to_string(), rows.to_string(), "m.gguf".to_owned()];
            assert!(sides.iter().all(|side| error.message().contains(side)), "{error}");
            assert_eq!(error.message().contains("other/tokenizer.json"), given.is_some(), "{error}");
            assert_eq!(error.hint().contains("tokenizer="), given.is_some(), "{error:?}");
        }
    }
}
