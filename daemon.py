#!/usr/bin/env python3
"""Voxspool: drop a text into the inbox, find checked speech in the outbox.

Arguments in, exit code out; everything else is in `pipeline/`. Exit codes: 0 well, 1 something
failed, 2 wrong arguments, 65 the ledger is damaged, 78 the configuration is wrong (for neither does systemd
start it again).
"""

import faulthandler
import os
import sys
import traceback
from pathlib import Path

OWN_PYTHON = Path(__file__).resolve().parent / ".venv" / "bin" / "python"

try:
    from pipeline import journal
    from pipeline.cli import main
    from pipeline.errors import ConfigError, LedgerDamaged, VoxspoolError
except ModuleNotFoundError as missing:
    # the system's python: ours lies in .venv, where make put it
    if OWN_PYTHON.exists() and Path(sys.prefix) != OWN_PYTHON.parent.parent:
        os.execv(OWN_PYTHON, [str(OWN_PYTHON), *sys.argv])
    sys.exit(f"The package {missing.name} is not installed. Type `make demo` or `make run`: they install it.")

EXIT_FAILED = 1
EXIT_DAMAGED = 65
EXIT_CONFIG = 78
EXIT_INTERRUPTED = 130


def run(arguments: list[str]) -> int:
    """Run one command; every expected error becomes a sentence."""
    try:
        return main(arguments)
    except ConfigError as error:
        return _told(error, EXIT_CONFIG)
    except LedgerDamaged as error:
        return _told(error, EXIT_DAMAGED)
    except VoxspoolError as error:
        return _told(error, EXIT_FAILED)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone: `daemon.py status | head`
        return EXIT_FAILED
    except Exception:  # noqa: BLE001 - the last place that can say anything
        traceback.print_exc()
        print("This is a mistake in Voxspool. Please report it with the lines above.", file=sys.stderr)
        return EXIT_FAILED


def _told(error: VoxspoolError, exit_code: int) -> int:
    text = "\n".join(filter(None, (error.message, error.hint)))
    if journal.reads(sys.stderr):
        text = journal.marked("ERROR", text).rstrip()
    print(text, file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    faulthandler.enable()  # where it hung, when systemd's watchdog ends it
    sys.exit(run(sys.argv[1:]))
