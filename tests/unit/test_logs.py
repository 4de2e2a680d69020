"""Log files: rotated, compressed, bounded, and harmless when they cannot be written."""

import gzip
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger
from mounted import tmpfs

from pipeline.config import Log
from pipeline.logs import LogFile, log_to


@pytest.fixture(autouse=True)
def _own_logger() -> Iterator[None]:
    """Whatever a test adds to the one logger is gone afterwards."""
    yield
    logger.remove()
    logger.configure(patcher=lambda _: None)


def add(path: Path, *, max_bytes: int = 10_000, keep: int = 3) -> LogFile:
    """A small log file, and nothing else."""
    logger.remove()
    file = LogFile(path, max_bytes=max_bytes, keep=keep)
    logger.add(file, format="{message}")
    return file


def test_closed_files_are_compressed_and_only_the_newest_stay(tmp_path: Path) -> None:
    """Together they never take more than was allowed, and no line between them is missing."""
    add(tmp_path / "voxspool.log")
    for number in range(2_000):
        logger.info(f"{number:06} {'x' * 90}")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["voxspool.log", *(f"voxspool.log.{n}.gz" for n in (1, 2, 3))]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4 * 10_000
    text = b"".join(gzip.decompress((tmp_path / name).read_bytes()) for name in reversed(names[1:]))
    lines = (text + (tmp_path / "voxspool.log").read_bytes()).splitlines()
    numbers = [int(line[:6]) for line in lines]
    assert numbers == list(range(numbers[0], 2_000)) and len(numbers) > 300


def test_each_line_says_when_how_bad_and_which_process(tmp_path: Path) -> None:
    """Debug lines too, whatever the console shows; names that are not text are escaped."""
    log_to(Log(level="ERROR"), tmp_path / "logs", "voxspool")
    logger.debug("caf\udce9 {}", "{not a field}")
    logger.complete()
    line = (tmp_path / "logs" / "voxspool.log").read_text()
    assert "DEBUG" in line and "caf\\udce9 {not a field}" in line and line[:4].isdigit()


def test_equal_complaints_do_not_fill_the_log(tmp_path: Path) -> None:
    """As the daemon sets it up: file and console agree."""
    log_to(Log(), tmp_path, "voxspool")
    for _ in range(500):
        logger.error("The disk is full.")
    assert (tmp_path / "voxspool.log").read_text().count("The disk is full.") == 1


def test_a_log_that_cannot_be_written_says_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And goes on as soon as it can, with the number of the lines that are missing."""
    (tmp_path / "a.log").mkdir()
    add(tmp_path / "a.log")
    for number in range(50):
        logger.info("lost {}", number)
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"The log {tmp_path}/a.log cannot be written: [Errno 21]" in told
    (tmp_path / "a.log").rmdir()
    logger.info("back"), logger.info("again")
    text = (tmp_path / "a.log").read_text()
    assert text == "lines before this one that could not be written: 50\nback\nagain\n"


def test_a_file_that_broke_is_opened_anew(tmp_path: Path) -> None:
    """As after a failed write, whose file nothing more can be written to."""
    file = add(tmp_path / "a.log")
    logger.info("before")
    file.stream.close()
    logger.info("lost"), logger.info("after")
    assert (
        tmp_path / "a.log"
    ).read_text() == "before\nlines before this one that could not be written: 1\nafter\n"


def test_a_full_disk_costs_one_line_on_the_console(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real one; rotation goes on when there is room again."""
    with tmpfs(tmp_path / "disk", "300k") as disk:
        add(disk / "a.log", max_bytes=30_000)
        logger.info("before")
        with open(disk / "ballast", "wb", buffering=0) as ballast, pytest.raises(OSError, match="No space"):
            while True:
                ballast.write(b"x" * 4096)
        for number in range(1_000):
            logger.info("lost? {} {}", number, "y" * 100)
        assert capsys.readouterr().err.count("\n") == 1
        (disk / "ballast").unlink()
        for number in range(1_000):
            logger.info("after {} {}", number, "z" * 100)
        logger.remove()
        kept = sorted(path.name for path in disk.glob("a.log*"))
        assert kept == ["a.log", "a.log.1.gz", "a.log.2.gz", "a.log.3.gz"]
        assert (disk / "a.log").read_text().endswith("z\n")
    assert capsys.readouterr().err == ""


def test_a_file_that_cannot_be_compressed_is_closed_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No half file stays, and no line goes."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    add(tmp_path / "a.log", max_bytes=1_000)
    for number in range(12):
        logger.info("{} {}", number, "x" * 90)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "a.log.1"]
    assert (tmp_path / "a.log.1").read_text().startswith("0 x")


def test_processes_write_side_by_side(tmp_path: Path) -> None:
    """Four workers, each its own file, rotating all the time: every line of each stands whole in its own."""
    program = (
        "import sys; from pathlib import Path; from loguru import logger; from pipeline.logs import LogFile\n"
        "logger.remove(); name = sys.argv[1]\n"
        f"file = LogFile(Path({str(tmp_path)!r}, name), max_bytes=50_000, keep=20)\n"
        "logger.add(file, format='{message}')\n"
        "for number in range(2000): logger.info('{} {:05} {}', name, number, 'x' * 80)\n"
    )
    names = [f"worker-{slot}.log" for slot in (1, 2, 3, 4)]
    started = [subprocess.Popen([sys.executable, "-c", program, name]) for name in names]
    assert [process.wait(60) for process in started] == [0, 0, 0, 0]
    for name in names:
        closed = sorted(tmp_path.glob(f"{name}.*.gz"), key=lambda path: -int(path.name.split(".")[2]))
        text = b"".join(gzip.decompress(path.read_bytes()) for path in closed)
        lines = (text + (tmp_path / name).read_bytes()).decode().splitlines()
        assert lines == [f"{name} {number:05} {'x' * 80}" for number in range(2000)]
