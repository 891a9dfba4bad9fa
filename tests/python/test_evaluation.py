"""Rounds of evaluation: grading, numbers, files, the best checkpoint."""
import json

import pytest

import grpo
import toy
from grpo.datasets import chat
from grpo.errors import ConfigError, DatasetError
from grpo.evaluation import records
from grpo.evaluation.grading import category_column, check_golds, grade, layout_of, reasoning_of, tag_errors, vote_of
from grpo.evaluation.records import by_category, metrics_of
from grpo.evaluation.text import asked, before_question, last_message
from grpo.rewards.adapters import gold_of
from grpo.rewards.extractive import extracted, extractive_match
from grpo.runs import checkpoint

FULL = "<reasoning>\n9 * 2 = 18\n</reasoning>\n<answer>\n18\n</answer>"
SUMS = [{"prompt": chat(f"What is {a} + {a}?"), "answer": str(2 * a), "category": "even" if a % 2 == 0 else "odd"}
        for a in range(1, 7)]


# ---- one completion


@pytest.mark.parametrize("completion, gold, strict, lenient, extractive", [
    (FULL, "18", True, True, True),
    (FULL, "9 * 2 = <<9*2=18>>18\n#### 18", True, True, True),
    ("<reasoning>9 * 2 = 18</reasoning><answer>18</answer>", "18", True, True, True),
    ("<reasoning>half of 18 is 9</reasoning><answer>18</answer>", "18", True, True, False),
    ("<answer>\n$18.00\n</answer>", "18", True, True, True),
    ("<answer>18", "18", False, True, False),
    ("<answer>The total is 18 dollars</answer>", "18", False, True, True),
    ("It is 18.", "18", False, True, True),
    ("The answer is 18 because 9 * 2", "18", False, True, True),
    ("<answer>Paris</answer>", "paris", True, True, False),
    ("<answer>5</answer> or <answer>18</answer>", "18", True, True, False),
    ("", "18", False, False, False),
    ("18 and then 19", "18", False, False, False)])
def test_three_readings(completion, gold, strict, lenient, extractive):
    assert grade(completion, gold) == {"strict": strict, "lenient": lenient, "extractive": extractive}


@pytest.mark.parametrize("text, number", [
    ("The final answer is 42. I hope it is right, 7", 42), (r"so \boxed{18} and 5", 18),
    ("The final answer, then, is 12. and 13", 12),
    ("answer: it is $1,200", 1200), ("answer\n18", 18), ("<answer>\n18\n</answer>", 18),
    ("1 + 1 = 2 <answer>18</answer>", 2),
    ("the answer 9 * 2 = 18", 18), ("x = 5 = 7", 7), ("I have 12 eggs", 12), ("it is 50%", 0.5), ("answer: 1/2", 0.5),
    ("total 2*(3+4)", 14),
    ("answer: 3+4=7 apples", 7), ("Answer: **18**", 18), ("it costs 12,5 euro", 12.5), ("1 200 people", 1200),
    ("answer: 2^10", 1024),
    ("-5", -5), ("3 - 4", -1), ("no number", None), ("", None), ("abc12", None), ("9**9**9", None), ("0/0", None)])
def test_extraction(text, number):
    assert extracted(text) == number


@pytest.mark.parametrize("text", [
    "The final answer is 42. I hope it is right, 7", "The final answer, then, is 12. and 13", "answer: it is $1,200",
    "answer\n18", FULL,
    "x = 5 = 7",
    "1 + 1 = 2 <answer>18</answer>", "the answer 9 * 2 = 18", "I have 12 eggs", "answer: 1/2", "Answer: **18**",
    "so 3 and 4", "3 - 4",
    "abc12",
    "She makes 9 * 2 = $<<9*2=18>>18 every day", "answer 12 = 3*4", "total 2*(3+4)", "1 200 people",
    "it costs 12,5 euro", "= 18 dollars"])
def test_extraction_is_math_verifys(text):
    math_verify = pytest.importorskip("math_verify")
    found = math_verify.parse(text, [math_verify.ExprExtractionConfig()])
    assert extracted(text) == (None if not found else pytest.approx(float(found[0])))


def test_extraction_compares_to_five_decimals_and_else_as_text():
    assert (extractive_match("it is 0.333333", "1/3") and not extractive_match("it is 0.3333", "1/3")
            and extractive_match("Paris", "Paris"))


@pytest.mark.parametrize("completion, errors", [
    (FULL, []), ("12", ["<reasoning> missing", "</reasoning> missing", "<answer> missing", "</answer> missing"]),
    (FULL + "<answer>", ["<answer> doubled"]), (FULL.removesuffix("</answer>"), ["</answer> missing"]),
    ("<answer>1</answer><reasoning>a</reasoning>", ["tags out of order"])])
def test_tag_errors(completion, errors):
    assert tag_errors(completion, ["reasoning", "answer"]) == errors


def test_an_answer_that_the_prompt_begins():
    """The question is what the user asks, and the layout is that of both parts together."""
    prompt = [*chat("Why? <think>...</think>", "Be brief."), {"role": "assistant", "content": "So.\n<think>"}]
    assert last_message(prompt) == "Why? <think>...</think>" and before_question(prompt) == "system: Be brief."
    assert asked(prompt) == "Why? <think>...</think>\n\nassistant: So.\n<think>"
    assert asked(prompt[:2]) == last_message(prompt)
    assert before_question("What?") == before_question(chat("What?", "")) == ""
    record, = records.graded([{"prompt": prompt, "completion": "so</think> 4", "row": 0}], [{}], 1, None)
    assert record["tag_errors"] == [] and record["reasoning"] == "so"
    record, = records.graded([{"prompt": prompt, "completion": "<think>so</think> 4", "row": 0}], [{}], 1, None)
    assert record["tag_errors"] == ["<think> doubled"]


@pytest.mark.parametrize("prompt, layout", [
    (chat("What?"), ["reasoning", "answer"]), (chat("What?", None), []),
    ("<think>...</think> then <answer>...</answer>", ["think", "answer"]),
    ("a <b>", []), ([1, 2, 3], []), ([], [])])
def test_the_layout_is_what_the_prompt_shows(prompt, layout):
    assert layout_of(prompt) == layout


@pytest.mark.parametrize("text, reasoning",
                         [(FULL, "9 * 2 = 18"), ("<think>a</think>b", "a"), ("a</think>b", "a"), ("b", None)])
def test_reasoning(text, reasoning):
    assert reasoning_of(text) == reasoning


def test_equal_answers_have_one_vote():
    assert (vote_of("it is 18.") == vote_of("<answer>$18.00</answer>") == vote_of("#### 18 dollars")
            != vote_of("<answer>19</answer>"))


# ---- rows


@pytest.mark.parametrize("columns, gold", [
    ({"answer": "1"}, "1"), ({"solution": "2"}, "2"), ({"reward_model": {"ground_truth": "3"}}, "3"),
    ({"answer": None, "label": 4}, 4),
    ({"x": 1}, None)])
def test_gold(columns, gold):
    assert gold_of(columns) == gold


@pytest.mark.parametrize("rows, message", [
    ([{"answer": "1"}, {"answer": None}], "row 1 has no answer"),
    ([{"answer": "1"}, {"answer": "#### "}], "row 1 cannot"),
    ([{"answer": []}], "row 0 cannot"), ([{"answer": float("nan")}], "row 0 cannot"),
    ([{"answer": True}], "row 0 cannot")])
def test_a_gold_that_cannot_be_compared_names_its_row(rows, message):
    with pytest.raises(DatasetError, match=message):
        check_golds(rows, "eval_dataset")


def test_the_parts_of_a_mixture_may_differ():
    check_golds([{"source": "a", "answer": "1"}, {"source": "b"}], "eval_dataset")
    m = metrics_of([record(0, FULL, category="a"), record(1, "x", gold=None, category="b")])
    assert m["accuracy/strict"] == 1 and m["format"] == 0.5
    assert list(by_category([record(0, FULL, category="a"), record(1, "x", gold=None, category="b")])) == ["a"]


def test_category_column():
    assert (category_column([{"level": 1}, {"level": 2}], None) == "level"
            and category_column([{"level": 1}, {}], None) is None)
    with pytest.raises(DatasetError, match="row 1 has no column 'level'"):
        category_column([{"level": 1}, {"x": 2}], "level")


# ---- numbers


def record(row, completion, gold="18", sample=0, category=None, **more):
    basic = {"row": row, "prompt": chat("?"), "completion": completion, "tokens": len(completion),
             "finish_reason": "stop",
             "rewards": {"r": 1.0}, "reward": 1.0, "sample": sample, "category": category}
    return basic | records.verdict(completion, gold, ["reasoning", "answer"]) | more


def test_numbers_of_a_round():
    given = [record(0, FULL), record(0, "It is 18.", sample=1), record(3, "no", sample=0),
             record(3, "17", sample=1, finish_reason="length")]
    m = metrics_of(given)
    assert ((m["accuracy/strict"], m["accuracy/lenient"], m["format"], m["completions/clipped_ratio"])
            == (0.25, 0.5, 0.25, 0.25))
    assert m["accuracy/lenient/low"] < 0.5 < m["accuracy/lenient/high"]
    assert (m["pass@k/1"], m["pass@k/2"], m["majority@k/2"], m["frac_reward_zero_std"]) == (0.5, 0.5, 0.5, 1.0)


def test_numbers_by_category():
    given = [record(0, FULL, category="b"), record(1, "17", category="a"), record(2, FULL, category="a")]
    found = by_category(given)
    assert list(found) == ["a", "b"] and found["a"]["questions"] == 2
    assert found["a"]["accuracy/strict"] == 0.5 and found["b"]["accuracy/strict"] == 1
    assert by_category([record(0, FULL)]) == {}


def test_without_golds_there_is_no_accuracy():
    m = metrics_of([record(0, "a", gold=None)])
    assert "accuracy/lenient" not in m and m["reward"] == 1.0


# ---- rounds of a trainer


def lengths(completions, **columns):
    return [float(len(c[-1]["content"])) for c in completions]


def trainer(tmp_path, **changed):
    rows = changed.pop("rows", SUMS)
    return toy.trainer(tmp_path, toy.byte_values, eval_dataset=rows, **{"eval_strategy": "steps", "eval_steps": 2,
                                                                        "eval_report": "no"} | changed)


def test_a_round_leaves_its_completions_and_numbers(tmp_path):
    t = trainer(tmp_path, max_steps=2, num_generations_eval=3)
    t.train()
    content = json.loads((t.run.path / "eval" / "step-000002.json").read_text())
    logged = t.state.log_history[-2]
    assert (content["settings"]["num_generations"] == 3 and content["settings"]["questions"] == 6
            and content["settings"]["step"] == 2)
    assert list(content["by_category"]) == ["even", "odd"] and len(content["completions"]) == 18
    assert content["metrics"] == metrics_of(content["completions"])
    for name in ("accuracy/strict", "accuracy/lenient/low", "accuracy/extractive/high", "pass@k/3", "majority@k/3",
                 "format", "reward"):
        assert logged[f"eval_{name}"] == content["metrics"][name]
    assert ([(r["row"], r["sample"]) for r in content["completions"]]
            == [(row, sample) for row in range(6) for sample in range(3)])
    first = content["completions"][0]
    assert {"gold", "category", "strict", "lenient", "extractive", "answer", "tagged_answer", "reasoning", "tag_errors",
            "rewards"} <= set(first)


def test_chunks_are_the_same_completions(tmp_path):
    t = trainer(tmp_path)
    whole, _ = t.evaluations[""].completions(0, 6)
    parts = [r for first, count in ((0, 1), (1, 3), (4, 2)) for r in t.evaluations[""].completions(first, count)[0]]
    assert whole == parts


def test_a_reward_that_logs_a_number_of_the_same_name_does_not_replace_it(tmp_path):
    def loud(completions, log_metric, **columns):
        log_metric("accuracy/strict", 0.75)
        log_metric("mine", 3.0)
        return [1.0] * len(completions)

    t = toy.trainer(tmp_path, loud, eval_dataset=SUMS)
    metrics = t.evaluate()
    assert metrics["eval_accuracy/strict"] == 0 and metrics["eval_mine"] == 3


def test_evaluation_functions(tmp_path):
    t = grpo.GRPOTrainer(toy.model(), toy.byte_values, grpo.GRPOConfig(**toy.options(tmp_path)), toy.ROWS, SUMS,
                         eval_funcs=[lengths])
    metrics = t.evaluate()
    given, _ = t.evaluations[""].completions(0, 6)
    assert metrics["eval_funcs/lengths/mean"] == pytest.approx(sum(len(r["completion"]) for r in given) / len(given))


@pytest.mark.parametrize("options, steps", [
    (dict(eval_steps=2, max_steps=4), [2, 4]), (dict(eval_steps=2, max_steps=3), [2, 3]),
    (dict(eval_on_start=True, eval_steps=2, max_steps=2), [0, 2]),
    (dict(eval_strategy="no", eval_on_start=True, max_steps=2), [0, 2]), (dict(eval_strategy="no", max_steps=2), [])])
def test_the_last_step_is_evaluated(tmp_path, options, steps):
    t = trainer(tmp_path, **options)
    t.train()
    assert [r["step"] for r in t.state.log_history if "eval_reward" in r] == steps
    list(t.steps())
    assert [r["step"] for r in t.state.log_history if "eval_reward" in r] == steps


def test_a_resumed_run_does_not_evaluate_its_end_again(tmp_path):
    t = trainer(tmp_path, max_steps=2, save_strategy="steps", save_steps=1)
    t.train()
    before = (t.run.path / "metrics.jsonl").read_text()
    again = trainer(tmp_path, max_steps=2, save_strategy="steps", save_steps=1, output_dir=str(t.run.path),
                    resume_from_checkpoint=True)
    again.train()
    assert (t.run.path / "metrics.jsonl").read_text() == before


# ---- the best checkpoint

VALUES = [0.1, 0.5, 0.3, 0.2]


def scripted(tmp_path, values=VALUES, **changed):
    """A run whose evaluation says what values say."""
    t = trainer(tmp_path, **{"eval_steps": 1, "max_steps": 4, "save_strategy": "steps", "save_steps": 100,
                             "metric_for_best_model": "score"} | changed)
    t.evaluate = lambda: {"eval_score": values[t.state.global_step - 1]}
    return t


def kept(t):
    return sorted(checkpoint.step_of(p) for p in checkpoint.steps(t.run.checkpoints))


@pytest.mark.parametrize("options, best, steps", [
    ({}, 2, [1, 2, 4]), (dict(save_total_limit=1), 2, [2, 4]), (dict(greater_is_better=False), 1, [1, 4]),
    (dict(save_strategy="best"), 2, [1, 2]),
    (dict(save_strategy="best", save_total_limit=1), 2, [2]), (dict(save_steps=1, save_total_limit=2), 2, [2, 3, 4]),
    (dict(metric_for_best_model="eval_score"), 2, [1, 2, 4])])
def test_the_best_checkpoint_is_kept(tmp_path, options, best, steps):
    t = scripted(tmp_path, **options)
    t.train()
    found = checkpoint.best(t.run.checkpoints)
    assert ((found["step"], found["value"], found["metric"]) == (best, VALUES[best - 1], "eval_score")
            and kept(t) == steps)


def test_the_best_weights_are_loaded_at_the_end(tmp_path):
    t = scripted(tmp_path, load_best_model_at_end=True, save_only_model=True)
    seen = {step.step: toy.weights(t) for step in t}
    assert toy.weights(t) == seen[2] != seen[4]


def test_the_best_is_remembered_by_a_resumed_run(tmp_path):
    t = scripted(tmp_path, max_steps=2, learning_rate=1e-3)
    t.train()
    again = scripted(tmp_path, output_dir=str(t.run.path), resume_from_checkpoint=True, learning_rate=1e-3,
                     save_total_limit=1)
    again.train()
    assert checkpoint.best(again.run.checkpoints)["step"] == 2 and kept(again) == [2, 4]


def test_not_a_number_is_never_best(tmp_path):
    t = scripted(tmp_path, values=[float("nan"), 0.1, float("nan"), 0.05])
    t.train()
    assert checkpoint.best(t.run.checkpoints)["step"] == 2


@pytest.mark.parametrize("options, message", [
    (dict(metric_for_best_model="reward", eval_strategy="no"), "set eval_strategy"),
    (dict(save_strategy="best"), "needs metric_for_best_model"),
    (dict(metric_for_best_model="reward", save_strategy="no"), "needs checkpoints"),
    (dict(load_best_model_at_end=True, save_strategy="steps"), "no loss in GRPO"),
    (dict(eval_report="sometimes"), "eval_report")])
def test_options_that_contradict_each_other(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        trainer(tmp_path, **options)


def test_a_metric_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'accuracy/lenient'"):
        trainer(tmp_path, save_strategy="steps", metric_for_best_model="accuracy/lenent").train()
