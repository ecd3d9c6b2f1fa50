//! One forward pass. Phi-3 (arXiv 2404.14219) and Llama (arXiv 2302.13971) differ in how their files name things only; the
//! other models of the family in what follows attention.

use std::ops::Range;

use super::room::Room;
use super::section::{Section, sections};
use super::slot::{Halfway, Reading, Slot, take_readings};
use super::step::{NormSetting, Step};
use super::weights::Weights;
use crate::error::{Error, ErrorKind, Result};
use crate::gguf::ModelPlan;
use crate::kernels::{
    AttentionPlan, Compute, Halt, Heads, KvCache, NormKind, Rope, Run as AttentionRun, Stop, Then,
};
use crate::model::{Batch, Chore, Logits, Run};

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

    /// Has something small done beside what comes next.
    pub(super) fn aside(&self, chore: Chore) {
        self.compute.pool.aside(chore);
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
        let layers = self.weights.layers.len();
        let sections = sections(&batch.runs, layers)?;
        let mut readings = take_readings(&batch.runs, slots)?;
        for (run, reading) in batch.runs.iter().zip(&mut readings) {
            self.prepare(run, reading)?;
        }
        // What a section leaves of the residual stream of each run. What a slot holds of it stays as it is until all is done.
        let mut streams = vec![Vec::new(); batch.runs.len()];
        for section in &sections {
            let runs: Vec<_> = section.runs.iter().map(|&run| &batch.runs[run]).collect();
            let spans = self.enter(section, &runs, &readings, &streams)?;
            let inside = readings.iter_mut().enumerate().filter(|(run, _)| section.runs.contains(run));
            let mut caches: Vec<_> = inside.map(|(_, reading)| &mut reading.cache).collect();
            self.cross(section.layers.clone(), &runs, &spans, &mut caches, logits, stop)?;
            if section.layers.end < layers {
                let embd = self.weights.embedding.k();
                for (&run, span) in section.runs.iter().zip(&spans) {
                    streams[run] = self.room.x[span.row * embd..(span.row + span.rows) * embd].to_vec();
                }
            }
        }
        for ((run, reading), stream) in batch.runs.iter().zip(readings).zip(streams) {
            let end = run.depth(layers).end;
            reading.halfway = if end < layers {
                Halfway { start: run.start, layers: end, stream }
            } else {
                reading.cache.set_len(run.start + run.tokens.len());
                Halfway::default()
            };
        }
        Ok(())
    }

    /// Room in the cache for a run that begins, or goes on with the tokens that wait for it.
    fn prepare(&self, run: &Run, Reading { cache, halfway }: &mut Reading) -> Result<()> {
        let (seen, end) = (self.heads.first_seen(run.start), run.start + run.tokens.len());
        let from = run.depth(self.weights.layers.len()).start;
        if from > 0 {
            let tokens = halfway.stream.len() / self.weights.embedding.k();
            if (halfway.layers, halfway.start, tokens) != (from, run.start, run.tokens.len()) {
                return Err(Error::internal(format!(
                    "A run of {} tokens from position {} goes on from layer {from}, where {tokens} tokens from position {} wait \
                     for layer {}.",
                    run.tokens.len(),
                    run.start,
                    halfway.start,
                    halfway.layers
                )));
            }
            return cache.reserve(run.start, end);
        }
        *halfway = Halfway::default();
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
        cache.reserve(run.start, end)
    }

    /// The residual stream and the rotations of the runs of a section, and where each of them has its rows.
    fn enter(
        &mut self,
        section: &Section,
        runs: &[&Run],
        readings: &[&mut Reading],
        streams: &[Vec<f32>],
    ) -> Result<Vec<AttentionRun>> {
        let (room, layers) = (&mut self.room, self.weights.layers.len());
        room.tokens.clear();
        room.rotation.clear();
        let mut spans = Vec::with_capacity(runs.len());
        for (run, &number) in runs.iter().zip(&section.runs) {
            let end = run.start + run.tokens.len();
            spans.push(AttentionRun { row: room.tokens.len(), rows: run.tokens.len(), position: run.start });
            room.tokens.extend(&run.tokens);
            self.rope.add(&mut room.rotation, run.start..end, readings[number].cache.factors());
        }
        let embedding = &self.weights.embedding;
        if section.layers.start == 0 {
            room.x.resize(room.tokens.len() * embedding.k(), 0.0);
            self.compute.embed(embedding, &room.tokens, &mut room.x)?;
            return Ok(spans);
        }
        room.x.clear();
        for (run, &number) in runs.iter().zip(&section.runs) {
            let begins = run.depth(layers).start == section.layers.start;
            let waits = &readings[number].halfway.stream;
            room.x.extend(if begins { waits } else { &streams[number] });
        }
        Ok(spans)
    }

    /// Computes a section, and the logits that its runs want, where it has the last layer.
    fn cross(
        &mut self,
        layers: Range<usize>,
        runs: &[&Run],
        spans: &[AttentionRun],
        caches: &mut [&mut KvCache],
        logits: &mut Logits,
        stop: &Stop<'_>,
    ) -> Result<(), Halt> {
        let threads = self.compute.threads();
        let plan = AttentionPlan::new(self.heads, spans, threads)?;
        // In the last layer only the rows count whose logits are wanted.
        let last = self.weights.layers.len() - 1;
        let (wanted, last_runs) =
            if layers.contains(&last) { wanted(runs, spans) } else { Default::default() };
        let last_plan = AttentionPlan::new(self.heads, &last_runs, threads)?;
        for number in layers {
            let layer = &self.weights.layers[number];
            let step =
                Step { compute: &self.compute, heads: self.heads, norms: self.norms, layer, number, stop };
            step.project(&mut self.room)?;
            step.append(&mut self.room, &plan, caches)?;
            if number < last {
                step.attend(&mut self.room, &plan, caches)?;
            } else {
                let caches: Vec<&mut KvCache> = caches
                    .iter_mut()
                    .zip(runs)
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
        Ok(())
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
fn wanted(runs: &[&Run], spans: &[AttentionRun]) -> (Vec<usize>, Vec<AttentionRun>) {
    let (mut rows, mut wanted) = (Vec::new(), Vec::new());
    for (run, span) in runs.iter().zip(spans).filter(|(run, _)| run.logit_rows() > 0) {
        let (row, position) = (span.row + run.logits_from, span.position + run.logits_from);
        rows.extend(row..span.row + span.rows);
        wanted.push(AttentionRun { row, rows: run.logit_rows(), position });
    }
    (rows, wanted)
}
