"""examples/trl_port.py is a script for TRL: but for its import and the type of its data set it runs there too."""
import re

import pytest
from test_examples import ROOT, run_example

pytest.importorskip("datasets")


@pytest.mark.oracle
@pytest.mark.parametrize("library", ["grpo", "trl"])
def test_one_script_for_both(library, tmp_path):
    pytest.importorskip(library)
    text = (ROOT / "examples" / "trl_port.py").read_text()
    for pattern, replacement in ((r"^from grpo import (GRPOConfig, GRPOTrainer)$", rf"from {library} import \1"),
                                 (r"^dataset = (.*)$", r"from datasets import Dataset\ndataset = Dataset.from_list(\1)")):
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        assert count == 1
    (tmp_path / "script.py").write_text(text)
    assert "TrainOutput(global_step=1," in run_example(tmp_path / "script.py", ["1"], tmp_path)
