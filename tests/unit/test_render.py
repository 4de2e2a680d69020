"""One job from its text to its files: every chunk, in order, with its evidence."""

import dataclasses
import hashlib
import itertools
import re
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from ledger_samples import a_job
from scripted import ScriptedEngine, ScriptedTools, ScriptedTranscriber

from pipeline.engines.base import Utterance
from pipeline.errors import Cancelled, InputError, Interrupted, SynthesisError
from pipeline.jobs.job import Job, JobSpec, VoiceChoice
from pipeline.jobs.settings import Settings
from pipeline.layout import Layout
from pipeline.outbox import ChunkRecord
from pipeline.render import Rendering, render
from pipeline.sound import ffmpeg
from pipeline.sound.audio import Audio, Speech
from pipeline.sound.ffmpeg import HELD_BYTES
from pipeline.sound.measure import measure_file
from pipeline.text.prepare import prepare

TEXT = (
    "The first sentence stands here alone. The second one follows it at once!\n\n"
    "A new paragraph begins, and it has a question: does it not?"
)
WRONG = "nothing of the kind was said"


def job(text: str | None = TEXT, **settings: Any) -> Job:
    """A job over `text`, to wav and in chunks of a sentence."""
    values = {"seed": 7, "output": {"formats": ["wav"]}, "chunks": {"max_chars": 60}, **settings}
    frozen = Settings.model_validate(values)
    spec = JobSpec(
        kind="tts", settings=frozen, voice=VoiceChoice(name=""), text=text, file=None if text else "a.txt"
    )
    return a_job(spec=spec)


class LoudEngine(ScriptedEngine):
    """Speaks far over full scale, with true peaks between the samples and edges as hard as they can be."""

    def speak(self, utterance: Utterance) -> Speech:
        """A square wave over a tone at a quarter of the rate."""
        at = np.arange(len(super().speak(utterance).audio.samples))
        wave = np.sin(np.pi / 2 * at + np.pi / 4) + 0.5 * np.sign(np.sin(0.06 * at))
        return Speech(audio=Audio(wave.astype(np.float32), self.rate_hz))


class Studio:
    """Renders jobs with what a test brings."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.stages: list[tuple[str, int, int]] = []
        self.stop_at: dict[tuple[str, int], Exception] = {}

    def report(self, stage: str, done: int, total: int) -> None:
        """Remembers the progress; stops where the test wants."""
        self.stages.append((stage, done, total))
        if (error := self.stop_at.pop((stage, done), None)) is not None:
            raise error

    def render(
        self, job: Job, engine: ScriptedEngine | None = None, ears: ScriptedTranscriber | None = None
    ) -> Rendering:
        """Make everything that the job asks for."""
        tools: Any = ScriptedTools(engine or ScriptedEngine(), ears or ScriptedTranscriber())
        source = self.layout.claimed(job.drop_id)
        source.mkdir(parents=True, exist_ok=True)
        return render(job, self.layout, tools, self.report, source=source, sleep=lambda _: None)


@pytest.fixture
def studio(layout: Layout) -> Studio:
    """With an empty cache."""
    return Studio(layout)


def squeezed(text: str) -> str:
    """Without the white space, which is where chunks are cut."""
    return re.sub(r"\s+", "", text)


def texts(chunks: tuple[ChunkRecord, ...]) -> str:
    """What all chunks say."""
    return squeezed("".join(chunk.text for chunk in chunks))


# -- what comes out -----------------------------------------------------------------------------------


def test_every_chunk_of_the_text_is_there_in_order(studio: Studio) -> None:
    """Put together they are the prepared text, and each was spoken as it stands."""
    engine = ScriptedEngine()
    manifest = studio.render(job(), engine).manifest
    assert texts(manifest.chunks) == squeezed(prepare(TEXT, Settings().text_rules, "en").text)
    assert [chunk.index for chunk in manifest.chunks] == list(range(len(engine.spoken)))
    assert [chunk.text for chunk in manifest.chunks] == [utterance.text for utterance in engine.spoken]
    assert [chunk.seed for chunk in manifest.chunks] == [utterance.seed for utterance in engine.spoken]
    assert len(manifest.chunks) == 3


@pytest.mark.parametrize("speed", [1.0, 1.5])
def test_chunk_times_are_those_of_the_finished_file(studio: Studio, speed: float) -> None:
    """They grow, leave room for the pauses, and end with the sound, also where the tempo was changed."""
    rendering = studio.render(job(audio={"speed": speed, "trim": False}))
    chunks = rendering.manifest.chunks
    times = [moment for chunk in chunks for moment in (chunk.start_seconds, chunk.end_seconds)]
    assert times == sorted(times) and times[0] == 0.0
    gaps = [after.start_seconds - before.end_seconds for before, after in itertools.pairwise(chunks)]
    assert gaps == pytest.approx([0.3 / speed, 0.8 / speed], abs=0.002)
    assert all(c.end_seconds - c.start_seconds == pytest.approx(0.3 / speed, abs=0.002) for c in chunks)
    (file,) = rendering.files
    assert soundfile.info(file.path).duration == pytest.approx(times[-1], abs=0.05)
    assert file.duration_seconds == pytest.approx(times[-1], abs=0.05)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"true_peak_db": -6.0},
        {"trim": False},
        {"speed": 1.25},
        {"loudness_lufs": -10.0},
        {"denoise": True},
        {"speed": 0.8, "denoise": True, "loudness_lufs": -16.0, "true_peak_db": -3.0},
    ],
    ids=str,
)
def test_a_whole_job_keeps_its_true_peaks_under_the_ceiling(studio: Studio, how: dict[str, Any]) -> None:
    """However loud the engine is, whoever of us keeps the ceiling; and it is not thrown away either."""
    wanted = job(audio=how)
    (file,) = studio.render(wanted, LoudEngine()).files
    ceiling_db = wanted.spec.settings.audio.true_peak_db
    assert ceiling_db - 10 < measure_file(file.path).true_peak_db <= ceiling_db


def test_each_format_is_a_file(studio: Studio) -> None:
    """In the work folder, not yet in the outbox."""
    wanted = job(output={"formats": ["wav", "mp3", "flac", "opus", "m4a"]})
    rendering = studio.render(wanted)
    assert [file.format for file in rendering.files] == list(wanted.spec.settings.output.formats)
    assert all(file.path.parent == studio.layout.work(wanted.id) for file in rendering.files)
    assert all(file.path.stat().st_size > 500 for file in rendering.files)
    assert list(studio.layout.outbox.iterdir()) == []


def test_the_manifest_tells_what_was_done(studio: Studio) -> None:
    """Engine, frozen settings, checks, times, and what the intake had to say."""
    wanted = job()
    wanted = dataclasses.replace(wanted, spec=dataclasses.replace(wanted.spec, warnings=("from the intake",)))
    manifest = studio.render(wanted, ScriptedEngine(version="1.2")).manifest
    assert manifest.engine == {"name": "espeak", "version": "1.2", "device": "cpu"}
    assert (manifest.status, manifest.kind, manifest.check) == ("done", "tts", "pocketsphinx 1")
    assert manifest.settings == wanted.spec.settings.model_dump(mode="json", by_alias=True)
    assert all(c.passed and c.word_error_rate == 0 and c.transcript == c.text for c in manifest.chunks)
    assert manifest.warnings == ("from the intake",)
    timings = manifest.timings
    assert 0 <= timings.synthesis_seconds <= timings.total_seconds > 0 <= timings.queued_seconds


def test_progress_is_told_at_each_chunk(studio: Studio) -> None:
    """And that the encoder is at work."""
    studio.render(job())
    assert studio.stages == [("speaking", 0, 3), ("speaking", 1, 3), ("speaking", 2, 3), ("encoding", 3, 3)]


def test_progress_is_told_while_the_files_are_written(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a loudness to reach that may be minutes, in which a stop must be heard."""
    monkeypatch.setattr(ffmpeg, "REPORT_SECONDS", 0.01)
    studio.render(job(audio={"loudness_lufs": -20.0}, output={"formats": ["mp3", "opus"]}))
    assert studio.stages.count(("encoding", 3, 3)) > 3


def test_a_text_file_is_read(studio: Studio) -> None:
    """From the drop's folder; what was guessed about it is a warning."""
    wanted = job(None)
    source = studio.layout.claimed(wanted.drop_id)
    source.mkdir(parents=True)
    (source / "a.txt").write_bytes("Über die Brücke gehen. Ein schöner Tag für alle.".encode("latin-1"))
    manifest = studio.render(wanted).manifest
    assert "Über die Brücke" in manifest.chunks[0].text
    assert manifest.warnings == (
        "a.txt is not UTF-8 and was read as cp1252; if letters sound wrong, save it as UTF-8.",
    )


@pytest.mark.parametrize(
    ("text", "code"),
    [("", "text_empty"), (" \n ", "text_empty"), ("... -- !?", "text_empty"), (None, "text_missing")],
)
def test_nothing_to_speak_is_an_error(studio: Studio, text: str | None, code: str) -> None:
    """Before anything is loaded or made."""
    engine = ScriptedEngine()
    wanted = job("x")
    spec = dataclasses.replace(wanted.spec, text=text, file=None if text is not None else "gone.txt")
    with pytest.raises(InputError) as caught:
        studio.render(dataclasses.replace(wanted, spec=spec), engine)
    assert caught.value.code == code and caught.value.hint
    assert engine.spoken == [] and studio.stages == []


# -- what did not pass --------------------------------------------------------------------------------


def second_is_wrong(text: str, _: int) -> str:
    """A recogniser that never hears the second sentence."""
    return WRONG if "second" in text else text


def test_what_did_not_pass_is_kept_and_told(studio: Studio) -> None:
    """`on_failure: best`, with the chunk, the tries and why."""
    manifest = studio.render(job(), ears=ScriptedTranscriber(hears=second_is_wrong)).manifest
    second = manifest.chunks[1]
    assert (second.passed, second.tries, second.transcript) == (False, 4, WRONG)
    assert second.reasons and second.word_error_rate is not None and second.word_error_rate > 0.5
    (warning,) = manifest.warnings
    assert warning.startswith("Chunk 2 did not pass the check in 4 tries (")
    assert warning.endswith("the best take was kept: 'The second one follows it at once!'")


def test_what_did_not_pass_can_fail_the_job(studio: Studio) -> None:
    """`on_failure: fail`, at the first such chunk, with the sentence."""
    engine = ScriptedEngine()
    with pytest.raises(SynthesisError, match="Chunk 2 of 3 did not pass the check in 4 tries") as caught:
        studio.render(job(check={"on_failure": "fail"}), engine, ScriptedTranscriber(hears=second_is_wrong))
    assert caught.value.code == "check_failed"
    assert f"'The second one follows it at once!' was heard as {WRONG!r}" in caught.value.message
    assert "check.on_failure: best" in caught.value.hint
    assert len(engine.spoken) == 5, "the third chunk is not spoken any more"
    assert not list(studio.layout.work("d1-0").glob("audio.*"))


def test_whoever_hears_of_a_failure_finds_the_engine_silent(studio: Studio) -> None:
    """An engine speaks ahead: it must not go on over the last words about the job."""
    engine = ScriptedEngine(batch=3)
    ears = ScriptedTranscriber(hears=second_is_wrong)
    try:
        studio.render(job(check={"on_failure": "fail"}, takes={"max_tries": 1}), engine, ears)
    except SynthesisError:
        assert not engine.speaking
    else:
        raise AssertionError("it passed")
    assert len(engine.spoken) == 2


def test_a_later_try_tells_what_it_used_instead(studio: Studio) -> None:
    """The settings of the winning take, where they are not the job's own."""
    ears = ScriptedTranscriber(hears=lambda text, n: WRONG if "second" in text and n == 1 else text)
    first, second, third = studio.render(job(), ScriptedEngine(random=False), ears).manifest.chunks
    assert (first.settings, third.settings) == ({}, {})
    assert second.settings == {"words_per_minute": 152} and second.passed


@pytest.mark.parametrize(
    ("settings", "check", "warned"),
    [
        (
            {"language": "fr"},
            "none: pocketsphinx has no model for fr",
            "Not checked: pocketsphinx has no model for fr.",
        ),
        ({"check": {"by": "none"}}, "none: switched off", None),
    ],
)
def test_what_is_not_checked_says_so(studio: Studio, settings: Any, check: str, warned: str | None) -> None:
    """A warning where it was wanted and could not be had."""
    ears = ScriptedTranscriber()
    manifest = studio.render(job(**settings), ears=ears).manifest
    assert manifest.check == check and ears.listened == []
    assert manifest.warnings == ((warned,) if warned else ())
    assert all(
        c.passed is None and c.transcript is None and c.word_error_rate is None for c in manifest.chunks
    )


def test_settings_that_an_engine_has_no_use_for_are_told(studio: Studio) -> None:
    """Those that somebody set, not the defaults."""
    wanted = job(synthesis={"temperature": 0.1})
    spec = dataclasses.replace(wanted.spec, synthesis_set=("temperature", "pitch"))
    engine = ScriptedEngine(unused=("temperature", "top_p"))
    manifest = studio.render(dataclasses.replace(wanted, spec=spec), engine).manifest
    assert manifest.warnings == ("espeak has no use for synthesis.temperature.",)


def test_an_engine_that_cannot_speak_so_says_why(studio: Studio) -> None:
    """Nothing is spoken with another voice instead."""
    engine = ScriptedEngine(cannot=("It has no such voice.", "It has no such language."))
    with pytest.raises(InputError, match=r"It has no such voice\. It has no such language\.") as caught:
        studio.render(job(), engine)
    assert caught.value.code == "engine_cannot" and engine.spoken == []


def test_an_engine_that_gives_up_fails_the_job(studio: Studio) -> None:
    """After its one more try; no half file is left."""
    engine = ScriptedEngine(errors=[None, SynthesisError("a"), SynthesisError("out of memory")])
    with pytest.raises(SynthesisError, match="out of memory"):
        studio.render(job(), engine)
    assert not list(studio.layout.work("d1-0").glob("audio.*"))


def test_a_voice_that_was_changed_meanwhile_is_told(studio: Studio, tmp_path: Path) -> None:
    """Its takes would be kept under the name of the recording that it was."""
    clip = tmp_path / "me.wav"
    clip.write_bytes(b"one")
    voice = VoiceChoice(name="me", clip=str(clip), clip_sha256=hashlib.sha256(b"one").hexdigest())
    wanted = job()
    wanted = dataclasses.replace(wanted, spec=dataclasses.replace(wanted.spec, voice=voice))
    assert len(studio.render(wanted).manifest.chunks) == 3
    for change in (lambda: clip.write_bytes(b"two"), clip.unlink):
        change()
        with pytest.raises(InputError, match="voice me was changed or removed after the job") as caught:
            studio.render(wanted)
        assert caught.value.code == "voice_changed"


# -- going on -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Interrupted("stop"), Cancelled("no more")])
@pytest.mark.parametrize(
    ("stage", "done", "left"), [("speaking", 0, 3), ("speaking", 2, 1), ("encoding", 3, 0)]
)
def test_devnen_issue_82_an_interrupted_job_speaks_only_what_is_missing(
    studio: Studio, error: Exception, stage: str, done: int, left: int
) -> None:
    """And the result is that of a job that was never interrupted, sample for sample."""
    studio.stop_at[(stage, done)] = error
    with pytest.raises(type(error)):
        studio.render(job())
    engine, ears = ScriptedEngine(), ScriptedTranscriber()
    resumed = studio.render(job(), engine, ears)
    assert len(engine.spoken) == len(ears.listened) == left
    assert [chunk.cached for chunk in resumed.manifest.chunks] == [True] * (3 - left) + [False] * left
    sound = resumed.files[0].path.read_bytes()
    uninterrupted = studio.render(job())
    assert uninterrupted.files[0].path.read_bytes() == sound


def test_an_edited_text_speaks_only_what_changed(studio: Studio) -> None:
    """A sentence in the middle."""
    studio.render(job())
    engine = ScriptedEngine()
    manifest = studio.render(job(TEXT.replace("second one", "third one")), engine).manifest
    assert [utterance.text for utterance in engine.spoken] == ["The third one follows it at once!"]
    assert [chunk.cached for chunk in manifest.chunks] == [True, False, True]


def test_what_an_earlier_attempt_left_is_swept_away(studio: Studio) -> None:
    """The work folder belongs to this attempt alone."""
    wanted = job()
    old = studio.layout.work(wanted.id) / "audio.wav"
    old.parent.mkdir(parents=True)
    old.write_text("half")
    (old.parent / "left").mkdir()
    rendering = studio.render(wanted)
    assert [path.name for path in old.parent.iterdir()] == ["audio.wav"]
    assert rendering.files[0].path.read_bytes()[:4] == b"RIFF"


def test_travisvn_issue_23_the_seed_of_every_take_is_told_and_makes_it_again(studio: Studio) -> None:
    """Of the take that won; from an empty cache the same settings give the same sound."""
    ears = ScriptedTranscriber(hears=lambda text, n: text if n == 2 else WRONG)
    wanted, engine = job(), ScriptedEngine()
    rendering = studio.render(wanted, engine, ears)
    assert [chunk.tries for chunk in rendering.manifest.chunks] == [2, 2, 2]
    assert [chunk.seed for chunk in rendering.manifest.chunks] == [u.seed for u in engine.spoken[1::2]]
    told = rendering.manifest.settings
    sound = rendering.files[0].path.read_bytes()
    shutil.rmtree(studio.layout.cache)
    studio.layout.cache.mkdir()
    ears = ScriptedTranscriber(hears=lambda text, n: text if n == 2 else WRONG)
    again = studio.render(job(**told), ScriptedEngine(), ears)
    assert again.files[0].path.read_bytes() == sound


def test_chatterbox_issue_543_a_language_of_syllable_signs_is_cut_shorter(studio: Studio) -> None:
    """280 Chinese characters take a minute to say, and the model is cut off after 40 s."""
    sentence = "我們今天去公園散步，看見了很多花。"
    chunks = studio.render(job(sentence * 40, language="zh", chunks={})).manifest.chunks
    assert max(len(chunk.text) for chunk in chunks) <= 100
    assert "".join(chunk.text for chunk in chunks) == sentence * 40


# -- size ---------------------------------------------------------------------------------------------


def peak_megabytes(studio: Studio, sentences: int) -> float:
    """Most memory that Python and numpy held while a text of so many sentences was rendered."""
    text = "\n\n".join(f"Sentence number {number} goes on for a while." for number in range(sentences))
    engine = ScriptedEngine(rate_hz=8000, seconds=lambda _: 2.0)
    wanted = job(text, check={"by": "none"}, audio={"trim": False}, chunks={"max_chars": 60})
    tracemalloc.start()
    try:
        assert len(studio.render(wanted, engine).manifest.chunks) == sentences
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def test_chatterbox_issue_205_memory_does_not_grow_with_the_sound(studio: Studio) -> None:
    """Thirty times the text: only its words and records are held, and what the encoder has yet to read; not
    the sound, which is 61 MB more here."""
    peak_megabytes(studio, 5)  # whatever is loaded once
    short, long = peak_megabytes(studio, 30), peak_megabytes(studio, 990)
    assert long - short < HELD_BYTES / 1e6 + 6.0, f"{short:.1f} MB, then {long:.1f} MB"


def test_work_lies_only_where_it_may(studio: Studio, tmp_path: Path) -> None:
    """In the work folder and the cache."""
    studio.render(job())
    made = {path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*") if path.is_file()}
    assert made <= {("state", "work"), ("state", "cache"), ("state", "ledger.db")}


BOOK_CHUNKS = 1100


def length_of(number: int) -> float:
    """Seconds of chunk `number`, by which it is known again."""
    return 0.05 + number % 37 / 1000


def test_psdwizzard_issue_42_a_book_of_over_a_thousand_chunks_is_whole_and_in_order(studio: Studio) -> None:
    """There 999 were joined, and the rest left out; issue 17: some stopped after 300, or 840."""
    numbered = {f"Sentence number {number} is here.": number for number in range(BOOK_CHUNKS)}
    engine = ScriptedEngine(rate_hz=8000, seconds=lambda utterance: length_of(numbered[utterance.text]))
    wanted = job("\n\n".join(numbered), audio={"trim": False}, pauses={"paragraph_ms": 0})
    rendering = studio.render(wanted, engine)
    chunks = rendering.manifest.chunks
    assert [numbered[chunk.text] for chunk in chunks] == list(range(BOOK_CHUNKS))
    assert len(engine.spoken) == BOOK_CHUNKS
    ends = np.cumsum([length_of(number) for number in range(BOOK_CHUNKS)])
    assert [chunk.end_seconds for chunk in chunks] == pytest.approx(ends, abs=0.002)
    assert soundfile.info(rendering.files[0].path).duration == pytest.approx(ends[-1], abs=0.1)
