"""The private extension module: thin doors onto the Rust core. Use the classes of `phicandle` instead."""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, TypedDict, final

from .types import FinishReason

__all__ = [
    "CHUNK",
    "END",
    "LAST",
    "PENDING",
    "RawBar",
    "RawGenerator",
    "RawStream",
    "RawTokenizer",
    "RawWaker",
    "__version__",
    "check_params",
    "cpu_info",
    "estimate",
    "leave",
    "panic_for_test",
    "run_cli",
    "windows",
]

__version__: Final[str]

PENDING: Final[int]
CHUNK: Final[int]
LAST: Final[int]
END: Final[int]

_TokenLogprob: TypeAlias = tuple[int, float, bytes, tuple[tuple[int, float, bytes], ...]]
_Event: TypeAlias = tuple[int, str, tuple[int, ...], tuple[_TokenLogprob, ...] | None]
_Prompt: TypeAlias = tuple[str, str | list[int] | tuple[str, str]]
_ProgressCallback: TypeAlias = Callable[[str, int, int | None], object]

class _Options(TypedDict):
    model: str | None
    path: str | None
    filename: str | None
    revision: str | None
    tokenizer: str | None
    chat_template: str | None
    device: str
    backend: str
    threads: int | None
    context_length: int | None
    sliding_window: bool
    kv_dtype: str
    memory: str
    memory_limit: int | None
    max_batch: int
    max_queue: int
    prefix_cache: bool
    speculation: bool
    cache_dir: str | None
    token: str | None
    offline: bool | None
    bar: bool

class _Params(TypedDict):
    max_tokens: int | None
    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    repeat_penalty: float
    repeat_last_n: int
    presence_penalty: float
    frequency_penalty: float
    logit_bias: list[tuple[int, float]]
    seed: int | None
    stop: list[str]
    stop_token_ids: list[int]
    include_stop: bool
    ignore_eos: bool
    min_tokens: int
    logprobs: int | None
    prompt_logprobs: int | None
    timeout: float | None
    overflow: str
    priority: int

class _Outcome(TypedDict):
    finish_reason: FinishReason
    stop_reason: str | int | None
    usage: dict[str, Any]
    metrics: dict[str, Any]
    seed: int
    prompt_logprobs: tuple[_TokenLogprob, ...] | None
    scores: list[tuple[_TokenLogprob, ...]]

@final
class RawGenerator:
    @staticmethod
    def load(options: _Options, progress: _ProgressCallback | None) -> RawGenerator: ...
    @staticmethod
    def of_parent() -> RawGenerator: ...
    def submit(self, prompt: _Prompt, params: _Params) -> RawStream: ...
    def score(
        self,
        prompt: _Prompt,
        continuations: Sequence[str | Sequence[int]],
        top: int,
        timeout: float | None,
    ) -> RawStream: ...
    def save_prefix(self, prompt: _Prompt, turns: int, path: str) -> int: ...
    def load_prefix(self, path: str) -> int: ...
    def tokenizer(self) -> RawTokenizer: ...
    def info(self) -> dict[str, Any]: ...
    def stats(self) -> dict[str, Any]: ...
    def is_closed(self) -> bool: ...
    def close(self) -> None: ...

@final
class RawStream:
    def next(self, timeout: float | None) -> _Event: ...
    def rest(self, timeout: float | None) -> int: ...
    def written(self) -> tuple[str, tuple[int, ...], tuple[_TokenLogprob, ...] | None]: ...
    def outcome(self) -> _Outcome | None: ...
    def done(self) -> bool: ...
    def dropped(self) -> tuple[int, int]: ...
    def cancelled(self) -> bool: ...
    def cancel(self) -> None: ...
    def wake(self, waker: RawWaker, key: int) -> None: ...
    def quiet(self, quiet: bool) -> None: ...

@final
class RawBar:
    def __new__(cls, total: int | None) -> RawBar: ...
    def set(self, done: int) -> None: ...
    def finish(self) -> None: ...

@final
class RawWaker:
    def __new__(cls) -> RawWaker: ...
    def socket(self) -> int: ...
    def take_keys(self) -> list[int]: ...

@final
class RawTokenizer:
    @staticmethod
    def from_file(path: str) -> RawTokenizer: ...
    def encode(self, text: str, bos: bool | None) -> list[int]: ...
    def decode(self, ids: Sequence[int], skip_special: bool) -> str: ...
    def render_chat(self, messages: str, tools: str, add_generation_prompt: bool) -> str: ...
    def encode_chat(self, messages: str, tools: str, add_generation_prompt: bool) -> list[int]: ...
    def vocab_size(self) -> int: ...
    def bos_id(self) -> int | None: ...
    def role_ids(self) -> list[int | None]: ...
    def token(self, token_id: int) -> str | None: ...
    def eos_ids(self) -> list[int]: ...
    def special(self) -> dict[str, int]: ...

def check_params(params: _Params) -> None: ...
def estimate(options: _Options, progress: _ProgressCallback | None) -> dict[str, Any]: ...
def cpu_info() -> dict[str, Any]: ...
def run_cli(argv: list[str], demo: str) -> int: ...
def windows(length: int, window: int, stride: int) -> list[tuple[int, int, int]]: ...
def panic_for_test() -> None: ...
def leave() -> None: ...
