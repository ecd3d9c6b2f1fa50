//! Time to encode a megabyte of text: prose, and what has made tokenizers slow (one line of one letter, of spaces, of
//! Chinese). Throughput is printed. The published vocabularies of `../shared/data` are measured where they are, the
//! demo's where they are not.

use std::hint::black_box;
use std::path::PathBuf;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use phicandle::tokenizer::Tokenizer;

/// Bytes of each text, or a few less.
const SIZE: usize = 1 << 20;

fn texts() -> [(&'static str, String); 6] {
    let fill = |unit: &str| unit.repeat(SIZE / unit.len());
    let mut number = 1u32;
    let mut chinese = String::new();
    while chinese.len() + 3 <= SIZE {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        chinese.extend(char::from_u32(0x4E00 + (number >> 16) % 20_000));
    }
    [
        (
            "prose",
            fill("It's 1st and 10; the puck slides, café lights blink, and (of course) nobody says so.\n\n"),
        ),
        ("code", fill("    for (int i = 0; i < count; ++i) {\n\t\tsum += values[i] * 0x1F; // sum\n    }\n")),
        ("one_letter", fill("a")),
        ("spaces", fill(" ")),
        ("chinese", chinese),
        ("one_sign", fill("語")),
    ]
}

fn encode(criterion: &mut Criterion) {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let published =
        ["phi-3-vocab.gguf", "gpt-2-vocab.gguf"].map(|name| root.join("../shared/data").join(name));
    let mut files: Vec<PathBuf> = published.into_iter().filter(|path| path.exists()).collect();
    if files.is_empty() {
        files.push(root.join("python/phicandle/demo.gguf"));
    }
    for file in files {
        let Ok(tokenizer) = Tokenizer::from_file(&file) else { continue };
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut group = criterion.benchmark_group(format!("encode_{name}"));
        group.sample_size(10);
        for (kind, text) in texts() {
            group.throughput(Throughput::Bytes(text.len() as u64));
            group.bench_function(BenchmarkId::from_parameter(kind), |bencher| {
                bencher.iter(|| tokenizer.encode(black_box(&text), Some(false)));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, encode);
criterion_main!(benches);
