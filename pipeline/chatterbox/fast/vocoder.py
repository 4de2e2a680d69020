"""Sound from mel spectrograms of unequal length at once: the package's HiFT with its weight norm folded in.

Every convolution's input is masked to its row's length, the sound source is mirrored at its row's end
before it is analysed, and the last transform adds up only the frames of its row. So a row sounds as it does
alone, to its last sample. All in fp32: the phase is a sum over the whole utterance. Knows mels and noise;
the watermark is put on later.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

SAMPLES_PER_FRAME = 480
"24,000 Hz over 50 frames a second"

Chances = Sequence[torch.Generator]


class Vocoder:
    """The vocoder of one S3Gen, whose weights are copied."""

    def __init__(self, s3gen: Any) -> None:
        hift = s3gen.mel2wav
        with torch.inference_mode():
            self._pitch = [
                _Conv(layer) for layer in hift.f0_predictor.condnet if hasattr(layer, "kernel_size")
            ]
            self._pitch_out = hift.f0_predictor.classifier
            self._source = hift.m_source
            self._before, self._after = _Conv(hift.conv_pre), _Conv(hift.conv_post)
            self._ups = [_Conv(layer) for layer in hift.ups]
            self._downs = [_Conv(layer) for layer in hift.source_downs]
            self._source_blocks = [_ResBlock(block) for block in hift.source_resblocks]
            self._blocks = [_ResBlock(block) for block in hift.resblocks]
            self._kernels = int(hift.num_kernels)
            self._slope, self._limit = float(hift.lrelu_slope), float(hift.audio_limit)
            self._size, self._hop = int(hift.istft_params["n_fft"]), int(hift.istft_params["hop_len"])
            self._rates = [layer.stride for layer in self._ups]
            self._device = hift.conv_pre.weight.device
            self._window = hift.stft_window.to(self._device)
            self._fade = s3gen.trim_fade.to(self._device)

    def waves(self, mels: Sequence[Tensor], chances: Chances) -> list[Tensor]:
        """(samples,) for each mel (80, frames), faded in as upstream does; `chances` go on after the flow."""
        with torch.inference_mode():
            lengths = [mel.shape[1] for mel in mels]
            padded = torch.nn.utils.rnn.pad_sequence([mel.t() for mel in mels], batch_first=True)
            mel = padded.transpose(1, 2).contiguous().to(self._device)
            masks = _Masks(lengths, self._device)
            source = self._excite(self._frequency(mel, masks), lengths, chances)
            out = self._decode(mel, self._analyse(source, lengths), masks)
            waves = [
                wave[: SAMPLES_PER_FRAME * length].clone() for wave, length in zip(out, lengths, strict=True)
            ]
            for wave in waves:
                wave[: len(self._fade)] *= self._fade[: len(wave)]
            return waves

    def _frequency(self, mel: Tensor, masks: "_Masks") -> Tensor:
        """Fundamental frequency in Hz, (rows, frames)."""
        for layer in self._pitch:
            mel = functional.elu(layer(masks.apply(mel, 1)))
        return self._pitch_out(mel.transpose(1, 2)).squeeze(-1).abs()

    def _excite(self, pitch: Tensor, lengths: Sequence[int], chances: Chances) -> Tensor:
        """The source (rows, samples): harmonics where there is a voice, noise where there is none."""
        generator = self._source.l_sin_gen
        harmonics = torch.arange(1, generator.harmonic_num + 2, device=pitch.device)[:, None]
        phases, noise = self._chance(len(harmonics), pitch, lengths, chances)
        pitch = pitch.repeat_interleave(SAMPLES_PER_FRAME, 1)[:, None]
        turns = torch.cumsum(pitch * harmonics / generator.sampling_rate, -1) % 1
        sines = generator.sine_amp * torch.sin(2 * math.pi * turns + phases)
        voiced = (pitch > generator.voiced_threshold).float()
        loudness = voiced * generator.noise_std + (1 - voiced) * generator.sine_amp / 3
        waves = sines * voiced + loudness * noise
        return torch.tanh(self._source.l_linear(waves.transpose(1, 2))).squeeze(-1)

    def _chance(
        self, harmonics: int, pitch: Tensor, lengths: Sequence[int], chances: Chances
    ) -> tuple[Tensor, Tensor]:
        """Phases and noise in upstream's order; it draws phases on the processor, wherever the model is."""
        size = (len(lengths), harmonics, SAMPLES_PER_FRAME * pitch.shape[1])
        phases, noise = torch.zeros(*size[:2], 1), torch.zeros(size, device=pitch.device)
        for row, (length, chance) in enumerate(zip(lengths, chances, strict=True)):
            on_cpu = chance.device.type == "cpu"
            for_phases = chance if on_cpu else torch.Generator().manual_seed(chance.initial_seed())
            drawn = torch.rand(1, harmonics, 1, generator=for_phases)
            phases[row] = -math.pi + drawn[0] * (2 * math.pi)
            here = (1, harmonics, SAMPLES_PER_FRAME * length)
            noise[row, :, : here[2]] = torch.randn(here, generator=chance, device=chance.device)[0]
        phases[:, 0] = 0
        return phases.to(pitch.device), noise

    def _analyse(self, source: Tensor, lengths: Sequence[int]) -> Tensor:
        """Spectrum of the source, real over imaginary, (rows, 18, frames); each row mirrored at its ends."""
        half = self._size // 2
        ends = torch.tensor(lengths, device=source.device)[:, None] * SAMPLES_PER_FRAME
        at = torch.arange(-half, source.shape[1] + half, device=source.device).abs()[None]
        at = torch.where(at < ends, at, 2 * ends - 2 - at).clamp(0, source.shape[1] - 1)
        mirrored = source.gather(1, at)
        spectrum = torch.stft(
            mirrored, self._size, self._hop, self._size, self._window, center=False, return_complex=True
        )
        return torch.cat((spectrum.real, spectrum.imag), dim=1)

    def _decode(self, mel: Tensor, source: Tensor, masks: "_Masks") -> Tensor:
        """Mel (rows, 80, frames) and the source's spectrum to sound (rows, samples)."""
        scale, extra = 1, 0
        source = masks.apply(source, math.prod(self._rates), 1)
        x = self._before(masks.apply(mel, 1))
        for stage, up in enumerate(self._ups):
            x = up(masks.apply(functional.leaky_relu(x, self._slope), scale, extra))
            scale *= up.stride
            if stage == len(self._ups) - 1:
                x, extra = functional.pad(x, (1, 0), mode="reflect"), 1
            mask = masks.of(scale, extra)
            x = x + self._source_blocks[stage](self._downs[stage](source), mask)
            blocks = self._blocks[stage * self._kernels : (stage + 1) * self._kernels]
            x = sum((block(x, mask) for block in blocks[1:]), blocks[0](x, mask)) / self._kernels
        x = self._after(masks.apply(functional.leaky_relu(x), scale, extra))
        return self._synthesise(x, masks.of(scale, extra))

    def _synthesise(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """The inverse transform, over the frames of each row and no others."""
        bins = self._size // 2 + 1
        magnitude, phase = torch.exp(x[:, :bins]).clip(max=1e2), torch.sin(x[:, bins:])
        spectrum = torch.complex(magnitude * torch.cos(phase), magnitude * torch.sin(phase))
        frames = torch.fft.irfft(spectrum, self._size, dim=1) * self._window[:, None]
        weights = (self._window**2)[None, :, None].expand_as(frames)
        if mask is not None:
            frames, weights = frames * mask, weights * mask
        total, weight = self._overlap(frames), self._overlap(weights)
        wave = total / torch.where(weight > 1e-11, weight, 1.0)
        return wave[:, self._size // 2 :].clamp(-self._limit, self._limit)

    def _overlap(self, frames: Tensor) -> Tensor:
        """Sum of overlapping frames (rows, size, frames), (rows, samples)."""
        samples = self._size + self._hop * (frames.shape[2] - 1)
        return functional.fold(frames, (1, samples), (1, self._size), stride=(1, self._hop)).flatten(1)


class _Masks:
    """Where each row is, at every rate; nothing where all rows are equally long."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self._all_equal = len(set(lengths)) == 1
        self._longest = max(lengths)
        self._ends = torch.tensor(lengths, device=device)[:, None, None]
        self._made: dict[tuple[int, int], Tensor] = {}

    def of(self, scale: int, extra: int = 0) -> Tensor | None:
        """(rows, 1, scale x longest + extra)."""
        if self._all_equal:
            return None
        if (scale, extra) not in self._made:
            at = torch.arange(scale * self._longest + extra, device=self._ends.device)
            self._made[scale, extra] = (at < scale * self._ends + extra).float()
        return self._made[scale, extra]

    def apply(self, x: Tensor, scale: int, extra: int = 0) -> Tensor:
        """`x` and silence behind each row's end."""
        mask = self.of(scale, extra)
        return x if mask is None else x * mask


class _Conv:
    """A convolution, or its transpose, with the norm of its weights folded in."""

    def __init__(self, module: Any) -> None:
        self._weight, self._bias = module.weight.detach().clone(), module.bias.detach()
        self._transposed = isinstance(module, torch.nn.ConvTranspose1d)
        self.stride = int(module.stride[0])
        self._padding, self._dilation = int(module.padding[0]), int(module.dilation[0])

    def __call__(self, x: Tensor) -> Tensor:
        if self._transposed:
            return functional.conv_transpose1d(x, self._weight, self._bias, self.stride, self._padding)
        return functional.conv1d(x, self._weight, self._bias, self.stride, self._padding, self._dilation)


class _ResBlock:
    """Pairs of dilated convolutions with Snake before each."""

    def __init__(self, module: Any) -> None:
        self._pairs = [
            (_snake(one), _Conv(first), _snake(other), _Conv(second))
            for one, first, other, second in zip(
                module.activations1, module.convs1, module.activations2, module.convs2, strict=True
            )
        ]

    def __call__(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for (a, a_inverse), first, (b, b_inverse), second in self._pairs:
            inner = first(_masked(x + a_inverse * torch.sin(x * a).square_(), mask))
            x = x + second(_masked(inner + b_inverse * torch.sin(inner * b).square_(), mask))
        return x


def _snake(module: Any) -> tuple[Tensor, Tensor]:
    """Frequency and its inverse, (channels, 1)."""
    alpha = module.alpha.detach()[:, None]
    return alpha, 1.0 / (alpha + module.no_div_by_zero)


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask
