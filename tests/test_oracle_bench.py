"""The GPU benchmark's script, tried on the CPU with a tiny model: what it will do on a card, but for the speed."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
BENCH = Path(__file__).parent / "bench" / "bench_gpu.py"


@pytest.mark.oracle
@pytest.mark.parametrize("arguments, rows, said", [
    (["--parts", "decode1,training"], 2, ""),
    (["--parts", "step", "--sides", "grpo"], 1, "log-prob difference 0.0"),
    (["--parts", "training", "--seconds", "0"], 0, "No time was left for tiny training (grpo), tiny training (torch)."),
])
def test_the_script_prints_its_table(arguments, rows, said):
    done = subprocess.run([sys.executable, str(BENCH), "--device", "cpu", "--shapes", "tiny", *arguments], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n| tiny |") == rows
    assert "Ceilings: copy" in done.stdout and said in done.stdout
