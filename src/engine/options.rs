//! How to load a model.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::gguf::{GgufFile, Header};
use crate::kernels::Isa;
use crate::model::{Device, KvDtype, MemoryMode};

/// Requests that may wait unless the caller says otherwise.
pub const DEFAULT_MAX_QUEUE: usize = 1024;

/// Sequences that are computed at once unless the caller says otherwise.
pub const DEFAULT_MAX_BATCH: usize = 16;

/// Where a model's bytes are.
#[derive(Debug, Clone)]
pub enum ModelSource {
    /// A `.gguf` file.
    File(PathBuf),
    /// A GGUF image inside the program, and a name for messages.
    Static(&'static str, &'static [u8]),
    /// A header alone, and a name for messages: enough for [`Engine::estimate`](super::Engine::estimate), not to load.
    Header(String, Box<Header>),
}

impl ModelSource {
    /// Opens the model; of a split one all parts.
    ///
    /// # Errors
    /// Those of [`GgufFile::open`].
    pub fn open(&self) -> Result<GgufFile> {
        match self {
            Self::File(path) => GgufFile::open(path),
            Self::Static(name, bytes) => GgufFile::from_static(name, bytes),
            Self::Header(name, header) => Ok(GgufFile::without_weights(name, (**header).clone())),
        }
    }
}

/// What computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backend {
    /// [`Backend::Native`] on the CPU, [`Backend::Candle`] on other devices.
    #[default]
    Auto,
    /// candle-transformers' models.
    Candle,
    /// phicandle's own kernels, on the CPU.
    Native,
}

impl Backend {
    /// The name that [`Backend::parse`] reads.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Candle => "candle",
            Self::Native => "native",
        }
    }

    /// Reads `auto`, `candle` or `native`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameter`](crate::ErrorKind::InvalidParameter) for any other text.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "candle" => Ok(Self::Candle),
            "native" => Ok(Self::Native),
            _ => Err(Error::invalid(
                "backend",
                format!("There is no backend {text:?} in this version."),
                "Use \"auto\", \"candle\" or \"native\".",
            )),
        }
    }
}

/// How to load a model. [`LoadOptions::new`] gives the defaults.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Where the model is.
    pub source: ModelSource,
    /// A `tokenizer.json`, or a `.gguf` whose tokenizer to use, in place of the file's own.
    pub tokenizer: Option<PathBuf>,
    /// A Jinja chat template in place of the file's own.
    pub chat_template: Option<String>,
    /// Where to compute.
    pub device: Device,
    /// What computes.
    pub backend: Backend,
    /// Threads to compute with, 1 to 1024; `None` lets the backend choose. Candle's pool is one for the process, sized by
    /// `RAYON_NUM_THREADS`, so that backend can only warn when another number is asked for.
    pub threads: Option<usize>,
    /// Tokens that a sequence may hold; `None` takes the longest that the file, the backend and the memory allow.
    pub context_length: Option<usize>,
    /// Instructions to compute with; `None`: the best that this CPU has, or what `PHICANDLE_ISA` names.
    pub isa: Option<Isa>,
    /// Where the weights are kept. The `candle` backend copies them, whatever is asked.
    pub memory: MemoryMode,
    /// Bytes that the model may take; `None` for what the system has to give.
    pub memory_limit: Option<u64>,
    /// Whether attention looks back over the file's sliding window only, where it has one; `false`: over everything.
    pub sliding_window: bool,
    /// How keys and values are kept. The `candle` backend keeps 32 bits, whatever is asked.
    pub kv_dtype: KvDtype,
    /// Sequences that are computed at once, 1 or more. The `candle` backend computes one, whatever is asked.
    pub max_batch: usize,
    /// Requests that may wait for their turn; one more is refused.
    pub max_queue: usize,
    /// Whether requests that begin alike share what was computed of that; it is kept after their end while nobody needs the
    /// memory. The `candle` backend computes every prompt, whatever is asked.
    pub prefix_cache: bool,
    /// Whether to guess at tokens where a text repeats itself, and to check several in one pass. No text depends on it. The
    /// `candle` backend writes token by token, whatever is asked.
    pub speculation: bool,
    /// Most tokens of prompts in a pass, 1 or more; `None` lets the backend choose. More than it would choose counts as that.
    pub prefill_tokens: Option<usize>,
    /// Hears, while weights are laid out, how many bytes of how many are done.
    pub progress: Option<Progress>,
}

/// What hears of progress: bytes done, bytes in all.
#[derive(Clone)]
pub struct Progress(pub Arc<dyn Fn(u64, u64) + Send + Sync>);

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}

impl LoadOptions {
    /// What computes, with [`Backend::Auto`] resolved.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameter`](crate::ErrorKind::InvalidParameter) for the native backend on another device than the CPU.
    pub fn backend(&self) -> Result<Backend> {
        match (self.backend, self.device) {
            (Backend::Auto, Device::Cpu) => Ok(Backend::Native),
            (Backend::Auto, _) => Ok(Backend::Candle),
            (Backend::Native, device) if device != Device::Cpu => Err(Error::invalid(
                "backend",
                format!("The native backend computes on the CPU, not on {}.", device.name()),
                "Use backend=\"candle\" there, or device=\"cpu\".",
            )),
            (backend, _) => Ok(backend),
        }
    }

    /// The defaults, for the model at `source`.
    pub fn new(source: ModelSource) -> Self {
        Self {
            source,
            tokenizer: None,
            chat_template: None,
            device: Device::default(),
            backend: Backend::default(),
            threads: None,
            context_length: None,
            isa: None,
            memory: MemoryMode::default(),
            memory_limit: None,
            sliding_window: true,
            kv_dtype: KvDtype::default(),
            max_batch: DEFAULT_MAX_BATCH,
            max_queue: DEFAULT_MAX_QUEUE,
            prefix_cache: true,
            speculation: true,
            prefill_tokens: None,
            progress: None,
        }
    }
}
