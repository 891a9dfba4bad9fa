"""grpo eval: any model on held-out rows, the same numbers as in training, finished questions are not lost, a report."""
import json
import sys

import pytest

import grpo
import toy
from grpo import cli
from grpo.cli import eval as command
from grpo.datasets import chat
from grpo.errors import ConfigError, FileFormatError
from grpo.evaluation import rounds
from grpo.evaluation.folder import EvalFolder
from grpo.evaluation.records import document, verdict
from grpo.evaluation.report import write_pdf
from grpo.evaluation.text import write_text

SIZES = ["--model.hidden_size", "32", "--model.num_hidden_layers", "1", "--model.num_attention_heads", "2",
         "--model.intermediate_size",
         "64"]
SMALL = [*SIZES, "--sft", "none", "--max_steps", "2", "--prompts_per_step", "2", "--num_generations", "2",
         "--max_completion_length", "8",
         "--eval_size",
         "6", "--eval_steps", "2", "--save_steps", "1", "--temperature_eval", "1", "--num_generations_eval", "3",
         "--eval_report", "no",
         "--disable_tqdm"]


def run(*words):
    return cli.main([str(word) for word in words])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval") / "run"
    assert run("train", *SMALL, "--metric_for_best_model", "reward", "--output_dir", folder) == 0
    return folder


def test_the_numbers_are_those_of_training(trained, tmp_path):
    assert run("eval", trained, "--output_dir", tmp_path / "e", "--report_questions", 2) == 0
    there, here = (json.loads(p.read_text())
                   for p in (trained / "eval" / "step-000002.json", tmp_path / "e" / "evaluation.json"))
    assert (here["metrics"] == there["metrics"] and here["completions"] == there["completions"]
            and here["settings"]["step"] == 2)


@pytest.mark.parametrize("words, completions, temperature", [
    ([], 3, 1.0), (["--temperature", "0"], 1, 0), (["--num_generations", "2"], 2, 1.0),
    (["--num_generations", "1"], 1, 0),
    (["--temperature", "0.5"], 1, 0.5), (["--num_generations", "2", "--temperature", "0.5"], 2, 0.5)])
def test_how_many_completions_and_how_they_are_drawn(trained, words, completions, temperature):
    config = command.config_of(command.recipe_of(command.eval_parser("grpo eval").parse([str(trained), *words]),
                                                 trained))
    drawn_at = config.temperature if config.temperature_eval is None else config.temperature_eval
    assert (config.completions_eval, drawn_at) == (completions, temperature)


@pytest.mark.parametrize("words, kwargs", [
    (["--dataset_kwargs.digits", "1"], {"digits": 1}), (["--dataset-kwargs.digits=1"], {"digits": 1}),
    (["--dataset", "arithmetic", "--dataset_kwargs", "{seed: 2}", "--dataset_kwargs.digits", "1"],
     {"seed": 2, "digits": 1})])
def test_options_of_the_data_set_one_by_one(trained, words, kwargs):
    recipe = command.recipe_of(command.eval_parser("grpo eval", words).parse([str(trained), *words]), trained)
    assert recipe.eval_dataset_kwargs == kwargs


def test_it_goes_on_where_it_stopped(trained, tmp_path, monkeypatch, capsys):
    assert run("eval", trained, "--output_dir", tmp_path / "whole") == 0
    words = ["eval", trained, "--output_dir", tmp_path / "parts", "--slots", "3"]       # 2 questions at a time
    real, calls = rounds.Evaluation.completions, []

    def stopped(self, first, count):
        calls.append(first)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, first, count)

    monkeypatch.setattr(rounds.Evaluation, "completions", stopped)
    assert run(*words) == 130 and "2 of 6 questions are in" in capsys.readouterr().err
    with open(tmp_path / "parts" / "unfinished.jsonl", "a") as file:
        file.write('{"row": 2, "cut')
    assert run(*words) == 0
    assert calls == [0, 2, 2, 4]
    one, other = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("whole", "parts"))
    assert one["completions"] == other["completions"] and one["metrics"] == other["metrics"]
    assert not (tmp_path / "parts" / "unfinished.jsonl").exists()
    assert run(*words) == 0 and len(calls) == 4            # finished: nothing is drawn again


def test_another_evaluation_in_the_same_folder_is_refused(trained, tmp_path, capsys):
    assert run("eval", trained, "--output_dir", tmp_path / "e") == 0
    before = (tmp_path / "e" / "evaluation.json").read_bytes()
    for words, what in ((["--temperature", "0.5"], "num_generations is 3 there and 1 here"),
                        (["--limit", "4"], "questions is 6 there and 4 here"),
                        (["--checkpoint", "1"], "step is 2 there and 1 here")):
        assert run("eval", trained, "--output_dir", tmp_path / "e", *words) == 1
        assert what in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("x")
    assert (run("eval", trained, "--output_dir", tmp_path / "other") == 1
            and "holds no evaluation" in capsys.readouterr().err)
    assert (tmp_path / "e" / "evaluation.json").read_bytes() == before


def test_checkpoints(trained, capsys):
    best = json.loads((trained / "checkpoints" / "best.json").read_text())["step"]
    assert command.source_of(str(trained), "best") == (str(trained / "checkpoints" / f"step-{best}"), trained)
    assert (command.source_of(str(trained), "1")[0].endswith("step-1")
            and command.source_of(str(trained), None)[0].endswith("step-2"))
    assert (command.source_of(str(trained / "checkpoints" / "step-1"), None)
            == (str(trained / "checkpoints" / "step-1"), trained))
    for words, message in (([trained, "--checkpoint", "7"], "has no checkpoint '7'; there are 1, 2, latest and best"),
                           (["somewhere", "--checkpoint", "best"], "is no run folder"),
                           ([trained, "--temprature", "1"], "did you mean")):
        assert run("eval", *words) != 0 and message in capsys.readouterr().err


def test_a_model_and_a_data_set_of_their_own(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"What is {a} + 1?", "answer": str(a + 1), "level": "easy" if a < 2 else "hard"}
            for a in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.py").write_text("def letters(completions): return [len(c[-1]['content']) for c in completions]\n")
    grpo.load(trained / "checkpoints" / "step-1").save_pretrained(tmp_path / "model")
    assert (run("eval", "model", "--dataset", "rows.jsonl", "--max_completion_length", "4", "--eval_funcs",
                "mine.py:letters") == 0)
    out = capsys.readouterr().out
    for part in ("Accuracy", "strict (in its tags)", "By category", "easy", "letters", "report.pdf"):
        assert part in out
    (folder,) = (tmp_path / "evals").iterdir()
    assert json.loads((folder / "evaluation.json").read_text())["settings"]["num_generations"] == 1
    assert "gold: 1" in (folder / "generations.txt").read_text()


@pytest.mark.parametrize("second, message", [
    ({"question": "And?", "answer": None}, "row 1 has no answer"),
    ({"question": "And?", "answer": "#### "}, "row 2: there is no answer")])
def test_a_gold_that_is_missing_names_its_row(trained, tmp_path, capsys, second, message):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "What?", "answer": "1"}) + "\n" + json.dumps(second)
                                         + "\n")
    assert run("eval", trained, "--dataset", tmp_path / "rows.jsonl", "--rewards", "strict_format_reward") == 1
    assert message in capsys.readouterr().err


def test_a_broken_unfinished_file_is_named(tmp_path):
    folder = EvalFolder(tmp_path / "e", {"num_generations": 1})
    (folder.path / "unfinished.jsonl").write_text("{}x\n")
    with pytest.raises(FileFormatError, match="unfinished.jsonl"):
        folder.records()
    with pytest.raises(ConfigError, match="num_generations is 1 there and 2 here"):
        EvalFolder(tmp_path / "e", {"num_generations": 2})


# ---- the report

HOSTILE = ["<reasoning>\n你好 🎉 \x00\x1b[31m\t\u202e\n</reasoning>\n<answer>\n18\n</answer>",
           "word " * 4000 + "x" * 3000, "\n" * 200, "", "<para>&amp;<font size=99>"]


def hostile():
    records = [{"row": i, "prompt": chat("What <b>is</b> 9 * 2 & 你好?"), "completion": text, "tokens": 4000,
                "finish_reason": "stop",
                "rewards": {"a": 1.0, "b" * 60: None}, "reward": 1.0, "sample": 0, "category": "c" * 80,
                **verdict(text, "18", ["reasoning", "answer"])}
               for i, text in enumerate(HOSTILE)]
    return document({"model": "m" * 20000}, records)


def test_report(tmp_path):
    pytest.importorskip("reportlab")
    path = write_pdf(hostile(), tmp_path / "r.pdf", "Evaluation of 你好 <b>")
    data = path.read_bytes()
    assert data.startswith(b"%PDF") and data.rstrip().endswith(b"%%EOF") and list(tmp_path.iterdir()) == [path]
    assert write_pdf(hostile(), tmp_path / "s.pdf", "Evaluation of 你好 <b>").read_bytes() == data
    assert len(write_pdf(hostile(), tmp_path / "t.pdf", most=1).read_bytes()) < len(data)


def test_what_the_report_says(tmp_path):
    pytest.importorskip("reportlab")
    pypdf = pytest.importorskip("pypdf")
    text = "\n".join(page.extract_text() for page in pypdf.PdfReader(write_pdf(hostile(), tmp_path / "r.pdf")).pages)
    for part in ("lenient (anywhere)", "20.0%", "Question 1 (row 0), 1 of 1 right", "gold: 18",
                 "right (strict, lenient, extractive)",
                 "wrong", "What <b>is</b> 9 * 2 &", "answer in its tags: 18", "<answer> missing", "<font size=99>"):
        assert part in text, part


def test_without_reportlab_one_line_says_how_to_get_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "grpo.evaluation.pdf", None)
    assert write_pdf(hostile(), tmp_path / "r.pdf") is None and not (tmp_path / "r.pdf").exists()
    assert "cgrpo[report]" in capsys.readouterr().err
    assert HOSTILE[4] in write_text(hostile(), tmp_path / "g.txt").read_text()


@pytest.mark.parametrize("option, expected", [("end", [4]), ("every", [2, 4]), ("no", [])])
def test_reports_of_a_run(tmp_path, option, expected):
    pytest.importorskip("reportlab")
    trainer = toy.trainer(tmp_path, toy.byte_values, eval_dataset=[{"prompt": "z", "answer": "1"}],
                          eval_strategy="steps", eval_steps=2,
                          max_steps=4, eval_report=option)
    trainer.train()
    assert sorted(int(p.stem.rpartition("-")[2]) for p in (trainer.run.path / "eval").glob("*.pdf")) == expected
