"""Claims that take long: reading a recording of ten gigabytes to prove that it arrived whole.

They are done aside, one after the other, while the daemon goes on. Knows claims; writes nothing into the
ledger, which says `claiming` for as long as one is out, so that a crash meanwhile is like any other.
Invariant: a drop is taken aside once, and its outcome is handed back once.
"""

import os
from collections.abc import Iterator

from pipeline.files import shown_size
from pipeline.intake.aside import Aside, Errand
from pipeline.intake.claim import Gone, NotReady, Stamp, take
from pipeline.jobs.job import Drop
from pipeline.layout import Layout

LARGE_BYTES = 64 * 2**20
"some tenths of a second on a local disk"

Outcome = tuple[str, Stamp] | Gone | NotReady
"what `take` returned or raised"


class LargeTakes:
    """The claims that are out."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._aside = Aside("take")
        self._out: dict[str, tuple[Drop, Errand[Outcome]]] = {}

    def __contains__(self, drop_id: object) -> bool:
        return drop_id in self._out

    @property
    def ready(self) -> bool:
        """Whether one has come back."""
        return any(errand.wait(0.0) for _, errand in self._out.values())

    def names(self) -> dict[str, str]:
        """What is being taken, with the sentence to show, by relative path."""
        return {
            drop.relative: f"it is being taken: {shown_size(drop.stamp[1])} are read to see that all is there"
            for drop, _ in self._out.values()
        }

    def is_large(self, drop: Drop, shared: frozenset[str] = frozenset()) -> bool:
        """Whether so much has to be read or copied that others would wait."""
        copied = drop.members[1:] if drop.mode == "leave" else shared
        return drop.stamp[1] + sum(self._size(member) for member in copied) >= LARGE_BYTES

    def send(self, drop: Drop, shared: frozenset[str] = frozenset()) -> None:
        """Have a planned claim made."""
        self._out[drop.id] = drop, self._aside.send(lambda: _outcome(self._layout, drop, shared))

    def back(self) -> Iterator[tuple[Drop, Outcome]]:
        """Those that have come back, each once, in the order in which they were sent; raises
        EnvironmentFailure where the disk gave up.
        """
        for drop, errand in list(self._out.values()):
            if not errand.wait(0.0):  # one that comes back in this moment has come before the next one
                return
            del self._out[drop.id]
            yield drop, errand.result()

    def _size(self, member: str) -> int:
        try:
            return os.lstat(self._layout.inbox / member).st_size
        except OSError:
            return 0  # the claim itself finds out


def _outcome(layout: Layout, drop: Drop, shared: frozenset[str]) -> Outcome:
    try:
        return take(layout, drop, shared)
    except (Gone, NotReady) as error:
        return error
