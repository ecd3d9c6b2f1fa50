"""Damage to files of `phi2` and `phimoe`, and what in a file of any architecture would change its numbers.

Rows of `hostile_kinds.py`, which says how each is tried.
"""

from __future__ import annotations

from collections.abc import Callable

from gguf_files import DTYPES, Gguf, Key

Damage = Callable[[Gguf], "Gguf | bytes | None"]


def _rename(old: str, new: str) -> Damage:
    """Gives a file the keys of another architecture."""

    def damage(file: Gguf) -> None:
        for key in file.keys:
            key.name = key.name.replace(old.encode(), new.encode())
        file.set("general.architecture", "str", new)

    return damage


def _reshape(name: str, shape: list[int]) -> Damage:
    """Says of a tensor's elements that they lie otherwise."""

    def damage(file: Gguf) -> None:
        file.tensor(name).shape = shape

    return damage


def _retype(name: str, dtype: str) -> Damage:
    """Gives a tensor another type, with zeros for data."""

    def damage(file: Gguf) -> None:
        tensor = file.tensor(name)
        number, block, size = DTYPES[dtype]
        elements = 1
        for dim in tensor.shape:
            elements *= dim
        tensor.dtype, tensor.data = number, bytes(elements // block * size)

    return damage


#: `phi2` as `gguf_files.tiny` writes it: 64 wide, 4 heads of 16 and 2 of keys, 128 inside; q, k and v apart.
PHI2: dict[str, Damage] = {
    "norm without its bias": lambda g: g.drop("blk.0.attn_norm.bias"),
    "last norm without its bias": lambda g: g.drop("output_norm.bias"),
    "matrix without its bias": lambda g: g.drop("blk.1.ffn_down.bias"),
    "output without its bias": lambda g: g.drop("output.bias"),
    "output's bias of another length": _reshape("output.bias", [5, 79]),
    "norm's bias of another length": lambda g: g.drop("blk.0.attn_norm.bias").add(
        "blk.0.attn_norm.bias", [63]
    ),
    "up as wide as gate and up": lambda g: g.drop("blk.0.ffn_up.weight").add(
        "blk.0.ffn_up.weight", [64, 256]
    ),
    "q apart and in one": lambda g: g.add("blk.0.attn_qkv.weight", [64, 128]).add(
        "blk.0.attn_qkv.bias", [128]
    ),
    "q in one without its bias": lambda g: g.drop(
        *(f"blk.0.attn_{part}.{kind}" for part in "qkv" for kind in ("weight", "bias"))
    ).add("blk.0.attn_qkv.weight", [64, 128]),
    "q in one of two layers, k left": lambda g: g.drop("blk.1.attn_q.weight", "blk.1.attn_v.weight"),
    "epsilon of the other norm": lambda g: g.drop("phi2.attention.layer_norm_epsilon").set(
        "phi2.attention.layer_norm_rms_epsilon", "f32", 1e-5
    ),
    "two epsilons": lambda g: g.set("phi2.attention.layer_norm_rms_epsilon", "f32", 1e-3),
    "epsilon NaN": lambda g: g.set("phi2.attention.layer_norm_epsilon", "f32", float("nan")),
    "file of phi3": lambda g: g.set("general.architecture", "str", "phi3"),
    "keys of phi3 too": _rename("phi2", "phi3"),
}

#: `phimoe`: 4 experts, 2 of them used.
PHIMOE: dict[str, Damage] = {
    "experts absent": lambda g: g.drop("phimoe.expert_count"),
    "experts 0": lambda g: g.set("phimoe.expert_count", "u32", 0),
    "experts 1": lambda g: g.set("phimoe.expert_count", "u32", 1),
    "experts 2^32-1": lambda g: g.set("phimoe.expert_count", "u32", 2**32 - 1),
    "experts one too many": lambda g: g.set("phimoe.expert_count", "u32", 5),
    "experts one too few": lambda g: g.set("phimoe.expert_count", "u32", 3),
    "experts as string": lambda g: g.set("phimoe.expert_count", "str", "4"),
    "experts of another width": lambda g: g.set("phimoe.expert_feed_forward_length", "u32", 64),
    "used experts absent": lambda g: g.drop("phimoe.expert_used_count"),
    "used experts 0": lambda g: g.set("phimoe.expert_used_count", "u32", 0),
    "used experts more than experts": lambda g: g.set("phimoe.expert_used_count", "u32", 5),
    "router absent": lambda g: g.drop("blk.0.ffn_gate_inp.weight"),
    "router transposed": _reshape("blk.0.ffn_gate_inp.weight", [4, 64]),
    "experts' gate absent": lambda g: g.drop("blk.1.ffn_gate_exps.weight"),
    "experts in two dimensions": _reshape("blk.0.ffn_up_exps.weight", [64, 128 * 4]),
    "experts in four dimensions": _reshape("blk.0.ffn_up_exps.weight", [64, 128, 2, 2]),
    "experts in another order": _reshape("blk.0.ffn_up_exps.weight", [64, 4, 128]),
    "experts of two widths": lambda g: g.drop("blk.1.ffn_down_exps.weight").add(
        "blk.1.ffn_down_exps.weight", [64, 64, 4]
    ),
    "norm without its bias": lambda g: g.drop("blk.1.ffn_norm.bias"),
    "two epsilons": lambda g: g.set("phimoe.attention.layer_norm_epsilon", "f32", 1e-3),
    "no epsilon": lambda g: g.drop("phimoe.attention.layer_norm_rms_epsilon"),
}

#: What `phimoe` files may ask for and no backend does.
PHIMOE_OTHERS: dict[str, Damage] = {
    "three experts for each token": lambda g: g.set("phimoe.expert_used_count", "u32", 3),
    "one expert for each token": lambda g: g.set("phimoe.expert_used_count", "u32", 1),
    "shared experts": lambda g: g.set("phimoe.expert_shared_count", "u32", 1),
    "another gate": lambda g: g.set("phimoe.expert_gating_func", "u32", 2),
    "weights that add up to one": lambda g: g.set("phimoe.expert_weights_norm", "bool", True),
    "experts of a phi3 file": _rename("phimoe", "phi3"),
    "biases of experts": lambda g: g.add("blk.0.ffn_gate_exps.bias", [128, 4]),
    "experts of i32": _retype("blk.0.ffn_down_exps.weight", "I32"),
}

#: Keys and tensors of other architectures, which would change the numbers of this one.
CHANGES: dict[str, Damage] = {
    "clamped queries": lambda g: g.set("phi3.attention.clamp_kqv", "f32", 8.0),
    "alibi": lambda g: g.set("phi3.attention.max_alibi_bias", "f32", 8.0),
    "another scale of scores": lambda g: g.set("phi3.attention.scale", "f32", 1.0),
    "scale of scores NaN": lambda g: g.set("phi3.attention.scale", "f32", float("nan")),
    "attention both ways": lambda g: g.set("phi3.attention.causal", "bool", False),
    "a window in some layers": lambda g: g.set("phi3.attention.sliding_window_pattern", "[bool]", [1, 0]),
    "capped scores": lambda g: g.set("phi3.attn_logit_softcapping", "f32", 50.0),
    "capped logits": lambda g: g.set("phi3.final_logit_softcapping", "f32", 30.0),
    "scaled logits": lambda g: g.set("phi3.logit_scale", "f32", 0.25),
    "scaled embeddings": lambda g: g.set("phi3.embedding_scale", "f32", 12.0),
    "scaled residuals": lambda g: g.set("phi3.residual_scale", "f32", 0.5),
    "blocks side by side": lambda g: g.set("phi3.use_parallel_residual", "bool", True),
    "rotation in sections": lambda g: g.set("phi3.rope.dimension_sections", "[i32]", [2, 2, 4, 0]),
    "experts of phi3": lambda g: g.set("phi3.expert_count", "u32", 8),
    "norms of queries": lambda g: g.add("blk.0.attn_q_norm.weight", [16]),
    "a scale beside a matrix": lambda g: g.add("blk.1.ffn_up.scale", [1]),
    "a gate of its own": lambda g: g.add("blk.0.ffn_gate.weight", [64, 128]),
    "a norm of the embedding": lambda g: g.add("token_embd_norm.weight", [64]),
    "embedded positions": lambda g: g.add("position_embd.weight", [64, 256]),
}

#: Sound files of these architectures.
SOUND: dict[str, Damage] = {
    "as it is": lambda g: g,
    "numbers that change nothing": lambda g: (
        g.set(_key(g, "attention.clamp_kqv"), "f32", 0.0)
        .set(_key(g, "logit_scale"), "f32", 1.0)
        .set(_key(g, "attention.scale"), "f32", 0.25)
        .set(_key(g, "attention.causal"), "bool", True)
    ),
    "tied embedding": lambda g: g.drop("output.weight"),
}


def _key(file: Gguf, name: str) -> str:
    """A key of the file's own architecture."""
    own: Key = next(key for key in file.keys if key.name.endswith(b".block_count"))
    return f"{own.name.decode().removesuffix('.block_count')}.{name}"
