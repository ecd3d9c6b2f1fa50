//! Operations of the network as single passes with their own gradients. Candle could build each of them from smaller
//! ones, but on small tensors the passes between the matrix products then cost more than the products.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

use crate::network::RMS_EPS;

/// The values of a contiguous f32 tensor.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!("the operation takes contiguous f32 tensors"),
    }
}

fn last(layout: &Layout) -> usize {
    layout.dims().last().copied().unwrap_or(1)
}

/// Two tensors of one shape to a third, without a gradient: the backward half of the operations below.
struct Backward<F>(F);

impl<F: Fn(&[f32], &[f32], usize, &mut [f32])> CustomOp2 for Backward<F> {
    fn name(&self) -> &'static str {
        "backward"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (values(s1, l1)?, values(s2, l2)?);
        let mut out = vec![0f32; a.len()];
        (self.0)(a, b, last(l1), &mut out);
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }
}

fn backward(a: &Tensor, b: &Tensor, pass: impl Fn(&[f32], &[f32], usize, &mut [f32])) -> Result<Tensor> {
    a.apply_op2_no_bwd(&b.contiguous()?, &Backward(pass))
}

/// Softmax over the last dimension of square blocks; each row sees itself and what is before it.
pub(crate) struct CausalSoftmax;

impl CustomOp1 for CausalSoftmax {
    fn name(&self) -> &'static str {
        "causal-softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (scores, n) = (values(storage, layout)?, last(layout));
        let mut out = vec![0f32; scores.len()];
        for (at, (row, out)) in scores.chunks_exact(n).zip(out.chunks_exact_mut(n)).enumerate() {
            let seen = at % n + 1;
            let (row, out) = (&row[..seen], &mut out[..seen]);
            let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            for (out, score) in out.iter_mut().zip(row) {
                *out = (score - highest).exp();
                sum += *out;
            }
            out.iter_mut().for_each(|out| *out /= sum);
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let pass = |p: &[f32], g: &[f32], n: usize, out: &mut [f32]| {
            for ((p, g), out) in p.chunks_exact(n).zip(g.chunks_exact(n)).zip(out.chunks_exact_mut(n)) {
                let dot: f32 = p.iter().zip(g).map(|(p, g)| p * g).sum();
                for ((out, p), g) in out.iter_mut().zip(p).zip(g) {
                    *out = p * (g - dot);
                }
            }
        };
        Ok(Some(backward(res, grad, pass)?))
    }
}

/// `weight * x / sqrt(mean(x^2) + eps)` over the last dimension, for rows `x` of shape (rows, width).
pub(crate) struct RmsNorm;

fn inverse_root(row: &[f32]) -> f32 {
    let square: f32 = row.iter().map(|x| x * x).sum();
    1.0 / (square / row.len() as f32 + RMS_EPS as f32).sqrt()
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, weight, n) = (values(s1, l1)?, values(s2, l2)?, last(l1));
        let mut out = vec![0f32; x.len()];
        for (row, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
            let scale = inverse_root(row);
            for ((out, x), weight) in out.iter_mut().zip(row).zip(weight) {
                *out = x * scale * weight;
            }
        }
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let scaled = grad.broadcast_mul(weight)?;
        let to_x = |x: &[f32], g: &[f32], n: usize, out: &mut [f32]| {
            for ((x, g), out) in x.chunks_exact(n).zip(g.chunks_exact(n)).zip(out.chunks_exact_mut(n)) {
                let scale = inverse_root(x);
                let dot: f32 = x.iter().zip(g).map(|(x, g)| x * g).sum::<f32>() * scale * scale / n as f32;
                for ((out, x), g) in out.iter_mut().zip(x).zip(g) {
                    *out = scale * (g - x * dot);
                }
            }
        };
        let normed = |x: &[f32], g: &[f32], n: usize, out: &mut [f32]| {
            for ((x, g), out) in x.chunks_exact(n).zip(g.chunks_exact(n)).zip(out.chunks_exact_mut(n)) {
                let scale = inverse_root(x);
                for ((out, x), g) in out.iter_mut().zip(x).zip(g) {
                    *out = x * scale * g;
                }
            }
        };
        let to_weight = backward(x, grad, normed)?.sum(0)?;
        Ok((Some(backward(x, &scaled, to_x)?), Some(to_weight)))
    }
}

/// `silu(gate) * up`.
pub(crate) struct Gated;

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn gated(gate: &[f32], up: &[f32], _: usize, out: &mut [f32]) {
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = gate * sigmoid(*gate) * up;
    }
}

impl CustomOp2 for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        Backward(gated).cpu_fwd(s1, l1, s2, l2)
    }

    fn bwd(&self, gate: &Tensor, up: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let slope = |gate: &[f32], g: &[f32], _: usize, out: &mut [f32]| {
            for ((out, gate), g) in out.iter_mut().zip(gate).zip(g) {
                let s = sigmoid(*gate);
                *out = g * (s + gate * s * (1.0 - s));
            }
        };
        let to_gate = backward(gate, &(grad * up)?, slope)?;
        Ok((Some(to_gate), Some(backward(gate, grad, gated)?)))
    }
}

/// Rotates the first half of each head against its second half, as Phi-3 does; `x` has the shape (.., length, head).
pub(crate) struct Rotate {
    /// The base of the angles.
    pub(crate) base: f32,
    /// 1 forwards, -1 for the gradient.
    pub(crate) sign: f32,
}

impl CustomOp1 for Rotate {
    fn name(&self) -> &'static str {
        "rotate"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, head) = (values(storage, layout)?, last(layout));
        let dims = layout.dims();
        let (length, half) = (dims[dims.len() - 2], head / 2);
        let angles: Vec<(f32, f32)> = (0..length)
            .flat_map(|at| (0..half).map(move |i| at as f32 / self.base.powf(2.0 * i as f32 / head as f32)))
            .map(|angle| (angle.cos(), angle.sin() * self.sign))
            .collect();
        let mut out = vec![0f32; x.len()];
        for (at, (row, out)) in x.chunks_exact(head).zip(out.chunks_exact_mut(head)).enumerate() {
            let angles = &angles[at % length * half..][..half];
            for (i, (cos, sin)) in angles.iter().enumerate() {
                out[i] = row[i] * cos - row[i + half] * sin;
                out[i + half] = row[i + half] * cos + row[i] * sin;
            }
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&Self { base: self.base, sign: -self.sign })?))
    }
}

/// Cross-entropy of each row of logits with its target, plus `weight` times the squared log of the row's normaliser.
#[derive(Clone)]
pub(crate) struct Surprise {
    /// The wanted token of each row.
    pub(crate) targets: Vec<u32>,
    /// Weight of the squared log-normaliser.
    pub(crate) weight: f32,
}

fn log_normaliser(row: &[f32]) -> f32 {
    let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    highest + row.iter().map(|x| (x - highest).exp()).sum::<f32>().ln()
}

impl CustomOp1 for Surprise {
    fn name(&self) -> &'static str {
        "surprise"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (logits, n) = (values(storage, layout)?, last(layout));
        let rows = logits.chunks_exact(n).zip(&self.targets);
        let out: Vec<f32> = rows
            .map(|(row, &target)| {
                let log = log_normaliser(row);
                log - row[target as usize] + self.weight * log * log
            })
            .collect();
        let shape = Shape::from(out.len());
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let pass = |logits: &[f32], grad: &[f32], n: usize, out: &mut [f32]| {
            let rows = logits.chunks_exact(n).zip(out.chunks_exact_mut(n));
            for (((row, out), &target), grad) in rows.zip(&self.targets).zip(grad) {
                let log = log_normaliser(row);
                let scale = grad * (1.0 + 2.0 * self.weight * log);
                for (out, x) in out.iter_mut().zip(row) {
                    *out = scale * (x - log).exp();
                }
                out[target as usize] -= grad;
            }
        };
        Ok(Some(backward(logits, grad, pass)?))
    }
}
