//! The network: Phi-3's layers, small, written with operations that Candle can differentiate.

use candle_core::{DType, Device, Result, Tensor, Var};
use rand::Rng;
use rand::rngs::StdRng;

use crate::operations::{CausalSoftmax, Gated, RmsNorm, Rotate};

/// The sizes of the network. `head_dim` is `width / heads`; the whole head is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Length of a token's vector; a multiple of 32, the block length of Q8_0.
    pub(crate) width: usize,
    /// Number of layers.
    pub(crate) layers: usize,
    /// Number of attention heads, each with its own keys and values.
    pub(crate) heads: usize,
    /// Length of the gated hidden vector; a multiple of 32.
    pub(crate) hidden: usize,
    /// Number of tokens.
    pub(crate) vocabulary: usize,
}

/// Added to the mean square in every RMS norm.
pub(crate) const RMS_EPS: f64 = 1e-5;
/// The base of the rotary angles; Candle's `quantized_phi3` has no other.
pub(crate) const ROPE_BASE: f32 = 10_000.0;
const ROTATE: Rotate = Rotate { base: ROPE_BASE, sign: 1.0 };

/// One layer's weights. Matrices are kept as (inputs, outputs), so that neither pass has to transpose a copy.
pub(crate) struct Layer {
    pub(crate) attn_norm: Var,
    pub(crate) query: Var,
    pub(crate) key: Var,
    pub(crate) value: Var,
    pub(crate) attn_output: Var,
    pub(crate) ffn_norm: Var,
    pub(crate) gate: Var,
    pub(crate) up: Var,
    pub(crate) down: Var,
}

/// All weights, in f32.
pub(crate) struct Network {
    pub(crate) sizes: Sizes,
    pub(crate) embedding: Var,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_norm: Var,
    pub(crate) output: Var,
}

impl Network {
    /// Random weights: normal, with a variance of 1 over the number of inputs, smaller where a layer writes to the residual.
    pub(crate) fn random(sizes: Sizes, rng: &mut StdRng) -> Result<Self> {
        let Sizes { width, layers, hidden, vocabulary, .. } = sizes;
        let into = (1.0 / width as f32).sqrt();
        let residual = (0.5 / layers as f32).sqrt();
        let back = (1.0 / hidden as f32).sqrt();
        let embedding = normal(rng, (vocabulary, width), 0.5)?;
        let layers = (0..layers)
            .map(|_| {
                Ok(Layer {
                    attn_norm: ones(width)?,
                    query: normal(rng, (width, width), into)?,
                    key: normal(rng, (width, width), into)?,
                    value: normal(rng, (width, width), into)?,
                    attn_output: normal(rng, (width, width), into * residual)?,
                    ffn_norm: ones(width)?,
                    gate: normal(rng, (width, hidden), into)?,
                    up: normal(rng, (width, hidden), into)?,
                    down: normal(rng, (hidden, width), back * residual)?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let output = normal(rng, (width, vocabulary), 0.5 * into)?;
        Ok(Self { sizes, embedding, layers, output_norm: ones(width)?, output })
    }

    /// Every weight, for the optimiser.
    pub(crate) fn vars(&self) -> Vec<Var> {
        let mut vars = vec![self.embedding.clone(), self.output_norm.clone(), self.output.clone()];
        for l in &self.layers {
            for v in [
                &l.attn_norm, &l.query, &l.key, &l.value, &l.attn_output, &l.ffn_norm, &l.gate, &l.up, &l.down,
            ] {
                vars.push(v.clone());
            }
        }
        vars
    }

    /// The number of weights.
    pub(crate) fn parameters(&self) -> usize {
        self.vars().iter().map(|v| v.elem_count()).sum()
    }

    /// Logits, one row for each of `rows` (indices into the flattened batch), for `tokens` of shape (batch, length).
    pub(crate) fn logits(&self, tokens: &Tensor, rows: &Tensor) -> Result<Tensor> {
        let (batch, length) = tokens.dims2()?;
        let Sizes { width, heads, .. } = self.sizes;
        let head = width / heads;
        let scale = 1.0 / (head as f64).sqrt();
        let mut x = self.embedding.as_tensor().index_select(&tokens.flatten_all()?, 0)?;
        for layer in &self.layers {
            let y = x.apply_op2(layer.attn_norm.as_tensor(), RmsNorm)?;
            let split = |w: &Var| -> Result<Tensor> {
                y.matmul(w.as_tensor())?.reshape((batch, length, heads, head))?.transpose(1, 2)?.contiguous()
            };
            let query = (split(&layer.query)? * scale)?.apply_op1(ROTATE)?;
            let key = split(&layer.key)?.apply_op1(ROTATE)?;
            let value = split(&layer.value)?;
            let mixed = query.matmul(&key.t()?)?.apply_op1(CausalSoftmax)?.matmul(&value)?;
            let mixed = mixed.transpose(1, 2)?.contiguous()?.reshape((batch * length, width))?;
            x = (x + mixed.matmul(layer.attn_output.as_tensor())?)?;
            let y = x.apply_op2(layer.ffn_norm.as_tensor(), RmsNorm)?;
            let gated = y.matmul(layer.gate.as_tensor())?.apply_op2(&y.matmul(layer.up.as_tensor())?, Gated)?;
            x = (x + gated.matmul(layer.down.as_tensor())?)?;
        }
        let x = x.index_select(rows, 0)?.apply_op2(self.output_norm.as_tensor(), RmsNorm)?;
        x.matmul(self.output.as_tensor())
    }
}

fn ones(n: usize) -> Result<Var> {
    Var::ones(n, DType::F32, &Device::Cpu)
}

/// Normal variates by Box and Muller's method, from the seeded generator (Candle's own CPU generator has no seed).
fn normal(rng: &mut StdRng, shape: (usize, usize), deviation: f32) -> Result<Var> {
    let values: Vec<f32> = (0..shape.0 * shape.1)
        .map(|_| {
            let u: f32 = rng.random_range(f32::EPSILON..1.0);
            let v: f32 = rng.random();
            deviation * (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
        })
        .collect();
    Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?)
}
