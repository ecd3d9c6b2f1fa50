"""Writes the seeds of the fuzz targets: `python fuzz/seeds.py` from the repository's root."""

import struct
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from gguf_files import Gguf  # noqa: E402

WIDTH, ROWS = 8, 6


def smallest(arch: str) -> Gguf:
    """The smallest whole model: one layer, one head of eight elements, six tokens."""
    file = Gguf().set("general.architecture", "str", arch)
    for key in ("embedding_length", "feed_forward_length", "rope.dimension_count"):
        file.set(f"{arch}.{key}", "u32", WIDTH)
    for key in ("block_count", "attention.head_count", "attention.head_count_kv"):
        file.set(f"{arch}.{key}", "u32", 1)
    file.set(f"{arch}.context_length", "u32", 32)
    rms = "" if arch == "phi2" else "rms_"
    file.set(f"{arch}.attention.layer_norm_{rms}epsilon", "f32", 1e-5)
    file.set("tokenizer.ggml.model", "str", "llama")
    file.set("tokenizer.ggml.tokens", "[str]", ["<unk>", "<s>", "</s>", "<0x0A>", "a", "b"])
    file.set("tokenizer.ggml.scores", "[f32]", [0.0] * ROWS).set(
        "tokenizer.ggml.token_type", "[i32]", [2, 3, 3, 6, 1, 1]
    )
    file.set("tokenizer.ggml.eos_token_id", "u32", 2).set("tokenizer.ggml.add_bos_token", "bool", True)
    file.add("token_embd.weight", [WIDTH, ROWS], "F16").add("output_norm.weight", [WIDTH])
    file.add("output.weight", [WIDTH, ROWS], "F16")
    for name in ("attn_norm", "ffn_norm"):
        if (arch, name) != ("phi2", "ffn_norm"):
            file.add(f"blk.0.{name}.weight", [WIDTH])
    if arch == "phimoe":
        return experts(file)
    if arch == "phi2":
        names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down")
        shapes = dict.fromkeys(names, WIDTH)
        for name in ("output_norm", "blk.0.attn_norm", *(f"blk.0.{name}" for name in names)):
            file.add(f"{name}.bias", [WIDTH])
        file.add("output.bias", [ROWS])
    elif arch == "phi3":
        shapes = {"attn_qkv": 3 * WIDTH, "attn_output": WIDTH, "ffn_up": 2 * WIDTH, "ffn_down": WIDTH}
    else:
        names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
        shapes = dict.fromkeys(names, WIDTH)
    for name, rows in shapes.items():
        file.add(f"blk.0.{name}.weight", [WIDTH, rows], "F16")
    return file


def experts(file: Gguf) -> Gguf:
    """The layer of a mixture of two experts."""
    file.set("phimoe.expert_count", "u32", 2).set("phimoe.expert_used_count", "u32", 2)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        file.add(f"{name}.bias", [WIDTH])
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        file.add(f"blk.0.{name}.weight", [WIDTH, WIDTH], "F16")
    file.add("blk.0.ffn_gate_inp.weight", [WIDTH, 2])
    for name in ("gate", "up", "down"):
        file.add(f"blk.0.ffn_{name}_exps.weight", [WIDTH, WIDTH, 2], "F16")
    return file


def every_type() -> Gguf:
    """One key of each type, and arrays of some."""
    file = Gguf().set("general.alignment", "u32", 8)
    file.alignment = 8
    for kind in ("u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "u64", "i64", "f64"):
        file.set(f"a.{kind}", kind, 1).set(f"b.{kind}", f"[{kind}]", [1, 0])
    return (
        file.set("a.str", "str", "x")
        .set("b.str", "[str]", ["x", "", "yz"])
        .add("t", [32], "Q8_0")
        .add("u", [3, 1, 2, 1])
    )


def split(file: Gguf, count: int) -> list[Gguf]:
    """The same model in parts, which the fuzz target finds one after the other."""
    parts = [Gguf(keys=file.keys if number == 0 else []) for number in range(count)]
    for number, part in enumerate(parts):
        part.tensors = file.tensors[number::count]
        part.set("split.no", "u16", number).set("split.count", "u16", count)
        part.set("split.tensors.count", "i32", len(file.tensors))
    return parts


def seeds() -> dict[str, bytes]:
    """Every seed, by name."""
    factors = struct.pack("<4f", 1, 1, 2, 4)
    longrope = smallest("phi3").set("phi3.rope.scaling.original_context_length", "u32", 16)
    longrope.add("rope_factors_long.weight", [4], data=factors).add(
        "rope_factors_short.weight", [4], data=factors
    )
    yarn = (
        smallest("llama")
        .set("llama.rope.scaling.type", "str", "yarn")
        .set("llama.rope.scaling.factor", "f32", 4.0)
    )
    yarn.set("llama.attention.sliding_window", "u32", 16).add("rope_freqs.weight", [4], data=factors)
    biased = smallest("phi3").add("blk.0.attn_qkv.bias", [3 * WIDTH]).add("extra", [2]).drop("output.weight")
    files = {
        "phi3": smallest("phi3"),
        "llama": smallest("llama"),
        "phi2": smallest("phi2"),
        "phimoe": smallest("phimoe"),
        "longrope": longrope,
        "yarn": yarn,
        "biased": biased,
        "types": every_type(),
        "empty": Gguf(),
    }
    found = {name: file.to_bytes() for name, file in files.items()}
    return found | {"split": b"".join(part.to_bytes() for part in split(smallest("phi3"), 2))}


if __name__ == "__main__":
    folder = HERE / "seeds" / "gguf_header"
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in seeds().items():
        (folder / name).write_bytes(data)
