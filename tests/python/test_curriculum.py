"""Curricula: the stages that a column makes, the order of the rows, the learning rate that follows, resume."""
import json
import math

import pytest

import grpo
import toy
from grpo.datasets.curriculum import Curriculum, stages
from grpo.errors import ConfigError, DatasetError, GrpoWarning
from grpo.options.schedule import learning_rate
from grpo.recipes import Recipe, prepare
from grpo.runs import plots

LEVELS = [3, 1, 2, 1, 3, 1, 2, 1, 1, 2]      # five rows of 1, three of 2, two of 3
ROWS = [{"prompt": chr(97 + i), "level": level} for i, level in enumerate(LEVELS)]
ORDERED = dict(curriculum="level", prompts_per_step=2, max_steps=7)


def places(values, wanted=None):
    return stages(list(enumerate(values)), "level", wanted)


# ---- stages


@pytest.mark.parametrize("values, wanted, expected", [
    ([3, 1, 2, 1], None, [("1", [1, 3]), ("2", [2]), ("3", [0])]),
    ([0.5, -1, 0.25], None, [("-1", [1]), ("0.25", [2]), ("0.5", [0])]),
    (["hard", "easy", "easy"], ["easy", "hard"], [("easy", [1, 2]), ("hard", [0])]),
    ([1, 2, 1], [2, 1], [("2", [1]), ("1", [0, 2])]), ([1, 2, 1], [2.0, 1.0], [("2", [1]), ("1", [0, 2])]),
    ([5, 1, 4, 2, 3], 2, [("1 to 3", [1, 3, 4]), ("4 to 5", [0, 2])]),
    ([1, 1, 1, 1], 2, [("1 to 1", [0, 1]), ("1 to 1", [2, 3])]),
])
def test_stages(values, wanted, expected):
    assert places(values, wanted) == expected


@pytest.mark.parametrize("values, wanted, message", [
    ([1, None], None, "row 1 has no 'level'"), ([1, None], ["x", "y"], "row 1 has no 'level'"),
    ([1, "easy"], None, "row 1: 'level' is 'easy', which has no place among numbers; set curriculum_stages"),
    ([1, math.nan], None, "row 1: 'level' is nan"), ([1, 10**400], 2, "row 1: 'level' is 1000"),
    ([[1], [2]], None, r"row 0: 'level' is \[1\]"), ([[1], [2]], [1, 2], r"row 0: 'level' is \[1\], which is none of"),
    (["easy", "hrad"], ["easy", "hard"], "row 1: 'level' is 'hrad', which is none .*did you mean 'hard'"),
    (["easy"], ["easy", "hard"], "no row has the level 'hard'"), ([1, 2], 3, "2 rows do not make 3 stages"),
    ([i / 7 for i in range(101)], None, "101 different numbers, and each would be a stage; set curriculum_stages"),
])
def test_difficulties_that_cannot_be_used(values, wanted, message):
    with pytest.raises(DatasetError, match=f"train_dataset: .*{message}"):
        places(values, wanted)


@pytest.mark.parametrize("options, message", [
    (dict(curriculum_stages=["a", "b"]), "curriculum_stages needs curriculum"),
    (dict(curriculum="level", curriculum_stages=1), "at least 2"),
    (dict(curriculum="level", curriculum_stages=[math.nan]), "at least 2"),
    (dict(curriculum="level", curriculum_stages=["a"]), "two or more different"),
    (dict(curriculum="level", curriculum_stages=["a", "a"]), "two or more different"),
    (dict(curriculum="level", curriculum_stages=[["a"], ["b"]]), "two or more different"),
    (dict(lr_scheduler_type="curriculum_cosine"), "follows the stages of a curriculum"),
    (dict(curriculum="level", lr_scheduler_type="curriculum_cosine", lr_scheduler_kwargs={"restart": True}),
     "does not take 'restart'; did you mean 'restart_after'"),
])
def test_options_that_mean_nothing(options, message):
    with pytest.raises(ConfigError, match=message):
        grpo.GRPOConfig(**options)


def test_sft_has_no_curriculum():
    with pytest.raises(ConfigError, match="an option of GRPOConfig"):
        grpo.SFTConfig(lr_scheduler_type="curriculum_cosine")


@pytest.mark.parametrize("words, wanted", [(["3"], 3), (["easy", "hard"], ["easy", "hard"]), (["1", "2"], [1.0, 2.0])])
def test_on_a_command_line(words, wanted):
    from grpo.cli.options import recipe_of, recipe_parser

    words = ["quickstart", "--curriculum", "level", "--curriculum_stages", *words]
    config = recipe_of(recipe_parser("grpo train", "", words).parse(words)).config()
    assert (config.curriculum, config.curriculum_stages) == ("level", wanted)


# ---- order


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_stage_serves_its_rows_once_and_then_all_come_mixed(shuffle):
    easy, hard = list(range(0, 12, 2)), list(range(1, 8, 2))
    order = Curriculum([("easy", easy), ("hard", hard)], prompts=2, steps=3, shuffle=shuffle, seed=5)
    assert order.ends == (9, 15)
    drawn = [order.take(2 * (step // 3), 2, step) for step in range(0, 30, 3)]
    flat = [row for rows in drawn for row in rows]
    assert sorted(flat[:6]) == easy and sorted(flat[6:10]) == hard and sorted(flat[10:]) == list(range(10))
    assert (flat[:10] == easy + hard) != shuffle
    backwards = [order.take(2 * (step // 3), 2, step) for step in range(27, -1, -3)]
    assert backwards[::-1] == drawn                          # a function of position and step alone


def test_a_small_stage_has_one_rollout_of_rows_that_repeat():
    order = Curriculum([("one", [4]), ("rest", [0, 1, 2, 3])], prompts=3, steps=1)
    assert order.ends == (1, 2) and order.take(0, 3, 0) == [4, 4, 4] and set(order.take(3, 3, 1)) < {0, 1, 2, 3}


def test_positions_that_are_ahead_of_the_steps_or_behind_them_stay_in_the_stage():
    """Dynamic sampling takes more prompts than a step has; a rollout that failed takes none."""
    order = Curriculum([("easy", range(5)), ("hard", range(5, 9))], prompts=2, steps=1)
    assert set(order.take(100, 4, 3)) == {5, 6, 7, 8} == set(order.take(0, 4, 2))


# ---- learning rate


@pytest.mark.parametrize("options, expected", [
    ({}, [(0, 4), (1, 4), (2, 4), (3, 4), (0, 2), (1, 2), (0, 4), (1, 4), (2, 4), (3, 4)]),
    (dict(lr_scheduler_kwargs={"restart_after": False}),
     [(0, 4), (1, 4), (2, 4), (3, 4), (0, 2), (1, 2), *4 * [(1, 1)]]),
    (dict(warmup_steps=2), [0.0, 0.5, (0, 2), (1, 2), (0, 2), (1, 2), (0, 4), (1, 4), (2, 4), (3, 4)]),
    (dict(warmup_steps=5), [0, 0.2, 0.4, 0.6, 0.8, (0, 1), (0, 4), (1, 4), (2, 4), (3, 4)]),
], ids=str)
def test_rates(options, expected):
    """cos^2 of the progress inside the stage: stages end after steps 4 and 6, the run after 10."""
    config = grpo.GRPOConfig(learning_rate=1.0, curriculum="level", lr_scheduler_type="curriculum_cosine", **options)
    wanted = [x if isinstance(x, (int, float)) else (1 + math.cos(math.pi * x[0] / x[1])) / 2 for x in expected]
    assert [learning_rate(config, step, 10, (4, 6)) for step in range(10)] == pytest.approx(wanted, abs=1e-12)


# ---- runs


def levels_drawn(trainer):
    return [sorted(LEVELS[p.row] for p in step.rollouts.prompts) for step in trainer]


def test_a_run_goes_through_the_stages(tmp_path, capsys):
    trainer = toy.trainer(tmp_path, rows=ROWS, lr_scheduler_type="curriculum_cosine", **(ORDERED | dict(max_steps=6)))
    steps = list(trainer)
    assert [step.metrics["curriculum/stage"] for step in steps] == [1, 1, 2, 3, 4, 4]
    served = [sorted(LEVELS[p.row] for p in step.rollouts.prompts) for step in steps]
    assert served[:4] == [[1, 1], [1, 1], [2, 2], [3, 3]]
    rates = [record["learning_rate"] for record in trainer.state.log_history if "loss" in record]
    assert rates == pytest.approx([1e-2 * x for x in (1, 0.5, 1, 1, 1, 0.5)])
    said = "".join(capsys.readouterr())
    assert ("curriculum by 'level': 1 (5 rows) to step 2, 2 (3 rows) to step 3, 3 (2 rows) to step 4, then all rows "
            "mixed") in said
    assert "step 2: stage 2 of 3 (2) of the curriculum begins" in said and "step 4: the mix of the curriculum" in said


@pytest.mark.parametrize("epochs, steps", [(1.0, 4), (2.5, 10), (0.01, 1)])
def test_a_pass_ends_with_the_last_stage(tmp_path, epochs, steps):
    trainer = toy.trainer(tmp_path, rows=ROWS, **(ORDERED | dict(max_steps=-1, num_train_epochs=epochs)))
    assert trainer.steps_of_epochs(epochs) == steps


def test_a_run_that_ends_before_the_last_stage_says_so(tmp_path, capsys):
    toy.trainer(tmp_path, rows=ROWS, **(ORDERED | dict(max_steps=2))).train()
    assert "the run ends before, in stage 1" in "".join(capsys.readouterr())


@pytest.mark.parametrize("changed", [
    {}, dict(num_iterations=2, max_steps=12), dict(dynamic_sampling=True), dict(shuffle_dataset=False),
    dict(steps_per_generation=2, per_device_train_batch_size=4, prompts_per_step=None, curriculum_stages=2)],
    ids=lambda changed: ", ".join(changed) or "plain")
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_resume_is_exact(tmp_path, changed, stop):
    def reward(prompts, completion_ids):
        return [0.0 if p in "bc" else sum(ids) / 1000 for p, ids in zip(prompts, completion_ids, strict=True)]

    run = dict(ORDERED, save_strategy="steps", save_steps=1, lr_scheduler_type="curriculum_cosine") | changed
    straight = toy.trainer(tmp_path, reward, ROWS, **run)
    served = levels_drawn(straight)
    broken = toy.trainer(tmp_path, reward, ROWS, **run)
    for step in broken:
        if step.step == stop:
            break
    resumed = toy.trainer(tmp_path, reward, ROWS, **run, output_dir=str(broken.run.path))
    assert [sorted(LEVELS[p.row] for p in step.rollouts.prompts) for step in resumed.steps(True)] == served[stop:]
    assert toy.weights(resumed) == toy.weights(straight)
    assert ([toy.timeless(record) for record in resumed.state.log_history]
            == [toy.timeless(record) for record in straight.state.log_history])


@pytest.mark.parametrize("rows, changed, message", [
    ([{"prompt": "a", "level": 1}, {"prompt": "b"}], {}, "train_dataset: row 1 has no 'level'"),
    ([{"prompt": "a", "level": "x"}], {}, "train_dataset: row 0: 'level' is 'x'"),
    (ROWS, dict(curriculum="depth"), "train_dataset: row 0 has no 'depth'"),
])
def test_rows_that_have_no_place_are_named_before_a_run(tmp_path, rows, changed, message):
    with pytest.raises(DatasetError, match=message):
        toy.trainer(tmp_path, rows=rows, **(ORDERED | changed))


def test_what_is_odd_is_said(tmp_path):
    with pytest.warns(GrpoWarning, match="fewer rows than the 4 prompts of a rollout.* stage 2 .3., 3 .2. of level"):
        toy.trainer(tmp_path, rows=ROWS, **(ORDERED | dict(prompts_per_step=4)))
    with pytest.warns(GrpoWarning, match="every row has the level 1: a curriculum of one stage"):
        toy.trainer(tmp_path, rows=[{"prompt": p, "level": 1} for p in "abc"], **ORDERED)


def test_check_finds_a_column_that_is_missing(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row | {"answer": "a"}) + "\n" for row in ROWS))
    recipe = Recipe.read("quickstart").change({"dataset": str(file), "dataset_kwargs": {}, "eval_dataset": str(file),
                                               "eval_dataset_kwargs": {}, "sft": None, "curriculum": "depth"})
    with pytest.raises(DatasetError, match="row 0 has no 'depth'"):
        prepare(recipe.change({"eval_dataset": None, "eval_strategy": "no", "eval_on_start": False}))


def test_the_picture_of_the_rate_has_a_dashed_line_where_a_stage_begins(tmp_path):
    trainer = toy.trainer(tmp_path, rows=ROWS, lr_scheduler_type="curriculum_cosine", **ORDERED)
    trainer.train()
    norm, rate = plots.figures(trainer.run.path, ["optimizer"])["optimizer"].axes
    dashed = [line.get_xdata()[0] for line in rate.lines if len(line.get_xdata()) == 2]
    assert dashed == [2.5, 3.5, 4.5] and not [line for line in norm.lines if len(line.get_xdata()) == 2]
