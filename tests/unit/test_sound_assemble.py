"""Joining chunks: exact pauses, no clicks, no word eaten, every chunk at the place that is told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sound_samples import RATE_HZ, noise, rms_db, spoken, tone

from pipeline.sound.assemble import (
    FADE_SECONDS,
    KEPT_EDGE_SECONDS,
    KEPT_TAIL_SECONDS,
    SILENCE_BELOW_SPEECH_DB,
    Joiner,
    cut_tail,
    fade_edges,
    sounding,
    trim_edges,
)
from pipeline.sound.audio import Audio, silence

# Endings and onsets that are soft, breathy or end in a stop: what trimmers eat first.
WORDS = ("half", "off", "breath", "path", "his", "hah", "which", "fish", "stopped", "who", "thief", "hush")
KEPT = round(KEPT_EDGE_SECONDS * RATE_HZ)


def padded(audio: Audio, before_seconds: float, after_seconds: float, *, hiss_rms: float = 0.0) -> Audio:
    """`audio` with silence, or quiet hiss, around it."""
    edges = [silence(before_seconds, RATE_HZ).samples, audio.samples, silence(after_seconds, RATE_HZ).samples]
    samples = np.concatenate(edges)
    hiss = noise(len(samples) / RATE_HZ, rms=hiss_rms).samples[: len(samples)] if hiss_rms else np.float32(0)
    return Audio(samples + hiss, RATE_HZ)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("level", [1.0, 0.1, 0.001, 0.00001])
def test_no_word_is_eaten_at_any_level(word: str, level: float) -> None:
    """What trimming takes lies 45 dB under the word, and the word's energy is all still there."""
    speech = Audio(padded(spoken(word), 0.4, 0.7).samples * np.float32(level), RATE_HZ)
    start, end = sounding(speech)
    energy = np.square(speech.samples, dtype=np.float64)
    assert energy[max(0, start - KEPT) : end + KEPT].sum() > 0.9999 * energy.sum()
    for cut in (energy[: max(0, start - KEPT)], energy[end + KEPT :]):
        whole = cut[: len(cut) // 220 * 220].reshape(-1, 220).mean(axis=1)
        assert whole.max(initial=0.0) < energy.mean() * 10 ** (-SILENCE_BELOW_SPEECH_DB / 10)


@pytest.mark.parametrize("word", WORDS)
def test_silence_around_a_word_goes(word: str) -> None:
    """Of long silence at both ends only the kept edge stays, whatever the word begins and ends with."""
    bare = spoken(word)
    trimmed = trim_edges(padded(bare, 1.0, 1.5))
    assert trimmed.seconds < bare.seconds + 2 * KEPT_EDGE_SECONDS + 0.02


def test_trimming_is_the_same_at_every_level() -> None:
    """The threshold follows the chunk: a whispering job is cut where a loud one is."""
    speech = padded(spoken("half a breath"), 0.5, 0.5)
    spans = {sounding(Audio(speech.samples * np.float32(level), RATE_HZ)) for level in (1, 0.5, 0.01, 1e-4)}
    assert len(spans) == 1


def test_a_soft_word_after_a_loud_one_stays() -> None:
    """A last word 20 dB softer than the rest is speech, its f included."""
    soft = spoken("half").samples * np.float32(0.1)
    speech = padded(Audio(np.concatenate((spoken("Hello there").samples, soft)), RATE_HZ), 0.3, 0.5)
    _, end = sounding(speech)
    assert end > len(speech.samples) - round(0.5 * RATE_HZ) - round(0.09 * RATE_HZ)


def test_hiss_far_below_the_speech_is_silence() -> None:
    """A noise floor 50 dB under the speech is trimmed, one 30 dB under it is left alone."""
    speech = spoken("Hello there")
    level = 10 ** (rms_db(speech) / 20)
    quiet = padded(speech, 0.5, 0.5, hiss_rms=level * 0.003)
    loud = padded(speech, 0.5, 0.5, hiss_rms=level * 0.03)
    assert trim_edges(quiet).seconds < quiet.seconds - 0.8
    assert trim_edges(loud).seconds == loud.seconds


@pytest.mark.parametrize("audio", [silence(1.0, RATE_HZ), silence(0, RATE_HZ)], ids=["silence", "nothing"])
def test_pure_silence_stays_as_it_is(audio: Audio) -> None:
    """There is no word to find in it, and no error."""
    assert trim_edges(audio) is not None
    assert len(trim_edges(audio).samples) == len(audio.samples)


def test_trimming_changes_no_sample() -> None:
    """What stays is a piece of the original."""
    speech = padded(spoken("path"), 0.3, 0.3)
    start, end = sounding(speech)
    assert np.array_equal(trim_edges(speech).samples, speech.samples[max(0, start - KEPT) : end + KEPT])


@given(st.integers(min_value=0, max_value=2000), st.sampled_from([8_000, 22_050, 48_000]))
def test_fades_touch_only_the_edges(samples: int, rate_hz: int) -> None:
    """Both ends go to zero without a step; the middle is untouched; the input is never written to."""
    audio = Audio(np.ones(samples, np.float32), rate_hz)
    faded = fade_edges(audio).samples
    count = min(round(FADE_SECONDS * rate_hz), samples // 2)
    assert len(faded) == samples
    assert np.all(faded[count : samples - count] == 1)
    assert np.all(audio.samples == 1)
    if count > 10:
        assert faded[0] == faded[-1] == 0
        assert np.abs(np.diff(faded)).max() < 2 / count


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 3000)), max_size=8),
    st.sampled_from([0.5, 1.0, 1.25, 2.0]),
)
def test_pauses_and_places_are_exact(chunks: list[tuple[int, int]], speed: float) -> None:
    """Each chunk stands where it is told, to the sample, after exactly its pause; none follows the last."""
    joiner = Joiner(RATE_HZ, trim=False, speed=speed)
    stream, expected = [], 0
    pause = 0
    for number, (samples, pause_ms) in enumerate(chunks):
        placed = joiner.add(Audio(np.full(samples, 0.5, np.float32), RATE_HZ), pause_ms=pause_ms)
        stream.append(placed.audio.samples)
        expected += pause if number else 0
        assert placed.start_seconds == pytest.approx(expected / RATE_HZ / speed)
        assert np.all(placed.audio.samples[: pause if number else 0] == 0)
        expected += samples
        assert placed.end_seconds == pytest.approx(expected / RATE_HZ / speed)
        pause = len(silence(pause_ms / 1000, RATE_HZ).samples)  # half a sample may go either way
        assert pause == pytest.approx(pause_ms * RATE_HZ / 1000, abs=0.51)
    assert sum(map(len, stream)) == expected
    assert joiner.seconds == pytest.approx(expected / RATE_HZ / speed)


def test_spoken_chunks_are_found_where_they_are_told() -> None:
    """The finished stream holds each trimmed chunk at its place, with the asked silence before it."""
    joiner = Joiner(RATE_HZ)
    placed = [joiner.add(padded(spoken(word), 0.2, 0.4), pause_ms=300) for word in WORDS[:4]]
    stream = np.concatenate([stretch.audio.samples for stretch in placed])
    for word, before, after in zip(WORDS[1:], placed, placed[1:], strict=False):
        gap = stream[round(before.end_seconds * RATE_HZ) : round(after.start_seconds * RATE_HZ)]
        assert len(gap) == round(0.3 * RATE_HZ)
        assert not gap.any()
        chunk = stream[round(after.start_seconds * RATE_HZ) : round(after.end_seconds * RATE_HZ)]
        whole = np.square(spoken(word).samples, dtype=np.float64).sum()
        assert np.square(chunk, dtype=np.float64).sum() == pytest.approx(whole, rel=0.01)


def test_devnen_issue_75_no_click_at_a_join() -> None:
    """Chunks that end at full swing join without a step bigger than the sound's own."""
    joiner = Joiner(RATE_HZ, trim=False)
    part = tone(0.1003, hz=200, peak=0.5)
    stream = np.concatenate([joiner.add(part, pause_ms=0).audio.samples for _ in range(3)])
    assert np.abs(np.diff(stream)).max() <= np.abs(np.diff(part.samples)).max() * 1.05


def test_chunks_of_another_rate_are_refused() -> None:
    """Mixed rates are resolved by decoding, never by relabelling."""
    with pytest.raises(ValueError, match="22050"):
        Joiner(RATE_HZ).add(tone(0.1, rate_hz=8000), pause_ms=0)


# -- the tail --------------------------------------------------------------------------------------------


def test_chatterbox_issue_388_noise_after_the_last_word_goes() -> None:
    """As loud as the speech itself, so that no level tells; a rest is left, and it fades."""
    word = spoken("house")
    hissing = Audio(np.concatenate((word.samples, 0.3 * noise(2.0).samples)), RATE_HZ)
    cut = cut_tail(hissing, word.seconds)
    assert cut.seconds == pytest.approx(word.seconds + KEPT_TAIL_SECONDS, abs=0.001)
    assert (cut.samples[: len(word.samples)] == word.samples).all()
    assert abs(cut.samples[-1]) < 1e-6 < np.abs(cut.samples[-5000:-2000]).max()


@pytest.mark.parametrize("ends_seconds", [None, 0.9, 1.0, 1.5])
def test_where_little_follows_or_nothing_is_known_all_of_it_stays(ends_seconds: float | None) -> None:
    """A recogniser's times are not exact, and a last sound rings."""
    sound = tone(1.0)
    assert cut_tail(sound, ends_seconds) is sound


def test_a_tail_is_left_where_nothing_is_to_be_trimmed() -> None:
    """`audio: {trim: false}`."""
    sound = noise(2.0)
    kept = Joiner(RATE_HZ, trim=False).add(sound, pause_ms=0, speech_ends_seconds=0.5)
    cut = Joiner(RATE_HZ).add(sound, pause_ms=0, speech_ends_seconds=0.5)
    assert kept.audio.seconds == 2.0 and cut.end_seconds == pytest.approx(0.8, abs=0.01)


def test_voicebox_issue_1108_what_follows_a_long_pause_is_kept() -> None:
    """Three seconds of silence within the speech, then a sigh and another word: none of it is a tail."""
    words = [spoken("half a breath").samples, silence(3.0, RATE_HZ).samples, 0.02 * noise(0.5).samples]
    speech = Audio(np.concatenate([*words, spoken("and then").samples]), RATE_HZ)
    for ends_seconds in (None, speech.seconds):
        placed = Joiner(RATE_HZ).add(speech, pause_ms=0, speech_ends_seconds=ends_seconds)
        assert placed.end_seconds > speech.seconds - 0.2
