//! Attention of one layer: from the residual stream and back onto it.

use super::room::Room;
use super::step::Step;
use super::weights::Layer;
use crate::kernels::{AttentionPlan, Copied, Forms, Halt, Heads, KvCache, Rows, Then};

impl Step<'_> {
    /// Queries, keys and values.
    pub(super) fn project(&self, room: &mut Room) -> Result<(), Halt> {
        self.check()?;
        let Layer { qkv, attention_norm, .. } = self.layer;
        let k = attention_norm.weight.len();
        let rows = room.x.len() / k;
        let forms = qkv.iter().fold(Forms::default(), |forms, linear| forms.with(linear.matrix.family()));
        let norm = attention_norm.of(&room.x, self.norms);
        self.compute.quantise(&norm, rows, k, forms, &mut room.embd_acts)?;
        let matrices: Vec<_> = qkv.iter().map(|linear| &linear.matrix).collect();
        let width = matrices.iter().map(|matrix| matrix.rows()).sum();
        room.qkv.resize(rows * width, 0.0);
        self.compute.matmul(&matrices, &room.embd_acts, Then::Store, &mut room.qkv, self.stop)?;
        let mut at = 0;
        for linear in qkv {
            linear.add_bias(&mut room.qkv, width, at);
            at += linear.matrix.rows();
        }
        Ok(())
    }

    fn rows<'r>(&self, qkv: &'r [f32]) -> Rows<'r> {
        let Heads { n_head, n_kv_head, head_dim, .. } = self.heads;
        let (q, kv) = (n_head * head_dim, n_kv_head * head_dim);
        Rows { data: qkv, stride: q + 2 * kv, q: 0, k: q, v: q + kv }
    }

    /// Keys, rotated, and values, into the caches.
    pub(super) fn append(
        &self,
        room: &mut Room,
        plan: &AttentionPlan,
        caches: &mut [&mut KvCache],
    ) -> Result<(), Halt> {
        self.check()?;
        Ok(plan.append(self.compute, self.number, self.rows(&room.qkv), &room.rotation, caches)?)
    }

    /// Each row's mix of the values that it looks back at.
    pub(super) fn attend(
        &self,
        room: &mut Room,
        plan: &AttentionPlan,
        caches: &[&mut KvCache],
    ) -> Result<(), Halt> {
        let width = self.heads.n_head * self.heads.head_dim;
        let rows = self.rows(&room.qkv);
        room.attention.resize(room.qkv.len() / rows.stride * width, 0.0);
        let Room { rotation, attention, .. } = room;
        plan.attend(self.compute, self.number, rows, rotation, caches, attention, self.stop)
    }

    /// What attention gives, through its output matrix, onto the residual stream.
    pub(super) fn output(&self, room: &mut Room) -> Result<(), Halt> {
        self.check()?;
        let linear = &self.layer.attention_output;
        let k = linear.matrix.k();
        let heads = Copied { values: &room.attention };
        self.compute.quantise(&heads, room.attention.len() / k, k, linear.forms(), &mut room.head_acts)?;
        self.add(linear, &room.head_acts, &mut room.x)
    }
}
