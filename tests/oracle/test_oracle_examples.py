"""examples/trl_port.py is a script for TRL: but for its import and the type of its data set it runs there too."""
import dataclasses
import re

import pytest

import grpo
import toy
from processes import ROOT, run_example

pytest.importorskip("datasets")
pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("library", ["grpo", "trl"])
def test_one_script_for_both(library, tmp_path):
    pytest.importorskip(library)
    text = (ROOT / "examples" / "trl_port.py").read_text()
    for pattern, replacement in ((r"^from grpo import (GRPOConfig, GRPOTrainer)$", rf"from {library} import \1"),
                                 (r"^dataset = (.*)$",
                                  r"from datasets import Dataset\ndataset = Dataset.from_list(\1)")):
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        assert count == 1
    (tmp_path / "script.py").write_text(text)
    assert "TrainOutput(global_step=1," in run_example(tmp_path / "script.py", ["1"], tmp_path)


@pytest.mark.parametrize("kind", ["GRPOConfig", "SFTConfig"])
def test_every_option_of_trl_is_understood(kind):
    trl = pytest.importorskip("trl")
    defaults = {f.name: f.default_factory() if f.default is dataclasses.MISSING else f.default
                for f in dataclasses.fields(getattr(trl, kind))}
    assert getattr(grpo, kind)(**defaults).recompute == defaults["gradient_checkpointing"]


def test_early_stopping_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    trainer = toy.trainer(tmp_path, lambda completions: [1.0] * len(completions), eval_dataset=toy.ROWS[:1],
                          rows=toy.ROWS[1:], max_steps=9,
                          callbacks=[transformers.EarlyStoppingCallback(2)], eval_strategy="steps", eval_steps=1,
                          eval_report="no",
                          save_strategy="steps", metric_for_best_model="reward", prompts_per_step=1)
    assert trainer.train().global_step == 3 and trainer.state.best_metric == 1
