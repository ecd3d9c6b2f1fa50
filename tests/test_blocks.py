"""The reference itself: its weights against ggml's own Python package, its parts against what must hold for them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf_blocks import DTYPES, WEIGHTS
from gguf_files import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import BLOCKS, EXACT, KERNEL, KERNEL_Q8, Model, dequantise, nmse, read
from reference.attention import attention
from reference.experts import sparse_mixer
from reference.numerics import eight_bits

#: Blocks whose largest number is smaller than this become zeros: 127 over it is no float32.
NOTHING = 3.8e-37
IDS = [1, 262, 300, 17, 340, 341, 5, 290, 311, 8, 8, 360]


def test_every_weight_type_is_here() -> None:
    assert set(BLOCKS) == set(WEIGHTS)
    for kind, block in BLOCKS.items():
        assert DTYPES[kind] == (block.number, block.elements, block.size)
        theirs = gguf.GGMLQuantizationType[kind]
        assert theirs.value == block.number
        assert gguf.GGML_QUANT_SIZES[theirs] == (block.elements, block.size)


@pytest.mark.parametrize("kind", WEIGHTS)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_weights_are_those_of_ggmls_package(kind: str, data: st.DataObject) -> None:
    """Random bytes, every scale and quant among them, give the same numbers to the bit."""
    size = BLOCKS[kind].size
    raw = data.draw(
        st.binary(min_size=size, max_size=8 * size).map(lambda raw: raw[: len(raw) // size * size])
    )
    with np.errstate(over="ignore", invalid="ignore"):
        theirs = gguf.quants.dequantize(np.frombuffer(raw, np.uint8), gguf.GGMLQuantizationType[kind])
        ours = dequantise(raw, kind).astype(np.float32)
    theirs = theirs.reshape(-1)
    finite = np.isfinite(theirs)
    assert np.array_equal(finite, np.isfinite(ours))
    assert np.array_equal(ours[finite].view(np.uint32), theirs[finite].view(np.uint32))


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=64, max_size=64),
)
def test_eight_bits(values: list[float]) -> None:
    """No element is further off than half a step, the largest is kept, and zeros stay zeros."""
    x = np.array([values])
    rounded, _ = eight_bits(x, 32)
    for before, after in zip(x.reshape(-1, 32), rounded.reshape(-1, 32), strict=True):
        step = np.abs(before).max() / 127
        assert np.abs(after - before).max() <= step * 0.500_01 + NOTHING
        assert np.abs(after).max() == pytest.approx(np.abs(before).max(), rel=1e-6, abs=NOTHING)
        assert (after[before == 0] == 0).all()


def test_eight_bits_of_integers_with_127_among_them_are_exact() -> None:
    x = np.arange(-128.0, 128.0)[None]
    x[0, 0] = 127.0
    rounded, doubtful = eight_bits(x, 256)
    assert np.array_equal(rounded, x)
    assert not doubtful.any()
    halves = np.array([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]])
    rounded, doubtful = eight_bits(halves, 6)
    assert rounded.tolist() == [[127.0, 0.0, 2.0, 2.0, 0.0, -2.0]]
    assert doubtful.all()


def test_a_window_of_one_sees_itself_alone() -> None:
    q, k, v = np.random.default_rng(1).normal(size=(3, 9, 4, 8))
    assert np.allclose(attention(q, k, v, 1), v)
    assert np.allclose(attention(q, k, v, 9), attention(q, k, v, None))
    assert np.allclose(attention(q, k, v, 4)[-1], attention(q[5:], k[5:], v[5:], None)[-1])


def write(path: Path, **options: Any) -> Path:
    tiny(**options).write(path)
    return path


SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped heads": {"heads": 8, "kv_heads": 2, "head_dim": 8},
    "part of a head turns": {"rope_dim": 8},
    "window": {"window": 5},
    "linear": {"scaling": "linear"},
    "yarn": {"scaling": "yarn", "head_dim": 32},
    "longrope": {"scaling": "longrope"},
    "llama3": {"scaling": "llama3"},
    "biases": {"biases": True},
    "tied": {"tied": True},
    "other base": {"rope_base": 1e6},
    "random blocks": {"dtype": "Q5_1"},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_one_model_as_phi3_and_as_llama(shape: str, tmp_path: Path) -> None:
    """The two layouts, and the two orders of rope, are one model; and what the shape changes, it does change."""
    phi3, llama = (write(tmp_path / arch, arch=arch, **SHAPES[shape]) for arch in ("phi3", "llama"))
    for numerics in (EXACT, KERNEL):
        assert nmse(Model(llama, numerics).logits(IDS), Model(phi3, numerics).logits(IDS)) < 1e-24
    if shape != "plain":
        plain = Model(write(tmp_path / "plain")).logits(IDS)
        assert nmse(Model(phi3).logits(IDS), plain) > 1e-6


@pytest.mark.parametrize("shape", ["plain", "grouped heads", "part of a head turns", "random blocks"])
def test_phi2_with_q_k_and_v_in_one_and_apart(shape: str, tmp_path: Path) -> None:
    one, apart = (
        write(tmp_path / str(fused), arch="phi2", fused=fused, **SHAPES[shape]) for fused in (True, False)
    )
    assert len(read(one).tensors) < len(read(apart).tensors)
    assert nmse(Model(one).logits(IDS), Model(apart).logits(IDS)) < 1e-24


def test_layer_norm_is_what_it_says(tmp_path: Path) -> None:
    """Without weights and bias: mean 0 and, but for epsilon, variance 1, whatever is added to all of a row."""
    model = Model(write(tmp_path / "m", arch="phi2"))
    x = np.random.default_rng(2).normal(3, 2, (5, 64))
    model.weights |= {"a.weight": np.ones(64), "a.bias": np.zeros(64)}
    normed = model.norm(x, "a")
    assert np.allclose(normed.mean(-1), 0)
    assert np.allclose(normed.var(-1), 1, atol=1e-4)
    assert np.allclose(model.norm(x + 7, "a"), normed)


def test_blocks_of_phi2_do_not_see_each_other(tmp_path: Path) -> None:
    """With one of their last matrices zero, what is left of a layer is the other block."""
    model = Model(write(tmp_path / "m", arch="phi2", layers=1))
    whole = model.run(IDS).hidden[0]
    halves = []
    for name in ("attn_output", "ffn_down"):
        kept = {key: model.weights[key] for key in (f"blk.0.{name}.weight", f"blk.0.{name}.bias")}
        model.weights |= {key: np.zeros_like(value) for key, value in kept.items()}
        halves.append(model.run(IDS).hidden[0])
        model.weights |= kept
    x = model.weights["token_embd.weight"][IDS]
    assert np.allclose(whole - x, sum(half - x for half in halves))
    # As torch.nn.functional.gelu(2.0, approximate="tanh") says it.
    assert 0.5 * 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (2 + 0.044715 * 8))) == pytest.approx(
        1.954597694087775
    )


def test_sparse_mixer_by_hand() -> None:
    weights, doubtful = sparse_mixer(np.array([[1.0, 2.0, 1.97], [-4.0, -2.0, -2.03], [5.0, 5.0, 1.0]]))
    # 1.5 % below the best one counts beside it; without it, it stands alone.
    share = 1 / (1 + np.exp(-0.03))
    assert weights == pytest.approx(np.array([[0, share, 1], [0, share, 1], [0.5, 1, 0]]))
    assert doubtful.tolist() == [False, False, True]


def test_equal_experts_are_one_block(tmp_path: Path) -> None:
    """Of experts that are all alike, a mixture is one of them, times the sum of both weights."""
    model = Model(write(tmp_path / "m", arch="phimoe", experts=3))
    names = [f"blk.0.ffn_{part}_exps.weight" for part in ("gate", "up", "down")]
    for name in names:
        model.weights[name] = np.repeat(model.weights[name][:1], 3, 0)
    x = np.random.default_rng(3).normal(size=(7, 64))
    model.doubtful = np.zeros(7, bool)
    gate, up, down = (model.weights[name][0] for name in names)
    one = (x @ gate.T / (1 + np.exp(-x @ gate.T)) * (x @ up.T)) @ down.T
    weights, _ = sparse_mixer(x @ model.weights["blk.0.ffn_gate_inp.weight"].T)
    assert ((weights > 0).sum(-1) == 2).all()
    assert np.allclose(model.mixture(x, "blk.0"), one * weights.sum(-1, keepdims=True))


def test_a_stretch_by_one_is_none(tmp_path: Path) -> None:
    plain = Model(write(tmp_path / "plain")).logits(IDS)
    for kind in ("linear", "yarn", "longrope", "llama3"):
        file = tiny(scaling=kind)
        if kind in ("linear", "yarn"):
            file.set("phi3.rope.scaling.factor", "f32", 1.0)
        if kind == "longrope":
            file.set("phi3.rope.scaling.attn_factor", "f32", 1.0)
        for tensor in file.tensors:
            if tensor.name.startswith(b"rope"):
                tensor.data = struct.pack("<8f", *[1.0] * 8)
        file.write(tmp_path / kind)
        assert nmse(Model(tmp_path / kind).logits(IDS), plain) < 1e-24, kind


def test_long_factors_hold_for_long_contexts(tmp_path: Path) -> None:
    """Up to the first training's 64 tokens the short factors, past them the long ones."""
    path = write(tmp_path / "m", scaling="longrope", context=256)
    rope = {context: Model(path, context=context).rope for context in (64, 65, 256)}
    short, long = (read(path).tensors[f"rope_factors_{name}.weight"].values() for name in ("short", "long"))
    base = 10_000.0 ** (-np.arange(0, 16, 2) / 16)
    assert np.allclose(rope[64].frequency, base / short)
    assert np.allclose(rope[65].frequency, base / long)
    assert np.allclose(rope[256].frequency, base / long)


def test_yarn_keeps_the_fast_and_stretches_the_slow(tmp_path: Path) -> None:
    """Checked by the paper's own rule: turns within the original context, 32 and more, 1 and less."""
    path = write(tmp_path / "m", scaling="yarn", context=4096, head_dim=64)
    frequency = Model(path).rope.frequency
    base = 10_000.0 ** (-np.arange(0, 64, 2) / 64)
    turns = 1024 * base / (2 * np.pi)
    # Ramps begin and end at whole pairs: the pair on either side of a bound is mixed already.
    assert np.allclose(frequency[turns > 32 * 1.34], base[turns > 32 * 1.34])
    assert np.allclose(frequency[turns < 1 / 1.34], base[turns < 1 / 1.34] / 4)
    mixed = frequency / base
    assert (np.diff(mixed) <= 1e-12).all()
    assert Model(path).rope.scale == pytest.approx(1 + 0.1 * np.log(4))


def test_eight_bits_cost_little(tmp_path: Path) -> None:
    """The kernels' rounding is a small, and not a vanishing, part of the answer."""
    path = write(tmp_path / "m", dtype="Q4_K", embd=256, ff=256, heads=4, head_dim=64)
    exact = Model(path).logits(IDS)
    halves, bytes_ = (nmse(Model(path, numerics).logits(IDS), exact) for numerics in (KERNEL, KERNEL_Q8))
    assert 1e-6 < halves < bytes_ < 5e-3


def test_doubtful_rows_stain_what_comes_after(tmp_path: Path) -> None:
    path = write(tmp_path / "m", dtype="Q8_0", layers=2)
    long = Model(path, KERNEL).run(IDS * 20).doubtful
    assert not long[0]
    assert long[-1]
    assert (np.diff(long.astype(int)) >= 0).mean() > 0.9
