"""Where everything lies: the only room that puts a path together from a root and a name.

Knows names, touches no disk. Invariant: what `claimed` and `done` return is on the inbox's own
filesystem, what `publishing` and `failed` return on the outbox's.
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Config
from pipeline.jobs.job import Drop, DropState

HIDDEN = ".voxspool"


@dataclass(frozen=True, slots=True)
class Layout:
    """The places of one configuration."""

    inbox: Path
    outbox: Path
    voices: Path
    state: Path

    @property
    def ledger_file(self) -> Path:
        """The SQLite ledger."""
        return self.state / "ledger.db"

    @property
    def lock_file(self) -> Path:
        """Held by the one daemon of this state folder."""
        return self.state / "voxspool.lock"

    @property
    def prune_lock(self) -> Path:
        """Held by whoever prunes."""
        return self.state / "prune.lock"

    @property
    def cache(self) -> Path:
        """Finished takes by content."""
        return self.state / "cache"

    @property
    def measured(self) -> Path:
        """What was measured of reference voices; may be deleted."""
        return self.state / "measured"

    @property
    def logs(self) -> Path:
        """The daemon's own log files."""
        return self.state / "logs"

    @property
    def work_root(self) -> Path:
        """Work folders of running jobs."""
        return self.state / "work"

    def work(self, job_id: str) -> Path:
        """Scratch space of one job; gone when the job has ended."""
        return self.work_root / job_id

    def scratch(self, worker: str) -> Path:
        """Temporary files of one worker's libraries; gone when it has ended."""
        return self.work_root / f"worker-{worker}"

    @property
    def claimed_root(self) -> Path:
        """What is being worked on."""
        return self.inbox / HIDDEN / "claimed"

    def claimed(self, drop_id: str) -> Path:
        """The folder of one claimed drop, its members below it as they lay beside each other."""
        return self.claimed_root / drop_id

    @property
    def done_root(self) -> Path:
        """Processed sources (`source: move`)."""
        return self.inbox / HIDDEN / "done"

    def done(self, drop_id: str) -> Path:
        """A processed drop."""
        return self.done_root / drop_id

    @property
    def spool_root(self) -> Path:
        """Copies of drops whose source stays in the inbox (`source: leave`)."""
        return self.state / "spool"

    def spool(self, drop_id: str) -> Path:
        """One of them."""
        return self.spool_root / drop_id

    def source_folder(self, drop_id: str, mode: str) -> Path:
        """Where a claimed drop's files can be read."""
        return self.spool(drop_id) if mode == "leave" else self.claimed(drop_id)

    @property
    def publishing_root(self) -> Path:
        """Results on their way out, still hidden."""
        return self.outbox / HIDDEN / "tmp"

    def publishing(self, job_id: str) -> Path:
        """One job's results, whole but not yet under their names."""
        return self.publishing_root / job_id

    @property
    def failed(self) -> Path:
        """What could not be done."""
        return self.outbox / "failed"

    @property
    def status_file(self) -> Path:
        """What the daemon is doing, for people and scripts."""
        return self.outbox / "status.json"

    @property
    def status_copy(self) -> Path:
        """The same for the command line, which must know when the outbox is away."""
        return self.state / "status.json"

    @property
    def pause_file(self) -> Path:
        """While it exists, nothing new is started."""
        return self.inbox / "PAUSE"

    @property
    def own_pause_file(self) -> Path:
        """The same, for an inbox that cannot be written to."""
        return self.state / "PAUSE"


def last_place(layout: Layout, drop: Drop) -> Path | None:
    """Where an ended drop's own file lies; None if it was deleted, pruned or left in the inbox.

    The ledger keeps the place relative to its root, so that folders may be moved.
    """
    if not drop.location:
        return None
    if drop.state is DropState.FAILED:
        return layout.outbox / drop.location
    return layout.inbox / drop.location / drop.name


def layout_of(config: Config) -> Layout:
    """The places of `config`."""
    return Layout(config.inbox_path, config.outbox_path, config.voices_path, config.state_path)
