"""GRPOTrainer: generate, reward, compare within groups, update.

One step, in the order of this file: _make_rollouts() draws completions and scores them (and, with dynamic sampling,
replaces groups that teach nothing), _prepare() adds advantages, mask and reference log-probs, update() turns a part of
them into a gradient, with past groups where it teaches nothing (replay). On the first update of a rollout the policy is
the one that drew it, so the loss's coefficients follow from the recorded log-probs and one backward pass is all that
runs; what that pass computes on the way is compared with the record (sampling/sampling_logp_difference: 0.0).
"""
import copy
import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import _core, ops
from ..datasets import Curriculum, Prompt, PromptStream, curriculum_of, overlap
from ..errors import CheckpointMismatchError, ConfigError, DatasetError, warn
from ..evaluation import Evaluation
from ..model import Model
from ..options import GRPOConfig, RLOOConfig, refuse
from ..planning import Shown
from ..rewards import RewardSet, check_golds, get_soft_overlong_punishment
from ..rollouts import (
    LENGTH,
    PastGroup,
    ReplayBuffer,
    Rollouts,
    completion_metrics,
    completion_records,
    generate,
    group_counts,
    past_groups,
    prompt_stream,
    reward_batch,
    reward_metrics,
    sampling,
    why_flat,
)
from ..runs import checkpoint, say
from ..runs.arrays import read_arrays
from .callbacks import completion_table
from .loop import Loop, StepResult, TrainingInterrupted, means, options
from .resume import code_of, compare_rewards, compare_rows

__all__ = ["GRPOStep", "GRPOTrainer", "TrainingInterrupted"]

FLAT_ROLLOUTS = 3
REWARD_STATE, REPLAY = "rewards.npz", "replay.npz"
ARGUMENTS = ("model", "reward_funcs", "args", "train_dataset", "eval_dataset", "eval_funcs", "processing_class",
             "callbacks")


@dataclass
class GRPOStep(StepResult):
    """One optimiser step, with the rollout it was taken on. Replayed groups, whose `age` is not 0, are at its end."""

    rollouts: Rollouts
    reward_names: list[str]

    @property
    def completions(self) -> list[dict[str, Any]]:
        """One dict a completion: prompt, completion, rewards, reward, advantage, ..."""
        return completion_records(self.step, self.rollouts, self.reward_names)


class GRPOTrainer(Loop):
    """Trains a model with GRPO.

    model: a Model, or what grpo.load takes: of a model object of transformers the weights are trained here and written
    back into it at the end. processing_class: a tokenizer or processor in place of the model's own. reward_funcs:
    functions, names or objects (grpo.rewards). train_dataset: rows with a prompt (text or chat messages); other columns
    go to the rewards. args: a GRPOConfig. eval_funcs: what evaluation computes besides rewards and accuracies,
    functions with the arguments and values of a reward.

    >>> import grpo
    >>> def short(completions): return [-float(len(c)) for c in completions]
    >>> rows, args = [{"prompt": "Hi"}], grpo.GRPOConfig(max_steps=3)
    >>> trainer = grpo.GRPOTrainer(grpo.tiny(), short, args, rows)                                   # doctest: +SKIP
    >>> for step in trainer: print(step.step, step.metrics["reward"])                                # doctest: +SKIP
    """

    kind = "grpo"
    _name, _tag_names = "GRPO", ("grpo",)
    _paper = {"title": "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models",
              "id": "2402.03300"}
    config_class: type[GRPOConfig] = GRPOConfig
    args: GRPOConfig

    def __init__(self, model: Any, reward_funcs: Any = None, args: GRPOConfig | None = None, train_dataset: Any = None,
                 eval_dataset: Any = None, processing_class: Any = None, callbacks: Any = None, eval_funcs: Any = None,
                 **unsupported: Any) -> None:
        refuse(unsupported, type(self).__name__, ARGUMENTS)
        if isinstance(args, RLOOConfig) and self.config_class is not RLOOConfig:
            raise ConfigError("args is a RLOOConfig, of RLOOTrainer; GRPOTrainer takes a GRPOConfig")
        args = options(args, self.config_class)
        self.rewards = RewardSet(reward_funcs, args.reward_weights, args.on_reward_error)
        if args.overlong_cache:
            self.rewards.add(get_soft_overlong_punishment(args.max_completion_length, args.overlong_cache))
        self.sampling = sampling(args)
        super().__init__(model, args, callbacks, processing_class)
        self._train_dataset, self._eval_dataset = train_dataset, eval_dataset
        self.reward_funcs = list(reward_funcs) if isinstance(reward_funcs, (list, tuple)) else [reward_funcs]
        self._note_template_options(args.chat_template_kwargs or {})
        self.stream: PromptStream | None = None
        if train_dataset is not None:
            self.stream = prompt_stream(self.model, args, train_dataset, "train_dataset", shuffle=args.shuffle_dataset,
                                        streams=args.curriculum is None)
        self.curriculum: Curriculum | None = None
        if self.stream is not None and args.curriculum is not None:
            self.curriculum = self.stream.stages = curriculum_of(
                self.stream, args.curriculum, args.curriculum_stages, prompts=args.prompts_per_rollout,
                steps=args.steps_per_rollout, shuffle=args.shuffle_dataset, seed=args.order_seed)
        self.replay = ReplayBuffer(args.replay_buffer_size, args.replay_max_age, args.replay_alpha,
                                   args.seed) if args.replay_buffer_size else None
        self._to_keep: list[PastGroup] = []       # of the rollouts that this step uses up
        self.eval_funcs = RewardSet(eval_funcs, on_error=args.on_reward_error) if eval_funcs else None
        self.evaluations: dict[str, Evaluation] = self.held_out(eval_dataset)
        if self.stream is not None:
            check_golds(self.rewards.rewards, self.stream.values, "train_dataset")
            for name, evaluation in self.evaluations.items():
                check_golds(self.rewards.rewards, evaluation.stream.values, f"eval_dataset[{name!r}]" if name else
                            "eval_dataset")
                if message := overlap(self.stream.rows, evaluation.stream.rows):
                    warn(f"eval_dataset[{name!r}]: {message}" if name else message)
        self.reference = self.model.copy() if args.beta else None
        self.loss_options = args.loss_options()
        self.position = 0                    # in the stream of prompts
        self.rollouts: Rollouts | None = None
        self.rollouts_made = 0               # Philox counter: no two rollouts draw the same numbers
        self.used = 0                        # steps taken on the rollouts at hand
        self.entropy_control = (args.entropy_coef, 0.0)      # (coefficient, what is applied)
        self._next_entropy_control = self.entropy_control
        self._said_masked = False
        self._flat_rollouts = 0              # in a row without any spread in a group
        self._rollout_metrics: dict[str, float] = {}
        self._step_rollouts: Rollouts | None = None
        self._to_show: Rollouts | None = None
        self.reward_names: list[str] = self.rewards.names   # an evaluator's columns are known once it was called
        self._weights = np.ones(len(self.reward_names))

    @property
    def temperature(self) -> float:
        """Of sampling, by which log-probs in the loss are divided too."""
        return self.sampling["temperature"]

    @property
    def _prompts(self) -> PromptStream:
        if self.stream is None:
            raise DatasetError("training needs train_dataset: rows like {'prompt': ..., 'answer': ...}")
        return self.stream

    @property
    def _reference(self) -> Model:
        assert self.reference is not None
        return self.reference

    # rollouts

    @functools.cached_property
    def store(self) -> _core.Store | None:
        """Where rollouts leave their activations for the update; None where the memory plan has no room for any."""
        return _core.Store(self.model.core, inputs_only=self.args.recompute) if self.memory.store_rows else None

    def _make_rollouts(self) -> Rollouts:
        """Rollouts of the next prompts, scored and prepared. The trainer's position, and what rewards remember, moves
        once they are there."""
        with self._rewards_kept():
            return self._draw_rollouts()

    @contextmanager
    def _rewards_kept(self) -> Iterator[None]:
        """An exception leaves rewards that remember as they were."""
        before = [(owner, copy.deepcopy(owner.state_dict())) for _, owner in self.rewards.with_state()]
        try:
            yield
        except BaseException:
            with self.signals.held():
                for owner, state in before:
                    owner.load_state_dict(state)
            raise

    def _draw_rollouts(self) -> Rollouts:
        wanted, position, made = self.args.prompts_per_rollout, self.position, []
        missing, logged = wanted, []
        if self.store is not None:
            self.store.clear()
        for _ in range(1 + (self.args.max_resample_times if self.args.dynamic_sampling else 0)):
            prompts = self._prompts.take(position, missing, self.state.global_step)
            with self.timed("generate"):
                rollouts = self._generate(prompts, first_prompt=position - self.position)
            with self.timed("reward"), self.signals.waiting():
                logged.append(self._score(rollouts))
            made.append(rollouts)
            position += missing
            flat = rollouts.without_spread()
            missing = int(flat.sum())
            if not missing:
                break
            # their rows are for the groups that take their place
            if self.store is not None and rollouts.stored is not None:
                self.store.forget(rollouts.stored[flat[rollouts.group]])
        everything = Rollouts.join(made)
        flat = everything.without_spread()
        # groups with spread first, then the earliest without
        chosen = np.sort(np.argsort(flat, kind="stable")[:wanted])
        rollouts = everything
        if len(chosen) < len(flat):
            rollouts = everything.select(np.flatnonzero(np.isin(everything.group, chosen)))
        self._prepare(rollouts)
        tokens = int(everything.lengths.sum())
        seen = tokens + sum(len(p.ids) for p in everything.prompts) * self.args.num_generations
        metrics = {
            "num_tokens": float(self.state.num_input_tokens_seen + seen),
            "generation_tokens_per_second": tokens / self._seconds["generate"],
            **completion_metrics(everything.lengths, everything.finish == LENGTH),
            **reward_metrics(self.reward_names, *everything.scores()),
            "frac_reward_zero_std": float(flat.mean())}
        metrics = {**means(logged), **metrics}
        if self.args.dynamic_sampling:
            metrics |= group_counts(everything, flat, wanted)
        self._watch_spread(everything, bool(flat.all()))
        with self.signals.held():
            self.state.num_input_tokens_seen += seen
            self.rollouts, self.used, self.position = rollouts, 0, position
            self.rollouts_made += 1
            self._rollout_metrics = metrics
        return rollouts

    def _watch_spread(self, r: Rollouts, flat: bool) -> None:
        """Says so, and why, when rollout after rollout has nothing to learn from."""
        self._flat_rollouts = self._flat_rollouts + 1 if flat else 0
        if self._flat_rollouts == FLAT_ROLLOUTS:
            warn(f"{FLAT_ROLLOUTS} rollouts in a row {why_flat(r, self.reward_names)}, so there is nothing to learn "
                 f"from: see the completions in {self._folder.path} for what the rewards were given")

    def _watch_masks(self, r: Rollouts) -> None:
        """Says so once when every completion of a rollout is masked."""
        if not self._said_masked and (r.finish == LENGTH).all():
            self._said_masked = True
            warn(f"rollout {self.rollouts_made + 1}: every completion was cut off at max_completion_length="
                 f"{self.args.max_completion_length}, and mask_truncated_completions leaves such out, so there is "
                 "nothing to learn from; raise max_completion_length")

    def _generate(self, prompts: list[Prompt], first_prompt: int) -> Rollouts:
        args, total = self.args, len(prompts) * self.args.num_generations
        rows = sum(len(p.ids) for p in prompts) + total * (args.max_completion_length - 1)
        return generate(self.model, prompts, args.num_generations, args.max_completion_length, self.sampling,
                        seed=args.seed, step=self.rollouts_made, first_prompt=first_prompt,
                        slots=args.slots_on(self.model.device), store=self.store,
                        store_rows=min(self.memory.store_rows, rows),
                        progress=lambda tokens, finished: self.progress.on_rollout(tokens, finished, total))

    def _score(self, r: Rollouts) -> dict[str, float]:
        """Fills in rewards and returns what the reward functions logged."""
        scores = self.rewards.score(reward_batch(self.model, self.args, self.state, r, training=True))
        r.take(scores)
        self.reward_names, self._weights = scores.names, scores.weights
        return scores.metrics

    def _prepare(self, r: Rollouts) -> None:
        """Reference log-probs, mask and advantages."""
        args = self.args
        if self.reference is not None:
            with self.timed("reference"):
                r.ref_logprobs, _ = self._logprobs(self.reference, r)
        rewards, totals = r.scores()
        carries = ~np.isnan(totals)
        if args.mask_truncated_completions:
            carries &= r.finish != LENGTH
            self._watch_masks(r)
        r.mask = r.per_token(carries).astype(np.uint8)
        r.advantages = self._advantages(r, rewards, totals)

    def _advantages(self, r: Rollouts, rewards: Any, totals: Any) -> Any:
        """Of every completion. rewards: (completions, functions); totals: their weighted sums, NaN: not scored."""
        args, weights = self.args, self._weights
        # k1, the unbiased choice for a reward; unscored completions stay unscored
        if args.kl_in_reward and r.ref_logprobs is not None:
            kl = np.array([x.sum(dtype=np.float64) for x in r.split(r.policy_logprobs - r.ref_logprobs)])
            rewards = np.column_stack([rewards, np.where(np.isnan(totals), np.nan, -args.beta * kl)])
            weights = np.append(weights, 1.0)
        return ops.group_advantages(rewards, np.bincount(r.group), args.scale_rewards, reward_weights=weights,
                                    multi_objective_aggregation=args.multi_objective_aggregation)

    def _logprobs(self, model: Model, r: Rollouts) -> tuple[Any, Any]:
        """(log-probs (T), entropies (T)) of r by a model as it is now."""
        return model.core.logprobs(r.prompt_ids, r.completions, r.group, temperature=self.temperature,
                                   images=model.core_images(r.prompt_ids, r.pictures),
                                   token_budget=self.args.token_budget_on(self.model.device))

    # updates

    def update(self) -> dict[str, Any]:
        """The gradient of one step: on new rollouts where the last ones are used up."""
        self._to_keep = []
        rollouts = self._make_rollouts() if self.rollouts is None else self.rollouts
        if self.replay is not None and self.used + 1 == self.args.steps_per_rollout:
            self._to_keep = past_groups(rollouts, self.state.global_step - self.used)
        drawn = self._part(rollouts)
        part, replayed = self._with_replayed(drawn)
        with self.timed("update"):
            metrics = self._on_policy(part) if self.used == 0 else self._off_policy(part)
        metrics["training_tokens_per_second"] = metrics.pop("trained_tokens") / self._seconds["update"]
        if drawn.ref_logprobs is not None and self.args.kl_in_reward:
            trained = drawn.trained()[1] > 0
            kl = (drawn.policy_logprobs - drawn.ref_logprobs)[trained]
            metrics["kl"] = float(kl.mean()) if kl.size else 0.0
        if self.loss_options["entropy_coef"] or self.args.use_adaptive_entropy:
            metrics["entropy_coef"] = self.entropy_control[0]
        if self.curriculum is not None:
            metrics["curriculum/stage"] = float(self.curriculum.stage_at(self.state.global_step) + 1)
        self._step_rollouts = part
        return {**(self._rollout_metrics if self.used == 0 else {}), **metrics, **replayed}

    def _part(self, rollouts: Rollouts) -> Rollouts:
        """The completions of this step: all of the rollout, or a mini-batch."""
        size, parts = self.args.batch_size, self._parts
        if parts == 1:
            return rollouts
        start = self.used % parts * size
        return rollouts.select(np.arange(start, start + size))

    def _with_replayed(self, r: Rollouts) -> tuple[Rollouts, dict[str, float]]:
        """r with past groups in place of those that teach nothing, and how many and how old they are."""
        if self.replay is None:
            return r, {}
        filled = self.replay.fill(r, self.state.global_step)
        ages = np.zeros(len(r), np.int32) if filled.age is None else filled.age
        old = np.flatnonzero(ages)
        if len(old) and self.args.sync_ref_model:            # the reference has moved since
            assert filled.ref_logprobs is not None
            with self.timed("reference"):
                filled.ref_logprobs[filled.per_token(ages > 0)], _ = self._logprobs(self._reference, filled.select(old))
        metrics = {"replay/share": len(old) / len(filled), "replay/size": float(len(self.replay))}
        return filled, metrics | ({"replay/age": float(ages[old].mean())} if len(old) else {})

    def _on_policy(self, r: Rollouts) -> dict[str, Any]:
        """The policy is the one that drew r: its log-probs are on record. Those of replayed groups, which another one
        drew, are computed; the loss compares them with the record."""
        logprobs, entropies = r.policy_logprobs, r.entropies
        if r.age is not None:
            replayed, old = r.per_token(r.age > 0), r.select(np.flatnonzero(r.age))
            logprobs, entropies = logprobs.copy(), entropies.copy()
            logprobs[replayed], entropies[replayed] = self._logprobs(self.model, old)
        normalizer = self._normalizer(r, entropies)
        advantages, mask = r.trained()
        loss, coef, entropy_coef, metrics = _core.grpo_loss(logprobs, r.policy_logprobs, advantages, mask,
                                                            r.ref_logprobs, entropies, r.lengths, self.loss_options,
                                                            normalizer)
        seen, _ = self.optimizer.accumulate(r.prompt_ids, r.completions, r.group, coef, temperature=self.temperature,
                                            images=self._trained_images(r),
                                            entropy_coef=entropy_coef if entropy_coef.any() else None, store=self.store,
                                            stored=r.stored)
        # groups that were run
        moving = np.bincount(r.per_token(r.group), (coef != 0) | (entropy_coef != 0), len(r.prompts)) > 0
        difference = np.abs(seen - logprobs)[r.per_token(moving[r.group])]
        metrics["sampling/sampling_logp_difference/mean"] = float(difference.mean()) if difference.size else 0.0
        metrics["sampling/sampling_logp_difference/max"] = float(difference.max()) if difference.size else 0.0
        self._watch_entropy(entropies, mask, normalizer)
        return {"loss": loss, "trained_tokens": trained_tokens(r, moving), **metrics}

    def _off_policy(self, r: Rollouts) -> dict[str, Any]:
        """The policy has moved since it drew r."""
        entropies = None
        if self.args.top_entropy_quantile < 1:           # the threshold is over the whole step, so entropies come first
            _, entropies = self._logprobs(self.model, r)
        normalizer = self._normalizer(r, entropies)
        if not any((self.loss_options["beta"], self.loss_options["entropy_coef"], self.args.use_adaptive_entropy)):
            moving = np.bincount(r.group, r.trained()[0] != 0, len(r.prompts)) > 0
            r = r.select(np.flatnonzero(moving[r.group]))        # the others have no gradient
            if not len(r):
                return {"loss": 0.0, "trained_tokens": 0}
        advantages, mask = r.trained()
        loss, metrics, _, entropies = self.optimizer.accumulate_loss(
            r.prompt_ids, r.completions, r.group, old_logps=r.policy_logprobs, advantages=advantages, mask=mask,
            ref_logps=r.ref_logprobs, loss=self.loss_options, normalizer=normalizer, temperature=self.temperature,
            images=self._trained_images(r))
        # here the difference is how far the policy moved, not sampler against trainer
        for what in ("mean", "max"):
            if (value := metrics.pop(f"sampling/sampling_logp_difference/{what}", None)) is not None:
                metrics[f"policy_moved/logp_difference/{what}"] = value
        self._watch_entropy(entropies, mask, normalizer)
        return {"loss": loss, "trained_tokens": trained_tokens(r, np.ones(len(r.prompts), bool)), **metrics}

    def _trained_images(self, r: Rollouts) -> Any:
        """The images of an update: their features, or their pixels where the tower is trained."""
        return self.model.core_images(r.prompt_ids, r.pictures, pixels=self.args.train_vision != "none")

    def _normalizer(self, r: Rollouts, entropies: Any) -> dict[str, float]:
        """What this step divides by: one normaliser, whatever the micro-batches."""
        return ops.loss_normalizer(r.split(r.trained()[1]), None if entropies is None else r.split(entropies),
                                   top_entropy_quantile=self.args.top_entropy_quantile,
                                   entropy_coef=self.entropy_control[1] if self.args.use_adaptive_entropy else None)

    def _watch_entropy(self, entropies: Any, mask: Any, normalizer: dict[str, float]) -> None:
        """Adaptive entropy: the coefficient of the next step, from the mean over the tokens this step trained."""
        if self.args.use_adaptive_entropy:
            trained = entropies[(mask > 0) & (entropies >= normalizer.get("entropy_threshold", -1.0))]
            mean = float(trained.mean(dtype=np.float64)) if trained.size else 0.0
            self._next_entropy_control = ops.adapt_entropy_coef(self.entropy_control[0], mean, **self.loss_options)

    def advance(self) -> None:
        """On to the next part of the rollouts, or to the next prompts; the reference follows where it is due."""
        args, state = self.args, self.state
        self.entropy_control = self._next_entropy_control
        self._to_show = self.rollouts if self.used == 0 else None
        self.used += 1
        if self.rollouts is None or self.used == args.steps_per_rollout:
            self.rollouts = None
        if self.replay is not None:
            self.replay.add(self._to_keep, state.global_step)
        if args.sync_ref_model and state.global_step % args.ref_model_sync_steps == 0:
            self._reference.core.mix(self.model.core, args.ref_model_mixup_alpha,
                                     tower=args.train_vision != "none")
        self._count_epoch()

    def _count_epoch(self) -> None:
        """Passes over the data so far, by steps: those that are left of a rollout count when they are taken."""
        args, steps = self.args, self.args.steps_per_rollout
        if self._prompts.count is None:      # one pass, as in transformers
            self.state.epoch = self.state.global_step / max(self.state.max_steps, 1)
            return
        left = 0 if self.rollouts is None else steps - self.used
        rows = self.position * steps - min(left * args.prompts_per_rollout, self.position * steps)
        self.state.epoch = rows / (steps * self._rows_of_epoch)

    @property
    def _rows_of_epoch(self) -> int:
        """Prompts that count as a pass over the data: those of whole rollouts, as in TRL, where the others are left
        out. Here they come first in what follows."""
        rows, wanted = len(self._prompts), self.args.prompts_per_rollout
        return rows if rows < wanted or self.curriculum is not None else rows // wanted * wanted

    def skip_epoch(self) -> None:
        """To the next pass, which a stream has not; what is left of a rollout is dropped."""
        if self._prompts.count is None:
            self.control.should_training_stop = True
            return
        rows = self._rows_of_epoch
        self.rollouts, self.position = None, -(-self.position // rows) * rows
        self._count_epoch()

    def show(self) -> None:
        """The completions of rollouts that are new, as a file and as text; and that a stage of a curriculum begins."""
        if self._to_show is not None:
            self._show_completions(self._to_show)
            self._to_show = None
        step = self.state.global_step
        if self.curriculum is not None and step in self.curriculum.ends and step < self.state.max_steps:
            say(f"step {step}: {self.curriculum.name_at(step)} of the curriculum begins")

    def _show_completions(self, r: Rollouts) -> None:
        args, step = self.args, self.state.global_step
        records = completion_records(step, r, self.reward_names)
        if args.save_completions:
            self._folder.write_completions(f"step-{step:06d}", records)
        if args.log_completions and self.every(args.logging_steps):
            self.progress.write(completion_table(records, args.num_completions_to_print, args.log_unique_prompts))

    def result(self, metrics: dict[str, Any]) -> GRPOStep:
        """The step, with the rollouts it was taken on."""
        assert self._step_rollouts is not None
        return GRPOStep(self.state.global_step, metrics, self._step_rollouts, self.reward_names)

    # evaluation

    def held_out_rows(self, dataset: Any, name: str) -> Evaluation:
        """Rounds of evaluation over a data set."""
        return Evaluation(dataset, name, self.model, self.args, self.state, self.rewards, self.eval_funcs)

    def evaluate_on(self, held_out: Evaluation, prefix: str) -> dict[str, float]:
        """A round of evaluation, every row once: the numbers of grpo.evaluation.records.metrics_of and what the reward
        functions logged. Leaves eval/step-N.json in the run folder (for other prefixes than "eval",
        eval/<prefix>-N.json).

        The same random numbers are drawn each time, so two rounds differ by the weights alone.
        """
        return held_out.round(prefix, self.run)

    def finish(self) -> None:
        """The report of the last round of evaluation."""
        if self.args.eval_report == "end":
            for evaluation in self.evaluations.values():
                evaluation.report_last()

    # data, state

    def steps_of_epochs(self, epochs: float) -> int:
        """Optimiser steps of so many passes over the prompts, as TRL counts them: whole rollouts a pass, and the last
        pass as far as it is asked for. One pass over a curriculum ends with its last stage. With fewer prompts than a
        rollout takes, at least one rollout."""
        rows, wanted, steps = len(self._prompts), self.args.prompts_per_rollout, self.args.steps_per_rollout
        if self.curriculum is not None:
            return max(1, int(epochs * self.curriculum.ends[-1] / steps) * steps)
        if rows < wanted:
            return max(1, int(epochs * rows / wanted)) * steps
        return math.ceil(epochs * (rows // wanted) * steps)

    @property
    def stages(self) -> tuple[int, ...]:
        """Steps after which each stage of the curriculum is over."""
        return () if self.curriculum is None else self.curriculum.ends

    def steps(self, resume_from_checkpoint: str | bool | None = None) -> Iterator[StepResult]:
        """Yields once an optimiser step. DatasetError without train_dataset."""
        _ = self._prompts                    # raises without them
        return super().steps(resume_from_checkpoint)

    def shown(self) -> Shown | None:
        """What prompts of training and of evaluation show at most."""
        streams = [each for each in (self.stream, *(e.stream for e in self.evaluations.values())) if each is not None]
        return Shown.most(each.most_shown for each in streams) if streams else None

    def describe(self) -> str:
        """The batch arithmetic, and a curriculum's stages."""
        line = self.args.describe_batch()
        if self.curriculum is None:
            return line
        line += f"; curriculum by {self.args.curriculum!r}: {self.curriculum.describe()}"
        last = self.curriculum.stage_at(self.state.max_steps - 1)
        return line + (f" (the run ends before, in stage {last + 1})" if last + 1 < len(self.curriculum.ends) else "")

    def position_state(self) -> dict[str, Any]:
        """The place in the data, in the rollouts and in the entropy control."""
        return {"position": self.position, "rollouts_made": self.rollouts_made,
                "used": self.used if self.rollouts is not None else 0, "entropy_control": list(self.entropy_control),
                "rows": self._prompts.count or 0, "rows_hash": self._prompts.digest, "rewards": self._codes,
                "reference": self._frozen_reference, "reward_names": self.reward_names,
                "parts": self._parts, "rollout_metrics": self._rollout_metrics if self.used == 0 else {},
                "replay": [] if self.replay is None else self.replay.state()}

    @property
    def _codes(self) -> dict[str, str | None]:
        """A hash of the code of each reward."""
        return {r.name: code_of(r.function) for r in self.rewards.rewards}

    @property
    def _parts(self) -> int:
        """Mini-batches of a rollout."""
        return self.args.rollout_size // self.args.batch_size

    @functools.cached_property
    def _frozen_reference(self) -> str | None:
        """Hash of a reference that never moves: it is not saved, so a resumed run must be given the same model
        again."""
        if self.reference is None or self.args.sync_ref_model:
            return None
        return checkpoint.weights_hash(self.reference.core)

    def save_extra(self, folder: Path) -> None:
        """Rollouts that are not used up, groups kept for replay, what rewards remember, and a reference that moves."""
        if self.rollouts is not None:
            self.rollouts.save(folder / "rollouts.npz")
        if self.replay is not None:
            self.replay.save(folder / REPLAY)
        rewards: dict[str, Any] = self.rewards.state_dict()
        if rewards:
            np.savez(folder / REWARD_STATE, **rewards)
        if self.args.sync_ref_model:
            checkpoint.save_tensors(folder / "reference.safetensors", self._reference.core.tensors(),
                                    self._reference.core.get_tensor)

    @contextmanager
    def restoring(self, state: dict[str, Any], folder: Path) -> Iterator[Callable[[Path], None]]:
        """The reverse. CheckpointMismatchError for other data, another reference, or a rollout in use that this run's
        batches do not fit."""
        if state["rows"] != (self._prompts.count or 0):
            raise CheckpointMismatchError(f"{folder.parent}: the run had {state['rows']} rows of data, "
                                          f"train_dataset has {self._prompts.count or 'no length'}")
        compare_rows(folder.parent, state.get("rows_hash"), self._prompts.digest)
        compare_rewards(folder.parent, state.get("rewards"), self._codes)
        if state["reference"] != self._frozen_reference:
            raise CheckpointMismatchError(f"{folder.parent}: beta needs the reference that the run began with; give "
                                          "the trainer the model that the run was given, not one of its checkpoints")
        position, made, used = state["position"], state["rollouts_made"], state["used"]
        entropy_control, metrics = tuple(state["entropy_control"]), state.get("rollout_metrics", {})
        names = state.get("reward_names", self.reward_names)
        rollouts = self._rollouts_in_use(state, folder)
        if rollouts is not None or state.get("replay"):
            self._same_sampling(state, folder)
        kept = [] if self.replay is None else self.replay.load(folder / REPLAY, state.get("replay", []),
                                                               self._prompts.at_row, self.model)
        reference = folder / "reference.safetensors"
        if self.args.sync_ref_model:
            if not reference.exists():
                raise CheckpointMismatchError(f"{folder.parent}: sync_ref_model needs the reference as the run had "
                                              "moved it, and the run moved none")
            checkpoint.load_tensors(reference, self._reference.core.tensors(), lambda name, array: None)

        def move(moved: Path) -> None:
            self.position, self.rollouts_made, self.used, self.rollouts = position, made, used, rollouts
            self.entropy_control = self._next_entropy_control = entropy_control
            self.reward_names, self._rollout_metrics = names, metrics
            if self.replay is not None:
                self.replay.groups = kept
            if self.args.sync_ref_model:
                core = self._reference.core
                # from here on it keeps float32, as it did in the run
                core.mix(self.model.core, 0.0, tower=self.args.train_vision != "none")
                checkpoint.load_tensors(moved / reference.name, core.tensors(), core.set_tensor)

        with self._rewards_kept():
            self.rewards.load_state_dict(load_arrays(folder / REWARD_STATE))
            yield move

    def _same_sampling(self, state: dict[str, Any], folder: Path) -> None:
        """CheckpointMismatchError where the completions that a checkpoint keeps were drawn at another temperature, by
        which log-probs are divided, or scored against a reference that is not there."""
        saved = state["config"]
        for name in ("temperature", "beta", "num_generations"):
            there, here = saved.get(name), getattr(self.args, name)
            if there is not None and (bool(there) != bool(here) if name == "beta" else there != here):
                raise CheckpointMismatchError(f"{folder.parent} keeps completions that are not used up, made with "
                                              f"{name}={there}; here it is {here}. Resume with the former, or from a "
                                              "checkpoint between two rollouts, without a replay buffer")

    def _rollouts_in_use(self, state: dict[str, Any], folder: Path) -> Rollouts | None:
        """The rollouts that a checkpoint keeps, where this run has steps left to take on them."""
        kept = folder / "rollouts.npz"
        if not kept.exists() or state["used"] >= self.args.steps_per_rollout:
            return None
        rollouts = Rollouts.load(kept, self._prompts.at_row, self.model)
        if len(rollouts) != self.args.rollout_size or state.get("parts", self._parts) != self._parts:
            raise CheckpointMismatchError(
                f"{folder.parent}: the run stopped within a rollout of {len(rollouts)} completions, to be used in "
                f"{state.get('parts', self._parts)} parts; here it would be {self.args.rollout_size} completions in "
                f"{self._parts}. Resume with the batch options of that run, or from a checkpoint between two rollouts")
        return rollouts


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz without pickles; none where there is no file."""
    return read_arrays(path) if path.exists() else {}


def trained_tokens(r: Rollouts, groups: Any) -> int:
    """Tokens that the backward pass of these groups went over; a prompt is gone over once for its group."""
    prompts = sum(len(p.ids) for p, run in zip(r.prompts, groups, strict=True) if run)
    return int(r.lengths[groups[r.group]].sum()) + prompts
