//! The keys and values of one slot.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::kernels::{KvCache, KvShape, Spare};
use crate::model::{Factors, Run};

/// The keys and values of one sequence: as read with the short factors of a long-rope model, and as read with the long ones.
/// Other models use the first alone. While a sequence nears the end of its original context it has both.
pub(super) struct Slot {
    short: KvCache,
    long: KvCache,
}

impl Slot {
    /// An empty one.
    ///
    /// # Errors
    /// Those of [`KvCache::new`].
    pub(super) fn new(shape: KvShape, spare: &Arc<Spare>) -> Result<Self> {
        let cache = |factors| KvCache::new(shape, factors, spare);
        Ok(Self { short: cache(Factors::Short)?, long: cache(Factors::Long)? })
    }

    /// The keys and values read with `factors`.
    pub(super) fn cache(&self, factors: Factors) -> &KvCache {
        match factors {
            Factors::Short => &self.short,
            Factors::Long => &self.long,
        }
    }

    /// The same, to change them.
    pub(super) fn cache_mut(&mut self, factors: Factors) -> &mut KvCache {
        match factors {
            Factors::Short => &mut self.short,
            Factors::Long => &mut self.long,
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.short.clear();
        self.long.clear();
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> u64 {
        (self.short.bytes() + self.long.bytes()) as u64
    }
}

/// The caches of the runs, in their order.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::ErrorKind::Internal) for a run without tokens or slot, and for two runs with one cache.
pub(super) fn take_caches<'a>(runs: &[Run], slots: &'a mut [Slot]) -> Result<Vec<&'a mut KvCache>> {
    let both = |slot: &'a mut Slot| (Some(&mut slot.short), Some(&mut slot.long));
    let mut all: Vec<_> = slots.iter_mut().map(both).collect();
    runs.iter()
        .map(|run| {
            let slot = all.get_mut(run.slot).filter(|_| !run.tokens.is_empty());
            let cache = slot.and_then(|(short, long)| match run.factors {
                Factors::Short => short.take(),
                Factors::Long => long.take(),
            });
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
