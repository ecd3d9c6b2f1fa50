//! Any bytes at all, as one file and as the parts of a model: `Header::parse`, `join` and `ModelPlan::from_header` give a typed error or a consistent result, and hold no
//! more memory than they promise.

#![no_main]

// The crate's own sources, without the crate: Candle is not in the way of a header.
#[allow(dead_code, unused_imports)]
#[path = "../../src/error.rs"]
mod error;
#[allow(dead_code, unused_imports)]
#[path = "../../src/gguf/mod.rs"]
mod gguf;

use error::ErrorKind;
use gguf::{Header, ModelPlan};
use libfuzzer_sys::fuzz_target;

/// The files that lie one after the other in `bytes`, each from its magic number on.
fn parts(bytes: &[u8]) -> Vec<&[u8]> {
    let mut starts: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(b"GGUF")).collect();
    starts.push(bytes.len());
    starts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn check_parts(bytes: &[u8]) {
    let parts: Vec<(String, Header)> = parts(bytes)
        .into_iter()
        .take(8)
        .filter_map(|part| Some((part.len().to_string(), Header::parse(part, part.len() as u64).ok()?)))
        .collect();
    let tensors: usize = parts.iter().map(|(_, header)| header.tensors.len()).sum();
    let count = parts.len();
    if count < 2 {
        return;
    }
    match gguf::join(parts) {
        Ok(header) => {
            assert_eq!((header.parts.len(), header.tensors.len()), (count, tensors));
            for tensor in &header.tensors {
                let part = header.parts[tensor.part];
                assert!(part.data_offset + tensor.offset + tensor.n_bytes <= part.file_len);
                assert_eq!(header.tensor(&tensor.name), Some(tensor));
            }
            let _ = ModelPlan::from_header(&header);
        }
        Err(error) => assert!(error.message().len() < 2_000),
    }
}

fuzz_target!(|bytes: &[u8]| {
    check_parts(bytes);
    let header = match Header::parse(bytes, bytes.len() as u64) {
        Ok(header) => header,
        Err(error) => {
            assert!(matches!(
                error.kind(),
                ErrorKind::CorruptModel { .. } | ErrorKind::UnsupportedModel { .. }
            ));
            assert!(error.message().len() < 1_000);
            return;
        }
    };
    let metadata = &header.metadata;
    assert!(metadata.memory_bytes() <= 4 * bytes.len());
    for key in metadata.keys() {
        assert!(metadata.describe(key).chars().count() <= 80 * 8);
        let _ = (metadata.str(key), metadata.u64(key), metadata.f64(key), metadata.bool(key));
        let _ = (metadata.f32s(key), metadata.i32s(key));
        if let Ok(Some(strings)) = metadata.strings(key) {
            let total: usize = strings.iter().map(<[u8]>::len).sum();
            assert!(total + 8 * strings.len() <= bytes.len());
        }
    }
    let mut end = header.parts[0].data_offset;
    for tensor in &header.tensors {
        let start = header.parts[0].data_offset + tensor.offset;
        assert!(start >= end && start % header.alignment == 0);
        end = start + tensor.n_bytes;
        assert!(end <= header.file_len);
        assert_eq!(header.tensor(&tensor.name), Some(tensor));
    }
    if let Ok(plan) = ModelPlan::from_header(&header) {
        assert!(plan.n_head % plan.n_head_kv == 0 && plan.rope.dimension_count <= plan.head_dim);
        assert!(plan.weight_bytes <= header.file_len);
    }
});
