"""grpo convert: PyTorch's pickles to safetensors."""
from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .parser import Parser

if TYPE_CHECKING:
    from ..model.convert import Shard

ABOUT = """Writes a model whose weights are PyTorch pickles (pytorch_model*.bin, .pt, .pth)
as safetensors, from which models are loaded: every tensor under its name and
bit for bit, with the config, tokenizer and processor files beside it.

A pickle can hold a program that runs when PyTorch opens it. Here none runs:
tensors are read, anything else in the file is refused by its name.

  grpo convert Qwen-VL-Chat qwen-vl-chat
  grpo convert old/pytorch_model.bin weights      only the tensors"""


def main(argv: list[str], prog: str = "grpo convert") -> None:
    """`grpo convert`: writes a folder; prints each file as it is done, what was copied and what was not."""
    from tqdm import tqdm

    from ..model.convert import FILES, convert, look_at
    from ..model.hub import resolve

    parser = Parser(prog=prog, description=ABOUT)
    parser.add_argument("source", metavar="SRC", help="a folder, a .bin or .pt file, or a hub id")
    parser.add_argument("destination", metavar="DEST", help="a folder that is new or empty")
    arguments = parser.parse(argv)
    source, destination = resolve(arguments.source, FILES), Path(arguments.destination).expanduser()
    size = sum(path.stat().st_size for path in look_at(source).pickles)
    shards: list[Shard] = []

    def done(shard: Shard) -> None:
        shards.append(shard)
        bar.clear()
        print("\n".join(lines_of(shard)), flush=True)

    with tqdm(total=size, unit="B", unit_scale=True, file=sys.stderr, disable=None, leave=False, ncols=79) as bar:
        found = convert(source, destination, done=done, wrote=bar.update)
    from ..planning import human

    count, total = sum(len(shard.tensors) for shard in shards), sum(shard.bytes for shard in shards)
    print(f"{count} tensors, {human(total)}, are in {destination}")
    print(folded("copied: " + (", ".join(path.name for path in found.copied) or "nothing")))
    if found.left:
        print(folded("not copied: " + ", ".join(found.left)))


def lines_of(shard: Shard) -> list[str]:
    """What became of a file."""
    from ..planning import human

    lines = [shard.source, f"  -> {shard.target}: {len(shard.tensors)} tensors, {human(shard.bytes)}"]
    if shard.inside is not None:
        lines.append(folded(f"the tensors are those of {shard.inside!r}", "  "))
    if shard.left_out:
        lines.append(folded("left out, no tensors: " + listed(f"{name} ({kind})" for name, kind in
                                                              shard.left_out.items()), "  "))
    if shard.shared:
        lines.append(folded("written twice, since they were one: "
                            + listed(f"{name} = {first}" for name, first in shard.shared.items()), "  "))
    return lines


def listed(names: Iterable[str], most: int = 20) -> str:
    """The names with commas, the first of them where there are many."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def folded(text: str, indent: str = "") -> str:
    """Lines of at most 80 columns."""
    return textwrap.fill(text, 80, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False)
