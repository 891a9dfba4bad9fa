"""grpo export: a model or a run as one .gguf, or as a folder of safetensors."""
import sys
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .convert import folded, listed
from .eval import source_of
from .parser import Parser

ABOUT = """Writes a model, or the model that a run has trained, for other programs: as one
.gguf for llama.cpp and what is built on it, or, where --output does not end in
.gguf, as a folder that transformers and vLLM open.

  grpo export runs/gsm8k-1 --output gsm8k.gguf
  grpo export runs/gsm8k-1 --checkpoint best --output gsm8k.gguf --dtype q8_0
  grpo export model.gguf --output model         a folder of safetensors"""
FOLDER_DTYPES = {"bf16": "bfloat16", "f32": "float32"}


def export_parser(prog: str = "grpo export") -> Parser:
    """The flags of `grpo export`."""
    parser = Parser(prog=prog, description=ABOUT)
    parser.add_argument("model", help="a run folder, a model's folder, a .gguf file or a hub id")
    parser.add_argument("--output", required=True, metavar="FILE.gguf",
                        help="the file, which replaces one of that name, but none that the model is "
                        "read from; or a folder that is new or empty")
    parser.add_argument("--dtype", default="bf16", help="of the matrices: bf16, 2 bytes a weight, which is what models "
                        "are trained in (bf16); f16, 2; q8_0, 1.06; f32, 4")
    parser.add_argument("--checkpoint", "--step", metavar="WHICH", help="of a run: latest, best or a step (latest)")
    parser.add_argument("--name", help="the model's name in the file (the file's own)")
    return parser


def main(argv: list[str], prog: str = "grpo export") -> None:
    """`grpo export`: writes the file or folder and says what is in it."""
    a = export_parser(prog).parse(argv)
    from ..model.export import check_name, kind_of, target_of
    from ..model.paths import path_of

    kind, output = kind_of(a.dtype), path_of(a.output, "--output")
    if output.suffix.lower() == ".gguf":
        target_of(output, what="--output")
        check_name(a.name)
    path_of(a.model, "model")
    source = source_of(a.model, a.checkpoint)[0]
    if output.suffix.lower() == ".gguf":
        target_of(output, [Path(source)], "--output")
        to_file(loaded(source, kind), output, kind, a.name)
        return
    if kind not in FOLDER_DTYPES:
        raise ConfigError(f"--dtype {a.dtype}: a folder is written as {' or '.join(FOLDER_DTYPES)}; for a GGUF "
                          "--output ends in .gguf")
    if a.name is not None:
        raise ConfigError("--name goes into a GGUF; a folder has the name that --output gives it")
    to_folder(loaded(source, kind), output, kind)


def loaded(source: str, kind: str) -> Any:
    """The model, with weights that lose nothing before they are written: bfloat16 where that is what is asked for,
    else float32."""
    from ..model import load

    return load(source, device="cpu" if kind == "bf16" else "ref")


def to_file(model: Any, output: Path, kind: str, name: str | None) -> None:
    """The .gguf, with a bar of the bytes."""
    from tqdm import tqdm

    from ..model.export import export_gguf
    from ..planning import human

    with tqdm(unit="B", unit_scale=True, file=sys.stderr, disable=None, leave=False, ncols=79) as bar:
        done = export_gguf(model, output, kind, name, wrote=bar.update)
    types = ", ".join(f"{count} {each}" for each, count in done.types.items())
    print(f"{done.path}: {human(done.bytes)}, architecture {done.architecture}; tensors: {types}")
    if done.fallen:
        print(folded("F16 in place of Q8_0, rows that are no whole blocks of 32: " + listed(done.fallen)))


def to_folder(model: Any, output: Path, kind: str) -> None:
    """The folder of safetensors."""
    from ..planning import human

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"{output}: is there and not empty; give a folder that is new or empty")
    model.save_pretrained(output, FOLDER_DTYPES[kind])
    files = sorted(path.name for path in output.iterdir())
    print(f"{output}: {human(sum(path.stat().st_size for path in output.iterdir()))}")
    print(folded(listed(files)))
