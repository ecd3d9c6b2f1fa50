//! The same weights in other files: in parts, in version 2 of the format, beyond 4 GiB. The bits of the logits stay.

use std::path::Path;
use std::sync::Arc;

use phicandle::gguf::{GgmlType, GgufFile, ModelPlan};
use phicandle::model::native::{NativeBackend, NativeOptions};
use phicandle::model::{Batch, CandleBackend, Device, Factors, Forward, KvDtype, Logits, MemoryMode, Run};
use phicandle::{Error, ErrorKind};

use crate::tiny_models::{Numbers, Shape};

const CONTEXT: usize = 64;

fn open(path: &Path) -> (Arc<GgufFile>, ModelPlan) {
    let file = GgufFile::open(path).unwrap();
    let plan = ModelPlan::from_header(file.header()).unwrap();
    (Arc::new(file), plan)
}

fn native(path: &Path, memory: MemoryMode) -> Box<dyn Forward> {
    let (file, plan) = open(path);
    let options = NativeOptions {
        isa: None,
        threads: Some(1),
        memory,
        kv_dtype: KvDtype::F16,
        context_length: CONTEXT,
        slots: 1,
    };
    Box::new(NativeBackend::load(&file, &plan, &options, &|_, _| ()).unwrap())
}

fn candle(path: &Path) -> Box<dyn Forward> {
    let (file, plan) = open(path);
    Box::new(CandleBackend::load(&file, &plan, Device::Cpu, CONTEXT).unwrap())
}

/// The bits of the logits after some tokens.
fn bits(mut model: Box<dyn Forward>) -> Vec<u32> {
    let run = Run {
        slot: 0,
        factors: Factors::Short,
        start: 0,
        tokens: Numbers(3).tokens(9),
        logits_from: 8,
        layers: None,
    };
    let mut logits = Logits::default();
    assert!(model.forward(&Batch { runs: vec![run] }, &mut logits, &|| false).unwrap());
    let row: Vec<u32> = logits.rows_mut().next().unwrap().iter().map(|value| value.to_bits()).collect();
    assert!(row.iter().any(|&bits| f32::from_bits(bits) != 0.0));
    row
}

/// Compares a file with the whole one, on both backends and in both memory modes.
fn same_bits(whole: &Path, other: &Path) {
    for memory in [MemoryMode::Repack, MemoryMode::Mmap] {
        assert_eq!(bits(native(whole, memory)), bits(native(other, memory)), "{other:?}, {memory:?}");
    }
    assert_eq!(bits(candle(whole)), bits(candle(other)), "{other:?}, candle");
}

fn shapes() -> [Shape; 3] {
    let llama = Shape { architecture: "llama", ..Shape::of(GgmlType::Q8_0) };
    [Shape::of(GgmlType::Q4_K), Shape { output: None, ..llama }, Shape::of(GgmlType::F16)]
}

#[test]
fn a_model_in_parts_computes_the_bits_of_the_whole_one() {
    for shape in shapes() {
        let folder = tempfile::tempdir().unwrap();
        let whole = shape.write(folder.path());
        let parts = shape.write_parts(folder.path(), 3);
        // Any part leads to the others.
        for part in &parts {
            same_bits(&whole, part);
        }
        let (joined, plan) = open(&parts[1]);
        let (file, same) = open(&whole);
        assert_eq!(plan, same);
        assert_eq!(joined.header().parts.len(), 3);
        let bytes = parts.iter().map(|part| std::fs::metadata(part).unwrap().len()).sum::<u64>();
        assert_eq!(joined.header().file_len, bytes);
        for tensor in &file.header().tensors {
            let other = joined.header().tensor(&tensor.name).unwrap();
            assert_eq!(file.tensor_bytes(tensor).unwrap(), joined.tensor_bytes(other).unwrap());
        }
    }
}

#[test]
fn a_missing_part_is_named_with_the_part_that_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    let parts = shapes()[0].write_parts(folder.path(), 3);
    std::fs::remove_file(&parts[2]).unwrap();
    let error: Error = GgufFile::open(&parts[0]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ModelNotFound { .. }), "{error:?}");
    for name in ["model-00001-of-00003.gguf", "model-00003-of-00003.gguf"] {
        assert!(error.message().contains(name), "{error}");
    }
}

#[test]
fn versions_2_and_3_hold_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for shape in shapes() {
        same_bits(&shape.write(folder.path()), &shape.write_v2(folder.path()));
    }
}

#[test]
fn weights_beyond_4_gib_are_found() {
    const HOLE: u64 = (4 << 30) + 4096;
    let folder = tempfile::tempdir().unwrap();
    let shape = shapes()[0];
    let whole = shape.write(folder.path());
    let far = match shape.write_behind_hole(folder.path(), HOLE) {
        Ok(path) => path,
        Err(error) => {
            println!("SKIPPED: a file of 4 GiB, most of it a hole, could not be written here: {error}");
            return;
        }
    };
    let (file, plan) = open(&far);
    assert_eq!(plan.extra_tensors, ["padding.weight"]);
    let last = file.header().tensors.last().unwrap();
    assert!(last.offset > u64::from(u32::MAX));
    same_bits(&whole, &far);
}
