"""Scripts of the shapes that people write for TRL run with their import changed, and leave what they leave with TRL."""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import grpo
from processes import ROOT

pytestmark = pytest.mark.oracle
pytest.importorskip("trl")
SCRIPTS = {path.stem: path for path in sorted((ROOT / "tests" / "support" / "trl_scripts").glob("*.py"))}
PAGE = ROOT / "docs" / "porting-from-trl.md"
# what TRL itself refuses: rows that are no Dataset of the library datasets
OURS_ALONE = {"reasoning_gym_tasks"}
SIZES = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, intermediate_size=128)
# not here: what the clock says, and the loss on held-out rows, which are sampled and scored alone
ABSENT = re.compile(r".*(runtime|_per_second|step_time|total_flos)$|eval_(clip_ratio/.*|entropy|loss|num_tokens)$")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    grpo.load(grpo.tiny(**SIZES)).save_pretrained(folder)
    return folder


def ported(text):
    """The script with its import changed, and how many lines that took."""
    found = re.sub(r"\bfrom trl\b", "from grpo", text)
    found = re.sub(r"\bimport trl$", "import grpo as trl", found, flags=re.MULTILINE)
    return found, sum(a != b for a, b in zip(text.split("\n"), found.split("\n"), strict=True))


def run(text, folder, model):
    """(what a script prints, its output_dir)"""
    folder.mkdir()
    (folder / "script.py").write_text(text)
    out = folder / "out"
    path = os.pathsep.join([str(Path(grpo.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=600,
                          env=os.environ | {"MODEL": str(model), "OUT": str(out), "PYTHONPATH": path,
                                            "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, out


def logged(out):
    """The names of numbers in the log of a run."""
    states = sorted(out.rglob("trainer_state.json"), key=lambda path: path.stat().st_mtime)
    return {name for entry in json.loads(states[-1].read_text())["log_history"] for name in entry} if states else set()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_of_trl(name, model, tmp_path):
    """Runs to its end, with every name of TRL's log and every file that TRL leaves."""
    text = SCRIPTS[name].read_text()
    said, out = run(ported(text)[0], tmp_path / "ours", model)
    if name in OURS_ALONE:
        return
    theirs, there = run(text, tmp_path / "theirs", model)
    missing = {one for one in logged(there) - logged(out) if not ABSENT.match(one)}
    assert not missing or not logged(there)
    left = {path.name for path in there.glob("*")} if there.exists() else set()
    assert left - {path.name for path in out.glob("*")} <= {"training_args.bin"}
    assert said.strip() and theirs.strip()


def test_flags_of_trls_command(model, tmp_path):
    """`trl grpo` as `grpo train`."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"2 + {i} =", "solution": f"${2 + i}$"}) + "\n" for i in range(4)))
    done = subprocess.run(
        [sys.executable, "-m", "grpo", "train", "--model_name_or_path", model, "--dataset_name", rows, "--reward_funcs",
         "accuracy_reward", "think_format_reward", "--per_device_train_batch_size", "4", "--num_generations", "4",
         "--max_completion_length", "8", "--max_steps", "2", "--output_dir", tmp_path / "out", "--seed", "1",
         "--report_to", "none", "--use_cpu", "--bf16", "false", "--scale_rewards", "none", "--beta", "0.04",
         "--gradient_checkpointing", "--log_completions", "--save_strategy", "no"],
        cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {"rewards/accuracy_reward/mean", "rewards/think_format_reward/mean", "kl"} <= logged(tmp_path / "out")


def table():
    """The rows of docs/porting-from-trl.md."""
    rows = ["| script | lines changed | what it does |", "|---|---|---|"]
    for name, path in SCRIPTS.items():
        text = path.read_text()
        about = text.split('"""')[1].strip().rstrip(".")
        alone = "; TRL 1.16 refuses such rows" if name in OURS_ALONE else ""
        rows.append(f"| [{name}](../tests/support/trl_scripts/{path.name}) | {ported(text)[1]} | {about}{alone} |")
    return "\n".join(rows)


def test_the_page_has_these_scripts():
    """Where one came or changed: PYTHONPATH=.:tests/support python tests/oracle/test_oracle_trl_scripts.py"""
    assert table() in PAGE.read_text()


if __name__ == "__main__":
    page = PAGE.read_text()
    begin = page.index("| script |")
    end = page.index("\n\n", begin)
    PAGE.write_text(page[:begin] + table() + page[end:])
