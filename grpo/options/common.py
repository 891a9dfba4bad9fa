"""TrainingConfig: the options that GRPO and SFT share."""
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, note
from .base import Checks, Options
from .fields import Arguments, Names, option
from .foreign import understood
from .others import OtherTrainingOptions
from .process import OneProcess
from .reporters import reporters
from .schedule import SHAPES, checked_arguments

MOST_SEED = (1 << 64) - 1


@dataclass
class TrainingConfig(OneProcess, OtherTrainingOptions, Options):
    """Options that GRPO and SFT share."""

    # the run
    output_dir: str | None = option(None, "Run folder; None: runs/<run_name or recipe>-<n>. An existing run is never "
                                    "overwritten.")
    run_name: str | None = option(None, "Name of the run, for its folder and its loggers.")
    seed: int = option(
        42, "Seeds sampling and data order; the same seed gives the same run, bit for bit.", low=0, high=MOST_SEED)
    data_seed: int | None = option(None, "Seed of the data order; None: seed.", low=0, high=MOST_SEED)
    device: str = option("auto", "Where a model given by name is loaded.", choices=("auto", "cpu", "cuda", "ref"),
                         parsed=False)
    dtype: str | None = option(None, "Storage of a model given by name; None: what the device stores.",
                               parsed=False)
    model_init_kwargs: Arguments = option(None, "{'device': ..., 'dtype': ...} for a model given by name.")
    # how long
    max_steps: int = option(-1, "Optimiser steps; -1: num_train_epochs decides.", low=-1)
    num_train_epochs: float = option(3.0, "Passes over the data set when max_steps is -1.", above=0, high=1e6)
    shuffle_dataset: bool = option(True, "Take rows in a seeded random order, a new one each epoch.")
    # batch
    per_device_train_batch_size: int | None = option(
        None, "Completions (SFT: rows) of a micro-step; None: 8, or what prompts_per_step implies. Memory is set by "
        "token_budget.", low=1)
    gradient_accumulation_steps: int = option(1, "Micro-steps of one optimiser step.", low=1)
    token_budget: int | None = option(
        None, "Tokens of a packed micro-batch, which decide the memory; results are the same. None: 1024 on a CPU, "
        "16384 on a GPU.", low=1)
    recompute: bool = option(False, "Recompute activations in the backward pass instead of keeping them.")
    # optimiser
    learning_rate: float = option(1e-6, "Peak learning rate of AdamW.", low=0)
    lr_scheduler_type: str = option("linear", "Shape of the learning rate after warm-up.", choices=tuple(SHAPES))
    lr_scheduler_kwargs: Arguments = option(
        None, "num_cycles (cosine...), min_lr or min_lr_rate (..._with_min_lr), lr_end and power (polynomial), "
        "timescale (inverse_sqrt), num_decay_steps (warmup_stable_decay) and the others of transformers' function; "
        "restart_after (curriculum_cosine): False: 0 after the last stage.")
    warmup_steps: float = option(0, "Steps over which the rate rises from 0; below 1: a fraction of all steps.", low=0)
    warmup_ratio: float = option(
        0.0, "The same as a fraction of all steps, used when warmup_steps is 0.", low=0, high=1)
    weight_decay: float = option(0.0, "Decoupled weight decay.", low=0)
    adam_beta1: float = option(0.9, "AdamW's decay of the first moment.", low=0, high=1)
    adam_beta2: float = option(0.999, "AdamW's decay of the second moment.", low=0, high=1)
    adam_epsilon: float = option(1e-8, "AdamW's epsilon.", above=0)
    moment_dtype: str = option("float32", "Storage of AdamW's moments; bfloat16 halves them, float8 halves them again "
                               "(vectors stay bfloat16), both rounded stochastically.",
                               choices=("float32", "bfloat16", "float8"))
    master_dtype: str = option("float32", "Storage of the weights that AdamW updates; float24 leaves out the 8 least "
                               "bits of a float32, rounded stochastically: a byte a weight less.",
                               choices=("float32", "float24"))
    max_grad_norm: float = option(1.0, "Clip the gradient's norm to this; 0: do not clip.", low=0)
    max_skipped_steps: int = option(3, "Steps in a row that may be skipped because the gradient is not finite.", low=0)
    # images
    train_vision: str = option("none", "What of a vision tower is trained: nothing (the features of an image are then "
                               "computed once), its mergers, or all of it.", choices=("none", "merger", "all"))
    vision_learning_rate: float | None = option(None, "Peak learning rate of the tower; None: learning_rate.", low=0)
    min_pixels: int | None = option(None, "Images are shown with at least so many pixels; None: what the model's files "
                                    "say.", low=1, parsed=False)
    max_pixels: int | None = option(None, "Images are shown with at most so many pixels, which decides their tokens; "
                                    "None: what the model's files say. It stays with the model.", low=1, parsed=False)
    image_cache_gb: float = option(1.0, "Memory for the features of images that a frozen tower has seen.", low=0)
    image_cache_dir: str | None = option(None, "Folder that keeps them for other runs too; None: none does.")
    on_bad_row: str = option("raise", "A row whose images cannot be read or placed: raise, or skip it. To know, skip "
                             "reads every image once at the start.", choices=("raise", "skip"))
    # logging
    logging_steps: float = option(
        10, "Print a line (and report) every so many steps, below 1 a share of all; metrics.jsonl has every step.",
        above=0)
    logging_first_step: bool = option(False, "Also print the first step.")
    report_to: Names = option("none", "'none', 'tensorboard' (needs tensorboardX), or 'all': what is "
                                          "installed of these; for other loggers pass a callback.")
    disable_tqdm: bool | None = option(None, "True: no progress bar; None: a bar when stderr is a terminal, lines "
                                       "otherwise.")
    # evaluation and saving
    eval_strategy: str = option("no", "When to evaluate.", choices=("no", "steps", "epoch"))
    eval_steps: float | None = option(
        None, "Evaluate every so many steps, below 1 a share of all; None: logging_steps.", above=0)
    eval_on_start: bool = option(False, "Evaluate before the first step.")
    save_strategy: str = option(
        "steps", "When to write a checkpoint: steps and epoch also write one at the end; best: where evaluation is "
        "best.",
        choices=("no", "steps", "epoch", "best"))
    save_steps: float = option(500, "Write a checkpoint every so many steps, below 1 a share of all.", above=0)
    save_minutes: float | None = option(
        10.0, "With save_strategy='steps': also after so many minutes without a checkpoint; None: by steps alone.",
        above=0)
    save_total_limit: int | None = option(
        None, "Keep this many checkpoints, the newest, and the best; None: all.", low=1)
    metric_for_best_model: str | None = option(
        None, "Number of the evaluation by which a checkpoint is best, for example accuracy/lenient; that checkpoint "
        "is written when it is due, or not, and kept.")
    greater_is_better: bool | None = option(None, "Whether more of it is better; None: unless its name ends in loss.")
    load_best_model_at_end: bool = option(False, "End with the weights of the best checkpoint.")
    save_only_model: bool = option(False, "Leave the trainer's state out of checkpoints; they cannot be resumed then.")
    resume_from_checkpoint: str | None = option(None, "A checkpoint folder, or True for the run's latest.",
                                                spelled=(True, False))
    push_to_hub: bool = option(False, "Upload the model to the hub: where it is saved (hub_strategy), and by "
                               "push_to_hub(). Without a way to the hub the folder is prepared, and that is said.")
    hub_model_id: str | None = option(None, "The repository, name or user/name; None: the name of output_dir.")
    hub_strategy: str = option("every_save", "When to upload: with every checkpoint and save_model(), or with the "
                               "latter alone.", choices=("every_save", "end"))
    hub_private_repo: bool | None = option(None, "Whether a repository that is made is private; None: as the account "
                                           "has it.")
    hub_revision: str | None = option(None, "The branch to upload to; None: main.")

    def checks(self) -> Checks:
        """What options must be together."""
        yield self._check_warmup
        yield self._check_steps
        yield self._check_images
        yield self._check_reporters
        yield self._check_best
        yield self._check_model

    def _check_warmup(self) -> None:
        if self.lr_scheduler_type == "constant" and (self.warmup_steps or self.warmup_ratio):
            raise ConfigError("lr_scheduler_type='constant' has no warm-up; use 'constant_with_warmup'")

    def _check_reporters(self) -> None:
        self.report_to = reporters(self.report_to)

    def _check_model(self) -> None:
        self.model_options()

    def _check_steps(self) -> None:
        if self.lr_scheduler_type == "curriculum_cosine" and getattr(self, "curriculum", None) is None:
            raise ConfigError("lr_scheduler_type='curriculum_cosine' follows the stages of a curriculum, an option of "
                              "GRPOConfig, which is not set")
        self.lr_scheduler_kwargs = checked_arguments(
            self.lr_scheduler_type, self.lr_scheduler_kwargs or {}, self.learning_rate)
        for name in ("logging_steps", "eval_steps", "save_steps"):
            value = getattr(self, name) or 1
            if value > 1 and value != int(value):
                raise ConfigError(f"{name}={value} must be a whole number of steps, or below 1 a share of all steps")

    def _check_images(self) -> None:
        if self.vision_learning_rate is not None and self.train_vision == "none":
            raise ConfigError("vision_learning_rate needs train_vision='merger' or 'all': the tower stands still")
        if self.vision_learning_rate is not None and not self.learning_rate:
            raise ConfigError("vision_learning_rate is kept as a multiple of learning_rate, which is 0")
        if self.image_cache_dir is not None and self.train_vision != "none":
            raise ConfigError("image_cache_dir keeps what a frozen tower has seen, and train_vision="
                              f"{self.train_vision!r} trains it; leave one out")
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ConfigError(f"min_pixels={self.min_pixels} is more than max_pixels={self.max_pixels}")

    @property
    def vision_rate(self) -> float:
        """The tower's learning rate as a multiple of the text's."""
        return 1.0 if self.vision_learning_rate is None else self.vision_learning_rate / self.learning_rate

    def _check_best(self) -> None:
        self.do_eval = self.do_eval or self.eval_strategy != "no"
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            self.metric_for_best_model = "loss"
        if self.save_strategy == "best" and self.metric_for_best_model is None:
            raise ConfigError("save_strategy='best' needs metric_for_best_model")
        if self.metric_for_best_model is None:
            return
        if self.eval_strategy == "no":
            raise ConfigError(f"metric_for_best_model={self.metric_for_best_model!r} needs evaluation: set "
                              "eval_strategy")
        if self.save_strategy == "no":
            raise ConfigError(f"metric_for_best_model={self.metric_for_best_model!r} needs checkpoints: save_strategy "
                              "is 'no'")
        if self.greater_is_better is None:
            self.greater_is_better = not self.metric_for_best_model.endswith("loss")

    @property
    def evaluates(self) -> bool:
        """Whether a run is evaluated at its end, and so also before or on the way."""
        return self.eval_strategy != "no" or self.eval_on_start

    @property
    def batch_size(self) -> int:
        """Completions (SFT: rows) of one optimiser step."""
        return (self.per_device_train_batch_size or 8) * self.gradient_accumulation_steps

    @property
    def order_seed(self) -> int:
        """The seed of the data order."""
        return self.seed if self.data_seed is None else self.data_seed

    def model_options(self) -> dict[str, Any]:
        """device and dtype for a model given by name. There float32, which TRL's scripts say, is what masters are."""
        try:
            given = understood(self.model_init_kwargs or {}, ("device", "dtype"))
        except ConfigError as error:
            raise ConfigError(f"model_init_kwargs: {error}") from error
        if given.get("dtype") == "float32" and given.get("device", self.device) != "ref":
            note("model_init_kwargs: dtype='float32' is that of the weights' masters; they are stored as bfloat16 "
                 "(device='ref' stores float32)")
            del given["dtype"]
        return {"device": self.device, "dtype": self.dtype, **given}

    def token_budget_on(self, device: str) -> int:
        """Tokens of a packed micro-batch: those asked for, or what keeps the device busy and no more."""
        return self.token_budget or (16384 if device.startswith("cuda") else 1024)
