"""S3D of torchvision: inception blocks with 3-D convolutions separated into space and time.

Xie et al., "Rethinking Spatiotemporal Feature Learning", ECCV 2018.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import video

from ccl_cli.errors import RecipeError
from ccl_cli.students import Student
from ccl_cli.students.weights import fill_student

# Ranges of torchvision's layers; each stage begins with a pooling layer.
_STAGES = ((1, 4), (4, 7), (7, 13), (13, 16))
# Minimum clip in frames and pixels: time is halved three times, space five times.
_MIN_FRAMES, _MIN_SIZE = 8, 32


class S3D(Student):
    """S3D student."""

    usual_clip = (16, 224)

    def check_clip(self, frames: int, size: int) -> None:
        """Require at least 8 frames of 32 pixels."""
        if frames < _MIN_FRAMES or size < _MIN_SIZE:
            raise RecipeError(
                f"S3D requires at least {_MIN_FRAMES} frames of {_MIN_SIZE} pixels, not {frames} of {size}.",
                f"Add --set clip.frames={max(frames, _MIN_FRAMES)} --set clip.size={max(size, _MIN_SIZE)}.",
            )


class _SlidingAverage(nn.Module):
    """Mean over sliding windows of a fixed size, or over the whole feature map if it is smaller."""

    def __init__(self, window: tuple[int, int, int]) -> None:
        super().__init__()
        self.window = window

    def forward(self, maps: Tensor) -> Tensor:
        window = [min(size, side) for size, side in zip(self.window, maps.shape[2:], strict=True)]
        return nn.functional.avg_pool3d(maps, window, stride=1).mean(dim=(2, 3, 4), keepdim=True)


def s3d(num_classes: int, *, weights: str | None = None, dropout: float = 0.2) -> Student:
    """S3D: 8.3 M parameters, 1,024 dimensions, 18 GMAC per clip of 16x224x224."""
    network = video.s3d(num_classes=num_classes)
    layers = list(network.features)
    stages = [nn.Sequential(*layers[start:end]) for start, end in _STAGES]
    pool = _SlidingAverage(network.avgpool.kernel_size)
    student = S3D(nn.ModuleList([layers[0], *stages]), 1024, num_classes, dropout, pool)
    # torchvision's classifier is a 1x1x1 convolution.
    convolution = network.classifier[1]
    network.classifier[1] = student.classifier
    network.classifier[1].weight = nn.Parameter(convolution.weight.detach().flatten(1))
    network.classifier[1].bias = convolution.bias

    def linear(state: dict[str, Tensor]) -> dict[str, Tensor]:
        weight = "classifier.1.weight"
        return state | ({weight: state[weight].flatten(1)} if weight in state else {})

    fill_student(student, network, weights, "classifier.1", linear)
    return student
