"""Fetching models with the real client of the Hugging Face hub, from a server on loopback that plays it."""

import hashlib
import importlib.util
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer, Repository, Trouble

from pipeline import cli, fetch_models
from pipeline.checkpoints import CHATTERBOX, folder_of
from pipeline.config import Config, ConfigFile, resolve
from pipeline.errors import EnvironmentFailure, InputError
from pipeline.fetch_models import Wish, sources
from pipeline.fetch_models.transfer import RETRY_SECONDS
from pipeline.files import exclusive_lock
from tests.conftest import REPOSITORY as REPOSITORY_ROOT

if importlib.util.find_spec("huggingface_hub") is None:
    if os.environ.get("VOXSPOOL_TEST_MODELS") == "1":
        pytest.fail("huggingface_hub is not installed: pip install -r requirements.txt", pytrace=False)
    pytest.skip("huggingface_hub is not installed (requirements.txt)", allow_module_level=True)

REPOSITORY = "ResembleAI/chatterbox"
LARGE = "t3_cfg.safetensors"
SMALL = "tokenizer.json"


def content(seed: int, size: int) -> bytes:
    """Bytes that no compression and no chance makes equal."""
    return random.Random(seed).randbytes(size)


def some_files(seed: int = 0) -> dict[str, bytes]:
    """A repository that holds everything that chatterbox needs, and more."""
    files = {name: content(seed + number, 200_000) for number, name in enumerate(CHATTERBOX.files)}
    return {**files, SMALL: b'{"version": "1.0"}', "README.md": b"# Chatterbox", "other.bin": b"x" * 50_000}


class Watcher:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.most: dict[str, int] = {}

    def tell(self, sentence: str) -> None:
        self.told.append(sentence)

    def moved(self, name: str, there: int, size: int | None) -> None:
        assert size is None or there <= size
        self.most[name] = max(there, self.most.get(name, 0))


class Site:
    """A hub with one repository, a configuration, and one who fetches."""

    def __init__(self, hub: HubServer, config: Config) -> None:
        self.hub, self.config = hub, config
        self.repository = hub.repositories[REPOSITORY] = Repository()
        self.files = some_files()
        self.commit = self.repository.commit(self.files)
        self.watcher = Watcher()
        self.told = self.watcher.told
        self.slept: list[float] = []
        self.folder = config.models_path / "chatterbox"
        self.config_file = config.state_path.parent / "config.yaml"

    def fetch(
        self, name: str = "chatterbox", *, revision: str | None = None, update: bool = False
    ) -> list[str]:
        """Fetch once; what was told this time."""
        self.told.clear()
        fetch_models.fetch(
            sources.named(name, self.config),
            Wish(revision=revision, update=update),
            self.watcher,
            sleep=self.slept.append,
            now=lambda: 1_790_000_000.0,
        )
        return self.told

    def lies_there(self) -> set[str]:
        """Every file of the model's folder, hidden ones too."""
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}

    def whole(self, files: dict[str, bytes] | None = None) -> bool:
        """Whether just the needed files lie there, as on the hub, with the record."""
        wanted = {name: (files or self.files)[name] for name in CHATTERBOX.files}
        same = all((self.folder / name).read_bytes() == data for name, data in wanted.items())
        return same and self.lies_there() == {*wanted, "source.json"}

    def record(self) -> dict[str, object]:
        """`source.json`."""
        loaded: dict[str, object] = json.loads((self.folder / "source.json").read_bytes())
        return loaded


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub, which this process takes for the real one."""
    proxies = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
    for variable in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", *proxies):
        monkeypatch.delenv(variable, raising=False)
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv(sources.WHISPER_VARIABLE, f"{server.address}/whisper")
        from huggingface_hub import close_session

        yield server
        close_session()


@pytest.fixture
def site(hub: HubServer, config: Config) -> Site:
    """Nothing fetched yet."""
    return Site(hub, config)


# -- the first time ------------------------------------------------------------------------------


def test_just_the_files_of_the_table_are_fetched_and_recorded(site: Site) -> None:
    """At the commit that `main` is, with their sizes and hashes; the loader then finds them."""
    told = site.fetch()
    assert site.whole()
    assert folder_of(site.config.models_path, CHATTERBOX) == site.folder
    assert site.record() == {
        "repository": REPOSITORY,
        "revision": site.commit,
        "files": [
            {
                "name": name,
                "bytes": len(site.files[name]),
                "sha256": hashlib.sha256(site.files[name]).hexdigest(),
            }
            for name in CHATTERBOX.files
        ],
        "fetched_at": "2026-09-21T14:13:20+00:00",
    }
    assert told[0] == f"chatterbox: 4 files, 600 kB, from {REPOSITORY} at {site.commit}."
    assert told[-1].startswith("chatterbox is whole")
    assert {name: len(site.files[name]) for name in CHATTERBOX.files} == site.watcher.most
    assert not site.slept


def test_an_optional_file_is_taken_where_there_is_one(site: Site) -> None:
    """The built-in voice."""
    site.repository.commit({**site.files, "conds.pt": content(9, 20_000)})
    site.fetch()
    assert (site.folder / "conds.pt").read_bytes() == content(9, 20_000)


def test_a_token_goes_to_the_hub_and_not_to_its_storage(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage is another host, and its addresses are signed."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    site.fetch()
    for asked in site.hub.asked:
        sent = asked.headers.get("authorization")
        assert sent == (None if asked.path.startswith("/storage/") else "Bearer hf_secret"), asked
    assert site.hub.asked_for(LARGE)[-1].host.startswith("localhost")


# -- later times -----------------------------------------------------------------------------------


def test_what_is_whole_stays_at_its_revision_and_nobody_is_asked(site: Site) -> None:
    """Also when `main` has moved."""
    site.fetch()
    site.repository.commit(some_files(50))
    asked = len(site.hub.asked)
    assert site.fetch() == [
        f"chatterbox is whole: {REPOSITORY} at {site.commit}, fetched 2026-09-21T14:13:20+00:00."
    ]
    assert len(site.hub.asked) == asked and site.whole()


def test_what_is_missing_or_damaged_is_repaired_at_the_same_revision(site: Site) -> None:
    """Only that; `main` has moved meanwhile."""
    site.fetch()
    site.repository.commit(some_files(50))
    (site.folder / SMALL).unlink()
    damaged = bytearray(site.files[LARGE])
    damaged[1000] ^= 1
    (site.folder / LARGE).write_bytes(damaged)
    site.hub.asked.clear()
    (site.folder / "s3gen.safetensors").write_bytes(b"cut")
    told = site.fetch()
    assert site.whole() and site.record()["revision"] == site.commit
    assert "chatterbox: s3gen.safetensors is 3 bytes long and not 200000; it is fetched again." in told
    assert told[0] == f"chatterbox: {LARGE} has changed since it was fetched; it is fetched again."
    assert f"chatterbox: {SMALL} is missing; it is fetched again." in told
    assert site.hub.asked_for("ve.safetensors") == []


def test_update_moves_to_the_newest_revision_and_fetches_only_what_differs(site: Site) -> None:
    """And an optional file that the new one lacks goes, or it would be loaded."""
    site.commit = site.repository.commit({**site.files, "conds.pt": b"old" * 5000})
    site.fetch()
    newer = {**site.files, LARGE: content(70, 210_000)}
    commit = site.repository.commit(newer)
    site.hub.asked.clear()
    site.fetch(update=True)
    assert site.whole(newer) and site.record()["revision"] == commit
    assert site.hub.asked_for("s3gen.safetensors") == []
    site.hub.asked.clear()
    assert site.fetch(update=True)[-1].startswith("chatterbox is whole")
    assert len(site.hub.asked) == 1, "only the listing"


def test_another_revision_can_be_pinned_by_commit_or_tag(site: Site) -> None:
    """It is kept as the commit that it was then."""
    older, site.files = site.files, some_files(50)
    newer = site.repository.commit(site.files)
    site.repository.tags["v1"] = site.commit
    site.fetch()
    assert site.record()["revision"] == newer
    site.fetch(revision="v1")
    assert site.whole(older) and site.record()["revision"] == site.commit
    site.fetch(revision=newer)
    assert site.whole() and site.record()["revision"] == newer


def test_an_update_that_breaks_leaves_the_old_revision_whole(site: Site) -> None:
    """Nothing is put in its place before everything is there."""
    site.fetch()
    site.repository.commit(some_files(50))
    site.hub.troubles[LARGE] = Trouble(status=404, times=99)
    with pytest.raises(EnvironmentFailure, match=f"{LARGE} cannot be fetched: the server answers 404"):
        site.fetch(update=True)
    for name in CHATTERBOX.files:
        assert (site.folder / name).read_bytes() == site.files[name]
    assert site.record()["revision"] == site.commit
    del site.hub.troubles[LARGE]
    assert site.fetch()[-1].startswith("chatterbox is whole")
    site.fetch(update=True)
    assert site.whole(some_files(50)), "and what was begun has gone"


def test_a_crash_between_two_renames_is_put_right_without_a_download(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is written first, and says what is to be there."""
    real, moved = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        if moved:
            raise OSError(5, "the plug was pulled", str(self))
        moved.append(self.name)
        return real(self, target)

    with monkeypatch.context() as broken, pytest.raises(EnvironmentFailure, match="the plug was pulled"):
        broken.setattr(Path, "replace", replace)
        site.fetch()
    with pytest.raises(InputError, match="is not whole"):
        folder_of(site.config.models_path, CHATTERBOX)
    site.hub.asked.clear()
    site.fetch()
    assert site.whole() and len(site.hub.asked) == 1


def test_a_crash_before_the_last_step_makes_nobody_think_of_hands(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file is at its place: the record must be there already."""

    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        moved = real(self, target)
        if self.name == CHATTERBOX.files[-1]:
            raise OSError(5, "the plug was pulled", str(self))
        return moved

    with monkeypatch.context() as broken, pytest.raises(EnvironmentFailure, match="the plug was pulled"):
        broken.setattr(Path, "replace", replace)
        site.fetch()
    assert site.fetch()[-1].startswith("chatterbox is whole")


def test_what_was_begun_of_a_revision_that_is_wanted_no_more_goes(site: Site) -> None:
    """Or it would lie there for ever; another model's stays."""
    site.hub.troubles[LARGE] = Trouble(status=404)
    with pytest.raises(EnvironmentFailure):
        site.fetch()
    other = site.folder / fetch_models.INCOMING / "chatterbox-turbo-0123456789ab" / "half.bin"
    other.parent.mkdir()
    other.write_bytes(b"half")
    site.files = some_files(50)
    site.repository.commit(site.files)
    site.fetch()
    assert {path for path in site.lies_there() if path.startswith(".")} == {
        str(other.relative_to(site.folder))
    }


# -- broken lines ----------------------------------------------------------------------------------


def test_a_broken_line_is_taken_up_where_it_broke(site: Site) -> None:
    """Within one run, after five seconds."""
    site.hub.troubles[LARGE] = Trouble(break_after=70_000)
    site.fetch()
    assert site.whole() and site.slept == [RETRY_SECONDS]
    assert any(line.startswith(f"{LARGE}: ") and line.endswith("trying again in 5 s.") for line in site.told)
    ranges = [asked.range for asked in site.hub.asked_for(LARGE) if asked.path.startswith("/storage/")]
    assert ranges[0] is None and ranges[1] is not None
    assert 0 < int(ranges[1].removeprefix("bytes=").removesuffix("-")) <= 70_000


def test_an_interrupted_download_goes_on_in_the_next_run(site: Site) -> None:
    """Ctrl-C: under the final names lies nothing, beside them what came so far."""
    site.hub.troubles[LARGE] = Trouble(break_after=130_000)

    site.slept = _Interrupting()
    with pytest.raises(KeyboardInterrupt):
        site.fetch()
    assert not {*CHATTERBOX.files} & site.lies_there()
    assert any(name.startswith(".incoming/") and name.endswith(LARGE) for name in site.lies_there())
    site.slept = []
    site.hub.asked.clear()
    site.fetch()
    assert site.whole()
    assert site.hub.asked_for("ve.safetensors") == [], "it had come whole"
    assert site.hub.asked_for(LARGE)[-1].range is not None


class _Interrupting(list[float]):
    def append(self, _seconds: float) -> None:
        raise KeyboardInterrupt


def test_a_line_that_breaks_again_and_again_but_moves_on_is_enough(site: Site) -> None:
    """Only tries that bring nothing count."""
    site.hub.troubles[LARGE] = Trouble(break_after=30_000, times=6)
    site.fetch()
    assert site.whole() and site.slept == [RETRY_SECONDS] * 6


def test_a_server_that_knows_no_ranges_begins_anew(site: Site) -> None:
    """What came before is written over."""
    site.hub.troubles[LARGE] = Trouble(break_after=70_000)
    site.hub.troubles[f"/{LARGE}"] = Trouble(ignore_range=True)
    site.fetch()
    assert site.whole() and site.hub.asked_for(LARGE)[-1].range is not None


def test_busy_servers_are_asked_again_twice(site: Site) -> None:
    """503 from the hub and from its storage."""
    site.hub.troubles["/revision/main"] = Trouble(status=503, times=2)
    site.hub.troubles[LARGE] = Trouble(status=503, times=2)
    site.fetch()
    assert site.whole() and site.slept == [RETRY_SECONDS] * 4


@pytest.mark.parametrize("where", ["/revision/main", LARGE])
def test_after_three_tries_it_is_told_and_kept(site: Site, where: str) -> None:
    """With what to do."""
    site.hub.troubles[where] = Trouble(status=503, times=3)
    with pytest.raises(
        EnvironmentFailure, match=r"could not be fetched in 3 tries: .* answers 503"
    ) as caught:
        site.fetch()
    assert "goes on from there" in caught.value.hint and caught.value.code == "model_fetch"
    assert site.slept == [RETRY_SECONDS] * 2
    site.fetch()
    assert site.whole()


@pytest.mark.parametrize("name", [LARGE, SMALL])
def test_what_has_another_hash_is_thrown_away_and_fetched_again(site: Site, name: str) -> None:
    """Twice; both kinds of files, with the hash of each kind."""
    site.hub.troubles[name] = Trouble(other_bytes=True, times=2)
    site.fetch()
    assert site.whole() and site.slept == [RETRY_SECONDS] * 2
    site.hub.troubles[name] = Trouble(other_bytes=True, times=3)
    (site.folder / name).unlink()
    with pytest.raises(EnvironmentFailure, match="its hash is another"):
        site.fetch()
    assert name not in {path.rpartition("/")[2] for path in site.lies_there()}


def test_a_whole_file_whose_size_nobody_told_is_known_by_its_hash(site: Site, tiny: bytes) -> None:
    """A run that was stopped before the rename; the server has nothing after it, and says 416."""
    site.hub.troubles["tiny.pt"] = Trouble(break_after=0, times=1)
    site.hub.hides_sizes = True
    site.slept = _Interrupting()
    with pytest.raises(KeyboardInterrupt):
        site.fetch("whisper-tiny")
    (begun,) = (site.config.models_path / "whisper" / ".incoming").iterdir()
    (begun / "tiny.pt").write_bytes(tiny)
    site.slept = []
    site.fetch("whisper-tiny")
    assert (site.config.models_path / "whisper" / "tiny.pt").read_bytes() == tiny and not site.slept
    (begun / "tiny.pt").parent.mkdir(parents=True)
    (begun / "tiny.pt").write_bytes(tiny + b"too much")
    (site.config.models_path / "whisper" / "tiny.pt").unlink()
    site.fetch("whisper-tiny")
    assert (site.config.models_path / "whisper" / "tiny.pt").read_bytes() == tiny
    assert site.slept == [RETRY_SECONDS]


def begun(site: Site, data: bytes) -> None:
    """An earlier run left this of the large file."""
    incoming = site.folder / fetch_models.INCOMING / f"chatterbox-{site.commit[:12]}"
    incoming.mkdir(parents=True)
    (incoming / LARGE).write_bytes(data)


def test_what_is_longer_than_the_file_is_thrown_away(site: Site) -> None:
    """It cannot be its beginning."""
    begun(site, b"x" * 300_000)
    site.fetch()
    assert site.whole() and not site.slept and site.hub.asked_for(LARGE)[-1].range is None


def test_a_beginning_of_something_else_is_found_out(site: Site) -> None:
    """By the hash of the whole; then all of it is fetched."""
    begun(site, b"x" * 100_000)
    site.fetch()
    assert site.whole() and site.slept == [RETRY_SECONDS]


def test_another_part_than_was_asked_for_is_refused(site: Site) -> None:
    """A cache on the way, say."""
    begun(site, site.files[LARGE][:100_000])
    site.hub.troubles[LARGE] = Trouble(other_range=True)
    with pytest.raises(EnvironmentFailure, match="another part of t3_cfg"):
        site.fetch()


def test_no_more_is_taken_than_was_announced(site: Site) -> None:
    """Or a server could fill the disk."""
    site.hub.troubles[LARGE] = Trouble(surplus=b"x" * 1000)
    with pytest.raises(EnvironmentFailure, match=r"sends more of t3_cfg\.safetensors than it said"):
        site.fetch()


def test_room_is_reckoned_for_what_is_still_to_come(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier run brought lies there already."""
    begun(site, site.files[LARGE][:100_000])
    needed = sum(len(site.files[name]) for name in CHATTERBOX.files) - 100_000
    room = type("Usage", (), {"free": needed + fetch_models.KEPT_FREE_BYTES})
    monkeypatch.setattr(fetch_models.shutil, "disk_usage", lambda _: room)
    site.fetch()
    assert site.whole()


def test_a_hub_that_tells_no_hash_is_not_believed(site: Site) -> None:
    """Nothing could be verified."""
    site.hub.hides_hashes = True
    with pytest.raises(EnvironmentFailure, match=f"tells no hash of {SMALL}, so it cannot be verified"):
        site.fetch()


# -- refusals --------------------------------------------------------------------------------------


def test_a_gated_repository_asks_for_a_token(site: Site) -> None:
    """Told by the listing, or only by the file."""
    site.hub.troubles["/revision/main"] = Trouble(status=401, headers=(("X-Error-Code", "GatedRepo"),))
    with pytest.raises(EnvironmentFailure, match=r"not open to everybody.* 401") as caught:
        site.fetch()
    assert "HF_TOKEN" in caught.value.hint
    site.hub.troubles[LARGE] = Trouble(status=401)
    with pytest.raises(EnvironmentFailure, match=f"{LARGE} is not given to everybody.* 401") as caught:
        site.fetch()
    assert "HF_TOKEN" in caught.value.hint and not site.slept


def test_a_repository_that_is_not_there_is_told(site: Site) -> None:
    """The hub answers 401 for it as well."""
    del site.hub.repositories[REPOSITORY]
    with pytest.raises(EnvironmentFailure, match=f"{REPOSITORY} is not open to everybody, or is not there"):
        site.fetch()


@pytest.mark.parametrize("revision", ["v9", "0" * 40, "a..b c"])
def test_a_revision_that_there_is_not_is_told(site: Site, revision: str) -> None:
    """Also one that cannot be."""
    with pytest.raises(InputError, match="has no revision") as caught:
        site.fetch(revision=revision)
    assert caught.value.code == "model_revision"


def test_a_revision_without_a_needed_file_is_told_by_its_name(site: Site) -> None:
    """Before anything is downloaded."""
    del site.files[LARGE]
    site.repository.commit(site.files)
    with pytest.raises(InputError, match=f"lacks {LARGE}: chatterbox needs it"):
        site.fetch()
    assert site.hub.asked_for("ve.safetensors") == []


def test_no_room_is_told_before_anything_is_fetched(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """With both figures."""
    room = type("Usage", (), {"free": 50_000_000})
    monkeypatch.setattr(fetch_models.shutil, "disk_usage", lambda _: room)
    with pytest.raises(EnvironmentFailure, match="600 kB are to be fetched, and 50 MB are free") as caught:
        site.fetch()
    assert caught.value.code == "model_room" and site.hub.asked_for(LARGE) == []


def test_what_is_no_hub_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy's page of greeting, say."""
    site.hub.troubles["/revision/main"] = Trouble(status=200)
    with pytest.raises(EnvironmentFailure, match="what answers is no Hugging Face hub") as caught:
        site.fetch()
    assert "HF_ENDPOINT" in caught.value.hint


@pytest.mark.parametrize("package", ["huggingface_hub", "huggingface_hub.utils", "httpx"])
def test_the_core_installation_is_told_what_to_install(
    site: Site, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    """As a sentence; so is Whisper's way, which needs only httpx."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EnvironmentFailure, match="is not installed") as caught:
        site.fetch("whisper-tiny" if package == "httpx" else "chatterbox")
    assert "pip install -r requirements.txt" in caught.value.hint


def test_the_offline_switch_of_the_hub_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody set it on purpose."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EnvironmentFailure, match="HF_HUB_OFFLINE is set"):
        site.fetch()


def test_nobody_there_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three tries."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(EnvironmentFailure, match=r"in 3 tries: .*refused"):
        site.fetch()


def test_two_at_once_are_kept_apart(site: Site) -> None:
    """The second says so."""
    site.config.models_path.mkdir()
    with exclusive_lock(site.config.models_path / fetch_models.LOCK) as alone:
        assert alone
        with pytest.raises(EnvironmentFailure, match="already"):
            site.fetch()


def test_a_folder_that_cannot_be_written_is_told(site: Site) -> None:
    """A file lies in its place."""
    site.config.models_path.write_text("")
    with pytest.raises(EnvironmentFailure, match=r"chatterbox cannot be written to .*: Not a directory"):
        site.fetch()


# -- brought by hand -------------------------------------------------------------------------------


def test_a_model_brought_by_hand_is_left_alone_and_said_so(site: Site) -> None:
    """Nobody is asked."""
    site.folder.mkdir(parents=True)
    for name in CHATTERBOX.files:
        (site.folder / name).write_bytes(b"mine")
    for wish in ({}, {"update": True}):
        (told,) = site.fetch(**wish)
        assert "was brought by hand (no source.json in" in told and told.endswith("It is left alone.")
    assert site.hub.asked == [] and site.lies_there() == {*CHATTERBOX.files}


def test_a_file_brought_by_hand_stays_beside_what_is_fetched(site: Site) -> None:
    """It is no part of the record; one that is just what the hub has is."""
    site.folder.mkdir(parents=True)
    (site.folder / LARGE).write_bytes(b"my own")
    (site.folder / SMALL).write_bytes(site.files[SMALL])
    told = site.fetch()
    assert f"chatterbox: {LARGE} was brought by hand and is not the one of" in told[0]
    assert (site.folder / LARGE).read_bytes() == b"my own"
    recorded = [entry["name"] for entry in site.record()["files"]]  # type: ignore[index,union-attr]
    assert LARGE not in recorded and SMALL in recorded
    assert site.hub.asked_for(SMALL) == []
    site.repository.commit(some_files(50))
    site.fetch(update=True)
    assert (site.folder / LARGE).read_bytes() == b"my own"


def test_a_record_that_makes_no_sense_is_told(site: Site) -> None:
    """Also one that names files elsewhere."""
    site.fetch()
    record = site.record()
    record["files"][0]["name"] = "../../config.yaml"  # type: ignore[index]
    for text in ("{", "[]", json.dumps(record)):
        (site.folder / "source.json").write_text(text)
        assert command(site, "--list") == 0 and command(site, "--verify") == 1
        with pytest.raises(InputError, match=r"source\.json cannot be used") as caught:
            site.fetch()
        assert caught.value.code == "model_record"


# -- Whisper ---------------------------------------------------------------------------------------


@pytest.fixture
def tiny(site: Site, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What the server has as Whisper tiny."""
    weights = content(7, 150_000)
    digest = hashlib.sha256(weights).hexdigest()
    monkeypatch.setattr(sources, "WHISPER_FILES", {**sources.WHISPER_FILES, "tiny": (digest, "tiny.pt")})
    site.hub.whisper[f"{digest}/tiny.pt"] = weights
    return weights


def test_whisper_comes_from_its_address_with_the_hash_in_it(site: Site, tiny: bytes) -> None:
    """Taken up where it broke, verified, recorded; the next run asks nobody."""
    site.hub.troubles["tiny.pt"] = Trouble(break_after=70_000)
    site.fetch("whisper-tiny")
    folder = site.config.models_path / "whisper"
    assert (folder / "tiny.pt").read_bytes() == tiny
    assert sorted(path.name for path in folder.iterdir()) == ["tiny.pt", "tiny.source.json"]
    assert site.hub.asked_for("tiny.pt")[1].range is not None and site.slept == [RETRY_SECONDS]
    asked = len(site.hub.asked)
    assert site.fetch("whisper-tiny")[0].startswith("whisper-tiny is whole")
    assert len(site.hub.asked) == asked
    with pytest.raises(InputError, match="has no revisions"):
        site.fetch("whisper-tiny", revision="v1")


def test_whisper_with_another_hash_never_lies_under_its_name(site: Site, tiny: bytes) -> None:
    """Its hash stands in its address."""
    site.hub.troubles["tiny.pt"] = Trouble(other_bytes=True, times=3)
    with pytest.raises(EnvironmentFailure, match="its hash is another"):
        site.fetch("whisper-tiny")
    assert not list((site.config.models_path / "whisper").rglob("*.pt"))


def test_whisper_brought_by_hand_is_known_by_its_hash(site: Site, tiny: bytes) -> None:
    """The very file is taken over, another is left alone; nobody is asked."""
    folder = site.config.models_path / "whisper"
    folder.mkdir(parents=True)
    (folder / "tiny.pt").write_bytes(b"my own")
    (told,) = site.fetch("whisper-tiny")
    assert "was brought by hand and is not the file at" in told and not (folder / "tiny.source.json").exists()
    (folder / "tiny.pt").write_bytes(tiny)
    (told,) = site.fetch("whisper-tiny")
    assert "the very file at" in told and (folder / "tiny.source.json").exists()
    assert site.hub.asked == []


def test_faster_whisper_comes_from_the_hub(site: Site, tmp_path: Path) -> None:
    """Into a folder of its own, by the configured backend."""
    parsed = ConfigFile.model_validate({"models": {"whisper": {"backend": "faster-whisper"}}})
    site.config = resolve(parsed, tmp_path / "config.yaml")
    files = {"config.json": b"{}", "model.bin": content(3, 90_000), "tokenizer.json": b"[]"}
    site.hub.repositories["Systran/faster-whisper-base"] = Repository()
    site.hub.repositories["Systran/faster-whisper-base"].commit({**files, "vocabulary.txt": b"a\nb\n"})
    site.fetch("whisper-base")
    folder = site.config.models_path / "faster-whisper" / "base"
    assert {path.name for path in folder.iterdir()} == {*files, "vocabulary.txt", "source.json"}


def test_our_tables_are_those_of_the_packages() -> None:
    """Addresses and hashes of openai-whisper, repositories of faster-whisper."""
    whisper = pytest.importorskip("whisper", reason="openai-whisper is not installed (requirements.txt)")
    for size, (digest, name) in sources.WHISPER_FILES.items():
        assert whisper._MODELS[size] == f"{sources.WHISPER_ADDRESS}/{digest}/{name}"
    faster = pytest.importorskip("faster_whisper.utils", reason="faster-whisper is not installed")
    for size in sources.WHISPER_FILES:
        assert faster._MODELS[size] == sources._OTHER_REPOSITORIES.get(size, sources._SYSTRAN + size)


# -- the command -----------------------------------------------------------------------------------


def command(site: Site, *words: str) -> int:
    """`daemon.py fetch-models`."""
    if not site.config_file.exists():
        site.config_file.write_text("defaults: {engine: chatterbox}\nmodels: {whisper: {size: tiny}}\n")
    return cli.main(["--config", str(site.config_file), "fetch-models", *words])


def test_the_command_brings_what_the_defaults_need(
    site: Site, tiny: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Engine and recogniser; then it lists and verifies them, and finds damage."""
    assert command(site) == 0
    assert site.whole() and (site.config.models_path / "whisper" / "tiny.pt").exists()
    assert capsys.readouterr().out.count("is whole") == 2
    assert command(site, "--list") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "there" in lines["chatterbox"] and site.commit[:12] in lines["chatterbox"]
    assert "not there" in lines["chatterbox-turbo"]
    assert command(site, "--verify") == 0
    (site.folder / SMALL).write_bytes(b"x" * len(site.files[SMALL]))
    assert command(site, "--verify") == 1
    assert f"{SMALL} has changed since it was fetched." in capsys.readouterr().out
    assert command(site, "--verify", "chatterbox-turbo") == 1
    assert "chatterbox-turbo is not there." in capsys.readouterr().out


def test_the_program_itself_tells_the_hub_nothing_of_the_machine(site: Site) -> None:
    """Run as people run it: the client is told to be silent before it is imported; no bars in a log."""
    assert command(site, "--list") == 0
    program = [sys.executable, str(REPOSITORY_ROOT / "daemon.py"), "--config", str(site.config_file)]
    answer = subprocess.run(
        [*program, "fetch-models", "chatterbox"], capture_output=True, text=True, timeout=60, check=True
    )
    assert site.whole() and answer.stderr == ""
    assert [line.partition(":")[0] for line in answer.stdout.splitlines()] == [
        "chatterbox",
        "chatterbox is whole",
    ]
    agents = {asked.headers["user-agent"] for asked in site.hub.asked}
    assert agents and not [agent for agent in agents if "torch" in agent]


def test_one_that_fails_does_not_keep_the_others(
    site: Site, tiny: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code tells."""
    assert command(site, "chatterbox-turbo", "whisper-tiny") == 1
    assert (site.config.models_path / "whisper" / "tiny.pt").exists()
    assert "ResembleAI/chatterbox-turbo is not open to everybody" in capsys.readouterr().err
