"""Named steps on a file's way from its claim to its last place: where a test pulls the plug.

Knows nothing of files. Tells the steps to whoever audits this interpreter (sys.addaudithook): in
production nobody does, and nothing happens. Invariant: being killed right after any of these steps loses
no file, repeats no finished work and shows nobody half a result (tests/acceptance/test_crashes.py).
"""

import sys

EVENT = "voxspool.step"


def point(name: str) -> None:
    """The step `name` was just made."""
    sys.audit(EVENT, name)
