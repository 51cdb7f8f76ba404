"""An ONNX file in eight bits, and what that costs.

Weights are quantised by channel, activations by the ranges that some clips show (static quantisation). The
dynamic kind finds the ranges anew for every clip and has no fast convolution over time: several times slower
than float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from ccl_cli.config.recipe import Clip
from ccl_cli.data.manifest import Video
from ccl_cli.deploy.example_clips import center_clips, spread
from ccl_cli.deploy.onnx import INPUT, Network
from ccl_cli.utils.progress import Reporter

CALIBRATION = 32  # clips whose activations set the ranges
JUDGED = 1000  # test videos, at most


def quantize(path: Path, target: Path, clips: Tensor) -> None:
    """Write a network's int8 version.

    Args:
        path: The float32 ONNX file.
        target: The int8 one.
        clips: What sets the ranges of its activations.

    Shapes:
        clips: [n, 3, T, S, S] uint8.
    """
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryDirectory(dir=target.parent) as scratch:
        prepared = Path(scratch, "prepared.onnx")
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            target,
            _Clips(clips),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def top1(networks: Mapping[str, Network], videos: Sequence[Video], clip: Clip) -> dict[str, Any]:
    """How many videos each network names rightly from one clip, the middle one.

    One that cannot be read counts as an error.

    Returns:
        Percent by network, the number of videos, and how often all networks say the same, in percent.
    """
    chosen = spread(videos, JUDGED)
    right, agreed = dict.fromkeys(networks, 0), 0
    with Reporter("top-1", len(chosen), unit="video") as reporter:
        for video, view in center_clips(chosen, clip):
            if view is not None:
                best = {name: int(run(view[None])["logits"].argmax()) for name, run in networks.items()}
                right = {name: count + (best[name] == video.label) for name, count in right.items()}
                agreed += len(set(best.values())) == 1
            reporter.advance()
    percent = {name: 100 * count / len(chosen) for name, count in right.items()}
    return {"top1": percent, "agree": 100 * agreed / len(chosen), "videos": len(chosen), "of": len(videos)}


class _Clips:
    """Hands clips to the quantiser, one at a time."""

    def __init__(self, clips: Tensor) -> None:
        self.rest = iter(clips)

    def get_next(self) -> dict[str, Any] | None:
        clip = next(self.rest, None)
        return None if clip is None else {INPUT: clip[None].numpy()}
