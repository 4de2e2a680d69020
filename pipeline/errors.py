"""Every error Voxspool raises on purpose, in one tree.

    VoxspoolError
    ├── ConfigError          the configuration is wrong: nothing starts (exit 78)
    ├── InputError           what was dropped cannot be done: fails at once, never retried
    │   └── SpecError        a YAML file breaks the contract: every problem with its line
    ├── SynthesisError       an engine, converter or recogniser gave up: retried once, then the job fails
    ├── EnvironmentFailure   disk full, root gone, read-only: pauses the work, burns no attempt
    │   └── LedgerDamaged    the ledger is not readable any more: ends the daemon (exit 65)
    ├── RecogniserDied       a process beside the worker is gone: the worker ends as if it had died itself
    ├── Overtaken            something more urgent goes first; the job goes on after it, where it was
    ├── Interrupted          asked to stop: the job goes back to the queue
    └── Cancelled            a person cancelled the job

The text of an error is for the person who dropped the file: what happened, to which file.
`hint` says what to do, `code` is the stable word that scripts may rely on.
"""


class VoxspoolError(Exception):
    """Base of all expected errors."""

    code = "error"

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    @property
    def in_full(self) -> str:
        """What happened and what to do, in one line."""
        return f"{self.message} {self.hint}".strip()


class ConfigError(VoxspoolError):
    """The configuration cannot be used."""

    code = "config"


class InputError(VoxspoolError):
    """What was dropped cannot be turned into speech as it is."""

    code = "input"


class SpecError(InputError):
    """A YAML file breaks the contract; `problems` lists each as one sentence with its line."""

    code = "job_file"

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class SynthesisError(VoxspoolError):
    """An engine, a converter or a recogniser failed on right input."""

    code = "synthesis"


class EnvironmentFailure(VoxspoolError):
    """The machine, not the job, is at fault; the same job succeeds once it is mended."""

    code = "environment"


class LedgerDamaged(EnvironmentFailure):
    """The ledger's file is damaged: nothing heals that by itself."""

    code = "ledger_damaged"


class RecogniserDied(VoxspoolError):
    """A process that listens for the worker was killed or crashed."""


class Overtaken(VoxspoolError):
    """What is in hand is to be put down for something more urgent."""


class Interrupted(VoxspoolError):
    """The worker was asked to stop; finished chunks are kept and the job is queued again."""

    code = "interrupted"


class Cancelled(VoxspoolError):
    """A person asked for the job to be cancelled."""

    code = "cancelled"
