//! Headers of the architectures beside `phi3`, and what in any of them would change the numbers.

use super::*;

/// The smallest whole model of an architecture: one layer, two heads of 8, 6 tokens; three experts for `phimoe`.
fn whole(arch: &str) -> Writer {
    let key = |name: &str| format!("{arch}.{name}");
    let mut file = Writer::default()
        .str("general.architecture", arch)
        .u32(&key("block_count"), 1)
        .u32(&key("embedding_length"), 16)
        .u32(&key("attention.head_count"), 2)
        .u32(&key("attention.head_count_kv"), 1)
        .u32(&key("feed_forward_length"), 24)
        .u32(&key("context_length"), 32)
        .u32(&key("rope.dimension_count"), 4);
    file = match arch {
        "phi2" => file.f32("phi2.attention.layer_norm_epsilon", 1e-5),
        _ => file.f32(&key("attention.layer_norm_rms_epsilon"), 1e-5),
    };
    let mut matrices: Vec<(&str, &[u64])> = vec![
        ("token_embd", &[16, 6]),
        ("output", &[16, 6]),
        ("blk.0.attn_q", &[16, 16]),
        ("blk.0.attn_k", &[16, 8]),
        ("blk.0.attn_v", &[16, 8]),
        ("blk.0.attn_output", &[16, 16]),
    ];
    let mut norms = vec!["output_norm", "blk.0.attn_norm"];
    match arch {
        "phi2" => matrices.extend([("blk.0.ffn_up", &[16, 24][..]), ("blk.0.ffn_down", &[24, 16])]),
        "phimoe" => {
            file = file.u32("phimoe.expert_count", 3).u32("phimoe.expert_used_count", 2);
            norms.push("blk.0.ffn_norm");
            matrices.extend([
                ("blk.0.ffn_gate_inp", &[16, 3][..]),
                ("blk.0.ffn_gate_exps", &[16, 24, 3]),
                ("blk.0.ffn_up_exps", &[16, 24, 3]),
                ("blk.0.ffn_down_exps", &[24, 16, 3]),
            ]);
        }
        _ => {
            norms.push("blk.0.ffn_norm");
            matrices.extend([
                ("blk.0.ffn_gate", &[16, 24][..]),
                ("blk.0.ffn_up", &[16, 24]),
                ("blk.0.ffn_down", &[24, 16]),
            ]);
        }
    }
    for (name, shape) in matrices {
        file = file.tensor(&format!("{name}.weight"), shape, GgmlType::F16);
        if arch == "phi2" && name != "token_embd" {
            file = file.tensor(&format!("{name}.bias"), &shape[1..], GgmlType::F32);
        }
    }
    for name in norms {
        file = file.tensor(&format!("{name}.weight"), &[16], GgmlType::F32);
        if arch != "llama" {
            file = file.tensor(&format!("{name}.bias"), &[16], GgmlType::F32);
        }
    }
    file
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
    assert_eq!(plan.parameters, 16 * (6 + 6 + 16 + 8 + 8 + 16) + experts + 6 * 16);
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
        assert_eq!(found, format!("The tensor `{tensor}` is absent; a `{arch}` model needs it."));
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
    let llama = whole("llama").u32("llama.expert_count", 8).plan().expect_err("refused");
    assert!(llama.message().contains("`llama.expert_count` is 8"), "{llama}");
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
