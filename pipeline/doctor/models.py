"""The models that the configuration's defaults need: package, files, device, room for them in its memory.

Looks at names and sizes and reads no weights; torch is asked in a process of its own, and only where a device
other than the processor is named. Whether the bytes are right is for `fetch-models --verify` to say.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline import fetch_models
from pipeline.chatterbox.models import NANO
from pipeline.checkpoints import TURBO
from pipeline.config import Config
from pipeline.doctor.finding import Finding, Machine, failure, installed, warning, well
from pipeline.errors import InputError
from pipeline.fetch_models import Model
from pipeline.files import display, shown_size

INSTALL = ".venv/bin/pip install -r requirements.txt"
WORKING_BYTES = 500_000_000
"what a model takes while it speaks, beside its weights"
TORCH = (
    sys.executable,
    "-c",
    "import json, torch; cuda = torch.cuda; count = cuda.device_count() if cuda.is_available() else 0\n"
    "print(json.dumps({'version': torch.__version__, 'mps': torch.backends.mps.is_available(), 'cuda':"
    " [(cuda.get_device_name(n), *cuda.mem_get_info(n)) for n in range(count)]}))",
)


def examine(config: Config, here: Machine) -> Iterator[Finding]:
    """Nothing to say where the defaults are embedded."""
    try:
        models = [_in_its_place(model, config) for model in fetch_models.needed(config)]
    except InputError as error:  # a size of Whisper that there is not
        yield failure(error.message, f"Set models.whisper.size in config.yaml. {error.hint}")
        return
    if not models:
        return
    for model in models:
        yield from _package(model, config)
        yield _files(model)
    yield from _devices(config, models, here)


def _in_its_place(model: Model, config: Config) -> Model:
    """Where Nano alone was brought, it speaks for Turbo."""
    if model.name != TURBO.name or not model.missing():
        return model
    nano = fetch_models.named(NANO.name, config)
    return model if nano.missing() else nano


def _package(model: Model, config: Config) -> Iterator[Finding]:
    name, install = _package_of(model, config)
    if installed(name) is None:
        what = f"{model.name} needs the package {name}, which is not installed: jobs fail"
        yield failure(what, f"Type {install}")


def _package_of(model: Model, config: Config) -> tuple[str, str]:
    if not model.name.startswith("whisper-"):
        return "chatterbox-tts", INSTALL
    if config.models.whisper.backend == "faster-whisper":
        return "faster-whisper", ".venv/bin/pip install faster-whisper"
    return "openai-whisper", INSTALL


def _files(model: Model) -> Finding:
    """There, and as long as when they were fetched."""
    fetch = f"python daemon.py fetch-models {model.name}"
    try:
        seen = fetch_models.look_at(model)
    except InputError as error:
        return failure(error.message, error.hint)
    if seen.missing:
        where = display(model.folder)
        return failure(f"the model {model.name} is {seen.state} ({where}): jobs fail", f"Type {fetch}")
    record = seen.record
    if record is None:
        return well(f"the model {model.name} is there, {shown_size(_weight(model))}, brought by hand")
    odd = [entry.name for entry in record.files if (model.folder / entry.name).stat().st_size != entry.bytes]
    if odd:
        what = (
            f"the model {model.name} is damaged: {', '.join(odd)} has another size than when it was fetched"
        )
        return failure(what, f"Type {fetch}")
    return well(f"the model {model.name} is there, {shown_size(_weight(model))}, at {record.revision[:12]}")


def _weight(model: Model) -> int:
    """Bytes of its files."""
    paths = (model.folder / name for name in model.every_file)
    return sum(path.stat().st_size for path in paths if path.is_file())


# -- devices ---------------------------------------------------------------------------------------


def _devices(config: Config, models: list[Model], here: Machine) -> Iterator[Finding]:
    loads = _loads(config, models)
    torch = _torch(here) if set(loads) - {"cpu"} else {}
    for device, load in loads.items():
        if device == "cpu":
            yield from _processor(load, config, here)
        elif torch is None:
            what = f"{device} is to be used, and torch does not answer"
            advice = f'Type {TORCH[0]} -c "import torch" and see what it says, or set models.devices: [cpu].'
            yield failure(what, advice)
        else:
            yield _device(device, load, torch)


def _loads(config: Config, models: list[Model]) -> dict[str, int]:
    """Bytes of weights on each device; each worker loads its own."""
    loads: dict[str, int] = {}
    for worker in config.worker_devices:
        for model in models:
            own = config.models.whisper.device if model.name.startswith("whisper-") else None
            device = own or worker
            loads[device] = loads.get(device, 0) + _weight(model) + WORKING_BYTES
    return loads


def _torch(here: Machine) -> Mapping[str, Any] | None:
    try:
        answer = json.loads(here.ask_slowly(TORCH) or "")
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _device(device: str, load: int, torch: Mapping[str, Any]) -> Finding:
    kind, _, number = device.partition(":")
    if kind == "mps":
        if torch["mps"]:
            return well("mps, the GPU of an Apple machine, is there")
        return failure(
            "mps is to be used, and torch finds no Apple GPU", "Set models.devices in config.yaml."
        )
    found = torch["cuda"]
    if int(number) >= len(found):
        last = len(found) - 1
        count = f"no more than cuda:0{f' to cuda:{last}' if last else ''}" if found else "no CUDA device"
        what = f"{device} is to be used, and torch {torch['version']} finds {count}: jobs fail"
        return failure(what, "nvidia-smi shows what the driver sees. Set models.devices in config.yaml.")
    name, free, total = found[int(number)]
    room = f"{device} ({name}) has {shown_size(free)} of {shown_size(total)} free"
    takes = f"{room}, and the models take about {shown_size(load)}"
    if load > total:
        return failure(takes, "Set a smaller models.whisper.size, or models.whisper.device: cpu.")
    if load > free:
        return warning(takes, "See with nvidia-smi what else runs there; jobs wait until there is room.")
    return well(takes)


def _processor(load: int, config: Config, here: Machine) -> Iterator[Finding]:
    total = here.memory_bytes
    workers = config.worker_devices.count("cpu")
    takes = (
        f"the models take about {shown_size(load)} of {shown_size(total)} memory, {workers} workers together"
    )
    if load > total:
        yield failure(takes, "Set workers.count lower, or a smaller models.whisper.size.")
    elif load > 0.8 * total:
        yield warning(takes, "Set workers.count lower if other programs need memory too.")
    else:
        yield well(takes)
