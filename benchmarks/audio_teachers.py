"""How long audio teachers take for a track of ten seconds, with what the track is turned into.

    OMP_NUM_THREADS=1 python benchmarks/audio_teachers.py [--rounds 5] [--processor] [TEACHER ...]

In turns, one track at a time, on one core. Time does not depend on the weights: random ones do. Without
names, CNN14 and two widths of EfficientAT, whose package must be installed.
"""

from __future__ import annotations

import torch
from measuring import alternately, arguments, figure, heading, median, table, unit

from ccl_cli.config.spec import parse_model
from ccl_cli.training.build import load_teacher, parameter_count

TEACHERS = ("audio:cnn14", "audio:efficientat_mn04", "audio:efficientat_mn10")


def main() -> None:
    options = arguments(__doc__, ("teachers", {"nargs": "*", "default": TEACHERS}), rounds=5)
    torch.set_num_threads(1)
    teachers = {name: load_teacher(parse_model(f"{name}?weights=random")) for name in options.teachers}
    generator = torch.Generator().manual_seed(0)
    tracks = {
        name: torch.rand(1, *teacher.preprocess.shape, generator=generator) - 0.5
        for name, teacher in teachers.items()
    }
    heading("Audio teachers", "torch")
    with torch.inference_mode():
        works = {name: lambda name=name: teachers[name](tracks[name]) for name in teachers}
        seconds = alternately(works, options.rounds)
    first = median(next(iter(seconds.values())))
    rows = [
        [
            name,
            f"{parameter_count(teacher) / 1e6:.2f}",
            teacher.dim,
            figure(1e3 * median(seconds[name])),
            figure(first / median(seconds[name])),
        ]
        for name, teacher in teachers.items()
    ]
    table(["teacher", "parameters, M", "dim", f"{unit()} / 1000", "times as fast"], rows)


if __name__ == "__main__":
    main()
