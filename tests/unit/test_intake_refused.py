"""What the machine refuses, as sentences: which root, what happened, what to do."""

import errno
import os

import pytest

from pipeline import space
from pipeline.files import ENVIRONMENT_ERRNOS
from pipeline.intake.refused import HEAL_BY_THEMSELVES, refusal
from pipeline.layout import Layout


def told(layout: Layout, number: int, name: str | None = None, target: str | None = None) -> tuple[str, str]:
    """Code and sentence."""
    failure = refusal(OSError(number, os.strerror(number), name, None, target), layout)
    return failure.code, failure.in_full


@pytest.mark.parametrize(
    ("number", "code", "what", "advice"),
    [
        (errno.ENOSPC, "disk_full", "The disk of the outbox {} is full.", "Make room there."),
        (errno.EDQUOT, "quota", "The disk quota for the outbox {} is used up.", "have it raised."),
        (errno.EROFS, "read_only", "The outbox {} is read-only.", "mount -o remount,rw {}"),
        (errno.EIO, "disk", "The disk of the outbox {} fails (Input/output error).", "`dmesg` tells more."),
        (errno.ENXIO, "disk", "The disk of the outbox {} fails", "the disk and its cable"),
        (
            errno.ESTALE,
            "share",
            "The share of the outbox {} does not answer (Stale file handle).",
            "mount it",
        ),
        (errno.ENOTCONN, "share", "The share of the outbox {} does not answer", "Look at the server"),
        (errno.EACCES, "permission", "Access to {}/a.mp3 is denied.", f"runs as uid {os.geteuid()}, gid"),
        (errno.EPERM, "permission", "Access to {}/a.mp3 is denied.", "give it access"),
        (errno.EMFILE, "machine", "This machine is short of open files in this process", "what else runs"),
        (errno.ENOMEM, "machine", "This machine is short of memory", "what else runs"),
    ],
)
def test_each_fault_is_named_with_what_to_do(
    layout: Layout, number: int, code: str, what: str, advice: str
) -> None:
    """And with what happens then."""
    found, sentence = told(layout, number, f"{layout.outbox}/a.mp3")
    assert found == code
    assert sentence.startswith(what.format(layout.outbox)) and advice.format(layout.outbox) in sentence
    assert sentence.endswith("The work then goes on by itself.")


@pytest.mark.parametrize("role", ["inbox", "outbox", "voices", "state"])
def test_the_root_is_named(layout: Layout, role: str) -> None:
    """Itself, and whatever lies below it; of two names, as of a rename, the new one."""
    root = getattr(layout, role)
    for name in (f"{root}", f"{root}/a/b"):
        assert told(layout, errno.EROFS, name)[1].startswith(f"The {role} {root} is read-only.")
    assert f"The disk of the {role} {root} is full" in told(layout, errno.ENOSPC, "/x/a", f"{root}/b")[1]


def test_a_nameless_error_is_the_work_folder_s(layout: Layout) -> None:
    """Writing into an open file tells no name; almost all that we write lies there."""
    assert f"The disk of the state {layout.state} is full" in told(layout, errno.ENOSPC)[1]


def test_inodes_that_are_used_up_are_told_from_bytes(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same error; who sees gigabytes free must be told."""
    monkeypatch.setattr("pipeline.intake.refused.look", lambda _: space.Free(bytes=10**9, files=0))
    assert told(layout, errno.ENOSPC, f"{layout.state}/x") == (
        "inodes_full",
        f"The disk of the state {layout.state} takes no more files: its inodes are used up."
        " Make room there by removing small files. The work then goes on by itself.",
    )


def test_a_disk_that_cannot_even_be_asked(layout: Layout) -> None:
    """It is full all the same."""
    layout.outbox.rmdir()
    assert told(layout, errno.ENOSPC, f"{layout.outbox}/x")[0] == "disk_full"


def test_what_heals_by_itself_is_every_fault_of_a_disk(layout: Layout) -> None:
    """So that a start waits for all of them; a folder that is denied is for a person to see at once."""
    codes = {told(layout, number)[0] for number in ENVIRONMENT_ERRNOS}
    assert codes <= HEAL_BY_THEMSELVES | {"environment"}
    assert told(layout, errno.EACCES)[0] not in HEAL_BY_THEMSELVES


def test_any_other_error_is_told_as_it_is(layout: Layout) -> None:
    """With its place."""
    assert (
        told(layout, errno.EBUSY, "/x/a")[1] == "/x/a: Device or resource busy. It is tried again by itself."
    )
