"""Which checkpoint a run goes on from, and which options may have changed since."""
import functools
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, CheckpointMismatchError, ConfigError, warn
from ..options import TrainingConfig
from ..runs import CHECKPOINTS, checkpoint, run_to_resume

# options that a resumed run may change without becoming another run
FREE_TO_CHANGE = frozenset("""
    device disable_tqdm dtype eval_category eval_on_start eval_report eval_steps eval_strategy greater_is_better
    keep_rollout_activations load_best_model_at_end log_completions log_unique_prompts logging_first_step
    logging_steps max_steps metric_for_best_model model_init_kwargs num_completions_to_print num_generations_eval
    num_train_epochs output_dir recompute report_to resume_from_checkpoint run_name save_completions save_minutes
    save_only_model save_steps save_strategy save_total_limit slots temperature_eval token_budget
""".split())


def checkpoint_of(resume: str | bool, output_dir: str | None) -> Path:
    """The whole checkpoint that resume means: itself, or the latest of a run folder; True: of output_dir."""
    given = output_dir if isinstance(resume, bool) else resume
    if given is None:
        raise ConfigError("resume_from_checkpoint=True needs output_dir, the folder of the run")
    folder = run_to_resume(given) if resume is True else Path(given)
    if resume is not True and not (folder / CHECKPOINTS).is_dir():
        checkpoint.verify(folder)
        return folder
    latest = checkpoint.latest(folder / CHECKPOINTS)
    if latest is None:
        raise CheckpointError(f"{folder} has no checkpoint to resume")
    return latest


def compare_options(folder: Path, saved: dict[str, Any], args: TrainingConfig) -> None:
    """CheckpointMismatchError for another seed than that of the checkpoint in folder, a warning of other options that
    change the run."""
    now = json.loads(json.dumps(args.options()))       # as it was saved: without tuples and integer keys
    if now.get("seed") != saved.get("seed"):
        raise CheckpointMismatchError(f"{folder}: seed is {saved.get('seed')} there and {now['seed']} here; the run "
                                      "would not be the same")
    changed = [f"{name}: {saved[name]} -> {value}" for name, value in now.items()
               if name in saved and saved[name] != value and name not in FREE_TO_CHANGE]
    if changed:
        warn(f"{folder}: resumed with other options ({'; '.join(changed)})")


def compare_rows(folder: Path, saved: Any, now: str | None) -> None:
    """CheckpointMismatchError where the checkpoint in folder was made with other rows: hashes of them, None where that
    is not known."""
    if saved is not None and now is not None and saved != now:
        raise CheckpointMismatchError(f"{folder}: the run was trained on other rows than those of train_dataset, "
                                      "though as many; give it the data of that run, or begin a new run with the "
                                      "checkpoint as its model")


def compare_rewards(folder: Path, saved: Any, now: Mapping[str, str | None]) -> None:
    """A warning where the checkpoint in folder was made with other rewards, or with other code of them: a hash of each
    by name, None where that is not known."""
    if not isinstance(saved, Mapping):
        return
    if list(saved) != list(now):
        warn(f"{folder}: resumed with other rewards ({', '.join(map(str, saved))} -> {', '.join(now)})")
    changed = [name for name, code in now.items() if code and saved.get(name) and saved[name] != code]
    if changed:
        warn(f"{folder}: the code of {', '.join(changed)} has changed since; the run goes on with the rewards as they "
             "are now")


def code_of(function: Any) -> str | None:
    """A hash of a function's code, or of its class's; None where there is no source."""
    while isinstance(function, functools.partial):
        function = function.func
    owner = getattr(function, "__self__", None)
    if owner is None and not inspect.isroutine(function):
        owner = function
    try:
        source = inspect.getsource(function if owner is None else type(owner))
    except (OSError, TypeError):
        return None
    return hashlib.sha256(source.encode(errors="surrogatepass")).hexdigest()


def compare_backends(folder: Path, saved: Sequence[str] | None, now: Sequence[str]) -> None:
    """A warning where the checkpoint in folder was made by other kernels than those that go on from it: (device,
    tier), or None where that is not known."""
    if saved is not None and list(saved) != list(now):
        warn(f"{folder} was made on {' '.join(saved)}, this is {' '.join(now)}: the run goes on with other bits than "
             "it would have there")
