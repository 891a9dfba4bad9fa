"""What a path that is given as a model means: a folder of Hugging Face files, a .gguf, or the one .gguf in a folder."""
from __future__ import annotations

import re
from pathlib import Path

from ..errors import FileFormatError, note, warn
from .formats.gguf import SHARD, is_gguf
from .formats.safetensors import ADAPTER, ADAPTER_ALONE, INDEX_FILE, SINGLE_FILE, pickle_advice
from .formats.stand_ins import there
from .formats.strict_json import read_object

PICKLES = (".bin", ".pt", ".pth")
ADAPTER_CONFIG = "adapter_config.json"
PROJECTOR = re.compile(r".*mmproj.*\.gguf", re.I)        # the tower of a model that sees, beside its text
PIECE = re.compile(r".*\.gguf(-split-[a-z]+|\.part\d+of\d+|\.\d{2,5})", re.I)    # of a file cut by its bytes


def model_in(path: Path) -> Path:
    """The folder with config.json, or the .gguf, that a file or folder stands for. FileFormatError says what it is
    instead, and what to do."""
    if path.is_dir():
        return _in_folder(path)
    if PIECE.fullmatch(path.name):
        raise FileFormatError(f"{path}: is a piece of a .gguf that was cut by its bytes; join the pieces in their "
                              "order (`cat PIECES > model.gguf`) and give what comes of it")
    if is_gguf(path):
        return path
    if path.suffix in PICKLES:
        raise FileFormatError(f"{path}: {pickle_advice(path.name)}")
    if path.suffix in (".safetensors", ".json"):
        raise FileFormatError(f"{path}: is one file of a model; give the folder that it lies in, {path.parent}")
    raise FileFormatError(f"{path}: a model is a folder (config.json, *.safetensors, tokenizer.json) or a .gguf file")


def adapter_advice(folder: Path) -> str:
    """What a folder of a PEFT adapter is, and what to do with it."""
    config = read_object(folder / ADAPTER_CONFIG)
    base, kind = config.get("base_model_name_or_path"), config.get("peft_type")
    of_base = f" for {base!r:.120}" if isinstance(base, str) and base else ""
    kind = f" ({kind:.40})" if isinstance(kind, str) else ""
    return (f"holds a PEFT adapter{kind}{of_base}, not a model: load the base model, or merge the two with peft: "
            "AutoPeftModelForCausalLM.from_pretrained(FOLDER).merge_and_unload().save_pretrained(NEW_FOLDER), and its "
            "tokenizer")


def _in_folder(folder: Path) -> Path:
    """The folder itself where it has config.json and weights."""
    for name in ("config.json", SINGLE_FILE, INDEX_FILE):
        there(folder / name)
    names = {path.name for path in folder.iterdir() if path.is_file()}
    whole = "config.json" in names and (SINGLE_FILE in names or INDEX_FILE in names)
    if ADAPTER_CONFIG in names:
        if not whole:
            raise FileFormatError(f"{folder}: {adapter_advice(folder)}")
        warn(f"{folder}: has a model and an adapter beside it ({ADAPTER_CONFIG}); the model is loaded, without the "
             "adapter")
    models = sorted(name for name in names if name.lower().endswith(".gguf") and not PROJECTOR.fullmatch(name))
    if whole or not models:
        if "config.json" in names:
            return folder
        raise _no_model(folder, names)
    if pickles := sorted(name for name in names if name.endswith(PICKLES) and "config.json" in names):
        raise FileFormatError(f"{folder}: holds {models[0]} and {pickles[0]}: give the path of the first, or: "
                              f"{pickle_advice(pickles[0])}")
    kinds = {(part[1], part[3]) if (part := SHARD.fullmatch(name)) else name for name in models}
    if len(kinds) > 1:
        listed = ", ".join(f"{name} ({(folder / name).stat().st_size / 1e9:.1f} GB)" for name in models[:20])
        raise FileFormatError(f"{folder}: holds {len(models)} .gguf files: {listed}; give the path of one")
    note(f"{folder}: reading {models[0]}, the only model in it")
    return folder / models[0]


def _no_model(folder: Path, names: set[str]) -> FileFormatError:
    """No config.json and no .gguf."""
    inside = sorted(path.parent.name for path in folder.glob("*/config.json"))
    if inside:
        return FileFormatError(f"{folder}: has no config.json, but folders that do: {', '.join(inside[:10])}; give one "
                               "of them")
    weights = sorted(name for name in names if name.endswith((".safetensors", *PICKLES)))
    if weights == [ADAPTER]:
        return FileFormatError(f"{folder}: {ADAPTER_ALONE}")
    beside = f" beside {weights[0]}" if weights else ""
    return FileFormatError(f"{folder}: has no config.json{beside}, nor a .gguf. A model is a folder (config.json, "
                           "*.safetensors, tokenizer.json) or a .gguf file; of a hub repository of .gguf files "
                           "download one (`hf download ID FILE`) and give its path")
