"""Jobs and drops: what is frozen comes back exactly as it was."""

import os
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_samples import a_drop, a_job

from pipeline.jobs.job import JobSpec, JobState, Part, VoiceChoice, new_id, spec_from_json, spec_to_json
from pipeline.jobs.settings import Settings

words = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
file_names = st.binary(min_size=1).map(os.fsdecode)
some = {"min_size": 1, "max_size": 100}
plain = st.text(alphabet=st.characters(exclude_categories=["Cs"]), **some)
settings = st.builds(
    Settings,
    voice=st.none() | plain,
    seed=st.integers(0, 2**32 - 1),
    priority=st.sampled_from(["high", "normal", "low"]),
    output=st.fixed_dictionaries(
        {"formats": st.lists(st.sampled_from(["wav", "mp3", "flac", "opus", "m4a", "m4b"]), min_size=1)}
    ),
    text_rules=st.fixed_dictionaries(
        {"replace": st.lists(st.fixed_dictionaries({"from": plain, "to": plain}), max_size=3)}
    ),
    audio=st.fixed_dictionaries(
        {"speed": st.floats(0.5, 2.0), "loudness_lufs": st.none() | st.floats(-50, -5)}
    ),
    check=st.fixed_dictionaries({"max_word_error_rate": st.none() | st.floats(0, 1)}),
)
specs = st.builds(
    JobSpec,
    kind=st.sampled_from(["tts", "vc", "concat"]),
    settings=settings,
    voice=st.builds(VoiceChoice, name=words, clip=st.none() | file_names, clip_sha256=st.none() | words),
    text=st.none() | words,
    file=st.none() | file_names,
    parts=st.lists(
        st.builds(Part, file=st.none() | file_names, silence_ms=st.none() | st.integers(0, 10**6))
    ).map(tuple),
    crossfade_ms=st.integers(0, 10_000),
    level=st.booleans(),
    synthesis_set=st.lists(words).map(tuple),
    warnings=st.lists(words).map(tuple),
)


@given(specs)
def test_a_spec_comes_back_as_it_went_in(spec: JobSpec) -> None:
    """Through JSON and back, with undecodable file names and every kind of setting."""
    assert spec_from_json(spec_to_json(spec)) == spec


@given(specs)
def test_a_spec_is_plain_ascii_in_the_ledger(spec: JobSpec) -> None:
    """No lone surrogate reaches SQLite, which would refuse it."""
    assert spec_to_json(spec).isascii()


def test_a_setting_that_no_longer_exists_is_not_overlooked() -> None:
    """A ledger of another version fails aloud instead of dropping a setting."""
    text = spec_to_json(a_job().spec).replace('"seed"', '"seeed"')
    with pytest.raises(ValueError, match="seeed"):
        spec_from_json(text)


def test_ids_sort_by_time_and_read_as_a_date() -> None:
    """The ninth of November comes before the tenth, and two of one second differ."""
    early, late = new_id(1_794_182_400.0), new_id(1_794_268_800.0)
    assert early < late
    assert early.startswith("20261109-000000-")
    assert new_id(1.0) != new_id(1.0)


def test_ended_states_are_three() -> None:
    """Queued and running jobs have something before them."""
    assert {state for state in JobState if state.ended} == {
        JobState.DONE,
        JobState.FAILED,
        JobState.CANCELLED,
    }


def test_a_drop_knows_its_folder_and_name() -> None:
    """Both are relative to the inbox."""
    drop = a_drop(relative="books/one/story.txt")
    assert (drop.folder, drop.name) == (PurePosixPath("books/one"), "story.txt")
    assert a_drop(relative="story.txt").folder == PurePosixPath(".")


def test_a_log_line_names_job_and_source() -> None:
    """And nothing else of the job, least of all its text."""
    assert a_job().log_context() == {"job_id": "d1-0", "source": "story.txt"}
