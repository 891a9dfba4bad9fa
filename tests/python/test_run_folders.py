"""Run folders: what is read out of a damaged one, what a full, lost or foreign one leads to, and whose it is."""
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest

import grpo
import toy
from grpo import _core
from grpo.errors import CheckpointError, ConfigError, GrpoWarning, RunFolderError
from grpo.evaluation.folder import EvalFolder
from grpo.runs import Metrics, RunFolder, checkpoint, claim, lines, plot_run

SAVING = dict(save_strategy="steps", save_steps=1, max_steps=4)


def trainer(tmp_path, *arguments, **changed):
    return toy.trainer(tmp_path, *arguments, **(dict(output_dir=str(tmp_path / "run")) | changed))


def steps(path):
    return [json.loads(line)["step"] for line in (Path(path) / "metrics.jsonl").read_bytes().splitlines()]


# ---- lines

FOREIGN = {
    "torn in the middle": b'{"step": 2, "lo{"step": 2}', "no JSON": b"nonsense", "not text": b"\xff\xfe",
    "zeros of a crash": bytes(64), "a list": b"[2]", "a number": b"3", "null": b"null",
    "without a step": b'{"loss": 1}',
    "a step of text": b'{"step": "2"}', "a step between": b'{"step": 1.5}', "a step that is true": b'{"step": true}',
    "a negative step": b'{"step": -1}', "a step that is no number": b'{"step": NaN}', "deep": b"[" * 100000,
    "a long number": b'{"step": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("line", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_lines_that_are_no_records_are_dropped_and_counted(tmp_path, capsys, line, place):
    content = [b'{"step": 1}', b'{"step": 2}']
    content.insert(place, line)
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(content) + b"\n")
    assert [r["step"] for r in Metrics(tmp_path).records] == [1, 2]
    said = capsys.readouterr().err
    assert said == f"{tmp_path}/metrics.jsonl: 1 line is left out, torn or no record (line {place + 1})\n"
    folder = RunFolder(tmp_path)
    assert folder.history() == [{"step": 1}, {"step": 2}]
    assert folder.rewind(1) == [{"step": 1}] and (tmp_path / "metrics.jsonl").read_bytes() == b'{"step": 1}\n'


@pytest.mark.parametrize("line", FOREIGN.values(), ids=FOREIGN)
def test_a_damaged_log_does_not_stop_a_resume(tmp_path, capsys, line):
    first = trainer(tmp_path, **(SAVING | dict(max_steps=2)))
    first.train()
    path = first.run.path / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\n" + line + b"\n"))
    resumed = trainer(tmp_path, output_dir=str(first.run.path), **SAVING)
    resumed.train(resume_from_checkpoint=True)
    assert steps(first.run.path) == [1, 2, 3, 4]
    assert "2 lines are left out, torn or no record (the first is line 2)" in capsys.readouterr().err


def test_a_whole_line_is_appended_or_none(tmp_path, monkeypatch):
    path = tmp_path / "lines"
    lines.append(path, b"one\n")
    write = os.write

    def full(descriptor, data):
        if not data[0] == ord("t"):
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:2])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        lines.append(path, b"two\n")
    assert path.read_bytes() == b"one\n"


# ---- a folder that is full, lost, or not writable

@pytest.fixture
def full_disk(monkeypatch):
    """A list; while it is not empty there is no room for metrics and for files that are written whole."""
    full = []
    append, write_bytes = lines.append, Path.write_bytes

    def fails(call):
        def checked(path, *rest):
            if full:
                raise OSError(28, "No space left on device", str(path))
            return call(path, *rest)
        return checked

    monkeypatch.setattr("grpo.runs.folder.append", fails(append))
    monkeypatch.setattr(Path, "write_bytes", fails(write_bytes))
    return full


class Between:
    """A callback that does something after one step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_end(self, args, state, control, run, **kwargs):
        if state.global_step == self.step:
            self.action(run.path)


@pytest.mark.parametrize("again", [2, 3, None], ids=lambda step: f"room after step {step}")
def test_a_full_disk_does_not_end_a_run(tmp_path, full_disk, again):
    made = [Between(1, lambda path: full_disk.append(1))]
    made += [Between(again, lambda path: full_disk.clear())] if again else []
    t = trainer(tmp_path, callbacks=made, save_strategy="no", max_steps=4, eval_dataset=toy.ROWS,
                          eval_strategy="steps", eval_steps=2)
    with pytest.warns(GrpoWarning, match=r"run/.*jsonl cannot be written: No space left on device"):
        t.train()
    logged = [r["step"] for r in t.state.log_history if "train_loss" not in r]
    assert steps(t.run.path) == (logged if again else [1])
    straight = trainer(tmp_path, save_strategy="no", max_steps=4, output_dir=str(tmp_path / "straight"))
    full_disk.clear()
    straight.train()
    assert toy.weights(t) == toy.weights(straight)
    assert not list(tmp_path.rglob("*.tmp-*"))


def test_reports_and_pictures_on_a_full_disk(tmp_path, monkeypatch):
    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("grpo.evaluation.rounds.write_reports", full)
    t = trainer(tmp_path, save_strategy="no", max_steps=1, eval_dataset=toy.ROWS, eval_strategy="steps", eval_steps=1,
                eval_report="end")
    with pytest.warns(GrpoWarning, match=r"eval/step-000001.html cannot be written: No space left on device"):
        t.train()
    monkeypatch.setattr("grpo.runs.plots.save", full)
    with pytest.raises(RunFolderError, match="run/plots: the pictures cannot be written: No space left on device"):
        plot_run(t.run.path)


def test_an_evaluation_on_a_full_disk_keeps_what_is_finished(tmp_path, monkeypatch):
    folder = EvalFolder(tmp_path / "eval", {"num_generations": 1})
    folder.add([{"row": 0}])
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(RunFolderError, match="eval/unfinished.jsonl cannot be written: No space left on device"):
        folder.add([{"row": 1}])
    assert (tmp_path / "eval" / "unfinished.jsonl").read_text() == '{"row": 0}\n'


def test_a_full_disk_at_the_start_is_named(tmp_path, full_disk):
    full_disk.append(1)
    with pytest.raises(RunFolderError, match=r"run/config.yaml cannot be written: No space left"):
        trainer(tmp_path, max_steps=1).train()


LOST = {"deleted": shutil.rmtree, "renamed": lambda path: path.rename(path.with_name("moved")),
        "replaced": lambda path: (path.rename(path.with_name("moved")), path.mkdir())}


@pytest.mark.parametrize("lose", LOST.values(), ids=LOST)
@pytest.mark.parametrize("changed", [{}, SAVING, dict(save_completions=False),
                                     dict(eval_strategy="steps", eval_steps=1)],
                         ids=["plain", "saving", "without completions", "evaluating"])
def test_a_folder_that_is_lost_is_named(tmp_path, lose, changed):
    t = trainer(tmp_path, callbacks=[Between(2, lose)], eval_dataset=toy.ROWS,
                          **(dict(max_steps=4, save_strategy="no") | changed))
    with pytest.raises(RunFolderError, match="the run folder .*/run is gone"):
        t.train()
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_folder_that_comes_back_is_gone_on_with(tmp_path):
    t = trainer(tmp_path, callbacks=[Between(2, LOST["renamed"])], max_steps=4)
    with pytest.raises(RunFolderError, match="is gone"):
        t.train()
    (tmp_path / "moved").rename(tmp_path / "run")
    t.train()
    assert t.state.global_step == 4 and steps(tmp_path / "run")[-1] == 4


@pytest.mark.parametrize("name", ["metrics.jsonl", "completions", "config.yaml"])
def test_what_cannot_be_written_is_named(tmp_path, name):
    """A file where a folder should be, or a folder in the place of a file: no user may write there, root included."""
    class InTheWay:
        def on_train_begin(self, args, state, control, run, **kwargs):
            if name == "completions":
                (run.path / name).write_text("")
            else:
                (run.path / name).unlink(missing_ok=True)
                (run.path / name).mkdir()

    t = trainer(tmp_path, callbacks=[InTheWay], max_steps=2)
    with pytest.raises(RunFolderError, match=f"run/{name}.* cannot be written"):
        t.train()
        t.train()                            # writes config.yaml again


@pytest.mark.parametrize("name", ["file", "file/run", "x" * 300, "with\0nul"])
def test_an_output_dir_that_cannot_be_is_named(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="the folder cannot be made|holds a NUL"):
        trainer(tmp_path, max_steps=1, output_dir=str(tmp_path / name)).train()


def test_what_stands_beside_the_checkpoints_is_named_too(tmp_path):
    (tmp_path / checkpoint.BEST / "in the way").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=f"{checkpoint.BEST}: cannot be written"):
        checkpoint.write_best(tmp_path, 1, "eval_reward", 1.0)
    for name in ("step-1", "step-2", f".step-1.old-{os.getpid()}/in the way"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / checkpoint.MANIFEST).write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be dropped"):
        checkpoint.prune(tmp_path, 1)


# ---- whose a folder is

def script(body):
    """Arguments of a process that runs body; sys.argv[1:] follow."""
    return [sys.executable, "-P", "-c", "import os, signal, sys, grpo, toy\nfrom pathlib import Path\n"
            + textwrap.dedent(body)]


def environment():
    path = os.pathsep.join([str(Path(toy.__file__).parent), str(Path(grpo.__file__).parent.parent)])
    return {**os.environ, "PYTHONPATH": path}


class Held:
    """A process that trains in a folder and waits once, with a checkpoint behind it, until it is let go."""

    def __init__(self, folder, resume=False):
        self.process = subprocess.Popen([*script("""
            class Wait:
                def on_step_begin(self, args, state, control, run, **kwargs):
                    if state.global_step and not waited:
                        waited.append(1)
                        print(run.path, flush=True)
                        sys.stdin.readline()
            waited = []
            toy.trainer(Path(sys.argv[1]).parent, callbacks=[Wait], output_dir=sys.argv[1], max_steps=4,
                        save_strategy="steps", save_steps=1).train(sys.argv[2] == "resume")
        """), str(folder), "resume" if resume else "new"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=environment())
        self.folder = self.process.stdout.readline().strip()
        assert self.folder, self.process.stderr.read()

    def go_on(self):
        _, errors = self.process.communicate("\n")
        assert self.process.returncode == 0, errors

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize("slash", ["", "/", "/."])
def test_two_processes_never_share_a_folder(tmp_path, slash):
    with Held(f"{tmp_path}/out{slash}") as first, Held(f"{tmp_path}/out{slash}") as second:
        assert [first.folder, second.folder] == [f"{tmp_path}/out", f"{tmp_path}/out-2"]
        first.go_on()
        second.go_on()
    assert steps(first.folder) == steps(second.folder) == [1, 2, 3, 4]
    assert not (tmp_path / "out" / "-2").exists() and not list(tmp_path.glob("*/run.lock"))


def test_a_second_resume_is_refused_by_name(tmp_path):
    first = trainer(tmp_path, **(SAVING | dict(max_steps=2)))
    first.train()
    with Held(first.run.path, resume=True) as held:
        second = trainer(tmp_path, output_dir=str(first.run.path), **SAVING)
        before = toy.weights(second)
        with pytest.raises(RunFolderError, match=rf"/run is being written by process {held.process.pid} on "):
            second.train(resume_from_checkpoint=True)
        assert toy.weights(second) == before and second.run is None
        held.go_on()
    assert steps(first.run.path) == [1, 2, 3, 4]
    assert second.train(resume_from_checkpoint=True).global_step == 4      # it is free again


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_claim_ends_with_its_process(tmp_path, number):
    with Held(tmp_path / "run") as held:
        held.process.send_signal(number)
        held.process.communicate("\n" if number != signal.SIGKILL else None)
    resumed = trainer(tmp_path, **SAVING)
    assert resumed.train(resume_from_checkpoint=True).global_step == 4
    assert steps(tmp_path / "run") == [1, 2, 3, 4]


def test_a_process_that_a_reward_leaves_behind_does_not_hold_the_folder(tmp_path):
    folder = RunFolder(tmp_path)
    (read, write), (begun, ready) = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:
        os.close(write)
        os.write(ready, b"!")
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    assert os.read(begun, 1) == b"!"
    os.close(folder._claim._descriptor)                  # as the end of this process would
    claim._held.discard(folder._claim._descriptor)
    RunFolder(tmp_path).release()
    for end in (write, begun, ready):
        os.close(end)
    assert os.waitpid(child, 0)[1] == 0


OWNERS = {
    "nobody": ("", None), "not JSON": ("{", None), "a list": ("[]", None),
    "gone, this machine": ({"host": claim.identity()["host"], "pid": 1 << 40, "boot": "other"}, None),
    "another name, this machine": (claim.identity() | {"host": "elsewhere"}, None),
    "another machine": ({"host": "elsewhere", "pid": 7, "boot": "other"},
                        r"claimed by process 7 on elsewhere, another machine.*delete .*run\.lock"),
}


@pytest.mark.parametrize("owner, message", OWNERS.values(), ids=OWNERS)
def test_who_left_a_claim_decides(tmp_path, owner, message):
    (tmp_path / "run.lock").write_text(owner if isinstance(owner, str) else json.dumps(owner))
    if message is None:
        RunFolder(tmp_path).release()
        assert not list(tmp_path.iterdir())
    else:
        with pytest.raises(RunFolderError, match=message):
            RunFolder(tmp_path)
        assert RunFolder.create(str(tmp_path), "x").path.name == f"{tmp_path.name}-2"


@pytest.mark.parametrize("number", claim.NO_LOCKS)
@pytest.mark.parametrize("pid, message", [(None, None), (1 << 40, None), (os.getppid(), "is being written by process"),
                                          ("7", None)])
def test_without_locks_the_number_of_the_process_decides(tmp_path, monkeypatch, number, pid, message):
    def no_locks(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(claim.fcntl, "flock", no_locks)
    (tmp_path / "run.lock").write_text(json.dumps(claim.identity() | {"pid": pid}) if pid else "")
    if message is None:
        RunFolder(tmp_path).release()
        assert not list(tmp_path.iterdir())
    else:
        with pytest.raises(RunFolderError, match=message):
            RunFolder(tmp_path)


def test_a_run_that_is_left_early_lets_its_folder_go_and_takes_it_again(tmp_path):
    t = trainer(tmp_path, **SAVING)
    next(iter(t))
    with_claim = RunFolder(t.run.path)
    with pytest.raises(RunFolderError, match="is being written by process"):
        next(iter(t))
    with_claim.release()
    assert t.train().global_step == 4 and steps(t.run.path) == [1, 2, 3, 4]


def test_a_run_that_another_went_on_with_is_not_gone_on_with(tmp_path):
    first = trainer(tmp_path, **SAVING)
    next(iter(first))
    trainer(tmp_path, **SAVING).train(resume_from_checkpoint=True)
    with pytest.raises(RunFolderError, match="metrics.jsonl has changed since this run left it"):
        first.train()
    assert steps(tmp_path / "run") == [1, 2, 3, 4]


def test_folders_are_absolute_from_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    def reward(completions):
        os.chdir(tmp_path / "elsewhere")
        return [float(len(c)) for c in completions]

    t = trainer(tmp_path, reward, output_dir="out/", **SAVING)
    t.train()
    assert t.run.path == tmp_path / "out" and steps(tmp_path / "out") == [1, 2, 3, 4]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "out"] and not any(Path.cwd().iterdir())


# ---- what stops a run

def test_an_interrupt_is_exported_and_pickled():
    stop = grpo.TrainingInterrupted(3, Path("runs/x"), Path("runs/x/checkpoints/step-2"))
    same = pickle.loads(pickle.dumps(stop))
    assert (same.step, same.run, same.checkpoint, str(same)) == (stop.step, stop.run, stop.checkpoint, str(stop))


# ---- which run is meant

def stopped(tmp_path, step, **changed):
    """A run that is left after a step."""
    t = trainer(tmp_path, **SAVING | changed)
    for s in t:
        if s.step == step:
            break
    return t.run.path


@pytest.mark.parametrize("ends, meant", [
    ([4], "run"), ([2], "run"), ([4, 2], "run"), ([2, 4], "run-1"), ([4, 4, 3], "run"), ([4, 2, 4], "run-2"),
    ([4, 4], "run"), ([2, 2], "run"), ([4, 2, 2], "run"), ([2, 3, 4], "run-2")])
def test_an_output_dir_means_the_newest_run_that_is_not_finished(tmp_path, ends, meant):
    for step in ends:
        stopped(tmp_path, step)
    t = trainer(tmp_path, **SAVING)
    t.train(resume_from_checkpoint=True)
    assert t.run.path == tmp_path / meant and t.state.global_step == 4 and t.args.output_dir == str(tmp_path / meant)


@pytest.mark.parametrize("newer", [[4], [2, 2]], ids=["finished elsewhere", "at the same time"])
def test_an_output_dir_that_may_mean_two_runs_is_refused(tmp_path, newer):
    for step in [4, *newer]:
        stopped(tmp_path, step)
    stamps = {"run": 1.0, "run-1": 1.0 if len(newer) > 1 else 2.0, "run-2": 1.0}
    for name, stamp in stamps.items():
        if (tmp_path / name).is_dir():
            os.utime(tmp_path / name / "metrics.jsonl", (stamp, stamp))
    with pytest.raises(ConfigError, match=r"given to several runs: .*/run, .*/run-1"):
        trainer(tmp_path, **SAVING).train(resume_from_checkpoint=True)


def test_a_run_without_a_checkpoint_is_not_passed_over(tmp_path):
    stopped(tmp_path, 4)
    stopped(tmp_path, 2, save_strategy="no")
    with pytest.raises(ConfigError, match=r"given to several runs: .*/run, .*/run-1; give"):
        trainer(tmp_path, **SAVING).train(resume_from_checkpoint=True)


QUICK = ["--model.hidden_size", "32", "--model.num_hidden_layers", "1", "--model.num_attention_heads", "2",
         "--model.num_key_value_heads", "1", "--model.intermediate_size", "64", "--sft.max_steps", "1",
         "--sft.per_device_train_batch_size", "2", "--max_steps", "1", "--prompts_per_step", "2", "--num_generations",
         "2", "--max_completion_length", "4", "--eval_strategy", "no", "--eval_on_start", "no", "--save_strategy", "no"]


def test_a_warm_up_that_was_stopped_keeps_its_folder(tmp_path, monkeypatch):
    from grpo.cli import train

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "warm_up", stop)
        with pytest.raises(KeyboardInterrupt):
            train.main([*QUICK, "--output_dir", str(tmp_path / "run")])
    train.main([*QUICK, "--output_dir", str(tmp_path / "run")])
    assert [p.name for p in sorted((tmp_path / "run-1").iterdir())] == ["recipe.yaml"]
    assert steps(tmp_path / "run") == [1] and (tmp_path / "run" / "sft" / "metrics.jsonl").exists()


def test_a_run_begins_no_warm_up_in_the_folder_of_another(tmp_path, monkeypatch):
    from grpo.cli import train

    warm_up, begun = train.warm_up, []

    def between(model, demonstrations, config):
        begun.append(config.output_dir)
        if len(begun) == 1:                  # a second run begins while the first one warms up
            train.main([*QUICK, "--output_dir", str(tmp_path / "run")])
        warm_up(model, demonstrations, config)

    monkeypatch.setattr(train, "warm_up", between)
    train.main([*QUICK, "--output_dir", str(tmp_path / "run")])
    assert begun == [str(tmp_path / name / "sft") for name in ("run", "run-2")]
    assert steps(tmp_path / "run") == steps(tmp_path / "run-2") == [1]


# ---- what a resume in the middle of a rollout keeps

def test_texts_and_logged_columns_survive_a_resume(tmp_path):
    def reward(completions, log_extra):
        log_extra("length", [len(c) for c in completions])
        log_extra("note", [None, "x\0", {"a": [1.5, "\0"]}, "é"] * (len(completions) // 4))
        return toy.byte_values([c.encode() for c in completions])

    t = trainer(tmp_path, reward, **SAVING, num_iterations=2)
    made = t._make_rollouts

    def with_zeros():
        rollouts = made()
        rollouts.texts = [text + "\0" * (i % 3) for i, text in enumerate(rollouts.texts)]
        return rollouts

    t._make_rollouts = with_zeros
    first = next(iter(t)).completions
    resumed = trainer(tmp_path, reward, **SAVING, num_iterations=2)
    second = next(iter(resumed.steps(True)))
    names = ("completion", "length", "note")
    assert [{n: r[n] for n in names} for r in second.completions] == [{n: r[n] for n in names} for r in first]
    assert second.step == 2 and any(r["completion"].endswith("\0\0") for r in first)


def test_a_resume_on_another_cpu_tier_says_that_bits_differ(tmp_path, monkeypatch):
    def on_cpu(**changed):
        return trainer(tmp_path, policy=toy.model("cpu"), **SAVING | changed)

    on_cpu(max_steps=2).train()
    with warnings.catch_warnings():
        warnings.simplefilter("error", GrpoWarning)
        on_cpu(max_steps=3).train(resume_from_checkpoint=True)
    name, tier = _core.backend("cpu")
    monkeypatch.setenv("GRPO_CPU", "portable")
    with pytest.warns(GrpoWarning, match=f"was made on {name} {tier}, this is cpu portable: .* other bits"):
        on_cpu().train(resume_from_checkpoint=True)


# ---- the environment

@pytest.mark.parametrize("value", ["junk", "0", "-3", "3x", "257", "1e2"])
def test_a_number_of_threads_that_is_none_is_named(value):
    done = subprocess.run([sys.executable, "-P", "-m", "grpo", "generate", "--model", "nowhere", "x"],
                          capture_output=True, text=True, env={**environment(), "GRPO_NUM_THREADS": value})
    assert done.returncode == 1
    assert done.stderr == f"grpo: GRPO_NUM_THREADS is '{value}', must be a number of threads, 1..256\n"
