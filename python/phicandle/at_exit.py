"""A clean end of the process: generators that are still open are closed before the interpreter goes away."""

from __future__ import annotations

import atexit
import os
import weakref

from . import _phicandle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .generator import Generator

_open: weakref.WeakSet[Generator] = weakref.WeakSet()
_hooked = False


def watch(generator: Generator) -> None:
    """Has `generator` closed at exit, if it is still there by then."""
    global _hooked
    if not _hooked:
        _hooked = True
        atexit.register(_close_all, os.getpid())
    _open.add(generator)


def _close_all(pid: int) -> None:
    # A forked child inherits the hook, but not the generators' threads.
    if pid == os.getpid():
        # First, so that no other thread sees a generator close under it.
        _phicandle.leave()
        for generator in list(_open):
            generator.close()
