"""Errands in a thread of their own: what comes back, what does not, and that nobody waits for it."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentFailure
from pipeline.intake.aside import Aside, Errand

PATIENCE_SECONDS = 10.0
REPOSITORY = Path(__file__).resolve().parent.parent.parent


def test_errands_come_back_in_turn() -> None:
    """One thread does one after the other."""
    aside, done = Aside("test"), []
    errands = [aside.send(lambda number=number: done.append(number) or number) for number in range(5)]  # type: ignore[func-returns-value]
    assert errands[-1].wait(PATIENCE_SECONDS)
    assert [errand.result() for errand in errands] == done == [0, 1, 2, 3, 4]
    aside.close()


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), EnvironmentFailure("gone")])
def test_what_goes_wrong_comes_back(error: Exception) -> None:
    """And the thread goes on."""

    def fail() -> None:
        raise error

    aside = Aside("test")
    errand = aside.send(fail)
    assert errand.wait(PATIENCE_SECONDS)
    with pytest.raises(type(error), match=str(error.args[-1])):
        errand.result()
    assert aside.send(lambda: 1).wait(PATIENCE_SECONDS)
    aside.close()


def test_a_mistake_of_ours_is_no_answer() -> None:
    """It ends the thread, which tells it on the console; whoever asks hears that there is no answer."""
    errand = Errand(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        errand.run()
    assert errand.wait(0)
    with pytest.raises(RuntimeError, match="console"):
        errand.result()


def test_nobody_waits_longer_than_he_likes() -> None:
    """An errand that is stuck is waited for by nobody."""
    never = threading.Event()
    aside = Aside("test")
    stuck = aside.send(lambda: never.wait(PATIENCE_SECONDS))
    begun = time.monotonic()
    assert not stuck.wait(0.05)
    aside.close()
    assert time.monotonic() - begun < PATIENCE_SECONDS / 2
    never.set()


def test_a_closed_thread_ends_after_its_last_errand() -> None:
    """A reload leaves no thread behind."""
    aside = Aside("a test of its own")
    last = aside.send(lambda: 1)
    aside.close()
    assert last.wait(PATIENCE_SECONDS)
    end = time.monotonic() + PATIENCE_SECONDS
    while any(thread.name == "a test of its own" for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_stuck_errand_does_not_keep_the_process_from_ending() -> None:
    """As a look at a share whose server is gone."""
    script = (
        "import threading; from pipeline.intake.aside import Aside;"
        " Aside('x').send(threading.Event().wait).wait(0.1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0
