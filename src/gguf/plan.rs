//! What a checked header promises: the model's numbers, each in its range, and every tensor where it should be.

#![forbid(unsafe_code)]

use std::collections::HashSet;

use super::dtype::GgmlType;
use super::foreign;
use super::header::Header;
use super::keys::Keys;
use super::metadata::{Metadata, shown};
use super::rope::{RopePlan, read_rope};
use super::shapes::check_shapes;
use super::split::check_whole;
use super::tensor::{TensorInfo, bad_tensor};
use super::vocabulary::MAX_VOCABULARY;
use crate::error::{Error, ErrorKind, Result};

/// The families of models that this crate runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Phi-3, 3.5 and 4: q, k, v in one tensor; gate and up in one.
    Phi3,
    /// Llama and the "llamafied" Phi files: one tensor each, rows of q and k permuted for interleaved rope.
    Llama,
    /// Phi-1, 1.5 and 2: attention and feed-forward block side by side behind one norm, biases everywhere.
    Phi2,
    /// Phi-3.5-MoE: sparse experts in place of the feed-forward block.
    PhiMoe,
}

impl Architecture {
    /// The name in `general.architecture`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Phi3 => "phi3",
            Self::Llama => "llama",
            Self::Phi2 => "phi2",
            Self::PhiMoe => "phimoe",
        }
    }

    /// Whether its norms subtract the mean (LayerNorm) before they divide; the others divide by the root mean square.
    pub fn has_layer_norm(self) -> bool {
        matches!(self, Self::Phi2 | Self::PhiMoe)
    }

    /// Whether attention and feed-forward block read the same norm, and both are added to what came in.
    pub fn is_parallel(self) -> bool {
        self == Self::Phi2
    }
}

/// A model that its header describes fully and without contradiction. Nothing here is a promise that a backend can run
/// it: that is for the backend to judge, from these numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelPlan {
    /// The family.
    pub architecture: Architecture,
    /// `general.name`.
    pub name: Option<String>,
    /// Number of layers, 1 to 256.
    pub n_layer: usize,
    /// Length of the vector that flows between layers.
    pub n_embd: usize,
    /// Query heads, 1 to 1024.
    pub n_head: usize,
    /// Key and value heads; divides `n_head`.
    pub n_head_kv: usize,
    /// Elements of a head: even, 8 to 512. Not always `n_embd / n_head`.
    pub head_dim: usize,
    /// Length of the feed-forward layer's inner vector, or of each expert's.
    pub n_ff: usize,
    /// Tokens that the model was trained for.
    pub context_length: usize,
    /// Rows of `token_embd.weight`: at least the number of tokens.
    pub vocab_size: usize,
    /// The epsilon of the norms, 1e-12 to 0.01.
    pub norm_eps: f32,
    /// The rotation.
    pub rope: RopePlan,
    /// Tokens that one token sees, itself included in llama.cpp's count; `None` for all.
    pub sliding_window: Option<usize>,
    /// Whether the embedding serves as output matrix too (there is no `output.weight`).
    pub tied_embeddings: bool,
    /// Whether any used tensor is a bias.
    pub biases: bool,
    /// Experts of a mixture, 2 to 256; 0 for a plain model.
    pub n_expert: usize,
    /// Experts that each token goes through: 2; 0 for a plain model.
    pub n_expert_used: usize,
    /// Elements of all used tensors.
    pub parameters: u64,
    /// Bytes of all used tensors in the file.
    pub weight_bytes: u64,
    /// Type, number of tensors and bytes, the most bytes first.
    pub type_mix: Vec<(GgmlType, usize, u64)>,
    /// Tensors that no part of this architecture uses; they are never read.
    pub extra_tensors: Vec<String>,
}

/// The numbers that shapes are made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dims {
    pub(super) n_layer: usize,
    pub(super) n_embd: u64,
    pub(super) n_head: u64,
    pub(super) n_head_kv: u64,
    pub(super) head_dim: u64,
    pub(super) n_ff: u64,
    pub(super) vocab_size: u64,
    pub(super) rope_dim: u64,
    pub(super) n_expert: u64,
}

impl ModelPlan {
    /// Checks the model that `header` describes.
    ///
    /// # Errors
    /// `UnsupportedModel` for another architecture, an adapter, a type of weights that no backend reads, an
    /// unknown rope scaling, or a key or tensor that would change the numbers in a way that is not known here; `CorruptModel` for a value out of range, a missing key or tensor, or parts that
    /// contradict each other.
    pub fn from_header(header: &Header) -> Result<Self> {
        check_whole(header)?;
        let metadata = &header.metadata;
        let architecture = read_architecture(metadata)?;
        let keys = Keys::new(metadata, architecture.name());
        let n_layer = keys.required("block_count", 1..=256)?;
        let n_embd = keys.required("embedding_length", 8..=1 << 20)?;
        let n_head = keys.required("attention.head_count", 1..=1024)?;
        let n_head_kv = keys.count_or("attention.head_count_kv", 1..=1024, n_head)?;
        let n_ff = keys.required("feed_forward_length", 1..=1 << 20)?;
        let context_length = keys.required("context_length", 1..=1 << 20)?;
        let (n_expert, n_expert_used) = read_experts(&keys, architecture, n_ff)?;
        let sliding_window =
            keys.count("attention.sliding_window", 0..=1 << 31)?.filter(|&window| window > 0);
        let norm_eps = read_norm_eps(&keys, architecture)?;
        if n_head % n_head_kv != 0 {
            let what = format!("is {n_head_kv}, which does not divide attention.head_count, {n_head}.");
            return Err(keys.bad("attention.head_count_kv", what));
        }
        let head_dim = read_head_dim(&keys, n_embd, n_head)?;
        foreign::check_keys(&keys, architecture, head_dim)?;
        let rope = read_rope(header, &keys, head_dim, context_length)?;
        let vocab_size = read_vocab_size(header, &keys)?;

        let dims = Dims {
            n_layer,
            n_embd: n_embd as u64,
            n_head: n_head as u64,
            n_head_kv: n_head_kv as u64,
            head_dim: head_dim as u64,
            n_ff: n_ff as u64,
            vocab_size: vocab_size as u64,
            rope_dim: rope.dimension_count as u64,
            n_expert: n_expert as u64,
        };
        let found = check_shapes(header, architecture, &dims)?;
        let extra_tensors = extra_tensors(header, &found.used, &keys, n_layer)?;
        foreign::check_tensors(&extra_tensors, architecture)?;
        Ok(Self {
            architecture,
            name: metadata.str("general.name")?.map(shown),
            n_layer,
            n_embd,
            n_head,
            n_head_kv,
            head_dim,
            n_ff,
            context_length,
            vocab_size,
            norm_eps,
            rope,
            sliding_window,
            tied_embeddings: found.tied,
            biases: found.biases,
            n_expert,
            n_expert_used,
            parameters: found.used.iter().map(|tensor| tensor.elements()).sum(),
            weight_bytes: found.used.iter().map(|tensor| tensor.n_bytes).sum(),
            type_mix: type_mix(&found.used),
            extra_tensors,
        })
    }
}

fn read_architecture(metadata: &Metadata) -> Result<Architecture> {
    const KEY: &str = "general.architecture";
    let name = metadata.str(KEY)?.ok_or_else(|| metadata.bad_value(KEY, "is absent; a model needs it."))?;
    let unsupported = |message: String, hint: &str| {
        let kind = ErrorKind::UnsupportedModel { arch: Some(shown(name)), tensor: None, quant: None };
        Error::new(kind, message, hint)
    };
    let architecture = match name {
        "phi3" => Architecture::Phi3,
        "llama" => Architecture::Llama,
        "phi2" => Architecture::Phi2,
        "phimoe" => Architecture::PhiMoe,
        _ => {
            return Err(unsupported(
                format!(
                    "The file's architecture is `{}`; this build runs `phi2`, `phi3`, `phimoe` and `llama`.",
                    shown(name)
                ),
                "Choose a GGUF file of Phi-2, Phi-3, Phi-3.5 or Phi-4, or one converted to the llama architecture.",
            ));
        }
    };
    if let Some(kind) = metadata.str("general.type")?
        && kind != "model"
    {
        return Err(unsupported(
            format!("The file is of the type `{}`, not a whole model.", shown(kind)),
            "Choose the model's own file.",
        ));
    }
    Ok(architecture)
}

/// Experts of a mixture, and how many of them a token goes through; zeros for a plain model.
fn read_experts(keys: &Keys<'_>, architecture: Architecture, n_ff: usize) -> Result<(usize, usize)> {
    const ALL: &str = "expert_count";
    const USED: &str = "expert_used_count";
    const WIDTH: &str = "expert_feed_forward_length";
    if architecture == Architecture::PhiMoe {
        let experts = keys.required(ALL, 2..=256)?;
        let used = keys.required(USED, 1..=256)?;
        if used > experts {
            return Err(keys.bad(USED, format!("is {used}, more than expert_count, {experts}.")));
        }
        if let Some(width) = keys.count(WIDTH, 1..=1 << 20)?
            && width != n_ff
        {
            return Err(keys.bad(WIDTH, format!("is {width}, and feed_forward_length is {n_ff}.")));
        }
        if used != 2 {
            let name = keys.name(USED);
            return Err(keys.unsupported(format!(
                "The metadata key `{name}` is {used}; the router of these models chooses two experts."
            )));
        }
        return Ok((experts, used));
    }
    match keys.count_or(ALL, 0..=1024, 0)? {
        0 => Ok((0, 0)),
        experts => {
            let name = keys.name(ALL);
            Err(keys.unsupported(format!(
                "The metadata key `{name}` is {experts}, and only `phimoe` models may be mixtures of experts."
            )))
        }
    }
}

/// The epsilon of the norms. llama.cpp's converter writes that of `phimoe` under the name of the other kind of norm.
fn read_norm_eps(keys: &Keys<'_>, architecture: Architecture) -> Result<f32> {
    const RMS: &str = "attention.layer_norm_rms_epsilon";
    const LAYER: &str = "attention.layer_norm_epsilon";
    let [rms, layer] = [keys.float(RMS, 1e-12..=1e-2)?, keys.float(LAYER, 1e-12..=1e-2)?];
    let (own, eps) = match architecture {
        Architecture::Phi3 | Architecture::Llama => (RMS, rms),
        Architecture::Phi2 => (LAYER, layer),
        Architecture::PhiMoe => (RMS, rms.or(layer)),
    };
    if let (Some(rms), Some(layer)) = (rms, layer)
        && (rms - layer).abs() > f64::from(f32::EPSILON) * rms
    {
        return Err(
            keys.bad(LAYER, format!("is {layer:e}, and {RMS} is {rms:e}; the norms have one epsilon."))
        );
    }
    Ok(eps.ok_or_else(|| keys.missing(own))? as f32)
}

fn read_head_dim(keys: &Keys<'_>, n_embd: usize, n_head: usize) -> Result<usize> {
    let key_length = keys.count("attention.key_length", 8..=512)?;
    let value_length = keys.count("attention.value_length", 8..=512)?;
    if let (Some(key), Some(value)) = (key_length, value_length)
        && key != value
    {
        let what = format!("is {value}, and attention.key_length is {key}; they should be equal.");
        return Err(keys.bad("attention.value_length", what));
    }
    let head_dim = match key_length.or(value_length) {
        Some(length) => length,
        None if n_embd.is_multiple_of(n_head) => n_embd / n_head,
        None => {
            let what = format!("is {n_head}, which does not divide embedding_length, {n_embd}.");
            return Err(keys.bad("attention.head_count", what));
        }
    };
    if !(8..=512).contains(&head_dim) || head_dim % 2 != 0 {
        let what = format!(
            "is {n_head}, and with embedding_length {n_embd} or attention.key_length heads have {head_dim} elements; it should be even and from 8 to 512."
        );
        return Err(keys.bad("attention.head_count", what));
    }
    Ok(head_dim)
}

/// The rows of `token_embd.weight`, which must be enough for the vocabulary of the tokenizer.
fn read_vocab_size(header: &Header, keys: &Keys<'_>) -> Result<usize> {
    const EMBEDDING: &str = "token_embd.weight";
    let tensor = header.tensor(EMBEDDING).ok_or_else(|| {
        bad_tensor(EMBEDDING, None, format!("is absent; a `{}` model needs it.", keys.architecture()))
    })?;
    let rows = match tensor.shape.as_slice() {
        &[_, rows] if (1..=MAX_VOCABULARY).contains(&rows) => rows,
        _ => {
            let what = format!(
                "has the shape {}; it should have one row for each token, 1 to {MAX_VOCABULARY}.",
                tensor.shape_text()
            );
            return Err(tensor.bad(what));
        }
    };
    if let Some(tokens) = header.metadata.check_vocabulary()?
        && tokens as u64 > rows
    {
        let what = format!("has {rows} rows, and `tokenizer.ggml.tokens` has {tokens} tokens.");
        return Err(tensor.bad(what));
    }
    if let Some(size) = keys.count("vocab_size", 1..=MAX_VOCABULARY)?
        && size as u64 > rows
    {
        return Err(keys.bad("vocab_size", format!("is {size}, and `{EMBEDDING}` has {rows} rows.")));
    }
    Ok(rows as usize)
}

/// The names of tensors that are not used. A layer beyond the last one contradicts `block_count`.
fn extra_tensors(
    header: &Header,
    used: &[&TensorInfo],
    keys: &Keys<'_>,
    n_layer: usize,
) -> Result<Vec<String>> {
    let used: HashSet<&str> = used.iter().map(|tensor| tensor.name.as_str()).collect();
    let mut extra = Vec::new();
    for tensor in header.tensors.iter().filter(|tensor| !used.contains(tensor.name.as_str())) {
        let layer = tensor.name.strip_prefix("blk.").and_then(|rest| rest.split('.').next());
        if layer.and_then(|layer| layer.parse::<u64>().ok()).is_some_and(|layer| layer >= n_layer as u64) {
            let what = format!("is {n_layer}, and yet the file has the tensor `{}`.", shown(&tensor.name));
            return Err(keys.bad("block_count", what));
        }
        extra.push(tensor.name.clone());
    }
    Ok(extra)
}

fn type_mix(used: &[&TensorInfo]) -> Vec<(GgmlType, usize, u64)> {
    let mut mix: Vec<(GgmlType, usize, u64)> = Vec::new();
    for tensor in used {
        match mix.iter_mut().find(|(kind, ..)| *kind == tensor.kind) {
            Some((_, count, bytes)) => {
                *count += 1;
                *bytes += tensor.n_bytes;
            }
            None => mix.push((tensor.kind, 1, tensor.n_bytes)),
        }
    }
    mix.sort_by_key(|&(kind, _, bytes)| (std::cmp::Reverse(bytes), kind));
    mix
}
