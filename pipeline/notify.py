"""Tell somebody: run the command of `notify.command` when a job has ended.

Knows events and processes. Invariant: a command that hangs is killed after its time.
"""

import json
import subprocess
from dataclasses import asdict

from pipeline.config import Notify
from pipeline.events import Hook, JobEnded


def hooks(config: Notify) -> list[Hook]:
    """The listeners that the configuration asks for."""
    return [_command(config)] if config.command else []


def _command(config: Notify) -> Hook:
    def run(event: JobEnded) -> None:
        if event.state in config.when:
            subprocess.run(
                config.command,
                input=json.dumps(asdict(event)).encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=config.timeout_seconds,
                check=True,
            )

    return run
