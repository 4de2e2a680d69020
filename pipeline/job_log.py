"""`<stem>.log`: what was done with a job, for people to read.

Pure: a manifest in, text out.
"""

from datetime import UTC, datetime

from pipeline.jobs.job import Job
from pipeline.jobs.settings import Settings
from pipeline.outbox import ChunkRecord, Manifest
from pipeline.web_address import is_url, shown

_SHOWN_CHARS = 100


def job_log(job: Job, manifest: Manifest) -> str:
    """The log of one finished job."""
    return "\n".join([*_head(job, manifest), "", *_chunks(manifest), *_foot(manifest), ""])


def _head(job: Job, manifest: Manifest) -> list[str]:
    when = datetime.fromtimestamp(job.submitted_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    engine = manifest.engine
    settings = job.spec.settings
    how = {
        "tts": f", voice {_voice(settings)}, language {settings.language}, seed {settings.seed}",
        "vc": f", to the voice {_voice(settings)}",
        "concat": "",
    }
    made = f"Made by {engine['name']} {engine['version']} on {engine['device']}{how[job.spec.kind]}"
    lines = [f"Job {job.id}: {job.source.name}, taken {when}"]
    lines.append(f"Joined from {len(job.spec.parts)} parts" if job.spec.kind == "concat" else made)
    lines += [
        f"Fetched {item.final_url} ({item.bytes} bytes, SHA-256 {item.sha256})" for item in manifest.fetched
    ]
    return [*lines, f"Checked by {manifest.check}"]


def _voice(settings: Settings) -> str:
    named = settings.voice or "default"
    return shown(named) if is_url(named) else named


def _chunks(manifest: Manifest) -> list[str]:
    if not manifest.chunks:
        return []
    return [*map(_chunk, manifest.chunks), ""]


def _chunk(record: ChunkRecord) -> str:
    text = _short(record.text)
    line = f"{_clock(record.start_seconds)}  {record.index + 1:>5}  {_verdict(record)}  {text}"
    if record.passed is False:
        line += f"\n{'':>17}heard: {_short(record.transcript or '')}"
        line += f"\n{'':>17}{'; '.join(record.reasons)}"
    return line


def _short(text: str) -> str:
    """One line, cut at any character: not every script has spaces between words."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARS else f"{line[: _SHOWN_CHARS - 4]} ..."


def _verdict(record: ChunkRecord) -> str:
    if record.passed is None:
        words = "unchecked"
    else:
        words = f"{'ok' if record.passed else 'NOT OK'} {record.word_error_rate:.2f}"
    tries = "" if record.tries == 1 else f", {record.tries} tries"
    return f"{words}{tries}{', cached' if record.cached else ''}"


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:d}:{whole // 60 % 60:02d}:{whole % 60:02d}.{int(seconds * 10) % 10}"


def _foot(manifest: Manifest) -> list[str]:
    timings = manifest.timings
    lines = [
        f"Took {timings.total_seconds:.1f} s after {timings.queued_seconds:.1f} s in the queue:"
        f" speaking {timings.synthesis_seconds:.1f},"
        f" waiting for the check {timings.check_seconds:.1f},"
        f" waiting for the encoder {timings.encode_wait_seconds:.1f}"
    ]
    if manifest.warnings:
        lines += ["", "Warnings:", *(f"- {warning}" for warning in manifest.warnings)]
    return lines
