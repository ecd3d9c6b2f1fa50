"""The base of the package's small value classes.

`dataclasses` would do the same, but importing it (with `inspect` behind it) costs half of the import-time budget.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Record:
    """A read-only value with named fields: equality, hash, repr, copy and pickle follow the fields.

    A subclass lists its fields in `__slots__` and fills them in `__init__` with `_fill`. A field whose name begins with
    `_` counts for equality, hash and pickle, and is not shown.
    """

    __slots__: tuple[str, ...] = ()

    def _fill(self, values: dict[str, Any]) -> None:
        for name in self.__slots__:
            object.__setattr__(self, name, values[name])

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields as a new `dict`, nested records as nested dicts.

        Returns:
            The fields by name, in the order of the class.

        Example:
            >>> from phicandle import Usage
            >>> Usage(prompt_tokens=3, completion_tokens=4).as_dict()["total_tokens"]
            7
        """
        values = {name: getattr(self, name) for name in self._shown()}
        return {
            name: value.as_dict() if isinstance(value, Record) else value for name, value in values.items()
        }

    def _shown(self) -> list[str]:
        return [name for name in self.__slots__ if not name.startswith("_")]

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is read-only: {name!r} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is read-only: {name!r} cannot be deleted")

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._shown())
        return f"{type(self).__name__}({fields})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return hash((type(self), *(_hashable(getattr(self, name)) for name in self.__slots__)))

    def __reduce__(self) -> tuple[Any, ...]:
        return restore, (type(self), {name: getattr(self, name) for name in self.__slots__})


def restore(cls: type[Record], values: dict[str, Any]) -> Any:
    """Makes a record from its fields, as pickle and copy do."""
    record = cls.__new__(cls)
    record._fill(values)
    return record


def _hashable(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(sorted(value.items()))
    if isinstance(value, list):
        return tuple(value)
    return value
