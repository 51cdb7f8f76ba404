"""Recipe models: the validated settings of an experiment, stored as YAML.

Precedence, lowest first: defaults < recipe file < command-line option < ``--set a.b=c``.
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


_listed = BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)


def _not_dots(name: str) -> str:
    if not name.strip("."):
        raise ValueError("must not consist of dots only, because it names a folder")
    return name


Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Triple = tuple[float, float, float]
Standardize = Literal["none", "center", "zscore", "phi_s"]
Teachers = Annotated[tuple[str, ...], _listed, AfterValidator(_distinct)]
# Keys that do not affect the results of a run. The hash of a recipe ignores them.
ASIDE = (
    *("name", "description", "methods", "bench", "executor"),
    *("train.workers", "train.log_every", "train.checkpoint_every", "train.max_skipped"),
    *("train.trackers", "train.recompute"),
)
# Keys of validation during training. They affect results only if `train.keep` or `train.patience` uses them.
SCORES = ("train.eval_every", "train.eval_split", "train.eval_retrieval", "train.keep_by")
TrackerName = Literal[
    "aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb"
]
Trackers = Annotated[tuple[TrackerName, ...], _listed, AfterValidator(_distinct)]
Seeds = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1), AfterValidator(_distinct)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Augment(_Section):
    """Augmentation of training clips after crop and flip; all frames of a clip get the same parameters."""

    color_jitter: tuple[NonNegative, NonNegative, NonNegative, Annotated[float, Field(ge=0, le=0.5)]] = Field(
        (0.0, 0.0, 0.0, 0.0), description="Jitter strength of brightness, contrast, saturation and hue."
    )
    color_jitter_p: Fraction = Field(0.8, description="Probability of colour jitter.")
    grayscale: Fraction = Field(0.0, description="Probability of converting the clip to greyscale.")
    blur: Fraction = Field(0.0, description="Probability of Gaussian blur with sigma 0.1 to 2 pixels.")
    rand_augment: NonNegativeInt = Field(0, description="Number of RandAugment operations per clip.")
    magnitude: Annotated[int, Field(ge=0, le=30)] = Field(
        9, description="Magnitude of RandAugment, from 0 to 30."
    )
    erase: Fraction = Field(0.0, description="Probability of random erasing.")


class Clip(_Section):
    """Clips that the student is trained on: frame sampling, resolution and augmentation."""

    frames: PositiveInt = Field(16, description="Frames per clip.")
    sampling: Literal["dense", "segments"] = Field(
        "dense",
        description="dense: constant spacing; segments: a frame of each of `frames` equal segments (TSN).",
    )
    stride: PositiveInt = Field(1, description="Temporal stride of dense sampling, in frames of the file.")
    fps: Positive | None = Field(
        None, description="Frame rate of dense sampling. Default: use `stride` instead."
    )
    size: PositiveInt = Field(112, description="Height and width of the student's input, in pixels.")
    short_side: PositiveInt = Field(256, description="Maximum short side of decoded frames, in pixels.")
    scale: tuple[Fraction, Fraction] = Field(
        (0.25, 1.0), description="Range of the random crop's area, relative to the frame."
    )
    ratio: tuple[float, float] = Field((3 / 4, 4 / 3), description="Range of the random crop's aspect ratio.")
    flip: Fraction = Field(0.5, description="Probability of a horizontal flip.")
    augment: Augment = Augment()
    mean: Triple = Field(
        (0.4345, 0.4051, 0.3775), description="RGB mean for normalisation, in [0, 1]. Default: Kinetics."
    )
    std: tuple[Positive, Positive, Positive] = Field(
        (0.2768, 0.2713, 0.2737), description="RGB standard deviation for normalisation. Default: Kinetics."
    )

    @property
    def span(self) -> int:
        """Number of file frames that a dense clip spans, if ``fps`` is None."""
        return (self.frames - 1) * self.stride + 1

    @property
    def spacing(self) -> str:
        """Describe the frame spacing, to follow the number of frames; "" for consecutive frames."""
        if self.sampling == "segments":
            return " from equal segments"
        if self.fps is not None:
            return f" at {self.fps:g} per second"
        return f", {self.stride} apart" if self.stride > 1 else ""

    @property
    def consecutive(self) -> bool:
        """Whether a clip consists of consecutive frames."""
        return not self.spacing

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if sum([self.stride > 1, self.fps is not None, self.sampling == "segments"]) > 1:
            raise ValueError("stride, fps and segments all set the frame spacing: keep one of them")
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high:
                raise ValueError(f"{name} must be two numbers above 0, in ascending order")
        return self


class Optim(_Section):
    """Optimiser and learning rate schedule."""

    name: str = Field("sgd", description="Optimiser, by its name in timm: sgd, adamw, lamb, ...")
    lr: float = Field(1e-3, gt=0, description="Learning rate.")
    momentum: float = Field(
        0.9, ge=0, lt=1, description="Momentum, for optimisers that use it (official code; not in the paper)."
    )
    nesterov: bool = Field(False, description="Use Nesterov momentum with sgd.")
    weight_decay: float = Field(5e-4, ge=0, description="Weight decay.")
    norm_weight_decay: bool = Field(
        True, description="Apply weight decay to biases and normalisation layers too."
    )
    layer_decay: float | None = Field(
        None, gt=0, le=1, description="Factor of the learning rate from each block to the block before it."
    )
    options: dict[str, Any] = Field(
        {}, description="Further arguments of the optimiser, e.g. {betas: [0.9, 0.98]} for adamw."
    )
    schedule: Literal["step", "cosine", "linear", "constant"] = Field(
        "step",
        description="step: multiply by gamma at milestones; cosine, linear: decay to min_lr at every step.",
    )
    milestones: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (0.5, 0.75),
        description="Milestones: a fraction of the run if below 1, else an epoch (official code).",
    )
    gamma: float = Field(
        0.1, gt=0, description="Factor of the step schedule at each milestone (official code)."
    )
    min_lr: float = Field(0.0, ge=0, description="Final learning rate of the cosine and linear schedules.")
    warmup_epochs: float = Field(
        0.0, ge=0, description="Epochs of linear warm-up from lr / 10 to lr. May be fractional."
    )
    head_lr_decay: bool = Field(
        True, description="Apply schedule and warm-up to the layers of the method too."
    )
    clip_norm: float | None = Field(None, gt=0, description="Maximum gradient norm for clipping.")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.nesterov and not (self.name == "sgd" and self.momentum):
            raise ValueError("nesterov requires sgd with a momentum above 0")
        if self.min_lr and self.schedule not in ("cosine", "linear"):
            raise ValueError("min_lr requires the cosine or linear schedule")
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr ({self.min_lr:g}) must not exceed lr ({self.lr:g})")
        return self


class Train(_Section):
    """Training loop."""

    epochs: PositiveInt = Field(
        300, description="Number of passes over the training split (default from the official code)."
    )
    batch_size: PositiveInt = Field(16, description="Videos per step, summed over all processes.")
    accumulation: PositiveInt = Field(
        1, description="Micro-batches per step. Contrastive losses compare videos within a micro-batch only."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 on GPUs that support it, else fp32."
    )
    seed: NonNegativeInt = Field(0, description="Random seed.")
    workers: NonNegativeInt = Field(2, description="Decoding processes per training process.")
    log_every: PositiveInt = Field(10, description="Number of steps between lines of metrics.jsonl.")
    checkpoint_every: NonNegativeInt = Field(
        0, description="Number of steps between checkpoints; 0: at the end of each epoch."
    )
    max_steps: NonNegativeInt = Field(
        0, description="Stop after this number of steps; 0: train for all epochs."
    )
    max_skipped: PositiveInt = Field(
        10, description="Stop after this number of consecutive steps with a non-finite loss or gradient."
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay of a moving average of the weights to publish, e.g. 0.9998; 0: off.",
    )
    ema_warmup: bool = Field(
        True, description="Increase the decay of the moving average from 0 over the steps, as in timm."
    )
    eval_every: NonNegativeInt = Field(
        0, description="Epochs between evaluations on held-out videos (a val split or `holdout`); 0: off."
    )
    eval_split: Literal["val", "test"] = Field("val", description="Split to evaluate on during training.")
    eval_retrieval: bool = Field(
        False, description="Also evaluate R@1 during training. This reads the training videos as well."
    )
    keep: Literal["last", "best"] = Field(
        "last", description="Weights to publish: those of the last step or those with the best score."
    )
    keep_by: Literal["top1", "loss", "r1"] = Field(
        "top1", description="Metric that selects the best weights."
    )
    patience: NonNegativeInt = Field(
        0, description="Early stopping: number of consecutive evaluations without improvement; 0: off."
    )
    channels_last: bool = Field(True, description="Use the channels_last_3d memory format.")
    compile: bool = Field(False, description="Compile the student with torch.compile.")
    recompute: bool = Field(
        False, description="Activation checkpointing: saves much memory, takes a third more time."
    )
    trackers: Trackers = Field((), description="Experiment trackers to log to, in addition to metrics.jsonl.")
    sync_batchnorm: bool = Field(
        True, description="Synchronise batch-norm statistics over all processes; off is a little faster."
    )

    @model_validator(mode="after")
    def _scores_are_made(self) -> Self:
        if self.chooses and not self.eval_every:
            key = "keep: best" if self.keep == "best" else "patience"
            raise ValueError(f"{key} needs scores on held-out videos: set eval_every too, for example to 1")
        if self.keep_by == "r1" and not self.eval_retrieval:
            raise ValueError("keep_by: r1 needs eval_retrieval: true, which reads the training videos too")
        return self

    @property
    def chooses(self) -> bool:
        """Whether scores on held-out videos select the published weights or stop the run."""
        return self.keep == "best" or self.patience > 0


class Cache(_Section):
    """Cached embeddings of the frozen teachers."""

    # YAML parses an unquoted `off` as false.
    use: Annotated[
        Literal["auto", "off", "build"], BeforeValidator(lambda value: "off" if value is False else value)
    ] = Field(
        "auto",
        description="auto: read a cache if live teachers would get the same inputs; build: always read it, "
        "and compute missing embeddings; off: run the teachers.",
    )
    views: PositiveInt = Field(
        8, description="Cached views of each video, frames or clips. Each epoch draws one."
    )
    precision: Literal["fp32", "fp16"] = Field(
        "fp32", description="Precision of the cached embeddings. fp16: half the size, rounded to 11 bits."
    )


class Evaluation(_Section):
    """Evaluation: clips per video, whose scores and features are averaged."""

    batch_size: PositiveInt = Field(32, description="Windows per forward pass.")
    stride: PositiveInt = Field(16, description="Stride of the sliding windows, in frames.")
    clips: NonNegativeInt = Field(
        0, description="Clips spread evenly over each video; 0: sliding windows, or one clip of segments."
    )
    crops: Literal[1, 3] = Field(
        1, description="Crops of each clip. 1: centre; 3: centre and both ends of the longer side."
    )


class Tune(_Section):
    """Tuning of each method's loss weight in a benchmark, on videos held out of the training split."""

    data: str | None = Field(None, description="Data set for tuning. Default: the data set of the benchmark.")
    grid: Annotated[tuple[Positive, ...], AfterValidator(_distinct)] = Field(
        (0.01, 0.1, 1.0, 10.0), min_length=1, description="Factors on the loss weight of a method."
    )
    holdout: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="Fraction of the training split to hold out, if the data set has no val split."
    )
    seeds: Seeds = Field((0,), description="Seeds of the tuning runs.")
    epochs: PositiveInt | None = Field(None, description="Epochs of the tuning runs. Default: train.epochs.")


class Bench(_Section):
    """A benchmark for `ccl bench`: methods, teacher setups and seeds.

    A method is a name (``ccl+pkt``) or a section of recipe keys, which override the recipe. The key
    ``setups`` of a section restricts the row to these columns.
    """

    setups: dict[str, Teachers] = Field(
        min_length=1, description="Columns of the tables: teachers by setup name, e.g. AI."
    )
    methods: dict[str, str | dict[str, Any]] = Field(min_length=1, description="Rows of the main tables.")
    ablations: dict[str, str | dict[str, Any]] = Field({}, description="Rows of the ablation table.")
    rows: tuple[str, ...] = Field((), description="Labels of the rows to run. Default: all rows.")
    weights: dict[str, dict[str, Positive]] = Field(
        {}, description="Factors on the loss weights by row and setup, e.g. from `--tune`."
    )
    seeds: Seeds = Field((0, 1, 2), description="Seeds of each cell.")
    tune: Tune | None = Field(
        None, description="Tune one loss weight per method. Default: use the published weights."
    )

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
    """Return the setups that a row of a benchmark is restricted to, or None for all setups."""
    named = row.get("setups") if isinstance(row, dict) else None
    if named is None:
        return None
    return tuple(map(str, named)) if isinstance(named, list | tuple) else (str(named),)


class Executor(_Section):
    """Executor of benchmark runs and other divisible work.

    Environment variables can set the same keys for a machine: CCL_EXECUTOR_PARTITION=gpu sets `partition:
    gpu`, and CCL_EXECUTOR=slurm sets `name: slurm`.
    """

    name: str = Field("local", description="local: this machine; slurm: a Slurm job array; ray: Ray tasks.")
    jobs: PositiveInt | None = Field(
        None, description="Parallel work items per machine. Default: one per GPU, or one on a CPU."
    )
    seconds: NonNegative = Field(0.0, description="Time limit of a work item, in seconds; 0: no limit.")
    tasks: PositiveInt = Field(
        4, description="Slurm: number of tasks of the job array. Each task runs its share of the items."
    )
    parallel: NonNegativeInt = Field(
        0, description="Slurm: maximum number of tasks that run in parallel; 0: no limit."
    )
    partition: str = Field("", description="Slurm: partition.")
    account: str = Field("", description="Slurm: account.")
    gpus: NonNegativeInt = Field(0, description="Slurm: GPUs per task.")
    cpus: NonNegativeInt = Field(0, description="Slurm and Ray: CPU cores per task; 0: the default.")
    memory: str = Field("", description="Slurm: memory per task, for example 64G.")
    time: str = Field(
        "",
        description="Slurm: time limit of a task, such as 08:00:00; it is requeued two minutes before.",
    )
    options: dict[str, str | int] = Field(
        {}, description="Slurm: further options of sbatch, for example {constraint: a100}."
    )
    poll: Positive = Field(10.0, description="Slurm: seconds between queries of the queue.")


class Recipe(_Section):
    """An experiment."""

    name: Annotated[str, AfterValidator(_not_dots)] = Field(
        "run", pattern=r"^[\w.-]+$", description="Name of the experiment and of its folder of runs."
    )
    description: str = Field("", description="Summary for `ccl recipes ls`.")
    data: str | None = Field(None, description="Data set: source:location?key=value.")
    teachers: Teachers = Field((), description="Any number of teachers: modality:name@weights?key=value.")
    student: str = Field("r2plus1d_18", description="Student network: name@weights?key=value.")
    method: dict[str, dict[str, Any]] = Field(
        {"ccl": {}},
        min_length=1,
        description="Distillation methods and their options. Their loss terms are added.",
    )
    methods: dict[str, dict[str, Any]] = Field(
        {}, description="Recipe keys to override when `--method` or a row of a benchmark selects a method."
    )
    ce_weight: float = Field(1.0, ge=0, description="Weight of the student's own cross-entropy.")
    standardize: dict[str, Standardize] = Field(
        {},
        description="Standardisation of embeddings by teacher; a single word or '*' applies to all others.",
    )
    max_unreadable: Fraction = Field(
        0.05, description="Maximum fraction of missing or corrupt videos in a split."
    )
    holdout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Fraction of the training split to hold out as the val split."
    )
    labels_per_class: NonNegativeInt | None = Field(
        None, description="Labelled training videos per class; 0: train without labels. Default: all."
    )
    labels_seed: NonNegativeInt = Field(
        0, description="Random seed for choosing them. Smaller sets are subsets of larger ones."
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

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        warm_up, epochs = self.optim.warmup_epochs, self.train.epochs
        if warm_up >= epochs:
            raise ValueError(f"optim.warmup_epochs ({warm_up:g}) must be below train.epochs ({epochs})")
        return self

    def method_changes(self, name: str) -> dict[str, Any]:
        """Return the recipe keys that ``--method name`` overrides."""
        return {"method": name, **self.methods.get(name, {})}

    @property
    def method_label(self) -> str:
        """``ccl`` or ``ccl+pkt``."""
        return "+".join(self.method)

    def without(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the recipe as JSON values, without some of its sections and keys (``train.workers``)."""
        exclude: dict[str, Any] = {}
        for section, _, entry in (key.partition(".") for key in keys):
            if entry:
                exclude.setdefault(section, set()).add(entry)
            else:
                exclude[section] = True
        return self.model_dump(mode="json", exclude=exclude)

    def hash(self) -> str:
        """Return an 8-digit hex hash of all keys that affect the results, so not of the name."""
        aside = ASIDE if self.train.chooses else (*ASIDE, *SCORES)
        text = json.dumps(self.without(aside), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def methods_section(value: Any) -> Any:
    """Expand the short form ``ccl+pkt`` to both methods with their default options."""
    if isinstance(value, str):
        return {name.strip(): {} for name in value.split("+")}
    return {name: options or {} for name, options in value.items()} if isinstance(value, dict) else value
