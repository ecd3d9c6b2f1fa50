//! One forward pass: Phi-3 (arXiv 2404.14219) and Llama (arXiv 2302.13971), which differ in how their files name things.

use super::weights::{Layer, Linear, Weights};
use crate::error::{Error, ErrorKind, Result};
use crate::gguf::ModelPlan;
use crate::kernels::{
    Activations, AttentionPlan, Compute, Copied, Factors, Forms, Heads, KvCache, Norm, Rope, Rotation, Rows,
    Run as AttentionRun, Then,
};
use crate::model::{Batch, Logits, Run};

/// A model, and room for what goes through it.
pub(super) struct Pass {
    weights: Weights,
    compute: Compute,
    rope: Rope,
    heads: Heads,
    eps: f32,
    room: Room,
}

/// Intermediate values, kept from pass to pass. `x` is the residual stream: `[token][embedding]`.
struct Room {
    tokens: Vec<u32>,
    rotation: Rotation,
    x: Vec<f32>,
    qkv: Vec<f32>,
    attention: Vec<f32>,
    hidden: Vec<f32>,
    /// Activations as wide as an embedding, as all heads, and as the feed-forward layer.
    embd_acts: Activations,
    head_acts: Activations,
    feed_acts: Activations,
}

/// What ends a pass early.
enum Halt {
    /// It was asked to stop.
    Stopped,
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Linear {
    fn forms(&self) -> Forms {
        Forms::default().with(self.matrix.family())
    }

    /// Adds the bias, if there is one, to columns `at` on of rows of `width`.
    fn add_bias(&self, out: &mut [f32], width: usize, at: usize) {
        let Some(bias) = &self.bias else { return };
        for row in out.chunks_exact_mut(width) {
            row[at..].iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
        }
    }
}

impl Pass {
    pub(super) fn new(plan: &ModelPlan, weights: Weights, compute: Compute, rope: Rope) -> Self {
        let heads = Heads {
            n_head: plan.n_head,
            n_kv_head: plan.n_head_kv,
            head_dim: plan.head_dim,
            window: plan.sliding_window,
        };
        let room = Room {
            tokens: Vec::new(),
            rotation: rope.rotation(),
            x: Vec::new(),
            qkv: Vec::new(),
            attention: Vec::new(),
            hidden: Vec::new(),
            embd_acts: Activations::default(),
            head_acts: Activations::default(),
            feed_acts: Activations::default(),
        };
        Self { weights, compute, rope, heads, eps: plan.rms_eps, room }
    }

    /// Computes `batch`. False: `stop` said so in between, and nothing was computed.
    pub(super) fn run(
        &mut self,
        batch: &Batch,
        caches: &mut [KvCache],
        logits: &mut Logits,
        stop: &dyn Fn() -> bool,
    ) -> Result<bool> {
        logits.reset(self.weights.embedding.rows());
        if batch.runs.is_empty() {
            return Ok(true);
        }
        match self.try_run(batch, caches, logits, stop) {
            Ok(()) => Ok(true),
            Err(Halt::Stopped) => Ok(false),
            Err(Halt::Failed(error)) => Err(error),
        }
    }

    fn try_run(
        &mut self,
        batch: &Batch,
        caches: &mut [KvCache],
        logits: &mut Logits,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), Halt> {
        let mut caches = take_caches(&batch.runs, caches)?;
        let threads = self.compute.threads();
        let runs = self.begin(&batch.runs, &mut caches)?;
        let plan = AttentionPlan::new(self.heads, &runs, threads)?;
        // In the last layer only the rows count whose logits are wanted.
        let (wanted, last_runs) = wanted(&batch.runs, &runs);
        let last_plan = AttentionPlan::new(self.heads, &last_runs, threads)?;
        let last = self.weights.layers.len() - 1;
        for (number, layer) in self.weights.layers.iter().enumerate() {
            let step = Step { compute: &self.compute, heads: self.heads, eps: self.eps, layer, number, stop };
            step.project(&mut self.room)?;
            step.append(&mut self.room, &plan, &mut caches)?;
            if number < last {
                step.attend(&mut self.room, &plan, &caches)?;
            } else {
                let mut caches = caches.iter_mut().zip(&batch.runs);
                let caches: Vec<&mut KvCache> = caches
                    .by_ref()
                    .filter(|(_, run)| run.wants_logits)
                    .map(|(cache, _)| &mut **cache)
                    .collect();
                if caches.is_empty() {
                    break;
                }
                step.attend(&mut self.room, &last_plan, &caches)?;
                self.room.keep(&wanted, self.heads.n_head * self.heads.head_dim);
            }
            step.output(&mut self.room)?;
            step.feed_forward(&mut self.room)?;
        }
        if !wanted.is_empty() {
            self.logits(wanted.len(), logits)?;
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
            if run.start == 0 {
                cache.clear();
            } else if run.start > cache.len() {
                return Err(Error::internal(format!(
                    "A run begins at position {}, and its sequence has {}.",
                    run.start,
                    cache.len()
                )));
            } else {
                cache.truncate(run.start);
            }
            let end = run.start + run.tokens.len();
            cache.reserve(run.start, end)?;
            spans.push(AttentionRun { row: room.tokens.len(), rows: run.tokens.len(), position: run.start });
            room.tokens.extend(&run.tokens);
            self.rope.add(&mut room.rotation, run.start..end, Factors::Short);
        }
        room.x.resize(room.tokens.len() * self.weights.embedding.k(), 0.0);
        self.compute.embed(&self.weights.embedding, &room.tokens, &mut room.x)?;
        Ok(spans)
    }

    /// Logits for the `rows` rows that are left.
    fn logits(&mut self, rows: usize, logits: &mut Logits) -> Result<()> {
        let Self { weights, compute, room, .. } = self;
        let output = &weights.output;
        let norm = Norm { values: &room.x, weight: &weights.output_norm, eps: self.eps };
        compute.quantise(&norm, rows, output.matrix.k(), output.forms(), &mut room.embd_acts)?;
        let out = logits.push_rows(rows);
        compute.matmul(&[&output.matrix], &room.embd_acts, Then::Store, out)?;
        output.add_bias(out, output.matrix.rows(), 0);
        check_logits(out)
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

/// One layer of a pass.
struct Step<'a> {
    compute: &'a Compute,
    heads: Heads,
    eps: f32,
    layer: &'a Layer,
    number: usize,
    stop: &'a dyn Fn() -> bool,
}

impl Step<'_> {
    fn check(&self) -> Result<(), Halt> {
        if (self.stop)() { Err(Halt::Stopped) } else { Ok(()) }
    }

    /// Queries, keys and values.
    fn project(&self, room: &mut Room) -> Result<(), Halt> {
        self.check()?;
        let (qkv, k) = (&self.layer.qkv, self.layer.attention_norm.len());
        let rows = room.x.len() / k;
        let forms = qkv.iter().fold(Forms::default(), |forms, linear| forms.with(linear.matrix.family()));
        let norm = Norm { values: &room.x, weight: &self.layer.attention_norm, eps: self.eps };
        self.compute.quantise(&norm, rows, k, forms, &mut room.embd_acts)?;
        let matrices: Vec<_> = qkv.iter().map(|linear| &linear.matrix).collect();
        let width = matrices.iter().map(|matrix| matrix.rows()).sum();
        room.qkv.resize(rows * width, 0.0);
        self.compute.matmul(&matrices, &room.embd_acts, Then::Store, &mut room.qkv)?;
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

    fn append(&self, room: &mut Room, plan: &AttentionPlan, caches: &mut [&mut KvCache]) -> Result<(), Halt> {
        self.check()?;
        let Compute { pool, tier } = self.compute;
        Ok(plan.append(pool, *tier, self.number, self.rows(&room.qkv), &room.rotation, caches)?)
    }

    fn attend(&self, room: &mut Room, plan: &AttentionPlan, caches: &[&mut KvCache]) -> Result<(), Halt> {
        self.check()?;
        let Compute { pool, tier } = self.compute;
        let width = self.heads.n_head * self.heads.head_dim;
        let rows = self.rows(&room.qkv);
        room.attention.resize(room.qkv.len() / rows.stride * width, 0.0);
        Ok(plan.attend(pool, *tier, self.number, rows, &room.rotation, caches, &mut room.attention)?)
    }

    /// What attention gives, through its output matrix, onto the residual stream.
    fn output(&self, room: &mut Room) -> Result<(), Halt> {
        self.check()?;
        let linear = &self.layer.attention_output;
        let k = linear.matrix.k();
        let heads = Copied { values: &room.attention };
        self.compute.quantise(&heads, room.attention.len() / k, k, linear.forms(), &mut room.head_acts)?;
        self.add(linear, &room.head_acts, &mut room.x)
    }

    /// SwiGLU (arXiv 2002.05202).
    fn feed_forward(&self, room: &mut Room) -> Result<(), Halt> {
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

    fn add(&self, linear: &Linear, acts: &Activations, x: &mut [f32]) -> Result<(), Halt> {
        self.check()?;
        self.compute.matmul(&[&linear.matrix], acts, Then::Add, x)?;
        linear.add_bias(x, linear.matrix.rows(), 0);
        Ok(())
    }
}

impl Room {
    /// Keeps rows `wanted` of the residual stream and of what attention gave, `width` wide.
    fn keep(&mut self, wanted: &[usize], width: usize) {
        let embd = self.x.len() / self.tokens.len();
        for (to, &from) in wanted.iter().enumerate() {
            self.x.copy_within(from * embd..(from + 1) * embd, to * embd);
            self.attention.copy_within(from * width..(from + 1) * width, to * width);
        }
        self.x.truncate(wanted.len() * embd);
        self.attention.truncate(wanted.len() * width);
    }
}

/// The rows whose logits are wanted, and each as a run of its own.
fn wanted(runs: &[Run], spans: &[AttentionRun]) -> (Vec<usize>, Vec<AttentionRun>) {
    runs.iter()
        .zip(spans)
        .filter(|(run, _)| run.wants_logits)
        .map(|(_, span)| {
            let (row, position) = (span.row + span.rows - 1, span.position + span.rows - 1);
            (row, AttentionRun { row, rows: 1, position })
        })
        .unzip()
}

/// The caches of the runs, in their order.
fn take_caches<'a>(runs: &[Run], caches: &'a mut [KvCache]) -> Result<Vec<&'a mut KvCache>> {
    let mut all: Vec<Option<&mut KvCache>> = caches.iter_mut().map(Some).collect();
    runs.iter()
        .map(|run| {
            let cache = all.get_mut(run.slot).and_then(Option::take).filter(|_| !run.tokens.is_empty());
            cache.ok_or_else(|| {
                Error::internal(format!(
                    "The native backend was given {} tokens for slot {}, or that slot twice.",
                    run.tokens.len(),
                    run.slot
                ))
            })
        })
        .collect()
}
