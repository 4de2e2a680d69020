"""What happened to a job, as one record for whoever wants to know.

Knows nothing of who listens. Invariant: a listener that fails is logged and harms nobody.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from loguru import logger


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnded:
    """A job came to its end."""

    job_id: str
    state: str
    "done, failed or cancelled"
    source: str
    outputs: tuple[str, ...] = ()
    "relative to the outbox"
    error_code: str = ""
    error_message: str = ""
    warnings: int = 0
    audio_seconds: float = 0.0
    total_seconds: float = 0.0
    at: float = field(default_factory=time.time)


Hook = Callable[[JobEnded], None]


def emit(event: JobEnded, hooks: Sequence[Hook]) -> None:
    """Tell every hook."""
    for hook in hooks:
        try:
            hook(event)
        except Exception as error:  # noqa: BLE001 - somebody else's code must not fail a finished job
            logger.warning("a notification failed: {}", error)
