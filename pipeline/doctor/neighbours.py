"""Who else works in our folders: sync programs, and a second Voxspool.

Takes a lock for an instant to see whether somebody holds it; changes nothing.
"""

import contextlib
from collections.abc import Iterator

from pipeline.config import Config
from pipeline.doctor.finding import Finding, failure, warning, well
from pipeline.files import display, exclusive_lock
from pipeline.layout import Layout, layout_of
from pipeline.status import last_status
from pipeline.synced import SYNCTHING_MARK, missing_ignores, sync_mark


def examine(config: Config) -> Iterator[Finding]:
    """What one should know of the others."""
    yield from _daemons(layout_of(config))
    yield from _sync(config)


def running(layout: Layout) -> bool:
    """Whether a daemon works with this state folder."""
    if not layout.lock_file.exists():
        return False
    with exclusive_lock(layout.lock_file) as free:
        return not free


def _daemons(layout: Layout) -> Iterator[Finding]:
    if running(layout):
        process = (last_status(layout) or {}).get("pid", "unknown")
        yield well(f"Voxspool is running (process {process})")
        return
    yield well("Voxspool is not running")
    claims = layout.claimed_root.parent / "lock"
    with contextlib.suppress(OSError):
        if claims.exists():
            with exclusive_lock(claims) as free:
                if not free:
                    where = display(layout.inbox)
                    yield failure(
                        f"another Voxspool, with another state folder, takes files from {where}",
                        "Stop one of them, or give each an inbox of its own: ps ax | grep daemon.py",
                    )


def _sync(config: Config) -> Iterator[Finding]:
    for name, root in (("inbox", config.inbox_path), ("outbox", config.outbox_path)):
        mark = sync_mark(root)
        if mark is None:
            continue
        what = f"the {name} is synchronised ({display(mark)})"
        missing = missing_ignores(root, mark) if mark.name == SYNCTHING_MARK else ()
        if not missing:
            yield well(what)
        else:
            advice = (
                f"Put these lines at the top of {display(mark.parent / '.stignore')}, so that claimed and"
                " half-made files stay on this machine:\n" + "\n".join(missing)
            )
            yield warning(what, advice)
        if config.retention.deletes_propagate is None:
            what = f"old files in the {name} are reported, not removed: deletions would spread"
            yield warning(what, "Set retention.deletes_propagate: accepted if that is wanted.")
