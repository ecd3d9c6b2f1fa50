//! A tokenizer: `phicandle._phicandle.RawTokenizer`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyo3::prelude::*;

use super::{gil, log, prompt};
use crate::chat::ChatTemplate;
use crate::error::Result;
use crate::gguf::GgufFile;
use crate::tokenizer::{RenderedPrompt, Tokenizer};

/// The metadata keys of the chat template and of the architecture's name.
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";
const ARCHITECTURE: &str = "general.architecture";

/// A tokenizer, and the source of the chat template that goes with it: its family's where the file has none.
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
        let (tokenizer, template, architecture) =
            if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
                let file = GgufFile::open(path)?;
                let metadata = &file.header().metadata;
                let text = |key| -> Result<_> { Ok(metadata.str(key)?.map(str::to_owned)) };
                (Tokenizer::from_gguf(metadata)?, text(CHAT_TEMPLATE)?, text(ARCHITECTURE)?)
            } else {
                (Tokenizer::from_file(path)?, None, None)
            };
        let template = match template {
            Some(source) => source,
            None => ChatTemplate::built_in(&tokenizer, architecture.as_deref())?.source().to_owned(),
        };
        Ok(Self::new(Arc::new(tokenizer), template))
    }

    /// Parsed for each use: a template that does not parse must not keep the vocabulary from being used.
    fn chat_template(&self) -> Result<ChatTemplate> {
        ChatTemplate::of(&self.template, &self.tokenizer)
    }

    fn render(&self, messages: &str, tools: &str, add_generation_prompt: bool) -> Result<RenderedPrompt> {
        let (messages, tools) = (prompt::messages(messages)?, prompt::tools(tools)?);
        let control = self.tokenizer.special_tokens();
        self.chat_template()?.render_with_tools(&messages, &tools, add_generation_prompt, control)
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

    /// Messages and tools, both JSON, in the words of the chat template.
    fn render_chat(
        &self,
        py: Python<'_>,
        messages: String,
        tools: String,
        add_generation_prompt: bool,
    ) -> PyResult<String> {
        gil::enter(py, || gil::free(py, || Ok(self.render(&messages, &tools, add_generation_prompt)?.text())))
    }

    /// Messages and tools, both JSON, as the ids that a generator would read.
    fn encode_chat(
        &self,
        py: Python<'_>,
        messages: String,
        tools: String,
        add_generation_prompt: bool,
    ) -> PyResult<Vec<u32>> {
        gil::enter(py, || {
            gil::free(py, || {
                let (messages, tools) = (prompt::messages(&messages)?, prompt::tools(&tools)?);
                self.chat_template()?.encode(&messages, &tools, add_generation_prompt, &self.tokenizer)
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

    /// The end-of-text, end-of-turn, unknown and padding tokens.
    fn role_ids(&self) -> [Option<u32>; 4] {
        let tokenizer = &self.tokenizer;
        [tokenizer.eos_id(), tokenizer.eot_id(), tokenizer.unk_id(), tokenizer.pad_id()]
    }

    /// A token as it is written.
    fn token(&self, token_id: u32) -> Option<String> {
        self.tokenizer.token_text(token_id)
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
