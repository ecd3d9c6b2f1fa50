//! The `candle` backend: candle-transformers' own models, as the tutorial uses them.
//!
//! The reference on CPU, and the way to CUDA and Metal. What these models leave out is refused in [`limits`].

mod content;
mod error;
mod joined;
mod limits;
mod plan;

use candle_core::{DType, Tensor};
use candle_transformers::models::{quantized_llama, quantized_phi3};

use joined::Joined;

use super::{Batch, BlockCache, Device, Factors, Forward, Limits, Logits, MemoryPlan, Run};
use crate::error::{Error, Result};
use crate::gguf::{Architecture, GgufFile, ModelPlan};

/// A model of candle-transformers with one sequence in it.
pub struct CandleBackend {
    /// The weights with empty caches. Each sequence starts from a clone, which shares the weights: the models keep keys,
    /// values and every mask they ever made inside themselves, and this is the one way to drop them.
    blank: Weights,
    /// The sequence in the one slot.
    sequence: Option<Sequence>,
    device: candle_core::Device,
    limits: Limits,
    /// Bytes of keys and values per token.
    kv_token_bytes: u64,
    /// Whether the full context is allocated with the first token.
    kv_in_full: bool,
}

#[derive(Clone)]
enum Weights {
    Phi3(quantized_phi3::ModelWeights),
    Llama(quantized_llama::ModelWeights),
}

/// Tokens of the pass that [`warm_up`] makes: more than one, as Candle lays weights out anew for several rows.
const WARM_UP_TOKENS: usize = 8;

impl Weights {
    fn forward(
        &mut self,
        tokens: &[u32],
        start: usize,
        device: &candle_core::Device,
    ) -> candle_core::Result<Tensor> {
        let input = Tensor::new(tokens, device)?.unsqueeze(0)?;
        match self {
            Self::Phi3(weights) => weights.forward(&input, start),
            Self::Llama(weights) => weights.forward(&input, start),
        }
    }
}

/// Makes one pass and drops what it computed. Candle copies weights into another layout in their first pass, which takes
/// seconds for a large model and cannot be interrupted: that belongs to loading, not to somebody's first answer.
fn warm_up(blank: &Weights, device: &candle_core::Device, tokens: usize) -> Result<()> {
    blank.clone().forward(&vec![0; tokens], 0, device)?;
    Ok(())
}

struct Sequence {
    weights: Weights,
    len: usize,
}

impl CandleBackend {
    /// Reads the weights of a validated file onto `device`, for sequences of at most `context_length` tokens.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedModel`](crate::ErrorKind::UnsupportedModel) for a file that these models would run wrongly,
    /// [`ErrorKind::CorruptModel`](crate::ErrorKind::CorruptModel) for weights that are not numbers,
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) when the device does not open.
    pub fn load(file: &GgufFile, plan: &ModelPlan, device: Device, context_length: usize) -> Result<Self> {
        limits::check(plan, context_length)?;
        content::check_weights(file, plan)?;
        let opened = device.open()?;
        let content = content::content(file.header(), plan, context_length)?;
        let mut reader = Joined::new(file);
        let blank = match plan.architecture {
            Architecture::Phi3 => {
                Weights::Phi3(quantized_phi3::ModelWeights::from_gguf(false, content, &mut reader, &opened)?)
            }
            Architecture::Llama => {
                Weights::Llama(quantized_llama::ModelWeights::from_gguf(content, &mut reader, &opened)?)
            }
            other => {
                let name = other.name();
                return Err(Error::internal(format!("The candle backend was given a `{name}` model.")));
            }
        };
        let run_tokens = plan::run_tokens(plan, device);
        let limits = Limits {
            slots: 1,
            run_tokens,
            layers: 1,
            context_length,
            kv_tokens: context_length,
            vocab_size: plan.vocab_size,
            original_context: None,
            kept_tokens: None,
            rewinds: false,
            shares: false,
        };
        warm_up(&blank, &opened, context_length.min(WARM_UP_TOKENS))?;
        let kv_token_bytes = plan::kv_token_bytes(plan);
        let kv_in_full = plan.architecture == Architecture::Phi3;
        Ok(Self { blank, sequence: None, device: opened, limits, kv_token_bytes, kv_in_full })
    }

    /// The longest context that this backend runs `plan` right with, in tokens.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedModel`](crate::ErrorKind::UnsupportedModel) when there is none.
    pub fn longest_context(plan: &ModelPlan) -> Result<usize> {
        limits::longest_context(plan)
    }

    /// What this backend would take for `plan` at `context_length`, against what is available now.
    pub fn memory(plan: &ModelPlan, context_length: usize) -> MemoryPlan {
        plan::memory(plan, context_length)
    }

    /// Computes a run. Candle's models give the last row of a pass, so each row that is wanted after the first takes a pass of
    /// its own: the numbers are those of an answer that is written token by token.
    fn run(&mut self, run: &Run, logits: &mut Logits) -> Result<()> {
        if run.slot != 0 || run.tokens.is_empty() || run.depth(1) != (0..1) {
            return Err(Error::internal(format!(
                "The candle backend was given {} tokens for slot {}, layers {:?}.",
                run.tokens.len(),
                run.slot,
                run.depth(1)
            )));
        }
        let (first, others) = run.tokens.split_at((run.logits_from + 1).min(run.tokens.len()));
        let mut start = run.start;
        for tokens in std::iter::once(first).chain(others.chunks(1)) {
            let row = self.pass(tokens, start)?;
            start += tokens.len();
            if run.logit_rows() > 0 {
                write_row(&row, logits)?;
            }
        }
        Ok(())
    }

    /// Computes the next tokens of the sequence, from its beginning when `start` is 0, and gives the row of the last one.
    fn pass(&mut self, tokens: &[u32], start: usize) -> Result<Tensor> {
        if start == 0 {
            self.sequence = Some(Sequence { weights: self.blank.clone(), len: 0 });
        }
        let Some(sequence) = self.sequence.as_mut().filter(|sequence| sequence.len == start) else {
            return Err(Error::internal(format!("The candle backend holds no sequence of {start} tokens.")));
        };
        let output = sequence.weights.forward(tokens, start, &self.device);
        // A pass that failed half-way has appended keys in some layers only.
        match output {
            Ok(row) => {
                sequence.len += tokens.len();
                Ok(row)
            }
            Err(error) => {
                self.sequence = None;
                Err(error.into())
            }
        }
    }
}

/// Copies a row out of Candle.
fn write_row(row: &Tensor, logits: &mut Logits) -> Result<()> {
    let row = row.squeeze(0)?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    let target = logits.push_row();
    if row.len() != target.len() {
        return Err(Error::internal(format!(
            "The model gave {} logits for a vocabulary of {}.",
            row.len(),
            target.len()
        )));
    }
    target.copy_from_slice(&row);
    Ok(())
}

impl Forward for CandleBackend {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn forward(&mut self, batch: &Batch, logits: &mut Logits, _: &dyn Fn() -> bool) -> Result<bool> {
        logits.reset(self.limits.vocab_size);
        for run in &batch.runs {
            self.run(run, logits)?;
        }
        Ok(true)
    }

    fn release(&mut self, slot: usize) {
        if slot == 0 {
            self.sequence = None;
        }
    }

    // Its context ends where the long factors would begin.
    fn forget(&mut self, _: usize, _: Factors) {}

    fn kv_bytes(&self, slot: usize) -> u64 {
        let tokens = match &self.sequence {
            Some(_) if slot == 0 && self.kv_in_full => self.limits.context_length,
            Some(sequence) if slot == 0 => sequence.len,
            _ => 0,
        };
        self.kv_token_bytes * tokens as u64
    }

    fn cache(&mut self) -> Option<&mut dyn BlockCache> {
        None
    }
}
