"""The examples, the notebooks and the README's programs run as they stand, and what they are to show is there."""
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import grpo
from processes import ROOT, run_example

# arguments for a short run, its run folder, and by how much the reward is to rise in it
EXAMPLES = {
    "custom_dataset.py": (["50"], "custom_dataset-1", 0.3),
    "custom_reward.py": (["25"], "digits-1", 0.5),
    "digits.py": (["20", "28"], "digits-1", 0.2),
    "inside_a_step.py": (["20"], "grpo-1", 0.5),
    "own_images.py": (["60"], "own_images-1", 0.2),
    "sft_then_grpo.py": (["15"], "grpo-1", 0.2),
    "trl_port.py": (["30"], "trl_port", 0.1),
}


def rewards(run):
    return [record["reward"]
            for line in (run / "metrics.jsonl").read_text().splitlines() if "reward" in (record := json.loads(line))]


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_learns(name, tmp_path):
    arguments, run, rise = EXAMPLES[name]
    run_example(ROOT / "examples" / name, arguments, tmp_path)
    seen = rewards(tmp_path / "runs" / run)
    assert sum(seen[-3:]) / 3 > sum(seen[:3]) / 3 + rise


def test_every_example_is_tested():
    assert sorted([*EXAMPLES, "gsm8k.py"]) == sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def test_inside_a_step_shows_equal_log_probs(tmp_path):
    lines = run_example(ROOT / "examples" / "inside_a_step.py", ["3"], tmp_path).splitlines()
    assert ([re.search(r"sampler - training (\S+)", line)[1] for line in lines if "sampler - training" in line]
            == ["0.0"] * 3)


def test_custom_dataset_from_a_file(tmp_path):
    (tmp_path / "words.csv").write_text("asked,letters\n"
                                        + "".join(f"{c}{c}:,{c}\n" for c in "abcdefghijklmnopqrstuvwxyz"))
    printed = run_example(ROOT / "examples" / "custom_dataset.py", ["1", "words.csv"], tmp_path)
    assert re.search(r"(\d+) rows to train on, the first: \{'prompt': '..:', 'answer': '.'\}; (\d+) held out", printed)


def test_gsm8k_example(tmp_path):
    """Two steps of a random model, which is not to learn anything; all five rewards are there before and after."""
    for split in ("train", "test"):
        rows = [{"question": f"{split}: {i} and {i}?", "answer": f"<<{i}+{i}={2 * i}>>together\n#### {2 * i}"}
                for i in range(6)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    grpo.load(grpo.tiny(hidden_size=64, num_hidden_layers=1, num_attention_heads=2,
                        num_key_value_heads=1)).save_pretrained(tmp_path / "model")
    printed = run_example(ROOT / "examples" / "gsm8k.py", ["2", "model", "."], tmp_path)
    found = re.findall(r"^(\w+) +on 6 problems of the test split: [0-9.]+ before, [0-9.]+ after$", printed, re.M)
    assert (found == ["correctness_reward", "integer_reward", "strict_format_reward", "soft_format_reward",
                      "xml_tags_reward"])


def test_readme_data_set_of_your_own(tmp_path):
    """The README's program, from its text; its function also works by name in a file."""
    section = (ROOT / "README.md").read_text().partition("## A data set of your own\n")[2].partition("\n## ")[0]
    assert len(section.strip().splitlines()) <= 20
    program = section.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "program.py").write_text(program)
    run_example("program.py", [], tmp_path)
    assert len(rewards(tmp_path / "runs" / "grpo-1")) == 5
    (tmp_path / "parity.py").write_text(program.partition("\n\nrows")[0])
    assert grpo.datasets.load(f"{tmp_path}/parity.py:parity", "test", validation=0.1)


def test_readme_images(tmp_path):
    """The README's program, from its text."""
    section = (ROOT / "README.md").read_text().partition("## Images\n")[2].partition("\n## ")[0]
    (tmp_path / "program.py").write_text(section.partition("```python\n")[2].partition("```")[0])
    run_example("program.py", [], tmp_path)
    assert len(rewards(tmp_path / "runs" / "grpo-1")) == 3


def test_readme_your_own_images(tmp_path):
    """The README's commands, from its text, in a fresh folder."""
    section = (ROOT / "README.md").read_text().partition("## Your own images\n")[2].partition("\n## ")[0]
    names = f'python() {{ {sys.executable} "$@"; }}\ngrpo() {{ python -m grpo "$@"; }}\n'
    commands = section.partition("```sh\n")[2].partition("```")[0]
    path = os.pathsep.join([str(Path(grpo.__file__).parents[1]), *filter(None, sys.path)])
    done = subprocess.run(["bash", "-euc", names + commands], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [len(rewards(tmp_path / "runs" / run)) for run in ("folder-1", "table-1")] == [3, 3]
    evaluated, = (tmp_path / "runs" / "folder-1" / "eval").glob("step-3-*")
    assert {"report.html", "report.pdf", "confusion-report.png", "images",
            "nearest_class_mean.json"} <= set(os.listdir(evaluated))
    assert "By class (gold answer)" in done.stdout and "nearest class mean" in done.stdout


def run_notebook(notebook, folder, monkeypatch, **smaller):
    """The names that a notebook leaves, run from top to bottom in a folder of its own, and what it displayed: pictures
    by their files. smaller: names of its first cell with other values than those that it gives them."""
    shown: list = []
    display = types.ModuleType("IPython.display")            # what a notebook shows is kept here instead
    display.Image, display.display, display.clear_output = (lambda filename, **options: Path(filename), shown.append,
                                                            lambda **options: None)
    display.IFrame = lambda src, **options: shown.append(Path(src))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(folder)
    names: dict = {}
    for number, cell in enumerate(cells(notebook)):
        exec(compile("".join(cell["source"]), f"{notebook}, code cell {number}", "exec"), names)
        if number == 0:
            assert names.keys() >= smaller.keys()
            names |= smaller
    return names, shown


def cells(notebook):
    """The code cells."""
    content = json.loads((ROOT / "notebooks" / notebook).read_text())
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb")))
def test_notebook_is_stripped(notebook):
    assert (cells(notebook)
            and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(notebook)))


def test_quickstart_notebook(tmp_path, monkeypatch):
    names, shown = run_notebook("quickstart.ipynb", tmp_path, monkeypatch)
    assert ({path.stem for path in shown} == {"reward", "kl", "lengths", "speed", "up_and_down"}
            and all(path.exists() for path in shown))
    for run in ("upwards-1", "downwards-1"):                 # from undecided to the way that is rewarded
        records = [json.loads(line) for line in (tmp_path / "runs" / run / "metrics.jsonl").read_text().splitlines()]
        greedy = [record["eval_reward"] for record in records if "eval_reward" in record]
        assert greedy[0] < 0.7 and greedy[-1] > 0.85
    assert all((a == out.logprobs).all() for a, out in zip(names["logps"], names["outs"], strict=True))


def test_swap_rewards_notebook(tmp_path, monkeypatch):
    names, _ = run_notebook("swap_rewards.ipynb", tmp_path, monkeypatch)
    wanted, varied = ([step.metrics[f"rewards/{name}/mean"] for step in names["seen"]] for name in ("wanted", "varied"))
    (_, _), (vowels, _), (weighted, _) = names["edits"]
    assert wanted[0] < 0.3 and wanted[vowels - 1] > 0.8      # the first wish is learned,
    assert wanted[vowels] < wanted[vowels - 1] - 0.4         # the edit counts at the very next step,
    assert wanted[weighted - 1] > 0.8                        # and the second wish is learned in its turn
    assert varied[-1] > varied[weighted - 1] + 0.2
    assert len(names["seen"]) == names["config"].max_steps == names["trainer"].state.global_step


def test_digits_notebook(tmp_path, monkeypatch, capsys):
    """On digits that fill their picture, which are soon read: GRPO makes a careless reader a careful one."""
    names, shown = run_notebook("digits.ipynb", tmp_path, monkeypatch, CANVAS=28, WARM_UP=(60, 5, 30), STEPS=16)
    first, last = (names[name]["metrics"]["accuracy/strict"] for name in ("before", "after"))
    assert first < 0.6 and last > first + 0.2
    assert len(shown) == 2 and len(names["pictures"]) == 3           # curves, and where three answers look
    assert "pass@4" in capsys.readouterr().out
    assert [record["row"] for record, _ in names["pairs"]] == list(range(6))
    assert all(reward in (0.0, 1.0) for group in names["given"] for reward in group)


def test_flowers_notebook(tmp_path, monkeypatch, capsys):
    """On the flowers that it draws."""
    names, shown = run_notebook("flowers_vlm.ipynb", tmp_path, monkeypatch, WARM_UP=40, STEPS=4)
    assert names["FOLDER"] == Path("flowers_drawn") and len(names["held_out"]) == 6 * 20
    assert names["untrained"].classes == 6 and names["after"]["metrics"]["accuracy/strict"] > 0.3
    files = [path for path in shown if isinstance(path, Path)]
    assert ([path.name for path in files] == ["confusion-step-000004.png", "step-000004.html"]
            and all(path.exists() for path in files))
    printed = capsys.readouterr().out
    assert "class_name_reward          2.00" in printed and "Qwen/Qwen2.5-VL-3B-Instruct on cuda" in printed
