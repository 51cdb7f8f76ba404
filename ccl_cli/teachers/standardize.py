"""Standardisation of a teacher's embeddings with statistics of the training split.

``phi_s`` is PHI-S (Ranzinger et al., "PHI-S: Distribution Balancing for Label-Free Multi-Teacher
Distillation", arXiv 2410.01680, 2024): a rotation and one global scale give every dimension unit variance,
without distorting directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ccl_cli.config.recipe import Standardize
from ccl_cli.errors import DataError

_CONSTANT = 1e-6  # dimensions with a relative standard deviation below this are constant


class Moments:
    """Incremental count, mean and scatter matrix of embeddings, in float64.

    Args:
        dim: Embedding dimension D_m.
    """

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self._scatter = torch.zeros(dim, dim, dtype=torch.float64)

    def add(self, value: Tensor) -> None:
        """Add rows [n, D_m], all of them present."""
        if not len(value):
            return
        value = value.double().cpu()
        mean = value.mean(dim=0)
        centred, shift = value - mean, mean - self.mean
        total = self.count + len(value)
        # Use centred differences, because sums of squares cancel for large means.
        self._scatter += centred.mT @ centred + shift.outer(shift) * (self.count * len(value) / total)
        self.mean += shift * (len(value) / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance [D_m, D_m]."""
        return self._scatter / (self.count - 1)


@dataclass(frozen=True)
class Transform:
    """Affine transform of embeddings: subtract the mean, then scale, or rotate and scale.

    Shapes:
        mean: [D_m].
        factor: [D_m] scales, or a matrix [D_m, D_m].
    """

    mean: Tensor
    factor: Tensor

    def __call__(self, value: Tensor) -> Tensor:
        """Map [..., D_m] to [..., D_m], in the dtype of ``value``."""
        centred, factor = value - self.mean.to(value), self.factor.to(value)
        return centred * factor if factor.dim() == 1 else centred @ factor.mT


def fit(kind: Standardize, moments: Moments, teacher: str) -> Transform:
    """Compute the transform from the moments of a teacher's embeddings.

    Args:
        kind: ``none``; ``center``: zero mean; ``zscore``: zero mean and unit variance per dimension, or zero
            for constant dimensions; ``phi_s``: unit variance by a rotation and one scale.
        moments: Moments of the embeddings of the training split.
        teacher: Name of the teacher, for errors.

    Raises:
        DataError: there are fewer than two embeddings, or all are the same.
    """
    mean = moments.mean
    if kind == "none":
        return Transform(torch.zeros_like(mean), torch.ones_like(mean))
    if moments.count < 2:
        raise DataError(
            f"{teacher} has {moments.count} embeddings of the training split, too few to standardise.",
            f"Set standardize to none for {teacher}.",
        )
    covariance = moments.covariance
    variance = covariance.diagonal().clamp(min=0)
    if not variance.any():
        raise DataError(f"{teacher} has the same embedding of every training video.", "Remove this teacher.")
    if kind == "center":
        return Transform(mean, torch.ones_like(mean))
    if kind == "zscore":
        return Transform(mean, inverse_deviation(variance))
    return Transform(mean, isotropic(*eigen(covariance)))


def inverse_deviation(variance: Tensor) -> Tensor:
    """Inverse standard deviation [D] of each dimension; zero for constant dimensions."""
    varies = variance.sqrt() > _CONSTANT * variance.mean().sqrt()
    return torch.where(varies, variance.clamp(min=torch.finfo(variance.dtype).tiny).rsqrt(), 0.0)


def eigen(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [D], ascending and non-negative, and eigenvectors [D, D] with positive largest entry.

    Fixing the signs makes the result independent of the linear algebra library.
    """
    values, vectors = torch.linalg.eigh(covariance)
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    return values.clamp(min=0), vectors * largest.sign()


def isotropic(values: Tensor, vectors: Tensor) -> Tensor:
    """PHI-S: the matrix W [D, D] with ``diag(W C W^T) = 1`` and ``W^T W`` a multiple of the identity.

    Shapes:
        values: [D] eigenvalues of C.
        vectors: [D, D] eigenvectors in columns.
    """
    dim = len(values)
    signs = hadamard(dim)
    rotation = spreading(values) if signs is None else signs.double() / math.sqrt(dim)
    return rotation @ vectors.mT / values.mean().sqrt()


def hadamard(size: int) -> Tensor | None:
    """Hadamard matrix [D, D] int64; None for sizes without a known construction.

    Sylvester's construction for powers of two, else its product with one of Paley's.
    """
    import scipy.linalg  # 40 ms, and only few runs need it

    if size & (size - 1) == 0:
        return torch.from_numpy(scipy.linalg.hadamard(size, dtype=int))
    power = (size & -size) // 2
    while power:
        paley = _paley(size // power)
        if paley is not None:
            return torch.kron(torch.from_numpy(scipy.linalg.hadamard(power, dtype=int)), paley)
        power //= 2
    return None


def _paley(size: int) -> Tensor | None:
    """Paley's first or second construction (J. Math. Phys. 12, 1933), for prime fields."""
    prime = size - 1
    if _is_prime(prime) and prime % 4 == 3:
        matrix = torch.ones(size, size, dtype=torch.int64)
        matrix[1:, 0] = -1
        matrix[1:, 1:] = _residues(prime) + torch.eye(prime, dtype=torch.int64)
        return matrix
    prime = size // 2 - 1
    if size % 2 == 0 and _is_prime(prime) and prime % 4 == 1:
        conference = torch.ones(size // 2, size // 2, dtype=torch.int64)
        conference[0, 0] = 0
        conference[1:, 1:] = _residues(prime)
        of_signs, of_zeros = torch.tensor([[1, 1], [1, -1]]), torch.tensor([[1, -1], [-1, -1]])
        return torch.kron(conference, of_signs) + torch.kron(
            torch.eye(size // 2, dtype=torch.int64), of_zeros
        )
    return None


def _residues(prime: int) -> Tensor:
    """Jacobsthal matrix [q, q]: 1 if i - j is a non-zero square in the field, -1 if not, 0 if i = j."""
    character = torch.full((prime,), -1, dtype=torch.int64)
    character[[k * k % prime for k in range(1, prime)]] = 1
    character[0] = 0
    numbers = torch.arange(prime)
    return character[(numbers[:, None] - numbers) % prime]


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))


def spreading(values: Tensor) -> Tensor:
    """Orthogonal matrix R [D, D] such that ``R diag(values) R^T`` has a constant diagonal, for any D.

    Uses D - 1 plane rotations. Each rotates the dimensions with the smallest and the largest variance until
    the first has the mean (constructive proof of the Schur-Horn theorem).
    """
    dim, mean = len(values), values.mean()
    rotation, covariance = torch.eye(dim, dtype=values.dtype), values.diag()
    pending = torch.ones(dim, dtype=torch.bool)
    for _ in range(dim - 1):
        variance = covariance.diagonal()
        low = int(variance.masked_fill(~pending, torch.inf).argmin())
        high = int(variance.masked_fill(~pending, -torch.inf).argmax())
        pending[low] = False
        if low == high or variance[high] <= mean:
            continue
        plane = [low, high]
        turn = _turn(variance[low] - mean, covariance[low, high], variance[high] - mean)
        rotation[plane] = turn @ rotation[plane]
        covariance[plane] = turn @ covariance[plane]
        covariance[:, plane] = covariance[:, plane] @ turn.mT
    return rotation


def _turn(below: Tensor, product: Tensor, above: Tensor) -> Tensor:
    """Plane rotation [2, 2] that changes the first variance to the mean.

    Args:
        below: First variance minus the mean, at most zero.
        product: Covariance of the two dimensions.
        above: Second variance minus the mean, above zero.
    """
    # Solve below + 2 t product + t^2 above = 0; both solutions are real.
    tangent = (-product + (product.square() - above * below).clamp(min=0).sqrt()) / above
    cosine = (1 + tangent.square()).rsqrt()
    sine = tangent * cosine
    return torch.stack([torch.stack([cosine, sine]), torch.stack([-sine, cosine])])
