//! The `native` backend: phicandle's own kernels, keys and values, on the CPU.

mod attention;
mod feed_forward;
mod limits;
mod mixture;
mod pass;
mod plan;
mod room;
mod rotation;
mod section;
mod slot;
mod step;
mod weights;

use std::sync::Arc;

pub use plan::{Needs, memory};

use super::{Batch, BlockCache, Chore, Factors, Forward, KvBlock, KvDtype, Limits, Logits, MemoryMode, Run};
use crate::error::{Error, Result};
use crate::gguf::{GgufFile, ModelPlan};
use crate::kernels::{Compute, CpuInfo, Isa, KV_BLOCK, KvShape, PREPARED, Spare, default_threads};
use pass::Pass;
use slot::Slot;

/// Most tokens of a pass: a panel of weights is unpacked once for all of them, and whoever comes meanwhile waits for its end.
/// More are no faster.
const RUN_TOKENS: usize = 192;

/// The part of the memory planned for keys and values that stays with the model when no sequence uses it: one block of so many,
/// and one for each slot at least.
const SPARE_SHARE: usize = 4;

/// How to run a model with this backend.
#[derive(Debug, Clone)]
pub struct NativeOptions {
    /// Threads to compute with; `None`: one for each core that this process may use.
    pub threads: Option<usize>,
    /// Instructions to compute with; `None`: the best that this CPU has, or what `PHICANDLE_ISA` names.
    pub isa: Option<Isa>,
    /// Where the weights are kept: not [`MemoryMode::Auto`], which [`memory`] resolves.
    pub memory: MemoryMode,
    /// How keys and values are kept.
    pub kv_dtype: KvDtype,
    /// Tokens that a sequence may hold.
    pub context_length: usize,
    /// Sequences that are computed at once.
    pub slots: usize,
}

/// A model in memory, with the sequences in its slots.
pub struct NativeBackend {
    pass: Pass,
    slots: Vec<Slot>,
    shape: KvShape,
    spare: Arc<Spare>,
    limits: Limits,
}

impl NativeBackend {
    /// Reads the weights of a checked file. `progress` hears how many bytes of how many were laid out.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedModel`](crate::ErrorKind::UnsupportedModel) for a model that this backend does not run,
    /// [`ErrorKind::UnsupportedCpu`](crate::ErrorKind::UnsupportedCpu), and
    /// [`ErrorKind::OutOfMemory`](crate::ErrorKind::OutOfMemory) when the system gives no memory.
    pub fn load(
        file: &Arc<GgufFile>,
        plan: &ModelPlan,
        options: &NativeOptions,
        progress: &dyn Fn(u64, u64),
    ) -> Result<Self> {
        limits::longest_context(plan)?;
        let isa = match options.isa {
            Some(isa) => isa,
            None => CpuInfo::detect()?.tier,
        };
        let compute = Compute::new(options.threads.unwrap_or_else(default_threads), isa)?;
        let weights = weights::load(file, plan, options.memory, &compute, progress)?;
        let shape = KvShape {
            layers: plan.n_layer,
            kv_heads: plan.n_head_kv,
            head_dim: plan.head_dim,
            dtype: options.kv_dtype,
        };
        let slots = options.slots.max(1);
        let kv_tokens = limits::kv_tokens(plan, options.context_length, slots);
        let planned = kv_tokens.div_ceil(KV_BLOCK);
        let spare = Arc::new(Spare::new((planned / SPARE_SHARE).max(slots.min(planned)), planned));
        let kept_tokens = limits::kept_tokens(plan).filter(|&kept| kept < options.context_length);
        let limits = Limits {
            slots,
            run_tokens: RUN_TOKENS,
            layers: plan.n_layer,
            context_length: options.context_length,
            kv_tokens,
            vocab_size: plan.vocab_size,
            original_context: limits::original_context(plan, options.context_length),
            kept_tokens,
            // What has left the window is not there any more.
            rewinds: plan.sliding_window.is_none_or(|window| window >= options.context_length),
            shares: true,
        };
        let slots = (0..slots).map(|_| Slot::new(shape, &spare)).collect::<Result<_>>()?;
        let pass = Pass::new(plan, weights, compute, rotation::rope(file, plan)?);
        Ok(Self { pass, slots, shape, spare, limits })
    }

    /// The longest context that this backend runs `plan` right with, in tokens.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedModel`](crate::ErrorKind::UnsupportedModel) when there is none.
    pub fn longest_context(plan: &ModelPlan) -> Result<usize> {
        limits::longest_context(plan)
    }

    /// What is asked of a model, for [`memory`].
    pub fn needs(context_length: usize, kv_dtype: KvDtype, threads: Option<usize>, slots: usize) -> Needs {
        let threads = threads.unwrap_or_else(default_threads);
        // Beside a full run, every other sequence has a token.
        let rows = (RUN_TOKENS + slots - 1).min(context_length);
        Needs { context_length, kv_dtype, threads, slots, rows }
    }
}

impl Forward for NativeBackend {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn forward(&mut self, batch: &Batch, logits: &mut Logits, stop: &dyn Fn() -> bool) -> Result<bool> {
        let done = self.pass.run(batch, &mut self.slots, logits, stop)?;
        if let Some(bytes) = self.shape.block_bytes().filter(|_| done) {
            let begins_soon = |run: &&Run| (run.start + run.tokens.len()) % KV_BLOCK >= KV_BLOCK - PREPARED;
            self.spare.prepare(batch.runs.iter().filter(begins_soon).count(), bytes);
        }
        Ok(done)
    }

    fn aside(&mut self, chore: Chore) {
        self.pass.aside(chore);
    }

    fn release(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.clear();
        }
    }

    fn forget(&mut self, slot: usize, factors: Factors) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.forget(factors);
        }
    }

    fn kv_bytes(&self, slot: usize) -> u64 {
        self.slots.get(slot).map_or(0, Slot::bytes)
    }

    fn cache(&mut self) -> Option<&mut dyn BlockCache> {
        Some(self)
    }
}

impl BlockCache for NativeBackend {
    fn block(&self, slot: usize, factors: Factors, number: usize) -> Option<Arc<KvBlock>> {
        self.slots.get(slot)?.cache(factors).block(number)
    }

    fn adopt(&mut self, slot: usize, factors: Factors, blocks: &[Arc<KvBlock>], len: usize) -> Result<()> {
        let slot = self.slots.get_mut(slot).ok_or_else(|| Error::internal("There is no such slot."))?;
        slot.adopt(factors, blocks, len)
    }

    fn block_from(&self, bytes: &[u8]) -> Result<Arc<KvBlock>> {
        Ok(Arc::new(KvBlock::from_bytes(&self.shape, &self.spare, bytes)?))
    }

    fn blocks(&self) -> usize {
        self.spare.lent()
    }

    fn growth(&self, run: &Run) -> isize {
        let seen = self.pass.first_seen(run.start);
        let end = run.start + run.tokens.len();
        self.slots.get(run.slot).map_or(0, |slot| slot.cache(run.factors).growth(seen, run.start, end))
    }
}
