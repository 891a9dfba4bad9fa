"""output_dir: the folder of the run at hand, where a script finds what it left, and where an earlier one goes."""
import json
import os

import pytest

import grpo
import toy
from grpo.errors import RunFolderError
from grpo.runs import TrainerState, latest_model
from grpo.runs.folder import RunFolder

SAVING = dict(save_strategy="steps", save_steps=2, max_steps=4)


def again(tmp_path, **changed):
    return toy.trainer(tmp_path, **(SAVING | dict(output_dir=str(tmp_path / "out")) | changed))


def names(path):
    return sorted(p.name for p in path.iterdir())


def test_a_second_run_has_the_folder_and_the_first_keeps_all_it_left(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train.log").write_text("of the shell")
    first = again(tmp_path)
    first.train()
    first.save_model()
    left = names(first.run.path)
    second = again(tmp_path, learning_rate=0.5)
    second.train()
    second.save_model(second.args.output_dir)
    assert (first.run.path, second.run.path) == (tmp_path / "out-1", tmp_path / "out")
    assert names(first.run.path) == [name for name in left if name != "train.log"] and "model.safetensors" in left
    assert names(second.run.path) == left and f"{tmp_path / 'out-1'} now" in capsys.readouterr().err
    kept, new = (grpo.load(str(tmp_path / name), toy.DEVICE) for name in ("out-1", "out"))
    assert {n: a.tobytes() for n, a in kept.state_dict().items()} == toy.weights(first) != toy.weights(second)
    assert {n: a.tobytes() for n, a in new.state_dict().items()} == toy.weights(second)


def test_a_model_that_was_there_before_the_run_stays(tmp_path):
    toy.model().save_pretrained(tmp_path / "out")
    os.utime(tmp_path / "out" / "model.safetensors", (1, 1))
    os.utime(tmp_path / "out" / "config.json", (1, 1))
    again(tmp_path).train()
    again(tmp_path).train()
    assert {"model.safetensors", "config.json"} <= set(names(tmp_path / "out")) - set(names(tmp_path / "out-1"))


def test_a_run_that_does_not_begin_brings_the_earlier_one_back(tmp_path):
    again(tmp_path).train()
    before = names(tmp_path / "out")
    folder = RunFolder.create(str(tmp_path / "out"), "x")
    assert names(tmp_path / "out") == ["run.lock"] and names(folder.aside) == before
    folder.abandon()
    assert names(tmp_path / "out") == before and not folder.aside.exists()


def test_an_earlier_run_that_cannot_be_moved_is_named_and_left(tmp_path, monkeypatch):
    again(tmp_path).train()
    before, rename, calls = names(tmp_path / "out"), os.rename, []

    def full(source, target):
        calls.append(source)
        if len(calls) == 3:
            raise OSError(18, "Invalid cross-device link")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        with pytest.raises(RunFolderError, match="out holds a run already, which cannot be moved to .*out-1: Invalid"):
            again(tmp_path).train()
    assert names(tmp_path / "out") == before and not (tmp_path / "out-1").exists()


def test_an_older_checkpoint_of_the_folder_is_gone_on_from_while_its_run_moves(tmp_path):
    options = dict(beta=0.1, sync_ref_model=True, ref_model_sync_steps=1)
    straight = again(tmp_path, **options)
    straight.train()
    branch = again(tmp_path, **options)
    branch.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert branch.run.path == tmp_path / "out" and toy.weights(branch) == toy.weights(straight)
    assert (tmp_path / "out-1" / "checkpoint-4" / "config.json").is_file()


def test_checkpoints_are_linked_and_their_links_go_with_them(tmp_path):
    trainer = again(tmp_path, save_steps=1, save_total_limit=2)
    trainer.train()
    links = [p for p in trainer.run.path.iterdir() if p.name.startswith("checkpoint-")]
    assert sorted(p.name for p in links) == ["checkpoint-3", "checkpoint-4"]
    assert all(p.is_symlink() and not os.path.isabs(os.readlink(p)) for p in links)
    longer = again(tmp_path, max_steps=6)
    longer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))
    assert longer.run.path == tmp_path / "out" and longer.state.global_step == 6


def test_without_links_the_checkpoints_are_where_they_were(tmp_path, monkeypatch):
    def none(self, target):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("pathlib.Path.symlink_to", none)
    with pytest.warns(grpo.GrpoWarning, match="no links checkpoint-N"):
        again(tmp_path).train()
    assert names(tmp_path / "out" / "checkpoints") == ["step-2", "step-4"]


def test_the_state_is_in_each_checkpoint_and_at_the_end(tmp_path):
    trainer = again(tmp_path, eval_dataset=toy.ROWS, eval_strategy="steps", eval_steps=2,
                    metric_for_best_model="reward")
    trainer.train()
    early = TrainerState.load_from_json(tmp_path / "out" / "checkpoint-2" / "trainer_state.json")
    late = TrainerState.load_from_json(tmp_path / "out" / "trainer_state.json")
    assert (early.global_step, late.global_step, late.save_steps, late.eval_steps) == (2, 4, 2, 2)
    assert [r["step"] for r in early.log_history] == [1, 2] and late.log_history[-1]["train_runtime"] > 0
    assert late.best_model_checkpoint == str(tmp_path / "out" / f"checkpoint-{late.best_global_step}")
    assert late.best_metric == max(r["eval_reward"] for r in late.log_history if "eval_reward" in r)
    json.loads((tmp_path / "out" / "trainer_state.json").read_text(), parse_constant=pytest.fail)


def test_the_newer_of_a_saved_model_and_a_checkpoint_is_the_runs_model(tmp_path):
    trainer = again(tmp_path)
    trainer.train()
    assert latest_model(str(tmp_path / "out")).endswith("step-4")
    trainer.save_model()
    assert latest_model(str(tmp_path / "out")) == str(tmp_path / "out")
    for path in (tmp_path / "out").glob("*.safetensors"):
        os.utime(path, (1, 1))
    assert latest_model(str(tmp_path / "out")).endswith("step-4")


def test_a_run_without_output_dir_says_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = grpo.GRPOConfig(**toy.options(tmp_path, output_dir=None, max_steps=1))
    trainers = [grpo.GRPOTrainer(toy.model(), toy.byte_values, args, toy.ROWS) for _ in range(2)]
    for trainer in trainers:
        trainer.train()
    assert [t.args.output_dir for t in trainers] == [str(tmp_path / "runs" / f"grpo-{n}") for n in (1, 2)]
    assert args.output_dir is None


def test_a_model_is_saved_before_training_too(tmp_path):
    again(tmp_path).save_model()
    assert (tmp_path / "out" / "config.json").exists()
