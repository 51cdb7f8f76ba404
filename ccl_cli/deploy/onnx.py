"""A student as others run it: bytes in, scores and feature out, in a file that needs no ccl."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.transforms import normalize
from ccl_cli.errors import CclError, PluginError, SystemSetupError
from ccl_cli.students import Student

if TYPE_CHECKING:
    from torch.export import ExportedProgram

INPUT, OUTPUTS, BATCH = "clips", ("logits", "feature"), "batch"
TRACED = 2  # clips; a graph that was traced with one could take it for a constant
# Clips [B, 3, T, S, S] uint8 to the outputs by name: [B, K] and [B, D] float32.
Network = Callable[[Tensor], Mapping[str, Tensor]]


class Deployed(nn.Module):
    """A student with its normalisation, so that nobody has to know its mean and deviation.

    Args:
        student: The network.
        clip: Its view of a video.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, student: Student, clip: Clip) -> None:
        super().__init__()
        self.student = student
        self.register_buffer("mean", torch.tensor(clip.mean))
        self.register_buffer("std", torch.tensor(clip.std))
        self.eval().requires_grad_(False)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Run the network.

        Shapes:
            clips: [B, 3, T, S, S] uint8 RGB, as decoded.
            returns: "logits" [B, K] and "feature" [B, D], float32.
        """
        output = self.student(normalize(clips, self.mean, self.std))
        return {"logits": output.logits, "feature": output.feature}


def trace(network: Deployed, clip: Clip, name: str) -> ExportedProgram:
    """Record what a network computes, for any number of clips.

    Args:
        network: The network.
        clip: Length and size of its clips.
        name: The student's, for errors.

    Raises:
        PluginError: its Python code cannot be traced.
    """
    example = torch.zeros(TRACED, 3, clip.frames, clip.size, clip.size, dtype=torch.uint8)
    try:
        program = torch.export.export(
            network, (example,), dynamic_shapes=({0: torch.export.Dim(BATCH, min=1)},)
        )
    except Exception as error:  # it runs the student's own code
        raise _refused(f"The student '{name}' cannot be traced", error) from error
    for node in program.graph.nodes:  # where the code lay on this machine concerns nobody
        node.meta.pop("stack_trace", None)
    return program


def write_torch(program: ExportedProgram, path: Path, record: Mapping[str, Any]) -> None:
    """Write a ``torch.export`` file, with the record beside the graph as ``export.json``."""
    file = io.BytesIO()  # torch's own writing ends the process where the disk is full
    torch.export.save(program, file, extra_files={"export.json": json.dumps(record)})
    path.write_bytes(file.getbuffer())


def write_onnx(program: ExportedProgram, path: Path, record: Mapping[str, Any], name: str) -> None:
    """Write an ONNX file; each entry of the record is a property of the model, as JSON.

    Args:
        program: What was traced.
        path: The file.
        record: What its users must know.
        name: The student's, for errors.

    Raises:
        PluginError: the student computes something that ONNX has no operator for.
    """
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch 2.11 calls a function of its own that it has deprecated.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            onnx: Any = torch.onnx.export(
                program, (), input_names=[INPUT], output_names=list(OUTPUTS), verbose=False
            )
    except Exception as error:  # the exporter wraps whatever its parts raise
        hint = "--format torch writes the other file."
        raise _refused(f"The student '{name}' cannot be written as ONNX", error, hint) from error
    finally:
        exporter.setLevel(level)
    model: Any = onnx.model
    onnx.rename_axes({model.graph.inputs[0].shape[0]: BATCH})
    for node in model.graph.all_nodes():
        node.metadata_props.clear()  # as large as the graph, and with paths of this machine
    model.metadata_props.update({key: json.dumps(value) for key, value in record.items()})
    onnx.save(path)


def open_torch(path: Path) -> Network:
    """The network in a ``torch.export`` file."""
    with warnings.catch_warnings():
        # torch 2.11 reads weights into memory that it must not write to; neither do we.
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        network: Network = torch.export.load(path).module()
    return network


def open_onnx(path: Path) -> Network:
    """The network in an ONNX file, on the CPU, with as many threads as torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(clips: Tensor) -> dict[str, Tensor]:
        arrays = session.run(list(OUTPUTS), {INPUT: clips.numpy()})
        return {name: torch.from_numpy(array) for name, array in zip(OUTPUTS, arrays, strict=True)}

    return run


def need_onnx() -> None:
    """Make sure that ONNX files can be written and run.

    Raises:
        SystemSetupError: a package is absent.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SystemSetupError(
            f"ONNX files need the package '{error.name}', which is not installed.",
            "Install it with `pip install 'ccl-cli[export]'`, or write the other file alone: --format torch.",
        ) from error


def _refused(what: str, error: Exception, hint: str | None = None) -> CclError:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return PluginError(f"{what}: {lines[0].rstrip('.')}.", hint)
