//! The model that is measured.

use serde_json::{Value, json};

use super::work::{Work, kv_token_bytes};
use crate::engine::ModelSource;
use crate::error::Result;
use crate::gguf::ModelPlan;
use crate::model::KvDtype;

/// Facts about the model, from its header.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) plan: ModelPlan,
    pub(super) file_bytes: u64,
    pub(super) work: Work,
    file: String,
}

impl Subject {
    /// # Errors
    /// Those of the file's header.
    pub(super) fn new(source: &ModelSource) -> Result<Self> {
        let file = source.open()?;
        let header = file.header();
        let plan = ModelPlan::from_header(header)?;
        Ok(Self {
            name: plan.name.clone().unwrap_or_else(|| file.name().to_owned()),
            file_bytes: header.file_len,
            work: Work::new(&header.tensors, &plan),
            file: file.name().to_owned(),
            plan,
        })
    }

    /// Notes how keys and values are kept, which is known once the model is loaded.
    pub(super) fn keep(&mut self, backend: &str, kv_dtype: KvDtype) {
        self.work.kv_token_bytes = kv_token_bytes(&self.plan, backend, kv_dtype);
    }

    pub(super) fn json(&self) -> Value {
        let types = self.plan.type_mix.iter();
        json!({
            "name": self.name,
            "file": self.file,
            "architecture": self.plan.architecture.name(),
            "parameters": self.plan.parameters,
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
