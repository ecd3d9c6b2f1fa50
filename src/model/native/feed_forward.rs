//! The feed-forward block of one layer.

use super::room::Room;
use super::step::{Halt, Step};
use super::weights::{Expert, Feed, Linear, NormWeights};
use crate::kernels::{Copied, Gelu, Then};

impl Step<'_> {
    /// From what attention gave to what the next layer gets.
    pub(super) fn finish(&self, room: &mut Room) -> Result<(), Halt> {
        match &self.layer.feed {
            Feed::Gated(norm, expert) => {
                self.output(room)?;
                self.gated(room, norm, expert)
            }
            Feed::Parallel { up, down } => {
                // Before attention's share comes onto the residual stream.
                self.widen(room, up)?;
                self.output(room)?;
                self.gelu(room, up, down)
            }
            Feed::Mixture { norm, router, experts } => {
                self.output(room)?;
                self.mixture(room, norm, router, experts)
            }
        }
    }

    /// SwiGLU (arXiv 2002.05202).
    fn gated(&self, room: &mut Room, norm: &NormWeights, expert: &Expert) -> Result<(), Halt> {
        self.check()?;
        let Expert { gate, up, down } = expert;
        let (k, width) = (norm.weight.len(), gate.matrix.rows());
        let rows = room.x.len() / k;
        let forms = gate.forms().with(up.matrix.family());
        self.compute.quantise(&norm.of(&room.x, self.norms), rows, k, forms, &mut room.embd_acts)?;
        room.hidden.resize(rows * width, 0.0);
        self.compute.gated(
            [&gate.matrix, &up.matrix],
            [gate.bias.as_deref(), up.bias.as_deref()],
            &room.embd_acts,
            &mut room.hidden,
        )?;
        self.check()?;
        let hidden = Copied { values: &room.hidden };
        self.compute.quantise(&hidden, rows, width, down.forms(), &mut room.feed_acts)?;
        self.add(down, &room.feed_acts, &mut room.x)
    }

    /// The first half of a block beside attention: as attention's norm gives it, to the inner width.
    fn widen(&self, room: &mut Room, up: &Linear) -> Result<(), Halt> {
        self.check()?;
        let norm = &self.layer.attention_norm;
        let (k, width) = (norm.weight.len(), up.matrix.rows());
        let rows = room.x.len() / k;
        self.compute.quantise(&norm.of(&room.x, self.norms), rows, k, up.forms(), &mut room.embd_acts)?;
        room.hidden.resize(rows * width, 0.0);
        Ok(self.compute.matmul(&[&up.matrix], &room.embd_acts, Then::Store, &mut room.hidden)?)
    }

    /// The second half of it: the activation, and back onto the residual stream.
    fn gelu(&self, room: &mut Room, up: &Linear, down: &Linear) -> Result<(), Halt> {
        self.check()?;
        let width = up.matrix.rows();
        let hidden = Gelu { values: &room.hidden, bias: up.bias.as_deref() };
        let rows = room.hidden.len() / width;
        self.compute.quantise(&hidden, rows, width, down.forms(), &mut room.feed_acts)?;
        self.add(down, &room.feed_acts, &mut room.x)
    }
}
