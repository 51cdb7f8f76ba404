"""Export formats: ``torch.export`` and ONNX files that map uint8 clips to logits and features."""

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
TRACED = 2  # clips; a batch size of one could be traced as a constant
# Maps clips [B, 3, T, S, S] uint8 to outputs by name: [B, K] and [B, D] float32.
Network = Callable[[Tensor], Mapping[str, Tensor]]


class Deployed(nn.Module):
    """A student including the normalisation of its input."""

    mean: Tensor
    std: Tensor

    def __init__(self, student: Student, clip: Clip) -> None:
        super().__init__()
        self.student = student
        self.register_buffer("mean", torch.tensor(clip.mean))
        self.register_buffer("std", torch.tensor(clip.std))
        self.eval().requires_grad_(False)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Map clips [B, 3, T, S, S] uint8 RGB, as decoded, to logits [B, K] and feature [B, D] float32."""
        output = self.student(normalize(clips, self.mean, self.std))
        return {"logits": output.logits, "feature": output.feature}


def trace(network: Deployed, clip: Clip, name: str) -> ExportedProgram:
    """Trace a network with a dynamic batch size; ``name`` is the student's, for errors.

    Raises:
        PluginError: the network cannot be traced.
    """
    example = torch.zeros(TRACED, 3, clip.frames, clip.size, clip.size, dtype=torch.uint8)
    try:
        program = torch.export.export(
            network, (example,), dynamic_shapes=({0: torch.export.Dim(BATCH, min=1)},)
        )
    except Exception as error:  # runs code of the student
        raise _refused(f"The student '{name}' cannot be traced", error) from error
    for node in program.graph.nodes:  # remove paths of this machine
        node.meta.pop("stack_trace", None)
    return program


def write_torch(program: ExportedProgram, path: Path, record: Mapping[str, Any]) -> None:
    """Write a ``torch.export`` file with the record as ``export.json``."""
    file = io.BytesIO()  # torch's file writer aborts the process on a full disk
    torch.export.save(program, file, extra_files={"export.json": json.dumps(record)})
    path.write_bytes(file.getbuffer())


def write_onnx(program: ExportedProgram, path: Path, record: Mapping[str, Any], name: str) -> None:
    """Write an ONNX file with the entries of the record as metadata properties (JSON).

    Raises:
        PluginError: the network uses operations without an ONNX equivalent.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch 2.11 calls its own deprecated function.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            onnx: Any = torch.onnx.export(
                program, (), input_names=[INPUT], output_names=list(OUTPUTS), verbose=False
            )
    except Exception as error:  # the exporter wraps arbitrary exceptions
        hint = "Use --format torch to write only the torch.export file."
        raise _refused(f"The student '{name}' cannot be written as ONNX", error, hint) from error
    model: Any = onnx.model
    onnx.rename_axes({model.graph.inputs[0].shape[0]: BATCH})
    for node in model.graph.all_nodes():
        node.metadata_props.clear()  # large, and contains paths of this machine
    model.metadata_props.update({key: json.dumps(value) for key, value in record.items()})
    onnx.save(path)


def open_torch(path: Path) -> Network:
    """Load the network in a ``torch.export`` file."""
    with warnings.catch_warnings():
        # torch 2.11 loads weights into read-only memory, and nothing writes to them.
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        network: Network = torch.export.load(path).module()
    return network


def open_onnx(path: Path) -> Network:
    """Load the network in an ONNX file on the CPU, with torch's number of threads."""
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
    """Raise a SystemSetupError if a package for ONNX files is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SystemSetupError(
            f"ONNX files need the package '{error.name}', which is not installed.",
            "Install it with `pip install 'ccl-cli[export]'`, or use --format torch.",
        ) from error


def _refused(what: str, error: Exception, hint: str | None = None) -> CclError:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return PluginError(f"{what}: {lines[0].rstrip('.')}.", hint)
