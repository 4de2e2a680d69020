"""Train a small Whisper on the embedded engine's speech, so that tests can listen for real.

`python -m bench.train_whisper --minutes 60 --work DIR` speaks a closed vocabulary with espeak, trains a
model of Whisper's own architecture on it, prints how it hears held-out sentences as it goes, and writes
`DIR/whisper-closed.pt`, a checkpoint as openai-whisper publishes them, packed as `tests/models/data/`
has it. `--export DIR` packs the latest state of DIR and does nothing else.

Sentences are random sequences of words, so that the decoder cannot guess: no held-out sentence is ever
spoken in training, only its words. What makes it converge in minutes: short clips first; the word times
that espeak reports, which teach the encoder what word is where and the cross-attention where to look;
and a vocabulary of the tokens in use alone, put back among Whisper's 51,865 on the way out.
"""

import argparse
import lzma
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from whisper.audio import HOP_LENGTH, N_FFT, SAMPLE_RATE, mel_filters
from whisper.model import ModelDimensions, Whisper
from whisper.tokenizer import Tokenizer, get_tokenizer

from pipeline.engines.base import Utterance, Voice
from pipeline.engines.espeak import EspeakEngine
from pipeline.jobs.settings import Synthesis
from pipeline.sound.audio import Samples
from pipeline.sound.resample import resample

PACKED = Path(__file__).parent.parent / "tests" / "models" / "data" / "whisper-closed.pt.xz"

HELD_OUT = (
    "The fire burned brightly and the soft light caught the bubbles that flashed in our glasses",
    "My breath came with pain and I am not a young man any more as everybody knows",
    "In eighteen ninety five doctor Smith paid three dollars and fifty cents for twelve eggs",
    "The old man came home and the lamp burned in the window",
    "She read the letter twice and then she opened the door",
    "We saw the river and the bridge under the morning light",
    "Nobody knows the story of the young doctor",
    "He paid two hundred dollars for the small house",
    "The rain came in the night and the garden is green",
    "I read one chapter every morning",
    "Our time machine is not in the garden any more",
    "Open the door and read the letter",
    "Seven birds came over the water",
    "The captain opened a window and saw the sea",
    "You and I saw the young man with the lamp",
    "Hello doctor the story is good",
)
MORE_WORDS = (
    "yes no go stay hello there goodbye one seven chapter stop please red blue black white four six nine "
    "ten thirty thousand great was it on you"
)
_SMALL_WORDS_TEXT = "the a and in is not of with i it at on am for was"
SMALL_WORDS = frozenset(_SMALL_WORDS_TEXT.split())
"said often, for they are short and slurred, and hard to hear"
RATES, PITCHES = (130, 170), (42, 58)
"words a minute and pitch of the engine's default voice, around what tests use and its later tries"
FLOOR = -10.0
"log10 power of digital silence, as Whisper's front end clips it"
WINDOW_FRAMES = 3000


@dataclass(frozen=True, slots=True)
class Recording:
    """One utterance of espeak, before the window's own normalisation."""

    mel: torch.Tensor
    "log10 power, shape (80, frames), float16"
    words: tuple[tuple[str, int, int], ...]
    "(word, first frame, frame after its end)"


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step learns from; frames are mel frames of 10 ms, positions the encoder's of 20 ms."""

    mel: torch.Tensor
    "(batch, 80, frames)"
    tokens: torch.Tensor
    "(batch, length), small ids"
    targets: torch.Tensor
    "(batch, length), small ids, -100 where nothing is to be learned"
    ahead: torch.Tensor
    "(batch, length, positions), 1 where the word sounds that comes next; all 0 where there is none"
    behind: torch.Tensor
    "the same for the word that was just given"
    words: torch.Tensor
    "(batch, positions), index of the word that sounds there, 0 for none"


class Vocabulary:
    """The tokens in use, numbered small; id 0 stands for all the others together."""

    def __init__(self) -> None:
        self.tokenizer: Tokenizer = get_tokenizer(True, num_languages=99, language="en", task="transcribe")
        self.prompt = [*self.tokenizer.sot_sequence, self.tokenizer.no_timestamps]
        "what the decoder is given before the first word: start, language, task, no timestamps"
        self.words = sorted({w for line in HELD_OUT for w in line.lower().split()} | set(MORE_WORDS.split()))
        self.word_ids = {word: at + 1 for at, word in enumerate(self.words)}
        used = {self.tokenizer.eot, self.tokenizer.no_speech, *self.prompt}
        used |= {token for word in self.words for token in self.of_word(word)}
        self.used = sorted(used)
        self.small = {token: at + 1 for at, token in enumerate(self.used)}
        self.unused = n_vocab(self.tokenizer) - len(self.used)

    def __len__(self) -> int:
        return len(self.used) + 1

    def of_word(self, word: str) -> list[int]:
        """Whisper's own tokens of a word with the space before it."""
        return list(self.tokenizer.encode(" " + word))


def n_vocab(tokenizer: Tokenizer) -> int:
    """51,865: the size of the multilingual models."""
    return int(tokenizer.encoding.n_vocab)


# ------------------------------------------------------------------------------------------- the speech


def log_power(samples: Samples) -> torch.Tensor:
    """log10 mel power of 16 kHz samples, before Whisper normalises it by the window's maximum."""
    wave = torch.from_numpy(np.ascontiguousarray(samples))
    spectrum = torch.stft(wave, N_FFT, HOP_LENGTH, window=torch.hann_window(N_FFT), return_complex=True)
    power = mel_filters("cpu", 80) @ (spectrum[..., :-1].abs() ** 2)
    return torch.clamp(power, min=10**FLOOR).log10()


def speak(engine: EspeakEngine, text: str, rate: int = 150, pitch: int = 50) -> Recording:
    """One utterance with its words' frames."""
    synthesis = Synthesis(words_per_minute=rate, pitch=pitch)
    speech = engine.speak(
        Utterance(text=text, voice=Voice(name=""), language="en", synthesis=synthesis, seed=1)
    )
    mel = log_power(resample(speech.audio, SAMPLE_RATE).samples).half()
    words = tuple(
        (
            word.text.lower(),
            int(100 * word.start_seconds),
            min(mel.shape[1], math.ceil(100 * word.end_seconds)),
        )
        for word in speech.words or ()
    )
    return Recording(mel, words)


def recordings(vocabulary: Vocabulary, count: int, chance: random.Random) -> list[Recording]:
    """Every word alone in several manners, and `count` random sentences."""
    engine = EspeakEngine()
    texts = [word + mark for word in vocabulary.words for mark in (".", "?", ",")]
    weights = [5 if word in SMALL_WORDS else 1 for word in vocabulary.words]
    for _ in range(count):
        words = chance.choices(vocabulary.words, weights, k=chance.randint(4, 20))
        marked = [w + (chance.choice((",", ",", ";", ".")) if chance.random() < 0.08 else "") for w in words]
        texts.append(" ".join(marked) + chance.choice("..?!"))
    made = [speak(engine, text, chance.randint(*RATES), chance.randint(*PITCHES)) for text in texts]
    kept = [one for one in made if all(word in vocabulary.word_ids for word, _, _ in one.words)]
    print(f"{len(kept)} of {len(made)} recordings, {sum(r.mel.shape[1] for r in kept) / 6000:.0f} minutes")
    return kept


class Stage:
    """Examples of a given length, cut from recordings at word borders and put together anew."""

    def __init__(self, bank: Sequence[Recording], vocabulary: Vocabulary, chance: random.Random) -> None:
        self._vocabulary, self._chance = vocabulary, chance
        self._bank = [one for one in bank if one.words]

    def batch(self, size: int, words: tuple[int, int], spare_frames: int, *, whole_window: bool) -> Batch:
        """`size` examples of about as many words, up to `spare_frames` of silence after them, or 30 s."""
        about = self._chance.randint(*words)
        examples = [self._example(max(1, about - self._chance.randint(0, about // 4))) for _ in range(size)]
        longest = max(mel.shape[1] for mel, _ in examples)
        frames = WINDOW_FRAMES if whole_window else longest + self._chance.randint(0, spare_frames)
        frames = min(WINDOW_FRAMES, frames + frames % 2)
        return self._stacked(examples, frames)

    def _example(self, words: int) -> tuple[torch.Tensor, list[tuple[str, int, int]]]:
        """Sound and its words, in one piece from one recording if that is long enough, else in several."""
        chance = self._chance
        if chance.random() < 0.04:
            return self._nothing(), []
        pieces = [torch.full((80, chance.randint(0, 30)), FLOOR)]
        placed: list[tuple[str, int, int]] = []
        at = pieces[0].shape[1]
        while len(placed) < words:
            recording = chance.choice(self._bank)
            if len(recording.words) < words - len(placed) and chance.random() < 0.8:
                continue
            count = min(len(recording.words), words - len(placed))
            first = chance.randint(0, len(recording.words) - count)
            piece, said = _cut(recording, first, first + count)
            gap = torch.full((80, chance.choice((0, 0, 2, 5, 10, 30))), FLOOR)
            pieces += [piece, gap]
            placed += [(word, at + start, at + end) for word, start, end in said]
            at += piece.shape[1] + gap.shape[1]
        return self._in_a_room(torch.cat(pieces, dim=1)), placed

    def _nothing(self) -> torch.Tensor:
        """No speech: silence, or a hum."""
        frames = self._chance.randint(20, 300)
        mel = torch.full((80, frames), FLOOR)
        if self._chance.random() < 0.3:
            band = self._chance.randint(0, 60)
            mel[band : band + 3] = 1.5
        return self._in_a_room(mel)

    def _in_a_room(self, mel: torch.Tensor) -> torch.Tensor:
        """Louder or softer, with a noise floor now and then, with a band lost now and then."""
        chance = self._chance
        mel = mel + chance.uniform(-2.6, 0.2)
        if chance.random() < 0.3:
            grain = torch.empty_like(mel).exponential_().clamp_(min=1e-3).log10()
            mel = torch.logaddexp(
                mel * math.log(10), (grain + chance.uniform(-9, -3)) * math.log(10)
            ) / math.log(10)
        if chance.random() < 0.1:
            first = chance.randint(0, 72)
            mel[first : first + chance.randint(1, 8)] = FLOOR
        return mel.clamp_(min=FLOOR)

    def _stacked(
        self, examples: Sequence[tuple[torch.Tensor, list[tuple[str, int, int]]]], frames: int
    ) -> Batch:
        vocabulary = self._vocabulary
        rows = [self._tokens(words) for _, words in examples]
        length = max(len(tokens) for tokens, _, _ in rows)
        count, positions = len(rows), frames // 2
        mels = torch.full((count, 80, frames), FLOOR)
        tokens = torch.full((count, length), vocabulary.small[vocabulary.tokenizer.eot])
        targets = torch.full((count, length), -100)
        ahead, behind = torch.zeros(2, count, length, positions)
        heard = torch.zeros(count, positions, dtype=torch.long)
        for row, ((mel, words), (ids, wanted, spans)) in enumerate(zip(examples, rows, strict=True)):
            mels[row, :, : mel.shape[1]] = mel[:, :frames]
            tokens[row, : len(ids)] = torch.tensor(ids)
            targets[row, : len(wanted)] = torch.tensor(wanted)
            for at, (start, end) in spans.items():
                ahead[row, at, start // 2 : (end + 1) // 2 if end >= 0 else positions] = 1
                if at + 1 < len(ids):
                    behind[row, at + 1, start // 2 : (end + 1) // 2] = 1
            for word, start, end in words:
                heard[row, start // 2 : (end + 1) // 2] = vocabulary.word_ids[word]
        mels = torch.maximum(mels, mels.amax(dim=(1, 2), keepdim=True) - 8)
        return Batch((mels + 4) / 4, tokens, targets, ahead, behind, heard)

    def _tokens(
        self, words: Sequence[tuple[str, int, int]]
    ) -> tuple[list[int], list[int], dict[int, tuple[int, int]]]:
        """Decoder input, right answers, and where each answer's query should look (end -1: to the end)."""
        vocabulary = self._vocabulary
        tokenizer = vocabulary.tokenizer
        ids, spans = list(vocabulary.prompt), {}
        for word, start, end in words:
            for token in vocabulary.of_word(word):
                spans[len(ids) - 1] = (start, end)
                ids.append(token)
        if words:
            spans[len(ids) - 1] = (words[-1][2], -1)
        answers = [*ids[1:], tokenizer.eot]
        if not words:
            answers[0] = tokenizer.no_speech
        return [vocabulary.small[i] for i in ids], [vocabulary.small[i] for i in answers], spans


def _cut(recording: Recording, first: int, end: int) -> tuple[torch.Tensor, list[tuple[str, int, int]]]:
    """Words `first` to `end` of a recording, at the speaker's own borders."""
    words = recording.words[first:end]
    start = words[0][1]
    stop = recording.words[end][1] if end < len(recording.words) else words[-1][2] + 2
    stop = max(start + 4, min(stop, recording.mel.shape[1]))
    return recording.mel[:, start:stop].float(), [(w, s - start, min(e, stop) - start) for w, s, e in words]


# -------------------------------------------------------------------------------------------- the model


def small_model(vocabulary: Vocabulary, width: int, layers: tuple[int, int]) -> Whisper:
    """Whisper with the small vocabulary."""
    model = Whisper(
        ModelDimensions(
            n_mels=80, n_audio_ctx=WINDOW_FRAMES // 2, n_audio_state=width, n_audio_head=width // 32,
            n_audio_layer=layers[0], n_vocab=len(vocabulary), n_text_ctx=128, n_text_state=width,
            n_text_head=width // 32, n_text_layer=layers[1],
        )
    )  # fmt: skip
    torch.nn.init.normal_(model.decoder.positional_embedding, std=0.02)
    torch.nn.init.normal_(model.decoder.token_embedding.weight, std=width**-0.5)
    return model


def encode(model: Whisper, mel: torch.Tensor) -> torch.Tensor:
    """The encoder on fewer than 1500 positions; these are sinusoids, so a shorter table is the same."""
    encoder = model.encoder
    x = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(mel)))).permute(0, 2, 1)
    x = x + encoder.positional_embedding[: x.shape[1]]
    for block in encoder.blocks:
        x = block(x)
    return encoder.ln_post(x)


class Gaze:
    """Where a decoder layer looks: log attention (batch, heads, length, positions), with gradient."""

    def __init__(self, model: Whisper, layer: int) -> None:
        attention = model.decoder.blocks[layer].cross_attn
        self._heads = attention.n_head
        self._seen: dict[str, torch.Tensor] = {}
        for name in ("query", "key"):
            getattr(attention, name).register_forward_hook(
                lambda _module, _inputs, output, name=name: self._seen.__setitem__(name, output)
            )

    def log_attention(self) -> torch.Tensor:
        """Of the latest forward pass."""
        query, key = (
            self._seen[name].unflatten(-1, (self._heads, -1)).transpose(1, 2) for name in ("query", "key")
        )
        return (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).log_softmax(-1)

    def beside(self, wanted: torch.Tensor, heads: int) -> torch.Tensor:
        """How far the first `heads` heads look elsewhere: mean of -log(attention on the wanted places)."""
        guided = wanted.sum(-1) > 0
        if not guided.any():
            return wanted.sum()
        there = (self.log_attention()[:, :heads] + (wanted[:, None] + 1e-6).log()).logsumexp(-1)
        return -there.mean(1)[guided].mean()


def losses(
    model: Whisper, head: torch.nn.Linear, gazes: Sequence[Gaze], batch: Batch, unused: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cross entropy of the tokens; attention beside the words; cross entropy of each position's word."""
    features = encode(model, batch.mel)
    logits = model.decoder(batch.tokens, features)
    # Row 0 is copied to each unused token in the end, so it counts as often.
    logits = torch.cat([logits[..., :1] + math.log(unused), logits[..., 1:]], dim=-1)
    spoken = functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=-100)
    # The first layer finds the word just given, from where it knows its place; the last one the next word.
    heads = model.dims.n_text_head
    away = gazes[0].beside(batch.behind, heads // 2) + gazes[1].beside(batch.ahead, heads)
    named = functional.cross_entropy(head(features).flatten(0, 1), batch.words.flatten(), reduction="none")
    weights = torch.where(batch.words.flatten() > 0, 1.0, 0.2)
    return spoken, away, (named * weights).sum() / weights.sum()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is learned from `begin` (part of the time) on."""

    begin: float
    words: tuple[int, int]
    size: int
    spare_frames: int
    whole_window: bool = False


PLANS = (
    Plan(0.0, (1, 2), 32, 20),
    Plan(0.20, (1, 5), 16, 40),
    Plan(0.32, (1, 10), 12, 60),
    Plan(0.55, (1, 20), 8, 150),
    Plan(0.86, (1, 20), 4, 0, whole_window=True),
)


def rate_at(part: float, peak: float) -> float:
    """Learning rate: warm-up over the first hundredth, then half a cosine."""
    return peak * min(1.0, part / 0.01 + 0.01) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, part)))


def train(
    work: Path, minutes: float, begin: float, peak: float, width: int, layers: tuple[int, int], count: int
) -> None:  # fmt: skip
    """Learn for `minutes` and leave the state in `work` every minute; go on from it if `begin` is over 0."""
    chance = random.Random(1)
    torch.manual_seed(1)
    vocabulary = Vocabulary()
    print(f"{len(vocabulary.word_ids)} words, {len(vocabulary)} tokens", flush=True)
    stage = Stage(recordings(vocabulary, count, chance), vocabulary, chance)
    model = small_model(vocabulary, width, layers)
    head = torch.nn.Linear(width, len(vocabulary.word_ids) + 1)
    gazes = (Gaze(model, 0), Gaze(model, -1))
    if begin > 0:
        saved = torch.load(work / "state.pt", weights_only=True)
        model.load_state_dict(saved["model_state_dict"])
        if "head" in saved:
            head.load_state_dict(saved["head"])
    learned = [*model.parameters(), *head.parameters()]
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    optimizer = torch.optim.AdamW(learned, lr=peak, betas=(0.9, 0.98), weight_decay=0.01)
    heard_out = [(text, speak(EspeakEngine(), text + ".")) for text in HELD_OUT]
    started = told = time.monotonic()
    sums, steps = torch.zeros(3), 0
    for step in range(10**9):
        part = begin + (1 - begin) * (time.monotonic() - started) / (60 * minutes)
        if part >= 1:
            break
        plan = [plan for plan in PLANS if plan.begin <= part][-1]
        batch = stage.batch(plan.size, plan.words, plan.spare_frames, whole_window=plan.whole_window)
        three = losses(model, head, gazes, batch, vocabulary.unused)
        loss = three[0] + (0.5 if part < 0.7 else 0.2) * (three[1] + three[2])
        for group in optimizer.param_groups:
            group["lr"] = rate_at((part - begin) / (1 - begin), peak)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        sums, steps = sums + torch.stack(three).detach(), steps + 1
        if time.monotonic() - told > 60:
            told = time.monotonic()
            tokens, look, named = (sums / steps).tolist()
            line = f"{part:.0%} step {step}: tokens {tokens:.3f}, look {look:.3f}, words {named:.3f}"
            print(f"{line}; {report(model, vocabulary, heard_out)}", flush=True)
            sums, steps = torch.zeros(3), 0
            save(work, model, head)
    save(work, model, head)
    print(report(model, vocabulary, heard_out, every=True, whole_window=True))
    export(work)


# --------------------------------------------------------------------------------------- listening, saving


@torch.no_grad()  # type: ignore[untyped-decorator]
def greedy(model: Whisper, vocabulary: Vocabulary, mel: torch.Tensor) -> str:
    """The words it hears in a normalised mel of shape (80, frames)."""
    features = encode(model, mel[None])
    ids = [vocabulary.small[token] for token in vocabulary.prompt]
    eot = vocabulary.small[vocabulary.tokenizer.eot]
    start = len(ids)
    while len(ids) < 60:
        best = int(model.decoder(torch.tensor([ids]), features)[0, -1, 1:].argmax()) + 1
        if best == eot:
            break
        ids.append(best)
    return str(vocabulary.tokenizer.decode([vocabulary.used[i - 1] for i in ids[start:]])).strip()


def report(
    model: Whisper, vocabulary: Vocabulary, heard_out: Sequence[tuple[str, Recording]], *,
    every: bool = False, whole_window: bool = False,
) -> str:  # fmt: skip
    """Word errors in the held-out sentences, the first one as heard; all of them if `every`."""
    from pipeline.verify import differences

    errors = total = 0
    lines = []
    for text, recording in heard_out:
        mel = recording.mel.float()
        spare = WINDOW_FRAMES - mel.shape[1] if whole_window else mel.shape[1] % 2 + 20
        mel = functional.pad(mel, (0, spare), value=FLOOR)
        mel = (torch.maximum(mel, mel.max() - 8) + 4) / 4
        heard = greedy(model, vocabulary, mel)
        wanted = text.lower().split()
        errors += sum(edit.errors for edit in differences(wanted, heard.split()))
        total += len(wanted)
        lines.append(f"  {text}\n  -> {heard}")
    shown = "\n" + "\n".join(lines) if every else f" e.g. {lines[0].split('-> ')[1]!r}"
    return f"{errors} of {total} held-out words wrong;{shown}"


def save(work: Path, model: Whisper, head: torch.nn.Linear) -> None:
    """The state with the small vocabulary."""
    work.mkdir(parents=True, exist_ok=True)
    state = {
        "dims": asdict(model.dims),
        "model_state_dict": model.state_dict(),
        "head": head.state_dict(),
    }
    torch.save(state, work / "state.tmp")
    (work / "state.tmp").replace(work / "state.pt")


def export(work: Path) -> None:
    """Write the checkpoint as openai-whisper reads it, half precision, and pack it."""
    vocabulary = Vocabulary()
    saved: dict[str, Any] = torch.load(work / "state.pt", weights_only=True)
    state = {name: value.half() for name, value in saved["model_state_dict"].items()}
    small = state["decoder.token_embedding.weight"]
    full = small[0].repeat(n_vocab(vocabulary.tokenizer), 1)
    full[vocabulary.used] = small[1:]
    state["decoder.token_embedding.weight"] = full
    dims = {**saved["dims"], "n_vocab": len(full)}
    path = work / "whisper-closed.pt"
    torch.save({"dims": dims, "model_state_dict": state}, path)
    packed = lzma.compress(path.read_bytes(), preset=9)
    PACKED.parent.mkdir(parents=True, exist_ok=True)
    PACKED.write_bytes(packed)
    print(f"{path}: {path.stat().st_size:,} bytes; {PACKED}: {len(packed):,}")


def _arguments() -> Iterator[argparse.Namespace]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--begin", type=float, default=0, help="go on from this part of the plan")
    parser.add_argument("--work", type=Path, default=Path("/tmp/whisper-closed"))
    parser.add_argument("--peak", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, nargs=2, default=(3, 2), help="of the encoder and the decoder")
    parser.add_argument("--recordings", type=int, default=600)
    parser.add_argument("--export", type=Path, help="pack the state in this folder and do nothing else")
    yield parser.parse_args()


if __name__ == "__main__":
    for arguments in _arguments():
        if arguments.export:
            export(arguments.export)
        else:
            train(
                arguments.work, arguments.minutes, arguments.begin, arguments.peak, arguments.width,
                tuple(arguments.layers), arguments.recordings,
            )  # fmt: skip
