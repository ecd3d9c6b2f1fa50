//! A model with something around its passes, a stopwatch for one.

use super::{Batch, BlockCache, Chore, Factors, Forward, Limits, Logits};
use crate::error::Result;

/// A model whose passes go through a function, which has the model and what [`Forward::forward`] was called with. All else goes
/// to the model as it comes.
pub struct Around<F> {
    model: Box<dyn Forward>,
    pass: F,
}

impl<F> Around<F>
where
    F: FnMut(&mut dyn Forward, &Batch, &mut Logits, &dyn Fn() -> bool) -> Result<bool> + Send,
{
    /// `model`, with `pass` in place of its passes.
    pub fn new(model: Box<dyn Forward>, pass: F) -> Self {
        Self { model, pass }
    }
}

impl<F> Forward for Around<F>
where
    F: FnMut(&mut dyn Forward, &Batch, &mut Logits, &dyn Fn() -> bool) -> Result<bool> + Send,
{
    fn limits(&self) -> Limits {
        self.model.limits()
    }

    fn forward(&mut self, batch: &Batch, logits: &mut Logits, stop: &dyn Fn() -> bool) -> Result<bool> {
        (self.pass)(self.model.as_mut(), batch, logits, stop)
    }

    fn aside(&mut self, chore: Chore) {
        self.model.aside(chore);
    }

    fn release(&mut self, slot: usize) {
        self.model.release(slot);
    }

    fn forget(&mut self, slot: usize, factors: Factors) {
        self.model.forget(slot, factors);
    }

    fn kv_bytes(&self, slot: usize) -> u64 {
        self.model.kv_bytes(slot)
    }

    fn cache(&mut self) -> Option<&mut dyn BlockCache> {
        self.model.cache()
    }
}
