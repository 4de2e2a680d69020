"""What people write: job files, folder defaults, voice sheets, and the cascade between them."""

import string
import time
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SpecError
from pipeline.jobs.job import Part
from pipeline.jobs.settings import Settings
from pipeline.jobs.spec import (
    MAX_DOCUMENTS,
    Request,
    as_set,
    cascade,
    complete,
    looks_like_clip,
    names_in_broken,
    normalised,
    parse_defaults,
    parse_job_file,
    parse_voice_sheet,
    problems_of,
)

# Section 3 of the contract, as it stands there.

CONTRACT = b"""\
kind: tts                      # tts | vc | concat
text: |                        # or text_file: chapter1.txt (relative to the job file, claimed with it)
  Hello.
voice: narrator                # library name, path relative to the job file, or https URL
engine: espeak                 # espeak | chatterbox | chatterbox-multilingual | chatterbox-turbo
language: en
seed: 0                        # 0: choose one and record it
synthesis: {exaggeration: 0.5, cfg_weight: 0.5, temperature: 0.8, min_p: 0.05, top_p: 1.0, repetition_penalty: 1.2}
text_rules: {lowercase: false, initials: true, citations: true, replace: [{from: "Dr.", to: "Doctor"}]}
chunks: {max_chars: 280, min_chars: 20}
takes: {per_chunk: 1, max_tries: 4}
check: {by: auto, max_word_error_rate: null, on_failure: best}  # auto | none | whisper | pocketsphinx; null: the checker's own; best | fail
pauses: {sentence_ms: 300, paragraph_ms: 800}
audio: {speed: 1.0, trim: true, loudness_lufs: null, true_peak_db: -1.5, denoise: false}
output: {formats: [mp3], name: null}       # wav mp3 flac opus m4a m4b
priority: normal               # high | normal | low
"""  # noqa: E501


def parse(text: str) -> tuple[Request, ...]:
    """The jobs of a job file."""
    return parse_job_file(text.encode(), "job.yaml")


def problems(text: str) -> tuple[str, ...]:
    """What is wrong with a job file."""
    with pytest.raises(SpecError) as caught:
        parse(text)
    return caught.value.problems or (caught.value.message,)


# -- what is right --------------------------------------------------------------------------------


def test_the_example_of_the_contract_is_a_job() -> None:
    """Every key of it is known, and each says what is the default anyway."""
    (request,) = parse_job_file(CONTRACT, "job.yaml")
    assert (request.kind, request.text, request.settings.voice) == ("tts", "Hello.\n", "narrator")
    assert [(r.from_, r.to) for r in request.settings.text_rules.replace] == [("Dr.", "Doctor")]
    plain = Settings(voice="narrator", text_rules=request.settings.text_rules)
    assert complete(request.settings) == complete(plain)


def test_the_examples_of_the_other_kinds_are_jobs() -> None:
    """`vc` and `concat` as the contract describes them, short forms included."""
    conversion, joined = parse(
        "kind: vc\naudio: speech.flac\nvoice: target\n"
        "conversion: {chunk_seconds: 60, overlap_seconds: 0.1, pitch_shift_semitones: 0}\n"
        "---\nkind: concat\nparts: [a.wav, silence_ms: 500, {file: sub/b.mp3}]\n"
        "crossfade_ms: 20\nlevel: false\naudio: {trim: false}\npauses: {sentence_ms: 0}\n"
    )
    assert (conversion.kind, conversion.file) == ("vc", "speech.flac")
    assert conversion.references == ("speech.flac",)
    assert joined.parts == (Part(file="a.wav"), Part(silence_ms=500), Part(file="sub/b.mp3"))
    assert (joined.crossfade_ms, joined.level, joined.settings.audio.trim) == (20, False, False)


def test_a_conversion_may_name_its_recording_beside_sound_settings() -> None:
    """`audio:` is the recording, or a mapping with the recording in `file`; only settings cascade."""
    (request,) = parse("kind: vc\naudio: {file: ./in//x.wav, speed: 1.5}\n")
    assert request.file == "in/x.wav"
    assert as_set(request.settings) == {"audio": {"speed": 1.5}}


def test_a_job_names_its_files_once_each_and_normalised() -> None:
    """`./a.wav` and `a.wav` are one file; a voice by name is none, one by path is."""
    (request,) = parse("kind: concat\nparts: [./a.wav, a.wav, b//c.wav]\nvoice: ./a.wav\n")
    assert request.references == ("a.wav", "b/c.wav")
    assert parse("text: hi\nvoice: narrator")[0].references == ()
    assert parse("text_file: a.md\nvoice: me.wav")[0].references == ("a.md", "me.wav")


def test_decomposed_and_composed_names_are_one_name() -> None:
    """macOS writes é as two characters into names, editors write it as one into job files."""
    assert parse("text_file: caf\u0065\u0301.txt")[0].references == ("caf\u00e9.txt",)


def test_only_what_was_set_is_in_the_layer() -> None:
    """A key that a job leaves out must not hide what the folder says."""
    (request,) = parse("text: hi\naudio: {speed: 1.5}\n")
    assert as_set(request.settings) == {"audio": {"speed": 1.5}}


# -- what is wrong ----------------------------------------------------------------------------------


def test_every_problem_of_every_document_is_told_at_once() -> None:
    """With file, line, key and the nearest valid key."""
    told = problems(
        "text: hi\nvioce: me\nchunks: {max_chars: 3}\n"
        "---\nkind: opera\n"
        "---\nkind: vc\naudio: ../x.wav\nprio: high\n"
        "---\ntext_file: x.pdf\n"
        "---\n{}\n"
    )
    assert told == (
        "job.yaml, line 2: vioce: unknown key; did you mean voice?",
        "job.yaml, line 3: chunks.max_chars: expected at least 40, found 3.",
        "job.yaml, line 5: kind: expected tts, vc or concat, found 'opera'.",
        "job.yaml, line 9: prio: unknown key; did you mean priority?",
        "job.yaml, line 8: audio: ../x.wav leads out of the job file's folder;"
        " files must lie beside or below the job file.",
        "job.yaml, line 11: text_file: x.pdf must end in one of .md, .txt.",
        "job.yaml, line 13: a tts job needs exactly one of text and text_file;"
        " this one has neither text nor text_file.",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "job.yaml holds no job"),
        ("---\n---\n", "job.yaml holds no job"),
        ("- text: hi", "expected keys with values, found a list"),
        ("hello", "expected keys with values, found 'hello'"),
        ("text: hi\ntext_file: a.txt", "has both text and text_file"),
        ("kind: tts", "has neither text nor text_file"),
        ("kind: null\ntext: hi", "kind: expected tts, vc or concat, found None"),
        ("kind: [tts]\ntext: hi", "kind: expected tts, vc or concat, found ['tts']"),
        ("kind: vc", "audio: is missing"),
        ("kind: vc\naudio: {speed: 2.0}", "audio.file: is missing"),
        ("kind: vc\naudio: 5", "audio: expected keys with values, found 5"),
        ("kind: concat", "parts: is missing"),
        ("kind: concat\nparts: []", "parts: expected at least 1 item"),
        ("kind: concat\nparts: [{}]", "parts.0: needs either file or silence_ms"),
        ("kind: concat\nparts: [{file: a.wav, silence_ms: 50}]", "parts.0: needs either file or silence_ms"),
        ("kind: concat\nparts: [{silence_ms: 1}]", "parts.0.silence_ms: expected at least 10"),
        ("text: ''", "text: expected at least 1 character"),
        ("text: 5", "text: expected text"),
        ("text: hi\nseed: '1'", "seed: expected a whole number, found '1'"),
        ("text: hi\naudio: {speed: .inf}", "audio.speed: expected"),
        ("text: hi\noutput: {formats: [mp4]}", "output.formats.0: expected one of"),
        ("text: hi\noutput: {formats: []}", "output.formats: expected at least 1 item"),
        ("text: hi\nlanguage: english please", "language: expected text of the form"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    """One sentence for each kind of mistake."""
    assert any(said in problem for problem in problems(text)), problems(text)


@pytest.mark.parametrize("value", ["5", "true", "abc", "{a: b}", "null", "[5]", "[[a.wav]]", "1.5"])
@pytest.mark.parametrize("key", ["parts", "audio", "text_file", "voice", "kind"])
@pytest.mark.parametrize("kind", ["tts", "vc", "concat"])
def test_a_value_of_any_shape_is_a_sentence_and_not_a_crash(kind: str, key: str, value: str) -> None:
    """Whatever stands where something else should: the file is refused, or right by chance."""
    try:
        parse(f"kind: {kind}\n{key}: {value}\n" if key != "kind" else f"kind: {value}\nparts: {value}\n")
    except SpecError as error:
        assert "job.yaml" in error.message


REFERENCES = {
    "../x": "leads out",
    "a/../../x": "leads out",
    "/etc/x": "leads out",
    ".hidden/x": "hidden",
    "a/.x": "hidden",
    r"a\x": "no file name",
    r"..\x": "no file name",
    r"C:\x": "no file name",
    "C:/x": "somebody's own computer",
    "c:x": "somebody's own computer",
    "~/x": "somebody's own computer",
    "~me/x": "somebody's own computer",
    "x\\0y": "no file name",
}


@pytest.mark.parametrize(("reference", "said"), REFERENCES.items())
@pytest.mark.parametrize(
    ("job", "suffix"),
    [
        ('text_file: "{}"', ".txt"),
        ('kind: vc\naudio: "{}"', ".wav"),
        ('kind: vc\naudio: {{file: "{}"}}', ".wav"),
        ('kind: concat\nparts: ["{}"]', ".wav"),
        ('kind: concat\nparts: [{{file: "{}"}}]', ".wav"),
        ('text: hi\nvoice: "{}"', ".wav"),
    ],
)
def test_references_that_lead_out_are_refused(job: str, suffix: str, reference: str, said: str) -> None:
    """Wherever a file can be named, and before anything is looked up."""
    name = reference.replace("\\0", "\x07").replace("\\", "\\\\") + suffix
    if "\x07" in name:
        name = name.replace("\x07", "\\0")
        said = "escape"  # YAML itself has no NUL
    told = problems(job.format(name))
    assert any(said in problem for problem in told), told


def test_no_character_becomes_a_step_out_by_being_normalised() -> None:
    """NFC turns some characters into others; none into one that means something in a path."""
    for character in map(chr, range(0x80, 0x110000)):
        if unicodedata.normalize("NFC", character) != character:
            assert not set(normalised(f"a{character}b")) & set("/.\\:~"), hex(ord(character))


BROKEN = {
    "vioce: me\ntext_file: chapter 1.txt": ("chapter 1.txt",),
    "text_file: 'caf\u0065\u0301.md' # mine\n\tx": ("caf\u00e9.md",),
    "{text_file: sub/a.txt, voice: b.wav": ("sub/a.txt", "b.wav"),
    "kind: vc\naudio: {file: 'a.flac', loud: 3}\nvoice: c.wav": ("a.flac", "c.wav"),
    'kind: concat\nparts:\n  - a.wav\n  - file: "b c.mp3"\n  - silence_ms: 3\n - d.ogg': (
        "a.wav",
        "b c.mp3",
        "d.ogg",
    ),
    "parts: [a.wav, b.wav, a.wav": ("a.wav", "b.wav"),
    "text: |\n  Look into notes.txt, and into other.txt\nx: y": (),
    "text_file: ../a.txt\nvoice: /b.wav\naudio: https://example.org/c.wav\nfile: .d.txt": (),
    "text_file: a.yaml\nfile: a.exe": (),
    "text_file: " + "x" * 1000 + ".txt\nx: y": (),
}


@pytest.mark.parametrize(("text", "names"), BROKEN.items(), ids=lambda value: str(value)[:30])
def test_a_broken_job_file_still_tells_the_files_it_names(text: str, names: tuple[str, ...]) -> None:
    """Behind its keys and in its lists; not in running text, and nothing that it could not name anyway."""
    with pytest.raises(SpecError):
        parse(text)
    assert names_in_broken(text.encode()) == names


@pytest.mark.parametrize("line", ["file: a ", "[a.txt,", "- ", "audio:" + " " * 900, "x" * 999])
def test_a_megabyte_of_brokenness_is_searched_in_a_moment(line: str) -> None:
    """Whatever stands in it."""
    data = (line * (1000 // len(line)) + "\n").encode()
    started = time.process_time()
    names_in_broken(data * (2**20 // len(data)))
    assert time.process_time() - started < 2


@pytest.mark.parametrize("name", ["a.exe", "a", "a.wav.txt", ".", "~", "a.yaml"])
def test_a_recording_has_the_name_of_one(name: str) -> None:
    """Of all files in a folder only recordings and texts can be named."""
    assert any("must end in one of .aac, .flac" in p for p in problems(f"kind: vc\naudio: '{name}'"))


URL = "https://example.org/voices//narrator?key=1"
FETCHED = [
    "text: hi\nvoice: {}",
    "kind: vc\naudio: {}\nvoice: me",
    "kind: vc\naudio: {{file: {}}}\nvoice: me",
]
NOT_FETCHED = ["text_file: {}", "kind: concat\nparts: [{}]", "kind: concat\nparts: [{{file: {}}}]"]


@pytest.mark.parametrize("job", FETCHED)
def test_a_voice_and_a_recording_may_be_a_web_address(job: str) -> None:
    """It stays as it is, whatever it ends in, and is no file that has to arrive."""
    (request,) = parse(job.format(f'"{URL}"'))
    assert URL in (request.settings.voice, request.file)
    assert request.references == ()


@pytest.mark.parametrize("job", FETCHED)
@pytest.mark.parametrize(
    ("url", "said"),
    {
        "http://example.org/x.wav": "does not begin with https://",
        "file:///etc/x.wav": "does not begin with https://",
        "https://me:secret@example.org/x.wav": "names a user or a password",
        "https://2130706433/x.wav": "writes an IP address in an unusual way",
        "https://example.org:22/x.wav": "names port 22",
    }.items(),
)
def test_a_wrong_web_address_is_told_with_its_line(job: str, url: str, said: str) -> None:
    """Before anything is fetched, and without the password."""
    (problem,) = problems(job.format(f'"{url}"'))
    assert problem.startswith("job.yaml, line 2: ") and said in problem and "secret" not in problem


@pytest.mark.parametrize("job", NOT_FETCHED)
def test_texts_and_parts_cannot_be_a_web_address(job: str) -> None:
    """With what to do instead."""
    (problem,) = problems(job.format('"https://example.org/x.wav?key=secret"'))
    assert problem.endswith(
        "https://example.org/x.wav is a web address; only `voice` and `audio` may be one."
        " Put the file beside the job file and name it here."
    )


def test_many_problems_are_cut_short_and_counted() -> None:
    """Somebody reads this."""
    with pytest.raises(SpecError) as caught:
        parse("---\n".join(["kind: x\n"] * 200))
    assert len(caught.value.problems) == 200
    assert caught.value.message.startswith("job.yaml has 200 problems:\n- job.yaml, line 1: kind:")
    assert caught.value.message.endswith("and 150 more")


def test_a_file_has_no_more_jobs_than_allowed() -> None:
    """The limit itself is allowed."""
    assert len(parse("---\n".join(["text: a\n"] * MAX_DOCUMENTS))) == MAX_DOCUMENTS
    assert "may hold 1000" in problems("---\n".join(["text: a\n"] * (MAX_DOCUMENTS + 1)))[0]


# -- defaults and voice sheets ------------------------------------------------------------------------


def test_defaults_may_be_empty_and_are_one_document() -> None:
    """An empty file sets nothing."""
    assert as_set(parse_defaults(b"", "_defaults.yaml")) == {}
    assert as_set(parse_defaults(b"# nothing\n", "_defaults.yaml")) == {}
    with pytest.raises(SpecError, match="holds 2 YAML documents; it may hold one"):
        parse_defaults(b"seed: 1\n---\nseed: 2", "_defaults.yaml")


@pytest.mark.parametrize("key", ["text: hi", "kind: tts", "text_file: a.txt", "parts: [a.wav]"])
def test_defaults_hold_settings_and_no_job(key: str) -> None:
    """What belongs to one job cannot be a folder's."""
    with pytest.raises(SpecError, match=r"_defaults.yaml, line 1: .* unknown key"):
        parse_defaults(key.encode(), "_defaults.yaml")


@pytest.mark.parametrize("voice", ["me.wav", "../../etc/me.wav", "/me.flac", "https://example.org/me.mp3"])
def test_defaults_cannot_name_a_file_as_the_voice(voice: str) -> None:
    """Only what is claimed together with a job file is sure to be there, and to be inside."""
    with pytest.raises(SpecError, match=r"line 2: voice: .* is a .*; only a job file") as caught:
        parse_defaults(f"seed: 1\nvoice: {voice}".encode(), "_defaults.yaml")
    assert "voices folder" in caught.value.hint


def test_a_voice_sheet_holds_what_the_contract_says() -> None:
    """Description, language, default settings, and the stand-in on the embedded engine."""
    sheet = parse_voice_sheet(
        b"description: A calm voice.\nlanguage: de\nespeak: de+m3\ndefaults: {audio: {speed: 0.9}}\n",
        "v.yaml",
    )
    assert (sheet.description, sheet.language, sheet.espeak) == ("A calm voice.", "de", "de+m3")
    assert as_set(sheet.defaults) == {"audio": {"speed": 0.9}}
    assert parse_voice_sheet(b"", "v.yaml").language is None


def test_a_voice_sheet_is_strict() -> None:
    """Unknown keys inside the defaults too, and no voice that is another voice."""
    with pytest.raises(SpecError, match="did you mean speed"):
        parse_voice_sheet(b"defaults: {audio: {sped: 1}}", "v.yaml")
    with pytest.raises(SpecError, match=r"line 1: defaults\.voice: a voice cannot name another"):
        parse_voice_sheet(b"defaults: {voice: other}", "v.yaml")


# -- the cascade ----------------------------------------------------------------------------------

LEAVES: dict[str, Any] = {
    "voice": st.none() | st.text(string.ascii_letters, min_size=1, max_size=4),
    "seed": st.integers(0, 5),
    "language": st.sampled_from(["en", "de"]),
    "engine": st.sampled_from(["espeak", "chatterbox"]),
    "priority": st.sampled_from(["high", "low"]),
}
GROUPS: dict[str, dict[str, Any]] = {
    "audio": {"speed": st.sampled_from([0.5, 1.0]), "loudness_lufs": st.none() | st.just(-16.0)},
    "check": {"max_word_error_rate": st.none() | st.floats(0, 1)},
    "output": {"formats": st.lists(st.sampled_from(["wav", "mp3"]), min_size=1)},
    "text_rules": {"replace": st.lists(st.just({"from": "a", "to": "b"}), max_size=2)},
    "takes": {"per_chunk": st.integers(1, 3), "max_tries": st.integers(1, 4)},
}
written = st.fixed_dictionaries(
    {}, optional={**LEAVES, **{k: st.fixed_dictionaries({}, optional=v) for k, v in GROUPS.items()}}
)


def layer(values: dict[str, Any]) -> Settings:
    """A layer that sets exactly `values`."""
    return Settings.model_validate(values)


def flat(values: dict[str, Any]) -> dict[tuple[str, ...], Any]:
    """Every key that is set, by its path."""
    found: dict[tuple[str, ...], Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= {(key, inner): leaf for inner, leaf in value.items()}
        else:
            found[(key,)] = value
    return found


@given(st.lists(written, max_size=4))
def test_the_first_layer_that_sets_a_key_wins_for_that_key(written_layers: list[dict[str, Any]]) -> None:
    """Key by key, also inside groups; null is a value like any other; lists are taken whole."""
    expected: dict[tuple[str, ...], Any] = {}
    for values in written_layers:
        expected = flat(layer(values).model_dump(exclude_unset=True, by_alias=True)) | expected
    assert flat(as_set(cascade(*map(layer, written_layers)))) == expected


@given(written, written, written)
def test_the_cascade_is_associative(a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]) -> None:
    """How the layers are grouped on the way does not matter."""
    first, second, third = map(layer, (a, b, c))
    left, right = cascade(cascade(first, second), third), cascade(first, cascade(second, third))
    assert as_set(left) == as_set(right)
    assert left == right == cascade(first, second, third)


@given(written)
def test_no_layers_and_one_layer(values: dict[str, Any]) -> None:
    """Nothing in, nothing set; one in, that one out."""
    assert as_set(cascade()) == {}
    assert (
        as_set(cascade(layer(values))) == as_set(layer(values)) == as_set(cascade(Settings(), layer(values)))
    )


def test_every_key_cascades() -> None:
    """Each key of the settings, set in the layer below, arrives; set above, it hides the one below."""
    for name in Settings.model_fields:
        other = OTHER_THAN_DEFAULT[name]
        assert as_set(cascade(Settings(), layer({name: other}))) == as_set(layer({name: other}))
        default = complete(Settings()).model_dump(by_alias=True)[name]
        hidden = cascade(layer({name: default}), layer({name: other}))
        assert getattr(hidden, name) == getattr(Settings(), name)


OTHER_THAN_DEFAULT: dict[str, Any] = {
    "voice": "v",
    "engine": "chatterbox",
    "language": "de",
    "seed": 7,
    "synthesis": {"temperature": 0.1},
    "text_rules": {"lowercase": True},
    "chunks": {"max_chars": 100},
    "takes": {"max_tries": 9},
    "check": {"by": "none"},
    "pauses": {"sentence_ms": 1},
    "audio": {"speed": 2.0},
    "conversion": {"chunk_seconds": 10.0},
    "output": {"formats": ["wav", "opus"]},
    "priority": "low",
}


def test_complete_writes_every_key_out() -> None:
    """So that a later default cannot change a frozen job."""
    frozen = complete(layer({"audio": {"speed": 2.0}}))
    assert flat(as_set(frozen)).keys() == flat(frozen.model_dump(by_alias=True)).keys()
    assert frozen.audio.speed == 2.0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, None),
        ({"chunks": {"max_chars": 40, "min_chars": 41}}, "chunks.min_chars is larger"),
        ({"takes": {"per_chunk": 5}}, "takes.max_tries is smaller"),
        ({"conversion": {"chunk_seconds": 5.0, "overlap_seconds": 2.0}}, None),
        ({"output": {"formats": ["mp3", "mp3"]}}, "names a format twice"),
    ],
)
def test_keys_that_contradict_each_other(values: dict[str, Any], said: str | None) -> None:
    """Each is right alone, together they cannot be done."""
    found = problems_of(layer(values))
    assert (not found) if said is None else any(said in problem for problem in found)


def test_a_voice_looks_like_a_file_by_its_ending() -> None:
    """A name with a dot in it is still a name."""
    assert looks_like_clip("a.wav") and looks_like_clip("A.FLAC") and looks_like_clip("https://x/y")
    assert not looks_like_clip("narrator") and not looks_like_clip("mr.smith")
