"""Whisper's own normaliser of English, where its package is installed, and its tables read in peace."""

import contextlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator


def english_normaliser() -> Callable[[str], str]:
    """openai-whisper's; without that package words stay as they are."""
    if importlib.util.find_spec("whisper") is None:
        return str
    from whisper.normalizers import EnglishTextNormalizer

    with files_left_open():
        normaliser: Callable[[str], str] = EnglishTextNormalizer()
    return normaliser


@contextlib.contextmanager
def files_left_open() -> Iterator[None]:
    """The package leaves the files of its tables to the garbage collector, which complains."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
