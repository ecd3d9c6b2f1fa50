//! Every pair of things in a header that can contradict each other, and an error that names both sides.

use super::*;

/// What is done to a sound file, and what the error must name.
type Row = (fn(Writer) -> Writer, &'static [&'static str]);

/// Sets a number of the file anew.
fn renumbered(file: Writer, key: &str, value: u32) -> Writer {
    file.without(key).u32(key, value)
}

fn without_tensor(mut file: Writer, name: &str) -> Writer {
    file.tensors.retain(|(known, ..)| known != name);
    file
}

fn reshaped(mut file: Writer, name: &str, shape: &[u64]) -> Writer {
    let tensor = file.tensors.iter_mut().find(|(known, ..)| known == name).expect("a tensor of the file");
    tensor.1 = shape.to_vec();
    file
}

fn tables(file: Writer, length: u64) -> Writer {
    file.tensor(LONG_FACTORS, &[length], GgmlType::F32).tensor(SHORT_FACTORS, &[length], GgmlType::F32)
}

const ORIGINAL: &str = "phi3.rope.scaling.original_context_length";

/// Heads, widths and layers against each other and against the tensors.
const SHAPES: &[Row] = &[
    (|f| renumbered(f, "phi3.attention.head_count_kv", 3), &["head_count_kv` is 3", "head_count, 2"]),
    (
        |f| renumbered(f, "phi3.attention.head_count", 3).without("phi3.attention.head_count_kv"),
        &["head_count` is 3", "embedding_length, 32"],
    ),
    (
        |f| renumbered(f, "phi3.attention.head_count", 32).without("phi3.attention.head_count_kv"),
        &["head_count` is 32", "embedding_length 32", "1 elements"],
    ),
    (
        |f| f.u32("phi3.attention.key_length", 16).u32("phi3.attention.value_length", 32),
        &["value_length` is 32", "key_length is 16"],
    ),
    (
        |f| f.u32("phi3.attention.key_length", 32),
        &["blk.0.attn_output.weight", "[32, 32]", "head size", "[64, 32]"],
    ),
    (|f| renumbered(f, "phi3.rope.dimension_count", 18), &["dimension_count` is 18", "head size, 16"]),
    (
        |f| renumbered(f, "phi3.embedding_length", 64),
        &["token_embd.weight", "[32, 40]", "embedding_length", "[64, 40]"],
    ),
    (
        |f| renumbered(f, "phi3.feed_forward_length", 96),
        &["blk.0.ffn_up.weight", "[32, 128]", "feed_forward_length", "[32, 192]"],
    ),
    (
        |f| reshaped(f, "blk.0.ffn_down.weight", &[96, 32]),
        &["blk.0.ffn_down.weight", "[96, 32]", "feed_forward_length", "[64, 32]"],
    ),
    (
        |f| reshaped(f, "blk.0.attn_qkv.weight", &[32, 96]),
        &["attn_qkv", "[32, 96]", "head_count_kv", "[32, 64]"],
    ),
    (
        |f| reshaped(f, "output.weight", &[32, 41]),
        &["output.weight", "[32, 41]", "token_embd.weight", "[32, 40]"],
    ),
    (|f| reshaped(f, "blk.0.ffn_norm.weight", &[33]), &["ffn_norm", "[33]", "embedding_length", "[32]"]),
    (
        |f| f.tensor("blk.0.attn_qkv.bias", &[32], GgmlType::F32),
        &["attn_qkv.bias", "[32]", "head_count", "[64]"],
    ),
    (|f| renumbered(f, "phi3.block_count", 2), &["blk.1.", "absent", "block_count is 2"]),
    (
        |f| f.tensor("blk.1.attn_norm.weight", &[32], GgmlType::F32),
        &["block_count` is 1", "blk.1.attn_norm.weight"],
    ),
    (
        |f| without_tensor(f, "blk.0.ffn_down.weight"),
        &["blk.0.ffn_down.weight", "`phi3` model", "block_count is 1"],
    ),
    (|f| f.u32("phi3.expert_count", 4), &["expert_count` is 4", "phimoe"]),
    (
        |f| f.f32("phi3.attention.layer_norm_epsilon", 1e-3),
        &["layer_norm_epsilon` is 1.0", "layer_norm_rms_epsilon is"],
    ),
];

/// The vocabulary against itself and against the embeddings.
const VOCABULARY: &[Row] = &[
    (
        |f| reshaped(f, "token_embd.weight", &[32, 39]),
        &["token_embd.weight", "39 rows", "tokenizer.ggml.tokens", "40 tokens"],
    ),
    (|f| f.u32("phi3.vocab_size", 41), &["vocab_size` is 41", "token_embd.weight", "40 rows"]),
    (
        |f| renumbered(f, "tokenizer.ggml.eos_token_id", 40),
        &["eos_token_id` is 40", "tokenizer.ggml.tokens", "40 tokens"],
    ),
    (
        |f| f.u32("tokenizer.ggml.padding_token_id", 900),
        &["padding_token_id` is 900", "tokenizer.ggml.tokens", "40 tokens"],
    ),
    (
        |f| f.without("tokenizer.ggml.scores").array("tokenizer.ggml.scores", 6, 39, &[0; 156]),
        &["scores` has 39", "tokenizer.ggml.tokens", "40"],
    ),
    (
        |f| f.array("tokenizer.ggml.token_type", 5, 41, &[0; 164]),
        &["token_type` has 41", "tokenizer.ggml.tokens", "40"],
    ),
];

/// The rotation's keys against each other and against its tables.
const ROTATION: &[Row] = &[
    (
        |f| f.f32("phi3.rope.scaling.factor", 2.0).f32("phi3.rope.scale_linear", 4.0),
        &["scale_linear` is 4", "scaling.factor is 2"],
    ),
    (
        |f| f.str("phi3.rope.scaling.type", "longrope").u32(ORIGINAL, 64),
        &["longrope", LONG_FACTORS, SHORT_FACTORS, "both"],
    ),
    (
        |f| f.u32(ORIGINAL, 64).tensor(LONG_FACTORS, &[8], GgmlType::F32),
        &[LONG_FACTORS, SHORT_FACTORS, "the second"],
    ),
    (
        |f| f.u32(ORIGINAL, 64).tensor(SHORT_FACTORS, &[8], GgmlType::F32),
        &[LONG_FACTORS, SHORT_FACTORS, "the first"],
    ),
    (
        |f| tables(f, 8).str("phi3.rope.scaling.type", "yarn"),
        &["scaling.type` is not longrope", LONG_FACTORS],
    ),
    (|f| tables(f, 8), &["original_context_length` is absent", LONG_FACTORS]),
    (|f| tables(f, 8).u32(ORIGINAL, 129), &["original_context_length` is 129", "context_length, 128"]),
    (|f| tables(f, 7).u32(ORIGINAL, 64), &[LONG_FACTORS, "[7]", "rope.dimension_count", "[8]"]),
    (
        |f| tables(f, 8).u32(ORIGINAL, 64).tensor(FREQUENCY_FACTORS, &[8], GgmlType::F32),
        &[FREQUENCY_FACTORS, LONG_FACTORS],
    ),
    (
        |f| f.tensor(FREQUENCY_FACTORS, &[9], GgmlType::F32),
        &[FREQUENCY_FACTORS, "[9]", "rope.dimension_count", "[8]"],
    ),
    (|f| f.str("phi3.rope.scaling.type", "yarn"), &["scaling.factor` is absent", "yarn"]),
];

#[test]
fn contradictions_name_both_sides() {
    let mut silent = Vec::new();
    for (table, rows) in [("shapes", SHAPES), ("vocabulary", VOCABULARY), ("rotation", ROTATION)] {
        for (number, (damage, sides)) in rows.iter().enumerate() {
            let text = message(damage(phi3()).plan());
            let missed = sides.iter().filter(|side| !text.contains(**side));
            silent.extend(missed.map(|side| format!("{table}, row {number}: `{side}` is not in: {text}")));
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn a_llama_file_names_both_sides_of_its_own_shapes() {
    /// The tensors that a `phi3` file has as one.
    fn llama() -> Writer {
        let mut file = phi3().without("general.architecture").str("general.architecture", "llama");
        file.pairs = file.pairs.iter().map(|pair| rename(pair)).collect();
        file = without_tensor(without_tensor(file, "blk.0.attn_qkv.weight"), "blk.0.ffn_up.weight");
        for (name, rows) in [("attn_q", 32), ("attn_k", 16), ("attn_v", 16), ("ffn_gate", 64), ("ffn_up", 64)]
        {
            file = file.tensor(&format!("blk.0.{name}.weight"), &[32, rows], GgmlType::Q8_0);
        }
        file
    }
    fn rename(pair: &[u8]) -> Vec<u8> {
        match pair.get(8..13) {
            Some(b"phi3.") => {
                let length = u64::from_le_bytes(pair[..8].try_into().expect("eight bytes")) + 1;
                [&length.to_le_bytes()[..], b"llama.", &pair[13..]].concat()
            }
            _ => pair.to_vec(),
        }
    }
    assert!(llama().plan().is_ok(), "{:?}", llama().plan());
    let rows: &[Row] = &[
        (
            |f| reshaped(f, "blk.0.attn_k.weight", &[32, 32]),
            &["attn_k", "[32, 32]", "head_count_kv", "[32, 16]"],
        ),
        (
            |f| reshaped(f, "blk.0.ffn_gate.weight", &[32, 96]),
            &["ffn_gate", "[32, 96]", "feed_forward_length", "[32, 64]"],
        ),
        (
            |f| without_tensor(f, "blk.0.attn_v.weight"),
            &["blk.0.attn_v.weight", "`llama` model", "block_count is 1"],
        ),
        (|f| f.u32("llama.vocab_size", 41), &["llama.vocab_size` is 41", "token_embd.weight", "40 rows"]),
    ];
    for (damage, sides) in rows {
        let text = message(damage(llama()).plan());
        assert!(sides.iter().all(|side| text.contains(side)), "{sides:?}: {text}");
    }
}
