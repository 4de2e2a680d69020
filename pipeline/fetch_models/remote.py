"""What the hub, or a web server, has of a model: the revision, and each file's address, size and hash.

The only module that talks to `huggingface_hub`: it knows what is in a repository and who we are, while the
bytes are `transfer`'s. Invariant: addresses name a commit, never a branch.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.errors import EnvironmentFailure, InputError
from pipeline.fetch_models.sources import Model, WebFile
from pipeline.fetch_models.transfer import MAY_PASS, MayPassError, Patience, Remote, failed, why

ASK_SECONDS = 30.0
_ENDPOINT = "HF_ENDPOINT"
# Read by the client when it is imported. Telemetry: nobody is told what runs here. Xet, the hub's protocol,
# keeps a cache of its own beside the files, and cannot take up a broken download of an earlier run.
_SILENT = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A model as it is on the server at one revision."""

    repository: str
    revision: str
    files: tuple[Remote, ...]


def look_up(model: Model, revision: str | None, client: Any, patience: Patience) -> Listing:
    """What the server has of `model` at `revision`; None: the newest. InputError or EnvironmentFailure."""
    if model.web is not None:
        return _at_address(model, model.web, client, patience)
    assert model.repository is not None
    return patience.keep_trying(lambda: _in_repository(model, revision or "main"), model.repository)


def _in_repository(model: Model, revision: str) -> Listing:
    hub = _hub()
    repository = str(model.repository)
    endpoint = os.environ.get(_ENDPOINT) or None
    with _told(repository, revision):
        info = hub.HfApi(endpoint=endpoint).model_info(
            repository, revision=revision, files_metadata=True, timeout=ASK_SECONDS
        )
    headers = hub.utils.build_hf_headers()
    there = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    return Listing(
        repository=repository,
        revision=info.sha,
        files=tuple(
            Remote(
                name=name,
                url=hub.hf_hub_url(repository, name, revision=info.sha, endpoint=endpoint),
                bytes=there[name].size,
                sha256=there[name].lfs.sha256 if there[name].lfs else None,
                blob=None if there[name].lfs else there[name].blob_id,
                headers=headers,
            )
            for name in model.every_file
            if name in there
        ),
    )


def _hub() -> Any:
    """The client of the Hugging Face hub, which only the large installation has."""
    os.environ.update(_SILENT)
    try:
        import huggingface_hub.utils
    except ImportError as error:
        raise not_installed("huggingface_hub") from error
    return huggingface_hub


def not_installed(package: str) -> EnvironmentFailure:
    """A sentence for the core installation."""
    return EnvironmentFailure(
        f"The package {package}, which fetches models, is not installed.",
        hint="Type .venv/bin/pip install -r requirements.txt, which brings Chatterbox and Whisper too.",
    )


@contextlib.contextmanager
def _told(repository: str, revision: str) -> Iterator[None]:
    """What the hub's client raises, as a sentence; or MayPassError where another try may help."""
    import httpx

    try:
        yield
    except (OSError, httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        told = _sentence(error, f"The repository {repository}", revision)
        if told is None:
            raise
        raise told from error


def _sentence(error: Exception, what: str, revision: str) -> Exception | None:
    import httpx
    from huggingface_hub import errors

    match error:
        case errors.OfflineModeIsEnabled():
            return failed("The hub is not asked, since HF_HUB_OFFLINE is set.", "Unset it for this command.")
        case errors.RevisionNotFoundError() | errors.HFValidationError():
            return InputError(
                f"{what} has no revision {revision}.",
                code="model_revision",
                hint="A revision is a commit (40 hexadecimal digits), a branch or a tag.",
            )
        case errors.GatedRepoError() | errors.RepositoryNotFoundError():
            return failed(
                f"{what} is not open to everybody, or is not there: the hub answers {_status(error)}.",
                "Look at its page in a browser; if it asks for an account or a consent, set HF_TOKEN.",
            )
        case errors.HfHubHTTPError() if error.response.status_code in MAY_PASS:
            return MayPassError(f"the hub answers {_status(error)}")
        case errors.HfHubHTTPError():
            return failed(f"{what} cannot be looked up: the hub answers {_status(error)}.")
        case httpx.TransportError():
            return MayPassError(why(error))
        case httpx.HTTPError() | httpx.InvalidURL() | ValueError() | KeyError() | TypeError():
            return failed(
                f"{what} cannot be looked up: what answers is no Hugging Face hub ({why(error)}).",
                "Look at HF_ENDPOINT and at the proxy of this machine, if they are set.",
            )
    return None


def _status(error: Any) -> str:
    return f"{error.response.status_code} {error.response.reason_phrase}".rstrip()


def _at_address(model: Model, web: WebFile, client: Any, patience: Patience) -> Listing:
    """One file, whose hash is known: only its size is asked for, so that there is room for it."""
    size = patience.keep_trying(lambda: _size_of(web.url, client), web.url)
    (name,) = model.files
    return Listing(
        repository=web.url.rpartition("/")[0],
        revision=web.sha256,
        files=(Remote(name=name, url=web.url, bytes=size, sha256=web.sha256),),
    )


def _size_of(url: str, client: Any) -> int | None:
    import httpx

    try:
        answer = client.head(url, headers={"Accept-Encoding": "identity"}, timeout=ASK_SECONDS)
    except httpx.TransportError as error:
        raise MayPassError(why(error)) from error
    if answer.status_code in MAY_PASS:
        raise MayPassError(f"it answers {answer.status_code}")
    length = answer.headers.get("Content-Length", "")
    return int(length) if answer.is_success and length.isdigit() else None
