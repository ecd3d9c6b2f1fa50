//! A tokenizer: `phicandle._phicandle.RawTokenizer`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyo3::prelude::*;

use super::{gil, log, prompt};
use crate::chat::ChatTemplate;
use crate::error::Result;
use crate::gguf::GgufFile;
use crate::tokenizer::{RenderedPrompt, Tokenizer};

/// The metadata key of the chat template.
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// A tokenizer, and the source of the chat template that goes with it: Phi-3's where the file has none.
#[pyclass(frozen, module = "phicandle._phicandle")]
pub(super) struct RawTokenizer {
    tokenizer: Arc<Tokenizer>,
    template: String,
}

impl RawTokenizer {
    pub(super) fn new(tokenizer: Arc<Tokenizer>, template: String) -> Self {
        Self { tokenizer, template }
    }

    fn open(path: &Path) -> Result<Self> {
        let phi3 = || ChatTemplate::phi3().map(|template| template.source().to_owned());
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
            let file = GgufFile::open(path)?;
            let metadata = &file.header().metadata;
            let template = metadata.str(CHAT_TEMPLATE)?.map_or_else(phi3, |source| Ok(source.to_owned()))?;
            return Ok(Self::new(Arc::new(Tokenizer::from_gguf(metadata)?), template));
        }
        Ok(Self::new(Arc::new(Tokenizer::from_file(path)?), phi3()?))
    }

    /// Parsed for each use: a template that does not parse must not keep the vocabulary from being used.
    fn chat_template(&self) -> Result<ChatTemplate> {
        let text = |id: Option<u32>| id.and_then(|id| self.tokenizer.token_text(id)).unwrap_or_default();
        ChatTemplate::parse(&self.template, &text(self.tokenizer.bos_id()), &text(self.tokenizer.eos_id()))
    }

    fn render(&self, messages: &str, add_generation_prompt: bool) -> Result<RenderedPrompt> {
        let messages = prompt::messages(messages)?;
        self.chat_template()?.render(&messages, add_generation_prompt, self.tokenizer.special_tokens())
    }
}

#[pymethods]
impl RawTokenizer {
    /// Reads the tokenizer of a `.gguf`, or a `tokenizer.json`.
    #[staticmethod]
    fn from_file(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        gil::enter(py, || {
            log::connect(py)?;
            gil::free(py, || Self::open(&path))
        })
    }

    /// The ids of a text.
    fn encode(&self, py: Python<'_>, text: String, bos: Option<bool>) -> PyResult<Vec<u32>> {
        gil::enter(py, || gil::free(py, || self.tokenizer.encode(&text, bos)))
    }

    /// The text of ids.
    fn decode(&self, py: Python<'_>, ids: Vec<u32>, skip_special: bool) -> PyResult<String> {
        gil::enter(py, || gil::free(py, || self.tokenizer.decode(&ids, skip_special)))
    }

    /// Messages, as JSON, in the words of the chat template.
    fn render_chat(&self, py: Python<'_>, messages: String, add_generation_prompt: bool) -> PyResult<String> {
        gil::enter(py, || gil::free(py, || Ok(self.render(&messages, add_generation_prompt)?.text())))
    }

    /// Messages, as JSON, as the ids that a generator would read.
    fn encode_chat(
        &self,
        py: Python<'_>,
        messages: String,
        add_generation_prompt: bool,
    ) -> PyResult<Vec<u32>> {
        gil::enter(py, || {
            gil::free(py, || {
                let rendered = self.render(&messages, add_generation_prompt)?;
                self.tokenizer.encode_rendered(&rendered, None)
            })
        })
    }

    /// Number of ids.
    fn vocab_size(&self) -> usize {
        self.tokenizer.vocab_size()
    }

    /// The token that begins a text.
    fn bos_id(&self) -> Option<u32> {
        self.tokenizer.bos_id()
    }

    /// The tokens that end a turn.
    fn eos_ids(&self) -> Vec<u32> {
        self.tokenizer.end_of_turn_ids(Some(&self.template)).into_iter().collect()
    }

    /// The control tokens by spelling.
    fn special(&self) -> std::collections::BTreeMap<String, u32> {
        self.tokenizer.special_tokens().clone()
    }
}
