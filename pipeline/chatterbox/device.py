"""Whether a device is there and a model fits onto it, asked before anything is loaded.

Knows torch's names of devices and the machine's memory. Invariant: a device is always a string, for the
package compares it with strings (resemble-ai/chatterbox issue 533).
"""

from pathlib import Path

from pipeline.errors import EnvironmentFailure, InputError

WORKING_BYTES = 500_000_000
"what speaking itself takes beside the weights: activations, the attention's cache, the watermarker"
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def refuse_missing(device: str) -> None:
    """InputError (device_missing) for a device that this machine lacks; there is no falling back."""
    import torch

    if device == "cpu":
        return
    kind, _, number = device.partition(":")
    if kind == "mps":
        there, known = torch.backends.mps.is_available(), "no Apple GPU that torch can use"
    else:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        there = kind == "cuda" and int(number or 0) < count
        known = f"{count} CUDA devices, counted from cuda:0" if count else "no CUDA device that torch can use"
    if not there:
        raise InputError(
            f"There is no device {device} here: this machine has {known}.",
            hint="Set models.devices in the configuration to one that is there, or to cpu.",
            code="device_missing",
        )


def refuse_lack_of_memory(device: str, files: list[Path]) -> None:
    """Compare what the files weigh with what the device has.

    Raises InputError (device_memory) where they can never fit, EnvironmentFailure where they do not now.
    """
    weights = sum(path.stat().st_size for path in files)
    found = _memory(device)
    if found is None:
        return
    # In main memory the files are read, their values copied, and both kept until all is loaded.
    needed = WORKING_BYTES + (weights if device.startswith("cuda") else 2 * weights)
    _compare(device, needed, *found)


def free_bytes(device: str) -> int | None:
    """What is free on a device now; None where the system does not tell."""
    found = _memory(device)
    return None if found is None else found[0]


def _memory(device: str) -> tuple[int, int] | None:
    """Bytes free and in all."""
    if not device.startswith("cuda"):
        return _main_memory()
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return int(free), int(total)


def _compare(device: str, needed: int, free: int, total: int) -> None:
    if needed > total:
        raise InputError(
            f"The model takes about {_gb(needed)} of memory; {device} has {_gb(total)} in all.",
            hint="Choose a smaller model or another device (models.devices).",
            code="device_memory",
        )
    if needed > free:
        raise EnvironmentFailure(
            f"The model takes about {_gb(needed)} of memory; {device} has {_gb(free)} of {_gb(total)} free."
            " The job waits until there is more."
        )


def _main_memory() -> tuple[int, int] | None:
    """Bytes available and in all, within the limit of a container; None where the system does not tell."""
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines() if ":" in line)
        free, total = (int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError, ValueError):
        return None
    limit, used = _number(_CGROUP / "memory.max"), _number(_CGROUP / "memory.current")
    if limit is not None and used is not None:
        return min(free, max(0, limit - used)), min(total, limit)
    return free, total


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no limit is written as "max"
        return None


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
