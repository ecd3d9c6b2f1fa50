//! The native backend gives the same bits, whatever runs beside it, on however many threads, in whatever pieces.
//!
//! A *cell* is one combination: a tier of instructions, a number of threads, a way to hold the weights, a size of the pieces
//! in which a sequence comes, and the company that it has in each pass. All its rows of logits are compared, bit for bit,
//! with those of the same sequence alone, token by token, in plain Rust on one thread.

use std::cell::Cell;
use std::sync::Arc;

use phicandle::gguf::{GgmlType, GgufFile, ModelPlan};
use phicandle::kernels::{CpuInfo, Isa};
use phicandle::model::native::{NativeBackend, NativeOptions};
use phicandle::model::{Batch, Factors, Forward, KvDtype, Logits, MemoryMode, Run};

use crate::tiny_models::{CONTEXT, LAYERS, Numbers, Shape, VOCABULARY};

/// Tokens of the sequence: past one block of 64 keys, and no multiple of anything.
const LENGTH: usize = 71;
const PIECES: [usize; 8] = [1, 2, 3, 5, 7, 16, 64, LENGTH];
const THREADS: [usize; 3] = [1, 2, 3];
/// Sequences beside the one that is looked at.
const COMPANY: [usize; 3] = [0, 1, 4];

/// Token by token, and alone.
const ALONE: Coming = Coming { piece: 1, company: 0, layered: false };

/// Rows of logits and their positions.
type Rows = Vec<(usize, Vec<u32>)>;

/// How sequences come.
#[derive(Debug, Clone, Copy)]
struct Coming {
    /// Tokens of a piece.
    piece: usize,
    /// Other sequences in each pass.
    company: usize,
    /// Whether pieces pass through the layers in several passes.
    layered: bool,
}

/// Where the pieces are held up in turn.
const HELD: [&[usize]; 4] = [&[1], &[], &[1, 2], &[2]];

/// Runs `tokens` in pieces, and returns the bits of the logits.
///
/// Of each piece the rows from some token on are wanted, from another one each time. The others are out of step: some read a
/// prompt, some write token by token, and each begins anew when it is full.
fn rows(model: &mut dyn Forward, tokens: &[u32], coming: Coming) -> Rows {
    let Coming { piece, company, layered } = coming;
    let mut numbers = Numbers(company as u64);
    let mut lengths = vec![0; company];
    // Runs of the others that wait behind a layer.
    let mut waiting: Vec<Option<Run>> = vec![None; company];
    let (mut logits, mut found) = (Logits::default(), Rows::new());
    let slot = company / 2;
    for (index, part) in tokens.chunks(piece).enumerate() {
        let (start, wanted) = (index * piece, (5 * index) % part.len());
        let held = if layered { HELD[index % 4] } else { &[] };
        let bounds: Vec<usize> = [0].iter().chain(held).chain(&[LAYERS]).copied().collect();
        for (turn, layers) in bounds.windows(2).map(|bound| bound[0]..bound[1]).enumerate() {
            let mut runs: Vec<Run> = Vec::new();
            for (other, (length, waiting)) in lengths.iter_mut().zip(&mut waiting).enumerate() {
                if let Some(run) = waiting.take() {
                    runs.push(Run { layers: Some(1..LAYERS), logits_from: run.tokens.len() - 1, ..run });
                    continue;
                }
                let count = [1, 1, 6, 19][(index + turn + other) % 4];
                if *length + count > CONTEXT {
                    *length = 0;
                }
                let held = layered && count == 19;
                let run = Run {
                    slot: if other < slot { other } else { other + 1 },
                    factors: Factors::Short,
                    start: *length,
                    tokens: numbers.tokens(count),
                    logits_from: if held { count } else { count.saturating_sub((index + other) % 3) },
                    layers: held.then_some(0..1),
                };
                *waiting = held.then(|| run.clone());
                runs.push(run);
                *length += count;
            }
            let is_last = layers.end == LAYERS;
            let run = Run {
                slot,
                factors: Factors::Short,
                start,
                tokens: part.to_vec(),
                logits_from: if is_last { wanted } else { part.len() },
                layers: (layers != (0..LAYERS)).then_some(layers),
            };
            runs.insert(slot, run);
            let before = runs[..slot].iter().map(Run::logit_rows).sum();
            let wanted = runs[slot].logit_rows();
            assert!(model.forward(&Batch { runs }, &mut logits, &|| false).unwrap());
            let rows: Vec<_> = logits.rows_mut().skip(before).take(wanted).collect();
            assert_eq!(rows.len(), wanted);
            for (row, position) in rows.into_iter().zip(start + part.len() - wanted..) {
                found.push((position, row.iter().map(|value| value.to_bits()).collect()));
            }
        }
    }
    for slot in 0..=company {
        model.release(slot);
    }
    found
}

/// The files of the matrix: what they are called, and their shapes.
fn models() -> Vec<(&'static str, Shape)> {
    use GgmlType::*;
    let plain = Shape::of;
    vec![
        ("Q4_K", Shape { qkv: Q5_K, down: Q6_K, output: Some(Q6_K), ..plain(Q4_K) }),
        ("Q8_0", Shape { embd: 160, ff: 224, heads: 5, kv_heads: 1, ..plain(Q8_0) }),
        ("Q4_0 and Q4_1", Shape { architecture: "llama", down: Q4_1, ..plain(Q4_0) }),
        (
            "F16 and BF16",
            Shape {
                up: BF16,
                embd: 72,
                ff: 88,
                heads: 3,
                kv_heads: 3,
                head_dim: 24,
                rope_dim: 16,
                ..plain(F16)
            },
        ),
        (
            "types without tiles",
            Shape { qkv: Q3_K, mixed: Q2_K, up: IQ4_XS, down: Q5_0, output: Some(IQ4_NL), ..plain(Q5_1) },
        ),
        ("phi2 in Q4_K", Shape { architecture: "phi2", kv_heads: 8, rope_dim: 12, ..plain(Q4_K) }),
        (
            "phi2 in F16",
            Shape {
                architecture: "phi2",
                embd: 72,
                ff: 88,
                heads: 3,
                kv_heads: 3,
                head_dim: 24,
                rope_dim: 10,
                ..plain(F16)
            },
        ),
        ("phimoe in Q4_K and Q6_K", Shape { architecture: "phimoe", down: Q6_K, ..plain(Q4_K) }),
        (
            "phimoe in Q8_0 and Q5_0",
            Shape {
                architecture: "phimoe",
                embd: 96,
                ff: 160,
                heads: 3,
                kv_heads: 1,
                up: Q5_0,
                ..plain(Q8_0)
            },
        ),
        (
            "F32, tied, with a window",
            Shape { architecture: "llama", output: None, window: Some(37), ..plain(F32) },
        ),
    ]
}

/// What a model is loaded with in a cell.
#[derive(Debug, Clone, Copy)]
struct Setting {
    isa: Isa,
    threads: usize,
    memory: MemoryMode,
    kv_dtype: KvDtype,
}

fn load(file: &Arc<GgufFile>, setting: Setting) -> Box<dyn Forward> {
    let plan = ModelPlan::from_header(file.header()).unwrap();
    let options = NativeOptions {
        isa: Some(setting.isa),
        threads: Some(setting.threads),
        memory: setting.memory,
        kv_dtype: setting.kv_dtype,
        context_length: CONTEXT,
        slots: COMPANY.into_iter().max().unwrap() + 1,
    };
    Box::new(NativeBackend::load(file, &plan, &options, &|_, _| ()).unwrap())
}

/// Compares all cells of a model with the sequence alone, token by token, in plain Rust on one thread; returns how many.
fn cells(name: &str, shape: &Shape, kv_dtype: KvDtype) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let file = Arc::new(GgufFile::open(&shape.write(folder.path())).unwrap());
    let tokens = Numbers(1).tokens(LENGTH);
    let plainest = Setting { isa: Isa::Scalar, threads: 1, memory: MemoryMode::Mmap, kv_dtype };
    let expected = rows(&mut *load(&file, plainest), &tokens, ALONE);
    assert_eq!(expected.len(), LENGTH);
    assert!(expected.iter().flat_map(|(_, row)| row).all(|&bits| f32::from_bits(bits).is_finite()));
    let mut count = 0;
    for &isa in &CpuInfo::detect().unwrap().tiers {
        // Plain Rust is sixty times slower, and is what all the others are compared with already.
        let (threads, company, pieces) = match isa {
            Isa::Scalar => (&[1, 3][..], &[0, 1][..], &[5, LENGTH][..]),
            _ => (&THREADS[..], &COMPANY[..], &PIECES[..]),
        };
        for &threads in threads {
            for memory in [MemoryMode::Repack, MemoryMode::Mmap] {
                let setting = Setting { isa, threads, memory, kv_dtype };
                let mut model = load(&file, setting);
                for &company in company {
                    for &piece in pieces {
                        for layered in [false, true] {
                            if layered && ![5, 64].contains(&piece) {
                                continue;
                            }
                            let coming = Coming { piece, company, layered };
                            for (position, row) in rows(&mut *model, &tokens, coming) {
                                assert_eq!(row.len(), VOCABULARY);
                                assert!(
                                    row == expected[position].1,
                                    "{name}: other bits at position {position}, {coming:?}, {setting:?}"
                                );
                            }
                            count += 1;
                        }
                    }
                }
            }
        }
    }
    count
}

#[test]
fn logits_are_the_same_bits_in_every_cell() {
    let mut total = 0;
    for (name, shape) in models() {
        let count = cells(name, &shape, KvDtype::F16);
        println!("{name}: {count} cells");
        total += count;
    }
    let (_, shape) = models()[1];
    let count = cells("8-bit keys and values", &shape, KvDtype::Q8);
    println!("8-bit keys and values: {count} cells");
    total += count;
    println!("determinism matrix: {total} cells, bit for bit");
}

#[test]
fn a_pass_stopped_anywhere_leaves_nothing_behind() {
    const HALF: usize = LENGTH / 2;
    let mut stopped = 0;
    for (name, shape) in models() {
        let folder = tempfile::tempdir().unwrap();
        let file = Arc::new(GgufFile::open(&shape.write(folder.path())).unwrap());
        let tokens = Numbers(1).tokens(LENGTH);
        let isa = *CpuInfo::detect().unwrap().tiers.last().unwrap();
        let setting = Setting { isa, threads: 2, memory: MemoryMode::Repack, kv_dtype: KvDtype::F16 };
        let mut model = load(&file, setting);
        let mut logits = Logits::default();
        // The second half of the sequence, in two passes, of which one is stopped at a question; the bits of its last row
        // otherwise.
        let mut second = |questions: usize| {
            let asked = Cell::new(0);
            let runs = [(0..HALF, 0..LAYERS), (HALF..LENGTH, 0..1), (HALF..LENGTH, 1..LAYERS)];
            for (range, layers) in runs {
                let (start, end) = (range.start, layers.end);
                let run = Run {
                    slot: 0,
                    factors: Factors::Short,
                    start,
                    logits_from: range.len() - usize::from(end == LAYERS),
                    tokens: tokens[range].to_vec(),
                    layers: Some(layers),
                };
                let stop = || start > 0 && asked.replace(asked.get() + 1) == questions;
                let batch = Batch { runs: vec![run] };
                if !model.forward(&batch, &mut logits, &stop).unwrap() {
                    assert_eq!(asked.get(), questions + 1, "{name}: nothing is asked after a stop");
                    if end < LAYERS {
                        return None;
                    }
                    // What waits is as it was: it may go on.
                    assert!(model.forward(&batch, &mut logits, &|| false).unwrap());
                }
            }
            let bits = |row: &mut [f32]| row.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            logits.rows_mut().next().map(|row| (bits(row), asked.get() > questions))
        };
        let (expected, _) = second(usize::MAX).unwrap();
        for questions in 0.. {
            let found = second(questions);
            let was_stopped = found.as_ref().is_none_or(|(_, was_stopped)| *was_stopped);
            for (row, _) in found.into_iter().chain(second(usize::MAX)) {
                assert!(row == expected, "{name}: other bits after a stop at question {questions}");
            }
            if !was_stopped {
                break;
            }
            stopped += 1;
        }
    }
    assert!(stopped > 100, "{stopped}");
    println!("{stopped} passes were stopped");
}
