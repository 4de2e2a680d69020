"""The status as it is shown on a terminal, with a bar for each running job.

Pure: what `status.json` holds in, something for rich to draw out.
"""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_BAR_CELLS = 30
_QUEUED_SHOWN = 10
_WAITING_SHOWN = 30
_FAILED_SHOWN = 10
_ERRORS_SHOWN = 10


def screen(status: Mapping[str, Any]) -> RenderableType:
    """The whole page."""
    parts: list[RenderableType] = [_headline(status)]
    parts += [Text(f"! {sentence}", style="bold red") for sentence in status.get("trouble", ())]
    parts += [Text(f"- {sentence}") for sentence in status.get("notes", ())]
    if status.get("running"):
        parts += [Text(), _running(status["running"])]
    if status.get("queued"):
        parts += [Text(), _queued(status)]
    if status.get("failed"):
        parts += [Text(), _failed(status["failed"])]
    if status.get("waiting"):
        parts += [Text(), _waiting(status["waiting"])]
    if status.get("errors"):
        parts += [Text(), _errors(status["errors"])]
    return Group(*parts)


def _headline(status: Mapping[str, Any]) -> Text:
    counts = status.get("jobs", {})
    numbers = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    updated = f", as of {status['updated_at']}" if "updated_at" in status else ""
    where = f" ({status['inbox']})" if "inbox" in status else ""
    return Text(f"Voxspool is {status['state']}{where}{updated}. Jobs: {numbers or 'none'}.")


def _running(entries: list[Mapping[str, Any]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for entry in entries:
        total, done = entry["chunks"], entry["chunks_done"]
        bar = ProgressBar(total=max(1, total), completed=done, width=_BAR_CELLS)
        count = f"{done}/{total}" if total else ""
        table.add_row(
            Text(entry["source"]), bar, count, Text(entry["stage"]), Text(entry["job"], style="dim")
        )
    return table


def _queued(status: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    shown = status["queued"][:_QUEUED_SHOWN]
    for entry in shown:
        why = Text(entry.get("reason") or entry["priority"])
        table.add_row("queued", Text(entry["source"]), why, Text(entry["job"], style="dim"))
    more = status["jobs"]["queued"] - len(shown)
    if more > 0:
        table.add_row("", f"and {more} more")
    return table


def _failed(entries: list[Mapping[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for entry in entries[:_FAILED_SHOWN]:
        reason = entry["reason"].partition("\n")[0]
        table.add_row("failed", Text(entry["path"]), Text(reason), Text(entry["job"], style="dim"))
    if len(entries) > _FAILED_SHOWN:
        table.add_row("", f"and {len(entries) - _FAILED_SHOWN} more")
    return table


def _waiting(entries: list[Mapping[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for entry in entries[:_WAITING_SHOWN]:
        table.add_row(Text(entry["state"]), Text(entry["path"]), Text(entry["reason"]))
    if len(entries) > _WAITING_SHOWN:
        table.add_row("", f"and {len(entries) - _WAITING_SHOWN} more: `explain PATH` tells of any of them")
    return table


def _errors(entries: list[Mapping[str, Any]]) -> Table:
    """Each code with its number and the latest of them; all ten stand in `status.json`."""
    table = Table.grid(padding=(0, 2))
    for entry in entries[:_ERRORS_SHOWN]:
        last = entry["last"][0]
        what = (
            f"{last['file']}: {last['message']}" if last["file"] not in last["message"] else last["message"]
        )
        table.add_row(f"{entry['count']} x", Text(entry["code"]), Text(last["at"]), Text(what))
    if len(entries) > _ERRORS_SHOWN:
        table.add_row("", f"and {len(entries) - _ERRORS_SHOWN} more: `status --json`")
    return table
