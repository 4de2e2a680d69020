"""How an English word may sound, in the phones of the recogniser's model (ARPAbet).

From the CMU dictionary that comes with pocketsphinx, and from espeak-ng, which knows how to say any
word: names and rare words get a pronunciation, and common ones get a second that matches how the
embedded engine says them. Knows words, not sentences. Invariant: only phones that the model has.
"""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

from pocketsphinx import get_model_path

from pipeline.sound import espeak_library

ESPEAK_VOICE = "gmw/en-US"

# IPA as espeak-ng's American voice writes it, the longest sign first; signs of other languages
# that names bring along go to the nearest English phone.
_ARPABET = {
    "tʃ": "CH", "dʒ": "JH", "oʊ": "OW", "aɪ": "AY", "aʊ": "AW", "eɪ": "EY", "ɔɪ": "OY",
    "ɜː": "ER", "ɑː": "AA", "ɔː": "AO", "iː": "IY", "uː": "UW", "n̩": "AH N", "l̩": "AH L",
    "ɪ": "IH", "ᵻ": "IH", "i": "IY", "ɛ": "EH", "e": "EH", "æ": "AE", "a": "AA", "ɑ": "AA", "ɔ": "AO",
    "o": "OW", "ʊ": "UH", "u": "UW", "ʌ": "AH", "ə": "AH", "ɐ": "AH", "ɚ": "ER", "ɜ": "ER",
    "p": "P", "b": "B", "t": "T", "d": "D", "k": "K", "g": "G", "ɡ": "G", "f": "F", "v": "V",
    "θ": "TH", "ð": "DH", "s": "S", "z": "Z", "ʃ": "SH", "ʒ": "ZH", "h": "HH", "m": "M", "n": "N",
    "ŋ": "NG", "l": "L", "ɫ": "L", "ɹ": "R", "r": "R", "j": "Y", "w": "W", "ɾ": "T", "ʔ": "T",
    "x": "K", "ç": "HH", "y": "UW", "ø": "ER", "œ": "ER", "ɲ": "N Y", "ʎ": "L Y", "ʁ": "R", "ʀ": "R",
    "c": "K", "ɬ": "L", "ɣ": "G", "β": "V", "ɒ": "AA",
}  # fmt: skip


class Pronunciations:
    """Looks words up; remembers what espeak-ng said of those it has met."""

    def __init__(self) -> None:
        self._dictionary = _cmu_dictionary()
        self._from_espeak: dict[str, str] = {}

    def of(self, words: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
        """The pronunciations of each distinct word as space-separated phones; () if it has no sound."""
        distinct = sorted(set(words))
        self._ask_espeak([word for word in distinct if word not in self._from_espeak])
        return {word: self._known(word) for word in distinct}

    def _known(self, word: str) -> tuple[str, ...]:
        spoken = self._from_espeak[word]
        return tuple(dict.fromkeys([*self._dictionary.get(word, ()), *([spoken] if spoken else [])]))

    def _ask_espeak(self, words: list[str]) -> None:
        if words:
            heard = espeak_library.phonemes(words, ESPEAK_VOICE)
            self._from_espeak.update((word, arpabet(ipa)) for word, ipa in zip(words, heard, strict=True))


def arpabet(ipa: str) -> str:
    """IPA to space-separated ARPAbet; stress, length and signs without an English phone are left out."""
    phones = []
    at = 0
    while at < len(ipa):
        sign = ipa[at : at + 2] if ipa[at : at + 2] in _ARPABET else ipa[at]
        phones.append(_ARPABET.get(sign, ""))
        at += len(sign)
    return " ".join(phone for phone in phones if phone)


@functools.cache
def _cmu_dictionary() -> Mapping[str, tuple[str, ...]]:
    """The dictionary in the pocketsphinx package: `word phones`, `word(2) phones` for another way."""
    entries: dict[str, tuple[str, ...]] = {}
    with Path(get_model_path("en-us/cmudict-en-us.dict")).open(encoding="utf-8") as lines:
        for line in lines:
            head, _, phones = line.strip().partition(" ")
            word = head.partition("(")[0]
            entries[word] = (*entries.get(word, ()), phones)
    return entries
