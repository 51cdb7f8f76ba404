"""What the Hugging Face Hub means where it refuses, in sentences."""

from __future__ import annotations


def refusal(repository: str, error: Exception) -> tuple[str, str] | None:
    """What is wrong and what to do; None where it is another error of the Hub's client.

    Args:
        repository: ``owner/name``.
        error: What ``huggingface_hub`` has raised.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        terms = f"Accept its terms at https://huggingface.co/{repository}, then `hf auth login`."
        return f"The repository '{repository}' asks for consent.", terms
    if isinstance(error, RevisionNotFoundError):
        return f"The repository '{repository}' has no such revision.", "Its page lists them."
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"There is no repository '{repository}', or it is not for you.",
            "Mind its spelling; a private one needs `hf auth login`.",
        )
    return None
