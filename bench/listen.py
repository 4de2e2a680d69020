"""Listen to recordings with a recogniser that has not been told what to expect.

`python -m bench.listen recording.wav converted.mp3 ...` prints what pocketsphinx's general English model
hears in each, and how far that is from what it hears in the first: words that a conversion lost. It is not
the check inside the loop, which knows the text; on espeak's own voice it is wrong in two words of three.
"""

import sys
from pathlib import Path

import pocketsphinx

from pipeline.sound.audio import to_pcm16
from pipeline.sound.decode import decode
from pipeline.text.spoken import spoken_words
from pipeline.verify import differences

RATE_HZ = 16_000


def main(paths: list[str]) -> None:
    """Print what is heard in each file."""
    first: list[str] | None = None
    for path in paths:
        heard = listen(Path(path))
        first = heard if first is None else first
        errors = sum(edit.errors for edit in differences(first, heard))
        print(f"{path}: {' '.join(heard)}")
        print(f"  {errors} of {len(first)} words other than in the first")


def listen(path: Path) -> list[str]:
    """The words that are heard."""
    decoder = pocketsphinx.Decoder(samprate=RATE_HZ, loglevel="FATAL")
    decoder.start_utt()
    decoder.process_raw(to_pcm16(decode(path, RATE_HZ)).tobytes(), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return spoken_words(hypothesis.hypstr if hypothesis else "", "en")


if __name__ == "__main__":
    main(sys.argv[1:])
