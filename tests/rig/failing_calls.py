"""One call of the system fails: each in turn, so that no failure counts as an answer."""

from __future__ import annotations

import builtins
import os
from itertools import count
from typing import TYPE_CHECKING, Any, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class FailingCall:
    """The call with the ``number``, among all that have one of these names, fails.

    Args:
        number: of the call, from 1.
        code: its errno.
        names: of functions of the module os. With ``open``, the builtin of this name is meant, too.
        times: number of calls that fail from then on.
    """

    def __init__(self, number: int, code: int, names: tuple[str, ...], times: int = 1) -> None:
        self.number, self.calls = number, 0
        self._code, self._names, self._times = code, names, times
        self._patched = pytest.MonkeyPatch()

    def __enter__(self) -> Self:
        for name in self._names:
            self._patched.setattr(os, name, self._failing(getattr(os, name)))
        if "open" in self._names:
            self._patched.setattr(builtins, "open", self._failing(open))
        return self

    def __exit__(self, *_: object) -> None:
        self._patched.undo()

    def _failing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: object, **kwargs: object) -> object:
            if args and str(args[0]).startswith("/proc/"):  # it is on no disk
                return real(*args, **kwargs)
            self.calls += 1
            if self.number <= self.calls < self.number + self._times:
                raise OSError(self._code, os.strerror(self._code))
            return real(*args, **kwargs)

        return call


def failing_calls(
    code: int, names: tuple[str, ...], times: int = 1
) -> Iterator[tuple[int, FailingCall]]:
    """Yield the first call, the second, and so on, until there is no such call."""
    for number in count(1):
        fault = FailingCall(number, code, names, times)
        yield number, fault
        if fault.calls < number:
            return
