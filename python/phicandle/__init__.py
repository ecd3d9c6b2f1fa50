"""Microsoft's Phi models, from GGUF files, inside your process.

Example:
    >>> from phicandle import Generator
    >>> for chunk in Generator("demo").stream("Write a haiku about ice hockey"):
    ...     print(chunk, end="", flush=True)  # doctest: +SKIP

Importing the package is quiet: no output, thread, socket, signal handler or change to the environment.
Log records go to `logging.getLogger("phicandle")`.
"""

from __future__ import annotations

from .cpu import require_half_precision

require_half_precision()

from ._phicandle import __version__  # noqa: E402 - the library may use what was asked for just above
from .chunk import Chunk  # noqa: E402
from .completion import Completion, Dropped, Metrics, Usage  # noqa: E402
from .errors import (  # noqa: E402
    ChatBusyError,
    ChatFileError,
    ClosedError,
    ContextOverflowError,
    CorruptModelError,
    DeviceError,
    DownloadError,
    ForkError,
    GatedModelError,
    GenerationCancelled,
    GenerationTimeout,
    InternalError,
    InvalidParameterError,
    ModelNotFoundError,
    ModelReadError,
    NumericalError,
    OfflineError,
    OutOfMemoryError,
    PhicandleError,
    QueueFullError,
    TemplateError,
    TokenizerError,
    UnsupportedCpuError,
    UnsupportedModelError,
)
from .generator import Generator  # noqa: E402
from .info import CpuInfo, EngineStats, MemoryPlan, ModelInfo, cpu_info  # noqa: E402
from .likelihood import Perplexity, Score, TokenLogprob  # noqa: E402
from .params import SamplingParams  # noqa: E402
from .stream import Stream  # noqa: E402
from .tokenizer import Tokenizer  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .async_stream import AsyncStream
    from .chat import Chat

__all__ = [
    "AsyncStream",
    "Chat",
    "ChatBusyError",
    "ChatFileError",
    "Chunk",
    "ClosedError",
    "Completion",
    "ContextOverflowError",
    "CorruptModelError",
    "CpuInfo",
    "DeviceError",
    "DownloadError",
    "Dropped",
    "EngineStats",
    "ForkError",
    "GatedModelError",
    "GenerationCancelled",
    "GenerationTimeout",
    "Generator",
    "InternalError",
    "InvalidParameterError",
    "MemoryPlan",
    "Metrics",
    "ModelInfo",
    "ModelNotFoundError",
    "ModelReadError",
    "NumericalError",
    "OfflineError",
    "OutOfMemoryError",
    "Perplexity",
    "PhicandleError",
    "QueueFullError",
    "SamplingParams",
    "Score",
    "Stream",
    "TemplateError",
    "TokenLogprob",
    "Tokenizer",
    "TokenizerError",
    "UnsupportedCpuError",
    "UnsupportedModelError",
    "Usage",
    "__version__",
    "cpu_info",
]


def __getattr__(name: str) -> object:
    # asyncio is most of an import's time, so what needs it is imported when it is asked for.
    if name == "AsyncStream":
        from .async_stream import AsyncStream

        return AsyncStream
    # And so is what only some programs use.
    if name == "Chat":
        from .chat import Chat

        return Chat
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
