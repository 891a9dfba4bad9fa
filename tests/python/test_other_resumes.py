"""A resume with other rows, rewards or sampling than the checkpoint's: said, or refused before anything moves."""
import functools
import warnings

import pytest

import grpo
import toy
from grpo.errors import CheckpointMismatchError
from grpo.training.resume import code_of

ROWS = [{"prompt": letter, "letter": letter} for letter in "abcd"]
SAVING = dict(save_strategy="steps", save_steps=1, max_steps=2)


def first(tmp_path, **changed):
    trainer = toy.trainer(tmp_path, rows=ROWS, **(SAVING | changed))
    trainer.train()
    return trainer.run.path


@pytest.mark.parametrize("rows", [ROWS[::-1], [*ROWS[:3], {**ROWS[3], "letter": "z"}], [*ROWS[:3], {"prompt": "e"}]],
                         ids=["another order", "another answer", "another prompt"])
def test_other_rows_are_refused_and_nothing_moves(tmp_path, rows):
    there = first(tmp_path)
    other = toy.trainer(tmp_path, rows=rows, **SAVING | dict(max_steps=4))
    before = toy.weights(other)
    with pytest.raises(CheckpointMismatchError, match="trained on other rows than those of train_dataset, though"):
        other.train(resume_from_checkpoint=str(there))
    assert toy.weights(other) == before and other.state.global_step == 0 and other.run is None
    assert other.optimizer.steps_taken == 0


def test_other_rows_of_sft_are_refused(tmp_path):
    def trainer(rows, name):
        return grpo.SFTTrainer(toy.model(), grpo.SFTConfig(output_dir=str(tmp_path / name), save_steps=1, max_steps=2,
                                                           per_device_train_batch_size=1), rows)

    rows = [{"prompt": "a", "completion": letter} for letter in "bcd"]
    trainer(rows, "one").train()
    trainer(rows, "two").train(resume_from_checkpoint=str(tmp_path / "one" / "checkpoint-1"))
    with pytest.raises(CheckpointMismatchError, match="other rows"):
        trainer(rows[::-1], "three").train(resume_from_checkpoint=str(tmp_path / "one" / "checkpoint-1"))


def other(completion_ids, **columns):
    return [float(len(ids)) for ids in completion_ids]


def test_other_rewards_are_said(tmp_path):
    there = first(tmp_path)
    with pytest.warns(grpo.GrpoWarning, match=r"resumed with other rewards \(byte_values -> other\)"):
        toy.trainer(tmp_path, other, rows=ROWS, **SAVING | dict(max_steps=3)).train(str(there))


def test_changed_code_of_a_reward_is_said(tmp_path):
    there = first(tmp_path)

    def byte_values(completion_ids, **columns):
        return [float(ids[0]) for ids in completion_ids]

    with pytest.warns(grpo.GrpoWarning, match="the code of byte_values has changed since"):
        toy.trainer(tmp_path, byte_values, rows=ROWS, **SAVING | dict(max_steps=3)).train(str(there))


def test_the_same_rows_and_rewards_are_no_word(tmp_path):
    there = first(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        toy.trainer(tmp_path, rows=list(ROWS), **SAVING | dict(max_steps=3)).train(str(there))


def test_code_of_what_a_reward_may_be():
    class Object:
        def __call__(self, completions):
            return [0.0]

        def compute_rewards(self, completions):
            return [[0.0]]

    assert code_of(functools.partial(other, x=1)) == code_of(other) != code_of(first)
    assert code_of(Object()) == code_of(Object().compute_rewards) is not None
    assert code_of(len) is None


@pytest.mark.parametrize("changed, name", [(dict(temperature=0.5), "temperature"), (dict(beta=0.1), "beta")])
def test_completions_that_are_kept_need_what_they_were_made_with(tmp_path, changed, name):
    there = first(tmp_path, num_iterations=3)
    options = SAVING | dict(max_steps=4, num_iterations=3) | changed
    with pytest.raises(CheckpointMismatchError, match=f"keeps completions that are not used up.*{name}" if
                       name == "temperature" else "beta"):
        toy.trainer(tmp_path, rows=ROWS, **options).train(str(there))
    between = first(tmp_path, num_iterations=2)
    if name == "temperature":
        with pytest.warns(grpo.GrpoWarning, match="temperature: 1.0 -> 0.5"):
            toy.trainer(tmp_path, rows=ROWS, **SAVING | dict(max_steps=3, num_iterations=2) | changed).train(
                str(between))
