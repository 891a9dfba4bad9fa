"""`grpo train --check` refuses what a run refuses before its first step; names that hide this package."""
import json

import pytest

from grpo import cli
from grpo.cli.doctor import hidden_by

SIZES = """model:
  {hidden_size: 64, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1, intermediate_size: 64}
"""
ROWS = [{"prompt": f"{i} + 1", "answer": str(i + 1)} for i in range(8)]


@pytest.fixture
def words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "long.jsonl").write_text("\n".join(map(json.dumps, [*ROWS, {"prompt": "9" * 99, "answer": "1"}])))
    (tmp_path / "gold.jsonl").write_text("\n".join(map(json.dumps, [{"prompt": "a", "answer": ""}] * 8)))
    (tmp_path / "own.yaml").write_text(SIZES)
    return ["train", "own.yaml", "--dataset", "rows.jsonl", "--max_steps", "1", "--num_generations", "2",
            "--max_completion_length", "2", "--output_dir", "out", "--save_strategy", "no"]


def said(words, capsys):
    code = cli.main(words)
    return code, [line for line in capsys.readouterr().err.splitlines() if line.startswith("grpo: ")]


@pytest.mark.parametrize("more, named", [
    (["--max_prompt_length", "50", "--dataset", "long.jsonl"], "row 8"), (["--rewards", "nope"], "nope"),
    (["--resume_from_checkpoint", "nowhere/step-3"], "nowhere"), (["--dataset", "nowhere.jsonl"], "nowhere.jsonl"),
    (["--dataset", "gold.jsonl", "--rewards", "accuracy_reward"], "reference answer"),
    (["--num_generations", "3"], "3"),
    (["--chat_template_kwargs", "{tokenize: false}"], "tokenize"), (["--model", "nowhere"], "nowhere"),
    (["--curriculum", "level"], "level"), (["--train_vision", "all"], "vision"),
])
def test_the_check_says_what_the_run_says(words, more, named, capsys, tmp_path):
    checked, ran = said([*words, *more, "--check"], capsys), said([*words, *more], capsys)
    assert checked == ran and checked[0] == 1 and named in checked[1][-1]
    assert not (tmp_path / "out").exists()


def test_the_check_of_what_can_run(words, capsys, tmp_path):
    assert cli.main([*words, "--check"]) == 0 and "Nothing was trained" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["none", "group", "batch", "True", "False"])
def test_scale_rewards_on_the_command_line(words, value, capsys):
    assert cli.main([*words, "--scale_rewards", value, "--check"]) == 0


@pytest.mark.parametrize("name", ["grpo.py", "grpo/__init__.py"])
def test_a_file_that_hides_this_package(tmp_path, monkeypatch, name, capsys):
    assert hidden_by(tmp_path) is None
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    assert "train_grpo.py" in hidden_by(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["doctor"]) in (0, 1) and "hides this package" in capsys.readouterr().out
