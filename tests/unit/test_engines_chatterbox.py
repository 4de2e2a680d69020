"""What the Chatterbox engines may be asked and how their tries differ; no model is needed for that."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.chatterbox.speaker import Asked, Said
from pipeline.engines.base import Utterance, Voice
from pipeline.engines.chatterbox import (
    LANGUAGES,
    MANNERS,
    ChatterboxEngine,
    calmer,
    model_language,
    plain,
    without_double_quotes,
    without_language_signs,
)
from pipeline.equipment import BARE
from pipeline.errors import SynthesisError
from pipeline.jobs.settings import Synthesis

TONE = Said(np.full(2400, 0.1, np.float32))


@dataclass
class FakeSpeaker:
    """Remembers what it was asked."""

    folder: Path
    version: str = "1"
    watermark: str = "perth 1"
    said: Said = TONE
    asked: list[Asked] = field(default_factory=list)
    closed: int = 0

    def speak(self, asked: Asked) -> Said:
        self.asked.append(asked)
        return self.said

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def speaker(tmp_path: Path) -> FakeSpeaker:
    """A model whose checkpoint has a voice of its own."""
    (tmp_path / "conds.pt").touch()
    return FakeSpeaker(tmp_path)


def engine(name: str, speaker: FakeSpeaker) -> ChatterboxEngine:
    """One of the three."""
    return ChatterboxEngine(MANNERS[name], speaker, BARE)


def utterance(text: str = "Good morning.", language: str = "en", **synthesis: Any) -> Utterance:
    """A chunk in the engine's own voice."""
    return Utterance(
        text=text, voice=Voice(name=""), language=language, synthesis=Synthesis(**synthesis), seed=7
    )


def test_the_multilingual_engine_speaks_23_languages(speaker: FakeSpeaker) -> None:
    """Whatever region or name of the language the tag has."""
    (speaker.folder / "Cangjie5_TC.json").touch()
    multilingual = engine("chatterbox-multilingual", speaker)
    assert len(LANGUAGES) == 23
    for tag in [*LANGUAGES, "de-AT", "pt-BR", "zh-Hant-TW", "EN", "nb", "nn-NO"]:
        assert list(multilingual.problems(Voice(name=""), tag, Synthesis())) == []
    assert [model_language(tag) for tag in ("de-AT", "nb", "zh-Hant", "iw")] == ["de", "no", "zh", "he"]


def test_the_language_reaches_the_model(speaker: FakeSpeaker) -> None:
    """By the model's own code."""
    engine("chatterbox-multilingual", speaker).speak(utterance(language="nb"))
    assert speaker.asked[0].settings["language_id"] == "no"


def test_chinese_needs_its_table(speaker: FakeSpeaker) -> None:
    """Without it the characters would be skipped in silence."""
    problems = engine("chatterbox-multilingual", speaker).problems(Voice(name=""), "zh", Synthesis())
    assert len(problems) == 1
    assert "Cangjie5_TC.json" in problems[0]


@pytest.mark.parametrize("name", ["chatterbox", "chatterbox-turbo"])
def test_english_engines_say_who_speaks_more(name: str, speaker: FakeSpeaker) -> None:
    """The way out stands in the sentence."""
    (problem,) = engine(name, speaker).problems(Voice(name=""), "fr", Synthesis())
    assert problem == (f"The engine {name} does not speak fr, only en; chatterbox-multilingual speaks 23.")


def test_a_checkpoint_without_a_voice_wants_a_recording(speaker: FakeSpeaker) -> None:
    """Told before anything is spoken; a job that names one is fine."""
    (speaker.folder / "conds.pt").unlink()
    english = engine("chatterbox", speaker)
    (problem,) = english.problems(Voice(name=""), "en", Synthesis())
    assert "conds.pt is missing" in problem
    clip = Voice(name="ann.wav", clip=Path("ann.wav"), clip_sha256="0" * 64)
    assert list(english.problems(clip, "en", Synthesis())) == []


def test_settings_out_of_the_models_range_are_told(speaker: FakeSpeaker) -> None:
    """Where the model has no use for a setting its value does not matter."""
    wild = Synthesis(cfg_weight=1.5)
    (problem,) = engine("chatterbox", speaker).problems(Voice(name=""), "en", wild)
    assert problem == "synthesis.cfg_weight is 1.5; the engine chatterbox takes 0 to 1."
    assert list(engine("chatterbox-turbo", speaker).problems(Voice(name=""), "en", wild)) == []


def test_turbo_ignores_what_the_model_ignores(speaker: FakeSpeaker) -> None:
    """The package warns of these where nobody sees it."""
    given = Synthesis(exaggeration=0.7, cfg_weight=0.3, min_p=0.1, temperature=0.5, pitch=40)
    assert list(engine("chatterbox-turbo", speaker).ignored(given)) == [
        "cfg_weight", "exaggeration", "min_p", "pitch",
    ]  # fmt: skip
    assert list(engine("chatterbox", speaker).ignored(given)) == ["pitch"]


def test_every_setting_is_handed_over(speaker: FakeSpeaker) -> None:
    """As it was asked, with seed and voice."""
    wanted = {"temperature": 0.6, "exaggeration": 0.7, "cfg_weight": 0.3, "min_p": 0.02, "top_p": 0.9}
    engine("chatterbox", speaker).speak(utterance(**wanted, repetition_penalty=1.4))
    (asked,) = speaker.asked
    assert asked.settings == wanted | {"repetition_penalty": 1.4}
    assert (asked.seed, asked.exaggeration, asked.clip) == (7, 0.7, None)


def test_no_guidance_is_asked_for_as_next_to_none(speaker: FakeSpeaker) -> None:
    """The English class fails without any."""
    engine("chatterbox", speaker).speak(utterance(cfg_weight=0))
    assert 0 < speaker.asked[0].settings["cfg_weight"] < 0.001


@pytest.mark.parametrize("name", sorted(MANNERS))
def test_the_ladder_begins_as_asked_and_grows_calmer(name: str, speaker: FakeSpeaker) -> None:
    """Tries 1 and 2 as asked; each later one at most as wild as the one before, for all 20."""
    asked = utterance(temperature=1.2, exaggeration=1.0, cfg_weight=0.3)
    tries = [engine(name, speaker).vary(asked, number).synthesis for number in range(1, 21)]
    assert tries[0] == tries[1] == asked.synthesis
    assert tries[2] != tries[1]
    assert all(later.temperature <= earlier.temperature for earlier, later in itertools.pairwise(tries))
    assert all(later.exaggeration <= earlier.exaggeration for earlier, later in itertools.pairwise(tries))
    assert all(later.cfg_weight >= earlier.cfg_weight for earlier, later in itertools.pairwise(tries))
    assert list(engine(name, speaker).problems(Voice(name=""), "en", tries[-1])) == []


def test_turbos_ladder_moves_only_what_turbo_heeds(speaker: FakeSpeaker) -> None:
    """The manifest should not tell of settings that did nothing."""
    tried = engine("chatterbox-turbo", speaker).vary(utterance(), 6).synthesis
    assert (tried.cfg_weight, tried.exaggeration) == (Synthesis().cfg_weight, Synthesis().exaggeration)
    assert tried.temperature < Synthesis().temperature


def test_the_ladder_never_grows_wilder_than_asked() -> None:
    """Who asks for less than the floor keeps it."""
    quiet = Synthesis(temperature=0.1, exaggeration=0.0, cfg_weight=1.0, top_p=0.3, repetition_penalty=2.0)
    assert calmer(quiet, 18, heeded=list(Synthesis.model_fields)) == quiet


def test_a_take_that_cannot_be_right_says_so(speaker: FakeSpeaker) -> None:
    """The booth then asks for another."""
    speaker.said = Said(TONE.samples, "the model was still speaking after 40 s, where it is cut off")
    assert engine("chatterbox", speaker).speak(utterance()).fault == speaker.said.fault


def test_chatterbox_issue_424_a_text_longer_than_the_model_can_speak_is_refused(speaker: FakeSpeaker) -> None:
    """The package would stop after 40 s in silence; no seed helps."""
    with pytest.raises(SynthesisError, match="801 characters") as caught:
        engine("chatterbox", speaker).speak(utterance("a" * 801))
    assert caught.value.code == "length_limit"
    assert speaker.asked == []


def test_chatterbox_issue_433_turbo_is_given_no_double_quotes(speaker: FakeSpeaker) -> None:
    """It sighs at them; apostrophes and tags stay."""
    engine("chatterbox-turbo", speaker).speak(utterance('“Don\'t,” she said, "[sigh] or do."'))
    assert speaker.asked[0].text == "Don't, she said, [sigh] or do."
    assert without_double_quotes("„Ja“ «oui»") == "Ja oui"


@pytest.mark.parametrize("text", ["", "  ", "...", "\u2014", '""', "[[[", "!?"])
def test_text_without_a_word_never_reaches_the_model(text: str, speaker: FakeSpeaker) -> None:
    """Given an empty text the package speaks a sentence of its own."""
    with pytest.raises(SynthesisError) as caught:
        engine("chatterbox", speaker).speak(utterance(text))
    assert caught.value.code == "no_speech"
    assert speaker.asked == []


def test_text_is_never_taken_for_a_sign() -> None:
    """[STOP] would end the text for the model; a lone surrogate ends its tokenizer."""
    assert (
        plain("Press [STOP] now, \ud800 or <|endoftext|> [START]") == "Press STOP now,   or endoftext START"
    )
    assert without_language_signs("[de]Guten [DE] Tag [cj_a] [laugh]") == "deGuten DE Tag cj_a [laugh]"


def test_closing_frees_the_model(speaker: FakeSpeaker) -> None:
    """Once for each time that it is asked."""
    engine("chatterbox", speaker).close()
    assert speaker.closed == 1
