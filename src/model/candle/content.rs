//! A validated header in Candle's terms, so that Candle's own parser never reads the file.

use std::collections::HashMap;

use candle_core::Shape;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, TensorInfo, Value, VersionedMagic};

use super::joined;
use crate::error::{Error, Result};
use crate::gguf::{self, GgmlType, GgufFile, Header, ModelPlan};

/// The header of a file as Candle's loaders want it, with `context_length` in place of the file's: their tables and
/// caches are sized by it.
pub(super) fn content(header: &Header, plan: &ModelPlan, context_length: usize) -> Result<Content> {
    let tensor_infos = header
        .tensors
        .iter()
        .filter(|tensor| !plan.extra_tensors.contains(&tensor.name))
        .map(|tensor| {
            // GGUF lists the row length first, Candle last.
            let dims: Vec<usize> =
                tensor.shape.iter().rev().map(|&dim| to_usize(dim, &tensor.name)).collect::<Result<_>>()?;
            let info = TensorInfo {
                ggml_dtype: dtype(tensor.kind).ok_or_else(|| {
                    Error::internal(format!("The candle backend was given a tensor of {}.", tensor.kind))
                })?,
                shape: Shape::from(dims),
                offset: joined::position(header, tensor),
            };
            Ok((tensor.name.clone(), info))
        })
        .collect::<Result<_>>()?;
    Ok(Content {
        magic: VersionedMagic::GgufV3,
        metadata: metadata(plan, context_length)?,
        tensor_infos,
        tensor_data_offset: 0,
    })
}

fn metadata(plan: &ModelPlan, context_length: usize) -> Result<HashMap<String, Value>> {
    let arch = plan.architecture.name();
    let counts = [
        ("attention.head_count", plan.n_head),
        ("attention.head_count_kv", plan.n_head_kv),
        ("block_count", plan.n_layer),
        ("embedding_length", plan.n_embd),
        ("feed_forward_length", plan.n_ff),
        ("context_length", context_length),
        ("rope.dimension_count", plan.rope.dimension_count),
    ];
    let mut metadata = HashMap::new();
    metadata.insert("general.architecture".to_owned(), Value::String(arch.to_owned()));
    for (key, count) in counts {
        let count = u32::try_from(count).map_err(|_| {
            Error::corrupt(
                format!("{arch}.{key}"),
                None,
                format!("The key {arch}.{key} is {count}, past 32 bits."),
            )
        })?;
        metadata.insert(format!("{arch}.{key}"), Value::U32(count));
    }
    metadata.insert(format!("{arch}.attention.layer_norm_rms_epsilon"), Value::F32(plan.norm_eps));
    metadata.insert(format!("{arch}.rope.freq_base"), Value::F32(plan.rope.freq_base));
    Ok(metadata)
}

/// Refuses weights that are not numbers, in the tensors that are used.
pub(super) fn check_weights(file: &GgufFile, plan: &ModelPlan) -> Result<()> {
    let tensors = file.header().tensors.iter();
    for tensor in tensors.filter(|tensor| !plan.extra_tensors.contains(&tensor.name)) {
        if let Some(block) = gguf::check_finite(tensor.kind, file.tensor_bytes(tensor)?) {
            return Err(gguf::not_finite(file, tensor, block));
        }
    }
    Ok(())
}

fn to_usize(dim: u64, tensor: &str) -> Result<usize> {
    usize::try_from(dim).map_err(|_| {
        Error::corrupt(tensor, None, format!("The tensor {tensor} is too large for this machine."))
    })
}

/// Candle's name for a type of weights; `None` when its models do not run on it.
pub(super) fn dtype(kind: GgmlType) -> Option<GgmlDType> {
    Some(match kind {
        GgmlType::F32 => GgmlDType::F32,
        GgmlType::F16 => GgmlDType::F16,
        GgmlType::BF16 => GgmlDType::BF16,
        GgmlType::Q4_0 => GgmlDType::Q4_0,
        GgmlType::Q4_1 => GgmlDType::Q4_1,
        GgmlType::Q5_0 => GgmlDType::Q5_0,
        GgmlType::Q5_1 => GgmlDType::Q5_1,
        GgmlType::Q8_0 => GgmlDType::Q8_0,
        GgmlType::Q2_K => GgmlDType::Q2K,
        GgmlType::Q3_K => GgmlDType::Q3K,
        GgmlType::Q4_K => GgmlDType::Q4K,
        GgmlType::Q5_K => GgmlDType::Q5K,
        GgmlType::Q6_K => GgmlDType::Q6K,
        _ => return None,
    })
}
