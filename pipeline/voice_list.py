"""`voices`: the library as a table, each clip looked at, and preview jobs for those who want to listen.

Knows the library, the checks of clips and the defaults of the configuration; starts no engine. Invariant: one
wrong sheet or clip is a row that says so, and keeps no other voice from being shown.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.files import display
from pipeline.jobs.settings import Settings
from pipeline.jobs.spec import as_set, cascade
from pipeline.sound.decode import Recording, decode, probe
from pipeline.voice_check import Measured, Remark, measure, remarks
from pipeline.voices import Library, LibraryVoice

LOOKED_AT_SECONDS = 120.0
"more of a clip is not read"
PREVIEW_FOLDER = "voices"
"below inbox and outbox"
# The 23 languages of chatterbox-multilingual.
PREVIEWS: Mapping[str, str] = {
    "ar": "مرحبا، هكذا يبدو صوتي. يسعدني أن أقرأ لك نصوصك.",
    "da": "Hej, sådan lyder min stemme. Jeg læser gerne dine tekster højt.",
    "de": "Hallo, so klingt meine Stimme. Ich lese dir gern deine Texte vor.",
    "el": "Γεια σας, έτσι ακούγεται η φωνή μου. Θα σας διαβάσω με χαρά τα κείμενά σας.",
    "en": "Hello, this is how my voice sounds. I will gladly read your texts to you.",
    "es": "Hola, así suena mi voz. Con gusto te leeré tus textos.",
    "fi": "Hei, tältä ääneni kuulostaa. Luen tekstisi mielelläni ääneen.",
    "fr": "Bonjour, voici comment sonne ma voix. Je vous lirai volontiers vos textes.",
    "he": "שלום, כך נשמע הקול שלי. אשמח להקריא לכם את הטקסטים שלכם.",
    "hi": "नमस्ते, मेरी आवाज़ ऐसी सुनाई देती है। मैं आपके लेख खुशी से पढ़कर सुनाऊँगा।",
    "it": "Ciao, la mia voce suona così. Leggerò volentieri i tuoi testi.",
    "ja": "こんにちは、これが私の声です。あなたの文章を喜んで読み上げます。",
    "ko": "안녕하세요, 제 목소리는 이렇게 들립니다. 글을 기꺼이 읽어 드리겠습니다.",
    "ms": "Helo, beginilah bunyi suara saya. Saya gembira membacakan teks anda.",
    "nl": "Hallo, zo klinkt mijn stem. Ik lees je teksten graag voor.",
    "no": "Hei, slik høres stemmen min ut. Jeg leser gjerne tekstene dine høyt.",
    "pl": "Cześć, tak brzmi mój głos. Chętnie przeczytam ci twoje teksty.",
    "pt": "Olá, é assim que soa a minha voz. Terei todo o gosto em ler os seus textos.",
    "ru": "Здравствуйте, так звучит мой голос. Я с удовольствием прочитаю вам ваши тексты.",
    "sv": "Hej, så här låter min röst. Jag läser gärna dina texter högt.",
    "sw": "Habari, hivi ndivyo sauti yangu inavyosikika. Nitafurahi kukusomea maandishi yako.",
    "tr": "Merhaba, sesim böyle duyuluyor. Metinlerinizi size seve seve okurum.",
    "zh": "你好，我的声音就是这样的。我很乐意为你朗读文章。",
}
_ENGLISH = "en"
ENGLISH_ENGINES = ("chatterbox", "chatterbox-turbo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One voice as it is shown."""

    name: str
    voice: LibraryVoice | None = None
    "None where sheet or clip cannot be told"
    recording: Recording | None = None
    measured: Measured | None = None
    remarks: tuple[Remark, ...] = ()

    @property
    def fails(self) -> bool:
        """Whether jobs with this voice fail."""
        return any(remark.kind == "fails" for remark in self.remarks)

    @property
    def state(self) -> str:
        """In a word or three."""
        if self.fails:
            return "does not work"
        return "advice" if any(remark.kind == "advice" for remark in self.remarks) else "ok"


def look(library: Library, names: Iterable[str], config: Config) -> Iterator[Row]:
    """Every voice of these names, looked at."""
    for name in names:
        try:
            voice = library.find(name)
            if voice is None:
                raise _unknown(name, library)
            yield _looked_at(voice, config)
        except InputError as error:
            yield Row(name=name, remarks=(_failing(error),))


def _unknown(name: str, library: Library) -> InputError:
    near = library.nearest(name)
    hint = f"Did you mean {near[0]}?" if near else ""
    return InputError(
        f"there is no voice {display(name)} in the voices folder", hint=hint, code="voice_unknown"
    )


def _failing(error: InputError) -> Remark:
    return Remark(kind="fails", text=error.in_full)


def effective(voice: LibraryVoice, config: Config) -> Settings:
    """What a job would have that names this voice and nothing else."""
    return cascade(voice.defaults, config.defaults)


def _looked_at(voice: LibraryVoice, config: Config) -> Row:
    settings = effective(voice, config)
    engine = settings.engine
    if voice.clip is None:
        return Row(name=voice.name, voice=voice, remarks=tuple(_without_clip(voice, engine)))
    try:
        recording = probe(voice.clip)
        measured = measure(decode(voice.clip, recording.rate_hz, max_seconds=LOOKED_AT_SECONDS))
    except InputError as error:
        return Row(name=voice.name, voice=voice, remarks=_of_clip((_failing(error),), voice, engine))
    if recording.seconds is not None:  # of a long one only the beginning was read
        measured = dataclasses.replace(measured, seconds=max(measured.seconds, recording.seconds))
    told = remarks(measured, recording, engine=engine)
    return Row(
        name=voice.name,
        voice=voice,
        recording=recording,
        measured=measured,
        remarks=(*_of_clip(told, voice, engine), *_stand_in(voice, engine), *_language(settings)),
    )


def _of_clip(told: tuple[Remark, ...], voice: LibraryVoice, engine: str) -> tuple[Remark, ...]:
    """Where a stand-in speaks, the clip is for conversions only, and the voice works without them."""
    if engine != "espeak" or voice.sheet.espeak is None:
        return told
    return tuple(
        Remark(kind="advice", text=f"not for conversions: {remark.text}")
        if remark.kind == "fails"
        else remark
        for remark in told
    )


def _without_clip(voice: LibraryVoice, engine: str) -> Iterator[Remark]:
    if voice.sheet.espeak is None:
        yield Remark(
            kind="fails", text="it has neither a recording nor an espeak stand-in: no engine can use it"
        )
    elif engine != "espeak":
        yield Remark(kind="fails", text=f"it has no recording, and {engine} needs one")
    else:
        yield Remark(kind="note", text="it has no recording: for the engine espeak only")


def _stand_in(voice: LibraryVoice, engine: str) -> Iterator[Remark]:
    if engine == "espeak" and voice.sheet.espeak is None:
        text = (
            "for conversion only: the engine espeak imitates no clips, and the sheet names no stand-in for it"
        )
        yield Remark(kind="note", text=text)


def _language(settings: Settings) -> Iterator[Remark]:
    spoken = settings.language.partition("-")[0].lower()
    if settings.engine in ENGLISH_ENGINES and spoken != _ENGLISH:
        text = (
            f"it speaks {settings.language}, and {settings.engine} speaks English only: set"
            " `defaults: {engine: chatterbox-multilingual}` in its sheet"
        )
        yield Remark(kind="fails", text=text)


# -- shown -----------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> RenderableType:
    """For a terminal: the facts in columns, below them what there is to say in words."""
    shown = Table(box=None, pad_edge=False, header_style="", padding=(0, 2, 0, 0))
    for heading in ("voice", "state", "length", "rate", "channels", "language"):
        shown.add_column(heading, overflow="fold")
    for row in rows:
        shown.add_row(Text(display(row.name)), Text(row.state), *(Text(fact) for fact in _facts(row)))
    words: list[RenderableType] = []
    for row in rows:
        told = list(_words(row))
        words += [Text(f"{display(row.name)}:")] if told else []
        words += [Padding(Text(line), (0, 0, 0, 2)) for line in told]
    return Group(shown, *([Text(), *words] if words else []))


def plain(rows: Iterable[Row]) -> Iterator[str]:
    """The same for logs and scripts: a line for each voice, what there is to say of it below."""
    for row in rows:
        yield f"{display(row.name)}: {', '.join(filter(None, (row.state, *_facts(row))))}"
        yield from (f"  {line}" for line in _words(row))


def _facts(row: Row) -> tuple[str, str, str, str]:
    channels = row.recording.channels if row.recording else 0
    return (
        f"{row.measured.seconds:.1f} s" if row.measured else "",
        f"{row.recording.rate_hz / 1000:g} kHz" if row.recording else "",
        {0: "", 1: "mono", 2: "stereo"}.get(channels, f"{channels} channels"),
        (row.voice.sheet.language or "") if row.voice else "",
    )


def _words(row: Row) -> Iterator[str]:
    """Description, defaults, and what there is to say of the clip."""
    if row.voice and row.voice.sheet.description:
        yield display(row.voice.sheet.description)
    defaults = list(_flattened(as_set(row.voice.sheet.defaults))) if row.voice else []
    if defaults:
        yield f"defaults: {', '.join(defaults)}"
    for remark in row.remarks:
        yield from (remark.text if remark.text.endswith((".", "?")) else f"{remark.text}.").splitlines()


def _flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """`pauses.sentence_ms 400` for each default."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key} {value}"


# -- previews --------------------------------------------------------------------------------------


def preview_job(row: Row, library: Library, config: Config) -> bytes:
    """A job file that has a voice say a sentence in its language; InputError if that would fail."""
    voice = row.voice
    if voice is None or row.fails:
        raise InputError(" ".join(remark.text for remark in row.remarks if remark.kind == "fails"))
    settings = effective(voice, config)
    library.choice(voice, settings.engine)
    language = settings.language.partition("-")[0].lower()
    job = {"voice": voice.name, "text": PREVIEWS.get(language, PREVIEWS[_ENGLISH])}
    if language not in PREVIEWS:
        job["language"] = _ENGLISH
    written = yaml.safe_dump(job, allow_unicode=True, sort_keys=False, width=1000)
    return f"# A preview, made by `daemon.py voices --preview`.\n{written}".encode()
