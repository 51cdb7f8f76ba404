"""Error messages for refused requests to the Hugging Face Hub."""

from __future__ import annotations


def refusal(repository: str, error: Exception) -> tuple[str, str] | None:
    """Convert an error of the Hub's client to a message and a hint; None for other errors.

    Args:
        repository: ``owner/name``.
        error: Exception of ``huggingface_hub``.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        terms = f"Accept its terms at https://huggingface.co/{repository}, then run `hf auth login`."
        return f"The repository '{repository}' is gated.", terms
    if isinstance(error, RevisionNotFoundError):
        return f"The repository '{repository}' has no such revision.", (
            "Its page on the Hub lists the revisions."
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"The repository '{repository}' does not exist, or you do not have access.",
            "Check the spelling. A private repository requires `hf auth login`.",
        )
    return None
