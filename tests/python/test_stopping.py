"""What stops a run: a reward that fails, Ctrl-C, SIGTERM; what it leaves behind then."""
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import grpo
import toy
from grpo.errors import RewardError
from grpo.runs import checkpoint
from grpo.training.loop import TrainingInterrupted


def records(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_failing_reward_leaves_the_run_consistent(tmp_path):
    def reward(completions, trainer_state):
        if trainer_state.global_step == 2:
            raise ValueError("third step")
        return [float(len(c)) for c in completions]

    trainer = toy.trainer(tmp_path, reward, save_strategy="steps", save_steps=1, max_steps=5)
    with pytest.raises(RewardError, match="'reward' raised ValueError: third step"):
        trainer.train()
    assert [r["step"] for r in records(trainer.run.path / "metrics.jsonl")] == [1, 2]
    assert sorted(p.name for p in (trainer.run.path / "checkpoints").iterdir()) == ["step-1", "step-2"]


def test_interrupt_keeps_the_last_checkpoint_and_the_trainer(tmp_path):
    stop = [True]

    def reward(completions, trainer_state):
        if trainer_state.global_step == 2 and stop.pop():
            raise KeyboardInterrupt
        return toy.byte_values([c.encode() for c in completions])

    trainer = toy.trainer(tmp_path, reward, save_strategy="steps", save_steps=2, max_steps=4)
    with pytest.raises(TrainingInterrupted) as caught:
        trainer.train()
    assert (caught.value.checkpoint == trainer.run.path / "checkpoints" / "step-2"
            and caught.value.run == trainer.run.path)
    assert isinstance(caught.value, KeyboardInterrupt) and "stopped after step 2" in str(caught.value)
    stop.append(False)
    trainer.train()
    straight = toy.trainer(tmp_path, lambda completions: toy.byte_values([c.encode() for c in completions]),
                           max_steps=4)
    straight.train()
    assert toy.weights(trainer) == toy.weights(straight)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("phase", ["generate", "update", "reward", "save"])
def test_ctrl_c(tmp_path, phase, number):
    """A real signal in a real process, in the middle of each phase: the step at hand is finished and saved."""
    script = textwrap.dedent("""
        import signal, sys, toy
        from grpo.runs import checkpoint
        from pathlib import Path

        folder, phase = Path(sys.argv[1]), sys.argv[2]
        calls = {"generate": 0, "update": 0, "reward": 0, "save": 0}

        def reached(here):
            calls[here] += 1
            if here == phase and calls[here] == 3:
                print("now", flush=True)
                sys.stdin.readline()                             # the line comes after the signal

        def reward(completions):
            reached("reward")
            return [float(len(c)) for c in completions]

        def save(*arguments, save=checkpoint.save_optimizer):
            reached("save")
            save(*arguments)

        class Update:
            def on_pre_optimizer_step(self, *arguments, **named):
                reached("update")

        checkpoint.save_optimizer = save
        signal.signal(signal.SIGINT, signal.default_int_handler)     # a job in the background starts with it ignored
        trainer = toy.trainer(folder, reward, max_steps=200000, save_strategy="steps", save_steps=1,
                              save_total_limit=2, output_dir=str(folder / "run"), callbacks=[Update])
        trainer.progress.on_rollout = lambda *numbers: reached("generate")
        trainer.train()
    """)
    path = os.pathsep.join([str(Path(toy.__file__).parent), str(Path(grpo.__file__).parent.parent)])
    with subprocess.Popen([sys.executable, "-P", "-c", script, tmp_path, phase], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONPATH": path}) as process:
        try:
            assert process.stdout.readline() == "now\n", process.stderr.read()
            process.send_signal(number)
            process.stdin.write("\n")
            process.stdin.flush()
            err = process.stderr.read()
        finally:
            process.kill()
    assert process.returncode != 0 and "TrainingInterrupted: stopped after step" in err, err
    lines = records(tmp_path / "run" / "metrics.jsonl") if (tmp_path / "run" / "metrics.jsonl").exists() else []
    assert [r["step"] for r in lines] == list(range(1, len(lines) + 1))
    assert lines and checkpoint.step_of(checkpoint.steps(tmp_path / "run" / "checkpoints")[0]) == len(lines)
    for folder in checkpoint.steps(tmp_path / "run" / "checkpoints"):   # hidden ones go with the next write
        checkpoint.verify(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_reward_that_hangs_is_not_waited_for(tmp_path, number):
    """By those who stop a process for good; the step before it is saved, and going on gives the straight run's bits."""
    def hangs(completion_ids):
        if trainer.state.global_step == 1 and not came:
            came.append(number)
            os.kill(os.getpid(), number)
            threading.Event().wait()
        return toy.byte_values(completion_ids)

    came, options = [], dict(max_steps=3, save_strategy="steps", save_steps=100)
    trainer = toy.trainer(tmp_path, hangs, **options)
    trainer.signals.patience = 0.01
    with pytest.raises(TrainingInterrupted) as caught:
        trainer.train()
    assert caught.value.step == 1 and caught.value.checkpoint.name == "step-1"
    trainer.train()
    straight = toy.trainer(tmp_path, **options)
    straight.train()
    assert toy.weights(trainer) == toy.weights(straight)


def test_sigterm_ends_a_run_with_a_checkpoint(tmp_path):
    """After the step at hand; where there are no checkpoints, without one."""
    def reward(completions, trainer_state):
        if trainer_state.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return toy.byte_values([c.encode() for c in completions])

    before = signal.getsignal(signal.SIGTERM)
    for saving, step in ((dict(save_strategy="steps", save_steps=100), "step-3"), ({}, None)):
        trainer = toy.trainer(tmp_path, reward, max_steps=9, **saving)
        with pytest.raises(TrainingInterrupted, match="stopped after step 3") as caught:
            trainer.train()
        assert (caught.value.checkpoint.name if step else caught.value.checkpoint) == step
        assert signal.getsignal(signal.SIGTERM) is before
