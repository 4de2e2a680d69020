"""`doctor`: try everything that the daemon will need, and say what to do where something is missing.

One subject a page: `answering`, `places`, `room`, `clock`, `watching`, `neighbours`, `programs`, `models`,
`records`. Looks at things by using them as the daemon will; loads no model. Invariants: it changes nothing
that outlasts it, what is wrong comes with something to do, and it ends though a folder may never answer.
"""

from collections.abc import Iterable, Iterator

from pipeline.config import Config
from pipeline.doctor import answering, clock, models, neighbours, places, programs, records, room, watching
from pipeline.doctor.finding import Finding, Level, Machine, failure
from pipeline.errors import EnvironmentFailure, VoxspoolError
from pipeline.files import display
from pipeline.intake.ignore import IgnoreList
from pipeline.layout import layout_of
from pipeline.ledger import Ledger

__all__ = ["Finding", "Level", "Machine", "examine", "failed", "render"]


def examine(config: Config, machine: Machine | None = None) -> list[Finding]:
    """Everything, in the order in which one would mend it."""
    here = machine or Machine()
    silent = list(answering.examine(config, here))
    if silent:
        return [*programs.examine(config, here), *silent]
    ledger, unopened = _ledger(config, here)
    try:
        return [
            *programs.examine(config, here),
            *models.examine(config, here),
            *clock.examine(config, ledger, here),
            *places.examine(config, ledger, here),
            *room.examine(config),
            *watching.examine(config, here),
            *neighbours.examine(config),
            *(unopened or records.examine(config, ledger, here)),
            *_ignored(config),
        ]
    finally:
        if ledger is not None:
            ledger.close()


def render(findings: Iterable[Finding]) -> str:
    """Findings as text for a terminal: one line each, the advice below."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:4}  {finding.what}")
        if finding.advice:
            lines += [f"      {line}" for line in finding.advice.splitlines()]
    return "\n".join(lines) + "\n"


def failed(findings: Iterable[Finding]) -> bool:
    """Whether the daemon cannot work like this."""
    return any(finding.level == "fail" for finding in findings)


def _ledger(config: Config, here: Machine) -> tuple[Ledger | None, list[Finding]]:
    """The ledger, if there is one; and what keeps it from being opened."""
    path = layout_of(config).ledger_file
    if not path.exists():
        return None, []
    try:
        return Ledger(path, clock=here.clock), []
    except EnvironmentFailure as error:
        return None, [failure(error.message, error.hint)]


def _ignored(config: Config) -> Iterator[Finding]:
    try:
        patterns = IgnoreList(config.intake.ignore).effective()
    except VoxspoolError as error:
        yield failure(error.message, error.hint or "Change intake.ignore in config.yaml.")
        return
    what = f"{len(patterns)} patterns of names that are no drops, {len(config.intake.ignore)} of them yours"
    yield Finding(level="ok", what=what, advice=_wrapped(display(pattern) for pattern in patterns))


def _wrapped(words: Iterable[str], width: int = 100) -> str:
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{word}"
    return "\n".join(lines)
