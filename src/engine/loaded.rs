//! A loaded model before an engine owns it, for what measures the model itself.

use std::time::Duration;

use super::load::{self, Parts};
use super::{Engine, LoadOptions, ModelInfo, Policy};
use crate::error::Result;
use crate::model::Forward;

/// A model that is loaded as [`Engine::load`] does it, and has no worker yet: its passes can be called one by one.
pub struct LoadedModel {
    parts: Parts,
    policy: Policy,
}

impl LoadedModel {
    /// Validates and loads a model.
    ///
    /// # Errors
    /// Those of [`Engine::load`].
    pub fn load(options: &LoadOptions) -> Result<Self> {
        Ok(Self { parts: load::load(options)?, policy: Policy::of(options) })
    }

    /// What computes.
    pub fn model(&mut self) -> &mut dyn Forward {
        self.parts.model.as_mut()
    }

    /// Facts about the model.
    pub fn info(&self) -> &ModelInfo {
        &self.parts.info
    }

    /// How long loading took: the file's checks, the tokenizer and the weights.
    pub fn load_time(&self) -> Duration {
        self.parts.load
    }

    /// Puts something between the engine and the model, a stopwatch for one.
    pub fn wrap(mut self, with: impl FnOnce(Box<dyn Forward>) -> Box<dyn Forward>) -> Self {
        self.parts.model = with(self.parts.model);
        self
    }

    /// Starts an engine on the model.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) when its thread does not start.
    pub fn into_engine(self) -> Result<Engine> {
        Engine::start(self.parts, self.policy)
    }
}
