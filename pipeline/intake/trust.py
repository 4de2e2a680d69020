"""Whether a folder's change events can be relied on; pure policy.

Takes what was observed and the time (monotonic seconds), answers what to do; knows no thread, no folder and
no event. Invariants: events are distrusted only after a fresh watch failed as well; they are tried again for
ever, after ten minutes at first and at most a day later, so that a source that keeps failing does not flap.
"""

from dataclasses import dataclass
from enum import StrEnum

PROBATION_SECONDS = 3600.0
"a failure so soon after the watch was built anew is one of the source, not of the watch"
RETRY_SECONDS = (600.0, 86_400.0)
"distrusted events are tried again after this; doubled each time, up to the second"
CALM_SECONDS = 86_400.0
"after so long without a failure the next one is the first again"


class Verdict(StrEnum):
    """What to do about a failure."""

    REBUILD = "rebuild"
    DISTRUST = "distrust"


@dataclass(slots=True)
class Trust:
    """What is known of one source of events."""

    reason: str = ""
    "why it is distrusted, as the end of a sentence; empty while it is trusted"
    _failed_at: float = float("-inf")
    _retry_at: float = float("inf")
    _distrusts: int = 0

    @property
    def distrusted(self) -> bool:
        """Whether the source is not relied on."""
        return bool(self.reason)

    def fail(self, reason: str, now: float) -> Verdict:
        """The source failed, though it was watched anew or relied on."""
        since, self._failed_at = now - self._failed_at, now
        if since > CALM_SECONDS:
            self._distrusts = 0
        if since > PROBATION_SECONDS and not self.distrusted:
            return Verdict.REBUILD
        self._distrusts += 1
        self.reason, self._retry_at = reason, now + self._pause()
        return Verdict.DISTRUST

    def put_off(self, now: float) -> None:
        """A source that is distrusted was seen to fail once more: it is not to be tried too soon."""
        self._retry_at = now + self._pause()

    def due(self, now: float) -> bool:
        """Whether a distrusted source is to be tried again."""
        return self.distrusted and now >= self._retry_at

    def retry_in(self, now: float) -> float:
        """Seconds until then."""
        return max(0.0, self._retry_at - now)

    def regain(self, now: float) -> None:
        """The source was tried again and answered; it is on probation."""
        self.reason, self._retry_at, self._failed_at = "", float("inf"), now

    def _pause(self) -> float:
        first, last = RETRY_SECONDS
        return min(first * 2.0 ** min(self._distrusts - 1, 16), last)
