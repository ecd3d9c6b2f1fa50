//! The tensors that each architecture must have, and those that it may have.

#![forbid(unsafe_code)]

use super::header::{Header, quoted};
use super::plan::{Architecture, Dims};
use super::rope::{FREQUENCY_FACTORS, LONG_FACTORS, SHORT_FACTORS};
use super::tensor::{TensorInfo, bad_tensor, shape_text};
use crate::error::{Error, ErrorKind, Result};

/// What an expected tensor is for; it decides which types it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A weight matrix: any type for which [`GgmlType::is_weight`](super::GgmlType::is_weight) holds.
    Matrix,
    /// A norm or a bias: a plain float.
    Vector,
}

/// One row of the table.
struct Expected {
    name: String,
    shape: Vec<u64>,
    role: Role,
    optional: bool,
    /// The keys that the shape comes from, for the error text.
    from: &'static str,
}

/// What the table found in a file.
#[derive(Debug, Default)]
pub(super) struct Found<'a> {
    /// Every tensor that the model uses.
    pub(super) used: Vec<&'a TensorInfo>,
    /// Whether `output.weight` is absent, so that the embedding serves for it.
    pub(super) tied: bool,
    /// Whether any bias is there.
    pub(super) biases: bool,
}

/// Checks every expected tensor: name, shape, type.
pub(super) fn check_shapes<'a>(
    header: &'a Header,
    architecture: Architecture,
    dims: &Dims,
) -> Result<Found<'a>> {
    let mut found = Found { tied: header.tensor("output.weight").is_none(), ..Found::default() };
    let check = |row: &Expected, found: &mut Found<'a>| -> Result<()> {
        if let Some(tensor) = check_row(header, architecture, dims.n_layer, row)? {
            found.biases |= row.name.ends_with(".bias");
            found.used.push(tensor);
        }
        Ok(())
    };
    for row in global_rows(architecture, dims) {
        check(&row, &mut found)?;
    }
    for layer in 0..dims.n_layer {
        let fused = has_fused_qkv(header, architecture, layer)?;
        for row in layer_rows(architecture, dims, layer, fused) {
            check(&row, &mut found)?;
        }
    }
    Ok(found)
}

/// Whether queries, keys and values of a layer are one tensor. Files of `phi2` come in both ways.
fn has_fused_qkv(header: &Header, architecture: Architecture, layer: usize) -> Result<bool> {
    if architecture != Architecture::Phi2 {
        return Ok(architecture == Architecture::Phi3);
    }
    let fused = format!("blk.{layer}.attn_qkv.weight");
    let apart = format!("blk.{layer}.attn_q.weight");
    match (header.tensor(&fused), header.tensor(&apart)) {
        (Some(tensor), Some(_)) => {
            Err(tensor.bad(format!("and the tensor `{apart}` are both there; one is too many.")))
        }
        (fused, _) => Ok(fused.is_some()),
    }
}

fn global_rows(architecture: Architecture, dims: &Dims) -> Vec<Expected> {
    let (embd, vocab, half) = (dims.n_embd, dims.vocab_size, dims.rope_dim / 2);
    let embedding = "embedding_length and the rows of token_embd.weight";
    let rope = "half of rope.dimension_count";
    vec![
        matrix("token_embd.weight", embd, vocab, embedding),
        vector("output_norm.weight", embd, "embedding_length"),
        matrix("output.weight", embd, vocab, embedding).optional(),
        norm_bias(architecture, "output_norm.bias", embd),
        bias(architecture, "output.bias", vocab, embedding),
        vector(FREQUENCY_FACTORS, half, rope).optional(),
        vector(LONG_FACTORS, half, rope).optional(),
        vector(SHORT_FACTORS, half, rope).optional(),
    ]
}

fn layer_rows(architecture: Architecture, dims: &Dims, layer: usize, fused_qkv: bool) -> Vec<Expected> {
    let (embd, ff) = (dims.n_embd, dims.n_ff);
    let (query, key) = (dims.n_head * dims.head_dim, dims.n_head_kv * dims.head_dim);
    let heads = "embedding_length, attention.head_count and the head size";
    let kv_heads = "embedding_length, attention.head_count_kv and the head size";
    let feed = "embedding_length and feed_forward_length";
    let mut rows = Vec::new();
    let norms: &[&str] = if architecture.is_parallel() { &["attn_norm"] } else { &["attn_norm", "ffn_norm"] };
    for norm in norms {
        rows.push(vector(&format!("{norm}.weight"), embd, "embedding_length"));
        rows.push(norm_bias(architecture, &format!("{norm}.bias"), embd));
    }
    let mut linear = |name: &str, input: u64, output: u64, from: &'static str| {
        rows.push(matrix(&format!("{name}.weight"), input, output, from));
        rows.push(bias(architecture, &format!("{name}.bias"), output, from));
    };
    linear("attn_output", query, embd, heads);
    if fused_qkv {
        let from = "embedding_length, attention.head_count, attention.head_count_kv and the head size";
        linear("attn_qkv", embd, query + 2 * key, from);
    } else {
        linear("attn_q", embd, query, heads);
        linear("attn_k", embd, key, kv_heads);
        linear("attn_v", embd, key, kv_heads);
    }
    match architecture {
        Architecture::Phi3 => {
            linear("ffn_up", embd, 2 * ff, "embedding_length and twice feed_forward_length");
            linear("ffn_down", ff, embd, feed);
        }
        Architecture::Llama => {
            linear("ffn_gate", embd, ff, feed);
            linear("ffn_up", embd, ff, feed);
            linear("ffn_down", ff, embd, feed);
        }
        Architecture::Phi2 => {
            linear("ffn_up", embd, ff, feed);
            linear("ffn_down", ff, embd, feed);
        }
        Architecture::PhiMoe => {
            let experts = dims.n_expert;
            let from = "embedding_length, feed_forward_length and expert_count";
            rows.push(matrix("ffn_gate_inp.weight", embd, experts, "embedding_length and expert_count"));
            rows.push(stack("ffn_gate_exps.weight", [embd, ff, experts], from));
            rows.push(stack("ffn_up_exps.weight", [embd, ff, experts], from));
            rows.push(stack("ffn_down_exps.weight", [ff, embd, experts], from));
        }
    }
    for row in &mut rows {
        row.name = format!("blk.{layer}.{}", row.name);
    }
    rows
}

fn matrix(name: &str, row_length: u64, rows: u64, from: &'static str) -> Expected {
    let shape = vec![row_length, rows];
    Expected { name: name.to_owned(), shape, role: Role::Matrix, optional: false, from }
}

/// The matrices of all experts, one after the other.
fn stack(name: &str, shape: [u64; 3], from: &'static str) -> Expected {
    Expected { name: name.to_owned(), shape: shape.to_vec(), role: Role::Matrix, optional: false, from }
}

fn vector(name: &str, length: u64, from: &'static str) -> Expected {
    Expected { name: name.to_owned(), shape: vec![length], role: Role::Vector, optional: false, from }
}

/// The bias of a matrix: in `phi2` every matrix has one, in the others any may.
fn bias(architecture: Architecture, name: &str, length: u64, from: &'static str) -> Expected {
    Expected { optional: architecture != Architecture::Phi2, ..vector(name, length, from) }
}

/// The bias of a norm: LayerNorm has one.
fn norm_bias(architecture: Architecture, name: &str, length: u64) -> Expected {
    Expected { optional: !architecture.has_layer_norm(), ..vector(name, length, "embedding_length") }
}

impl Expected {
    fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
}

fn check_row<'a>(
    header: &'a Header,
    architecture: Architecture,
    layers: usize,
    row: &Expected,
) -> Result<Option<&'a TensorInfo>> {
    let Some(tensor) = header.tensor(&row.name) else {
        if row.optional {
            return Ok(None);
        }
        let needs = format!("is absent; a `{}` model needs it", architecture.name());
        let what = match row.name.starts_with("blk.") {
            true => format!("{needs} (block_count is {layers})."),
            false => format!("{needs}."),
        };
        return Err(bad_tensor(&row.name, None, what));
    };
    if tensor.shape != row.shape {
        let what = format!(
            "has the shape {}; from {} it should be {}.",
            tensor.shape_text(),
            row.from,
            shape_text(&row.shape)
        );
        return Err(tensor.bad(what));
    }
    let allowed = match row.role {
        Role::Matrix => tensor.kind.is_weight(),
        Role::Vector => tensor.kind.is_float(),
    };
    if !allowed {
        return Err(wrong_quant(architecture, tensor));
    }
    Ok(Some(tensor))
}

#[cold]
fn wrong_quant(architecture: Architecture, tensor: &TensorInfo) -> Error {
    Error::new(
        ErrorKind::UnsupportedModel {
            arch: Some(architecture.name().to_owned()),
            tensor: Some(tensor.name.clone()),
            quant: Some(tensor.kind.name().to_owned()),
        },
        format!(
            "The tensor {} has the type {}, which this build does not run there.",
            quoted(&tensor.name),
            tensor.kind
        ),
        "Choose a file in Q4_K_M, Q5_K_M, Q6_K, Q8_0 or F16 of the same model.",
    )
}
