"""A recipe: everything that decides an experiment, validated, hashable, one YAML file.

Precedence, lowest first: defaults < recipe file < flag typed < ``--set a.b=c``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

T = TypeVar("T")


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if repeated := [value for value in values if values.count(value) > 1]:
        raise ValueError(f"{repeated[0]} is named twice")
    return values


def _not_dots(name: str) -> str:
    if not name.strip("."):
        raise ValueError("must be more than dots, which lead to another folder")
    return name


Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Triple = tuple[float, float, float]
Standardize = Literal["none", "center", "zscore", "phi_s"]
# A bare string for `teachers` in YAML means one teacher.
Teachers = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
]
# Keys that decide no figure of a run: its hash leaves them out.
ASIDE = (
    *("name", "description", "methods", "bench", "executor"),
    *("train.workers", "train.log_every", "train.checkpoint_every", "train.max_skipped"),
    *("train.trackers", "train.recompute"),
)
# Scores on held-out videos, which decide nothing unless `train.keep` or `train.patience` goes by them.
SCORES = ("train.eval_every", "train.eval_split", "train.eval_retrieval", "train.keep_by")
TrackerName = Literal[
    "aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb"
]
Trackers = Annotated[
    tuple[TrackerName, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    AfterValidator(_distinct),
]
Seeds = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1), AfterValidator(_distinct)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Augment(_Section):
    """What may happen to a training clip after crop and flip: one setting for all frames of a clip."""

    color_jitter: tuple[NonNegative, NonNegative, NonNegative, Annotated[float, Field(ge=0, le=0.5)]] = Field(
        (0.0, 0.0, 0.0, 0.0), description="Strength for brightness, contrast, saturation and hue."
    )
    color_jitter_p: Fraction = Field(0.8, description="Probability of colour jitter, if it has any strength.")
    grayscale: Fraction = Field(0.0, description="Probability of grey frames.")
    blur: Fraction = Field(0.0, description="Probability of a Gaussian blur, sigma 0.1 to 2 pixels.")
    rand_augment: NonNegativeInt = Field(0, description="Operations of RandAugment on each clip.")
    magnitude: Annotated[int, Field(ge=0, le=30)] = Field(9, description="Of RandAugment, up to 30.")
    erase: Fraction = Field(0.0, description="Probability that a rectangle is erased.")


class Clip(_Section):
    """The student's view of a video."""

    frames: PositiveInt = Field(16, description="Frames per clip.")
    sampling: Literal["dense", "segments"] = Field(
        "dense",
        description="dense: frames at equal distances; segments: one frame of each of `frames` equal parts "
        "of the video (TSN), a random one in training and the one in its centre at test time.",
    )
    stride: PositiveInt = Field(1, description="Of dense: every n-th frame of the file.")
    fps: Positive | None = Field(
        None, description="Of dense: frames per second, whatever the file's rate; default: every stride-th."
    )
    size: PositiveInt = Field(112, description="Height and width the student sees, pixels.")
    short_side: PositiveInt = Field(256, description="Frames are decoded at most this large, pixels.")
    scale: tuple[Fraction, Fraction] = Field((0.25, 1.0), description="Area of the random crop.")
    ratio: tuple[float, float] = Field((3 / 4, 4 / 3), description="Aspect ratio of the random crop.")
    flip: Fraction = Field(0.5, description="Probability of a horizontal flip.")
    augment: Augment = Augment()
    mean: Triple = Field((0.4345, 0.4051, 0.3775), description="Kinetics mean, RGB in [0, 1].")
    std: tuple[Positive, Positive, Positive] = Field(
        (0.2768, 0.2713, 0.2737), description="Kinetics standard deviation."
    )

    @property
    def span(self) -> int:
        """Frames of the file from the first to the last of a dense clip, if ``fps`` is None."""
        return (self.frames - 1) * self.stride + 1

    @property
    def spacing(self) -> str:
        """How its frames lie, in words after their number; "" of consecutive ones."""
        if self.sampling == "segments":
            return " of equal parts"
        if self.fps is not None:
            return f" at {self.fps:g} per second"
        return f", {self.stride} apart" if self.stride > 1 else ""

    @property
    def consecutive(self) -> bool:
        """Whether a clip is made of consecutive frames."""
        return not self.spacing

    @model_validator(mode="after")
    def _one_distance(self) -> Self:
        if self.stride > 1 and self.fps is not None:
            raise ValueError("stride and fps both set the distance between frames: leave one of them out")
        if self.sampling == "segments" and (self.stride > 1 or self.fps is not None):
            raise ValueError("segments cover the whole video and have no stride or fps: leave these out")
        return self

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high:
                raise ValueError(f"{name} must be two numbers above 0, the smaller one first")
        return self


class Optim(_Section):
    """The optimiser and the schedule of its learning rate."""

    name: str = Field("sgd", description="Optimiser by timm's name: sgd, adamw, lamb, ...")
    lr: float = Field(1e-3, gt=0, description="Learning rate.")
    momentum: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="Momentum, of optimisers that have one (official code; not in the paper).",
    )
    nesterov: bool = Field(False, description="Of sgd: Nesterov momentum.")
    weight_decay: float = Field(5e-4, ge=0, description="Weight decay.")
    norm_weight_decay: bool = Field(
        True, description="Whether weight decay also acts on biases and normalisation layers."
    )
    layer_decay: float | None = Field(
        None, gt=0, le=1, description="Factor on the rate of each block of the student for the one before it."
    )
    options: dict[str, Any] = Field(
        {}, description="What else the optimiser takes, e.g. {betas: [0.9, 0.98]} of adamw."
    )
    schedule: Literal["step", "cosine", "linear", "constant"] = Field(
        "step",
        description="step: the rate drops at milestones; cosine, linear: it falls to min_lr with every step.",
    )
    milestones: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (0.5, 0.75),
        description="Of step: where it drops, a share of the run below 1, else an epoch (official code).",
    )
    gamma: float = Field(0.1, gt=0, description="Of step: factor at each milestone (official code).")
    min_lr: float = Field(
        0.0, ge=0, description="Of cosine and linear: the rate at the end; absolute, like lr."
    )
    warmup_epochs: float = Field(
        0.0,
        ge=0,
        description="Epochs, or a part of one, in which the rate rises with every step from lr / 10 to lr.",
    )
    head_lr_decay: bool = Field(
        True,
        description="Whether the method's own layers follow the schedule and warm up; else they keep to lr.",
    )
    clip_norm: float | None = Field(None, gt=0, description="Clip the gradient's norm.")

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and self.name != "sgd":
            raise ValueError(f"nesterov is for sgd, and the optimiser is {self.name}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    @model_validator(mode="after")
    def _min_lr_is_reached(self) -> Self:
        if self.min_lr and self.schedule not in ("cosine", "linear"):
            raise ValueError(f"min_lr is for cosine and linear, and the schedule is {self.schedule}")
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr, {self.min_lr:g}, is above lr, {self.lr:g}")
        return self


class Train(_Section):
    """The run."""

    epochs: PositiveInt = Field(300, description="Passes over the training split (official code).")
    batch_size: PositiveInt = Field(16, description="Videos per step over all processes together.")
    accumulation: PositiveInt = Field(1, description="Micro-batches per step; contrast stays within one.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 on a GPU that has it, else fp32."
    )
    seed: NonNegativeInt = Field(0, description="Seed of everything random.")
    workers: NonNegativeInt = Field(2, description="Decoding processes per training process.")
    log_every: PositiveInt = Field(10, description="Steps between lines in metrics.jsonl.")
    checkpoint_every: NonNegativeInt = Field(
        0, description="Steps between checkpoints; 0: at the end of each epoch."
    )
    max_steps: NonNegativeInt = Field(0, description="Stop after this many steps; 0: run all epochs.")
    max_skipped: PositiveInt = Field(
        10, description="Steps in a row without a finite loss and gradient after which the run stops."
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay of a moving average of the weights, then published, e.g. 0.9998; 0: none.",
    )
    ema_warmup: bool = Field(
        True, description="Whether that decay rises from 0 with the steps, by timm's formula."
    )
    eval_every: NonNegativeInt = Field(
        0, description="Epochs between scores on held-out videos, a val split or `holdout`; 0: none."
    )
    eval_split: Literal["val", "test"] = Field("val", description="Which videos those scores are of.")
    eval_retrieval: bool = Field(
        False, description="Score R@1 too, for which the training videos are read as well."
    )
    keep: Literal["last", "best"] = Field(
        "last", description="Which weights are published: the last step's, or those that scored best."
    )
    keep_by: Literal["top1", "loss", "r1"] = Field("top1", description="Figure that tells which is better.")
    patience: NonNegativeInt = Field(
        0, description="Scores in a row without a better one after which the run ends; 0: never."
    )
    channels_last: bool = Field(True, description="channels_last_3d memory format.")
    compile: bool = Field(False, description="torch.compile the student.")
    recompute: bool = Field(
        False, description="Activation checkpointing: much less memory, about a third more time."
    )
    trackers: Trackers = Field((), description="Where figures go besides metrics.jsonl: trackers by name.")
    sync_batchnorm: bool = Field(
        True, description="Batch-norm statistics over all processes; off: each its own, a little faster."
    )

    @model_validator(mode="after")
    def _scores_are_made(self) -> Self:
        if self.chooses and not self.eval_every:
            key = "keep: best" if self.keep == "best" else "patience"
            raise ValueError(f"{key} goes by scores on held-out videos; set eval_every too, for example to 1")
        if self.keep_by == "r1" and not self.eval_retrieval:
            raise ValueError("keep_by: r1 needs eval_retrieval: true, which reads the training videos too")
        return self

    @property
    def chooses(self) -> bool:
        """Whether scores on held-out videos decide which weights are published, or when the run ends."""
        return self.keep == "best" or self.patience > 0


class Cache(_Section):
    """Embeddings of the frozen teachers, computed once and read in training instead of run anew."""

    # YAML reads a bare `off` as false.
    use: Annotated[
        Literal["auto", "off", "build"], BeforeValidator(lambda value: "off" if value is False else value)
    ] = Field(
        "auto",
        description="auto: read a cache where a live teacher would see the same; build: read it anyway, and "
        "make what is lacking; off: run the teachers.",
    )
    views: PositiveInt = Field(
        8,
        description="Frames of each video that a teacher of single frames is shown (clips, if it looks at "
        "clips); one is drawn per step.",
    )


class Evaluation(_Section):
    """Clips of every test video (and, for retrieval, every training video), whose scores are averaged."""

    batch_size: PositiveInt = Field(32, description="Windows per forward pass.")
    stride: PositiveInt = Field(16, description="Frames between starts of sliding windows.")
    clips: NonNegativeInt = Field(
        0,
        description="Clips spread evenly over each video; 0: sliding windows, or one clip of segments.",
    )
    crops: Literal[1, 3] = Field(
        1, description="Of each clip: 1: the centre; 3: the centre and both ends of the longer side."
    )


class Tune(_Section):
    """How a benchmark chooses each method's weight: on videos held out of the training split."""

    data: str | None = Field(
        None, description="Another data set to choose on, e.g. another world; default: the benchmark's own."
    )
    grid: Annotated[tuple[Positive, ...], AfterValidator(_distinct)] = Field(
        (0.01, 0.1, 1.0, 10.0), min_length=1, description="Factors on a method's own weight."
    )
    holdout: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="Share of the training split to choose on, if the data set has no val split."
    )
    seeds: Seeds = Field((0,), description="Seeds of each choice.")
    epochs: PositiveInt | None = Field(None, description="Shorter runs for the choice; default: full ones.")


class Bench(_Section):
    """A benchmark: what `ccl bench` trains besides the recipe itself.

    A method is a name (``ccl+pkt``), or a section of recipe keys laid over the recipe; ``setups`` in it lists
    the columns that the row is run in, if not all.
    """

    setups: dict[str, Teachers] = Field(min_length=1, description="Columns: teachers by name, e.g. AI.")
    methods: dict[str, str | dict[str, Any]] = Field(min_length=1, description="Rows of the main tables.")
    ablations: dict[str, str | dict[str, Any]] = Field({}, description="Rows of the ablation table.")
    rows: tuple[str, ...] = Field((), description="Labels of the rows to run; default: all.")
    weights: dict[str, dict[str, Positive]] = Field(
        {}, description="Factor on a row's own weight by setup, e.g. as an earlier `--tune` chose it."
    )
    seeds: Seeds = Field((0, 1, 2), description="Runs of each cell.")
    tune: Tune | None = Field(None, description="Choose one weight per method; default: published weights.")

    @model_validator(mode="after")
    def _labels(self) -> Self:
        if repeated := sorted(set(self.methods) & set(self.ablations)):
            raise ValueError(f"'{repeated[0]}' is a method and an ablation")
        if unknown := [row for row in self.rows if row not in {*self.methods, *self.ablations}]:
            raise ValueError(f"there is no row '{unknown[0]}'")
        if unknown := [row for row in self.weights if row not in self.methods]:
            raise ValueError(f"weights: there is no method '{unknown[0]}'")
        if unknown := [name for by in self.weights.values() for name in by if name not in self.setups]:
            raise ValueError(f"weights: there is no setup '{unknown[0]}'")
        for row in (self.methods | self.ablations).values():
            if unknown := [name for name in columns(row) or () if name not in self.setups]:
                raise ValueError(f"there is no setup '{unknown[0]}'")
        return self


def columns(row: str | dict[str, Any]) -> tuple[str, ...] | None:
    """The setups that a benchmark's row names; None: it names none, so all."""
    named = row.get("setups") if isinstance(row, dict) else None
    if named is None:
        return None
    return tuple(map(str, named)) if isinstance(named, list | tuple) else (str(named),)


class Executor(_Section):
    """Who does the runs of a benchmark, and other work that falls into parts.

    Each key can be set for a machine too: CCL_EXECUTOR_PARTITION=gpu stands for `partition: gpu`, and
    CCL_EXECUTOR=slurm for `name: slurm`.
    """

    name: str = Field("local", description="local: this machine; slurm: an array of Slurm jobs.")
    jobs: PositiveInt | None = Field(
        None, description="Items at once on one machine; default one per GPU, or one on a CPU."
    )
    seconds: NonNegative = Field(0.0, description="What one item may take; 0: any time.")
    tasks: PositiveInt = Field(
        4, description="Of slurm: tasks of the array; each does its share, `jobs` items at once."
    )
    parallel: NonNegativeInt = Field(0, description="Of slurm: tasks that run at once; 0: all.")
    partition: str = Field("", description="Of slurm: as sbatch takes it.")
    account: str = Field("", description="Of slurm: as sbatch takes it.")
    gpus: NonNegativeInt = Field(0, description="Of slurm: GPUs of a task.")
    cpus: NonNegativeInt = Field(0, description="Of slurm: cores of a task; 0: the cluster's default.")
    memory: str = Field("", description="Of slurm: memory of a task, for example 64G.")
    time: str = Field(
        "",
        description="Of slurm: limit of a task, for example 08:00:00; two minutes before it saves and is "
        "queued again.",
    )
    options: dict[str, str | int] = Field(
        {}, description="Of slurm: what else sbatch takes, for example {constraint: a100}."
    )
    poll: Positive = Field(10.0, description="Of slurm: seconds between looks at the queue.")


class Recipe(_Section):
    """One experiment."""

    name: Annotated[str, AfterValidator(_not_dots)] = Field(
        "run", pattern=r"^[\w.-]+$", description="Names the run's folder."
    )
    description: str = Field("", description="One line for `ccl recipes ls`.")
    data: str | None = Field(None, description="Data set: source:location?key=value.")
    teachers: Teachers = Field((), description="modality:name@weights?key=value, any number.")
    student: str = Field("r2plus1d_18", description="name@weights?key=value.")
    method: dict[str, dict[str, Any]] = Field(
        {"ccl": {}}, min_length=1, description="Methods and their options; their terms are added."
    )
    methods: dict[str, dict[str, Any]] = Field(
        {},
        description="Recipe keys that go with a method where `--method`, or a row of a benchmark, names it.",
    )
    ce_weight: float = Field(1.0, ge=0, description="Weight of the student's own cross-entropy.")
    standardize: dict[str, Standardize] = Field(
        {},
        description="How each teacher's embeddings are standardised: none, center, zscore or phi_s, by the "
        "teacher's name; '*': all others; one word: all.",
    )
    max_unreadable: Fraction = Field(
        0.05, description="Share of a split's videos that may be missing or corrupt before the run stops."
    )
    holdout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of the training split set aside as the val split."
    )
    labels_per_class: NonNegativeInt | None = Field(
        None,
        description="Train with the labels of so many videos of each class, the others count as unlabelled; "
        "0: without any; default: with all.",
    )
    labels_seed: NonNegativeInt = Field(
        0, description="Which videos keep their labels; of one seed, the fewer are among the more."
    )
    clip: Clip = Clip()
    optim: Optim = Optim()
    train: Train = Train()
    cache: Cache = Cache()
    eval: Evaluation = Evaluation()
    bench: Bench | None = Field(None, description="Rows and columns of `ccl bench`.")
    executor: Executor = Executor()

    @field_validator("method", mode="before")
    @classmethod
    def _method_shorthand(cls, value: Any) -> Any:
        return methods_section(value)

    @field_validator("standardize", mode="before")
    @classmethod
    def _standardize_shorthand(cls, value: Any) -> Any:
        return {"*": value} if isinstance(value, str) else value

    @field_validator("teachers")
    @classmethod
    def _teachers_unique(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("the same teacher is named twice")
        return value

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        warm_up, epochs = self.optim.warmup_epochs, self.train.epochs
        if warm_up >= epochs:
            raise ValueError(f"optim.warmup_epochs, {warm_up:g}, must be below train.epochs, {epochs}")
        return self

    def method_changes(self, name: str) -> dict[str, Any]:
        """The recipe keys that ``--method name`` lays over this recipe: the method, and what goes with it."""
        return {"method": name, **self.methods.get(name, {})}

    @property
    def method_label(self) -> str:
        """``ccl`` or ``ccl+pkt``."""
        return "+".join(self.method)

    def without(self, keys: Iterable[str]) -> dict[str, Any]:
        """The recipe as plain values, without some sections (``bench``) and entries (``train.workers``)."""
        exclude: dict[str, Any] = {}
        for section, _, entry in (key.partition(".") for key in keys):
            if entry:
                exclude.setdefault(section, set()).add(entry)
            else:
                exclude[section] = True
        return self.model_dump(mode="json", exclude=exclude)

    def hash(self) -> str:
        """Eight hex digits over everything that decides the experiment's result; its name does not."""
        aside = ASIDE if self.train.chooses else (*ASIDE, *SCORES)
        text = json.dumps(self.without(aside), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def methods_section(value: Any) -> Any:
    """Write out the short form: ``ccl+pkt`` stands for both methods with their default options."""
    if isinstance(value, str):
        return {name.strip(): {} for name in value.split("+")}
    return {name: options or {} for name, options in value.items()} if isinstance(value, dict) else value
