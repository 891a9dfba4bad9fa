"""Checkpoints that are whole or not there: written aside, hashed, synced, renamed.

    checkpoints/step-120/  model in Hugging Face layout;  trainer/: master (safetensors, float32), m, v (float32, or
                           bfloat16, which holds float8 too), trainer.json, rollouts.npz when a rollout is still in use,
                           reference.safetensors when the reference moves
                           MANIFEST.json: bytes and sha256 of every file, written last

    checkpoint-120         a link to it beside checkpoints/, where transformers' get_last_checkpoint looks

    checkpoints/best.json  {"step", "metric", "value"} of the checkpoint that evaluation found best

There is no file that points to the latest: it is the highest step whose manifest verifies.
"""
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .. import _core
from ..errors import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointMismatchError,
    ConfigError,
    FileFormatError,
    warn,
)
from ..model import SafetensorsFile, SafetensorsFolder, from_bfloat16_bits, write_weights
from .arrays import open_regular
from .folder import replace_text

MANIFEST, STATE_FOLDER, STATE, BEST = "MANIFEST.json", "trainer", "trainer.json", "best.json"
LINK = "checkpoint-"
FORMAT = 1
ONE_FILE = 1 << 62
MAX_JSON = 16 << 20                          # bytes


def write(parent: Path, step: int, contents: Callable[[Path], None], good: bool = True) -> Path:
    """parent/step-N with what contents(folder) writes. good: False for one that others must not be dropped for. Raises
    CheckpointError; nothing is left behind then."""
    parent.mkdir(parents=True, exist_ok=True)
    temporary, final = parent / f".step-{step}.tmp-{os.getpid()}", parent / f"step-{step}"
    remove_leftovers(parent)
    complete = False
    try:
        temporary.mkdir()
        contents(temporary)
        files = {str(p.relative_to(temporary)): seal(p) for p in sorted(temporary.rglob("*")) if p.is_file()}
        manifest = {"format": FORMAT, "step": step, "good": good, "files": files}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        seal(temporary / MANIFEST)
        for folder in [p for p in temporary.rglob("*") if p.is_dir()] + [temporary]:
            sync_folder(folder)
        complete = True
        if final.exists():                   # a step taken again after a resume
            final.rename(parent / f".step-{step}.old-{os.getpid()}")
        temporary.rename(final)
        sync_folder(parent)
    except OSError as error:
        raise CheckpointError(f"{final}: cannot be written: {error}") from error
    finally:
        if complete and not final.exists():  # interrupted between the two renames
            temporary.rename(final)
        remove_leftovers(parent)
        link(parent)
    return final


def link(parent: Path) -> None:
    """Makes run/checkpoint-N a link to run/checkpoints/step-N for every checkpoint, and takes away the links of those
    that are gone. Where the file system has no links there are none, which is said."""
    run, there = parent.parent, {f"{LINK}{step_of(folder)}": folder for folder in steps(parent)}
    try:
        for path in run.glob(f"{LINK}[0-9]*"):
            if path.is_symlink() and path.name not in there:
                path.unlink()
        for name, folder in there.items():
            if not os.path.lexists(run / name):
                (run / name).symlink_to(Path(parent.name, folder.name))
    except OSError as error:
        warn(f"{run}: no links {LINK}N to its checkpoints can be made ({error.strerror or error}); they are in "
             f"{parent.name}/")


def original(folder: Path) -> Path:
    """The checkpoint that a link stands for; anything else as it is."""
    return folder.parent / os.readlink(folder) if folder.is_symlink() and folder.name.startswith(LINK) else folder


def seal(path: Path) -> dict[str, Any]:
    """Syncs a file to disk and returns its entry of the manifest."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def sync_folder(path: Path) -> None:
    """Waits until a folder's entries are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(parent: Path) -> None:
    """What an interrupted write of this process, or of one that is gone, left behind."""
    for path in parent.glob(".step-*.*-*"):
        owner = path.name.rpartition("-")[2]
        if owner == str(os.getpid()) or not os.path.exists(f"/proc/{owner}"):
            shutil.rmtree(path, ignore_errors=True)


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are all as it says. Raises CheckpointCorruptError naming the file."""
    try:
        manifest = read_json(folder / MANIFEST)
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointCorruptError(f"{folder}: {MANIFEST} is missing or unreadable: {error}") from error
    if manifest.get("format") != FORMAT:
        raise CheckpointMismatchError(f"{folder}: format {manifest.get('format')} is not {FORMAT}, which this version "
                                      "reads")
    for name, (size, digest) in files.items():
        try:
            if not is_inside(name):
                raise ValueError("is not a file of the folder")
            with open_regular(folder / name) as file:
                same = (os.fstat(file.fileno()).st_size == size
                        and hashlib.file_digest(file, "sha256").hexdigest() == digest)
        except (OSError, ValueError) as error:
            raise CheckpointCorruptError(f"{folder / name}: {getattr(error, 'strerror', None) or error}") from error
        if not same:
            raise CheckpointCorruptError(f"{folder / name} differs from the manifest")
    return manifest


def is_inside(name: str) -> bool:
    """Whether a name of a manifest stays in its folder."""
    return not os.path.isabs(name) and ".." not in Path(name).parts


def read_json(path: Path) -> Any:
    """The JSON in a small file of a checkpoint. OSError or ValueError where it is none."""
    with open_regular(path) as file:
        data = file.read(MAX_JSON + 1)
    if len(data) > MAX_JSON:
        raise ValueError(f"larger than the limit of {MAX_JSON} bytes")
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def steps(parent: Path) -> list[Path]:
    """Checkpoint folders, newest first, whole or not."""
    found = [p for p in parent.glob("step-*") if p.name.removeprefix("step-").isdigit()]
    return sorted(found, key=step_of, reverse=True)


def step_of(folder: Path) -> int:
    """The N of a folder step-N."""
    return int(folder.name.removeprefix("step-"))


def latest(parent: Path) -> Path | None:
    """The newest checkpoint that verifies; a GrpoWarning for each one passed over."""
    for folder in steps(parent):
        try:
            verify(folder)
            return folder
        except CheckpointCorruptError as error:
            warn(f"{error}; going back to the checkpoint before it")
    return None


def prune(parent: Path, keep: int | None) -> None:
    """Drops all but the newest, the newest good one and the best. A folder loses its name before its files, so there is
    never half a checkpoint. CheckpointError where one cannot be dropped."""
    spared, found = best(parent), steps(parent)
    good = next((folder for folder in found if is_good(folder)), None) if keep else None
    try:
        for folder in found[keep:] if keep else []:
            if folder != good and (spared is None or step_of(folder) != spared["step"]):
                folder.rename(parent / f".{folder.name}.old-{os.getpid()}")
    except OSError as error:
        raise CheckpointError(f"{parent}: an old checkpoint cannot be dropped: {error.strerror or error}") from error
    finally:
        remove_leftovers(parent)
        link(parent)


def is_good(folder: Path) -> bool:
    """Whether a checkpoint was written after a step that was taken, with weights that are finite."""
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8")).get("good", True) is True
    except (OSError, ValueError, AttributeError):
        return False


def is_finite(core: _core.Model) -> bool:
    """Whether every weight is a number."""
    return all(np.isfinite(core.get_tensor(name)).all() for name, _ in core.tensors())


def best(parent: Path) -> dict[str, Any] | None:
    """{"step", "metric", "value"} of the best checkpoint; None where none was judged, or it is gone."""
    if not (parent / BEST).is_file():
        return None
    try:
        found = read_json(parent / BEST)
        if not is_number(found["value"]) or not is_count(found["step"]):
            raise ValueError("step or value is no number")
        return found if (parent / f"step-{found['step']}").is_dir() else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointCorruptError(f"{parent / BEST} is unreadable: {error}") from error


def write_best(parent: Path, step: int, metric: str, value: float) -> None:
    """Notes which checkpoint is the best, whole or not at all. CheckpointError where the note cannot be written."""
    try:
        replace_text(parent / BEST, json.dumps({"step": step, "metric": metric, "value": value}))
    except OSError as error:
        raise CheckpointError(f"{parent / BEST}: cannot be written: {error.strerror or error}") from error


def load_weights(folder: Path, core: _core.Model, name_in_files: Callable[[str], str] = str) -> None:
    """The model's weights from a verified checkpoint of the same model. name_in_files: of a tensor."""
    verify(folder)
    weights = SafetensorsFolder(folder)
    try:
        shapes = weights.shapes()
        for name, shape in core.tensors():
            if shapes.get(name_in_files(name)) != tuple(shape):
                raise CheckpointMismatchError(f"{folder}: no tensor {name_in_files(name)} of shape {tuple(shape)}")
        for name, _ in core.tensors():
            core.set_tensor(name, weights.read(name_in_files(name)))
    finally:
        weights.close()


# state

def save_tensors(path: Path, tensors: Iterable[tuple[str, tuple[int, ...]]], read: Callable[[str], np.ndarray],
                 dtype: str = "float32") -> None:
    """Tensors that bfloat16 or float32 holds exactly, read one at a time as float32."""
    write_weights(lambda _: open(path, "wb"), list(tensors), read, dtype, ONE_FILE)


def load_tensors(path: Path, tensors: Iterable[tuple[str, tuple[int, ...]]],
                 store: Callable[[str, np.ndarray], None]) -> None:
    """store(name, float32 array) of each; CheckpointMismatchError where what stores them lacks the bits."""
    try:
        file = SafetensorsFile(path)
    except FileFormatError as error:
        raise CheckpointCorruptError(str(error)) from error
    try:
        for name, shape in tensors:
            if name not in file.entries or file.entries[name].shape != tuple(shape):
                raise CheckpointMismatchError(f"{path}: no tensor {name} of shape {tuple(shape)}; the checkpoint "
                                              "belongs to another model")
            array = file.read(name)
            try:
                store(name, from_bfloat16_bits(array) if array.dtype == np.uint16 else array)
            except ConfigError as error:
                saved = "bfloat16" if array.dtype == np.uint16 else "float32"
                option = "master_dtype" if path.stem == "master" else "moment_dtype"
                raise CheckpointMismatchError(f"{path}, {name}: {error}; resume with {option}={saved!r}") from error
    finally:
        file.close()


def save_optimizer(folder: Path, optimizer: _core.Trainer, tensors: list[tuple[str, tuple[int, ...]]]) -> None:
    """Masters and moments into folder, a file each."""
    for kind, dtype in storage(optimizer).items():
        read = functools.partial(optimizer.get_state, kind)
        save_tensors(folder / f"{kind}.safetensors", tensors, read, dtype)


def check_optimizer(folder: Path, optimizer: _core.Trainer, tensors: list[tuple[str, tuple[int, ...]]]) -> None:
    """Raises what load_optimizer would; nothing moves."""
    for kind in storage(optimizer):
        load_tensors(folder / f"{kind}.safetensors", tensors, functools.partial(optimizer.check_state, kind))


def load_optimizer(folder: Path, optimizer: _core.Trainer, tensors: list[tuple[str, tuple[int, ...]]]) -> None:
    """The optimiser's state as it was saved. It fits a wider moment_dtype or master_dtype too; the other way round is a
    CheckpointMismatchError."""
    for kind in storage(optimizer):
        load_tensors(folder / f"{kind}.safetensors", tensors, functools.partial(optimizer.set_state, kind))


def storage(optimizer: _core.Trainer) -> dict[str, str]:
    """The dtype in which each kind of state is saved: bfloat16 holds every number of float8."""
    moments = "float32" if optimizer.moment_dtype == "float32" else "bfloat16"
    return {"master": "float32", "m": moments, "v": moments}


def weights_hash(core: _core.Model) -> str:
    """SHA-256 of a model's names and weights."""
    digest = hashlib.sha256()
    for name, _ in core.tensors():
        digest.update(name.encode() + core.get_tensor(name).tobytes())
    return digest.hexdigest()


def read_state(folder: Path, kind: str) -> dict[str, Any]:
    """trainer.json of a verified checkpoint of this kind of trainer."""
    path = folder / STATE_FOLDER / STATE
    if not path.exists():
        raise CheckpointMismatchError(f"{folder} holds a model without the trainer's state (save_only_model=True); it "
                                      "cannot be resumed")
    try:
        state = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointCorruptError(f"{path}: cannot be read: {error!s:.200}") from error
    if not isinstance(state, dict):
        raise CheckpointCorruptError(f"{path}: holds a {type(state).__name__}, not an object")
    if state.get("kind") != kind:
        raise CheckpointMismatchError(f"{folder} was written by a {str(state.get('kind')):.40} run, this is a {kind} "
                                      "run")
    for name, right in {**OF_EVERY_RUN, **OF_KINDS.get(kind, {})}.items():
        if name not in state or not right(state[name]):
            raise CheckpointCorruptError(f"{path}: {name} is {state.get(name)!r:.80}")
    return state


def is_count(value: Any) -> bool:
    """Whether a value is a number of things, which the core can hold too."""
    return type(value) is int and 0 <= value < 1 << 62


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return type(value) in (int, float) and abs(value) < float("inf")


# What trainer.json must say, and how to tell.
OF_EVERY_RUN: dict[str, Callable[[Any], bool]] = {
    "step": is_count, "epoch": is_number, "adam_steps": is_count, "num_input_tokens_seen": is_count,
    "skipped": is_count, "config": lambda value: isinstance(value, dict), "position": is_count, "rows": is_count}
OF_KINDS: dict[str, dict[str, Callable[[Any], bool]]] = {"grpo": {
    "rollouts_made": is_count, "used": is_count,
    "reference": lambda value: value is None or isinstance(value, str),
    "entropy_control": lambda value: isinstance(value, list) and len(value) == 2 and all(map(is_number, value))}}
