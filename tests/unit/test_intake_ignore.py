"""What the names in an inbox mean."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.intake import ignore as names
from pipeline.intake.ignore import (
    Candidate,
    DropKind,
    EntryType,
    Folder,
    Held,
    Ignored,
    IgnoreList,
    Unsupported,
    explain_name,
)
from pipeline.outbox import note_paths

FILE, FOLDER = EntryType.FILE, EntryType.FOLDER
AUDIO = ("wav", "mp3", "flac", "ogg", "opus", "m4a", "aac", "WAV")


@pytest.fixture(name="ignore")
def default_list() -> IgnoreList:
    """The list without additions of the user."""
    return IgnoreList()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, DropKind.TEXT) for name in ("speech.txt", "A.TXT", "read.md", "a/b/c.Md")),
        *((name, DropKind.JOB) for name in ("a.yaml", "a.yml", "deep/er/JOB.YAML")),
        *((f"a.{extension}", DropKind.AUDIO) for extension in AUDIO),
        *((name, DropKind.DEFAULTS) for name in ("_defaults.yaml", "_defaults.yml", "a/_defaults.yaml")),
    ],
)
def test_drops_have_the_kind_of_their_extension(ignore: IgnoreList, name: str, kind: DropKind) -> None:
    """Every extension of the contract is a drop of its kind, in any case and any folder."""
    assert ignore.classify(name, FILE) == Candidate(kind=kind)


@pytest.mark.parametrize(
    "name",
    [
        *(" leading blank.txt", "1984.txt", "über.txt", "trailing.blank .txt", "новости.md", "日本.txt"),
        *(
            "line\nbreak.txt",
            "x" * 251 + ".txt",
            "a.b.c.txt",
            "u\u0308ber.txt",
            "%$&!.wav",
            "\udce9t\udce9.txt",
        ),
        *("The_conflict.txt", "conflict.txt", "old.txt", "tmp.txt", "part.md", "download.txt", "4913.txt"),
    ],
)
def test_odd_but_honest_names_are_drops(ignore: IgnoreList, name: str) -> None:
    """Blanks, digits, other scripts, undecodable bytes and words of the list within a name do no harm."""
    assert isinstance(ignore.classify(name, FILE), Candidate)


@pytest.mark.parametrize(
    "name",
    [
        *(".hidden.txt", ".syncthing.story.txt.tmp", "~syncthing~story.txt.tmp", "story.txt.part", "a.TMP"),
        *("a.crdownload", "~$letter.docx", ".~lock.a.odt#", "#a.txt#", ".#a.txt", "a.txt~", "a.txt.swp"),
        *("Thumbs.db", "THUMBS.DB", "desktop.ini", "Icon\r", "4913", "._story.txt", ".nfs000123", "a.lock"),
        *(
            "a.wav:Zone.Identifier",
            "a.txt@SynoEAStream",
            "b.txt@SynoResource",
            "x.unmanic.part",
            "a.voxspool-tmp",
        ),
        *(
            ".story.txt.Ab3dE9",
            "story.txt.0a1b2c3d.partial",
            "csync_journal.db-wal",
            "a.!qb",
            "a.bak",
            "a.icloud",
        ),
        *(
            "@eaDir/a.txt",
            "sub/@EADIR/a.txt",
            "#recycle/a.txt",
            ".git/a.txt",
            "$RECYCLE.BIN/a.txt",
            ".hid/a.txt",
        ),
        *("System Volume Information/a.txt", "__MACOSX/a.txt", "lost+found/a.txt", "_UNPACK_book/a.txt"),
        *(
            "a.sb-1234abcd-XyZ123/a.txt",
            "(A Document Being Saved By TextEdit)/a.txt",
            ".voxspool/claimed/a.txt",
        ),
    ],
)
def test_temporary_and_system_names_are_left_alone_in_silence(ignore: IgnoreList, name: str) -> None:
    """No names of sync tools, NAS boxes, editors and downloads reach the status."""
    verdict = ignore.classify(name, FILE)
    assert isinstance(verdict, Ignored)
    assert not verdict.shown


@pytest.mark.parametrize("glob", [*names.IGNORED_FILES, *names.IGNORED_FILE_GLOBS])
def test_every_file_pattern_works(ignore: IgnoreList, glob: str) -> None:
    """Each file pattern of the list matches a name made from it, whatever its case."""
    name = glob.replace("[0-9a-f]", "7").replace("*", "Xy").replace("?", "p")
    for spelling in (name, name.upper(), name.lower()):
        assert isinstance(ignore.classify(spelling, FILE), Ignored), spelling


@pytest.mark.parametrize("glob", [*names.IGNORED_FOLDERS, *names.IGNORED_FOLDER_GLOBS])
def test_every_folder_pattern_works(ignore: IgnoreList, glob: str) -> None:
    """Each folder pattern leaves out the folder and all that lies in it."""
    name = glob.replace("*", "Xy").replace("?", "p")
    assert isinstance(ignore.classify(name.upper(), FOLDER), Ignored)
    assert isinstance(ignore.classify(f"a/{name}/b/speech.txt", FILE), Ignored)


@pytest.mark.parametrize(
    "name",
    [
        "story.sync-conflict-20260102-101112-ABCDEF7.txt",
        "story_conflict-20260102-101112.txt",
        "story (conflicted copy 2026-01-02 101112).txt",
        "story (Ann's conflicted copy 2026-01-02).md",
        "story (SFConflict ann@example.org 2026-01-02-10-11-12).wav",
        "story_Conflict.txt",
        "story (case conflict).yaml",
        "_defaults.sync-conflict-20260102-101112-ABCDEF7.yaml",
    ],
)
def test_sync_conflict_copies_are_held(ignore: IgnoreList, name: str) -> None:
    """A conflict copy is real work of somebody: it is neither spoken nor hidden."""
    verdict = ignore.classify(name, FILE)
    assert isinstance(verdict, Held)
    assert "sync conflict copy" in verdict.reason
    assert "keep one and rename it" in verdict.reason


@pytest.mark.parametrize("extension", sorted(names.BOOK_EXTENSIONS))
def test_books_are_not_supported_yet(ignore: IgnoreList, extension: str) -> None:
    """Book formats are named as coming, not as unknown."""
    assert ignore.classify(f"a.{extension}", FILE) == Unsupported(reason=f"not supported yet: .{extension}")


@pytest.mark.parametrize("name", ["photo.jpg", "speech", "a.txt.gpg", "speech.txt ", "a.doc", "x.ﬂac"])
def test_other_files_are_not_known(ignore: IgnoreList, name: str) -> None:
    """Whatever else is dropped is told of, and what its extension is."""
    verdict = ignore.classify(name, FILE)
    assert isinstance(verdict, Unsupported)
    assert verdict.reason.startswith("not a kind of file Voxspool knows")


def test_an_unknown_extension_cannot_break_a_line(ignore: IgnoreList) -> None:
    """Control characters of a name never reach a sentence."""
    verdict = ignore.classify("a.x\ny\udcff", FILE)
    assert isinstance(verdict, Unsupported)
    assert verdict.reason.endswith(r".x\ny\xff")


@pytest.mark.parametrize("kind", [EntryType.LINK, EntryType.FIFO, EntryType.SOCKET, EntryType.DEVICE])
def test_what_is_no_file_is_held(ignore: IgnoreList, kind: EntryType) -> None:
    """Links, pipes, sockets and devices are held under any name, with what they are."""
    for name in ("speech.txt", "photo.jpg", "plain"):
        verdict = ignore.classify(name, kind)
        assert isinstance(verdict, Held)
        assert verdict.reason == f"a {kind}, not a file: drop the file itself"
    assert isinstance(ignore.classify("@eaDir", kind), (Ignored, Held))
    assert ignore.classify(".hidden", kind) == ignore.classify(".hidden", FILE)


def test_folders_are_looked_into(ignore: IgnoreList) -> None:
    """A folder is a folder whatever its name; one named like a drop is explained."""
    assert ignore.classify("book", FOLDER) == Folder()
    verdict = ignore.classify("book.txt", FOLDER)
    assert verdict == Folder(note="a folder, not a file; its contents are looked at")
    assert isinstance(ignore.classify("book.txt/a.txt", FILE), Candidate)


def test_the_notes_on_a_failed_file_may_come_back_with_it() -> None:
    """Moved along by who wants to try again: they are not spoken, and the status says what they are."""
    dropped = (
        "story.txt",
        "a b.MD",
        "what?.yaml",
        "caf\u00e9.wav",
        "x" * 251 + ".txt",
        "no~2.opus",
        "line\nbreak.m4a",
    )
    notes = [note.name for name in dropped for note in note_paths(Path("failed") / name)]
    assert len(notes) == 14
    for note in notes:
        verdict = IgnoreList().classify(f"sub/{note}", FILE)
        assert isinstance(verdict, Ignored) and verdict.shown and "own note" in verdict.reason, note
    for title in ("error.txt", "my.error.txt", "story.error.txt", "a.txt.error.txt.txt", "x.txt.error.md"):
        assert isinstance(IgnoreList().classify(title, FILE), Candidate), title


def test_reserved_names_hold_only_at_the_top(ignore: IgnoreList) -> None:
    """`failed`, `PAUSE` and the README of the inbox itself are no drops; further down they are ordinary."""
    for name, kind in (("failed", FOLDER), ("PAUSE", FILE), ("README.md", FILE), ("README.txt", FILE)):
        verdict = ignore.classify(name, kind)
        assert isinstance(verdict, Ignored)
        assert verdict.shown == (not name.startswith("README")), "nobody wonders about our own notes"
    assert isinstance(ignore.classify("failed/a.txt", FILE), Ignored)
    assert ignore.classify("book/failed", FOLDER) == Folder()
    assert isinstance(ignore.classify("book/README.md", FILE), Candidate)
    assert isinstance(ignore.classify("readme.md", FILE), Candidate)
    assert isinstance(ignore.classify("book/PAUSE", FILE), Unsupported)


def test_users_globs_are_added() -> None:
    """The user's globs match names anywhere or paths, without regard to case, and take nothing away."""
    ignore = IgnoreList(["*.notes.txt", "Drafts", "series/old*"])
    for name in ("a.notes.txt", "deep/A.NOTES.TXT", "drafts/a.txt", "x/DRAFTS/a.txt", "series/old 1/a.txt"):
        assert isinstance(ignore.classify(name, FILE), Ignored), name
    for name in ("notes.txt", "drafts.txt", "old/a.txt", "other/series/old/a.txt"):
        assert isinstance(ignore.classify(name, FILE), Candidate), name
    assert isinstance(ignore.classify("Thumbs.db", FILE), Ignored)
    assert {"*.notes.txt", "@eaDir/", "*.tmp"} <= set(ignore.effective())


def test_users_globs_match_both_unicode_forms() -> None:
    """A glob written composed leaves out a name stored decomposed."""
    ignore = IgnoreList(["entwürfe"])
    assert isinstance(ignore.classify(unicodedata.normalize("NFD", "Entwürfe/a.txt"), FILE), Ignored)


@pytest.mark.parametrize(
    "glob", ["*", "*.txt", "*.T?T", "**/*", "*/*", "s*", "speech.*", "a.*", "[a-z].wav", "*.yaml", "*/*.wav"]
)
def test_greedy_globs_are_refused(glob: str) -> None:
    """A glob that would swallow ordinary drops is a configuration error that names one of them."""
    with pytest.raises(ConfigError, match=r"would leave out ordinary drops such as") as caught:
        IgnoreList([glob])
    assert caught.value.hint


@pytest.mark.parametrize("glob", ["", "  ", "/", "/srv/inbox/x"])
def test_globs_that_name_nothing_are_refused(glob: str) -> None:
    """An empty or absolute glob never matches: it is an error and not a silent nothing."""
    with pytest.raises(ConfigError, match="not a name or a path below the inbox"):
        IgnoreList([glob])


@given(st.binary(min_size=1, max_size=255).filter(lambda raw: b"\0" not in raw and b"/" not in raw))
def test_any_bytes_get_a_verdict(raw: bytes) -> None:
    """Every name a filesystem can hold is judged, as bytes and as text alike, for every entry type."""
    ignore = IgnoreList(["*.notes.txt"])
    for kind in EntryType:
        as_bytes = ignore.classify(raw, kind)
        assert as_bytes == ignore.classify(raw.decode("utf-8", "surrogateescape"), kind)
        assert explain_name(raw.decode("utf-8", "surrogateescape"), kind, ignore).isprintable()


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_the_unicode_form_does_not_matter(stem: str) -> None:
    """A name is ignored in both its composed and its decomposed form, or in neither."""
    ignore = IgnoreList()
    verdicts = [ignore.classify(unicodedata.normalize(form, stem) + ".txt", FILE) for form in ("NFC", "NFD")]
    assert isinstance(verdicts[0], Candidate) == isinstance(verdicts[1], Candidate)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("a/story.txt", FILE, "is a drop (text) and is taken once it has settled"),
        ("_defaults.yaml", FILE, "holds settings"),
        ("a.tmp", FILE, "a temporary or system name, left alone ('*.tmp')"),
        ("@eaDir/a.txt", FILE, "'@eaDir/'"),
        ("a.notes.txt", FILE, "left out by your own ignore patterns ('*.notes.txt')"),
        (".a.txt", FILE, "hidden"),
        ("a.epub", FILE, "not supported yet: .epub"),
        ("a.txt", EntryType.LINK, "a link, not a file"),
        ("a.txt", FOLDER, "a folder, not a file; its contents are looked at"),
        ("a", FOLDER, "a folder; its contents are looked at"),
        ("b\n.txt", FILE, r"b\n.txt is a drop"),
    ],
)
def test_explanations(name: str, kind: EntryType, words: str) -> None:
    """`explain` says in one line what the name alone tells, and which pattern decided."""
    assert words in explain_name(name, kind, IgnoreList(["*.notes.txt"]))
