//! What the engine knows of a text, saved to a file and loaded again, by another process or on another day.

use std::path::Path;
use std::sync::OnceLock;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::Engine;
use super::errand::Errand;
use super::kv_file::{self, Fingerprint};
use super::options::{LoadOptions, ModelSource};
use super::worker::Order;
use crate::error::{Error, ErrorKind, Result};
use crate::gguf::ModelPlan;

/// What the keys and values of a loaded model depend on.
pub(super) struct Identity {
    source: ModelSource,
    /// When the file was last written, and its size, at the time of loading.
    stamp: Option<(SystemTime, u64)>,
    /// How the model is read, beside its file.
    settings: String,
    /// Found when it is asked for: reading all of a large file takes seconds.
    fingerprint: OnceLock<Fingerprint>,
}

impl Identity {
    /// That of a model loaded as `options` say.
    pub(super) fn new(options: &LoadOptions, plan: &ModelPlan) -> Self {
        Self {
            stamp: stamp(&options.source),
            source: options.source.clone(),
            settings: format!("kv {} window {:?}", options.kv_dtype.name(), plan.sliding_window),
            fingerprint: OnceLock::new(),
        }
    }

    /// The SHA-256 of the model's files and of how they are read.
    fn fingerprint(&self) -> Result<&Fingerprint> {
        if let Some(known) = self.fingerprint.get() {
            return Ok(known);
        }
        let file = self.source.open()?;
        if stamp(&self.source) != self.stamp {
            return Err(Error::new(
                ErrorKind::ModelRead,
                format!("The model file `{}` was changed after it was loaded.", file.name()),
                "Make a new Generator, so that keys and values are bound to the file as it is now.",
            ));
        }
        let mut hash = Sha256::new();
        for part in (0..).map(|part| file.part_bytes(part)).take_while(|part| !part.is_empty()) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(&self.settings);
        Ok(self.fingerprint.get_or_init(|| hash.finalize().into()))
    }
}

fn stamp(source: &ModelSource) -> Option<(SystemTime, u64)> {
    let ModelSource::File(path) = source else { return None };
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

impl Engine {
    /// Saves the keys and values of the longest beginning of `tokens` that the engine knows to the file `path`: how many tokens
    /// that is. Where it knows nothing, no file is written. The file is bound to the model's file, by its SHA-256, and to the
    /// options that its keys and values depend on; it takes about as many bytes as
    /// [`MemoryPlan::kv_bytes`](crate::model::MemoryPlan::kv_bytes) says for so many tokens.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameter`] for tokens that are none or a path that cannot be written to, [`ErrorKind::ModelRead`] when
    /// the model's file was changed, [`ErrorKind::Closed`], [`ErrorKind::Fork`].
    pub fn save_prefix(&self, tokens: &[u32], path: &Path) -> Result<usize> {
        self.inner.check_alive()?;
        self.inner.check_ids("tokens", tokens)?;
        let (errand, found) = Errand::find(tokens);
        self.inner.send(Order::Errand(errand))?;
        let (factors, prefix) = found.recv().map_err(|_| self.inner.gone())?;
        if prefix.len > 0 {
            let fingerprint = self.inner.identity.fingerprint()?;
            kv_file::write(path, fingerprint, factors, &tokens[..prefix.len], &prefix.blocks)?;
        }
        Ok(prefix.len)
    }

    /// Loads keys and values that [`Engine::save_prefix`] saved, as far as there is memory for them, so that a prompt which begins
    /// like their text is not computed anew: how many tokens that is.
    ///
    /// # Errors
    /// [`ErrorKind::ModelRead`], [`ErrorKind::CorruptModel`] for a file that is none or was damaged, [`ErrorKind::InvalidParameter`]
    /// for one of another model, [`ErrorKind::Closed`], [`ErrorKind::Fork`].
    pub fn load_prefix(&self, path: &Path) -> Result<usize> {
        self.inner.check_alive()?;
        let fingerprint = self.inner.identity.fingerprint()?;
        let mut loaded = 0;
        kv_file::read(path, fingerprint, |head, end, bytes| {
            self.inner.check_ids("path", &head.text)?;
            let (errand, learnt) = Errand::learn(head.factors, &head.text, end, bytes);
            self.inner.send(Order::Errand(errand))?;
            let kept = learnt.recv().map_err(|_| self.inner.gone())??;
            loaded = if kept { end } else { loaded };
            Ok(kept)
        })?;
        Ok(loaded)
    }
}
