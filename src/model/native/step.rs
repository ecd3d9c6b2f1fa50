//! One layer of a pass.

use super::weights::{Layer, Linear, NormWeights};
use crate::kernels::{Activations, Compute, Forms, Halt, Heads, Norm, NormKind, Stop, Then};

impl Linear {
    pub(super) fn forms(&self) -> Forms {
        Forms::default().with(self.matrix.family())
    }

    /// Adds the bias, if there is one, to columns `at` on of rows of `width`.
    pub(super) fn add_bias(&self, out: &mut [f32], width: usize, at: usize) {
        let Some(bias) = &self.bias else { return };
        for row in out.chunks_exact_mut(width) {
            row[at..].iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
        }
    }
}

impl NormWeights {
    /// The rows of `values` behind this norm.
    pub(super) fn of<'a>(&'a self, values: &'a [f32], setting: NormSetting) -> Norm<'a> {
        let NormSetting { kind, eps } = setting;
        Norm { kind, values, weight: &self.weight, bias: self.bias.as_deref(), eps }
    }
}

/// What all norms of a model have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct NormSetting {
    pub(super) kind: NormKind,
    pub(super) eps: f32,
}

/// One layer of a pass.
pub(super) struct Step<'a> {
    pub(super) compute: &'a Compute,
    pub(super) heads: Heads,
    pub(super) norms: NormSetting,
    pub(super) layer: &'a Layer,
    pub(super) number: usize,
    pub(super) stop: &'a Stop<'a>,
}

impl Step<'_> {
    /// Whether to go on.
    pub(super) fn check(&self) -> Result<(), Halt> {
        if (self.stop)() { Err(Halt::Stopped) } else { Ok(()) }
    }

    /// A product and its bias, onto `x`.
    pub(super) fn add(&self, linear: &Linear, acts: &Activations, x: &mut [f32]) -> Result<(), Halt> {
        self.compute.matmul(&[&linear.matrix], acts, Then::Add, x, self.stop)?;
        linear.add_bias(x, linear.matrix.rows(), 0);
        Ok(())
    }
}
