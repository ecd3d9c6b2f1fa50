"""What is measured, and what phicandle has to reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PHI, SMOL = "phi-3-mini shape", "SmolLM2-135M"

PHICANDLE, CANDLE = "phicandle", "candle backend"
LLAMA, MISTRAL, OPENVINO = "llama.cpp", "mistral.rs", "openvino-genai"
#: The columns of the tables.
ENGINES = (PHICANDLE, LLAMA, CANDLE, MISTRAL, OPENVINO)

#: Why some engines are left out of some measures; said in the table's notes.
ONE_SEQUENCE = "it decodes one sequence at a time"
NO_SHARED_PASS = "its Python runner takes one request at a time, and several choices of one end with an error"  # noqa: S105
SLOW_PROMPT = "its prompt alone takes minutes; --full measures it"
NO_GUESSES = "it has no way to check given tokens"
#: openvino-genai's reader of GGUF files knows neither the architecture nor the types.
NO_PHI = "openvino-genai does not read this file"


@dataclass(frozen=True)
class Measure:
    """Something that a runner does; `operation` and `arguments` are those of `runners/wire.py`."""

    name: str
    model: str
    operation: str
    arguments: Mapping[str, int] = field(default_factory=dict)
    #: Settings beyond the defaults: `kv`, `tier`, `memory`.
    options: Mapping[str, str] = field(default_factory=dict)
    one_thread: bool = False
    engines: tuple[str, ...] = ENGINES
    #: Engines that cannot, or only with `--full`, and why.
    without: Mapping[str, str] = field(default_factory=dict)
    #: Whether phicandle's samples have the machine's limits of just before and after: a share of them is a target.
    limits: bool = False

    def tokens(self) -> int:
        """Tokens that the measured seconds are for."""
        tokens = self.arguments.get("tokens", 0)
        return tokens * self.arguments.get("sequences", 1)

    def context(self) -> int:
        """Tokens of context that a step sees on average."""
        return self.arguments.get("depth", 0) + self.arguments.get("tokens", 0) // 2


@dataclass(frozen=True)
class Target:
    """What phicandle has to reach at a point: at least `factor` times something, or `most` at most."""

    #: `peer`: the best figure of `of`, an engine; `own`: phicandle's figure at `of`, a point; `share`: the machine's
    #: limit; `most`: nothing, the figure itself must not be more than `factor`; `file`: the size of the model file.
    kind: str
    factor: float
    of: str = ""
    #: The point at which to look for the peer's figure, when it is not this one.
    at: str = ""


@dataclass(frozen=True)
class Point:
    """A row of the table: one field of what a measure gives."""

    name: str
    title: str
    measure: str
    field: str = "rate"
    unit: str = "tok/s"
    lower_is_better: bool = False
    targets: Sequence[Target] = ()


_UP_TO_2048: Mapping[str, str] = {OPENVINO: NO_PHI, CANDLE: SLOW_PROMPT, MISTRAL: SLOW_PROMPT}
_BATCH: Mapping[str, str] = {OPENVINO: NO_PHI, CANDLE: ONE_SEQUENCE, MISTRAL: NO_SHARED_PASS}
_TIER = {"tier": "avx2"}


def _batch(sequences: int) -> Measure:
    arguments = {"sequences": sequences, "depth": 128, "tokens": 8}
    return Measure(f"batch-{sequences}", PHI, "batch", arguments, without=_BATCH)


#: In the order in which they are taken. Contexts are means: decoding goes from a little before to a little after.
MEASURES = (
    Measure("prefill-512", PHI, "prefill", {"tokens": 512}, without={OPENVINO: NO_PHI}, limits=True),
    Measure(
        "decode-128", PHI, "decode", {"depth": 128, "tokens": 16}, without={OPENVINO: NO_PHI}, limits=True
    ),
    Measure("decode-2048", PHI, "decode", {"depth": 2040, "tokens": 16}, without=_UP_TO_2048, limits=True),
    Measure("decode-4096", PHI, "decode", {"depth": 4072, "tokens": 16}, without=_UP_TO_2048),
    Measure(
        "decode-4096-q8", PHI, "decode", {"depth": 4072, "tokens": 16}, {"kv": "q8"}, engines=(PHICANDLE,)
    ),
    _batch(4),
    _batch(8),
    _batch(16),
    Measure(
        "verify-5", PHI, "verify", {"depth": 128, "guesses": 5, "repeats": 8}, engines=(PHICANDLE, LLAMA)
    ),
    Measure("prefill-512-1", PHI, "prefill", {"tokens": 512}, one_thread=True, engines=(PHICANDLE, LLAMA)),
    Measure("prefill-512-avx2", PHI, "prefill", {"tokens": 512}, _TIER, engines=(PHICANDLE, LLAMA)),
    Measure(
        "decode-128-avx2", PHI, "decode", {"depth": 128, "tokens": 16}, _TIER, engines=(PHICANDLE, LLAMA)
    ),
    Measure("load-repack", PHI, "open", {}, {"memory": "repack"}, without={OPENVINO: NO_PHI}),
    Measure("load-mmap", PHI, "open", {}, {"memory": "mmap"}, engines=(PHICANDLE, LLAMA)),
    Measure("smol-prefill-128", SMOL, "prefill", {"tokens": 128}),
    Measure("smol-decode-64", SMOL, "decode", {"depth": 128, "tokens": 64}),
    Measure("python", SMOL, "stream", {"tokens": 64}, engines=(PHICANDLE,)),
)

_AHEAD = "decode-128"
POINTS = (
    Point(
        "prefill-512",
        "prefill 512",
        "prefill-512",
        targets=(Target("peer", 1.8, LLAMA), Target("share", 0.65), Target("own", 1.9, "prefill-512-1")),
    ),
    Point(
        "decode-128",
        "decode, context 128",
        "decode-128",
        targets=(Target("peer", 1.2, LLAMA), Target("share", 0.90)),
    ),
    Point(
        "decode-2048",
        "decode, context 2,048, f16 KV",
        "decode-2048",
        targets=(Target("peer", 1.7, LLAMA), Target("share", 0.85)),
    ),
    Point("decode-4096", "decode, context 4,080, f16 KV", "decode-4096"),
    Point(
        "decode-4096-q8",
        "decode, context 4,080, q8 KV",
        "decode-4096-q8",
        targets=(Target("own", 1.2, "decode-4096"),),
    ),
    Point("batch-4", "4 sequences together, context 128", "batch-4", targets=(Target("peer", 2.2, LLAMA),)),
    Point("batch-8", "8 sequences together, context 128", "batch-8", targets=(Target("peer", 3.0, LLAMA),)),
    Point(
        "batch-16", "16 sequences together, context 128", "batch-16", targets=(Target("peer", 3.0, LLAMA),)
    ),
    Point(
        "verify-5",
        "checking 5 guessed tokens",
        "verify-5",
        "steps",
        "steps",
        lower_is_better=True,
        targets=(Target("most", 1.25),),
    ),
    Point("prefill-512-1", "prefill 512, 1 thread", "prefill-512-1"),
    Point(
        "prefill-512-avx2",
        "prefill 512, AVX2 only",
        "prefill-512-avx2",
        targets=(Target("peer", 1.0, LLAMA), Target("peer", 1.0, CANDLE, at="prefill-512")),
    ),
    Point(
        "decode-128-avx2",
        "decode, context 128, AVX2 only",
        "decode-128-avx2",
        targets=(Target("peer", 1.0, LLAMA), Target("peer", 1.0, CANDLE, at="decode-128")),
    ),
    Point(
        "smol-prefill-128", "SmolLM2: prefill 128", "smol-prefill-128", targets=(Target("peer", 5.0, LLAMA),)
    ),
    Point(
        "smol-decode-64",
        "SmolLM2: decode, context 160",
        "smol-decode-64",
        targets=(Target("peer", 1.6, LLAMA),),
    ),
    Point(
        "load-repack",
        "load, weights repacked",
        "load-repack",
        "load_s",
        "s",
        lower_is_better=True,
        targets=(Target("most", 1.5),),
    ),
    Point(
        "load-mmap",
        "load, weights left in the file",
        "load-mmap",
        "load_s",
        "s",
        lower_is_better=True,
        targets=(Target("most", 0.1),),
    ),
    Point(
        "peak-repack",
        "peak memory of loading, repacked",
        "load-repack",
        "peak",
        "GB",
        lower_is_better=True,
        targets=(Target("file", 1.08),),
    ),
    Point(
        "private-mmap",
        "private memory, weights left in the file",
        "load-mmap",
        "private",
        "GB",
        lower_is_better=True,
        targets=(Target("file", 0.10),),
    ),
    Point(
        "between",
        "between passes, a token",
        _AHEAD,
        "between_s",
        "us",
        lower_is_better=True,
        targets=(Target("most", 50e-6),),
    ),
    Point(
        "python",
        "what Python adds to a chunk",
        "python",
        "python_s",
        "us",
        lower_is_better=True,
        targets=(Target("most", 20e-6),),
    ),
)

#: What `--quick` measures.
QUICK = ("prefill-512", "decode-128", "batch-4", "smol-prefill-128", "smol-decode-64")

BY_NAME: dict[str, Measure] = {measure.name: measure for measure in MEASURES}


def work(measure: Measure, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Bytes that the measured tokens make a machine read, and 8-bit operations that they make it do.

    `sizes` has `decode_bytes`, `layer_macs`, `output_macs` and `kv_bytes` (of a token, in f16 or as `kv_q8_bytes`).
    """
    tokens = measure.tokens()
    layers, output = 2 * sizes["layer_macs"], 2 * sizes["output_macs"]
    if measure.operation == "prefill":
        return {"bytes": sizes["decode_bytes"], "ops": layers * tokens + output}
    if measure.operation in {"decode", "batch"}:
        sequences = measure.arguments.get("sequences", 1)
        kv = sizes["kv_q8_bytes" if measure.options.get("kv") == "q8" else "kv_bytes"]
        step = sizes["decode_bytes"] + sequences * measure.context() * kv
        return {"bytes": step * measure.arguments["tokens"], "ops": (layers + output) * tokens}
    return {}
