"""What candle-transformers' models would run wrongly is refused by name; what is left runs."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf_files import DTYPES, Gguf, tiny

from phicandle import Generator, UnsupportedModelError

ONES = struct.pack("<8f", *[1.0] * 8)


def long_factors(file: Gguf) -> Gguf:
    """LongRoPE, as the 128k models have it."""
    file.set("phi3.rope.scaling.type", "str", "longrope").set(
        "phi3.rope.scaling.original_context_length", "u32", 64
    )
    for name in ("long", "short"):
        file.add(f"rope_factors_{name}.weight", [8], data=ONES)
    return file


def linear(file: Gguf) -> Gguf:
    """Positions divided by two."""
    return file.set("phi3.rope.scaling.type", "str", "linear").set("phi3.rope.scaling.factor", "f32", 2.0)


REFUSED: dict[str, tuple[Callable[[], Gguf], str]] = {
    "another rope base": (lambda: tiny(rope_base=250_000.0), "rope base is 250000"),
    "long-context factors": (lambda: long_factors(tiny()), "LongRoPE"),
    "linear scaling": (lambda: linear(tiny()), "scaled by 2"),
    "partial rotary": (lambda: tiny(rope_dim=8), "8 of 16 dimensions"),
    "tied embeddings": (lambda: tiny(tied=True), "tied"),
    "heads not as wide as the embeddings": (lambda: tiny(head_dim=32), "4 heads of 32"),
    "frequency factors": (
        lambda: tiny("llama").add("rope_freqs.weight", [8], data=ONES),
        "frequency factors",
    ),
    "biases": (lambda: tiny("llama").add("blk.0.attn_q.bias", [64]), "biases"),
    "a norm's bias": (lambda: tiny("llama").add("blk.0.attn_norm.bias", [64]), "biases"),
    "phi2": (lambda: tiny("phi2"), "no model for the architecture `phi2`"),
    "phimoe": (lambda: tiny("phimoe"), "no model for the architecture `phimoe`"),
}


@pytest.mark.parametrize("quant", ["IQ4_NL", "IQ4_XS", "Q8_1", "Q8_K"])
def test_weights_that_candle_does_not_have(quant: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    file = tiny(embd=256, ff=256, heads=4, head_dim=64)
    tensor = file.tensor("blk.1.ffn_down.weight")
    number, elements, size = DTYPES[quant]
    tensor.dtype, tensor.data = number, bytes(256 * 256 // elements * size)
    file.write(path)
    for call in (Generator, Generator.estimate):
        with pytest.raises(UnsupportedModelError, match=f"candle backend .* {quant}") as caught:
            call(path, backend="candle")
        assert caught.value.quant == quant
        assert ("native backend" in str(caught.value)) == quant.startswith("IQ4")


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    make, words = REFUSED[name]
    path = tmp_path / "model.gguf"
    make().write(path)
    for call in (Generator, Generator.estimate):
        with pytest.raises(UnsupportedModelError, match=words) as caught:
            call(path, backend="candle")
        assert caught.value.arch in ("phi2", "phi3", "phimoe", "llama")
        assert caught.value.hint


def test_another_base_and_tied_embeddings_are_fine_for_llama(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    tiny("llama", rope_base=100_000.0, tied=True).write(path)
    with Generator(path, backend="candle") as generator:
        assert generator.generate("ice", max_tokens=3).usage.completion_tokens > 0


def test_the_context_ends_at_the_window(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "model.gguf"
    tiny(context=256).set("phi3.attention.sliding_window", "u32", 100).write(path)
    with caplog.at_level(logging.WARNING, "phicandle"), Generator(path, backend="candle") as generator:
        assert generator.info.context_length == 100
        assert generator.info.trained_context_length == 256
        answer = generator.generate("ice", max_tokens=None, ignore_eos=True)
        assert answer.finish_reason == "length"
        assert answer.usage.total_tokens == 100
    assert any("100 tokens, not the file's 256" in record.getMessage() for record in caplog.records)
    with pytest.raises(UnsupportedModelError, match="looks back over 100"):
        Generator(path, backend="candle", context_length=101)


def test_llama_ends_where_its_rope_table_does(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    tiny("llama", context=8192).write(path)
    with Generator(path, backend="candle") as generator:
        assert generator.info.context_length == 4096
    with pytest.raises(UnsupportedModelError, match="4096 positions"):
        Generator(path, backend="candle", context_length=4097)


def test_a_context_past_the_models_own_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    tiny(context=64).write(path)
    with pytest.raises(UnsupportedModelError, match="made for 64"):
        Generator(path, backend="candle", context_length=65)
