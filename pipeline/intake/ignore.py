"""Which names in the inbox are drops, and what is said of all the others.

Pure: a relative path and an entry type in, a verdict out; nothing here looks at a disk. Hidden, temporary
and system names are left alone in silence; whatever a person may have meant as a drop gets a reason.
Invariant: no pattern, ours or the user's, matches `speech.txt`, `a.yaml` or `a.wav`.

Where the names come from: notes on Syncthing, rsync, Nextcloud, Dropbox, Seafile, Synology, QNAP, macOS,
Windows, browsers, download and FTP servers, editors. Names are matched in NFC, without regard to case.
"""

import fnmatch
import re
import stat
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pipeline.errors import ConfigError
from pipeline.files import display

PRIVATE_FOLDER = ".voxspool"
PAUSE_NAME = "PAUSE"
RESERVED_FOLDERS = frozenset({"failed"})
DEFAULTS_NAMES = frozenset({"_defaults.yaml", "_defaults.yml"})
ROOT_NOTES = frozenset({"README.md", "README.txt"})

IGNORED_FOLDERS: tuple[str, ...] = (
    *(".voxspool", ".stfolder", ".stversions", ".sync", ".dropbox", ".dropbox.cache", ".tmp.drivedownload"),
    *(".tmp.driveupload", ".seafile-data", "@eaDir", "#recycle", "#snapshot", "@tmp", "@sharebin"),
    *(".SynologyWorkingDirectory", "@SynoResource", ".@__thumb", "@Recycle", "@Recently-Snapshot"),
    *(".@upload_cache", ".streams", ".snapshot", ".snapshots", "~snapshot", ".zfs", "lost+found", ".Trash"),
    *(".rsync-partial", ".~tmp~", ".unison", ".git", ".hg", ".svn", "__pycache__", "node_modules", ".cache"),
    *(".thumbnails", "$RECYCLE.BIN", "RECYCLER", "System Volume Information", ".AppleDouble", ".AppleDB"),
    *(".AppleDesktop", ".Spotlight-V100", ".fseventsd", ".fseventd", ".Trashes", ".TemporaryItems"),
    *("Temporary Items", "Network Trash Folder", ".DocumentRevisions-V100", ".localized", "__MACOSX"),
)
IGNORED_FOLDER_GLOBS: tuple[str, ...] = (
    *(".Trash-*", ".stfolder.removed-*", ".syncthing.*", "_UNPACK_*", "_FAILED_*", "*.sb-????????-??????"),
    "(A Document Being Saved By *",
)
IGNORED_FILES: tuple[str, ...] = (
    *(".DS_Store", "Thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", ".directory", ".apdisk"),
    *(".VolumeIcon.icns", ".LSOverride", ".metadata_never_index", ".stignore", ".stglobalignore"),
    *(".dropbox.attr", ".ftpquota", ".htaccess", "4913", "Icon\r", "SyncID", ".SyncIgnore"),
)
IGNORED_FILE_GLOBS: tuple[str, ...] = (
    *("._*", ".syncthing.*", "~syncthing~*", "*.tmp", "*.temp", "*.part", "*.partial", "*.filepart"),
    *("*.crdownload", "*.download", "*.opdownload", "*.uploading", "*.upload", "*.!sync", "*.!ut", "*.!qb"),
    *("*.bts", "*.aria2", "*.ocTransferId*.part", ".pureftpd-upload.*", ".in.*", ".pending-*", "*.icloud"),
    *("*.unmanic.part", "*.voxspool-*", "~$*", "~WRL*.tmp", ".~lock.*#", ".~*", "*~", "#*#", ".#*", "*.sw?"),
    *("*.kate-swp", ".goutputstream-*", "*.bak", "*.orig", "*.old", "*.lock", "*.lck", "*.camelLock"),
    *(".nfs*", ".fuse_hidden*", ".smbdelete*", ".afpDeleted*", "*:Zone.Identifier", "*@SynoEAStream"),
    *("*@SynoResource", ".sync_*.db*", "._sync_*.db*", ".csync_journal.db*", "csync_journal.db*"),
    *(".owncloudsync.log*", ".nextcloudsync.log*", ".*.~[0-9a-f]*", ".unison*", ".com.apple.*"),
)
# rsync's and rclone's temporary names
IGNORED_FILE_REGEXES: tuple[str, ...] = (r"^\..+\.[A-Za-z0-9]{6}$", r"\.[0-9a-f]{8}\.partial$")
# Real content under an allowed extension. The case is kept here: "The_conflict.txt" is a title.
CONFLICT_GLOBS: tuple[str, ...] = (
    *("*.sync-conflict-[0-9]*-[0-9]*-*.*", "*_conflict-[0-9]*", "*conflicted copy*", "*(SFConflict *"),
    *("*_Conflict.*", "* (case conflict)*"),
)
BOOK_EXTENSIONS = frozenset(
    {"epub", "srt", "mobi", "azw3", "pdf", "docx", "odt", "html", "htm", "rtf", "vtt", "fb2"}
)
_PROBES = (
    "speech.txt",
    "a.yaml",
    "a.wav",
    "some folder/speech.txt",
    "some folder/a.yaml",
    "some folder/a.wav",
)


class DropKind(StrEnum):
    """What a dropped file is, by its extension."""

    DEFAULTS = "defaults"
    "`_defaults.yaml`: settings for what lies at or below it, not a drop"
    JOB = "job"
    TEXT = "text"
    AUDIO = "audio"


KIND_BY_EXTENSION = {
    **dict.fromkeys(("txt", "md"), DropKind.TEXT),
    **dict.fromkeys(("yaml", "yml"), DropKind.JOB),
    **dict.fromkeys(("wav", "mp3", "flac", "ogg", "opus", "m4a", "aac"), DropKind.AUDIO),
}


class EntryType(StrEnum):
    """What an entry of a folder is; the value is how it is named to people."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    FIFO = "named pipe (FIFO)"
    SOCKET = "socket"
    DEVICE = "device"


_TYPE_BY_FORMAT = {
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFDIR: EntryType.FOLDER,
    stat.S_IFLNK: EntryType.LINK,
    stat.S_IFIFO: EntryType.FIFO,
    stat.S_IFSOCK: EntryType.SOCKET,
}


def entry_type(mode: int) -> EntryType:
    """The entry type that stands in `st_mode`."""
    return _TYPE_BY_FORMAT.get(stat.S_IFMT(mode), EntryType.DEVICE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """Not a drop. `shown`: a person may wonder, so the status tells the reason."""

    reason: str
    shown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Possibly meant as a drop; a person has to do something first."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsupported:
    """Meant as a drop, of a kind that cannot be done."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A drop, once it has settled."""

    kind: DropKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder to look into; `note` is set where a person may take it for a file."""

    note: str = ""


Verdict = Ignored | Held | Unsupported | Candidate | Folder

_HIDDEN = Ignored(reason="hidden: names that start with a dot are never looked at")
_SYSTEM = Ignored(reason="a temporary or system name, left alone")
_USERS = Ignored(reason="left out by your own ignore patterns")
_PAUSE = Ignored(reason="the pause file: no new work starts while it lies here", shown=True)
_NOTES = Ignored(reason="a note about the inbox itself, not a drop")
_RESERVED = Ignored(reason="a reserved name: what lies here is never taken for a drop", shown=True)
_CONFLICT = Held(reason="a sync conflict copy: compare it with the other one, keep one and rename it")
_OUR_NOTE = Ignored(reason="Voxspool's own note on a file that failed, not a drop: delete it", shown=True)
_NO_EXTENSION = Unsupported(reason="not a kind of file Voxspool knows: it has no extension")
_PLAIN_FOLDER = Folder()
_LOOKALIKE_FOLDER = Folder(note="a folder, not a file; its contents are looked at")
_CANDIDATES = {kind: Candidate(kind=kind) for kind in DropKind}


def _alternatives(globs: Iterable[str]) -> re.Pattern[str]:
    """One pattern that matches what any of `globs` matches; nothing if there are none."""
    return re.compile("|".join(map(fnmatch.translate, globs)) or r"(?!)")


def _folded(name: str) -> str:
    """The form of a name in which names are compared."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


_FOLDER_NAMES = frozenset(map(_folded, IGNORED_FOLDERS))
_FOLDER_GLOBS = _alternatives(map(_folded, IGNORED_FOLDER_GLOBS))
_FILE_NAMES = frozenset(map(_folded, IGNORED_FILES))
_FILE_GLOBS = _alternatives(map(_folded, IGNORED_FILE_GLOBS))
_FILE_REGEXES = re.compile("|".join(IGNORED_FILE_REGEXES))
_CONFLICTS = _alternatives(CONFLICT_GLOBS)


# What `outbox.note_paths` calls them: after the dropped file's whole name, or its beginning and a hash.
_OUR_NOTES = re.compile(
    rf"(?:\.(?:{'|'.join(KIND_BY_EXTENSION)})|~[0-9a-f]{{8}})\.error\.(?:txt|json)\Z", re.IGNORECASE
)


def _is_system_folder(folded: str) -> bool:
    """Whether a folder's name is one of the default list."""
    return folded in _FOLDER_NAMES or _FOLDER_GLOBS.match(folded) is not None


def skips_folder(name: str) -> bool:
    """Whether a folder of this name is never looked into, wherever it lies and whatever the user adds."""
    return name.startswith(".") or _is_system_folder(_folded(name))


def _is_system_file(folded: str, name: str) -> bool:
    """Whether a file's name is one of the default list."""
    if folded in _FILE_NAMES or _FILE_GLOBS.match(folded):
        return True
    return _FILE_REGEXES.search(unicodedata.normalize("NFC", name)) is not None


def extension_of(name: str) -> str:
    """The extension of a file name in lower case without its dot; empty if there is none."""
    stem, dot, extension = name.rpartition(".")
    return extension.lower() if dot and stem else ""


class IgnoreList:
    """The default list with the user's own globs added; nothing can be taken from it.

    A glob without a slash is matched against the name of any file or folder, one with a slash against
    the whole path from the inbox (`*` spans slashes). Raises ConfigError for a glob that would match
    ordinary drops.
    """

    def __init__(self, extra_globs: Iterable[str] = ()) -> None:
        self._globs = tuple(extra_globs)
        for glob in self._globs:
            _refuse_greedy(glob)
        self._names = _alternatives(_folded(glob) for glob in self._globs if "/" not in glob)
        self._paths = _alternatives(_folded(glob) for glob in self._globs if "/" in glob)

    def effective(self) -> tuple[str, ...]:
        """Every pattern in use, for people; folders end in a slash."""
        folders = (f"{name}/" for name in (*IGNORED_FOLDERS, *IGNORED_FOLDER_GLOBS))
        return (".*", *folders, *IGNORED_FILES, *IGNORED_FILE_GLOBS, *IGNORED_FILE_REGEXES, *self._globs)

    def classify(self, relative: str | bytes, kind: EntryType) -> Verdict:
        """The verdict on a path as seen from the inbox; a folder above it that is ignored decides."""
        path = relative.decode("utf-8", "surrogateescape") if isinstance(relative, bytes) else relative
        parts = path.split("/")
        for depth in range(1, len(parts)):
            above = self.classify_entry("/".join(parts[:depth]), EntryType.FOLDER)
            if isinstance(above, Ignored):
                return above
        return self.classify_entry(path, kind)

    def classify_entry(self, relative: str, kind: EntryType) -> Verdict:
        """The verdict on a path whose folders are known to be looked at."""
        name = relative.rpartition("/")[2]
        if name.startswith("."):
            return _HIDDEN
        folded = _folded(name)
        if self._is_users(folded, relative):
            return _USERS
        if kind is EntryType.FOLDER:
            return _folder_verdict(relative, folded)
        if _is_system_file(folded, name) or (kind is EntryType.LINK and _is_system_folder(folded)):
            return _SYSTEM
        if kind is not EntryType.FILE:
            return Held(reason=f"a {kind}, not a file: drop the file itself")
        return _file_verdict(relative, name)

    def _is_users(self, folded: str, relative: str) -> bool:
        """Whether the user's own globs leave this name out."""
        return bool(self._names.match(folded) or self._paths.match(_folded(relative)))


def _folder_verdict(relative: str, folded: str) -> Verdict:
    """The verdict on a folder that is neither hidden nor left out by the user."""
    if _is_system_folder(folded):
        return _SYSTEM
    if "/" not in relative and folded in RESERVED_FOLDERS:
        return _RESERVED
    return _LOOKALIKE_FOLDER if extension_of(folded) in KIND_BY_EXTENSION else _PLAIN_FOLDER


def _file_verdict(relative: str, name: str) -> Verdict:
    """The verdict on a regular file that no ignore pattern matches."""
    if name in DEFAULTS_NAMES:
        return _CANDIDATES[DropKind.DEFAULTS]
    if relative == PAUSE_NAME:
        return _PAUSE
    if relative in ROOT_NOTES:
        return _NOTES
    if _OUR_NOTES.search(name):
        return _OUR_NOTE
    kind = KIND_BY_EXTENSION.get(extension_of(name))
    if kind is None:
        return _unsupported(extension_of(name))
    return _CONFLICT if _CONFLICTS.match(name) else _CANDIDATES[kind]


def _unsupported(extension: str) -> Unsupported:
    """Why a file of this extension is not done."""
    if not extension:
        return _NO_EXTENSION
    if extension in BOOK_EXTENSIONS:
        return Unsupported(reason=f"not supported yet: .{extension}")
    return Unsupported(reason=f"not a kind of file Voxspool knows: .{display(extension)}")


def _refuse_greedy(glob: str) -> None:
    """Raise ConfigError for a glob that is empty, absolute, or would match ordinary drops."""
    if not glob.strip("/ ") or glob.startswith("/"):
        raise ConfigError(
            f"The ignore pattern {glob!r} is not a name or a path below the inbox.",
            hint="Write a glob such as '*.notes.txt' or 'drafts/*'.",
        )
    greedy = _alternatives([_folded(glob)])
    for probe in _PROBES:
        if greedy.match(probe if "/" in glob else probe.rpartition("/")[2]):
            raise ConfigError(
                f"The ignore pattern {glob!r} would leave out ordinary drops such as {probe!r}.",
                hint="Use a narrower one, such as '*.notes.txt' or 'drafts/*'.",
            )


def explain_name(relative: str, kind: EntryType, ignore: IgnoreList) -> str:
    """What the name alone says about an entry, as one sentence for people."""
    shown = display(relative)
    match ignore.classify(relative, kind):
        case Candidate(kind=DropKind.DEFAULTS):
            return f"{shown} holds settings for what is dropped at or below its folder."
        case Candidate(kind=drop):
            return f"{shown} is a drop ({drop}) and is taken once it has settled."
        case Folder(note=note):
            return f"{shown} is {note or 'a folder; its contents are looked at'}."
        case Ignored(reason=reason) | Held(reason=reason) | Unsupported(reason=reason):
            return f"{shown} is not taken: {reason}{_which(relative, ignore)}."


def _which(relative: str, ignore: IgnoreList) -> str:
    """The pattern that the first ignored part of the path matches, in brackets; empty if none does."""
    for name in relative.split("/"):
        folded = _folded(name)
        for pattern in ignore.effective()[1:]:
            if fnmatch.fnmatchcase(folded, _folded(pattern.rstrip("/"))):
                return f" ({pattern!r})"
    return ""
