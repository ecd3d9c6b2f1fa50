//! The seam between the engine and what computes: a batch of tokens in, rows of logits out.

mod around;
mod batch;
mod candle;
mod device;
mod memory;
pub mod native;
mod storage;

/// Tokens for whose keys and values memory is taken at a time.
pub(crate) use crate::kernels::KV_BLOCK;
pub use crate::kernels::{Chore, Factors, KvBlock, KvDtype};
pub use around::Around;
pub use batch::{Batch, LOGIT_ROWS, Logits, Run};
pub use candle::CandleBackend;
pub use device::Device;
pub use memory::{MemoryPlan, Resident, available_memory, forget_peak, peak_rss, resident};
pub use storage::MemoryMode;

use std::sync::Arc;

use crate::error::Result;

/// What a loaded model can take, fixed at load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sequences whose keys and values fit at once.
    pub slots: usize,
    /// Most tokens of one [`Run`]: long prompts enter in runs of this size. All the prompts of a pass share it, and each
    /// sequence gets a token at least. With one slot a prompt is always cut alike, as another split may round differently.
    pub run_tokens: usize,
    /// Layers that a run may pass through one by one, in pass after pass; 1 where it passes through all at once.
    pub layers: usize,
    /// Tokens that one sequence may hold, prompt and answer together.
    pub context_length: usize,
    /// Tokens that all sequences together may hold: the memory for keys and values is planned for so many.
    pub kv_tokens: usize,
    /// Length of a row of logits.
    pub vocab_size: usize,
    /// The longest sequence of [`Factors::Short`], in tokens: a longer one has [`Factors::Long`] at all of its positions.
    /// `None`: none within the context is longer.
    pub original_context: Option<usize>,
    /// Tokens whose keys and values a sequence holds at most, however long it is, where attention looks back over a window.
    pub kept_tokens: Option<usize>,
    /// Whether a run may start before the end of its sequence. Where not, such a sequence must begin anew.
    pub rewinds: bool,
    /// Whether keys and values come in blocks that sequences can share: then there is a [`Forward::cache`], and a run may start
    /// anywhere in the one before it, even where not [`Limits::rewinds`].
    pub shares: bool,
}

impl Limits {
    /// The factors of a sequence of `tokens` tokens.
    pub fn factors(&self, tokens: usize) -> Factors {
        match self.original_context {
            Some(original) if tokens > original => Factors::Long,
            _ => Factors::Short,
        }
    }
}

/// A loaded model: weights, and the keys and values of the sequences in its slots.
///
/// The only seam between the engine and a backend. The engine calls it from one thread.
pub trait Forward: Send {
    /// What this model can take.
    fn limits(&self) -> Limits;

    /// Computes the tokens of `batch` and writes the rows of logits that each [`Run`] wants into `logits`, in the order of the
    /// runs and of their tokens. A row is the same whether it is wanted alone or with others, to the last bit; on the `candle`
    /// backend as long as the tokens before the first wanted one come in the same pieces.
    ///
    /// `stop` is asked now and then. When it says so, the pass ends early and gives `false`; the batch then counts as not
    /// computed, and its runs may come again.
    ///
    /// A run that starts at position 0 begins a new sequence in its slot, as far as its factors go. Any other continues the one
    /// there; one that starts before its end takes the place of what was there from that position on, where
    /// [`Limits::rewinds`]. Tokens that wait behind some of the layers are forgotten when another run comes than theirs.
    ///
    /// # Errors
    /// What the backend reports. The slots of the batch are then unusable until their sequences begin anew.
    fn forward(&mut self, batch: &Batch, logits: &mut Logits, stop: &dyn Fn() -> bool) -> Result<bool>;

    /// Has something small done that waits for nothing, beside what the caller does next where there is an idle thread for it: at
    /// the latest when the next pass begins. If there is none, it may be dropped.
    fn aside(&mut self, chore: Chore) {
        chore();
    }

    /// Frees the keys and values of `slot`.
    fn release(&mut self, slot: usize);

    /// Frees those of the keys and values of `slot` that were computed with `factors`, where the backend keeps two sets.
    fn forget(&mut self, slot: usize, factors: Factors);

    /// Bytes of keys and values held for `slot` now, shared ones included.
    fn kv_bytes(&self, slot: usize) -> u64;

    /// Its keys and values in blocks that sequences can share, where [`Limits::shares`].
    fn cache(&mut self) -> Option<&mut dyn BlockCache>;
}

/// The keys and values of a [`Forward`] in blocks of 64 positions, which sequences that begin alike share.
pub trait BlockCache {
    /// Block `number` of what `slot` holds with `factors`, for other sequences that begin with the same tokens; `None` when it
    /// is not there.
    fn block(&self, slot: usize, factors: Factors, number: usize) -> Option<Arc<KvBlock>>;

    /// Begins a sequence in `slot` with the first `len` positions of another, whose blocks from the first on are `blocks`. Some
    /// are written to only after they were copied.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) for blocks that cannot be.
    fn adopt(&mut self, slot: usize, factors: Factors, blocks: &[Arc<KvBlock>], len: usize) -> Result<()>;

    /// A block from its bytes, as they were saved.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) for bytes of another model;
    /// [`ErrorKind::OutOfMemory`](crate::ErrorKind::OutOfMemory).
    fn block_from(&self, bytes: &[u8]) -> Result<Arc<KvBlock>>;

    /// Blocks that exist now, whoever holds them; each counts once.
    fn blocks(&self) -> usize;

    /// How many more of them `run` takes, or fewer when it is negative.
    fn growth(&self, run: &Run) -> isize;
}
