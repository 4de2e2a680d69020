"""The verbs of the command line.

Knows every room by its front door; holds no logic of its own. Invariant: commands that change
something do it the way a user's hands would, by files in the inbox, or through the ledger.
"""

import argparse
import errno
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console
from rich.live import Live

from pipeline import __version__, audit, doctor, fetch_models, prune, retention, voice_list
from pipeline.config import Config, load_config
from pipeline.errors import EnvironmentFailure, InputError, VoxspoolError
from pipeline.explain import PATIENCE_SECONDS, explain
from pipeline.fetch_models.progress import shown_on
from pipeline.files import display, exclusive_lock, held_folder, move_new, sha256_of
from pipeline.intake.aside import answers
from pipeline.intake.claim import below
from pipeline.intake.ignore import IgnoreList
from pipeline.intake.refused import MACHINE_ERRNOS, refusal
from pipeline.intake.roots import Role, check_root, check_roots
from pipeline.jobs.job import Drop, DropState, Job, JobState
from pipeline.layout import Layout, last_place, layout_of
from pipeline.ledger import Ledger
from pipeline.logs import log_to
from pipeline.outbox import failed_name, note_paths
from pipeline.screen import screen
from pipeline.sd_notify import from_environment
from pipeline.status import last_status, snapshot_jobs
from pipeline.supervisor import Supervisor
from pipeline.voices import Library

CONFIG_VARIABLE = "VOXSPOOL_CONFIG"
OWN_CONFIG = Path(__file__).resolve().parent.parent / "config.yaml"
WATCH_SECONDS = 1.0
SUMMARY_LINES = 20
Verb = Callable[[argparse.Namespace], int]


def main(arguments: list[str]) -> int:
    """Run one command line; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    verb: Verb = options.verb
    try:
        return verb(options)
    except OSError as error:
        if error.errno not in MACHINE_ERRNOS:
            raise
        raise refusal(error, layout_of(load_config(options.config))) from error


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config",
        type=Path,
        default=Path(os.environ.get(CONFIG_VARIABLE) or OWN_CONFIG),
        metavar="FILE",
        help=f"default: what {CONFIG_VARIABLE} says, else config.yaml beside daemon.py",
    )
    parser = argparse.ArgumentParser(
        prog="daemon.py", description="A watch folder for speech.", parents=[common]
    )
    parser.add_argument("--once", action="store_true", help="end when nothing is left to do")
    parser.add_argument("--version", action="version", version=f"Voxspool {__version__}")
    parser.set_defaults(verb=run)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, verb: Verb, text: str) -> argparse.ArgumentParser:
        # SUPPRESS: a value given before the command must not be undone by the command's own default
        child = verbs.add_parser(name, help=text, description=text)
        child.add_argument("--config", type=Path, default=argparse.SUPPRESS, metavar="FILE")
        child.set_defaults(verb=verb)
        return child

    add("run", run, "run in the foreground").add_argument(
        "--once", action="store_true", default=argparse.SUPPRESS, help="end when nothing is left to do"
    )
    add("check", check, "validate the configuration")
    add("doctor", examine, "test folders, disks, tools and say what to do")
    status_parser = add("status", show_status, "show what the daemon is doing")
    status_parser.add_argument("--watch", action="store_true", help="keep showing it")
    status_parser.add_argument("--json", action="store_true", help="for scripts")
    add("explain", explain_path, "say why nothing is happening to a file").add_argument("path", type=Path)
    submit_parser = add("submit", submit, "put files into the inbox")
    submit_parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    submit_parser.add_argument("--folder", default="", help="subfolder of the inbox")
    add("cancel", cancel, "cancel a job").add_argument(
        "job", metavar="JOB", help="its id, or the name of the dropped file"
    )
    add("retry", retry, "put a failed job's file back into the inbox").add_argument(
        "job", metavar="JOB", help="its id, or the name of the dropped file"
    )
    prune_parser = add("prune", prune_files, "delete what the retention rules say")
    prune_parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    prune_parser.add_argument(
        "--more-than-half", action="store_true", help="even if that is more than half of a folder"
    )
    add("audit", audit_files, "check that every file ever seen is in exactly one place").add_argument(
        "--deep", action="store_true", help="read every byte that a hash is known of"
    )
    fetch_parser = add("fetch-models", bring_models, "download models, verify them, keep their revision")
    fetch_parser.add_argument(
        "names", nargs="*", metavar="NAME", help="default: what the configuration's defaults need"
    )
    fetch_parser.add_argument("--revision", metavar="R", help="a commit, branch or tag on the hub")
    fetch_parser.add_argument("--update", action="store_true", help="go to the newest revision")
    fetch_parser.add_argument("--verify", action="store_true", help="only read what is there; asks nobody")
    fetch_parser.add_argument("--list", action="store_true", help="show which models there are; asks nobody")
    voices_parser = add("voices", show_voices, "list the voice library and what its clips are worth")
    voices_parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    voices_parser.add_argument(
        "--preview", action="store_true", help="have each of them say a sentence, by a job in the inbox"
    )
    return parser


# -- running ---------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> int:
    """The daemon itself."""
    systemd = from_environment(os.environ)
    config = load_config(options.config)
    layout = layout_of(config)
    log_to(config.log, layout.logs, "voxspool")
    started = time.time()
    exit_code = Supervisor(config, once=options.once, systemd=systemd).run()
    if options.once:
        print("\n".join(_summary(layout, started)))
    if multiprocessing.active_children():
        # killed, but kept by a disk that does not answer: the interpreter would wait for them at its end
        sys.stdout.flush()
        os._exit(exit_code)
    return exit_code


def _summary(layout: Layout, since: float) -> list[str]:
    """What a `--once` run made, and what it could not make."""
    ledger = _ledger(layout)
    made = [result for result in ledger.results.all() if (result.published_at or 0.0) >= since]
    lines = [str(layout.outbox / result.folder / file.name) for result in made for file in result.files]
    speech = [line for line in lines if not line.endswith((".log", ".json"))]
    failed = [drop for drop in ledger.drops_in(DropState.FAILED) if (drop.ended_at or 0.0) >= since]
    told = [f"Made: {line}" for line in speech[:SUMMARY_LINES]]
    told += [
        f"Failed: {display(drop.relative)} (why: {_note(layout, drop)})" for drop in failed[:SUMMARY_LINES]
    ]
    waiting = (last_status(layout) or {}).get("waiting", [])
    told += [f"Left in the inbox: {entry['path']}: {entry['reason']}" for entry in waiting[:SUMMARY_LINES]]
    hidden = len(speech) + len(failed) + len(waiting) - len(told)
    return [*told, f"... and {hidden} more."] if hidden else told or ["There was nothing to do."]


def _note(layout: Layout, drop: Drop) -> Path:
    target = last_place(layout, drop) or failed_name(layout, drop)
    return note_paths(target)[0]


def check(options: argparse.Namespace) -> int:
    """Validate the configuration."""
    config = load_config(options.config)
    IgnoreList(config.intake.ignore)
    print(f"{options.config} is valid.")
    for name in ("inbox", "outbox", "voices", "state"):
        print(f"  {name}: {getattr(config, name)}")
    return 0


def examine(options: argparse.Namespace) -> int:
    """`doctor`."""
    findings = doctor.examine(load_config(options.config))
    print(doctor.render(findings), end="")
    return 1 if doctor.failed(findings) else 0


# -- looking ---------------------------------------------------------------------------------------


def show_status(options: argparse.Namespace) -> int:
    """`status`."""
    layout = layout_of(load_config(options.config))
    if options.json:
        print(json.dumps(_status(layout), indent=1))
        return 0
    console = Console()
    if not options.watch:
        console.print(screen(_status(layout)))
        return 0
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(screen(_status(layout)), refresh=True)
            time.sleep(WATCH_SECONDS)


def _status(layout: Layout) -> dict[str, Any]:
    """What `status.json` says, with the ledger's word on progress: it is seconds fresher."""
    status = last_status(layout) or {"state": "never started", "waiting": [], "notes": []}
    status["inbox"] = str(layout.inbox)
    runs = _daemon_runs(layout)
    if not runs and status["state"] != "never started":
        status["state"] = "stopped"
    if layout.ledger_file.exists():
        ledger = Ledger(layout.ledger_file, clock=time.time)
        not_listed = status.get("not_listed", {})
        reasons = {entry["job"]: entry.get("reason", "") for entry in status.get("queued", ())}
        # an outbox that does not answer would hold us up: the daemon knows what lies in it, and looks aside
        looks = not runs and answers(layout.outbox, PATIENCE_SECONDS)
        fresh = snapshot_jobs(ledger, layout, reachable=looks)
        status.update(fresh if looks else {**fresh, "failed": status.get("failed", ())})
        status["not_listed"] = {**not_listed, **status["not_listed"]}
        status["queued"] = [{**entry, "reason": reasons.get(entry["job"], "")} for entry in status["queued"]]
        ledger.close()
    return status


def _daemon_runs(layout: Layout) -> bool:
    _demand_state(layout)
    if not layout.lock_file.exists():
        return False
    with exclusive_lock(layout.lock_file) as free:
        return not free


def _demand_state(layout: Layout) -> None:
    """The state belongs to whoever runs Voxspool; as somebody else one may drop files and read results."""
    if layout.state.is_dir() and not os.access(layout.state, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise EnvironmentFailure(
            f"The state folder {layout.state} belongs to another user.",
            hint="Type the command as that user; for the service: sudo voxspool status",
        )


def explain_path(options: argparse.Namespace) -> int:
    """`explain`."""
    config = load_config(options.config)
    layout = layout_of(config)
    ledger = _ledger(layout)
    told = explain(options.path, config, ledger, last_status(layout), _daemon_runs(layout))
    print("\n".join(told))
    return 0


def audit_files(options: argparse.Namespace) -> int:
    """`audit`."""
    config = load_config(options.config)
    layout = layout_of(config)
    found = audit.audit(_ledger(layout), layout, IgnoreList(config.intake.ignore), deep=options.deep)
    print("\n".join(audit.describe(found)))
    return 1 if found.problems else 0


# -- changing --------------------------------------------------------------------------------------


def submit(options: argparse.Namespace) -> int:
    """Copy files into the inbox under a hidden name, then give them their own."""
    folder = _open_inbox(layout_of(load_config(options.config)), options.folder)
    failed = 0
    for path in options.files:
        try:
            print(_deliver(path, folder))
        except InputError as error:
            failed += 1
            print(f"{error.message} {error.hint}".strip(), file=sys.stderr)
    return 1 if failed else 0


def _open_inbox(layout: Layout, subfolder: str) -> Path:
    """A folder of the inbox to put something into."""
    if os.access(layout.ledger_file, os.R_OK | os.W_OK):  # who shares the inbox need not share the state
        check_root(_ledger(layout), layout, Role.INBOX)
    folder = _subfolder(layout.inbox, subfolder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _subfolder(root: Path, name: str) -> Path:
    folder = (root / name).resolve()
    if folder != root.resolve() and root.resolve() not in folder.parents:
        raise InputError(f"{name} lies outside the inbox.", hint="Name a folder below it.")
    return folder


def _deliver(path: Path, folder: Path) -> Path:
    hidden = folder / f".{os.urandom(4).hex()}.voxspool-tmp"
    try:
        shutil.copyfile(path, hidden)
        move_new(hidden, folder / path.name)
    except FileExistsError as error:
        if sha256_of(path) != sha256_of(folder / path.name):
            raise InputError(
                f"Another {path.name} lies in the inbox already.",
                hint="Wait until it is taken, or rename yours.",
            ) from error
    except OSError as error:
        raise InputError(f"{display(path)} cannot be submitted: {error.strerror}.") from error
    finally:
        hidden.unlink(missing_ok=True)
    return folder / path.name


def cancel(options: argparse.Namespace) -> int:
    """Ask for a job to be cancelled."""
    layout = layout_of(load_config(options.config))
    ledger = _ledger(layout)
    job = _named_job(ledger, options.job)
    if job is not None and ledger.request_cancel(job.id):
        print(f"{job.id} {_cancelled_when(job, _daemon_runs(layout))}")
        return 0
    print(f"{options.job} is {job.state} already." if job else _unknown_job(options.job), file=sys.stderr)
    return 1


def _named_job(ledger: Ledger, name: str) -> Job | None:
    """A job by its id, or the first one of the file that was dropped under this name last."""
    job = ledger.job(name)
    if job is None:
        jobs = [job for drop in ledger.drops_of(name)[:1] for job in ledger.jobs_of(drop.id)]
        job = next((job for job in jobs if not job.state.ended), next(iter(jobs), None))
    return job


def _cancelled_when(job: Job | None, daemon_runs: bool) -> str:
    """The request is in the ledger; who reads it there, and when, depends."""
    if not daemon_runs:
        return "will be cancelled when Voxspool is started."
    if job is not None and job.state is JobState.RUNNING:
        return "is being worked on and will be cancelled as soon as the chunk in hand is done."
    return "is taken out of the queue."


def retry(options: argparse.Namespace) -> int:
    """Move a failed job's file back into the inbox."""
    layout = layout_of(load_config(options.config))
    ledger = _ledger(layout)
    job = _named_job(ledger, options.job)
    drop = ledger.drop(job.drop_id if job else options.job)
    if drop is None:
        print(_unknown_job(options.job), file=sys.stderr)
        return 1
    if drop.state is not DropState.FAILED:
        state = job.state if job else drop.state
        print(f"{options.job} is {state}; only what failed can be tried again.", file=sys.stderr)
        return 1
    check_roots(ledger, layout)
    print(_bring_back(layout, drop))
    return 0


def _bring_back(layout: Layout, drop: Drop) -> str:
    """Everything that was claimed together lies beside each other in `failed/`, and goes back together."""
    target = layout.inbox / drop.relative
    own = last_place(layout, drop)
    if own is None:
        _touch(target)
        return f"{display(drop.relative)} was touched in the inbox."
    if not own.exists():
        raise InputError(
            f"{display(own)} is no longer there.", hint="If you moved it to the inbox, that is the retry."
        )
    for member in reversed(drop.members):  # the job file last: it is what the others wait for
        source = own if member == drop.relative else own.parent / below(drop, member)
        _put_back(layout.inbox, PurePosixPath(member), source)
    return f"{display(drop.relative)} is back in the inbox."


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError as error:
        raise InputError(
            f"{display(path)} cannot be touched: {error.strerror}.", hint="Change it where it can be written."
        ) from error


def _put_back(inbox: Path, place: PurePosixPath, source: Path) -> None:
    if not source.exists():
        return
    try:
        with held_folder(inbox, place.parent, make=True) as folder:
            move_new(source, folder / place.name)
    except FileExistsError as error:
        raise InputError(
            f"Another {display(place.name)} lies in the inbox already.", hint="Wait until it is taken."
        ) from error
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise InputError(
            f"{display(error.filename)} stands in the way: {error.strerror}.", hint="Rename it and try again."
        ) from error


def _unknown_job(name: str) -> str:
    return f"There is no job and no dropped file {name}. `status` lists them."


def prune_files(options: argparse.Namespace) -> int:
    """`prune`: apply, or only show, the retention rules."""
    config = load_config(options.config)
    ledger = _ledger(layout_of(config))
    layout, rules, half = layout_of(config), config.retention, options.more_than_half
    if options.dry_run:
        print("\n".join(retention.describe(prune.rehearse(ledger, layout, rules, more_than_half=half))))
        return 0
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    plan, outcome = prune.prune(ledger, layout, rules, more_than_half=half, stopped=lambda: bool(asked))
    print("\n".join(retention.describe(plan)))
    print(outcome.told)
    for spared in outcome.kept:
        print(f"kept {spared.unit.name}: {spared.reason}")
    return 0


# -- models and voices ------------------------------------------------------------------------------


def bring_models(options: argparse.Namespace) -> int:
    """`fetch-models`."""
    config = load_config(options.config)
    console = Console()
    if options.list:
        console.print(fetch_models.table(fetch_models.known(config)))
        return 0
    models = _named_models(options.names, config, all_there=options.verify)
    if not models:
        console.print(fetch_models.nothing_needed(config), highlight=False, soft_wrap=True)
        return 0
    wish = fetch_models.Wish(revision=options.revision, update=options.update)
    failed = 0
    with shown_on(console) as shown:
        for model in models:
            try:
                if options.verify:
                    failed += not fetch_models.verify(model, shown)
                else:
                    fetch_models.fetch(model, wish, shown)
            except VoxspoolError as error:  # the others are brought all the same
                failed += 1
                print(error.in_full, file=sys.stderr)
    return 1 if failed else 0


def _named_models(names: list[str], config: Config, *, all_there: bool) -> list[fetch_models.Model]:
    """Those that are named, once each; without names all that are there, or what the defaults need."""
    if names:
        return [fetch_models.named(name, config) for name in dict.fromkeys(names)]
    if all_there:
        return [model for model in fetch_models.known(config) if fetch_models.begun(model)]
    return fetch_models.needed(config)


def show_voices(options: argparse.Namespace) -> int:
    """`voices`."""
    config = load_config(options.config)
    library = Library(config.voices_path)
    names = options.names or library.names()
    if not names:
        print(f"There is no voice in {config.voices_path}. docs/voices.md says how to make one.")
        return 0
    if options.preview:
        return _preview(names, library, config)
    rows = list(voice_list.look(library, names, config))
    console = Console()
    if console.is_terminal:
        console.print(voice_list.table(rows))
    else:
        print("\n".join(voice_list.plain(rows)))
    return 1 if any(row.fails for row in rows) else 0


def _preview(names: list[str], library: Library, config: Config) -> int:
    """A job for each voice that works; of the others it is told why they do not."""
    folder = _open_inbox(layout_of(config), voice_list.PREVIEW_FOLDER)
    failed = 0
    with tempfile.TemporaryDirectory() as made:
        for row in voice_list.look(library, names, config):
            try:
                job = Path(made, f"{row.name}.yaml")
                job.write_bytes(voice_list.preview_job(row, library, config))
                print(_deliver(job, folder))
            except InputError as error:
                failed += 1
                print(f"{display(row.name)}: {error.in_full}", file=sys.stderr)
    return 1 if failed else 0


def _ledger(layout: Layout) -> Ledger:
    _demand_state(layout)
    return Ledger(layout.ledger_file, clock=time.time)
