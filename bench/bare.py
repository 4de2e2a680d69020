"""What `bench.fast` needs on a machine that has PyTorch and transformers and little else.

`make bench-carry` puts the packages that are pure Python into a folder that can be copied along. For the
rest there are stand-ins here, each for one thing: they are used only where the package itself is missing,
and the measurement says so.
"""

import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any


def prepare(carried: Path | None) -> list[str]:
    """Make everything importable; what had to be stood in for, one sentence each."""
    if carried is not None:
        sys.path.append(str(carried.resolve()))
    told = []
    for name, stand_in, what in _STAND_INS:
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = module = stand_in()
            module.__spec__ = importlib.machinery.ModuleSpec(name, None)  # others ask whether it is there
            told.append(f"{name} is missing: {what}")
    return told


def _librosa() -> Any:
    """Only what building and generating need, by torchaudio."""
    librosa: Any = types.ModuleType("librosa")
    librosa.__path__ = []

    def resample(y: Any, *, orig_sr: int, target_sr: int, **_: Any) -> Any:
        import torch
        from torchaudio.functional import resample as by_torch

        return by_torch(torch.from_numpy(y), orig_sr, target_sr, lowpass_filter_width=64).numpy()

    librosa.resample = resample
    filters: Any = types.ModuleType("librosa.filters")
    filters.mel = _mel_filters
    sys.modules["librosa.filters"] = librosa.filters = filters
    return librosa


def _mel_filters(*, sr: int, n_fft: int, n_mels: int, fmin: float = 0, fmax: float | None = None) -> Any:
    from torchaudio.functional import melscale_fbanks

    top = sr / 2 if fmax is None else fmax
    return melscale_fbanks(n_fft // 2 + 1, fmin, top, n_mels, sr, "slaney", "slaney").T.numpy()


def _scipy() -> Any:
    """The vocoder's window; the rest is imported and never called."""
    scipy: Any = types.ModuleType("scipy")
    scipy.__path__ = []
    for name in ("signal", "special", "interpolate"):
        module: Any = _Whatever(f"scipy.{name}")
        sys.modules[module.__name__] = module
        setattr(scipy, name, module)
    scipy.signal.get_window = _window
    return scipy


def _window(kind: str, length: int, fftbins: bool = True) -> Any:
    import torch

    assert kind == "hann", kind
    return torch.hann_window(length, periodic=fftbins, dtype=torch.float64).numpy()


class _Whatever(types.ModuleType):
    """Has everything, and whatever it has cannot be called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _nothing_of(f"{self.__name__}.{name}")


def _pkg_resources() -> Any:
    """The watermarker looks for its own files with it."""
    module: Any = types.ModuleType("pkg_resources")
    module.resource_filename = lambda package, path: str(
        Path(str(importlib.util.find_spec(package).origin)).parent / path  # type: ignore[union-attr]
    )
    return module


def _empty(name: str) -> Callable[[], Any]:
    return lambda: types.ModuleType(name)


def _nothing_of(name: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"{name} is only stood in for on this machine.")

    return refuse


_STAND_INS: tuple[tuple[str, Callable[[], Any], str], ...] = (
    ("librosa", _librosa, "the package's watermarker resamples with torchaudio"),
    ("scipy", _scipy, "the vocoder's window is torch's"),
    ("onnx", _empty("onnx"), "nothing of it is called"),
    ("imageio_ffmpeg", _empty("imageio_ffmpeg"), "nothing of it is called"),
    ("pkg_resources", _pkg_resources, "the watermarker's files are found without it"),
)
