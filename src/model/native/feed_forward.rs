//! The feed-forward block of one layer.

use super::room::Room;
use super::step::{Halt, Step};
use super::weights::Layer;
use crate::kernels::{Copied, Norm};

impl Step<'_> {
    /// SwiGLU (arXiv 2002.05202).
    pub(super) fn feed_forward(&self, room: &mut Room) -> Result<(), Halt> {
        self.check()?;
        let Layer { feed_norm, gate, up, down, .. } = self.layer;
        let (k, width) = (feed_norm.len(), gate.matrix.rows());
        let rows = room.x.len() / k;
        let forms = gate.forms().with(up.matrix.family());
        let norm = Norm { values: &room.x, weight: feed_norm, eps: self.eps };
        self.compute.quantise(&norm, rows, k, forms, &mut room.embd_acts)?;
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
}
