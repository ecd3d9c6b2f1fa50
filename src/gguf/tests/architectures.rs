//! Headers of the architectures beside `phi3`, and what in any of them would change the numbers.

use super::*;

/// What the shapes of a model are made of.
#[derive(Clone, Copy)]
struct Sizes {
    layers: u32,
    embd: u64,
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
    ff: u64,
    vocab: u64,
    experts: u64,
    tied: bool,
}

/// The smallest whole model: one layer, two heads of 8, 6 tokens; three experts for `phimoe`.
const TINY: Sizes = Sizes {
    layers: 1,
    embd: 16,
    heads: 2,
    kv_heads: 1,
    head_dim: 8,
    ff: 24,
    vocab: 6,
    experts: 3,
    tied: false,
};

fn whole(arch: &str) -> Writer {
    sized(arch, TINY)
}

/// A model as llama.cpp's converter writes it, in F16.
fn sized(arch: &str, sizes: Sizes) -> Writer {
    let Sizes { layers, embd, heads, kv_heads, head_dim, ff, vocab, experts, tied } = sizes;
    let key = |name: &str| format!("{arch}.{name}");
    let mut file = Writer::default().str("general.architecture", arch);
    for (name, value) in [
        ("block_count", u64::from(layers)),
        ("embedding_length", embd),
        ("attention.head_count", heads),
        ("attention.head_count_kv", kv_heads),
        ("feed_forward_length", ff),
        ("context_length", 32),
        ("rope.dimension_count", head_dim / 2),
    ] {
        file = file.u32(&key(name), value as u32);
    }
    let epsilon =
        if arch == "phi2" { "attention.layer_norm_epsilon" } else { "attention.layer_norm_rms_epsilon" };
    file = file.f32(&key(epsilon), 1e-5);
    if arch == "phimoe" {
        file = file.u32("phimoe.expert_count", experts as u32).u32("phimoe.expert_used_count", 2);
    }
    let (query, narrow) = (heads * head_dim, kv_heads * head_dim);
    let mut layer: Vec<(&str, Vec<u64>)> = vec![("attn_output", vec![query, embd])];
    if arch == "phi3" {
        layer.push(("attn_qkv", vec![embd, query + 2 * narrow]));
    } else {
        let parts = [("attn_q", query), ("attn_k", narrow), ("attn_v", narrow)];
        layer.extend(parts.map(|(name, rows)| (name, vec![embd, rows])));
    }
    match arch {
        "phi2" => layer.extend([("ffn_up", vec![embd, ff]), ("ffn_down", vec![ff, embd])]),
        "phi3" => layer.extend([("ffn_up", vec![embd, 2 * ff]), ("ffn_down", vec![ff, embd])]),
        "phimoe" => layer.extend([
            ("ffn_gate_inp", vec![embd, experts]),
            ("ffn_gate_exps", vec![embd, ff, experts]),
            ("ffn_up_exps", vec![embd, ff, experts]),
            ("ffn_down_exps", vec![ff, embd, experts]),
        ]),
        _ => layer.extend([
            ("ffn_gate", vec![embd, ff]),
            ("ffn_up", vec![embd, ff]),
            ("ffn_down", vec![ff, embd]),
        ]),
    }
    let mut matrices = vec![("token_embd".to_owned(), vec![embd, vocab])];
    if !tied {
        matrices.push(("output".to_owned(), vec![embd, vocab]));
    }
    let mut norms = vec!["output_norm".to_owned()];
    for number in 0..layers {
        let name = |part: &str| format!("blk.{number}.{part}");
        matrices.extend(layer.iter().map(|(part, shape)| (name(part), shape.clone())));
        norms.push(name("attn_norm"));
        if arch != "phi2" {
            norms.push(name("ffn_norm"));
        }
    }
    for (name, shape) in matrices {
        file = file.tensor(&format!("{name}.weight"), &shape, GgmlType::F16);
        let has_bias = match arch {
            "phi2" => name != "token_embd",
            "phimoe" => name == "output" || name.contains("attn"),
            _ => false,
        };
        if has_bias {
            file = file.tensor(&format!("{name}.bias"), &shape[1..], GgmlType::F32);
        }
    }
    for name in norms {
        file = file.tensor(&format!("{name}.weight"), &[embd], GgmlType::F32);
        if matches!(arch, "phi2" | "phimoe") {
            file = file.tensor(&format!("{name}.bias"), &[embd], GgmlType::F32);
        }
    }
    file
}

#[test]
fn published_shapes_have_the_published_number_of_parameters() {
    let tied = false;
    let plain = |layers, embd, heads, kv_heads, ff, vocab| {
        let head_dim = embd / heads;
        Sizes { layers, embd, heads, kv_heads, head_dim, ff, vocab, experts: 0, tied }
    };
    for (name, arch, sizes, parameters) in [
        ("Phi-2", "phi2", plain(32, 2560, 32, 32, 10_240, 51_200), 2_779_683_840),
        ("Phi-3-mini", "phi3", plain(32, 3072, 32, 32, 8192, 32_064), 3_821_079_552),
        ("Phi-3-medium", "phi3", plain(40, 5120, 40, 10, 17_920, 32_064), 13_960_238_080),
        ("Phi-4", "phi3", plain(40, 5120, 40, 10, 17_920, 100_352), 14_659_507_200),
        ("Phi-4-mini", "phi3", Sizes { tied: true, ..plain(32, 3072, 24, 8, 8192, 200_064) }, 3_836_021_760),
        (
            "Phi-3.5-MoE",
            "phimoe",
            Sizes { experts: 16, ..plain(32, 4096, 32, 8, 6400, 32_064) },
            41_873_153_344,
        ),
    ] {
        let (header, data) = sized(arch, sizes).header();
        // The header is there, and the file a hole.
        let length = (header.len() + data) as u64;
        let header = Header::parse(&header, length).expect(name);
        let plan = ModelPlan::from_header(&header).expect(name);
        assert_eq!(plan.parameters, parameters, "{name}");
        assert_eq!(plan.tied_embeddings, name == "Phi-4-mini");
        assert!(plan.extra_tensors.is_empty(), "{name}");
    }
}

impl Writer {
    fn lacking(mut self, tensor: &str) -> Self {
        self.tensors.retain(|(name, ..)| name != tensor);
        self
    }
}

#[test]
fn each_architecture_is_described() {
    let plan = whole("phi2").plan().expect("valid");
    assert_eq!((plan.architecture, plan.biases, plan.n_expert), (Architecture::Phi2, true, 0));
    assert!(plan.architecture.is_parallel() && plan.architecture.has_layer_norm());
    let plan = whole("phimoe").plan().expect("valid");
    assert_eq!((plan.architecture, plan.n_expert, plan.n_expert_used), (Architecture::PhiMoe, 3, 2));
    assert!(!plan.architecture.is_parallel() && plan.architecture.has_layer_norm());
    let experts = 3 * (16 * 24 * 2 + 24 * 16) + 16 * 3;
    let biases = 16 + 8 + 8 + 16 + 6;
    assert_eq!(plan.parameters, 16 * (6 + 6 + 16 + 8 + 8 + 16) + biases + experts + 6 * 16);
    assert!(!whole("llama").plan().expect("valid").architecture.has_layer_norm());
}

#[test]
fn queries_keys_and_values_of_phi2_are_one_tensor_or_three() {
    let parts = ["attn_q", "attn_k", "attn_v"];
    let fused = parts
        .iter()
        .fold(whole("phi2"), |file, part| {
            file.lacking(&format!("blk.0.{part}.weight")).lacking(&format!("blk.0.{part}.bias"))
        })
        .tensor("blk.0.attn_qkv.weight", &[16, 32], GgmlType::F16)
        .tensor("blk.0.attn_qkv.bias", &[32], GgmlType::F32);
    let plan = fused.plan().expect("valid");
    assert_eq!(plan.parameters, whole("phi2").plan().expect("valid").parameters);
    let both = message(fused.tensor("blk.0.attn_q.weight", &[16, 16], GgmlType::F16).plan());
    assert!(both.contains("blk.0.attn_qkv.weight") && both.contains("blk.0.attn_q.weight"), "{both}");
}

#[test]
fn what_an_architecture_needs_is_missed() {
    for (arch, tensor) in [
        ("phi2", "blk.0.attn_norm.bias"),
        ("phi2", "blk.0.ffn_up.bias"),
        ("phi2", "blk.0.attn_k.bias"),
        ("phi2", "output.bias"),
        ("phimoe", "blk.0.ffn_norm.bias"),
        ("phimoe", "output_norm.bias"),
        ("phimoe", "blk.0.ffn_gate_inp.weight"),
        ("phimoe", "blk.0.ffn_down_exps.weight"),
    ] {
        let found = message(whole(arch).lacking(tensor).plan());
        let layers = if tensor.starts_with("blk.") { " (block_count is 1)" } else { "" };
        assert_eq!(found, format!("The tensor `{tensor}` is absent; a `{arch}` model needs it{layers}."));
    }
    for (arch, key) in [
        ("phi2", "phi2.attention.layer_norm_epsilon"),
        ("phimoe", "phimoe.attention.layer_norm_rms_epsilon"),
        ("phimoe", "phimoe.expert_count"),
        ("phimoe", "phimoe.expert_used_count"),
    ] {
        let found = message(whole(arch).without(key).plan());
        assert_eq!(found, format!("The metadata key `{key}` is absent; a model needs it."));
    }
}

#[test]
fn experts_that_contradict_each_other_name_both_sides() {
    let with = |key: &str, value| whole("phimoe").without(key).u32(key, value).plan();
    let count = message(with("phimoe.expert_count", 4));
    assert!(
        count.contains("ffn_gate_inp") && count.contains("[16, 3]") && count.contains("[16, 4]"),
        "{count}"
    );
    let more = message(with("phimoe.expert_used_count", 4));
    assert!(more.contains("is 4, more than expert_count, 3"), "{more}");
    for (key, value) in
        [("phimoe.expert_count", 1), ("phimoe.expert_count", 257), ("phimoe.expert_used_count", 0)]
    {
        assert_eq!(place(&with(key, value).expect_err("refused")), key);
    }
    let three = with("phimoe.expert_used_count", 3).expect_err("refused");
    assert!(
        matches!(three.kind(), ErrorKind::UnsupportedModel { .. }) && three.message().contains("chooses two")
    );
    let stack = whole("phimoe").lacking("blk.0.ffn_up_exps.weight").tensor(
        "blk.0.ffn_up_exps.weight",
        &[16, 24 * 3],
        GgmlType::F16,
    );
    let stack = message(stack.plan());
    assert!(
        stack.contains("[16, 72]") && stack.contains("[16, 24, 3]") && stack.contains("expert_count"),
        "{stack}"
    );
    let width = message(whole("phimoe").u32("phimoe.expert_feed_forward_length", 32).plan());
    assert!(width.contains("is 32, and feed_forward_length is 24"), "{width}");
    let llama = whole("llama").u32("llama.expert_count", 8).plan().expect_err("refused");
    assert!(llama.message().contains("`llama.expert_count` is 8"), "{llama}");
}

#[test]
fn a_rotation_is_stretched_in_one_way() {
    let factors = |file: Writer, name: &str| file.tensor(name, &[2], GgmlType::F32);
    let long = factors(factors(whole("phimoe"), LONG_FACTORS), SHORT_FACTORS)
        .u32("phimoe.rope.scaling.original_context_length", 16);
    assert!(long.plan().is_ok());
    let both = message(factors(long, FREQUENCY_FACTORS).plan());
    assert!(both.contains(FREQUENCY_FACTORS) && both.contains(LONG_FACTORS), "{both}");
    let factor = |file: Writer, value| file.f32("llama.rope.scale_linear", value);
    let four = whole("llama").f32("llama.rope.scaling.factor", 4.0);
    let two = message(factor(four.clone(), 2.0).plan());
    assert!(two.contains("`llama.rope.scale_linear` is 2, and rope.scaling.factor is 4"), "{two}");
    assert!(factor(four, 4.0).plan().is_ok());
}

#[test]
fn norms_have_one_epsilon() {
    let key = "phimoe.attention.layer_norm_epsilon";
    assert!(whole("phimoe").f32(key, 1e-5).plan().is_ok());
    let two = message(whole("phimoe").f32(key, 1e-6).plan());
    assert!(two.contains(key) && two.contains("layer_norm_rms_epsilon is"), "{two}");
    let own = whole("phimoe").without("phimoe.attention.layer_norm_rms_epsilon").f32(key, 1e-6);
    assert_eq!(own.plan().expect("valid").norm_eps, 1e-6);
}

#[test]
fn keys_that_would_change_the_numbers_are_refused_by_name() {
    for arch in ["phi2", "phi3", "phimoe", "llama"] {
        let file = if arch == "phi3" { phi3() } else { whole(arch) };
        let refused = |file: Writer, name: &str| {
            let error = file.plan().expect_err(name);
            assert!(matches!(error.kind(), ErrorKind::UnsupportedModel { .. }), "{error}");
            assert!(error.message().contains(&format!("`{arch}.{name}`")), "{error}");
        };
        for name in [
            "attention.clamp_kqv",
            "attention.max_alibi_bias",
            "attention.output_scale",
            "attn_logit_softcapping",
            "embedding_scale",
            "expert_weights_scale",
            "final_logit_softcapping",
            "logit_scale",
            "residual_scale",
        ] {
            let key = format!("{arch}.{name}");
            refused(file.clone().f32(&key, 8.0), name);
            refused(file.clone().f32(&key, f32::NAN), name);
            assert!(file.clone().f32(&key, 0.0).plan().is_ok(), "{key}");
        }
        for name in ["expert_shared_count", "expert_gating_func", "leading_dense_block_count"] {
            let key = format!("{arch}.{name}");
            refused(file.clone().u32(&key, 2), name);
            assert!(file.clone().u32(&key, 0).plan().is_ok(), "{key}");
        }
        let scale = format!("{arch}.attention.scale");
        refused(file.clone().f32(&scale, 1.0), "attention.scale");
        let root: f32 = if arch == "phi3" { 0.25 } else { 8_f32.sqrt().recip() };
        assert!(file.clone().f32(&scale, root).plan().is_ok());
        refused(file.clone().pair(&format!("{arch}.attention.causal"), 7, &[0]), "attention.causal");
        let parallel = format!("{arch}.use_parallel_residual");
        let own = u8::from(arch == "phi2");
        refused(file.clone().pair(&parallel, 7, &[1 - own]), "use_parallel_residual");
        assert!(file.clone().pair(&parallel, 7, &[own]).plan().is_ok());
        let pattern = "attention.sliding_window_pattern";
        refused(file.clone().u32(&format!("{arch}.{pattern}"), 4), pattern);
    }
}

#[test]
fn tensors_that_would_change_the_numbers_are_refused_by_name() {
    for name in ["blk.0.attn_q_norm.weight", "blk.0.ffn_gate.weight", "token_embd_norm.weight", "blk.0.x"] {
        let error = phi3().tensor(name, &[16], GgmlType::F32).plan().expect_err(name);
        let ErrorKind::UnsupportedModel { tensor, .. } = error.kind() else { panic!("{error:?}") };
        assert_eq!(tensor.as_deref(), Some(name));
    }
    // Tables that nobody reads, and what belongs to no layer.
    for name in ["blk.0.rope_freqs.weight", "blk.0.attn_rot_embd.weight", "other.weight"] {
        assert!(phi3().tensor(name, &[16], GgmlType::F32).plan().is_ok(), "{name}");
    }
}
