"""Checkpoints: N steps are k steps, a stop, a resume and N - k steps, bit for bit; and what a damaged one leads to."""
import json
import shutil
import warnings

import numpy as np
import pytest

import grpo
import toy
from grpo.errors import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointMismatchError,
    ConfigError,
    DatasetError,
    GrpoWarning,
)
from grpo.runs import checkpoint
from grpo.runs.folder import to_json

SAVING = dict(save_strategy="steps", save_steps=1, max_steps=6)


def moments(trainer):
    return {(kind, name): trainer.optimizer.get_state(kind, name).tobytes() for kind in ("master", "m", "v")
            for name, _ in trainer.model.core.tensors()}


def history(trainer):
    """What was logged, without the clock and the summary at the end of train()."""
    return [to_json(toy.timeless(r)) for r in trainer.state.log_history if "train_loss" not in r]


@pytest.mark.parametrize("changed", [
    {}, dict(num_iterations=2), dict(per_device_train_batch_size=4, steps_per_generation=3, num_iterations=2),
    dict(beta=0.1, sync_ref_model=True, ref_model_sync_steps=2), dict(dynamic_sampling=True, max_resample_times=2),
    dict(use_adaptive_entropy=True, entropy_target=100.0),
    dict(lr_scheduler_type="cosine", warmup_steps=2, weight_decay=0.1, adam_beta2=0.99),
    dict(moment_dtype="bfloat16", adam_beta2=0.99), dict(moment_dtype="float8", adam_beta2=0.99),
    dict(moment_dtype="float8", master_dtype="float24"),
], ids=lambda changed: ", ".join(changed) or "plain")
@pytest.mark.parametrize("stop", [1, 3, 4])
def test_resume_is_exact(tmp_path, changed, stop):
    straight = toy.trainer(tmp_path, **SAVING, **changed)
    straight.train()
    broken = toy.trainer(tmp_path, **SAVING, **changed)
    for step in broken:
        if step.step == stop:
            break
    resumed = toy.trainer(tmp_path, output_dir=str(broken.run.path), **SAVING, **changed)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.run.path == broken.run.path
    assert toy.weights(resumed) == toy.weights(straight) and moments(resumed) == moments(straight)
    assert history(resumed) == history(straight)
    assert resumed.optimizer.steps_taken == straight.optimizer.steps_taken == 6


def test_metrics_file_has_every_step_once(tmp_path):
    broken = toy.trainer(tmp_path, **(SAVING | dict(save_steps=2)))
    for step in broken:
        if step.step == 3:
            break
    path = broken.run.path
    assert (path / "completions" / "step-000003.jsonl").exists()
    resumed = toy.trainer(tmp_path, **(SAVING | dict(output_dir=str(path))))
    steps = iter(resumed.steps(True))
    assert next(steps).step == 3
    assert [json.loads(line)["step"] for line in (path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]
    assert [s.step for s in steps] == [4, 5, 6]


def test_what_was_written_after_the_checkpoint_is_dropped(tmp_path):
    broken = toy.trainer(tmp_path, eval_dataset=toy.ROWS,
                         **(SAVING | dict(save_steps=2, eval_strategy="steps", eval_steps=1)))
    for step in broken:
        if step.step == 3:
            break
    path = broken.run.path
    resumed = toy.trainer(tmp_path, **(SAVING | dict(output_dir=str(path), save_completions=False)))
    next(iter(resumed.steps(True)))
    for folder, suffix in (("completions", "jsonl"), ("eval", "json")):
        assert (sorted(file.name for file in (path / folder).glob("*.*"))
                == [f"step-00000{step}.{suffix}" for step in (1, 2)])


@pytest.mark.parametrize("torn", [b'{"step": 3, "loss"', b"\xc3"])
def test_a_line_that_a_full_disk_cut_off_is_dropped(tmp_path, torn):
    first = toy.trainer(tmp_path, **(SAVING | dict(max_steps=2)))
    first.train()
    with open(first.run.path / "metrics.jsonl", "ab") as file:
        file.write(torn)
    resumed = toy.trainer(tmp_path, **(SAVING | dict(output_dir=str(first.run.path))))
    resumed.train(resume_from_checkpoint=True)
    assert ([json.loads(line)["step"] for line in (first.run.path / "metrics.jsonl").read_text().splitlines()]
            == [1, 2, 3, 4, 5, 6])


def test_a_run_folder_means_its_latest_checkpoint(tmp_path):
    first = toy.trainer(tmp_path, **(SAVING | dict(max_steps=2)))
    first.train()
    resumed = toy.trainer(tmp_path, **SAVING)
    assert resumed.train(resume_from_checkpoint=str(first.run.path)).global_step == 6


def test_resume_of_an_older_checkpoint_is_a_new_run(tmp_path):
    first = toy.trainer(tmp_path, **SAVING)
    first.train()
    second = toy.trainer(tmp_path, **SAVING)
    second.train(resume_from_checkpoint=str(first.run.path / "checkpoints" / "step-2"))
    assert second.run.path != first.run.path and toy.weights(second) == toy.weights(first)
    assert len(checkpoint.steps(first.run.checkpoints)) == 6


def test_longer_run_goes_on_where_the_shorter_ended(tmp_path):
    straight = toy.trainer(tmp_path, **SAVING)
    straight.train()
    short = toy.trainer(tmp_path, **(SAVING | dict(max_steps=2)))
    short.train()
    longer = toy.trainer(tmp_path, **(SAVING | dict(output_dir=str(short.run.path), resume_from_checkpoint=True)))
    longer.train()
    assert toy.weights(longer) == toy.weights(straight)


def test_checkpoint_is_a_model(tmp_path):
    trainer = toy.trainer(tmp_path, **SAVING)
    trainer.train()
    loaded = grpo.load(trainer.run.checkpoints / "step-6", toy.DEVICE)
    assert {n: a.tobytes() for n, a in loaded.state_dict().items()} == toy.weights(trainer)
    trainer.save_model()
    assert (trainer.run.path / "config.json").exists()


def test_limit_and_model_only(tmp_path):
    trainer = toy.trainer(tmp_path, **SAVING, save_total_limit=2, save_only_model=True)
    trainer.train()
    assert [p.name for p in checkpoint.steps(trainer.run.checkpoints)] == ["step-6", "step-5"]
    with pytest.raises(CheckpointMismatchError, match="save_only_model"):
        toy.trainer(tmp_path, **SAVING).train(str(trainer.run.checkpoints / "step-6"))


# ---- damage


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    trainer = toy.trainer(tmp_path_factory.mktemp("finished"), **(SAVING | dict(max_steps=3)))
    trainer.train()
    return trainer.run.path


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


DAMAGE = {
    "a flipped bit": lambda folder: flip(folder / "trainer" / "m.safetensors"),
    "a file cut short": lambda folder: cut(folder / "model.safetensors"),
    "a file gone": lambda folder: (folder / "trainer" / "trainer.json").unlink(),
    "no manifest": lambda folder: (folder / "MANIFEST.json").unlink(),
    "an empty manifest": lambda folder: (folder / "MANIFEST.json").write_text(""),
    "a manifest of something else": lambda folder: (folder / "MANIFEST.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_falls_back_to_the_checkpoint_before(tmp_path, finished, damage):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    damage(run / "checkpoints" / "step-3")
    with pytest.raises(CheckpointCorruptError, match="step-3"):
        checkpoint.verify(run / "checkpoints" / "step-3")
    trainer = toy.trainer(tmp_path, **(SAVING | dict(max_steps=3, output_dir=str(run))))
    with pytest.warns(GrpoWarning, match="step-3.*going back"):
        steps = list(trainer.steps(True))
    assert [s.step for s in steps] == [3]
    checkpoint.verify(run / "checkpoints" / "step-3")
    assert ((run / "checkpoints" / "step-3" / "model.safetensors").read_bytes()
            == (finished / "checkpoints" / "step-3" / "model.safetensors").read_bytes())


def test_nothing_to_resume(tmp_path, finished):
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        toy.trainer(tmp_path).train(True)
    with pytest.raises(ConfigError, match="needs output_dir"):
        toy.trainer(tmp_path, output_dir=None).train(True)
    with pytest.raises(CheckpointCorruptError, match="nowhere"):
        toy.trainer(tmp_path).train(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("changed, error, message", [
    (dict(seed=5), CheckpointMismatchError, "seed is 42 there and 5 here"),
    (dict(rows=toy.ROWS * 2), CheckpointMismatchError, "had 2 rows of data, train_dataset has 4"),
    (dict(policy=dict(hidden_size=64)), CheckpointMismatchError, "belongs to another model"),
    (dict(policy=dict(num_hidden_layers=2)), CheckpointMismatchError, "belongs to another model"),
])
def test_another_run(tmp_path, finished, changed, error, message):
    if "policy" in changed:
        changed = {"policy": toy.model(**changed["policy"])}
    trainer = toy.trainer(tmp_path, **SAVING, **changed)
    with pytest.raises(error, match=message):
        trainer.train(str(finished / "checkpoints" / "step-2"))
    assert trainer.run is None


def test_reference_must_be_the_one_the_run_began_with(tmp_path):
    first = toy.trainer(tmp_path, **SAVING, beta=0.1)
    first.train()
    last = first.run.checkpoints / "step-2"
    with pytest.raises(CheckpointMismatchError, match="not one of its checkpoints"):
        toy.trainer(tmp_path, policy=grpo.load(last, toy.DEVICE), **SAVING, beta=0.1).train(str(last))
    again = toy.trainer(tmp_path, **SAVING, beta=0.1)
    again.train(str(last))
    assert toy.weights(again) == toy.weights(first)


def test_other_options_are_said(tmp_path, finished):
    with pytest.warns(GrpoWarning, match="learning_rate: 0.01 -> 0.02"):
        toy.trainer(tmp_path, **SAVING, learning_rate=0.02).train(str(finished / "checkpoints" / "step-2"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        toy.trainer(tmp_path, **SAVING, logging_steps=7,
                    token_budget=64).train(str(finished / "checkpoints" / "step-2"))


def test_sft_checkpoint_is_not_a_grpo_one(tmp_path):
    rows = [{"prompt": "a", "completion": c} for c in "bcdef"]
    options = dict(output_dir=str(tmp_path / "sft"), learning_rate=1e-2, per_device_train_batch_size=2, max_steps=6,
                   save_steps=2)
    straight = grpo.SFTTrainer(toy.model(), grpo.SFTConfig(**options), rows)
    straight.train()
    resumed = grpo.SFTTrainer(toy.model(), grpo.SFTConfig(**options), rows)
    resumed.train(str(tmp_path / "sft" / "checkpoints" / "step-2"))
    assert toy.weights(resumed) == toy.weights(straight) and resumed.run.path.name == "sft"
    with pytest.raises(CheckpointMismatchError, match="written by a sft run, this is a grpo run"):
        toy.trainer(tmp_path).train(str(tmp_path / "sft-1" / "checkpoints" / "step-2"))


@pytest.mark.parametrize("option, before, after, fits", [
    ("moment_dtype", "float32", "bfloat16", False), ("moment_dtype", "bfloat16", "float32", True),
    ("moment_dtype", "bfloat16", "float8", False),
    ("moment_dtype", "float8", "bfloat16", True), ("master_dtype", "float32", "float24", False),
    ("master_dtype", "float24", "float32", True)])
def test_resume_with_another_storage(tmp_path, option, before, after, fits):
    """A wider one has room for moments or masters; a narrower one would round them."""
    first = toy.trainer(tmp_path, **{option: before}, **SAVING)
    first.train()
    folder, second = first.run.path / "checkpoints" / "step-3", toy.trainer(tmp_path, **{option: after}, **SAVING)
    with pytest.warns(GrpoWarning, match=f"{option}: {before} -> {after}"):
        if fits:
            assert second.train(str(folder)).global_step == 6
        else:
            with pytest.raises(CheckpointMismatchError, match=f"no {after} number.*resume with {option}='{before}'"):
                second.train(str(folder))


# ---- writing


def test_a_full_disk_does_not_end_a_run_at_once(tmp_path, monkeypatch):
    trainer = toy.trainer(tmp_path, **SAVING)
    save, failing = checkpoint.save_optimizer, {2, 3, 5}

    def full(*args):
        if trainer.state.global_step in failing:
            raise OSError(28, "No space left on device")
        save(*args)

    monkeypatch.setattr(checkpoint, "save_optimizer", full)
    with pytest.warns(GrpoWarning, match="No space left.*training goes on"):
        trainer.train()
    assert [p.name for p in checkpoint.steps(trainer.run.checkpoints)] == ["step-6", "step-4", "step-1"]
    assert sorted(p.name for p in trainer.run.checkpoints.iterdir()) == ["step-1", "step-4", "step-6"]


def test_three_failed_saves_end_it(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_optimizer", full)
    trainer = toy.trainer(tmp_path, **SAVING)
    with pytest.warns(GrpoWarning), pytest.raises(CheckpointError, match="No space left"):
        trainer.train()
    assert trainer.state.global_step == 3


def test_leftovers_of_dead_processes_go(tmp_path):
    parent = tmp_path / "checkpoints"
    (parent / ".step-9.tmp-999999999").mkdir(parents=True)
    checkpoint.write(parent, 1, lambda folder: (folder / "x").write_text("x"))
    assert [p.name for p in parent.iterdir()] == ["step-1"]


def test_writing_a_step_again_replaces_it(tmp_path):
    for text in ("one", "two"):
        checkpoint.write(tmp_path, 1, lambda folder, text=text: (folder / "x").write_text(text))
    assert (tmp_path / "step-1" / "x").read_text() == "two" and checkpoint.latest(tmp_path) == tmp_path / "step-1"
    assert checkpoint.verify(tmp_path / "step-1")["files"]["x"]["bytes"] == 3


def test_interrupted_write_leaves_nothing(tmp_path):
    def contents(folder):
        (folder / "x").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(tmp_path, 1, contents)
    assert list(tmp_path.iterdir()) == [] and checkpoint.latest(tmp_path) is None


def test_rollouts_survive_their_file(tmp_path):
    trainer = toy.trainer(tmp_path, max_steps=1, beta=0.1)
    step = next(iter(trainer))
    step.rollouts.save(tmp_path / "r.npz")
    rows = {p.row: p for p in step.rollouts.prompts}
    again = type(step.rollouts).load(tmp_path / "r.npz", rows.__getitem__, trainer.model)
    assert (again.texts == step.rollouts.texts
            and all(np.array_equal(a, b) for a, b in zip(again.completions, step.rollouts.completions, strict=True)))
    for name in ("policy_logprobs", "advantages", "mask", "ref_logprobs", "group", "finish"):
        assert (np.array_equal(getattr(again, name), getattr(step.rollouts, name))
                and getattr(again, name).dtype == getattr(step.rollouts, name).dtype)


def test_training_without_data(tmp_path):
    trainer = grpo.GRPOTrainer(toy.model(), toy.share, grpo.GRPOConfig(**toy.options(tmp_path)))
    with pytest.raises(DatasetError, match="training needs train_dataset"):
        trainer.train()
