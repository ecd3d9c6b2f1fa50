//! Tests of the reader against files written here, byte by byte.

mod architectures;
mod contradictions;
mod split;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::error::{Error, ErrorKind, Result};

/// Writes a GGUF file as the specification says, with no check of any kind.
#[derive(Clone, Default)]
struct Writer {
    pairs: Vec<Vec<u8>>,
    tensors: Vec<(String, Vec<u64>, GgmlType)>,
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat()
}

impl Writer {
    fn pair(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.pairs.push([&text(key)[..], &kind.to_le_bytes(), value].concat());
        self
    }

    fn array(self, key: &str, element: u32, count: u64, data: &[u8]) -> Self {
        let value = [&element.to_le_bytes()[..], &count.to_le_bytes(), data].concat();
        self.pair(key, 9, &value)
    }

    fn u32(self, key: &str, value: u32) -> Self {
        self.pair(key, 4, &value.to_le_bytes())
    }

    fn f32(self, key: &str, value: f32) -> Self {
        self.pair(key, 6, &value.to_le_bytes())
    }

    fn str(self, key: &str, value: &str) -> Self {
        self.pair(key, 8, &text(value))
    }

    fn without(mut self, key: &str) -> Self {
        self.pairs.retain(|pair| !pair.starts_with(&text(key)));
        self
    }

    fn tensor(mut self, name: &str, shape: &[u64], kind: GgmlType) -> Self {
        self.tensors.push((name.to_owned(), shape.to_vec(), kind));
        self
    }

    /// The header, and how many bytes of data follow it (padding before them included).
    fn header(&self) -> (Vec<u8>, usize) {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.pairs.len() as u64).to_le_bytes());
        bytes.extend(self.pairs.concat());
        let mut offset = 0u64;
        for (name, shape, kind) in &self.tensors {
            bytes.extend(text(name));
            bytes.extend((shape.len() as u32).to_le_bytes());
            bytes.extend(shape.iter().flat_map(|dim| dim.to_le_bytes()));
            bytes.extend((*kind as u32).to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            let elements = shape.iter().fold(1, |product: u64, &dim| product.wrapping_mul(dim));
            let size = elements / kind.block_size() as u64 * kind.type_size() as u64;
            offset += size.next_multiple_of(32);
        }
        let padding = bytes.len().next_multiple_of(32) - bytes.len();
        (bytes, padding + offset as usize)
    }

    fn file(&self) -> Vec<u8> {
        let (mut bytes, data) = self.header();
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn read(&self) -> Result<Header> {
        let bytes = self.file();
        Header::parse(&bytes, bytes.len() as u64)
    }

    fn plan(&self) -> Result<ModelPlan> {
        ModelPlan::from_header(&self.read()?)
    }
}

/// A whole `phi3` model of one layer: 2 heads of 16, 1 of them for keys, 40 tokens.
fn phi3() -> Writer {
    let tokens: Vec<u8> = (0..40).flat_map(|id| text(&format!("<{id}>"))).collect();
    let mut writer = Writer::default()
        .str("general.architecture", "phi3")
        .str("general.name", "tiny")
        .u32("phi3.block_count", 1)
        .u32("phi3.embedding_length", 32)
        .u32("phi3.attention.head_count", 2)
        .u32("phi3.attention.head_count_kv", 1)
        .u32("phi3.feed_forward_length", 64)
        .u32("phi3.context_length", 128)
        .u32("phi3.rope.dimension_count", 16)
        .f32("phi3.attention.layer_norm_rms_epsilon", 1e-5)
        .str("tokenizer.ggml.model", "llama")
        .array("tokenizer.ggml.tokens", 8, 40, &tokens)
        .array("tokenizer.ggml.scores", 6, 40, &[0; 160])
        .u32("tokenizer.ggml.eos_token_id", 39)
        .pair("tokenizer.ggml.add_bos_token", 7, &[1]);
    for (name, shape, kind) in [
        ("token_embd.weight", &[32, 40][..], GgmlType::Q8_0),
        ("blk.0.attn_norm.weight", &[32], GgmlType::F32),
        ("blk.0.attn_qkv.weight", &[32, 64], GgmlType::Q4_0),
        ("blk.0.attn_output.weight", &[32, 32], GgmlType::Q8_0),
        ("blk.0.ffn_norm.weight", &[32], GgmlType::F32),
        ("blk.0.ffn_up.weight", &[32, 128], GgmlType::F16),
        ("blk.0.ffn_down.weight", &[64, 32], GgmlType::BF16),
        ("output_norm.weight", &[32], GgmlType::F32),
        ("output.weight", &[32, 40], GgmlType::Q8_0),
    ] {
        writer = writer.tensor(name, shape, kind);
    }
    writer
}

fn message(result: Result<impl std::fmt::Debug>) -> String {
    result.expect_err("refused").message().to_owned()
}

fn place(error: &Error) -> &str {
    match error.kind() {
        ErrorKind::CorruptModel { place: Some(place), .. } => place,
        kind => panic!("not CorruptModel with a place: {kind:?}"),
    }
}

#[test]
fn a_whole_model_is_described() {
    let plan = phi3().plan().expect("valid");
    assert_eq!(plan.architecture, Architecture::Phi3);
    assert_eq!(plan.name.as_deref(), Some("tiny"));
    assert_eq!((plan.n_layer, plan.n_embd, plan.n_head, plan.n_head_kv), (1, 32, 2, 1));
    assert_eq!((plan.head_dim, plan.n_ff, plan.context_length, plan.vocab_size), (16, 64, 128, 40));
    assert_eq!(plan.norm_eps, 1e-5);
    let rope = RopePlan {
        dimension_count: 16,
        freq_base: 10_000.0,
        scaling: RopeScaling::None,
        frequency_factors: false,
    };
    assert_eq!(plan.rope, rope);
    assert_eq!(
        (plan.sliding_window, plan.tied_embeddings, plan.biases, plan.n_expert),
        (None, false, false, 0)
    );
    // 40 x 32 twice, 32 x 64, 32 x 32, 32 x 128, 64 x 32, and three norms of 32.
    assert_eq!(plan.parameters, 2_560 + 2_048 + 1_024 + 4_096 + 2_048 + 96);
    assert_eq!(plan.weight_bytes, 2 * 1_360 + 1_152 + 1_088 + 8_192 + 4_096 + 384);
    assert_eq!(plan.type_mix[0], (GgmlType::F16, 1, 8_192));
    assert_eq!(plan.type_mix.iter().map(|&(_, count, _)| count).sum::<usize>(), 9);
    assert!(plan.extra_tensors.is_empty());
}

#[test]
fn typed_getters_read_each_type_and_name_the_key_otherwise() {
    let header = Writer::default()
        .pair("a.i8", 1, &[0x85])
        .pair("a.u16", 2, &[1, 2])
        .pair("a.i64", 11, &5i64.to_le_bytes())
        .pair("a.u64", 10, &u64::MAX.to_le_bytes())
        .pair("a.f64", 12, &0.5f64.to_le_bytes())
        .f32("a.f32", f32::INFINITY)
        .pair("a.bool", 7, &[1])
        .str("a.str", "né\n")
        .array("a.i32s", 5, 2, &[1, 0, 0, 0, 255, 255, 255, 255])
        .array("a.f32s", 6, 1, &1.5f32.to_le_bytes())
        .array("a.strs", 8, 3, &[text("x"), vec![1, 0, 0, 0, 0, 0, 0, 0, 0xff], text("")].concat())
        .read()
        .expect("valid");
    let m = &header.metadata;
    assert_eq!(m.u64("a.u16"), Ok(Some(513)));
    assert_eq!(m.u64("a.i64"), Ok(Some(5)));
    assert_eq!(m.u64("a.u64"), Ok(Some(u64::MAX)));
    assert_eq!(m.u64("absent"), Ok(None));
    assert_eq!(message(m.u64("a.i8")), "The metadata key `a.i8` is -123; it should not be negative.");
    assert_eq!(
        message(m.u64("a.str")),
        "The metadata key `a.str` has the type string; it should be a whole number."
    );
    assert_eq!(m.f64("a.f64"), Ok(Some(0.5)));
    assert_eq!(m.f64("a.f32"), Ok(Some(f64::INFINITY)));
    assert_eq!(m.bool("a.bool"), Ok(Some(true)));
    assert_eq!(place(&m.bool("a.u16").expect_err("no bool")), "a.u16");
    assert_eq!(m.str("a.str"), Ok(Some("né\n")));
    assert_eq!(m.i32s("a.i32s"), Ok(Some(vec![1, -1])));
    assert_eq!(m.f32s("a.f32s"), Ok(Some(vec![1.5])));
    assert_eq!(
        message(m.f32s("a.i32s")),
        "The metadata key `a.i32s` has the type array of 2 i32; it should be an array of f32."
    );
    let strings = m.strings("a.strs").expect("strings").expect("present");
    assert_eq!(strings.iter().collect::<Vec<_>>(), [&b"x"[..], &[0xff], b""]);
    assert_eq!((strings.len(), strings.get(1), strings.get(3)), (3, &[0xff][..], &[][..]));
    assert_eq!(m.array_len("a.strs"), Some(3));
    assert_eq!(m.describe("a.strs"), "array of 3 string");
    assert_eq!(m.describe("a.str"), "\"né\\n\"");
    assert_eq!(m.keys().len(), 11);
}

#[test]
fn every_truncation_is_refused_and_names_a_place() {
    let bytes = phi3().file();
    let (header, _) = phi3().header();
    // `output.weight` has 1360 bytes, so 16 of padding follow it: a file may end without them.
    let end = bytes.len() - 16;
    for length in 0..end {
        let error = Header::parse(&bytes[..length], length as u64).expect_err("refused");
        assert!(!place(&error).is_empty(), "{length}: {error}");
    }
    for length in end..=bytes.len() {
        assert!(Header::parse(&bytes[..length], length as u64).is_ok(), "{length}");
    }
    assert!(Header::parse(&[&bytes[..], &[0]].concat(), bytes.len() as u64 + 1).is_err());
    // A prefix that holds the whole header is enough when the file's length is known; a shorter one is not.
    let file_len = bytes.len() as u64;
    assert!(Header::parse(&bytes[..header.len()], file_len).is_ok());
    for length in 0..header.len() {
        assert!(Header::parse(&bytes[..length], file_len).is_err(), "{length}");
    }
}

#[test]
fn every_flipped_byte_gives_a_typed_error_or_a_consistent_model() {
    let whole = phi3().file();
    let (header, _) = phi3().header();
    let (mut refused, mut sound) = (0, 0);
    for position in 0..header.len() {
        for flip in [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[position] ^= flip;
            let result =
                Header::parse(&bytes, bytes.len() as u64).and_then(|header| ModelPlan::from_header(&header));
            match result {
                Ok(plan) => {
                    sound += 1;
                    assert!(plan.weight_bytes <= bytes.len() as u64);
                    assert!(plan.n_head % plan.n_head_kv == 0 && plan.rope.dimension_count <= plan.head_dim);
                }
                Err(error) => {
                    refused += 1;
                    let kind = error.kind();
                    assert!(
                        matches!(kind, ErrorKind::CorruptModel { .. } | ErrorKind::UnsupportedModel { .. }),
                        "{position} ^ {flip:#x}: {error}"
                    );
                    assert!(error.message().chars().count() <= 300, "{error}");
                }
            }
        }
    }
    assert!(refused > 3_000 && sound > 100, "{refused} refused, {sound} sound");
}

#[test]
fn metadata_takes_at_most_four_times_its_bytes() {
    let many_keys =
        (0..20_000).fold(Writer::default(), |writer, id| writer.pair(&format!("{id:x}"), 0, &[1]));
    let strings = Writer::default().array("s", 8, 200_000, &[0; 1_600_000]);
    let numbers = Writer::default().array("n", 0, 1_000_000, &[7; 1_000_000]);
    for writer in [many_keys, strings, numbers, phi3()] {
        let (bytes, _) = writer.header();
        let header = Header::parse(&bytes, (bytes.len() + writer.header().1) as u64).expect("valid");
        let held = header.metadata.memory_bytes();
        assert!(held <= 4 * bytes.len(), "{held} bytes held for {} read", bytes.len());
    }
}

#[test]
fn counts_that_the_file_cannot_hold_are_refused_before_anything_is_reserved() {
    for count in [1 << 16, 1 << 31, 1 << 63, u64::MAX] {
        let mut bytes = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        bytes.extend(count.to_le_bytes());
        assert!(message(Header::parse(&bytes, 24)).contains("metadata keys"));
        bytes[8..16].copy_from_slice(&count.to_le_bytes());
        bytes[16..24].fill(0);
        assert!(message(Header::parse(&bytes, 24)).contains("tensors"));
    }
    let array = Writer::default().array("a", 8, 1 << 40, &[]);
    assert!(message(array.read()).contains("`a` is an array of 1099511627776 elements"));
}

#[test]
fn rules_of_the_format() {
    let one = |kind: u32, value: &[u8]| Writer::default().pair("general.alignment", kind, value).read();
    assert!(one(4, &64u32.to_le_bytes()).is_ok());
    for bad in [0u32, 1, 4, 24, 33, 1 << 17, u32::MAX] {
        assert!(message(one(4, &bad.to_le_bytes())).contains("power of two"), "{bad}");
    }
    assert!(message(one(10, &32u64.to_le_bytes())).contains("should be a u32"));
    let twice = Writer::default().u32("k", 1).u32("j", 1).u32("k", 2).read();
    assert_eq!(message(twice), "The metadata key `k` appears twice.");
    let nested = Writer::default().array("k", 9, 1, &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).read();
    assert_eq!(message(nested), "The metadata key `k` is an array of arrays.");
    assert!(message(Writer::default().pair("k", 7, &[2]).read()).contains("neither 0 nor 1"));
    assert!(message(Writer::default().pair("k", 13, &[2]).read()).contains("value type 13"));
    assert!(message(Writer::default().u32("clé", 1).read()).contains("printable ASCII"));
    let named = |name: &str| Writer::default().tensor(name, &[4], GgmlType::F32);
    assert!(named(&"n".repeat(64)).read().is_ok());
    assert!(named(&"n".repeat(65)).read().is_err());
    assert!(named("").read().is_err());
    assert!(message(named("t").tensor("t", &[4], GgmlType::F32).read()).contains("appears twice"));
    assert!(message(Writer::default().tensor("t", &[1; 5], GgmlType::F32).read()).contains("5 dimensions"));
    assert!(
        message(Writer::default().tensor("t", &[1 << 32, 1 << 32], GgmlType::F32).read())
            .contains("too large")
    );
}

#[test]
fn contradictions_name_both_sides() {
    let heads = phi3().without("phi3.attention.head_count").u32("phi3.attention.head_count", 4).plan();
    let heads = message(heads);
    assert!(heads.contains("dimension_count") && heads.contains("head size, 8"), "{heads}");
    let rows =
        message(phi3().without("phi3.attention.head_count_kv").u32("phi3.attention.head_count_kv", 2).plan());
    assert!(
        rows.contains("blk.0.attn_qkv.weight") && rows.contains("[32, 64]") && rows.contains("[32, 96]"),
        "{rows}"
    );
    assert!(rows.contains("attention.head_count_kv"), "{rows}");
    let tokens: Vec<u8> = (0..41).flat_map(|id| text(&id.to_string())).collect();
    let vocabulary = phi3()
        .without("tokenizer.ggml.tokens")
        .without("tokenizer.ggml.scores")
        .array("tokenizer.ggml.tokens", 8, 41, &tokens)
        .plan();
    let vocabulary = message(vocabulary);
    assert!(vocabulary.contains("has 40 rows") && vocabulary.contains("41 tokens"), "{vocabulary}");
    let layers = phi3().tensor("blk.1.attn_norm.weight", &[32], GgmlType::F32).plan();
    assert!(message(layers).contains("`phi3.block_count` is 1, and yet the file has"));
    assert_eq!(
        phi3().tensor("other.weight", &[32], GgmlType::F32).plan().expect("valid").extra_tensors,
        ["other.weight"]
    );
}

#[test]
fn ropes_are_read_or_refused() {
    let scaling = |writer: Writer| writer.plan().map(|plan| plan.rope.scaling);
    let typed = |name: &str| phi3().str("phi3.rope.scaling.type", name);
    assert_eq!(scaling(typed("none")), Ok(RopeScaling::None));
    assert_eq!(
        scaling(typed("linear").f32("phi3.rope.scaling.factor", 4.0)),
        Ok(RopeScaling::Linear { factor: 4.0 })
    );
    assert!(matches!(
        scaling(typed("yarn").f32("phi3.rope.scaling.factor", 4.0)),
        Ok(RopeScaling::Yarn { factor: 4.0, original_context: 128, .. })
    ));
    assert!(scaling(typed("yarn")).is_err());
    assert!(matches!(
        scaling(typed("dynamic")).expect_err("refused").kind(),
        ErrorKind::UnsupportedModel { .. }
    ));
    let tables = phi3().tensor("rope_factors_long.weight", &[8], GgmlType::F32).tensor(
        "rope_factors_short.weight",
        &[8],
        GgmlType::F32,
    );
    assert!(message(scaling(tables.clone())).contains("original_context_length"));
    let original = tables.clone().u32("phi3.rope.scaling.original_context_length", 64);
    assert_eq!(scaling(original), Ok(RopeScaling::LongRope { original_context: 64, attention_factor: None }));
    assert!(scaling(tables.u32("phi3.rope.scaling.original_context_length", 256)).is_err());
    assert!(message(scaling(typed("longrope"))).contains("lacks both"));
    let base = |value: f32| phi3().f32("phi3.rope.freq_base", value).plan();
    assert!(base(250_000.0).is_ok());
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(base(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_real_vocabularies_are_read() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    for (file, tokens) in [("phi-3-vocab.gguf", 32_064), ("gpt-2-vocab.gguf", 50_257)] {
        let path = data.join(file);
        if !path.exists() {
            println!("SKIPPED: {} is absent", path.display());
            continue;
        }
        let file = GgufFile::open(&path).expect("valid");
        let metadata = &file.header().metadata;
        assert_eq!(metadata.check_vocabulary(), Ok(Some(tokens)));
        assert!(metadata.memory_bytes() < 2 * file.part_bytes(0).len());
        assert!(ModelPlan::from_header(file.header()).is_err(), "it has no tensors");
    }
}

#[test]
fn paths_that_are_no_model_say_what_is_near() {
    let folder = tempfile::tempdir().expect("folder");
    for name in ["phi-3-mini-q4.gguf", "llama.gguf", "notes.txt"] {
        let mut file = std::fs::File::create(folder.path().join(name)).expect("file");
        file.write_all(&phi3().file()).expect("written");
    }
    let candidates = |path: &Path| match GgufFile::open(path).expect_err("refused").kind() {
        ErrorKind::ModelNotFound { candidates } => candidates.clone(),
        kind => panic!("{kind:?}"),
    };
    let missing = candidates(&folder.path().join("phi-3-mini-q8.gguf"));
    assert_eq!(missing.first().map(String::as_str), Some("phi-3-mini-q4.gguf"));
    assert_eq!(candidates(folder.path()), ["llama.gguf", "phi-3-mini-q4.gguf"]);
    assert!(candidates(&folder.path().join("none/x.gguf")).is_empty());

    std::fs::write(folder.path().join("empty.gguf"), b"").expect("written");
    let empty = GgufFile::open(&folder.path().join("empty.gguf")).expect_err("refused");
    assert!(empty.message().contains("is empty") && empty.message().contains("empty.gguf"), "{empty}");

    let file = GgufFile::open(&folder.path().join("llama.gguf")).expect("valid");
    let header = file.header();
    for tensor in &header.tensors {
        let start = header.parts[0].data_offset + tensor.offset;
        let bytes = file.tensor_bytes(tensor).expect("inside");
        assert_eq!((bytes.len() as u64, start % 32), (tensor.n_bytes, 0));
    }
    let outside = TensorInfo { offset: u64::MAX, ..header.tensors[0].clone() };
    assert!(file.tensor_bytes(&outside).is_err());

    // Read by the system, and from memory: any piece of a tensor, and nothing beyond.
    let bytes: &'static [u8] = std::fs::read(folder.path().join("llama.gguf")).expect("readable").leak();
    let in_memory = GgufFile::from_static("memory", bytes).expect("valid");
    for tensor in &header.tensors {
        let whole = file.tensor_bytes(tensor).expect("inside");
        for range in [0..whole.len(), 7..9, whole.len() - 1..whole.len(), whole.len()..whole.len()] {
            file.read_ahead(tensor, range.clone());
            for file in [&file, &in_memory] {
                let mut read = vec![0; range.len()];
                file.read(tensor, range.start, &mut read).expect("inside");
                assert_eq!(read, whole[range.clone()], "{range:?} of {}", tensor.name);
            }
        }
        for at in [whole.len(), whole.len() - 1, usize::MAX] {
            file.read_ahead(tensor, at..at.saturating_add(2));
            assert!(file.read(tensor, at, &mut [0; 2]).is_err());
        }
    }
    assert!(file.read(&outside, 0, &mut [0; 2]).is_err());

    // Shortened since: an error where a look at the map would end the process.
    let path = folder.path().join("llama.gguf");
    std::fs::File::options().write(true).open(path).and_then(|file| file.set_len(100)).expect("writable");
    let error = file.read(&header.tensors[0], 0, &mut [0; 2]).expect_err("gone");
    assert_eq!(*error.kind(), ErrorKind::ModelRead);
    assert!(error.message().contains("llama.gguf") && error.message().contains("shorter"), "{error}");
}

#[test]
fn bad_scales_are_found_in_every_weight_type() {
    let (inf, nan) = (0x7c00u16.to_le_bytes(), 0xfe01u16.to_le_bytes());
    let half_at = |kind: GgmlType, offset: usize, value: [u8; 2]| {
        let size = kind.type_size();
        let mut bytes = vec![0xffu8; 3 * size];
        // 0xff everywhere is NaN in every scale: start from sound ones.
        for block in bytes.chunks_mut(size) {
            block.fill(0x11);
        }
        assert_eq!(check_finite(kind, &bytes), None, "{kind}");
        bytes[2 * size + offset..][..2].copy_from_slice(&value);
        check_finite(kind, &bytes)
    };
    for (kind, offsets) in [
        (GgmlType::Q4_0, &[0][..]),
        (GgmlType::Q4_1, &[0, 2]),
        (GgmlType::Q5_0, &[0]),
        (GgmlType::Q5_1, &[0, 2]),
        (GgmlType::Q8_0, &[0]),
        (GgmlType::Q8_1, &[0, 2]),
        (GgmlType::Q2_K, &[80, 82]),
        (GgmlType::Q3_K, &[108]),
        (GgmlType::Q4_K, &[0, 2]),
        (GgmlType::Q5_K, &[0, 2]),
        (GgmlType::Q6_K, &[208]),
        (GgmlType::IQ4_NL, &[0]),
        (GgmlType::IQ4_XS, &[0]),
        (GgmlType::F16, &[0]),
    ] {
        for &offset in offsets {
            assert_eq!(half_at(kind, offset, inf), Some(2), "{kind} {offset}");
            assert_eq!(half_at(kind, offset, nan), Some(2), "{kind} {offset}");
        }
    }
    let floats = |value: f32| [1.0, value].iter().flat_map(|v: &f32| v.to_le_bytes()).collect::<Vec<u8>>();
    assert_eq!(check_finite(GgmlType::F32, &floats(f32::MAX)), None);
    assert_eq!(check_finite(GgmlType::F32, &floats(f32::NEG_INFINITY)), Some(1));
    assert_eq!(check_finite(GgmlType::BF16, &[0x7f, 0x7f, 0x80, 0x7f]), Some(1));
    let mut q8_k = vec![0; 292 * 2];
    q8_k[292..296].copy_from_slice(&f32::NAN.to_le_bytes());
    assert_eq!(check_finite(GgmlType::Q8_K, &q8_k), Some(1));
}

#[test]
fn every_tensor_of_the_plan_is_needed() {
    let whole = phi3();
    for (index, (name, ..)) in whole.tensors.iter().enumerate() {
        let mut writer = whole.clone();
        writer.tensors.remove(index);
        match writer.plan() {
            Ok(plan) => assert!(name == "output.weight" && plan.tied_embeddings),
            Err(error) => assert_eq!(place(&error), name),
        }
    }
    let names: BTreeSet<&str> = whole.tensors.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names.len(), 9);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), length in any::<u64>()) {
        let _ = Header::parse(&bytes, length);
        let framed = [b"GGUF\x03\0\0\0", &bytes[..]].concat();
        let _ = Header::parse(&framed, length);
    }

    #[test]
    fn mutations_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(vec![0u64, 1, 2, 3, 8, 9, 13, 32,
            0x7f, 0x80, 0xff, 0xffff, 1 << 31, u64::from(u32::MAX), 1 << 62, 1 << 63, u64::MAX]), 1usize..=8), 1..4),
        cut in any::<prop::sample::Index>(),
        keep_length in any::<bool>(),
    ) {
        let mut bytes = phi3().file();
        let (header, _) = phi3().header();
        for (at, value, width) in edits {
            let at = at.index(header.len());
            for (target, byte) in bytes[at..].iter_mut().zip(value.to_le_bytes()).take(width) {
                *target = byte;
            }
        }
        if !keep_length {
            let length = cut.index(bytes.len()) + 1;
            bytes.truncate(length);
        }
        if let Ok(header) = Header::parse(&bytes, bytes.len() as u64) {
            let file_end = header.tensors.iter().map(|t| header.parts[0].data_offset + t.offset + t.n_bytes).max();
            prop_assert!(file_end.is_none_or(|end| end <= bytes.len() as u64));
            let _ = ModelPlan::from_header(&header);
        }
    }
}
