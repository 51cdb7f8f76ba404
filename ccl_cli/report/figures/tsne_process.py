"""t-SNE in a process of its own: scikit-learn occupies 130 MB, which are free again when the process ends.

``python -m ccl_cli.report.figures.tsne_process`` reads features and writes points, both as npy.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccl_cli.errors import SystemSetupError


def tsne_points(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Project features [V, D] to points [V, 2].

    Raises:
        SystemSetupError: the process failed.
    """
    command = [sys.executable, "-m", __spec__.name]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, input=_npy(features), capture_output=True, env=environment)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise SystemSetupError(f"The t-SNE failed: {reason or f'exit code {done.returncode}'}.")
    return _array(done.stdout)


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _array(npy: bytes) -> NDArray[Any]:
    array: NDArray[Any] = np.load(io.BytesIO(npy), allow_pickle=False)
    return array


def _main() -> None:
    from sklearn.manifold import TSNE

    features = _array(sys.stdin.buffer.read())
    perplexity = min(30.0, (len(features) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
    sys.stdout.buffer.write(_npy(points.astype(np.float64)))


if __name__ == "__main__":
    _main()
