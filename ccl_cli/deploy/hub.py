"""Upload and download of models on the Hugging Face Hub."""

from __future__ import annotations

import fnmatch
import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ccl_cli.deploy.card import CARD, card
from ccl_cli.errors import CclError, DataError, SystemSetupError, UsageError, WeightsError
from ccl_cli.training.run.artefact import load_model
from ccl_cli.training.run.folder import MODEL, RECIPE, locate_model
from ccl_cli.utils.console import plain
from ccl_cli.utils.download import offline_variable, reason
from ccl_cli.utils.files import atomic_folder
from ccl_cli.utils.hub import refusal

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# Files of the model, without checkpoints and lists of local files.
_EVALUATIONS = "eval-*.json"
_DOWNLOADED = (MODEL, RECIPE, CARD, _EVALUATIONS)
# Files written by `ccl model export` into the run's folder. They may contain code, so `pull` skips them.
_EXPORTED = ("*/model.onnx", "*/model.int8.onnx", "*/model.pt2", "*/export.json")
_log = logging.getLogger("ccl")


def uploads(run: Path | None, repository: str) -> dict[str, Path | bytes]:
    """List the files that :func:`push` uploads; an existing card is used unchanged. Needs no network.

    Returns:
        By name in the repository, the file, or the contents of a generated one.
    """
    _check_name(repository)
    folder, path = locate_model(run)
    _, text = card(run, repository=repository)
    if folder is None:
        return {MODEL: path, CARD: text.encode()}
    files: dict[str, Path | bytes] = {
        each.relative_to(folder.path).as_posix(): each
        for pattern in (*_DOWNLOADED, *_EXPORTED)
        for each in sorted(folder.path.glob(pattern))
        if each.is_file()
    }
    own = folder.path / CARD
    if CARD not in files:
        files[CARD] = text.encode()
    elif any(each.stat().st_mtime_ns > own.stat().st_mtime_ns for each in folder.path.glob(_EVALUATIONS)):
        _log.warning("'%s' is older than the run's results; `ccl model card --force` updates it.", own)
    return files


def push(run: Path | None, repository: str, *, private: bool = False) -> str:
    """Upload a model and its card in one commit; create the repository if necessary.

    Returns:
        The URL of the commit.

    Raises:
        UsageError: the repository name is invalid, or the repository is public and should be private.
        SystemSetupError: network access is disabled, there is no token, or the Hub returns an error.
    """
    files = uploads(run, repository)
    if variable := offline_variable():
        raise SystemSetupError(
            f"Nothing was uploaded: {variable} is set.", "Unset the variable, or use --dry-run."
        )
    with _client(repository) as api:
        from huggingface_hub import CommitOperationAdd, get_token

        if not get_token():
            raise SystemSetupError(
                "No token for the Hugging Face Hub was found.",
                "Create one at https://huggingface.co/settings/tokens, then run `hf auth login` or set "
                "HF_TOKEN.",
            )
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise UsageError(
                f"The repository '{repository}' already exists and is public.",
                "Make it private on its page, choose another one, or omit --private.",
            )
        added = [CommitOperationAdd(name, content) for name, content in files.items()]
        commit = api.create_commit(repository, added, commit_message="Upload a model made with ccl")
        return str(commit.commit_url)


def pull(repository: str, *, revision: str | None = None, output: Path | None = None) -> Path:
    """Download a model, and check that it was written by ccl. Downloaded code is never executed.

    If downloads are disabled (``CCL_OFFLINE``, ``HF_HUB_OFFLINE``), an earlier download in the Hub's cache is
    used.

    Args:
        repository: ``OWNER/NAME``.
        revision: Branch, tag or commit. Default: the main branch.
        output: New folder for the model. Default: keep it in the Hub's cache.

    Returns:
        The path of the model file.

    Raises:
        UsageError: the repository name is invalid, or ``output`` exists.
        SystemSetupError: downloads are disabled and the model is not cached, or the Hub returns an error.
        CclError: there is no model of ccl, or it is damaged.
    """
    _check_name(repository)
    if output is not None and output.exists():
        raise UsageError(f"'{output}' exists.", "Choose a new folder.")
    folder = _download(repository, revision)
    try:
        load_model(folder / MODEL)
    except WeightsError as error:
        raise WeightsError(
            f"The model in the repository '{repository}' cannot be used. {error.message}",
            "Contact its owner, or use another --revision.",
        ) from error
    if output is None:
        return folder / MODEL
    with atomic_folder(output) as new:  # the cache contains links, and files of other programs
        for each in folder.iterdir():
            if each.is_file() and any(fnmatch.fnmatch(each.name, pattern) for pattern in _DOWNLOADED):
                shutil.copyfile(each, new / each.name)
    return output / MODEL


def _download(repository: str, revision: str | None) -> Path:
    """Return the folder in the Hub's cache."""
    variable = offline_variable()
    with _client(repository) as api:
        from huggingface_hub.errors import LocalEntryNotFoundError

        if not variable:  # ask first: without a connection, the client returns an old copy from its cache
            listed = api.model_info(repository, revision=revision).siblings or ()
            if MODEL not in {each.rfilename for each in listed}:
                raise DataError(
                    f"The repository '{repository}' contains no {MODEL}.",
                    "It was not created with `ccl model push`.",
                )
        try:
            folder = api.snapshot_download(
                repository,
                revision=revision,
                allow_patterns=list(_DOWNLOADED),
                local_files_only=bool(variable),
            )
        except LocalEntryNotFoundError as error:
            if not variable:
                raise
            raise SystemSetupError(
                f"'{repository}' is not in the Hub's cache, and {variable} is set.",
                "Unset the variable, or pull the model on another machine and copy it.",
            ) from error
    return Path(folder)


def _check_name(repository: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repository)
        if "/" not in repository:
            raise HFValidationError
    except HFValidationError as error:
        raise UsageError(f"'{repository}' is not a valid repository name.", "Use OWNER/NAME.") from error


@contextmanager
def _client(repository: str) -> Iterator[HfApi]:
    """Yield the Hub's client, and convert its exceptions to errors for the user."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if plain(sys.stderr) or _log.level >= logging.ERROR:
        disable_progress_bars()
    try:
        yield HfApi(library_name="ccl")
    except CclError:
        raise
    except Exception as error:  # the client also raises errors of its HTTP library
        # For uploads of large files, the cause of the exception contains the actual error.
        cause = error.__cause__ if type(error) is RuntimeError and error.__cause__ else error
        if isinstance(cause, HfHubHTTPError):
            text = " ".join((cause.server_message or "").split()).rstrip(".")
            message = f"The Hugging Face Hub answers {cause.response.status_code}{text and ': '}{text}."
            hint = "Check that the token has write access, or try again later."
            raise SystemSetupError(*(refusal(repository, cause) or (message, hint))) from error
        text = " ".join(reason(cause).split()[:30]) if isinstance(cause, Exception) else "no answer"
        raise SystemSetupError(
            f"The Hugging Face Hub cannot be reached: {text}.",
            "Check the network connection, or try again later.",
        ) from error
