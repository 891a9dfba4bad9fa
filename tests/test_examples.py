"""The examples and the notebook run as they stand, and what they are to show is there."""
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"

# arguments for a short run, its run folder, and by how much the reward is to rise in it
EXAMPLES = {
    "custom_reward.py": (["25"], "digits-1", 0.5),
    "inside_a_step.py": (["20"], "grpo-1", 0.5),
    "sft_then_grpo.py": (["15"], "grpo-1", 0.2),
    "trl_port.py": (["30"], "trl_port", 0.1),
}


def run_example(path, arguments, folder):
    """What the example prints, in a folder of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, path, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rewards(run):
    return [record["reward"] for line in (run / "metrics.jsonl").read_text().splitlines() if "reward" in (record := json.loads(line))]


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_learns(name, tmp_path):
    arguments, run, rise = EXAMPLES[name]
    run_example(ROOT / "examples" / name, arguments, tmp_path)
    seen = rewards(tmp_path / "runs" / run)
    assert sum(seen[-3:]) / 3 > sum(seen[:3]) / 3 + rise


def test_every_example_is_tested():
    assert sorted(EXAMPLES) == sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def test_inside_a_step_shows_equal_log_probs(tmp_path):
    lines = run_example(ROOT / "examples" / "inside_a_step.py", ["3"], tmp_path).splitlines()
    assert [re.search(r"sampler - training (\S+)", line)[1] for line in lines if "sampler - training" in line] == ["0.0"] * 3


@pytest.fixture(scope="module")
def notebook():
    return json.loads(NOTEBOOK.read_text())


def test_notebook_is_stripped(notebook):
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_notebook_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    shown = []
    display = types.ModuleType("IPython.display")            # what a notebook shows is kept here instead
    display.Image, display.display, display.clear_output = lambda filename: Path(filename), shown.append, lambda **options: None
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, cell {number}", "exec"), names)
    assert {path.stem for path in shown} == {"reward", "kl", "lengths", "speed", "up_and_down"} and all(path.exists() for path in shown)
    for run in ("upwards-1", "downwards-1"):                 # from undecided to the way that is rewarded
        records = [json.loads(line) for line in (tmp_path / "runs" / run / "metrics.jsonl").read_text().splitlines()]
        greedy = [record["eval_reward"] for record in records if "eval_reward" in record]
        assert greedy[0] < 0.7 and greedy[-1] > 0.85
    assert all((a == out.logprobs).all() for a, out in zip(names["logps"], names["outs"], strict=True))
