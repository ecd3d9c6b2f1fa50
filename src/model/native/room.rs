//! Intermediate values of a pass.

use crate::kernels::{Activations, Rotation};

/// Intermediate values, kept from pass to pass. `x` is the residual stream: `[token][embedding]`.
pub(super) struct Room {
    pub(super) tokens: Vec<u32>,
    pub(super) rotation: Rotation,
    pub(super) x: Vec<f32>,
    pub(super) qkv: Vec<f32>,
    pub(super) attention: Vec<f32>,
    pub(super) hidden: Vec<f32>,
    /// Of a mixture: the experts' scores for each token, the output of one of them, and the sum of those of all.
    pub(super) scores: Vec<f32>,
    pub(super) expert: Vec<f32>,
    pub(super) mixed: Vec<f32>,
    /// Activations as wide as an embedding, as all heads, and as the feed-forward layer.
    pub(super) embd_acts: Activations,
    pub(super) head_acts: Activations,
    pub(super) feed_acts: Activations,
}

impl Room {
    pub(super) fn new(rotation: Rotation) -> Self {
        Self {
            tokens: Vec::new(),
            rotation,
            x: Vec::new(),
            qkv: Vec::new(),
            attention: Vec::new(),
            hidden: Vec::new(),
            scores: Vec::new(),
            expert: Vec::new(),
            mixed: Vec::new(),
            embd_acts: Activations::default(),
            head_acts: Activations::default(),
            feed_acts: Activations::default(),
        }
    }

    /// Keeps rows `wanted` of the residual stream and of what attention gave, `width` wide.
    pub(super) fn keep(&mut self, wanted: &[usize], width: usize) {
        let embd = self.x.len() / self.tokens.len();
        for (to, &from) in wanted.iter().enumerate() {
            self.x.copy_within(from * embd..(from + 1) * embd, to * embd);
            self.attention.copy_within(from * width..(from + 1) * width, to * width);
        }
        self.x.truncate(wanted.len() * embd);
        self.attention.truncate(wanted.len() * width);
    }
}
