"""GRPOConfig and SFTConfig: every option, its default, its meaning.

Names and defaults are TRL's (and, under them, those of transformers' TrainingArguments) wherever the meaning is the
same; options that only exist here have names of their own. An unknown option, or one that cannot be honoured, is a
ConfigError that says what to write instead (grpo/options/foreign.py). What GRPO and SFT share is in common.py.
"""
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .. import _core
from ..errors import ConfigError, warn
from ..ops import check_loss_options
from .base import Checks
from .common import TrainingConfig
from .curriculum import checked_stages
from .fields import Arguments, NumberOrWord, Numbers, Stages, loss_option, option
from .foreign import ROUNDS
from .generation import sampling_options
from .others import OtherGRPOOptions, OtherSFTOptions
from .presets import preset_options
from .weights import checked_weight

LOSS_TYPES = _core.loss_options()["loss_type"][2]
MOST_COMPLETIONS = 1 << 24                   # of a rollout
# options that are read with use_adaptive_entropy
ADAPTIVE = ("entropy_coef_min", "entropy_coef_max", "entropy_coef_delta", "entropy_target")


@dataclass
class GRPOConfig(OtherGRPOOptions, TrainingConfig):
    """Options of GRPOTrainer.

    >>> config = GRPOConfig(preset="dr_grpo", prompts_per_step=4, num_generations=8)
    >>> config.batch_size, config.loss_type
    (32, 'dr_grpo')
    """

    # batch
    prompts_per_step: int | None = option(
        None, "Prompts of one optimiser step: with num_generations, the short way to say the batch.", low=1)
    num_generations: int = option(8, "Completions of a prompt: the group's size.")
    num_generations_eval: int | None = option(
        None, "The same in evaluation; None: num_generations, or 1 when temperature_eval is 0.", low=1)
    generation_batch_size: int | None = option(
        None, "Completions of one rollout; None: those of one optimiser step.", low=1)
    steps_per_generation: int | None = option(
        None, "The same in micro-steps; None: gradient_accumulation_steps.", low=1)
    num_iterations: int = option(1, "Passes over each rollout (mu).", low=1)
    # order of the rows, and of what was made of them
    curriculum: str | None = option(
        None, "Column of the rows that says how hard they are: they come stage by stage, the easiest first, once each, "
        "and after the last stage mixed. A stage takes as many steps as its rows fill. Goes with "
        "lr_scheduler_type=curriculum_cosine.")
    curriculum_stages: Stages = option(
        None, "The column's values, the easiest first; or a number: so many stages of as many rows each. None: each "
        "number in the column is a stage.")
    replay_buffer_size: int = option(
        0, "Keep so many groups, the newest that taught something, and train on them again in place of groups that "
        "teach nothing (all advantages 0), off-policy against the log-probs they were drawn with; 0: none.", low=0,
        high=MOST_COMPLETIONS)
    replay_max_age: int = option(64, "Steps after which a past group is not used any more.", low=1)
    replay_alpha: float = option(1.0, "A past group is drawn with a probability in proportion to its mean |advantage| "
                                 "to this power.", low=0, high=64)
    # generation
    max_prompt_length: int | None = option(
        None, "Longest prompt in tokens; None: what the model's positions leave.", low=1)
    on_long_prompt: str = option("raise", "A longer prompt: raise, drop the row, or keep its last tokens.",
                                 choices=("raise", "drop", "truncate"))
    max_completion_length: int = loss_option("max_completion_length", "Most tokens of a completion.", low=1)
    temperature: float = option(1.0, "Sampling temperature; log-probs in the loss are divided by it too.", above=0)
    top_p: float = option(1.0, "Sample from the smallest set with this probability.", above=0, high=1)
    top_k: int | None = option(0, "Sample from the k likeliest tokens; 0, -1 or None: all.", low=-1, high=(1 << 31) - 1)
    min_p: float | None = option(None, "Least probability, as a fraction of the likeliest token's.", low=0, high=1)
    repetition_penalty: float = option(1.0, "Divides the logits of tokens already seen.", above=0)
    generation_kwargs: Arguments = option(None, "More options: min_new_tokens, stop, suppress_tokens; also "
                                                  "overrides the above.")
    chat_template_kwargs: Arguments = option(None, "Arguments of the chat template, for example "
                                                     "{'enable_thinking': False}.")
    temperature_eval: float | None = option(None, "Temperature in evaluation; 0 is greedy; None: temperature.", low=0)
    eval_category: str | None = option(None, "Column by which evaluation is broken down; None: category, level, "
                                       "subject or source, where every row has it.")
    eval_report: str = option("end", "Report of the evaluation, HTML and (with reportlab) PDF, with the pictures of "
                              "its rows: of the last one, of every one, or none.",
                              choices=("end", "every", "no"))
    slots: int | None = option(None, "Sequences decoded at a time; results are the same. None: 32 on a CPU, 256 on a "
                               "GPU.", low=1)
    keep_rollout_activations: bool | None = option(
        None, "Keep what rollouts compute, so that the update on them has no forward pass; results are the same. With "
        "recompute each layer's input alone. None: on a CPU, as far as it takes a quarter of the free memory.")
    # rewards and advantages
    reward_weights: Numbers = option(
        None, "One weight a reward, a number or points {step: weight} with straight lines between them; None: the "
        "reward's own, 1 by default.")
    scale_rewards: str = option("group", "Divide advantages by the std of the group (also True), of the batch, or not "
                                "(none, also False).", choices=("group", "batch", "none"), spelled=("group", "none"))
    multi_objective_aggregation: str = option("sum_then_normalize", "Normalise the weighted sum of rewards, or each of "
                                              "them (GDPO).",
                                              choices=("sum_then_normalize", "normalize_then_sum"))
    on_reward_error: NumberOrWord = option(
        "raise", "A reward that raises or is not finite: 'raise', 'drop' the sample, or a number.")
    dynamic_sampling: bool = option(False, "Replace groups whose rewards are all equal by new prompts (DAPO).")
    max_resample_times: int = option(3, "Rounds of replacing before a step takes what it has.", low=0)
    mask_truncated_completions: bool = option(False,
                                              "Leave completions that hit max_completion_length out of the loss.")
    soft_overlong_cache: float | None = option(None, "Punish the last tokens before max_completion_length (DAPO): "
                                               "their number, or below 1 a fraction of it.", above=0)
    # loss
    loss_type: str = loss_option("loss_type", "The policy loss.")
    aggregation: str | None = loss_option("aggregation", "How token losses become one number; None: what loss_type "
                                          "implies.")
    importance_sampling_level: str = loss_option("importance_sampling_level", "One ratio a token, or one a sequence "
                                                 "(GSPO).")
    epsilon: float = loss_option("epsilon", "Clip the ratio below 1 - epsilon.", low=0)
    epsilon_high: float | None = loss_option("epsilon_high", "Clip it above 1 + epsilon_high; None: epsilon. For cispo "
                                             "the cap itself.", low=0)
    delta: float | None = loss_option(
        "delta", "Upper bound of the unclipped ratio (two-sided clipping, dual clip).", above=1)
    cispo_two_sided: bool = loss_option("cispo_two_sided", "cispo clips to [1 - epsilon, 1 + epsilon_high] instead.")
    sapo_temperature_pos: float = loss_option("sapo_temperature_pos", "SAPO's temperature where the advantage is "
                                              "positive.", above=0)
    sapo_temperature_neg: float = loss_option("sapo_temperature_neg", "SAPO's temperature elsewhere.", above=0)
    vespo_k_pos: float = loss_option("vespo_k_pos", "VESPO's exponent where the advantage is not negative.")
    vespo_lambda_pos: float = loss_option("vespo_lambda_pos", "VESPO's decay there.")
    vespo_k_neg: float = loss_option("vespo_k_neg", "VESPO's exponent elsewhere.")
    vespo_lambda_neg: float = loss_option("vespo_lambda_neg", "VESPO's decay elsewhere.")
    off_policy_mask_threshold: float | None = loss_option("off_policy_mask_threshold",
                                                          "Drop completions with a negative advantage and mean (old "
                                                          "logp - logp) above this.", above=0)
    top_entropy_quantile: float = loss_option("top_entropy_quantile", "Train only this share of the step's tokens, "
                                              "those of the highest entropy.", low=0, high=1)
    entropy_coef: float = loss_option("entropy_coef", "Weight of the entropy bonus.")
    use_adaptive_entropy: bool = loss_option("use_adaptive_entropy", "Move entropy_coef so that entropy stays near "
                                             "entropy_target.")
    entropy_coef_min: float = loss_option("entropy_coef_min", "Its lower bound.")
    entropy_coef_max: float = loss_option("entropy_coef_max", "Its upper bound.")
    entropy_coef_delta: float = loss_option("entropy_coef_delta", "Its change in one step.", low=0)
    entropy_target: float = loss_option("entropy_target", "Entropy a token, in nats, at or below which the bonus "
                                        "applies.")
    # reference
    beta: float = loss_option("beta", "Weight of the KL to the reference; 0: no reference is kept.", low=0)
    kl_estimator: str = loss_option("kl_estimator", "x = logp - ref: k1 is x, k2 x^2/2, k3 exp(-x) + x - 1.")
    use_bias_correction_kl: bool = loss_option("use_bias_correction_kl", "Multiply the KL by the ratio.")
    kl_in_reward: bool = option(False, "Take beta * sum of (logp - ref) off each reward instead of adding a loss term.")
    sync_ref_model: bool = option(False, "Mix the policy into the reference every ref_model_sync_steps steps (TR-DPO).")
    ref_model_mixup_alpha: float = option(0.6, "reference = alpha * policy + (1 - alpha) * reference.", low=0, high=1)
    ref_model_sync_steps: int = option(512, "Optimiser steps between two mixings.", low=1)
    # logging
    save_completions: bool = option(True,
                                    "Write each step's completions to completions/step-N.jsonl in the run folder.")
    log_completions: bool = option(False, "Print completions every logging_steps.")
    num_completions_to_print: int | None = option(None, "How many; None: all of the step.", low=1)
    log_unique_prompts: bool = option(False, "Print one completion a prompt.")

    @classmethod
    def translated(cls, given: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
        """Options by their own names, with those of preset=..., and rounds as steps."""
        given, options = dict(given), {}
        preset = given.pop("preset", None)
        try:
            options = preset_options(preset) if preset is not None else {}
        except ConfigError as error:
            problems.append(str(error))
        options = {**options, **super().translated(given, problems)}
        rounds = {name: options.pop(name) for name in ROUNDS if name in options}
        try:
            return {**options, **steps_of_rounds(rounds, options, given)}
        except ConfigError as error:
            problems.append(str(error))
            return options

    def checks(self) -> Checks:
        """What options must be together."""
        yield from super().checks()
        yield self._check_group
        yield self._check_batch
        yield self._check_rewards
        yield self._check_curriculum
        yield self._check_sampling
        yield self._check_reference
        yield self._check_aggregation
        yield self._check_loss

    def _check_group(self) -> None:
        if self.num_generations < 2:
            raise ConfigError(f"num_generations={self.num_generations}: an advantage compares the completions of a "
                              "prompt; use 2 or more")

    def _check_curriculum(self) -> None:
        self.curriculum_stages = checked_stages(self.curriculum_stages)
        if self.curriculum_stages is not None and self.curriculum is None:
            raise ConfigError("curriculum_stages needs curriculum, the column that it is about")

    def _check_sampling(self) -> None:
        sampling_options(self)
        if self.temperature_eval == 0 and (self.num_generations_eval or 1) != 1:
            raise ConfigError(f"temperature_eval=0 is greedy: num_generations_eval={self.num_generations_eval} repeats "
                              "one completion")

    def _check_reference(self) -> None:
        if self.sync_ref_model and not self.beta:
            raise ConfigError("sync_ref_model=True needs a reference: set beta above 0")
        if self.kl_in_reward and not self.beta:
            raise ConfigError("kl_in_reward=True needs beta above 0")

    def _check_aggregation(self) -> None:
        if self.multi_objective_aggregation == "normalize_then_sum" and self.scale_rewards != "group":
            raise ConfigError(f"scale_rewards={self.scale_rewards!r} has no effect with "
                              "multi_objective_aggregation='normalize_then_sum'")
        if self.metric_for_best_model in ("loss", "eval_loss"):
            raise ConfigError("evaluation has no loss in GRPO: set metric_for_best_model, for example to 'reward' or "
                              "'accuracy/lenient'")

    def _check_loss(self) -> None:
        check_loss_options(self.loss_options())
        for name in self._unread():
            condition = "without use_adaptive_entropy" if name in ADAPTIVE else f"with loss_type={self.loss_type!r}"
            warn(f"{name}={getattr(self, name)!r} has no effect {condition}")

    def _unread(self) -> Iterator[str]:
        """Loss options that were changed and that this loss does not read."""
        for name, (_, default, _) in _core.loss_options().items():
            owner = name.partition("_")[0]
            of_another = owner in ("sapo", "vespo") and owner != self.loss_type
            if (of_another or name in ADAPTIVE and not self.use_adaptive_entropy) and getattr(self, name) != default:
                yield name

    def _check_batch(self) -> None:
        if self.num_generations < 2:
            return                           # said already
        for size in ((self.prompts_per_step or 1) * self.num_generations, self.batch_size, self.rollout_size):
            if size > MOST_COMPLETIONS:
                raise ConfigError(f"{size} completions of a step or a rollout are more than {MOST_COMPLETIONS}")
        if self.prompts_per_step is not None:
            wanted = self.prompts_per_step * self.num_generations
            if self.per_device_train_batch_size is None:
                if wanted % self.gradient_accumulation_steps:
                    raise ConfigError(f"prompts_per_step={self.prompts_per_step} x "
                                      f"num_generations={self.num_generations} does not divide by "
                                      f"gradient_accumulation_steps={self.gradient_accumulation_steps}")
                self.per_device_train_batch_size = wanted // self.gradient_accumulation_steps
            elif self.batch_size != wanted:
                raise ConfigError(
                    f"prompts_per_step={self.prompts_per_step} x num_generations={self.num_generations} is {wanted} "
                    f"completions a step, but per_device_train_batch_size={self.per_device_train_batch_size} x "
                    f"gradient_accumulation_steps={self.gradient_accumulation_steps} is {self.batch_size}; give one of "
                    "the two")
        if self.generation_batch_size is not None and self.steps_per_generation is not None:
            raise ConfigError("generation_batch_size and steps_per_generation say the same thing; give one")
        if self.rollout_size % self.num_generations:
            raise ConfigError(f"a rollout of {self.rollout_size} completions does not divide by "
                              f"num_generations={self.num_generations}; per_device_train_batch_size x "
                              "gradient_accumulation_steps counts completions, prompts_per_step=N is the short way to "
                              "say it")
        if self.rollout_size % self.batch_size:
            raise ConfigError(f"a rollout of {self.rollout_size} completions does not divide into steps of "
                              f"{self.batch_size}")

    def _check_rewards(self) -> None:
        if self.on_reward_error is None:
            self.on_reward_error = "raise"
        if isinstance(self.on_reward_error, str) and self.on_reward_error not in ("raise", "drop"):
            raise ConfigError(f"on_reward_error={self.on_reward_error!r} must be 'raise', 'drop' or a number")
        if isinstance(self.on_reward_error, float) and not math.isfinite(self.on_reward_error):
            raise ConfigError(f"on_reward_error={self.on_reward_error} must be finite")
        if self.reward_weights is not None:
            self.reward_weights = [checked_weight(w) for w in self.reward_weights]
        if self.overlong_cache >= self.max_completion_length:
            raise ConfigError(f"soft_overlong_cache={self.soft_overlong_cache} must be below "
                              f"max_completion_length={self.max_completion_length}")

    def slots_on(self, device: str) -> int:
        """Sequences decoded at a time: those asked for, or what keeps the device busy and no more."""
        return self.slots or (256 if device.startswith("cuda") else 32)

    @property
    def completions_eval(self) -> int:
        """Completions of a prompt in evaluation."""
        return self.num_generations_eval or (1 if self.temperature_eval == 0 else self.num_generations)

    @property
    def rollout_size(self) -> int:
        """Completions made at a time; a whole number of optimiser steps."""
        if self.generation_batch_size is not None:
            size = self.generation_batch_size
        else:
            micro_steps = self.steps_per_generation or self.gradient_accumulation_steps
            size = (self.per_device_train_batch_size or 8) * micro_steps
        return self.batch_size if self.batch_size % size == 0 else size

    @property
    def prompts_per_rollout(self) -> int:
        """Prompts whose completions are made at a time."""
        return self.rollout_size // self.num_generations

    @property
    def steps_per_rollout(self) -> int:
        """Optimiser steps taken on one rollout."""
        return self.rollout_size // self.batch_size * self.num_iterations

    @property
    def overlong_cache(self) -> int:
        """soft_overlong_cache in tokens; 0: no punishment."""
        cache = self.soft_overlong_cache or 0
        return max(1, round(cache * self.max_completion_length)) if 0 < cache < 1 else int(cache)

    def describe_batch(self) -> str:
        """The batch arithmetic in one line."""
        line = (f"{self.prompts_per_rollout} prompts x {self.num_generations} completions = {self.rollout_size} "
                f"completions a rollout, {self.batch_size} a step")
        return line + (f", {self.steps_per_rollout} steps a rollout" if self.steps_per_rollout > 1 else "")

    def loss_options(self) -> dict[str, Any]:
        """The fields that define the loss, as the core names them; what is None is left to its default."""
        options = {name: getattr(self, name) for name in _core.loss_options()}
        if self.kl_in_reward:
            options["beta"] = 0.0
        return {name: value for name, value in options.items() if value is not None}


@dataclass
class SFTConfig(OtherSFTOptions, TrainingConfig):
    """Options of SFTTrainer.

    >>> SFTConfig(max_steps=10, learning_rate=1e-5).max_length
    1024
    """

    learning_rate: float = option(2e-5, "Peak learning rate of AdamW.", low=0)
    max_length: int = option(
        1024, "Most tokens of prompt and completion together; what is longer is cut at the end.", low=2)
    completion_only_loss: bool | None = option(None, "Loss on the completion alone; this is always so here, False is "
                                               "refused.")
    chat_template_kwargs: Arguments = option(None, "Arguments of the chat template.")

    def checks(self) -> Checks:
        """What options must be together."""
        yield from super().checks()
        yield self._check_completion

    def _check_completion(self) -> None:
        if self.completion_only_loss is False:
            raise ConfigError("completion_only_loss=False: loss on prompts is not supported; put the text to be learnt "
                              "into the completion")


BATCH = ("prompts_per_step", "num_generations", "per_device_train_batch_size", "gradient_accumulation_steps")


def steps_of_rounds(rounds: Mapping[str, Any], options: Mapping[str, Any], given: Iterable[str]) -> dict[str, int]:
    """Numbers of DeepSeekRL's rounds as numbers of steps, said on one line each. options: all, which tell how many
    prompts a step takes. given: the names in use, among which the same number of steps must not be."""
    if not rounds:
        return {}
    batch = GRPOConfig(**{name: options[name] for name in BATCH if name in options})
    prompts = batch.batch_size // batch.num_generations
    result = {}
    for name, count in rounds.items():
        steps = ROUNDS[name]
        if steps in given:
            raise ConfigError(f"{name} and {steps} say the same thing in rounds and in steps; give one")
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ConfigError(f"{name}={count!r} must be a number of rounds, at least 1")
        result[steps] = math.ceil(count / prompts)
        if prompts > 1:
            warn(f"{name}={count} rounds of one prompt are {steps}={result[steps]} of {prompts} prompts")
    return result
