"""grpo analyze: what completions look like, and two evaluations of the same questions."""
import json
import re

import numpy as np
import pytest

import toy
from grpo import cli
from grpo.cli.summary import summary
from grpo.datasets import chat
from grpo.errors import ConfigError, FileFormatError
from grpo.evaluation.analysis import analysis_of, analyze, compare, disagreements, histogram, repetition
from grpo.evaluation.records import document, verdict
from grpo.evaluation.tables import analysis_tables
from grpo.runs.log import evaluation_steps

FULL = "<reasoning>\n9 * 2 = 18\n</reasoning>\n<answer>\n18\n</answer>"


def record(row, completion, sample=0, gold="18", **more):
    return {"row": row, "prompt": chat(f"What is {row}?"), "completion": completion, "tokens": len(completion.split()),
            "finish_reason": "stop", "rewards": {"r": float(row)}, "reward": 1.0, "sample": sample, "category": None,
            **verdict(completion, gold, ["reasoning", "answer"]), **more}


GIVEN = [record(0, FULL), record(1, "It is 18."), record(2, "It is 17.", finish_reason="length"),
         record(3, FULL + "<answer>")]


def test_analysis_of_completions():
    found = analysis_of(GIVEN)
    assert (found["completions"]["count"] == 4 and found["completions"]["format"] == 0.25
            and found["completions"]["truncated"] == 0.25)
    assert (found["right"]["count"], found["wrong"]["count"], found["wrong"]["mean_length"]) == (2, 2, 6.5)
    assert found["tag_errors"]["<answer> doubled"] == 1 and found["tag_errors"]["<reasoning> missing"] == 2
    assert ([(d["row"], d["strict"], d["lenient"]) for d in found["disagreements"]]
            == [(1, False, True), (3, False, False)])
    assert [b["count"] for b in found["histograms"]["r"]] == [1, 1, 1, 1]


def test_without_golds():
    found = analysis_of([record(0, FULL, gold=None)])
    assert found["right"] == {} and found["disagreements"] == [] and "lenient" not in found["completions"]
    assert [t.title for t in analysis_tables({"evaluation": found})] == ["Completions", "Reward r"]


def test_rows_without_a_gold_among_others():
    found = analysis_of([record(9, FULL, gold=None), *GIVEN])
    assert ((found["completions"]["count"], found["completions"]["strict"], found["right"]["count"],
             found["wrong"]["count"]) == (5, 0.25, 2, 2))
    assert compare([record(9, FULL, gold=None), *GIVEN], [record(9, FULL, gold=None), *GIVEN])["questions"] == 4


@pytest.mark.parametrize("text, share",
                         [("", 0), ("a b c", 0), ("a a a a a", 0.5), ("a b c d e", 0), ("x y z w x y z w", 0.2)])
def test_repetition(text, share):
    grams = [tuple(text.split()[i:i + 4]) for i in range(max(0, len(text.split()) - 3))]
    assert (repetition(text) == pytest.approx(share)
            == pytest.approx(sum(g in grams[:i] for i, g in enumerate(grams)) / max(1, len(grams))))


@pytest.mark.parametrize("values, bins",
                         [([1.0, 0.0, 1.0, None], 2), (list(np.linspace(0, 1, 50)), 10), ([None], 0), ([2.0] * 5, 1)])
def test_histograms_count_every_value_once(values, bins):
    found = histogram(values)
    assert len(found) == bins and sum(b["count"] for b in found) == sum(v is not None for v in values)


def test_disagreements_say_what_was_read():
    (found,) = disagreements([GIVEN[1]])
    assert found == {"row": 1, "sample": 0, "gold": "18", "tagged_answer": None, "answer": "18", "strict": False,
                     "lenient": True,
                     "extractive": True}


@pytest.mark.parametrize("gold, counts", [("18", 1), ("#### 18", 1), ("red", 0), ("[1, 8]", 0), (r"\frac{1}{2}", 0)])
def test_extractive_match_disagrees_only_on_numbers(gold, counts):
    inside = gold.removeprefix("#### ")
    found = disagreements([record(0, f"<reasoning>\n9 + 8\n</reasoning>\n<answer>{inside}</answer>", gold=gold)])
    assert len(found) == counts


def test_comparison_is_paired():
    before = [record(i, "18" if i < 3 else "17") for i in range(10)]
    after = [record(i, "18" if 1 <= i < 8 else "17") for i in range(1, 11)]
    found = compare(before, after)
    assert (found["questions"], found["only_in_a"], found["only_in_b"]) == (9, 1, 1)
    lenient = found["lenient"]
    assert ((lenient["a"], lenient["b"], lenient["only_a"], lenient["only_b"]) == (2 / 9, 7 / 9, 0, 5)
            and lenient["p"] == 2 / 32)
    assert lenient["low"] < lenient["difference"] == pytest.approx(5 / 9) and lenient["high"] <= 1


def test_questions_that_read_alike_are_compared_one_by_one():
    same = {"prompt": chat("[image: drawn, 70x70] Which digits?")}
    before = [record(i, "17", **same) for i in range(6)]
    found = compare(before, [record(i, "18" if i < 4 else "17", **same) for i in range(6)])
    assert found["questions"] == 6 and (found["lenient"]["only_a"], found["lenient"]["only_b"]) == (0, 4)


def test_comparison_of_several_completions_a_question_has_no_p():
    before = [record(i, text, sample) for i in range(3) for sample, text in enumerate(("18", "17"))]
    found = compare(before, [record(i, "18") for i in range(3)])
    assert "p" not in found["lenient"] and found["lenient"]["difference"] == 0.5


@pytest.mark.parametrize("other, message", [([record(9, "18")], "no question in common"),
                                            ([record(0, "18", gold="17")], "no question in common")])
def test_other_questions_cannot_be_compared(other, message):
    with pytest.raises(ConfigError, match=message):
        compare(GIVEN, other)


# ---- the command


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    rows = [{"prompt": chat(f"{a} + {a}?"), "answer": str(2 * a)} for a in range(4)]
    trainer = toy.trainer(tmp_path_factory.mktemp("analysis"), toy.byte_values, rows=rows[:2], eval_dataset=rows[2:],
                          eval_strategy="steps",
                          eval_steps=2, eval_on_start=True, max_steps=2, temperature_eval=0, eval_report="no")
    trainer.train()
    return trainer.run.path


def run(*words):
    return cli.main([str(word) for word in words])


def test_a_run(trained, capsys):
    assert run("analyze", trained) == 0
    out = capsys.readouterr().out
    for part in ("Accuracy", "Errors of layout", "Reward byte_values",
                 "Evaluation at step 0 and at step 2, on 2 questions", "McNemar p",
                 "Training completions", "step 1  step 2", "analysis.json"):
        assert part in out, part
    found = json.loads((trained / "analysis" / "analysis.json").read_text())
    assert found["evaluation"]["metrics"] == json.loads((trained / "eval" / "step-000002.json").read_text())["metrics"]
    assert found["training"]["last"]["count"] == 8 and found == json.loads(json.dumps(found))


def test_the_pdf_of_a_run(trained, tmp_path):
    pytest.importorskip("reportlab")
    assert run("analyze", trained, "--output_dir", tmp_path) == 0
    assert (tmp_path / "analysis.pdf").read_bytes().startswith(b"%PDF")


def test_two_evaluations(trained, tmp_path, capsys):
    file = tmp_path / "evaluation.json"
    file.write_text(json.dumps(document({}, json.loads((trained / "eval"
                                                        / "step-000000.json").read_text())["completions"])))
    assert run("analyze", tmp_path, trained, "--output_dir", tmp_path / "out") == 0
    assert "difference" in capsys.readouterr().out
    (found,) = (tmp_path / "out").glob("comparison-with-*.json")
    assert json.loads(found.read_text())["comparison"]["questions"] == 2


@pytest.fixture(scope="module")
def trained_on_two(tmp_path_factory):
    """Evaluated on two data sets, of which one is called like files of another."""
    rows = [{"prompt": chat(f"{a} + {a}?"), "answer": str(2 * a)} for a in range(6)]
    trainer = toy.trainer(tmp_path_factory.mktemp("two"), toy.byte_values, rows=rows[:2],
                          eval_dataset={"sums": rows[2:4], "sums-7": rows[3:]},
                          eval_strategy="steps", eval_steps=2, eval_on_start=True, max_steps=2, temperature_eval=0,
                          eval_report="end")
    trainer.train()
    return trainer.run.path


def test_a_run_on_several_data_sets(trained_on_two, capsys):
    assert evaluation_steps(trained_on_two) == {"sums": [0, 2], "sums-7": [0, 2]}
    found = analyze(trained_on_two)
    assert "evaluation" not in found and found["training"]["last"]["count"] == 8
    for name, count in {"sums": 2, "sums-7": 3}.items():
        one = found["data_sets"][name]
        assert ((one["evaluation"]["completions"]["count"], one["change"]["questions"], one["since_step"], one["step"])
                == (count, count, 0, 2))
    assert run("analyze", trained_on_two) == 0
    out = capsys.readouterr().out
    assert "sums: Accuracy" in out and "sums-7: Evaluation at step 0 and at step 2, on 3 questions" in out


def test_the_summary_of_a_run_on_several_data_sets(trained_on_two):
    text = summary(trained_on_two)
    for name, count in {"sums": 2, "sums-7": 3}.items():
        assert re.search(rf"byte_values, {name} +\d\.\d+ -> \d\.\d+\n", text)
        assert re.search(rf"accuracy on {count} held-out rows of {name} +\d+\.\d% -> \d+\.\d%\n", text)
    assert "2 + 2?" in text and "accuracy.png" in text and re.search(r"\n    gold    \d+\n    before  ", text)


def test_the_summary_of_a_run_without_held_out_rows_asks_what_was_trained(tmp_path):
    trainer = toy.trainer(tmp_path, toy.byte_values, rows=[{"prompt": chat("2 + 3?"), "answer": "5"}], max_steps=1)
    trainer.train()
    trainer.save_checkpoint()
    assert summary(trainer.run.path).endswith(f'grpo generate --model {trainer.run.path} "2 + 3?"')


def test_two_runs_on_several_data_sets(trained_on_two, tmp_path):
    assert run("analyze", trained_on_two, trained_on_two, "--output_dir", tmp_path) == 0
    (found,) = tmp_path.glob("comparison-with-*.json")
    compared = json.loads(found.read_text())
    assert ({name: one["questions"] for name, one in compared["data_sets"].items()} == {"sums": 2, "sums-7": 3}
            and compared["comparison"] is None)


def test_runs_on_different_data_sets_cannot_be_compared(trained, trained_on_two, capsys):
    assert run("analyze", trained, trained_on_two) == 1
    assert f"{trained} has one without a name, {trained_on_two} sums, sums-7" in capsys.readouterr().err


def test_the_reports_of_several_data_sets_say_which(trained_on_two):
    pypdf = pytest.importorskip("pypdf")
    for name in ("sums", "sums-7"):
        page = pypdf.PdfReader(trained_on_two / "eval" / f"eval_{name}-000002.pdf").pages[0].extract_text()
        assert page.startswith(f"Evaluation: {name}\n")


@pytest.mark.parametrize("content, message",
                         [("{", "not an evaluation"), ('{"format": 9}', "not an evaluation of this version"),
                          (None, "no evaluation")])
def test_what_is_no_evaluation_is_named(tmp_path, capsys, content, message):
    source = tmp_path / "e.json" if content is not None else tmp_path
    if content is not None:
        source.write_text(content)
    assert run("analyze", source) == 1
    err = capsys.readouterr().err
    assert message in err and str(source) in err


def test_a_run_that_kept_no_completions(tmp_path):
    trainer = toy.trainer(tmp_path, eval_dataset=toy.ROWS, eval_strategy="steps", eval_steps=3, save_completions=False)
    trainer.train()
    with pytest.raises(FileFormatError, match="has no completions"):
        analyze(trainer.run.path)
