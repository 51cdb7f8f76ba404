"""Models on the Hugging Face Hub: what of a run is uploaded, and what is taken from there."""

from __future__ import annotations

import fnmatch
import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ccl_cli.deploy.card import CARD, card
from ccl_cli.errors import CclError, DataError, SystemSetupError, UsageError, WeightsError
from ccl_cli.training.run.artefact import load_model
from ccl_cli.training.run.folder import MODEL, RECIPE, locate_model
from ccl_cli.utils.console import plain
from ccl_cli.utils.download import forbidden, reason
from ccl_cli.utils.files import atomic_folder
from ccl_cli.utils.hub import refusal

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

# The model's files: neither checkpoints nor lists of somebody's files.
_EVALUATIONS = "eval-*.json"
_DOWNLOADED = (MODEL, RECIPE, CARD, _EVALUATIONS)
# Files that `ccl model export` wrote into a folder of the run. They may hold code: they are not downloaded.
_EXPORTED = ("*/model.onnx", "*/model.int8.onnx", "*/model.pt2", "*/export.json")
_UPLOADED = (*_DOWNLOADED, *_EXPORTED)
_log = logging.getLogger("ccl")


@dataclass(frozen=True)
class Upload:
    """One file of an upload.

    Attributes:
        name: Its name in the repository.
        content: Where it is, or its bytes if it has only been made for this.
    """

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def uploads(run: Path | None, repository: str) -> list[Upload]:
    """What :func:`push` would upload of a run or a model file; a card that is there is taken as it is.

    Nobody is asked anything over the network.

    Raises:
        UsageError: not the name of a repository.
        DataError: there is no such run, or it has no model.
        WeightsError: the model is damaged.
    """
    _check_name(repository)
    folder, path = locate_model(run)
    _, text = card(run, repository=repository)
    written = Upload(CARD, text.encode())
    if folder is None:
        return [Upload(MODEL, path), written]
    files = {
        each.relative_to(folder.path).as_posix(): each
        for pattern in _UPLOADED
        for each in sorted(folder.path.glob(pattern))
        if each.is_file()
    }
    uploads = [Upload(name, file) for name, file in files.items()]
    if CARD not in files:
        return [*uploads, written]
    evaluated = max((file.stat().st_mtime_ns for file in folder.path.glob(_EVALUATIONS)), default=0)
    if evaluated > files[CARD].stat().st_mtime_ns:
        _log.warning(
            "'%s' is older than the run's figures; `ccl model card --force` writes it anew.", files[CARD]
        )
    return uploads


def push(run: Path | None, repository: str, *, private: bool = False) -> str:
    """Upload a model with its card in one commit; the repository is made where there is none.

    Args:
        run: A run folder, a model file, or None for the newest run.
        repository: ``OWNER/NAME``.
        private: For its owner alone; one that is there already and public is refused.

    Returns:
        The commit's address.

    Raises:
        UsageError: not the name of a repository, or it is public and should be private.
        SystemSetupError: no network wanted, no token, or what the Hub answers.
    """
    files = uploads(run, repository)
    if variable := forbidden():
        raise SystemSetupError(f"Nothing was uploaded: {variable} is set.", "Unset it, or use --dry-run.")
    with _client(repository) as api:
        from huggingface_hub import CommitOperationAdd, get_token

        if not get_token():
            raise SystemSetupError(
                "There is no token for the Hugging Face Hub.",
                "Make one at https://huggingface.co/settings/tokens, then `hf auth login`, or set HF_TOKEN.",
            )
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise UsageError(
                f"The repository '{repository}' is there already, and it is public.",
                "Make it private on its page, name another one, or leave --private out.",
            )
        added = [CommitOperationAdd(path_in_repo=each.name, path_or_fileobj=each.content) for each in files]
        commit = api.create_commit(repository, added, commit_message="Upload a model made with ccl")
        return str(commit.commit_url)


def pull(repository: str, *, revision: str | None = None, output: Path | None = None) -> Path:
    """Download a model; its path is handed out only if its file is one that ccl wrote.

    Tensors and plain values are read, nothing that is downloaded is run. Where no network is wanted
    (``CCL_OFFLINE``, ``HF_HUB_OFFLINE``), what an earlier download has left in the Hub's cache is taken.

    Args:
        repository: ``OWNER/NAME``.
        revision: A branch, a tag or a commit; None: the main branch.
        output: A new folder to put it in; None: it stays in the Hub's own cache.

    Returns:
        The model's file.

    Raises:
        UsageError: not the name of a repository, or ``output`` is there already.
        SystemSetupError: no network wanted and not in the cache, or what the Hub answers.
        DataError: the repository holds no model of ours.
        WeightsError: the model is damaged or not of ours.
    """
    _check_name(repository)
    if output is not None and output.exists():
        raise UsageError(f"'{output}' exists.", "Name a new folder.")
    folder = _cached(repository, revision) if forbidden() else _downloaded(repository, revision)
    if not (folder / MODEL).is_file():
        raise _without_model(repository)
    try:
        load_model(folder / MODEL)
    except WeightsError as error:
        raise WeightsError(
            f"What the repository '{repository}' holds cannot be used. {error.message}",
            "Tell its owner, or name another --revision.",
        ) from error
    return folder / MODEL if output is None else _copied(folder, output) / MODEL


def _downloaded(repository: str, revision: str | None) -> Path:
    with _client(repository) as api:
        # Asked first: out of reach of the Hub, a download would quietly be an old copy from the cache.
        listed = api.model_info(repository, revision=revision).siblings or ()
        if MODEL not in {each.rfilename for each in listed}:
            raise _without_model(repository)
        return Path(api.snapshot_download(repository, revision=revision, allow_patterns=list(_DOWNLOADED)))


def _cached(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=list(_DOWNLOADED), local_files_only=True
            )
        )
    except LocalEntryNotFoundError as error:
        raise SystemSetupError(
            f"'{repository}' is not in the Hub's cache, and {forbidden()} is set.",
            "Unset it, or pull the model on a machine that may download and copy it.",
        ) from error


def _copied(folder: Path, output: Path) -> Path:
    """The model's files in a new folder, whole or absent; the cache holds links, and perhaps more files."""
    with atomic_folder(output) as new:
        for each in folder.iterdir():
            if each.is_file() and any(fnmatch.fnmatch(each.name, pattern) for pattern in _DOWNLOADED):
                shutil.copyfile(each, new / each.name)
    return output


def _check_name(repository: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repository)
        if "/" not in repository:
            raise HFValidationError
    except HFValidationError as error:
        raise UsageError(f"'{repository}' is not the name of a repository.", "It is OWNER/NAME.") from error


def _without_model(repository: str) -> DataError:
    return DataError(
        f"The repository '{repository}' holds no {MODEL}.", "It was not made with `ccl model push`."
    )


@contextmanager
def _client(repository: str) -> Iterator[HfApi]:
    """The Hub's client, with sentences in place of what it raises."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if plain(sys.stderr) or _log.level >= logging.ERROR:
        disable_progress_bars()
    try:
        yield HfApi(library_name="ccl")
    except CclError:
        raise
    except Exception as error:  # the client lets the errors of whatever HTTP library it uses through
        # Of a large file's upload it tells no more than the name, and what happened as the cause of that.
        cause = error.__cause__ if type(error) is RuntimeError and error.__cause__ else error
        if isinstance(cause, HfHubHTTPError):
            raise _refused(repository, cause) from error
        text = " ".join(reason(cause).split()[:30]) if isinstance(cause, Exception) else "no answer"
        raise SystemSetupError(
            f"The Hugging Face Hub cannot be reached: {text}.",
            "See that the network is there, or try again later.",
        ) from error


def _refused(repository: str, error: HfHubHTTPError) -> SystemSetupError:
    if refused := refusal(repository, error):
        return SystemSetupError(*refused)
    status, text = error.response.status_code, " ".join((error.server_message or "").split())
    hint = "See that the token may write there." if status in (401, 403) else "Try again later."
    return SystemSetupError(f"The Hugging Face Hub answers {status}{text and ': ' + text.rstrip('.')}.", hint)
