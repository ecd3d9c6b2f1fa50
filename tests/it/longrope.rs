//! A long-rope sequence that is read twice in one slot: with its short factors while it grows, and with the long ones ahead of
//! the end of its original context.

use std::sync::Arc;

use phicandle::gguf::{GgmlType, GgufFile, ModelPlan};
use phicandle::model::native::{NativeBackend, NativeOptions};
use phicandle::model::{Batch, Factors, Forward, KvDtype, Logits, MemoryMode, Run};

use crate::tiny_models::{CONTEXT, Numbers, Shape};

/// No multiple of a block.
const BORDER: usize = 70;
/// Tokens of the sequences.
const LENGTH: usize = 150;

fn load(file: &Arc<GgufFile>, threads: usize) -> NativeBackend {
    let plan = ModelPlan::from_header(file.header()).unwrap();
    let options = NativeOptions {
        isa: None,
        threads: Some(threads),
        memory: MemoryMode::Mmap,
        kv_dtype: KvDtype::F16,
        context_length: CONTEXT,
        slots: 3,
    };
    NativeBackend::load(file, &plan, &options, &|_, _| ()).unwrap()
}

fn forward(model: &mut NativeBackend, runs: Vec<Run>) -> Vec<Vec<u32>> {
    let mut logits = Logits::default();
    assert!(model.forward(&Batch { runs }, &mut logits, &|| false).unwrap());
    logits.rows_mut().map(|row| row.iter().map(|value| value.to_bits()).collect()).collect()
}

/// The bits of all rows of a sequence that is read with `factors` in one run.
fn at_once(model: &mut NativeBackend, tokens: &[u32], factors: Factors) -> Vec<Vec<u32>> {
    let rows = forward(
        model,
        vec![Run { slot: 0, factors, start: 0, tokens: tokens.to_vec(), logits_from: 0, layers: None }],
    );
    model.release(0);
    rows
}

#[test]
fn a_sequence_that_is_read_twice_has_the_bits_of_both_readings() {
    for window in [None, Some(40)] {
        let shape = Shape { original: Some(BORDER as u32), window, ..Shape::of(GgmlType::Q4_K) };
        let folder = tempfile::tempdir().unwrap();
        let file = Arc::new(GgufFile::open(&shape.write(folder.path())).unwrap());
        let tokens = Numbers(3).tokens(LENGTH);
        let mut plain = load(&file, 1);
        assert_eq!(plain.limits().original_context, Some(BORDER));
        let short = at_once(&mut plain, &tokens[..BORDER], Factors::Short);
        let long = at_once(&mut plain, &tokens, Factors::Long);
        assert!(short.iter().zip(&long).skip(1).all(|(short, long)| short != long));
        for (threads, ahead) in [(1, 3), (2, 8), (3, 5)] {
            let mut model = load(&file, threads);
            let mut again = 0;
            for position in 0..LENGTH {
                let factors = model.limits().factors(position + 1);
                let run = |slot, factors, start, end: usize, rows| Run {
                    slot,
                    factors,
                    start,
                    tokens: tokens[start..end].to_vec(),
                    logits_from: end - start - rows,
                    layers: None,
                };
                // A neighbour that reads the same prompt.
                let mut runs = vec![run(0, Factors::Short, position, position + 1, 0)];
                if position < BORDER {
                    runs.push(run(1, factors, position, position + 1, 1));
                    let end = (again + ahead).min(position + 1);
                    if again < end {
                        runs.push(run(1, Factors::Long, again, end, 0));
                        again = end;
                    }
                } else {
                    model.forget(1, Factors::Short);
                    runs.push(run(1, Factors::Long, again, position + 1, 1));
                    again = position + 1;
                }
                let rows = forward(&mut model, runs);
                let expected = if position < BORDER { &short[position] } else { &long[position] };
                assert!(rows == [expected.clone()], "position {position}, {threads} threads, {window:?}");
            }
            let block = model.kv_bytes(1) / if window.is_some() { 2 } else { 3 };
            model.release(1);
            assert_eq!(model.kv_bytes(1), 0);
            assert_eq!(model.kv_bytes(0) % block, 0, "whole blocks");
        }
    }
}
