//! Any bytes at all: `Header::parse` and `ModelPlan::from_header` give a typed error or a consistent result, and hold no
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

fuzz_target!(|bytes: &[u8]| {
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
    let mut end = header.data_offset;
    for tensor in &header.tensors {
        let start = header.data_offset + tensor.offset;
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
