"""Do the folders answer at all? Whoever asks a server that is away may wait for ever.

Asks each folder aside, all at once, and waits for a few seconds. Invariant: nothing here is held up by a
folder; where one is silent, no other page may touch it.
"""

import functools
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.config import ROOTS, Config
from pipeline.doctor.finding import Finding, Machine, failure
from pipeline.files import display
from pipeline.intake.aside import Aside
from pipeline.mounts import Mount, mount_of


def examine(config: Config, here: Machine) -> Iterator[Finding]:
    """The folders that do not answer."""
    paths = {name: getattr(config, f"{name}_path") for name in ROOTS}
    asked = {name: Aside(name).send(functools.partial(here.touch, path)) for name, path in paths.items()}
    deadline = time.monotonic() + here.patience_seconds
    for name, errand in asked.items():
        if not errand.wait(max(0.0, deadline - time.monotonic())):
            yield _silent(name, paths[name], mount_of(str(paths[name]), here.mounts))


def _silent(name: str, path: Path, mount: Mount) -> Finding:
    where = f"it lies on {display(mount.source)} ({mount.filesystem})"
    return failure(
        f"the {name} {display(path)} does not answer: {where}",
        "Is that server on, and the network up? Voxspool waits, and goes on by itself. If it is gone for"
        " good:\n"
        f"sudo umount -l '{display(mount.point)}'\n"
        "and mount it anew. Nothing else about the folders was looked at.",
    )
