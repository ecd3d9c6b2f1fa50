"""Every error that phicandle raises: one small tree under `PhicandleError`.

Each class is also the built-in that fits it, so ordinary `except OSError`, `except ValueError` and so on work. Each
instance has a `hint` that says what to do next, can be pickled and copied, and keeps its facts as attributes.
The classes mirror `ErrorKind` of the Rust crate by name; those of a `Chat` are Python's own.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .completion import Completion

__all__ = [
    "ChatBusyError",
    "ChatFileError",
    "ClosedError",
    "ContextOverflowError",
    "CorruptModelError",
    "DeviceError",
    "DownloadError",
    "ForkError",
    "GatedModelError",
    "GenerationCancelled",
    "GenerationTimeout",
    "InternalError",
    "InvalidParameterError",
    "ModelNotFoundError",
    "ModelReadError",
    "NumericalError",
    "OfflineError",
    "OutOfMemoryError",
    "PhicandleError",
    "QueueFullError",
    "TemplateError",
    "TokenizerError",
    "UnsupportedCpuError",
    "UnsupportedModelError",
]


class PhicandleError(Exception):
    """The root of every error of phicandle.

    Attributes:
        hint: What to do next, as a sentence; `None` when there is nothing to say.

    Example:
        >>> import phicandle
        >>> try:
        ...     phicandle.Generator("no-such-file.gguf")
        ... except phicandle.PhicandleError as error:
        ...     print(type(error).__name__, bool(error.hint))
        ModelNotFoundError True
    """

    hint: str | None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        # One argument only: OSError takes two for an error number and its text.
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = str(self.args[0]) if self.args else ""
        return f"{message} {self.hint}" if self.hint else message

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call the class with `args` alone, and OSError has a way of its own.
        return _restore, (type(self), self.args, self.__dict__.copy())


def _restore(cls: type[PhicandleError], args: tuple[Any, ...], state: dict[str, Any]) -> PhicandleError:
    # Not `cls.__new__(cls)`: which of its bases' that would be is not safe for a MemoryError.
    error = cls("")
    error.args = args
    error.__dict__.update(state)
    return error


class ModelNotFoundError(PhicandleError, FileNotFoundError):
    """No such model, file or repository.

    Attributes:
        candidates: Names near the one asked for that do exist; may be empty.
    """

    candidates: tuple[str, ...]

    def __init__(self, message: str, *, hint: str | None = None, candidates: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.candidates = tuple(candidates)


class ModelReadError(PhicandleError, OSError):
    """A model file exists, but the system would not let it be read (permissions, a folder, an I/O fault)."""


class DownloadError(PhicandleError, OSError):
    """A transfer failed.

    Attributes:
        url: The address asked; "" when there was none.
        status: The HTTP status, or `None` when there was no answer.
        resumable: Whether the next try continues where this one stopped.
    """

    url: str
    status: int | None
    resumable: bool

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        url: str = "",
        status: int | None = None,
        resumable: bool = False,
    ) -> None:
        super().__init__(message, hint=hint)
        self.url = url
        self.status = status
        self.resumable = resumable


class OfflineError(DownloadError):
    """The hub was needed, and `offline=True`, `HF_HUB_OFFLINE` or the network ruled it out."""


class GatedModelError(DownloadError, PermissionError):
    """The hub wants a token, or an accepted licence, for this repository. `status` is 401 or 403."""


class CorruptModelError(PhicandleError, ValueError):
    """A model file that breaks its format, or does not match its checksum.

    Attributes:
        place: The metadata key, tensor or header part at fault.
        offset: Byte offset in the file.
        expected_sha256: The checksum that the file should have had, in hex.
    """

    place: str | None
    offset: int | None
    expected_sha256: str | None

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        place: str | None = None,
        offset: int | None = None,
        expected_sha256: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.place = place
        self.offset = offset
        self.expected_sha256 = expected_sha256


class UnsupportedModelError(PhicandleError, NotImplementedError):
    """A sound file that this version would run wrongly, or not at all.

    Attributes:
        arch: The file's architecture.
        tensor: The tensor at fault.
        quant: The quantisation at fault.
    """

    arch: str | None
    tensor: str | None
    quant: str | None

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        arch: str | None = None,
        tensor: str | None = None,
        quant: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.arch = arch
        self.tensor = tensor
        self.quant = quant


class UnsupportedCpuError(PhicandleError, RuntimeError):
    """The CPU lacks instructions that this build needs.

    Attributes:
        missing: The missing features.
    """

    missing: tuple[str, ...]

    def __init__(self, message: str, *, hint: str | None = None, missing: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.missing = tuple(missing)


class DeviceError(PhicandleError, RuntimeError):
    """The device asked for is absent, or was not compiled into this build."""


class OutOfMemoryError(PhicandleError, MemoryError):
    """The plan needs more memory than there is. Raised before anything is allocated.

    Attributes:
        needed: Bytes that the plan needs.
        available: Bytes available to this process.
    """

    needed: int
    available: int

    def __init__(self, message: str, *, hint: str | None = None, needed: int = 0, available: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.needed = needed
        self.available = available


class InvalidParameterError(PhicandleError, ValueError):
    """A parameter out of range, of the wrong type, or unknown.

    Attributes:
        parameter: The parameter's name.
        suggestion: The nearest known name, for an unknown one.
    """

    parameter: str
    suggestion: str | None

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        parameter: str = "",
        suggestion: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.parameter = parameter
        self.suggestion = suggestion


class TokenizerError(PhicandleError, ValueError):
    """A vocabulary or `tokenizer.json` that cannot be used."""


class TemplateError(PhicandleError, ValueError):
    """A chat template that does not parse, does not end, or refuses these messages.

    Attributes:
        line: Line in the template, counted from 1.
    """

    line: int | None

    def __init__(self, message: str, *, hint: str | None = None, line: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.line = line


class ContextOverflowError(PhicandleError, ValueError):
    """The prompt leaves no room in the context.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        limit: Tokens that the context holds.
    """

    prompt_tokens: int
    limit: int

    def __init__(
        self, message: str, *, hint: str | None = None, prompt_tokens: int = 0, limit: int = 0
    ) -> None:
        super().__init__(message, hint=hint)
        self.prompt_tokens = prompt_tokens
        self.limit = limit


class NumericalError(PhicandleError, ArithmeticError):
    """The model computed something that is not a number."""


class QueueFullError(PhicandleError, RuntimeError):
    """More requests are waiting than the queue may hold.

    Attributes:
        retry_after: A sensible time to wait before the next try, in seconds.
    """

    retry_after: float

    def __init__(self, message: str, *, hint: str | None = None, retry_after: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class ChatBusyError(PhicandleError, RuntimeError):
    """A `Chat` was used while an answer of it was being written: its turns come one after the other."""


class ChatFileError(PhicandleError, OSError, ValueError):
    """A file of a saved `Chat` that cannot be read or written, or does not hold one.

    Attributes:
        path: The file.
        place: The key at fault, such as "messages[3].role"; `None` when the fault is not in one.
    """

    path: str
    place: str | None

    def __init__(
        self, message: str, *, hint: str | None = None, path: str = "", place: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.path = path
        self.place = place


class ClosedError(PhicandleError, RuntimeError):
    """The generator was closed before this call."""


class ForkError(PhicandleError, RuntimeError):
    """The generator was made in another process and carried over a fork."""


class InternalError(PhicandleError, RuntimeError):
    """A fault of phicandle's own: please report it."""


class GenerationCancelled(PhicandleError, RuntimeError):  # noqa: N818 - an outcome, as asyncio's
    """The generator was closed while this answer was being written.

    A stream that is stopped by its own `cancel()` does not raise: it ends with `finish_reason="cancelled"`.

    Attributes:
        partial: What had been written by then; `finish_reason` is "cancelled".
    """

    partial: Completion | None

    def __init__(self, message: str, *, hint: str | None = None, partial: Completion | None = None) -> None:
        super().__init__(message, hint=hint)
        self.partial = partial


class GenerationTimeout(PhicandleError, TimeoutError):  # noqa: N818 - an outcome, as asyncio's
    """`Stream.result(timeout=...)` ran out before the answer was complete. The answer goes on being written.

    Attributes:
        partial: What had been written by then; `finish_reason` is `None`.
    """

    partial: Completion | None

    def __init__(self, message: str, *, hint: str | None = None, partial: Completion | None = None) -> None:
        super().__init__(message, hint=hint)
        self.partial = partial
