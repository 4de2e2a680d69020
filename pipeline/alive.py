"""How whoever works for long tells those who wait: a call now and then.

Knows nobody. What the call raises (Interrupted, Cancelled, Overtaken) passes through, and the work is
given up.
"""

from collections.abc import Callable

Alive = Callable[[], None]
"something is in hand; raises where it is not wanted any more"


def unheeded() -> None:
    """Where nobody waits."""
