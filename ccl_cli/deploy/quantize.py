"""int8 quantisation of ONNX files, and its effect on accuracy.

Static quantisation: weights per channel, activations with ranges from calibration clips. Dynamic quantisation
computes the ranges for every clip and has no fast 3-D convolution, so it is several times slower than
float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from ccl_cli.config.recipe import Clip
from ccl_cli.data.manifest import Video
from ccl_cli.deploy.example_clips import centre_clips, spread
from ccl_cli.deploy.onnx import INPUT, Network
from ccl_cli.utils.progress import Reporter

CALIBRATION = 32  # calibration clips
_MAX_VIDEOS = 1000  # test videos for accuracy


def quantize(path: Path, target: Path, clips: Tensor) -> None:
    """Write the int8 version of an ONNX file, calibrated on clips [n, 3, T, S, S] uint8."""
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    batches = ({INPUT: clip[None].numpy()} for clip in clips)
    reader = SimpleNamespace(get_next=lambda: next(batches, None))
    with TemporaryDirectory(dir=target.parent) as scratch:
        prepared = Path(scratch, "prepared.onnx")
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            target,
            reader,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def top1(networks: Mapping[str, Network], videos: Sequence[Video], clip: Clip) -> dict[str, Any]:
    """Measure the top-1 accuracy of networks on the centre clips of videos, and their agreement, in percent.

    Unreadable videos count as errors.
    """
    chosen = spread(videos, _MAX_VIDEOS)
    right, agreed = dict.fromkeys(networks, 0), 0
    with Reporter("top-1", len(chosen), unit="video") as reporter:
        for video, view in centre_clips(chosen, clip):
            if view is not None:
                best = {name: int(run(view[None])["logits"].argmax()) for name, run in networks.items()}
                right = {name: count + (best[name] == video.label) for name, count in right.items()}
                agreed += len(set(best.values())) == 1
            reporter.advance()
    percent = {name: 100 * count / len(chosen) for name, count in right.items()}
    return {"top1": percent, "agree": 100 * agreed / len(chosen), "videos": len(chosen), "of": len(videos)}
