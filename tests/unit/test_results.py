"""Names in the outbox: each belongs to one source, on every kind of disk."""

import unicodedata
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.database import Database
from pipeline.naming import safe_name
from pipeline.outbox import SUFFIXES, result_folder
from pipeline.results import Results

NAME = st.text(alphabet="aAßsSéE\u0301ıiİK\u212a?*~2. \u200b漢", min_size=1, max_size=4)
LONG = st.text(alphabet="aA漢", min_size=230, max_size=250)
SOURCES = st.lists(
    st.tuples(st.lists(NAME, max_size=2).map(tuple), NAME | LONG), min_size=2, max_size=12, unique=True
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """One for all examples, since opening takes longer than they do."""
    made = Database(tmp_path_factory.mktemp("names") / "ledger.db")
    made.rows("PRAGMA synchronous = OFF")
    yield made
    made.close()


@given(SOURCES)
@example([((), "a?"), ((), "a*"), (("A",), "b"), (("a",), "B")])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_two_sources_ever_share_a_file_on_any_disk(
    database: Database, sources: list[tuple[tuple[str, ...], str]]
) -> None:
    """Folders that a disk takes for one, names that were made safe or cut, capitals, spellings."""
    with database.transaction() as db:
        db.execute("DELETE FROM results")
    results = Results(database, clock=lambda: 0.0)
    owners: dict[str, str] = {}
    for above, name in sources:
        source = "/".join((*above, name))
        folder = result_folder(PurePosixPath(*above))
        stem = results.reserve(
            folder, safe_name(name), source=source, index=0, job_id="j", may_use=lambda *_: True
        )
        for suffix in SUFFIXES:
            for seen in seen_as(str(folder / (stem + suffix))):
                assert owners.setdefault(seen, source) == source


def seen_as(path: str) -> set[str]:
    """A path as case-blind and normalising disks compare it; APFS, NTFS, Samba."""
    decomposed = unicodedata.normalize("NFD", path)
    return {
        "exact " + path,
        "apfs " + unicodedata.normalize("NFD", decomposed.casefold()),
        "ntfs " + "".join(c.upper() if len(c.upper()) == 1 else c for c in path),
        "samba " + path.lower(),
        "zfs " + unicodedata.normalize("NFC", path).upper(),
    }
