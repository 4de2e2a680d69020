"""The voice library: clips and sheets by name."""

import hashlib
import os
from pathlib import Path

import pytest

from pipeline.errors import InputError, SpecError
from pipeline.jobs.spec import as_set
from pipeline.voices import Library


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty library."""
    (tmp_path / "voices").mkdir()
    return tmp_path / "voices"


def put(folder: Path, **files: str) -> None:
    """`put(folder, narrator_wav="...")` writes `narrator.wav`."""
    for name, content in files.items():
        stem, _, ending = name.rpartition("_")
        (folder / f"{stem}.{ending}").write_text(content, encoding="utf-8")


def test_a_voice_is_a_clip_a_sheet_or_both(folder: Path) -> None:
    """Each with what it has; hidden files and other kinds are none."""
    put(folder, clip_WAV="x", sheet_yaml="description: d", both_flac="y", both_yml="language: de")
    put(folder, notes_txt="z")
    (folder / ".hidden.wav").write_text("h")
    (folder / "folder.wav").mkdir()
    library = Library(folder)
    assert library.names() == ["both", "clip", "sheet"]
    both, clip, sheet = (library.find(name) for name in library.names())
    assert both and clip and sheet
    assert (both.clip, both.sheet.language) == (folder / "both.flac", "de")
    assert (clip.clip, sheet.clip, sheet.sheet.description) == (folder / "clip.WAV", None, "d")


@pytest.mark.parametrize("name", ["nobody", ".hidden", "../narrator", "sub/narrator", "", "narrator.wav"])
def test_what_is_no_voice_of_the_library(folder: Path, name: str) -> None:
    """A name never leads out of the folder."""
    put(folder, narrator_wav="x")
    (folder / ".hidden.wav").write_text("x")
    assert Library(folder).find(name) is None


def test_a_missing_folder_is_an_empty_library(tmp_path: Path) -> None:
    """Nobody needs one."""
    library = Library(tmp_path / "none")
    assert library.names() == [] and library.find("x") is None and library.nearest("x") == []


def test_names_are_found_whatever_their_unicode_form(folder: Path) -> None:
    """macOS writes decomposed names, people type composed ones; a sheet's case does not matter."""
    (folder / "Zoe\u0308.wav").write_text("x")
    (folder / "Zo\u00eb.YAML").write_text("language: fr")
    for spelled in ("Zo\u00eb", "Zoe\u0308"):
        found = Library(folder).find(spelled)
        assert found is not None and found.clip is not None and found.sheet.language == "fr"


def test_undecodable_names_harm_nobody(folder: Path) -> None:
    """They can be shown."""
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.wav")).write_text("x")
    put(folder, narrator_wav="x")
    assert Library(folder).names() == ["caf\\xe9", "narrator"]
    assert Library(folder).nearest("narator") == ["narrator"]


def test_two_recordings_of_one_voice_are_told(folder: Path) -> None:
    """Which of them is meant cannot be known."""
    put(folder, narrator_wav="x", narrator_mp3="y")
    with pytest.raises(InputError, match=r"several recordings: narrator\.mp3, narrator\.wav") as caught:
        Library(folder).find("narrator")
    assert caught.value.code == "voice_ambiguous"


def test_a_wrong_sheet_is_told_with_its_line(folder: Path) -> None:
    """As an error of the voice, not of the job."""
    put(folder, narrator_yaml="description: x\nlanguag: de")
    with pytest.raises(SpecError, match=r"voices/narrator\.yaml, line 2: languag: .*language") as caught:
        Library(folder).find("narrator")
    assert caught.value.hint == "Mend the voice sheet."


def test_a_library_of_links_works(folder: Path, tmp_path: Path) -> None:
    """People keep their recordings elsewhere; a link to nowhere or to itself is no voice."""
    (tmp_path / "far.wav").write_bytes(b"sound")
    (tmp_path / "far.yaml").write_text("language: it")
    (folder / "narrator.wav").symlink_to(tmp_path / "far.wav")
    (folder / "narrator.yaml").symlink_to(tmp_path / "far.yaml")
    (folder / "gone.wav").symlink_to(tmp_path / "gone.wav")
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    library = Library(folder)
    assert library.names() == ["narrator"]
    voice = library.find("narrator")
    assert voice is not None and voice.sheet.language == "it"
    assert library.choice(voice, "conversion").clip_sha256 == hashlib.sha256(b"sound").hexdigest()


def test_what_cannot_be_read_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name and with the user it is about; root reads everything, so the refusal is staged."""
    put(folder, narrator_wav="x", narrator_yaml="language: de")
    library = Library(folder)
    voice = library.find("narrator")
    assert voice is not None

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(Path, "stat", refuse)
    for ask in (lambda: library.find("narrator"), lambda: library.choice(voice, "conversion")):
        with pytest.raises(InputError, match=r"voices/narrator\.\w+ cannot be read: Permission") as caught:
            ask()
        assert caught.value.code == "voice_unreadable" and f"User {os.geteuid()}" in caught.value.hint


def test_the_layer_of_a_voice_is_its_defaults_and_its_language(folder: Path) -> None:
    """What the defaults say of the language goes before what the voice speaks."""
    put(folder, a_yaml="language: de\ndefaults: {audio: {speed: 0.9}}")
    put(folder, b_yaml="language: de\ndefaults: {language: de-AT}", c_yaml="description: x")
    layers = {name: Library(folder).find(name) for name in "abc"}
    assert {name: as_set(voice.defaults) for name, voice in layers.items() if voice} == {
        "a": {"audio": {"speed": 0.9}, "language": "de"},
        "b": {"language": "de-AT"},
        "c": {},
    }


def test_what_an_engine_makes_of_a_voice(folder: Path) -> None:
    """espeak takes the stand-in, everybody else the recording; what is not there is told."""
    put(folder, both_wav="x", both_yaml="espeak: de+m3", clip_wav="y", sheet_yaml="espeak: en-gb")
    library = Library(folder)
    both, clip, sheet = (library.find(name) for name in ("both", "clip", "sheet"))
    assert both and clip and sheet
    assert library.choice(both, "espeak").name == "de+m3" and library.choice(both, "espeak").clip is None
    assert library.choice(sheet, "espeak").name == "en-gb"
    for user in ("chatterbox", "conversion"):
        chosen = library.choice(both, user)
        assert (chosen.name, chosen.clip) == ("both", str(folder / "both.wav"))
        assert chosen.clip_sha256 == hashlib.sha256(b"x").hexdigest()
        with pytest.raises(InputError, match=f"sheet has no recording, so {user} cannot") as caught:
            library.choice(sheet, user)
        assert "sheet.wav" in caught.value.hint
    with pytest.raises(InputError, match="clip has no stand-in for the engine espeak") as caught:
        library.choice(clip, "espeak")
    assert "voices/clip.yaml" in caught.value.hint


def test_a_hash_is_remembered_until_the_clip_changes(folder: Path) -> None:
    """Of a long recording it is made once."""
    put(folder, a_wav="one")
    library, clip = Library(folder), folder / "a.wav"
    before = clip.stat()
    first = library.hash_of(clip)
    clip.write_text("two")
    os.utime(clip, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert library.hash_of(clip) == first, "same size and time: not read again"
    os.utime(clip, ns=(0, 5))
    assert library.hash_of(clip) == hashlib.sha256(b"two").hexdigest()
