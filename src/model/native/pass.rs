//! One forward pass. Phi-3 (arXiv 2404.14219) and Llama (arXiv 2302.13971) differ in how their files name things only; the
//! other models of the family in what follows attention.

use super::room::Room;
use super::slot::{Slot, take_caches};
use super::step::{NormSetting, Step};
use super::weights::Weights;
use crate::error::{Error, ErrorKind, Result};
use crate::gguf::ModelPlan;
use crate::kernels::{
    AttentionPlan, Compute, Halt, Heads, KvCache, NormKind, Rope, Run as AttentionRun, Stop, Then,
};
use crate::model::{Batch, Logits, Run};

/// A model, and room for what goes through it.
pub(super) struct Pass {
    weights: Weights,
    compute: Compute,
    rope: Rope,
    heads: Heads,
    norms: NormSetting,
    room: Room,
}

impl Pass {
    pub(super) fn new(plan: &ModelPlan, weights: Weights, compute: Compute, rope: Rope) -> Self {
        let heads = Heads {
            n_head: plan.n_head,
            n_kv_head: plan.n_head_kv,
            head_dim: plan.head_dim,
            window: plan.sliding_window,
        };
        let room = Room::new(rope.rotation());
        let kind = if plan.architecture.has_layer_norm() { NormKind::Layer } else { NormKind::Rms };
        Self { weights, compute, rope, heads, norms: NormSetting { kind, eps: plan.norm_eps }, room }
    }

    /// The first position that a query at `position` sees.
    pub(super) fn first_seen(&self, position: usize) -> usize {
        self.heads.first_seen(position)
    }

    /// Computes `batch`. False: `stop` said so in between, and nothing was computed.
    pub(super) fn run(
        &mut self,
        batch: &Batch,
        slots: &mut [Slot],
        logits: &mut Logits,
        stop: &Stop<'_>,
    ) -> Result<bool> {
        logits.reset(self.weights.embedding.rows());
        if batch.runs.is_empty() {
            return Ok(true);
        }
        let outcome = self.try_run(batch, slots, logits, stop);
        // What comes between two passes is short, but not as short as what comes between two operations.
        self.compute.pool.rest();
        match outcome {
            Ok(()) => Ok(true),
            Err(Halt::Stopped) => Ok(false),
            // A unit panicked, on this thread or on another: it is a panic of this pass, whoever calls has to know what is left.
            Err(Halt::Failed(error)) if matches!(error.kind(), ErrorKind::Internal) => {
                std::panic::resume_unwind(Box::new(error.message().to_owned()))
            }
            Err(Halt::Failed(error)) => Err(error),
        }
    }

    fn try_run(
        &mut self,
        batch: &Batch,
        slots: &mut [Slot],
        logits: &mut Logits,
        stop: &Stop<'_>,
    ) -> Result<(), Halt> {
        let mut caches = take_caches(&batch.runs, slots)?;
        let threads = self.compute.threads();
        let runs = self.begin(&batch.runs, &mut caches)?;
        let plan = AttentionPlan::new(self.heads, &runs, threads)?;
        // In the last layer only the rows count whose logits are wanted.
        let (wanted, last_runs) = wanted(&batch.runs, &runs);
        let last_plan = AttentionPlan::new(self.heads, &last_runs, threads)?;
        let last = self.weights.layers.len() - 1;
        for (number, layer) in self.weights.layers.iter().enumerate() {
            let step =
                Step { compute: &self.compute, heads: self.heads, norms: self.norms, layer, number, stop };
            step.project(&mut self.room)?;
            step.append(&mut self.room, &plan, &mut caches)?;
            if number < last {
                step.attend(&mut self.room, &plan, &caches)?;
            } else {
                let mut caches = caches.iter_mut().zip(&batch.runs);
                let caches: Vec<&mut KvCache> = caches
                    .by_ref()
                    .filter(|(_, run)| run.logit_rows() > 0)
                    .map(|(cache, _)| &mut **cache)
                    .collect();
                if caches.is_empty() {
                    break;
                }
                step.attend(&mut self.room, &last_plan, &caches)?;
                self.room.keep(&wanted, self.heads.n_head * self.heads.head_dim);
            }
            step.finish(&mut self.room)?;
        }
        if !wanted.is_empty() {
            self.logits(wanted.len(), logits, stop)?;
        }
        for (cache, run) in caches.iter_mut().zip(&batch.runs) {
            cache.set_len(run.start + run.tokens.len());
        }
        Ok(())
    }

    /// Embeddings, rotations and room in the caches for the rows of a batch.
    fn begin(&mut self, runs: &[Run], caches: &mut [&mut KvCache]) -> Result<Vec<AttentionRun>> {
        let room = &mut self.room;
        room.tokens.clear();
        room.rotation.clear();
        let mut spans = Vec::with_capacity(runs.len());
        for (run, cache) in runs.iter().zip(caches) {
            let seen = self.heads.first_seen(run.start);
            if run.start == 0 {
                cache.clear();
            } else if run.start > cache.len() || seen < cache.start() {
                return Err(Error::internal(format!(
                    "A run begins at position {}, and its sequence has those from {} to {}.",
                    run.start,
                    cache.start(),
                    cache.len()
                )));
            } else {
                cache.truncate(run.start);
                cache.release_before(seen);
            }
            let end = run.start + run.tokens.len();
            cache.reserve(run.start, end)?;
            spans.push(AttentionRun { row: room.tokens.len(), rows: run.tokens.len(), position: run.start });
            room.tokens.extend(&run.tokens);
            self.rope.add(&mut room.rotation, run.start..end, cache.factors());
        }
        room.x.resize(room.tokens.len() * self.weights.embedding.k(), 0.0);
        self.compute.embed(&self.weights.embedding, &room.tokens, &mut room.x)?;
        Ok(spans)
    }

    /// Logits for the `rows` rows that are left.
    fn logits(&mut self, rows: usize, logits: &mut Logits, stop: &Stop<'_>) -> Result<(), Halt> {
        let Self { weights, compute, room, .. } = self;
        let output = &weights.output;
        let norm = weights.output_norm.of(&room.x, self.norms);
        compute.quantise(&norm, rows, output.matrix.k(), output.forms(), &mut room.embd_acts)?;
        let out = logits.push_rows(rows);
        compute.matmul(&[&output.matrix], &room.embd_acts, Then::Store, out, stop)?;
        output.add_bias(out, output.matrix.rows(), 0);
        Ok(check_logits(out)?)
    }
}

/// Refuses logits that are not finite: there the faults of weights come out, which nobody looked at when they were loaded.
/// A sampler would take minus infinity for a token that is ruled out.
fn check_logits(logits: &[f32]) -> Result<()> {
    // To the end in any case: so it runs on vectors.
    if logits.iter().fold(true, |all, logit| all & logit.is_finite()) {
        return Ok(());
    }
    let count = logits.iter().filter(|logit| !logit.is_finite()).count();
    Err(Error::new(
        ErrorKind::Numerical,
        format!("The model computed {count} of {} logits that are not finite numbers.", logits.len()),
        "Check the model file with `phicandle show FILE`; if it is sound, try another quantisation.",
    ))
}

/// The rows whose logits are wanted, and for each run that has such the run of them.
fn wanted(runs: &[Run], spans: &[AttentionRun]) -> (Vec<usize>, Vec<AttentionRun>) {
    let (mut rows, mut wanted) = (Vec::new(), Vec::new());
    for (run, span) in runs.iter().zip(spans).filter(|(run, _)| run.logit_rows() > 0) {
        let (row, position) = (span.row + run.logits_from, span.position + run.logits_from);
        rows.extend(row..span.row + span.rows);
        wanted.push(AttentionRun { row, rows: run.logit_rows(), position });
    }
    (rows, wanted)
}
