"""Arrays in shared memory, which data loader workers do not copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

_MAX_COPIED = 1 << 18  # bytes; smaller arrays are copied, which is cheaper than a file in shared memory


class SharedArray:
    """An array that is moved to torch's shared memory when it is pickled, once for all processes.

    Attributes:
        values: The array; read-only by convention.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values
        self._tensor: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.values.nbytes <= _MAX_COPIED:
            return SharedArray, (self.values,)
        if self._tensor is None:
            import torch  # already imported by data loaders

            tensor: Tensor = torch.from_numpy(self.values.copy())
            self._tensor = tensor.share_memory_()  # type: ignore[no-untyped-call]
            self.values = self._tensor.numpy()
        return _received, (self._tensor,)


def _received(tensor: Tensor) -> SharedArray:
    array = SharedArray(tensor.numpy())
    array._tensor = tensor  # it owns the memory
    return array
