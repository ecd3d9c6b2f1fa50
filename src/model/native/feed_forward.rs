//! The feed-forward block of one layer.

use super::room::Room;
use super::step::Step;
use super::weights::{Expert, Feed, Linear, NormWeights};
use crate::kernels::{Activations, Copied, Gelu, Halt, RowSource, Then};

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

    fn gated(&self, room: &mut Room, norm: &NormWeights, expert: &Expert) -> Result<(), Halt> {
        let Room { x, embd_acts, hidden, feed_acts, .. } = room;
        let rows = x.len() / norm.weight.len();
        self.swiglu(&norm.of(x, self.norms), rows, expert, [embd_acts, feed_acts], hidden)?;
        self.add(&expert.down, feed_acts, x)
    }

    /// SwiGLU (arXiv 2002.05202) of `rows` rows of `source`, up to what the last matrix multiplies: `feed_acts`. `embd_acts` and
    /// `hidden` are room for what comes before.
    pub(super) fn swiglu(
        &self,
        source: &impl RowSource,
        rows: usize,
        expert: &Expert,
        [embd_acts, feed_acts]: [&mut Activations; 2],
        hidden: &mut Vec<f32>,
    ) -> Result<(), Halt> {
        self.check()?;
        let Expert { gate, up, down } = expert;
        let (k, width) = (gate.matrix.k(), gate.matrix.rows());
        self.compute.quantise(source, rows, k, gate.forms().with(up.matrix.family()), embd_acts)?;
        hidden.resize(rows * width, 0.0);
        self.compute.gated(
            [&gate.matrix, &up.matrix],
            [gate.bias.as_deref(), up.bias.as_deref()],
            embd_acts,
            hidden,
            self.stop,
        )?;
        Ok(self.compute.quantise(&Copied { values: hidden }, rows, width, down.forms(), feed_acts)?)
    }

    /// The first half of a block beside attention: as attention's norm gives it, to the inner width.
    fn widen(&self, room: &mut Room, up: &Linear) -> Result<(), Halt> {
        self.check()?;
        let norm = &self.layer.attention_norm;
        let (k, width) = (norm.weight.len(), up.matrix.rows());
        let rows = room.x.len() / k;
        self.compute.quantise(&norm.of(&room.x, self.norms), rows, k, up.forms(), &mut room.embd_acts)?;
        room.hidden.resize(rows * width, 0.0);
        self.compute.matmul(&[&up.matrix], &room.embd_acts, Then::Store, &mut room.hidden, self.stop)
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
