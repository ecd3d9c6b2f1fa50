//! The demo model's file is what its documents promise: small, honest about itself, and laid out as llama.cpp expects.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's own readers may fail the test")]

use std::collections::BTreeSet;
use std::io::Cursor;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, Value};

const FILE: &[u8] = include_bytes!("../../python/phicandle/demo.gguf");

fn content() -> Content {
    Content::read(&mut Cursor::new(FILE)).unwrap()
}

fn text<'a>(content: &'a Content, key: &str) -> &'a str {
    content.metadata[key].to_string().unwrap()
}

fn strings<'a>(content: &'a Content, key: &str) -> Vec<&'a str> {
    content.metadata[key].to_vec().unwrap().iter().map(|value| value.to_string().unwrap().as_str()).collect()
}

#[test]
fn is_version_3_and_at_most_four_megabytes() {
    assert_eq!(&FILE[..8], b"GGUF\x03\0\0\0");
    assert!(FILE.len() <= 4_000_000, "{} bytes", FILE.len());
}

#[test]
fn says_what_it_is() {
    let content = content();
    assert_eq!(text(&content, "general.architecture"), "phi3");
    assert_eq!(text(&content, "general.license"), "MIT OR Apache-2.0");
    let description = text(&content, "general.description");
    assert!(description.contains("haiku") && description.contains("knows nothing else"), "{description}");
}

#[test]
fn tensors_follow_one_another_without_gaps() {
    let content = content();
    let mut tensors: Vec<_> = content.tensor_infos.values().collect();
    tensors.sort_by_key(|tensor| tensor.offset);
    let mut end = 0;
    for tensor in tensors {
        assert_eq!(tensor.offset, end);
        let blocks = tensor.shape.elem_count() / tensor.ggml_dtype.block_size();
        end = (tensor.offset + (blocks * tensor.ggml_dtype.type_size()) as u64).next_multiple_of(32);
        let expected = if tensor.shape.rank() == 1 { GgmlDType::F32 } else { GgmlDType::Q8_0 };
        assert_eq!(tensor.ggml_dtype, expected);
    }
    assert_eq!(content.tensor_data_offset + end, FILE.len() as u64);
}

#[test]
fn has_all_bytes_and_the_control_tokens_of_phi3() {
    let content = content();
    let tokens = strings(&content, "tokenizer.ggml.tokens");
    let kinds = content.metadata["tokenizer.ggml.token_type"].to_vec().unwrap();
    let scores = content.metadata["tokenizer.ggml.scores"].to_vec().unwrap();
    assert_eq!((tokens.len(), tokens.len()), (kinds.len(), scores.len()));
    assert_eq!(tokens.len(), content.tensor_infos["output.weight"].shape.dims()[0]);
    assert_eq!(tokens.iter().collect::<BTreeSet<_>>().len(), tokens.len(), "no token twice");
    let kind_of = |token: &str| {
        let at = tokens.iter().position(|known| *known == token);
        at.map(|at| kinds[at].to_i32().unwrap())
    };
    for byte in 0..=255u8 {
        assert_eq!(kind_of(&format!("<0x{byte:02X}>")), Some(6));
    }
    for control in ["<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"] {
        assert_eq!(kind_of(control), Some(3), "{control}");
    }
    assert_eq!(kind_of("<unk>"), Some(2));
    let Value::U32(eos) = content.metadata["tokenizer.ggml.eos_token_id"] else { panic!("no end token") };
    assert_eq!(tokens[eos as usize], "<|endoftext|>");
}
