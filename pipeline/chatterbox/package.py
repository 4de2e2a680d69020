"""The package chatterbox-tts itself: found, imported, kept quiet and kept off the network.

Knows the package's names and its habits; nothing of voices or of speaking. Invariants: whoever holds
`LOCK` is the only one who uses a model, since the package draws from global randomness; nothing that the
package prints reaches the daemon's output.
"""

import contextlib
import importlib
import importlib.metadata
import inspect
import io
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError

LOCK = threading.RLock()
"""Held for every use of a model. One for the whole process: randomness is global to torch."""
INSTALL_HINT = "Install what the engine needs: pip install -r requirements.txt"
SEGMENTER_FOLDER = "spacy_ontonotes"
"the Chinese segmenter's model, where it was brought along in the checkpoint's folder"


class _Nowhere(io.TextIOBase):
    """Swallows; unlike a closed file it may be kept by whoever found it as standard error."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)


_NOWHERE = _Nowhere()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Progress bars, prints and warnings of the package go nowhere meanwhile. Hold `LOCK`."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(_NOWHERE),
        contextlib.redirect_stderr(_NOWHERE),
    ):
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What of the package is used."""

    version: str
    watermark: str
    "`perth 1.0.1`: what marks everything that the models return"
    english: Any
    multilingual: Any
    turbo: Any
    converter: Any
    "the class of each model"

    @property
    def knows_nano(self) -> bool:
        """Whether Turbo's class loads the smaller model, too. Told by feature: the version does not say."""
        return "nano" in inspect.signature(self.turbo.from_local).parameters

    @property
    def knows_third_multilingual(self) -> bool:
        """Whether the multilingual class can be told which T3 to load."""
        return "t3_model" in inspect.signature(self.multilingual.from_local).parameters


def package() -> Package:
    """The package, imported; InputError (engine_unavailable) that says what to install."""
    with LOCK, quiet():
        _stay_off_the_network()
        try:
            import perth
            from chatterbox.mtl_tts import ChatterboxMultilingualTTS
            from chatterbox.tts import ChatterboxTTS
            from chatterbox.tts_turbo import ChatterboxTurboTTS
            from chatterbox.vc import ChatterboxVC
        except (ImportError, OSError) as error:  # torch names a missing library by OSError
            raise InputError(
                f"The package chatterbox-tts cannot be used here: {error}.",
                hint=INSTALL_HINT,
                code="engine_unavailable",
            ) from error
        _refuse_missing_watermarker(perth)
        _keep_tokenizer_local()
        return Package(
            version=importlib.metadata.version("chatterbox-tts"),
            watermark=f"perth {importlib.metadata.version('resemble-perth')}",
            english=ChatterboxTTS,
            multilingual=ChatterboxMultilingualTTS,
            turbo=ChatterboxTurboTTS,
            converter=ChatterboxVC,
        )


def _stay_off_the_network() -> None:
    """Read by the hub's client when it is first imported (resemble-ai/chatterbox issue 365)."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ.setdefault("TQDM_DISABLE", "1")


def _refuse_missing_watermarker(perth: Any) -> None:
    """Without setuptools' pkg_resources its class is None, and each model's constructor fails (issue 198)."""
    if getattr(perth, "PerthImplicitWatermarker", None) is None:
        raise InputError(
            "The watermarker (resemble-perth) cannot be loaded: it needs pkg_resources, which setuptools left"
            " out from version 81 on.",
            hint='Run: pip install "setuptools<81"',
            code="engine_unavailable",
        )


def _keep_tokenizer_local() -> None:
    """The multilingual tokenizer looks for two things on the network; both come from the folder.

    `Cangjie5_TC.json` it asks the hub for, naming the checkpoint's folder as cache; pkuseg fetches its model
    from GitHub, and no failure of that is caught.
    """
    from chatterbox.models.tokenizers import tokenizer

    tokenizer.hf_hub_download = _local_file
    tokenizer.ChineseCangjieConverter.__init__ = _init_converter


def _local_file(repo_id: str, filename: str, cache_dir: str | Path | None = None) -> str:  # noqa: ARG001
    return str(Path(cache_dir or ".") / filename)


def _init_converter(self: Any, model_dir: str | Path | None = None) -> None:
    """`ChineseCangjieConverter.__init__`, with the segmenter's model from `model_dir` or none."""
    self.word2cj = {}
    self.cj2word = {}
    self.segmenter = None
    self._load_cangjie_mapping(model_dir)
    folder = Path(model_dir or ".") / SEGMENTER_FOLDER
    if folder.is_dir():
        self.segmenter = importlib.import_module("spacy_pkuseg").pkuseg(str(folder))


def self_check(watermarker: Any) -> None:
    """A watermarker that changes nothing, or not the length that it should, is told when the model is loaded.

    Raises InputError (engine_unavailable).
    """
    import numpy as np

    at = np.arange(4800) / 24_000
    tone = (0.3 * np.sin(2 * np.pi * 220 * at)).astype(np.float32)
    marked = watermarker.apply_watermark(tone, sample_rate=24_000)
    if len(marked) != len(tone) or not np.isfinite(marked).all() or np.array_equal(marked, tone):
        raise InputError(
            "The watermarker (resemble-perth) does not mark what it is given.",
            hint=INSTALL_HINT,
            code="engine_unavailable",
        )
