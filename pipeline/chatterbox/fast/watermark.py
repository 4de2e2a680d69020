"""The package's watermark (Perth), put on where the sound was made.

The package resamples on the processor, runs the network there, and so holds up a GPU by itself. Here the
network's own modules run on the device, and resampling is torchaudio's with the filter that it calls
kaiser_best. The samples differ from the package's by what the resamplers differ; the mark is the same
network's, and is found as surely (`tests/models/test_fast_watermark.py`).
"""

import copy
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_FILTER: dict[str, Any] = {
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}
"of torchaudio's tutorial on resampling, as librosa's kaiser_best"


class OnDevice:
    """In the place of a `PerthImplicitWatermarker`, and called like one."""

    def __init__(self, network: Any, device: str) -> None:
        self._network = copy.deepcopy(network).to(device).eval()
        self._device = device

    @classmethod
    def of(cls, watermarker: Any, device: str) -> Self | None:
        """One with the same network; None for a watermarker that has none."""
        network = getattr(watermarker, "perth_net", None)
        return None if network is None else cls(network, device)

    def apply_watermark(self, wav: npt.NDArray[np.float32], sample_rate: int, **_: Any) -> Any:
        """(samples,) marked, float32."""
        with torch.inference_mode():
            rate = int(self._network.hp.sample_rate)
            signal = _resampled(torch.from_numpy(wav).float().to(self._device), sample_rate, rate)
            magnitude, phase = self._network.ap.signal_to_magphase(signal)
            marked, _mask = self._network.encoder(magnitude[None])
            signal = self._network.ap.magphase_to_signal(marked[0], phase)
            return _resampled(signal, rate, sample_rate).cpu().numpy()


def _resampled(signal: Tensor, before: int, after: int) -> Tensor:
    from torchaudio.functional import resample

    return signal if before == after else resample(signal, before, after, **_FILTER)
