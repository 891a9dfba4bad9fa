"""Programs in a process of their own."""
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def fresh(code):
    """What a new interpreter prints."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{code}"], capture_output=True, text=True,
        check=True
    ).stdout.strip()


def run_example(path, arguments, folder):
    """What the example prints, in a folder of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, path, *arguments], cwd=folder, env=environment, capture_output=True,
                          text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout
