"""A step is taken whole or not at all: what is raised anywhere in a run, and what going on then gives. What is refused
moves nothing, and finished work is safe before anything else begins."""
import json
import os
import pickle
import signal

import numpy as np
import pytest

import grpo
import toy
from grpo.errors import GrpoWarning, NonFiniteError, RewardError
from grpo.runs import checkpoint
from grpo.runs.folder import to_json
from grpo.training.interrupt import Signals, TrainingInterrupted

STEPS = 4
EVENTS = ["on_epoch_begin", "on_step_begin", "on_pre_optimizer_step", "on_optimizer_step", "on_log", "on_step_end",
          "on_epoch_end", "on_save", "on_evaluate"]
VARIANTS = [{}, dict(num_iterations=2), dict(per_device_train_batch_size=4, steps_per_generation=3, num_iterations=2),
            dict(dynamic_sampling=True, max_resample_times=2), dict(use_adaptive_entropy=True, entropy_target=100.0),
            dict(beta=0.1, sync_ref_model=True, ref_model_sync_steps=2)]


class Memory:
    """A reward that remembers how often it was asked, and is asked to fail once."""

    def __init__(self, fails_at=None):
        self.calls, self.fails_at = 0, fails_at

    def __call__(self, completion_ids, training, **columns):
        if training:
            self.calls += 1
            if self.calls == self.fails_at:
                self.fails_at = None
                raise KeyboardInterrupt
        return [sum(ids) / 1000 + self.calls * (sum(ids) % 3) for ids in completion_ids]

    def state_dict(self):
        return {"calls": np.array(self.calls)}

    def load_state_dict(self, state):
        self.calls = int(state["calls"])


class Raises:
    """A callback that raises the first time that the event comes after so many steps."""

    def __init__(self, event, error, after):
        self.left = [error]

        def method(args, state, control, **details):
            if state.global_step >= after and self.left:
                raise self.left.pop()

        setattr(self, event, method)


def grpo_trainer(tmp_path, reward=None, **changed):
    options = dict(max_steps=STEPS, save_strategy="steps", save_steps=2, eval_strategy="steps", eval_steps=2,
                   logging_steps=2, eval_dataset=toy.ROWS)
    return toy.trainer(tmp_path, reward or Memory(), **(options | changed))


def sft_trainer(tmp_path, callbacks=None, **changed):
    options = dict(output_dir=str(tmp_path / f"sft{len(list(tmp_path.iterdir()))}"), max_steps=STEPS, save_steps=2,
                   learning_rate=1e-2, per_device_train_batch_size=2, eval_strategy="steps", eval_steps=2) | changed
    rows = [{"prompt": "a", "completion": c} for c in "bcdef"]
    return grpo.SFTTrainer(toy.model(), grpo.SFTConfig(**options), rows, rows, callbacks=callbacks)


def outcome(trainer):
    """All that must be the same: weights, moments, log, place."""
    moments = {(kind, name): trainer.optimizer.get_state(kind, name).tobytes() for kind in ("master", "m", "v")
               for name, _ in trainer.model.core.tensors()}
    lines = [to_json(toy.timeless(r)) for r in trainer.run.history()]
    remembered = trainer.rewards.state_dict() if hasattr(trainer, "rewards") else {}
    return (toy.weights(trainer), moments, lines, trainer.optimizer.steps_taken, trainer.position,
            trainer.state.num_input_tokens_seen, {name: value.tolist() for name, value in remembered.items()},
            sorted(checkpoint.step_of(p) for p in checkpoint.steps(trainer.run.checkpoints)))


def go_on(trainer, iterate):
    """Runs to the end, over whatever is raised on the way. The steps that were seen."""
    seen = []
    for _ in range(5):
        try:
            if not iterate:
                trainer.train()
                return None
            seen.extend(step.step for step in trainer)
            return seen
        except (KeyboardInterrupt, ValueError, RewardError):
            pass
    raise AssertionError("the run does not end")


@pytest.mark.parametrize("iterate", [False, True], ids=["train", "iterate"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("make", [grpo_trainer, sft_trainer], ids=["grpo", "sft"])
def test_going_on_after_any_callback(tmp_path, make, event, error, iterate):
    straight = make(tmp_path)
    straight.train()
    broken = make(tmp_path, callbacks=[Raises(event, error, 1)])
    seen = go_on(broken, iterate)
    assert outcome(broken) == outcome(straight)
    if iterate:
        assert seen == list(range(1, STEPS + 1))


@pytest.mark.parametrize("changed", VARIANTS, ids=lambda changed: ", ".join(changed) or "plain")
@pytest.mark.parametrize("event", ["on_pre_optimizer_step", "on_optimizer_step", "on_step_end"])
def test_going_on_with_every_kind_of_step(tmp_path, changed, event):
    straight = grpo_trainer(tmp_path, **changed)
    straight.train()
    broken = grpo_trainer(tmp_path, callbacks=[Raises(event, KeyboardInterrupt, 1)], **changed)
    go_on(broken, False)
    assert outcome(broken) == outcome(straight)


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4, 5])
def test_a_reward_that_remembers_forgets_a_rollout_that_was_not_made(tmp_path, fails_at):
    """With dynamic sampling a rollout has several rounds; one that fails takes those before it along."""
    changed = dict(dynamic_sampling=True, max_resample_times=2)
    straight = grpo_trainer(tmp_path, **changed)
    straight.train()
    broken = grpo_trainer(tmp_path, Memory(fails_at), **changed)
    go_on(broken, False)
    assert outcome(broken) == outcome(straight)


@pytest.mark.parametrize("event", ["on_pre_optimizer_step", "on_optimizer_step", "on_step_end"])
def test_a_checkpoint_of_an_interrupted_step_resumes_exactly(tmp_path, event):
    straight = grpo_trainer(tmp_path)
    straight.train()
    broken = grpo_trainer(tmp_path, callbacks=[Raises(event, KeyboardInterrupt, 1)])
    with pytest.raises(TrainingInterrupted):
        broken.train()
    broken.save_checkpoint()
    resumed = grpo_trainer(tmp_path, output_dir=str(broken.run.path))
    resumed.train(resume_from_checkpoint=True)
    assert outcome(resumed)[:-1] == outcome(straight)[:-1]


# ---- signals

@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_finishes_the_step_and_saves(tmp_path, event, number):
    """Wherever it comes: the log ends with the step of the checkpoint, and going on is the straight run."""
    straight = grpo_trainer(tmp_path)
    straight.train()

    class Sends:
        left = [number]

        def __getattr__(self, name):
            if name != event:
                raise AttributeError(name)
            return self.send

        def send(self, args, state, control, **details):
            if state.global_step >= 1 and self.left:
                os.kill(os.getpid(), self.left.pop())

    before = signal.getsignal(number)
    broken = grpo_trainer(tmp_path, callbacks=[Sends()])
    with pytest.raises(TrainingInterrupted) as caught:
        broken.train()
    assert signal.getsignal(number) is before
    assert checkpoint.step_of(caught.value.checkpoint) == broken.state.global_step == caught.value.step
    broken.train()
    assert outcome(broken)[:-1] == outcome(straight)[:-1]


def test_the_second_ctrl_c_leaves_at_once(tmp_path):
    def reward(completion_ids, trainer_state, **columns):
        if trainer_state.global_step == 1:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return toy.byte_values(completion_ids)

    trainer = grpo_trainer(tmp_path, reward)
    with pytest.raises(TrainingInterrupted, match="stopped after step 1 .*no checkpoint yet"):
        trainer.train()


def test_ctrl_c_between_the_steps_of_a_loop_is_the_loops(tmp_path):
    trainer = grpo_trainer(tmp_path)
    with pytest.raises(KeyboardInterrupt) as caught:
        for _ in trainer:
            signal.raise_signal(signal.SIGINT)
    assert not isinstance(caught.value, TrainingInterrupted) and trainer.state.global_step == 1
    assert [step.step for step in trainer] == [2, 3, 4]


def test_signals_that_the_process_ignores_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)             # as under nohup
    try:
        signals = Signals()
        with signals.watched(), signals.finishing():
            signal.raise_signal(signal.SIGHUP)
            assert not signals.came
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interrupt_can_be_pickled(tmp_path):
    copy = pickle.loads(pickle.dumps(TrainingInterrupted(3, tmp_path, None)))
    assert (copy.step, copy.run, copy.checkpoint) == (3, tmp_path, None) and "after step 3" in str(copy)


# ---- what is refused moves nothing

def damaged(folder, name, content):
    """Another file in a checkpoint whose manifest says that it is right."""
    (folder / "trainer" / name).write_bytes(content)
    manifest = json.loads((folder / checkpoint.MANIFEST).read_text())
    manifest["files"][f"trainer/{name}"] = checkpoint.seal(folder / "trainer" / name)
    (folder / checkpoint.MANIFEST).write_text(json.dumps(manifest))


def unreadable(path):
    """A folder in the place of a file."""
    path.unlink()
    path.mkdir()


def broken_reward(folder):
    class Refuses(Memory):
        def load_state_dict(self, state):
            super().load_state_dict(state)
            if self.calls:
                raise ValueError("a state of another version")

    Refuses.__name__ = "Memory"                                       # by which its state is found
    return dict(reward=Refuses())


REFUSED = {
    "seed": lambda folder: dict(seed=7),
    "rows": lambda folder: dict(rows=toy.ROWS * 2),
    "moments": lambda folder: dict(moment_dtype="bfloat16"),
    "float8 moments": lambda folder: dict(moment_dtype="float8"),
    "masters": lambda folder: dict(master_dtype="float24"),
    "batches in the middle of a rollout": lambda folder: dict(prompts_per_step=1, generation_batch_size=4),
    "a reference that nobody moved": lambda folder: dict(beta=0.1, sync_ref_model=True),
    "a reference that is not there": lambda folder: dict(beta=0.1),
    "the state of a reward": broken_reward,
    "the last file": lambda folder: damaged(folder, "v.safetensors", b"x") or {},
    "rollouts": lambda folder: damaged(folder, "rollouts.npz", b"x") or {},
    "the log": lambda folder: unreadable(folder.parent.parent / "metrics.jsonl") or {},
}


@pytest.mark.filterwarnings("ignore::grpo.errors.GrpoWarning")
@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_a_refused_resume_moves_nothing(tmp_path, change):
    first = grpo_trainer(tmp_path, num_iterations=3, save_steps=1, max_steps=2)
    first.train()
    last = first.run.checkpoints / "step-2"
    changed = dict(num_iterations=3, output_dir=str(first.run.path)) | change(last)
    trainer = grpo_trainer(tmp_path, **changed)
    before = toy.weights(trainer)
    with pytest.raises(Exception):                                    # noqa: B017 - whatever it is
        trainer.train(resume_from_checkpoint=str(last))
    assert toy.weights(trainer) == before and trainer.run is None
    assert trainer.optimizer.steps_taken == trainer.state.global_step == trainer.position == trainer.rollouts_made == 0
    assert trainer.rollouts is None and trainer.rewards.state_dict()["Memory/calls"] == 0
    for kind in ("m", "v"):
        assert not any(trainer.optimizer.get_state(kind, name).any() for name, _ in trainer.model.core.tensors())


@pytest.mark.filterwarnings("ignore::grpo.errors.GrpoWarning")
@pytest.mark.parametrize("iterations, drawn", [(3, 1), (2, 2), (1, 2), (5, 1)])
def test_a_rollout_in_use_is_cut_at_its_edge(tmp_path, iterations, drawn):
    """The run had taken 2 of 3 steps on it."""
    first = grpo_trainer(tmp_path, num_iterations=3, save_steps=1, max_steps=2)
    first.train()
    resumed = grpo_trainer(tmp_path, num_iterations=iterations, max_steps=3)
    resumed.train(resume_from_checkpoint=str(first.run.checkpoints / "step-2"))
    assert resumed.rollouts_made == drawn


# ---- finished work first

def test_the_last_checkpoint_is_there_before_the_last_evaluation(tmp_path):
    def judge(completions, **columns):
        assert checkpoint.step_of(checkpoint.latest(trainer.run.checkpoints)) == trainer.state.global_step
        raise ValueError("the judge does not answer")

    for eval_steps in (STEPS, STEPS + 1):                             # at the last step, or after it
        args = grpo.GRPOConfig(**toy.options(tmp_path, max_steps=STEPS, save_strategy="steps", eval_strategy="steps",
                                             eval_steps=eval_steps))
        trainer = grpo.GRPOTrainer(toy.model(), toy.byte_values, args, toy.ROWS, toy.ROWS, eval_funcs=[judge])
        with pytest.raises(RewardError, match="does not answer"):
            trainer.train()
        assert [p.name for p in checkpoint.steps(trainer.run.checkpoints)] == [f"step-{STEPS}"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("eval_steps", [3, STEPS, STEPS + 1])
def test_a_signal_in_an_evaluation_leaves_with_a_checkpoint(tmp_path, eval_steps, number):
    """And what was not evaluated is when the run is resumed."""
    straight = grpo_trainer(tmp_path, save_steps=100, eval_steps=eval_steps)
    straight.train()
    broken = grpo_trainer(tmp_path, save_steps=100, eval_steps=eval_steps)
    broken.evaluate = lambda: signal.raise_signal(number)
    with pytest.raises(TrainingInterrupted) as caught:
        broken.train()
    assert checkpoint.step_of(caught.value.checkpoint) == min(eval_steps, STEPS)
    resumed = grpo_trainer(tmp_path, save_steps=100, eval_steps=eval_steps, output_dir=str(broken.run.path))
    resumed.train(resume_from_checkpoint=True)
    assert outcome(resumed)[:-1] == outcome(straight)[:-1]


@pytest.mark.parametrize("changed, saved", [
    ({}, [2, 4, 6]), (dict(save_minutes=None), [6]), (dict(save_minutes=20.0), [4, 6]),
    (dict(save_steps=3), [2, 3, 5, 6]), (dict(save_strategy="no"), [])])
def test_save_minutes(tmp_path, changed, saved):
    """A clock on which a step takes five minutes."""
    trainer = toy.trainer(tmp_path, **(dict(save_strategy="steps", save_steps=100, max_steps=6) | changed))
    trainer.clock = lambda: 300.0 * trainer.state.global_step
    trainer.train()
    assert [checkpoint.step_of(p) for p in reversed(checkpoint.steps(trainer.run.checkpoints))] == saved


# ---- steps that were skipped

def test_a_skipped_step_drops_no_good_checkpoint(tmp_path, monkeypatch):
    trainer = toy.trainer(tmp_path, save_strategy="steps", save_steps=1, save_total_limit=1, max_steps=6,
                          max_skipped_steps=2)
    update = trainer.update

    def fails():
        if trainer.state.global_step >= 2:
            raise NonFiniteError("a gradient that is not finite")
        return update()

    monkeypatch.setattr(trainer, "update", fails)
    with pytest.warns(GrpoWarning, match="is skipped"), pytest.raises(NonFiniteError, match="those of step 2"):
        trainer.train()
    assert [p.name for p in checkpoint.steps(trainer.run.checkpoints)] == ["step-4", "step-2"]


def test_weights_that_are_not_finite_drop_no_good_checkpoint(tmp_path):
    trainer = toy.trainer(tmp_path, save_strategy="steps", save_steps=1, save_total_limit=1, max_steps=3)
    steps = iter(trainer)
    next(steps), next(steps)
    name, shape = trainer.model.core.tensors()[0]
    trainer.model.core.set_tensor(name, np.full(shape, np.inf, np.float32))
    trainer.state.global_step = 3
    trainer.save_checkpoint()
    assert [p.name for p in checkpoint.steps(trainer.run.checkpoints)] == ["step-3", "step-2"]
    assert [checkpoint.is_good(p) for p in checkpoint.steps(trainer.run.checkpoints)] == [False, True]
