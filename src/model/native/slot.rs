//! What one slot holds of a sequence: keys and values, and tokens on their way through the layers.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::kernels::{KvCache, KvShape, Spare};
use crate::model::{Factors, KvBlock, Run};

/// Tokens that have passed through the first layers of a model, and wait for the others.
#[derive(Default)]
pub(super) struct Halfway {
    /// Position of the first of them.
    pub(super) start: usize,
    /// Layers that they have passed through; 0: there are no tokens.
    pub(super) layers: usize,
    /// Their residual stream: `[token][embedding]`.
    pub(super) stream: Vec<f32>,
}

/// One reading of a sequence.
pub(super) struct Reading {
    pub(super) cache: KvCache,
    pub(super) halfway: Halfway,
}

impl Reading {
    fn clear(&mut self) {
        self.cache.clear();
        self.halfway = Halfway::default();
    }
}

/// One sequence: as read with the short factors of a long-rope model, and as read with the long ones. Other models use the first
/// alone. While a sequence nears the end of its original context it has both.
pub(super) struct Slot {
    short: Reading,
    long: Reading,
}

impl Slot {
    /// An empty one.
    ///
    /// # Errors
    /// Those of [`KvCache::new`].
    pub(super) fn new(shape: KvShape, spare: &Arc<Spare>) -> Result<Self> {
        let reading = |factors| -> Result<_> {
            Ok(Reading { cache: KvCache::new(shape, factors, spare)?, halfway: Halfway::default() })
        };
        Ok(Self { short: reading(Factors::Short)?, long: reading(Factors::Long)? })
    }

    /// The keys and values read with `factors`.
    pub(super) fn cache(&self, factors: Factors) -> &KvCache {
        match factors {
            Factors::Short => &self.short.cache,
            Factors::Long => &self.long.cache,
        }
    }

    fn reading(&mut self, factors: Factors) -> &mut Reading {
        match factors {
            Factors::Short => &mut self.short,
            Factors::Long => &mut self.long,
        }
    }

    /// Forgets what was read with `factors`, and begins with the first `len` positions of another sequence.
    ///
    /// # Errors
    /// Those of [`KvCache::adopt`].
    pub(super) fn adopt(&mut self, factors: Factors, blocks: &[Arc<KvBlock>], len: usize) -> Result<()> {
        let reading = self.reading(factors);
        reading.halfway = Halfway::default();
        reading.cache.adopt(blocks, len)
    }

    /// Forgets what was read with `factors`.
    pub(super) fn forget(&mut self, factors: Factors) {
        self.reading(factors).clear();
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.short.clear();
        self.long.clear();
    }

    /// Bytes of keys and values held.
    pub(super) fn bytes(&self) -> u64 {
        (self.short.cache.bytes() + self.long.cache.bytes()) as u64
    }
}

/// The readings that the runs go on with, in their order.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::ErrorKind::Internal) for a run without tokens or slot, and for two runs with one reading.
pub(super) fn take_readings<'a>(runs: &[Run], slots: &'a mut [Slot]) -> Result<Vec<&'a mut Reading>> {
    let both = |slot: &'a mut Slot| (Some(&mut slot.short), Some(&mut slot.long));
    let mut all: Vec<_> = slots.iter_mut().map(both).collect();
    runs.iter()
        .map(|run| {
            let slot = all.get_mut(run.slot).filter(|_| !run.tokens.is_empty());
            let reading = slot.and_then(|(short, long)| match run.factors {
                Factors::Short => short.take(),
                Factors::Long => long.take(),
            });
            reading.ok_or_else(|| {
                Error::internal(format!(
                    "The native backend was given {} tokens for slot {}, or that slot twice.",
                    run.tokens.len(),
                    run.slot
                ))
            })
        })
        .collect()
}
