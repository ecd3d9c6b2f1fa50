//! The trained network as a GGUF file of version 3 that `quantized_phi3` runs.

use std::io::Cursor;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Result, Tensor};

use crate::network::{Network, RMS_EPS, ROPE_BASE};
use crate::vocabulary::Vocabulary;

/// The longest conversation, in tokens.
const CONTEXT: u32 = 1024;

/// What the logits are multiplied with. The choices between lines are even ones, so this leaves them open; what it
/// takes away is the small chance of an accident in the middle of a line at temperature 1.
const SHARPNESS: f64 = 2.24;

/// Phi-3's chat format.
const TEMPLATE: &str = "{% for message in messages %}\
{% if message['role'] == 'system' and message['content'] %}{{ '<|system|>\\n' + message['content'] + '<|end|>\\n' }}\
{% elif message['role'] == 'user' %}{{ '<|user|>\\n' + message['content'] + '<|end|>\\n' }}\
{% elif message['role'] == 'assistant' %}{{ '<|assistant|>\\n' + message['content'] + '<|end|>\\n' }}\
{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}";

const DESCRIPTION: &str = "A very small model in the shape of Phi-3, trained from nothing by phicandle's examples/train_demo \
on a grammar of haiku written for it. It writes a haiku of 5-7-5 syllables about the subject it is given. It knows \
nothing else: no facts, no languages, no conversation. It is not a Microsoft model and has none of Phi-3's weights.";

/// The bytes of the file.
pub(crate) fn gguf(network: &Network, vocabulary: &Vocabulary) -> Result<Vec<u8>> {
    let metadata = metadata(network, vocabulary);
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors = tensors(network)?;
    let tensors: Vec<(&str, &QTensor)> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut file = Cursor::new(Vec::new());
    gguf_file::write(&mut file, &metadata, &tensors)?;
    let mut bytes = file.into_inner();
    // Candle writes version 2. Version 3 is the same layout, and what other readers expect.
    bytes[4..8].copy_from_slice(&3u32.to_le_bytes());
    Ok(bytes)
}

fn metadata(network: &Network, vocabulary: &Vocabulary) -> Vec<(&'static str, Value)> {
    let text = |text: &str| Value::String(text.to_owned());
    let number = |n: usize| Value::U32(n as u32);
    let sizes = network.sizes;
    let tokens = vocabulary.tokens();
    vec![
        ("general.architecture", text("phi3")),
        ("general.name", text("phicandle demo (haiku only)")),
        ("general.description", text(DESCRIPTION)),
        ("general.license", text("MIT OR Apache-2.0")),
        ("general.alignment", Value::U32(32)),
        ("general.file_type", Value::U32(7)),
        ("general.quantization_version", Value::U32(2)),
        ("phi3.context_length", Value::U32(CONTEXT)),
        ("phi3.embedding_length", number(sizes.width)),
        ("phi3.feed_forward_length", number(sizes.hidden)),
        ("phi3.block_count", number(sizes.layers)),
        ("phi3.attention.head_count", number(sizes.heads)),
        ("phi3.attention.head_count_kv", number(sizes.heads)),
        ("phi3.attention.layer_norm_rms_epsilon", Value::F32(RMS_EPS as f32)),
        ("phi3.rope.dimension_count", number(sizes.width / sizes.heads)),
        ("phi3.rope.freq_base", Value::F32(ROPE_BASE)),
        ("phi3.vocab_size", number(tokens.len())),
        ("tokenizer.ggml.model", text("llama")),
        ("tokenizer.ggml.pre", text("default")),
        ("tokenizer.ggml.tokens", Value::Array(tokens.iter().map(|token| text(&token.text)).collect())),
        ("tokenizer.ggml.scores", Value::Array(tokens.iter().map(|token| Value::F32(token.score)).collect())),
        (
            "tokenizer.ggml.token_type",
            Value::Array(tokens.iter().map(|token| Value::I32(token.kind as i32)).collect()),
        ),
        ("tokenizer.ggml.bos_token_id", Value::U32(vocabulary.control("<s>"))),
        ("tokenizer.ggml.eos_token_id", Value::U32(vocabulary.control("<|endoftext|>"))),
        ("tokenizer.ggml.unknown_token_id", Value::U32(vocabulary.control("<unk>"))),
        ("tokenizer.ggml.padding_token_id", Value::U32(vocabulary.control("<|endoftext|>"))),
        ("tokenizer.ggml.add_bos_token", Value::Bool(true)),
        ("tokenizer.ggml.add_eos_token", Value::Bool(false)),
        ("tokenizer.ggml.add_space_prefix", Value::Bool(true)),
        ("tokenizer.chat_template", text(TEMPLATE)),
    ]
}

/// The tensors by llama.cpp's names. Query, key and value are one matrix, and so are gate and up.
fn tensors(network: &Network) -> Result<Vec<(String, QTensor)>> {
    let matrix = |parts: &[&Tensor]| -> Result<QTensor> {
        let rows = Tensor::cat(parts, 1)?.t()?.contiguous()?;
        QTensor::quantize(&rows, GgmlDType::Q8_0)
    };
    let vector = |tensor: &Tensor| QTensor::quantize(tensor, GgmlDType::F32);
    let embedding = QTensor::quantize(network.embedding.as_tensor(), GgmlDType::Q8_0)?;
    let mut tensors = vec![("token_embd.weight".to_owned(), embedding)];
    for (i, layer) in network.layers.iter().enumerate() {
        let mut add = |name: &str, tensor: QTensor| tensors.push((format!("blk.{i}.{name}.weight"), tensor));
        add("attn_norm", vector(&layer.attn_norm)?);
        add("attn_qkv", matrix(&[&layer.query, &layer.key, &layer.value])?);
        add("attn_output", matrix(&[&layer.attn_output])?);
        add("ffn_norm", vector(&layer.ffn_norm)?);
        add("ffn_up", matrix(&[&layer.gate, &layer.up])?);
        add("ffn_down", matrix(&[&layer.down])?);
    }
    tensors.push(("output_norm.weight".to_owned(), vector(&network.output_norm)?));
    let output = (network.output.as_tensor() * SHARPNESS)?;
    tensors.push(("output.weight".to_owned(), matrix(&[&output])?));
    Ok(tensors)
}
