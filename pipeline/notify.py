"""Tell somebody: run the command of `notify.command` when a job has ended.

Knows events and processes. Invariant: a command that hangs is killed after its time.
"""

import json
import subprocess
from dataclasses import asdict

from pipeline.config import Notify
from pipeline.events import Hook, JobEnded
from pipeline.jobs.job import Job


def unsuccessful(job: Job) -> JobEnded:
    """The event of a job that failed or was cancelled."""
    return JobEnded(
        job_id=job.id,
        state=job.state,
        source=job.source.name,
        error_code=job.error_code or "",
        error_message=job.error_message or "",
    )


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
