"""The one writer of ``state.json``: the record of a pull under way, durable at each change."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from initpuller.volume.records.record_file import save_record
from initpuller.volume.records.state import State, load_state
from shared.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from initpuller.volume.records.layout import Layout
    from initpuller.volume.records.receipt import Receipt

P = ParamSpec("P")


class PullRecord:
    """The record on one volume, read from there once. The writer holds the volume's lock."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._state: State | None = None
        self._is_read = False

    @property
    def state(self) -> State | None:
        """The record; None if no pull is under way."""
        if not self._is_read:
            self._state, self._is_read = load_state(self.layout), True
        return self._state

    @property
    def current(self) -> State:
        """The record, which must exist."""
        if self.state is None:
            raise StorageError("no pull is under way on this volume", path=self.layout.state)
        return self.state

    @property
    def planned(self) -> Receipt:
        """The receipt that is about to be valid, which must exist."""
        receipt = self.current.receipt
        if receipt is None:
            raise StorageError("nothing is about to be published", path=self.layout.state)
        return receipt

    def save(self, state: State) -> State:
        """Make the first record of a pull, or a changed one, durable, and return it."""
        # If this fails, only the volume can say which of the two records it has.
        self._is_read = False
        save_record(self.layout.state, state)
        self._state, self._is_read = state, True
        return state

    def apply(
        self, transition: Callable[Concatenate[State, P], State], *args: P.args, **kwargs: P.kwargs
    ) -> State:
        """Make a change by one of the ``transitions`` durable, and return the new record.

        Raises:
            WrongPhase: the transition is not allowed now.
        """
        return self.save(transition(self.current, *args, **kwargs))

    def drop(self) -> None:
        """Remove the record: no pull is under way any more."""
        self._is_read = False
        with suppress(FileNotFoundError):
            os.unlink(self.layout.state)
