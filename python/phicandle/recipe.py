"""The arguments of a `Generator`: checked, and made ready for the Rust core."""

# pathlib would slow the import of the package.
# ruff: noqa: PTH100, PTH110, PTH118, PTH120

from __future__ import annotations

import os

from .arguments import flag, integer, merge, rename, shown, text, wrong
from .errors import InvalidParameterError
from .tokenizer import file_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from . import _phicandle

ALIASES = {
    "model_path": "model",
    "n_ctx": "context_length",
    "num_ctx": "context_length",
    "max_model_len": "context_length",
    "n_threads": "threads",
    "num_threads": "threads",
    "local_files_only": "offline",
    "memory_limit": "memory",
}

DEMO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "demo.gguf")

_MEMORY_MODES = ("auto", "repack", "mmap")
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def full(
    given: dict[str, Any], aliases: Mapping[str, Any], defaults: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Returns all the arguments of a `Generator` under their own names."""
    return {**defaults, **merge(given, rename(aliases, defaults, ALIASES, where), defaults, where)}


def anchored(recipe: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments with absolute paths: a process that unpickles them may have another working folder."""
    paths = {name: recipe[name] for name in ("tokenizer", "cache_dir") if recipe[name]}
    if recipe["model"] is not None and recipe["model"] != "demo" and _model(recipe["model"])[1] is not None:
        paths["model"] = recipe["model"]
    return recipe | {name: os.path.abspath(file_path(name, path)) for name, path in paths.items()}


def options(recipe: dict[str, Any]) -> _phicandle._Options:
    """Checks the arguments of a `Generator` and returns them for the Rust core."""
    model, path = _model(recipe["model"])
    threads, context = recipe["threads"], recipe["context_length"]
    memory, memory_limit = _memory(recipe["memory"])
    return {
        "model": model,
        "path": path,
        "filename": _optional_text("filename", recipe["filename"]),
        "revision": _optional_text("revision", recipe["revision"]),
        "tokenizer": None if recipe["tokenizer"] is None else file_path("tokenizer", recipe["tokenizer"]),
        "chat_template": _optional_text("chat_template", recipe["chat_template"]),
        "device": text("device", recipe["device"]),
        "backend": text("backend", recipe["backend"]),
        "threads": None if threads is None else integer("threads", threads, 1, 1024),
        "context_length": None if context is None else integer("context_length", context, 1),
        "sliding_window": _sliding_window(recipe["sliding_window"]),
        "kv_dtype": text("kv_dtype", recipe["kv_dtype"]),
        "memory": memory,
        "memory_limit": memory_limit,
        "max_batch": integer("max_batch", recipe["max_batch"], 1, 2**20),
        "max_queue": integer("max_queue", recipe["max_queue"], 0, 2**32),
        "prefix_cache": flag("prefix_cache", recipe["prefix_cache"]),
        "speculation": flag("speculation", recipe["speculation"]),
        "cache_dir": None if recipe["cache_dir"] is None else file_path("cache_dir", recipe["cache_dir"]),
        "token": _optional_text("token", recipe["token"], secret=True),
        "offline": None if recipe["offline"] is None else flag("offline", recipe["offline"]),
        "bar": recipe["progress"] is True,
    }


def _model(model: object) -> tuple[str | None, str | None]:
    """Returns a model argument as (hub id, None) or (None, path)."""
    if model is None:
        model = os.environ.get("PHICANDLE_MODEL") or None
        if model is None:
            return None, None
    name = file_path("model", model)
    if not name:
        raise InvalidParameterError(
            "model is an empty str.",
            hint='Pass a path to a .gguf file, a hub id (owner/name), or "demo".',
            parameter="model",
        )
    if isinstance(model, os.PathLike):
        return None, name
    if name == "demo":
        return None, DEMO
    if name.endswith(".gguf") or os.path.exists(name):
        return None, name
    return text("model", name), None


def _optional_text(name: str, value: object, *, secret: bool = False) -> str | None:
    if value is None:
        return None
    if secret and not isinstance(value, str):
        # The value itself stays out of the message: it may be a token in a wrong wrapping.
        raise wrong(name, "a str or None", type(value))
    return text(name, value)


def _sliding_window(value: object) -> bool:
    """Returns a `sliding_window` argument as whether the file's window counts."""
    if value is not None and value != "file":
        raise wrong("sliding_window", '"file", or None for no window', value)
    return value is not None


def _memory(value: object) -> tuple[str, int | None]:
    """Returns a `memory` argument as where the weights are kept, and the most bytes to plan for."""
    if isinstance(value, str) and value in _MEMORY_MODES:
        return value, None
    if not isinstance(value, str):
        return "auto", integer("memory", value, 1)
    digits = value.strip().upper().rstrip("BGIKM ")
    unit = value.strip().upper()[len(digits) :].strip()
    try:
        amount = float(digits) * _UNITS[unit]
    except (KeyError, ValueError):
        amount = 0.0
    if not 1 <= amount < 2**63:
        raise wrong("memory", 'a number of bytes, text such as "6GB", or "auto", "repack" or "mmap"', value)
    return "auto", int(amount)


def callback(progress: Any) -> Any:
    """Returns a `progress` argument as what the Rust core calls; `None` for one that is only True or False."""
    if isinstance(progress, bool):
        return None
    if not callable(progress):
        raise InvalidParameterError(
            f"progress must be True, False or a callable, not {shown(progress)}.",
            hint="Pass a callable that takes (file name, bytes so far, bytes in all or None).",
            parameter="progress",
        )
    return progress
