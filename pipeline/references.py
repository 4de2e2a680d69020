"""What a job names by web address, brought into its work folder before it is used.

Knows what of a job may be an address; nothing of how one is fetched. Invariant: a specification that was
through here names files only, and what was fetched for it stands in the manifest with its hash.
"""

from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from pipeline.jobs.job import JobSpec
from pipeline.made import Made, Report
from pipeline.naming import safe_name
from pipeline.tools import Tools
from pipeline.web_address import Fetched, is_url, parse


def bring(spec: JobSpec, work: Path, tools: Tools, report: Report, made: Made) -> JobSpec:
    """`spec` with what it names by address fetched into `work`.

    Raises InputError (`fetch_refused`, `fetch_failed`) and whatever `report` raises.
    """
    clip, file = spec.voice.clip, spec.file
    if clip is not None and is_url(clip):
        path = work / "voice" / _name_for(clip)
        fetched = _fetch(clip, path, tools.fetcher.voice_max_bytes, tools, report)
        made.fetched.append(fetched)
        spec = replace(spec, voice=replace(spec.voice, clip=str(path), clip_sha256=fetched.sha256))
    if file is not None and is_url(file):
        path = work / "audio" / _name_for(file)
        made.fetched.append(_fetch(file, path, tools.fetcher.audio_max_bytes, tools, report))
        spec = replace(spec, file=str(path))
    return spec


def _fetch(url: str, path: Path, max_bytes: int, tools: Tools, report: Report) -> Fetched:
    path.parent.mkdir()
    stage = f"fetching from {parse(url).host}"
    return tools.fetcher.fetch(url, path, max_bytes=max_bytes, report=lambda: report(stage, 0, 0))


def _name_for(url: str) -> str:
    """What later messages call it: the last part of the address."""
    address = parse(url)
    path = address.target.partition("?")[0]
    return safe_name(unquote(PurePosixPath(path).name) or address.host)
