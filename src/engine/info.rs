//! Facts about a loaded model.

use super::options::Backend;
use crate::gguf::{ModelPlan, RopeScaling};
use crate::model::{Device, MemoryPlan};

/// What was loaded, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// The file's `general.name`, or the file's own name.
    pub name: String,
    /// The path, or the name of a model inside the program.
    pub source: String,
    /// `general.architecture`.
    pub architecture: String,
    /// Number of weights.
    pub parameters: u64,
    /// Quantisation types with their share, the largest first: `("Q4_K", tensors, bytes)`.
    pub quantisation: Vec<(String, usize, u64)>,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Tokens that a sequence may hold here.
    pub context_length: usize,
    /// Tokens that the model was made for.
    pub trained_context_length: usize,
    /// Layers.
    pub layers: usize,
    /// Width of the hidden state.
    pub embedding_length: usize,
    /// Query heads, and key-value heads.
    pub heads: (usize, usize),
    /// Base of the rotary position embedding.
    pub rope_base: f32,
    /// `none`, `linear`, `longrope` or `yarn`.
    pub rope_scaling: &'static str,
    /// Tokens that attention looks back over, when limited.
    pub sliding_window: Option<usize>,
    /// The chat template's source.
    pub chat_template: String,
    /// Whether the template came from the file or the caller; false: that of the vocabulary's family was taken.
    pub has_chat_template: bool,
    /// What computes: `native` or `candle`.
    pub backend: &'static str,
    /// Where: `cpu`, `cuda:0`, `metal`.
    pub device: String,
    /// The memory that was planned for.
    pub memory: MemoryPlan,
    /// Seconds that loading took.
    pub load_s: f64,
}

/// What the engine adds to the plan's facts.
pub(super) struct Loaded<'a> {
    pub(super) source: &'a str,
    pub(super) chat_template: &'a str,
    pub(super) has_chat_template: bool,
    pub(super) device: Device,
    pub(super) backend: Backend,
    pub(super) memory: MemoryPlan,
    pub(super) load_s: f64,
}

impl ModelInfo {
    pub(super) fn new(plan: &ModelPlan, loaded: &Loaded<'_>) -> Self {
        let mut mix = plan.type_mix.clone();
        mix.sort_by_key(|&(_, _, bytes)| std::cmp::Reverse(bytes));
        Self {
            name: plan.name.clone().unwrap_or_else(|| loaded.source.to_owned()),
            source: loaded.source.to_owned(),
            architecture: plan.architecture.name().to_owned(),
            parameters: plan.parameters,
            quantisation: mix
                .into_iter()
                .map(|(kind, count, bytes)| (kind.name().to_owned(), count, bytes))
                .collect(),
            vocab_size: plan.vocab_size,
            context_length: loaded.memory.context_length,
            trained_context_length: plan.context_length,
            layers: plan.n_layer,
            embedding_length: plan.n_embd,
            heads: (plan.n_head, plan.n_head_kv),
            rope_base: plan.rope.freq_base,
            rope_scaling: match plan.rope.scaling {
                RopeScaling::None => "none",
                RopeScaling::Linear { .. } => "linear",
                RopeScaling::LongRope { .. } => "longrope",
                RopeScaling::Yarn { .. } => "yarn",
            },
            sliding_window: plan.sliding_window,
            chat_template: loaded.chat_template.to_owned(),
            has_chat_template: loaded.has_chat_template,
            backend: loaded.backend.name(),
            device: loaded.device.name(),
            memory: loaded.memory,
            load_s: loaded.load_s,
        }
    }
}
