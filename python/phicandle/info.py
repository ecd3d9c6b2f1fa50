"""Facts about a model, a plan, an engine and this machine."""

from __future__ import annotations

from . import _phicandle
from .record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Facts(Record):
    """A record that is filled with exactly its fields."""

    __slots__ = ()

    def __init__(self, **facts: Any) -> None:
        self._fill(facts)


class MemoryPlan(_Facts):
    """What a model needs, in bytes, against what there is. See `Generator.estimate`.

    Attributes:
        weights_bytes: Weights as the backend holds them.
        mapped_bytes: Weights that stay in the file, in pages which the system shares between processes and takes
            back when it must. Not part of the total.
        kv_bytes: Keys and values of `context_length` tokens, which all answers share: fewer where a sliding window
            keeps fewer, at least twice a long-rope model's original context where the context is longer than that.
        scratch_bytes: Working memory of the widest pass and of each thread, and the tokenizer.
        total_bytes: Weights, keys and values, and scratch.
        available_bytes: What this process may still take now, or `memory=` where that is less.
        context_length: Tokens of context that the plan is for.
        fits: Whether `total_bytes` is within `available_bytes`.

    Example:
        >>> from phicandle import Generator
        >>> Generator.estimate("demo").fits
        True
    """

    __slots__ = (  # noqa: RUF023 - the order of the fields
        "weights_bytes",
        "mapped_bytes",
        "kv_bytes",
        "scratch_bytes",
        "total_bytes",
        "available_bytes",
        "context_length",
        "fits",
    )

    weights_bytes: int
    mapped_bytes: int
    kv_bytes: int
    scratch_bytes: int
    total_bytes: int
    available_bytes: int
    context_length: int
    fits: bool


class ModelInfo(_Facts):
    """What was loaded, and how. See `Generator.info`.

    Attributes:
        name: The model's name as its file gives it, or the file's own name.
        source: The path of the file.
        architecture: "phi3", "phi2", "phimoe" or "llama".
        parameters: Number of weights.
        quantisation: Tensor types, the largest share first: (type, number of tensors, bytes).
        vocab_size: Tokens of the vocabulary.
        context_length: Tokens that prompt and answer may hold here.
        trained_context_length: Tokens that the model was made for.
        layers: Number of layers.
        embedding_length: Width of the hidden state.
        heads: Query heads.
        kv_heads: Key and value heads.
        rope_base: Base of the rotary position embedding.
        rope_scaling: "none", "linear", "longrope" or "yarn".
        sliding_window: Tokens that attention looks back over; `None` = all.
        chat_template: The chat template's source.
        has_chat_template: Whether the template came from the file or the caller; `False` = that of the
            vocabulary's family was taken.
        backend: What computes: "native" or "candle".
        device: Where: "cpu", "cuda:0" or "metal".
        memory: The memory that was planned for.
        load_s: Seconds that loading took.

    Example:
        >>> from phicandle import Generator
        >>> Generator("demo").info.architecture
        'phi3'
    """

    __slots__ = (  # noqa: RUF023 - the order of the fields
        "name",
        "source",
        "architecture",
        "parameters",
        "quantisation",
        "vocab_size",
        "context_length",
        "trained_context_length",
        "layers",
        "embedding_length",
        "heads",
        "kv_heads",
        "rope_base",
        "rope_scaling",
        "sliding_window",
        "chat_template",
        "has_chat_template",
        "backend",
        "device",
        "memory",
        "load_s",
    )

    name: str
    source: str
    architecture: str
    parameters: int
    quantisation: tuple[tuple[str, int, int], ...]
    vocab_size: int
    context_length: int
    trained_context_length: int
    layers: int
    embedding_length: int
    heads: int
    kv_heads: int
    rope_base: float
    rope_scaling: str
    sliding_window: int | None
    chat_template: str
    has_chat_template: bool
    backend: str
    device: str
    memory: MemoryPlan
    load_s: float


class EngineStats(_Facts):
    """What a generator is doing now, and what it has done. See `Generator.stats`.

    Attributes:
        queued: Requests that wait.
        active: Requests being answered.
        finished: Requests that have ended, in any way.
        preempted: Times that a request gave its place back before its end, for want of memory or for one of higher
            priority. It goes on later, and its text stays what it was.
        prompt_tokens: Tokens of prompts computed.
        cached_tokens: Tokens of prompts that were there already, of the requests ended.
        completion_tokens: Tokens written, of the requests ended.
        accepted_guesses: Tokens of `completion_tokens` that came of right guesses.
        kv_bytes: Bytes of keys and values held by requests being answered; shared ones count for each.
        cache_bytes: Bytes of keys and values kept for prompts to come, which give way when requests need the memory.
        hit_rate: The share of the prompts' tokens that was there already, 0.0 to 1.0.
        passes: Passes of the model.
        batch_size: Requests answered in one pass, on average over the last ones.
        tokens_per_second: Tokens written per second of computing, over the last passes.

    Example:
        >>> from phicandle import Generator
        >>> Generator("demo").stats.active
        0
    """

    __slots__ = (  # noqa: RUF023 - the order of the fields
        "queued",
        "active",
        "finished",
        "preempted",
        "prompt_tokens",
        "cached_tokens",
        "completion_tokens",
        "accepted_guesses",
        "kv_bytes",
        "cache_bytes",
        "hit_rate",
        "passes",
        "batch_size",
        "tokens_per_second",
    )

    queued: int
    active: int
    finished: int
    preempted: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    accepted_guesses: int
    kv_bytes: int
    cache_bytes: int
    hit_rate: float
    passes: int
    batch_size: float
    tokens_per_second: float


class CpuInfo(_Facts):
    """What phicandle sees of this machine's processor. See `cpu_info`.

    Attributes:
        arch: For example "x86_64" or "aarch64".
        features: Instruction sets found that matter to a kernel, for example "avx2".
        tiers: Kernel tiers that run here, the best last.
        tier: The tier in use: the best one, or the one that the environment variable `PHICANDLE_ISA` names.
        threads: Threads that compute unless another number is asked for.

    Example:
        >>> from phicandle import cpu_info
        >>> cpu_info().threads >= 1
        True
    """

    __slots__ = ("arch", "features", "tiers", "tier", "threads")  # noqa: RUF023 - the order of the fields

    arch: str
    features: tuple[str, ...]
    tiers: tuple[str, ...]
    tier: str
    threads: int


def cpu_info() -> CpuInfo:
    """Returns what phicandle sees of this machine's processor.

    Raises:
        UnsupportedCpuError: `PHICANDLE_ISA` names a tier that this CPU lacks.
        InvalidParameterError: `PHICANDLE_ISA` names an unknown tier.

    Example:
        >>> from phicandle import cpu_info
        >>> cpu_info().tier in cpu_info().tiers
        True
    """
    return CpuInfo(**_phicandle.cpu_info())


def model_info(facts: dict[str, Any]) -> ModelInfo:
    """Returns the core's facts about a model as a record."""
    return ModelInfo(**(facts | {"memory": MemoryPlan(**facts["memory"])}))
