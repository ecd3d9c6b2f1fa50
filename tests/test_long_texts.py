"""Texts that outgrow a long-rope model's original context or a sliding window, against the float64 reference."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_files import tiny
from reference import KERNEL, Model, nmse
from test_native import BOUND, DOUBTFUL_HALVES, Logits, prompts

from phicandle import Completion, Generator, InvalidParameterError

#: The original context of `SHAPE`, and all of it.
BORDER, CONTEXT = 64, 256
SHAPE: dict[str, Any] = {"scaling": "longrope", "context": CONTEXT}
#: How far halves of keys and values may move a log-probability; the wrong factors move some of them more than ten times
#: as far.
CLOSE = 1e-3


@pytest.fixture(scope="module")
def logits() -> Logits:
    return Logits()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "longrope.gguf"
    tiny(**SHAPE).write(path)
    return path


@pytest.fixture(scope="module")
def generator(path: Path) -> Iterator[Generator]:
    with Generator(path, threads=2, context_length=CONTEXT) as generator:
        yield generator


@pytest.mark.parametrize("arch", ["phi3", "phimoe"])
def test_prompts_have_the_factors_of_their_length(logits: Logits, arch: str, tmp_path: Path) -> None:
    path = tmp_path / f"{arch}.gguf"
    tiny(arch, **SHAPE).write(path)
    for length in (1, BORDER - 1, BORDER, BORDER + 1, 3 * BORDER + 5):
        (prompt,) = prompts(1, [length], seed=length)
        model = Model(path, KERNEL, context=length)
        trace = model.run(prompt)
        (found,) = logits(path, [prompt], f"context={CONTEXT}", "chunk=50", width=trace.logits.shape[1])
        clear = ~trace.doubtful
        assert nmse(found, trace.logits) <= DOUBTFUL_HALVES
        assert not clear.any() or nmse(found[clear], trace.logits[clear]) <= BOUND
        other = Model(path, KERNEL, context=1 if length > BORDER else CONTEXT).logits(prompt)
        assert length == 1 or nmse(found, other) > 1e-4, "the other factors give other numbers"


def write(generator: Generator, prompt: list[int], tokens: int) -> Completion:
    return generator.generate(
        prompt, max_tokens=tokens, temperature=0.0, repeat_penalty=1.0, ignore_eos=True, logprobs=0
    )


def logprobs(completion: Completion) -> list[float]:
    assert completion.logprobs is not None
    return [token.logprob for token in completion.logprobs]


@pytest.mark.parametrize("length", [1, 20, BORDER - 1, BORDER, BORDER + 1, 2 * BORDER])
def test_texts_that_cross_have_the_published_numbers(generator: Generator, path: Path, length: int) -> None:
    (prompt,) = prompts(1, [length], seed=length)
    written = write(generator, prompt, 100)
    text = [*prompt, *written.token_ids]

    @cache
    def rows(context: int) -> Any:
        logits = Model(path, KERNEL, context=context).logits(text)
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    off, off_otherwise = [], [0.0]
    for place, found in enumerate(logprobs(written)):
        read = length + place
        likely = rows(read if read <= BORDER else CONTEXT)[read - 1, text[read]]
        off.append(abs(found - likely))
        if read > BORDER:
            off_otherwise.append(abs(found - rows(BORDER)[read - 1, text[read]]))
    assert max(off) < CLOSE
    assert max(off_otherwise) > 10 * CLOSE


def test_a_text_that_crosses_has_the_bits_of_one_that_is_read_at_once(
    generator: Generator, path: Path
) -> None:
    """Whatever is written beside it, on however many threads."""
    (prompt,) = prompts(1, [30])
    alone = write(generator, prompt, 80)
    for place in range(BORDER - 30 - 2, 80, 7):
        at_once = write(generator, [*prompt, *alone.token_ids[:place]], 1)
        assert logprobs(at_once)[0] == logprobs(alone)[place]
        assert at_once.token_ids[0] == alone.token_ids[place]
    for threads in (1, 3):
        with Generator(path, threads=threads, context_length=CONTEXT) as other:
            beside = [
                other.stream(ids, max_tokens=150, temperature=0.0, repeat_penalty=1.0, ignore_eos=True)
                for ids in prompts(3, [5, BORDER - 2, BORDER + 30])
            ]
            found = write(other, prompt, 80)
            for stream in beside:
                stream.result()
        assert (found.token_ids, logprobs(found)) == (alone.token_ids, logprobs(alone))


def test_memory_is_planned_for_both_readings(path: Path) -> None:
    block = Generator.estimate(path, context_length=1).kv_bytes
    assert Generator.estimate(path, context_length=BORDER).kv_bytes == block
    assert Generator.estimate(path, context_length=BORDER + 1).kv_bytes == 2 * block
    assert Generator.estimate(path, context_length=CONTEXT).kv_bytes == 4 * block
    with Generator(path) as generator:
        assert generator.info.context_length == CONTEXT
        assert write(generator, [5], BORDER + 40).metrics.kv_bytes == 2 * block, "one reading is left"
        assert generator.stats.kv_bytes == 0


WINDOW = 70


@pytest.mark.parametrize("sliding", ["file", None])
def test_windows_hold_unless_they_are_turned_off(sliding: Any, tmp_path: Path) -> None:
    path = tmp_path / "window.gguf"
    tiny(window=WINDOW, context=1024).write(path)
    model = Model(path, KERNEL)
    if sliding is None:
        model.window = None
    (prompt,) = prompts(1, [300])
    block = Generator.estimate(path, context_length=1).kv_bytes
    with Generator(path, sliding_window=sliding) as generator:
        written = write(generator, prompt, 100)
        assert generator.info.sliding_window == (WINDOW if sliding else None)
    text = [*prompt, *written.token_ids]
    rows = model.logits(text)
    rows -= np.log(np.exp(rows).sum(-1, keepdims=True))
    likely = rows[np.arange(299, 399), text[300:]]
    assert np.abs(likely - logprobs(written)).max() < CLOSE
    # 399 tokens were read: those that the last one sees are in the last two blocks.
    assert written.metrics.kv_bytes == (2 * block if sliding else 7 * block)


def test_memory_is_planned_for_what_windows_hold(tmp_path: Path) -> None:
    path = tmp_path / "window.gguf"
    tiny(window=WINDOW, context=2**17).write(path)
    block = Generator.estimate(path, context_length=1).kv_bytes
    # 16 sequences with the window and a run of 192 tokens, in whole blocks, wherever they begin in one.
    assert Generator.estimate(path, context_length=2**17).kv_bytes == 16 * (5 + 1) * block
    assert Generator.estimate(path, context_length=4096).kv_bytes == 64 * block
    assert Generator.estimate(path, context_length=2**17, sliding_window=None).kv_bytes == 2048 * block


def test_a_window_is_the_files_or_none(path: Path) -> None:
    wrong: Any
    for wrong in (True, 0, 4096, "none"):
        with pytest.raises(InvalidParameterError, match="sliding_window"):
            Generator(path, sliding_window=wrong)


def test_longrope_and_a_window_work_together(tmp_path: Path) -> None:
    """Both readings let go of what has left the window."""
    path = tmp_path / "both.gguf"
    tiny(**SHAPE, window=WINDOW - 40).write(path)
    (prompt,) = prompts(1, [12])
    with Generator(path) as generator:
        written = write(generator, prompt, 200)
    text = [*prompt, *written.token_ids]
    short, long = (Model(path, KERNEL, context=context).logits(text) for context in (BORDER, CONTEXT))
    rows = np.concatenate([short[:BORDER], long[BORDER:]])
    rows -= np.log(np.exp(rows).sum(-1, keepdims=True))
    likely = rows[np.arange(11, 211), text[12:]]
    assert np.abs(likely - logprobs(written)).max() < CLOSE


def test_continuations_are_scored_behind_a_window_and_beyond_the_original_context(tmp_path: Path) -> None:
    """The end of the prompt has left the window when the first continuation is done."""
    path = tmp_path / "both.gguf"
    tiny(**SHAPE, window=20).write(path)
    prompt, *continuations = prompts(3, [40, 70, 90])
    with Generator(path) as generator:
        found = generator.score(prompt, continuations)
    model = Model(path, KERNEL, context=CONTEXT)
    for score, tokens in zip(found, continuations, strict=True):
        rows = model.logits([*prompt, *tokens])
        rows -= np.log(np.exp(rows).sum(-1, keepdims=True))
        likely = rows[np.arange(39, 39 + len(tokens)), tokens]
        assert np.abs(likely - [token.logprob for token in score.logprobs]).max() < CLOSE
