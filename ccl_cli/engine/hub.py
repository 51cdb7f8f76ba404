"""Models on the Hugging Face Hub: what of a run is uploaded, and what is taken from there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ccl_cli.download import forbidden, reason
from ccl_cli.engine.artefact import load_model
from ccl_cli.engine.runs import MODEL, RECIPE, locate_model
from ccl_cli.errors import CclError, DataError, EnvironmentError_, UsageError
from ccl_cli.files import atomic_folder
from ccl_cli.report.card import CARD, card

# What of a folder is the model's: neither checkpoints nor lists of somebody's files.
_PATTERNS = (MODEL, RECIPE, CARD, "eval-*.json", "*.onnx", "*.pt2", "export.json")


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


def uploads(run: Path | None) -> list[Upload]:
    """What :func:`push` would upload of a run or a model file; a card that is there is taken as it is.

    Raises:
        DataError: there is no such run, or it has no model.
        WeightsError: the model is damaged.
    """
    folder, path = locate_model(run)
    _, text = card(run)
    if folder is None:
        return [Upload(MODEL, path), Upload(CARD, text.encode())]
    found = {each.name: each for pattern in _PATTERNS for each in sorted(folder.path.glob(pattern))}
    listed = [Upload(name, each) for name, each in found.items()]
    return listed if CARD in found else [*listed, Upload(CARD, text.encode())]


def push(run: Path | None, repository: str, *, private: bool = False) -> str:
    """Upload a model with its card in one commit; the repository is made where there is none.

    Args:
        run: A run folder, a model file, or None for the newest run.
        repository: ``OWNER/NAME``.
        private: Whether a new repository is for its owner alone.

    Returns:
        The commit's address.

    Raises:
        UsageError: not the name of a repository.
        EnvironmentError_: no network wanted, no token, or what the Hub answers.
    """
    files = uploads(run)
    with _asking(repository):
        from huggingface_hub import CommitOperationAdd, HfApi, get_token

        if not get_token():
            raise EnvironmentError_(
                "There is no token for the Hugging Face Hub.",
                "Make one at https://huggingface.co/settings/tokens, then `hf auth login`, or set HF_TOKEN.",
            )
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        added = [CommitOperationAdd(path_in_repo=each.name, path_or_fileobj=each.content) for each in files]
        commit = api.create_commit(repository, added, commit_message="Upload a model made with ccl")
        return str(commit.commit_url)


def pull(repository: str, *, revision: str | None = None, output: Path | None = None) -> Path:
    """Download a model; it is usable only if its file is one that ccl wrote.

    Tensors and plain values are read, nothing that is downloaded is run.

    Args:
        repository: ``OWNER/NAME``.
        revision: A branch, a tag or a commit; None: the main branch.
        output: A new folder to put it in; None: it stays in the Hub's own cache.

    Returns:
        The model's file.

    Raises:
        UsageError: not the name of a repository, or ``output`` is there already.
        EnvironmentError_: no network wanted, or what the Hub answers.
        DataError: the repository holds no model of ours.
        WeightsError: the model is damaged or not of ours.
    """
    if output is not None and output.exists():
        raise UsageError(f"'{output}' exists.", "Name a new folder.")
    with _asking(repository):
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=list(_PATTERNS)))
    if not (folder / MODEL).is_file():
        raise DataError(
            f"The repository '{repository}' holds no {MODEL}.", "It was not made with `ccl push`."
        )
    load_model(folder / MODEL)
    if output is None:
        return folder / MODEL
    with atomic_folder(output) as temporary:
        shutil.copytree(folder, temporary, dirs_exist_ok=True)  # the cache holds links
    return output / MODEL


@contextmanager
def _asking(repository: str) -> Iterator[None]:
    """Sentences in place of what the Hub's client raises."""
    if variable := forbidden():
        raise EnvironmentError_(f"The Hugging Face Hub was not asked: {variable} is set.", "Unset it.")
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except CclError:
        raise
    except HFValidationError as error:
        raise UsageError(f"'{repository}' is not the name of a repository.", "It is OWNER/NAME.") from error
    except GatedRepoError as error:
        raise EnvironmentError_(
            f"The repository '{repository}' asks for consent.", "Give it on its page, then `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise EnvironmentError_(
            f"The repository '{repository}' has no such revision.", "Its page lists them."
        ) from error
    except RepositoryNotFoundError as error:
        raise EnvironmentError_(
            f"There is no repository '{repository}', or it is not for you.",
            "Mind its spelling; a private one needs `hf auth login`.",
        ) from error
    except Exception as error:  # the client lets the errors of whatever HTTP library it uses through
        said = " ".join(reason(error).split()[:30])
        raise EnvironmentError_(
            f"The Hugging Face Hub cannot be asked: {said}.", "Try again later."
        ) from error
