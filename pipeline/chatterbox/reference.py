"""A reference clip as the models want it: mono, 24 kHz, a few seconds of one person speaking.

Knows recordings and what is wrong with them; nothing of models. Invariant: what it returns is audible,
long enough, and a whole number of the 40 ms that one speech token lasts.
"""

import io
from pathlib import Path

from pipeline.errors import InputError
from pipeline.files import display
from pipeline.sound.audio import Audio
from pipeline.sound.decode import decode
from pipeline.sound.level import level_dbfs

RATE_HZ = 24_000
MAX_SECONDS = 30.0
"the speaker encoder would listen to more, and only take longer"
TOKEN_SAMPLES = RATE_HZ // 25
LEAST_LEVEL_DBFS = -55.0
ADVICE = "Use 5 to 30 s of one person speaking, clean and without music or echo."


def read(clip: Path, least_seconds: float) -> Audio:
    """Decode and check a clip; InputError (reference_short, reference_silent, audio_...) with advice."""
    audio = decode(clip, RATE_HZ, max_seconds=MAX_SECONDS)
    try:
        return checked(audio, least_seconds)
    except InputError as error:
        # A person has several files; the job's own name is put before this.
        named = f"{display(clip.name)}: {error.message}"
        raise InputError(named, hint=error.hint, code=error.code) from error


def checked(audio: Audio, least_seconds: float) -> Audio:
    """The clip, cut to whole tokens; InputError where a model could learn no voice from it."""
    if audio.seconds < least_seconds:
        raise InputError(
            f"The voice clip lasts {audio.seconds:.1f} s; it takes {least_seconds:g} s or more.",
            hint=ADVICE,
            code="reference_short",
        )
    level = level_dbfs(audio.samples)
    if level < LEAST_LEVEL_DBFS:
        raise InputError(
            f"The voice clip is silent, or nearly so ({level:.0f} dBFS).",
            hint=ADVICE,
            code="reference_silent",
        )
    # Left uneven, the package cuts tokens and spectrogram to different lengths, and warns.
    whole = len(audio.samples) - len(audio.samples) % TOKEN_SAMPLES
    return Audio(audio.samples[:whole], audio.rate_hz)


def as_wav(audio: Audio) -> io.BytesIO:
    """The clip as a file in memory, which the package opens like one on disk."""
    import soundfile

    stream = io.BytesIO()
    soundfile.write(stream, audio.samples, audio.rate_hz, format="WAV", subtype="FLOAT")
    stream.seek(0)
    return stream
