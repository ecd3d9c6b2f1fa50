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
    shape: [u64; 2],
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
        if let Some(tensor) = check_row(header, architecture, row)? {
            found.biases |= row.name.ends_with(".bias");
            found.used.push(tensor);
        }
        Ok(())
    };
    for row in global_rows(dims) {
        check(&row, &mut found)?;
    }
    for layer in 0..dims.n_layer {
        for row in layer_rows(architecture, dims, layer) {
            check(&row, &mut found)?;
        }
    }
    Ok(found)
}

fn global_rows(dims: &Dims) -> Vec<Expected> {
    let (embd, vocab, half) = (dims.n_embd, dims.vocab_size, dims.rope_dim / 2);
    let embedding = "embedding_length and the rows of token_embd.weight";
    let rope = "half of rope.dimension_count";
    vec![
        matrix("token_embd.weight", embd, vocab, embedding),
        vector("output_norm.weight", embd, "embedding_length"),
        matrix("output.weight", embd, vocab, embedding).optional(),
        vector("output_norm.bias", embd, "embedding_length").optional(),
        vector("output.bias", vocab, embedding).optional(),
        vector(FREQUENCY_FACTORS, half, rope).optional(),
        vector(LONG_FACTORS, half, rope).optional(),
        vector(SHORT_FACTORS, half, rope).optional(),
    ]
}

fn layer_rows(architecture: Architecture, dims: &Dims, layer: usize) -> Vec<Expected> {
    let (embd, ff) = (dims.n_embd, dims.n_ff);
    let (query, key) = (dims.n_head * dims.head_dim, dims.n_head_kv * dims.head_dim);
    let heads = "embedding_length, attention.head_count and the head size";
    let kv_heads = "embedding_length, attention.head_count_kv and the head size";
    let feed = "embedding_length and feed_forward_length";
    let mut rows = vec![
        vector("attn_norm.weight", embd, "embedding_length"),
        vector("ffn_norm.weight", embd, "embedding_length"),
        vector("attn_norm.bias", embd, "embedding_length").optional(),
        vector("ffn_norm.bias", embd, "embedding_length").optional(),
    ];
    let mut linear = |name: &str, input: u64, output: u64, from: &'static str| {
        rows.push(matrix(&format!("{name}.weight"), input, output, from));
        rows.push(vector(&format!("{name}.bias"), output, from).optional());
    };
    linear("attn_output", query, embd, heads);
    match architecture {
        Architecture::Phi3 => {
            let from = "embedding_length, attention.head_count, attention.head_count_kv and the head size";
            linear("attn_qkv", embd, query + 2 * key, from);
        }
        Architecture::Llama => {
            linear("attn_q", embd, query, heads);
            linear("attn_k", embd, key, kv_heads);
            linear("attn_v", embd, key, kv_heads);
        }
    }
    // The feed-forward tensors of a mixture of experts have other names and shapes, which no backend runs yet.
    if dims.n_expert == 0 {
        match architecture {
            Architecture::Phi3 => {
                linear("ffn_up", embd, 2 * ff, "embedding_length and twice feed_forward_length")
            }
            Architecture::Llama => {
                linear("ffn_gate", embd, ff, feed);
                linear("ffn_up", embd, ff, feed);
            }
        }
        linear("ffn_down", ff, embd, feed);
    }
    for row in &mut rows {
        row.name = format!("blk.{layer}.{}", row.name);
    }
    rows
}

fn matrix(name: &str, row_length: u64, rows: u64, from: &'static str) -> Expected {
    Expected { name: name.to_owned(), shape: [row_length, rows], role: Role::Matrix, optional: false, from }
}

fn vector(name: &str, length: u64, from: &'static str) -> Expected {
    Expected { name: name.to_owned(), shape: [length, 1], role: Role::Vector, optional: false, from }
}

impl Expected {
    fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    fn shape(&self) -> &[u64] {
        match (self.role, &self.shape) {
            (Role::Matrix, shape) => shape,
            (Role::Vector, [length, _]) => std::slice::from_ref(length),
        }
    }
}

fn check_row<'a>(
    header: &'a Header,
    architecture: Architecture,
    row: &Expected,
) -> Result<Option<&'a TensorInfo>> {
    let Some(tensor) = header.tensor(&row.name) else {
        if row.optional {
            return Ok(None);
        }
        let what = format!("is absent; a `{}` model needs it.", architecture.name());
        return Err(bad_tensor(&row.name, None, what));
    };
    if tensor.shape != row.shape() {
        let what = format!(
            "has the shape {}; from {} it should be {}.",
            tensor.shape_text(),
            row.from,
            shape_text(row.shape())
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
