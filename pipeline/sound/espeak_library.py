"""The espeak-ng C library: text to samples and word times, words to phonemes.

The library keeps state between calls that nothing in its interface resets (pitch flutter, gain,
breath noise), so the same words sound a little different each time. Every call here therefore maps
the library afresh, seeds it, and unmaps it: 3 ms, and what comes out depends on the arguments alone.
Knows no jobs, voices' defaults or checks. Invariant: one call at a time in a process, none resident
between calls, and text is only ever text, never markup.
"""

import _ctypes
import contextlib
import ctypes
import functools
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version as package_version
from typing import Any

import espeakng_loader

from pipeline.errors import EnvironmentFailure, SynthesisError

RATE_HZ = 22_050
MOST_PATH_BYTES = 160
"of espeak-ng's path_home, its end among them; tried with 140 to 184"
MIN_WORDS_PER_MINUTE = 80
MAX_WORDS_PER_MINUTE = 450

# speak_lib.h of espeak-ng 1.52
_SYNCHRONOUS = 2
_DO_NOT_EXIT = 0x8000
_UTF8 = 1
_POSITION_IN_CHARACTERS = 1
_RATE, _PITCH = 1, 3
_IPA = 2
_WORD_EVENT, _CLAUSE_END_EVENT = 1, 5
# Control characters are commands to espeak, and it keeps unassigned code points for itself.
_NOT_TEXT = frozenset({"Cc", "Cn", "Co", "Cs"})

_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryVoice:
    """A voice file of the library."""

    name: str
    "for people: English (America)"
    identifier: str
    "what the library loads: gmw/en-US, or the name of a variant: f2"
    languages: tuple[tuple[str, int], ...]
    "(lower-case code, rank among the voices for it: the lowest is the usual one)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """What came out for one text."""

    pcm: bytes
    "signed 16-bit, mono, RATE_HZ"
    words: tuple[tuple[int, int], ...]
    "(index into the text, first sample) of each word, in order; a number may give several"
    clause_ends: tuple[int, ...]
    "sample at which each clause ends, its pause included"


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("message", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("unused", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@functools.cache
def version() -> str:
    """Version of the library and of the package that carries it: `1.52.0 (espeakng-loader 0.2.4)`."""
    with _library() as library:
        number = library.espeak_Info(None).decode()
    return f"{number} (espeakng-loader {package_version('espeakng-loader')})"


@functools.cache
def voices() -> tuple[LibraryVoice, ...]:
    """Every language voice the library has."""
    with _library() as library:
        return tuple(_listed(library, None))


@functools.cache
def variants() -> tuple[str, ...]:
    """Names of the voice variants, which go with every language: f1, m3, croak."""
    languages = ctypes.create_string_buffer(b"variant")
    wanted = _Voice(languages=ctypes.cast(languages, ctypes.c_void_p))
    with _library() as library:
        return tuple(voice.identifier.removeprefix("!v/") for voice in _listed(library, ctypes.byref(wanted)))


def synthesise(text: str, voice: str, *, words_per_minute: int, pitch: int) -> Spoken:
    """Speak `text` with the voice of identifier `voice` (`gmw/en-US`, `gmw/de+m3`).

    The same arguments give the same bytes, whatever was spoken before. Raises SynthesisError if the
    library refuses.
    """
    blocks: list[bytes] = []
    words: list[tuple[int, int]] = []
    ends: list[int] = []

    def receive(samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            blocks.append(ctypes.string_at(samples, 2 * count))
        for event in _until_terminated(events):
            if event.type == _WORD_EVENT:
                words.append((event.text_position - 1, event.sample))
            elif event.type == _CLAUSE_END_EVENT:
                ends.append(event.sample)
        return 0

    callback = _Callback(receive)
    data = only_text(text).encode()
    with _library() as library:
        library.espeak_SetSynthCallback(callback)
        _set_voice(library, voice)
        library.espeak_SetParameter(_RATE, words_per_minute, 0)
        library.espeak_SetParameter(_PITCH, pitch, 0)
        status = library.espeak_Synth(data, len(data) + 1, 0, _POSITION_IN_CHARACTERS, 0, _UTF8, None, None)
    if status != 0:
        raise SynthesisError(f"espeak-ng could not speak the text (status {status}).")
    return Spoken(pcm=b"".join(blocks), words=tuple(words), clause_ends=tuple(ends))


def phonemes(words: Sequence[str], voice: str) -> tuple[str, ...]:
    """The IPA of each word, spoken alone by the voice of identifier `voice`; "" for what has no sound."""
    with _library() as library:
        _set_voice(library, voice)
        return tuple(_phonemes(library, only_text(word)) for word in words)


def only_text(text: str) -> str:
    """`text` with a space for every character that is none to espeak-ng; positions stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(" " if unicodedata.category(character) in _NOT_TEXT else character for character in text)


def _phonemes(library: ctypes.CDLL, text: str) -> str:
    rest = ctypes.c_char_p(text.encode())
    clauses = []
    while rest.value is not None:
        clauses.append(library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _IPA).decode())
    return " ".join(clauses).strip()


def _set_voice(library: ctypes.CDLL, voice: str) -> None:
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise SynthesisError(f"espeak-ng has no voice {voice}.")


def _until_terminated(events: Any) -> Iterator[_Event]:
    index = 0
    while events[index].type != 0:
        yield events[index]
        index += 1


def _listed(library: ctypes.CDLL, wanted: Any) -> Iterator[LibraryVoice]:
    found = library.espeak_ListVoices(wanted)
    index = 0
    while found[index]:
        voice = found[index].contents
        yield LibraryVoice(
            name=voice.name.decode().strip(),
            identifier=voice.identifier.decode(),
            languages=_languages(voice.languages),
        )
        index += 1


def _languages(address: int) -> tuple[tuple[str, int], ...]:
    """Read a list of (rank byte, zero-ended code) that a rank of zero ends."""
    codes: list[tuple[str, int]] = []
    while rank := ctypes.string_at(address, 1)[0]:
        code = ctypes.string_at(address + 1)
        codes.append((code.decode().lower(), rank))
        address += len(code) + 2
    return tuple(codes)


def _not_started(data: bytes) -> EnvironmentFailure:
    hint = "Install espeakng-loader again: pip install --force-reinstall espeakng-loader"
    if len(data) >= MOST_PATH_BYTES:
        hint = (
            f"That path has {len(data)} bytes and espeak-ng takes fewer than {MOST_PATH_BYTES}: install"
            " Voxspool into a folder with a shorter name."
        )
    return EnvironmentFailure(f"espeak-ng did not start with its data in {data.decode()}.", hint=hint)


@contextlib.contextmanager
def _library() -> Iterator[ctypes.CDLL]:
    """The library, just mapped and initialised; unmapped after the block."""
    with _lock:
        library = _mapped()
        try:
            data = espeakng_loader.get_data_path().encode()
            if library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DO_NOT_EXIT) != RATE_HZ:
                raise _not_started(data)
            # It has just seeded itself with the time of day.
            library.espeak_ng_SetRandSeed(1)
            yield library
        finally:
            library.espeak_Terminate()
            _ctypes.dlclose(library._handle)


def _mapped() -> ctypes.CDLL:
    path = espeakng_loader.get_library_path()
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise EnvironmentFailure(
            f"The espeak-ng library cannot be loaded: {error}.",
            hint="Install espeakng-loader again: pip install --force-reinstall espeakng-loader",
        ) from error
    library.espeak_Info.restype = ctypes.c_char_p
    library.espeak_Info.argtypes = [ctypes.c_void_p]
    library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int,
        ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p,
    ]  # fmt: skip
    return library
