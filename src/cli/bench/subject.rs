//! The model that is measured.

use serde_json::{Value, json};

use super::work::Work;
use crate::engine::{Backend, ModelSource};
use crate::error::Result;
use crate::gguf::{GgmlType, GgufFile, ModelPlan};

/// Facts about the model, from its header.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) architecture: &'static str,
    pub(super) parameters: u64,
    pub(super) file_bytes: u64,
    pub(super) work: Work,
    types: Vec<(GgmlType, usize, u64)>,
    file: String,
}

impl Subject {
    /// # Errors
    /// Those of the file's header.
    pub(super) fn new(source: &ModelSource, backend: Backend) -> Result<Self> {
        let file = match source {
            ModelSource::File(path) => GgufFile::open(path)?,
            ModelSource::Static(name, bytes) => GgufFile::from_static(name, bytes)?,
        };
        let header = file.header();
        let plan = ModelPlan::from_header(header)?;
        Ok(Self {
            name: plan.name.clone().unwrap_or_else(|| file.name().to_owned()),
            architecture: plan.architecture.name(),
            parameters: plan.parameters,
            file_bytes: header.file_len,
            work: Work::new(&header.tensors, &plan, kv_element_bytes(backend)),
            file: file.name().to_owned(),
            types: plan.type_mix,
        })
    }

    pub(super) fn json(&self) -> Value {
        let types = self.types.iter();
        json!({
            "name": self.name,
            "file": self.file,
            "architecture": self.architecture,
            "parameters": self.parameters,
            "file_bytes": self.file_bytes,
            "types": types
                .map(|(kind, tensors, bytes)| json!({ "type": kind.name(), "tensors": tensors, "bytes": bytes }))
                .collect::<Vec<_>>(),
            "weight_bytes_per_pass": self.work.weight_bytes,
            "kv_bytes_per_token": self.work.kv_token_bytes,
            "ops_per_token": self.work.ops_per_token(),
        })
    }
}

/// Bytes of one number of a key or value.
fn kv_element_bytes(backend: Backend) -> u64 {
    match backend {
        // candle-transformers keeps them in f32.
        Backend::Auto | Backend::Candle => 4,
    }
}
