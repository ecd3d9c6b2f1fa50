"""The examples in the docstrings do what they say, and every public name has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

import phicandle
from phicandle import PhicandleError

MODULES = sorted(
    f"phicandle.{module.name}"
    for module in pkgutil.iter_modules(phicandle.__path__)
    if module.name not in ("__main__", "_phicandle")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert outcome.failed == 0


def test_every_public_name_has_an_example() -> None:
    for name in phicandle.__all__:
        value = getattr(phicandle, name)
        if name.startswith("__"):
            continue
        document = inspect.getdoc(value) or ""
        assert document, name
        # The errors of one tree share the example of its root.
        if not (inspect.isclass(value) and issubclass(value, PhicandleError) and value is not PhicandleError):
            assert ">>>" in document, name
        if not inspect.isclass(value) or issubclass(value, Exception):
            continue
        ours = [vars(base) for base in value.__mro__ if base.__module__.startswith("phicandle.")]
        for member in {member for names in ours for member in names}:
            if not member.startswith("_") and callable(getattr(value, member)):
                assert inspect.getdoc(getattr(value, member)), f"{name}.{member}"
