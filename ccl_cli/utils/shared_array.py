"""Arrays that the processes of a data loader share instead of copying."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

_COPIED = 1 << 18  # bytes up to which a copy costs less than a file in shared memory


class SharedArray:
    """An array that reaches another process through torch's shared memory, once for all processes.

    Attributes:
        values: The array; it must not be written to.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values
        self._tensor: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.values.nbytes <= _COPIED:
            return SharedArray, (self.values,)
        if self._tensor is None:
            import torch  # loaders of batches have imported it

            tensor: Tensor = torch.from_numpy(self.values.copy())
            self._tensor = tensor.share_memory_()  # type: ignore[no-untyped-call]
            self.values = self._tensor.numpy()
        return _received, (self._tensor,)


def _received(tensor: Tensor) -> SharedArray:
    array = SharedArray(tensor.numpy())
    array._tensor = tensor  # it owns the memory
    return array
