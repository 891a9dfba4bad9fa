"""What happens to processes and disks: runs that are killed at any moment, files that end early, bits that change."""
import json
import os
import random
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import grpo
import toy
from grpo.errors import CheckpointCorruptError, CheckpointError
from grpo.runs import checkpoint

KILLS = int(os.environ.get("GRPO_TEST_KILLS", 8))             # continuous integration asks for 100
FLIPS = 2000
RUN = dict(save_strategy="steps", save_steps=1, save_total_limit=2, max_steps=100000)

EVENTS = 150                                                  # operations on files, of about two checkpoints

CHILD = """
import os, sys, toy
from pathlib import Path
pipe = int(sys.argv[3])
def tell(event, arguments):
    if event == "open" or event.startswith("os."):
        os.write(pipe, b".")
trainer = toy.trainer(Path(), **eval(sys.argv[1]))
sys.addaudithook(tell)
trainer.train(resume_from_checkpoint=sys.argv[2] == "resume")
"""


def newest(checkpoints: Path) -> int:
    """The step of the newest checkpoint that has its name, and so was reported as written; 0: none."""
    return max(map(checkpoint.step_of, checkpoint.steps(checkpoints)), default=0)


def start(run: Path) -> tuple[subprocess.Popen, int]:
    """A process that goes on with the run from its latest checkpoint, and the end of a pipe where it tells of each
    operation on a file."""
    given = RUN | dict(output_dir=str(run), resume_from_checkpoint=None)
    path = os.pathsep.join([str(Path(toy.__file__).parent), str(Path(grpo.__file__).parent.parent)])
    resume = "resume" if newest(run / "checkpoints") else "begin"
    told, pipe = os.pipe()
    process = subprocess.Popen([sys.executable, "-P", "-c", CHILD, repr(given), resume, str(pipe)],
                               stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}, pass_fds=[pipe])
    os.close(pipe)
    return process, told


def test_kill_9_at_any_moment(tmp_path):
    """Killed again and again while it writes a checkpoint each step: the latest one is whole, no step that was reported
    is gone, and the weights at the end are those of a run that nobody stopped."""
    run, moments, seen = tmp_path / "run", random.Random(0), 0
    for _ in range(KILLS):
        process, told = start(run)
        more = moments.randrange(EVENTS)                         # after the first new checkpoint
        while newest(run / "checkpoints") <= seen or (more := more - 1) >= 0:
            assert os.read(told, 1), process.stderr.read().decode()
        seen = newest(run / "checkpoints")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        os.close(told)
        with warnings.catch_warnings():
            warnings.simplefilter("error")                       # going back to an older one is a warning
            last = checkpoint.latest(run / "checkpoints")
        assert checkpoint.step_of(last) >= seen
    seen = checkpoint.step_of(last)
    straight = toy.trainer(tmp_path, max_steps=seen + 1)
    straight.train()
    resumed = toy.trainer(tmp_path, **RUN | dict(output_dir=str(run), max_steps=seen + 1))
    resumed.train(resume_from_checkpoint=True)
    assert toy.weights(resumed) == toy.weights(straight)
    assert ([json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
            == list(range(1, seen + 2)))
    assert not list((run / "checkpoints").glob(".*"))            # nothing half written is left


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A checkpoint with every kind of file."""
    options = dict(save_strategy="steps", save_steps=1, max_steps=1, per_device_train_batch_size=4,
                   steps_per_generation=3, num_iterations=2, beta=0.1,
                   sync_ref_model=True, ref_model_sync_steps=1)
    trainer = toy.trainer(tmp_path_factory.mktemp("saved"), **options)
    trainer.train()
    return trainer.run.checkpoints / "step-1"


def files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def test_every_kind_of_file_is_there(saved):
    names = {str(path.relative_to(saved)) for path in files(saved)}
    assert {"MANIFEST.json", "model.safetensors", "config.json", *(f"trainer/{name}" for name in (
        "master.safetensors", "m.safetensors", "v.safetensors", "trainer.json", "rollouts.npz",
        "reference.safetensors"))} <= names


def test_files_that_end_early(saved):
    """At every byte of the small ones, and of the others' beginnings and ends; at some places between."""
    rng = np.random.default_rng(0)
    for path in files(saved):
        whole = path.read_bytes()
        n = len(whole)
        ends = set(range(min(n, 2000))) | set(range(max(0, n - 100), n)) | set(rng.integers(0, n, 100).tolist())
        for end in sorted(ends, reverse=True):
            os.truncate(path, end)
            with pytest.raises(CheckpointCorruptError, match=path.name):
                checkpoint.verify(saved)
        path.write_bytes(whole)
    checkpoint.verify(saved)


def test_flipped_bits(saved):
    """One at a time, anywhere: found, or in a part of the manifest that says nothing about the files."""
    rng, paths, harmless = np.random.default_rng(1), files(saved), 0
    whole = [path.read_bytes() for path in paths]
    manifest = next(i for i, path in enumerate(paths) if path.name == checkpoint.MANIFEST)
    for flip in range(FLIPS):
        i = manifest if flip % 2 else int(rng.integers(len(paths)))
        at, bit = int(rng.integers(len(whole[i]))), int(rng.integers(8))
        with open(paths[i], "r+b") as file:
            file.seek(at)
            file.write(bytes([whole[i][at] ^ 1 << bit]))
        try:
            checkpoint.verify(saved)
            assert i == manifest, f"bit {bit} of byte {at} of {paths[i]} was not noticed"
            harmless += 1
        except CheckpointError:
            pass
        with open(paths[i], "r+b") as file:
            file.seek(at)
            file.write(whole[i][at:at + 1])
    checkpoint.verify(saved)
    assert harmless < FLIPS / 8                                  # blanks between the manifest's words, and its step
