"""How much memory a run will hold, from a config file and the options: what the core allocates, nothing loaded."""
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import _core
from .architectures import core_arguments
from .devices import gpu_memory, pick_device
from .errors import ConfigError, FileFormatError
from .recipes import Recipe

KEPT_SHARE = 4                                # of the free memory, one part in so many
UNKNOWN_PROMPT = 256                          # prompt tokens assumed where the options do not limit them


@dataclass(frozen=True)
class Plan:
    """arenas: (what, bytes), as the core reserves them. available: free memory in bytes, None where it cannot be told."""

    title: str
    arenas: list[tuple[str, int]]
    available: int | None
    advice: list[str]

    @property
    def total(self) -> int:
        return sum(size for _, size in self.arenas)

    @property
    def fits(self) -> bool:
        return self.available is None or self.total <= self.available


def plan(recipe: Recipe) -> Plan:
    """The plan of a recipe. Raises ConfigError or FileFormatError when the model's config is not there."""
    config, source = model_config(recipe.model)
    options = recipe.config()
    device = pick_device(options.device)
    shape = {name: value for name, value in core_arguments(config, source).items() if name not in ("rms_eps", "inv_freq")}
    prompt, budget, slots = options.max_prompt_length or UNKNOWN_PROMPT, options.token_budget_on(device), options.slots_on(device)
    step_rows = options.batch_size // options.num_generations * prompt + options.batch_size * (options.max_completion_length - 1)
    arenas = functools.partial(_core.plan, **shape, token_budget=budget, recompute=options.recompute, slots=slots, prompt_length=prompt,
                               max_new_tokens=options.max_completion_length, train=True, reference=options.beta > 0,
                               moment_dtype=options.moment_dtype, step_rows=step_rows, device=device)
    row_bytes = dict(arenas(keep_rows=1))["kept activations of rollouts"]
    rows = options.prompts_per_rollout * prompt + options.rollout_size * (options.max_completion_length - 1)
    arenas = arenas(keep_rows=min(rows, rows_to_keep(options, device, row_bytes)))
    assumed = "" if options.max_prompt_length else " assumed"
    title = (f"{source} on {device}: {options.describe_batch()}; prompts of {prompt} tokens{assumed}, completions of {options.max_completion_length}, "
             f"{slots} decoded at a time, {budget} tokens a micro-batch")
    return Plan(title, sorted(arenas, key=lambda arena: -arena[1]), available_memory() if device != "cuda" else gpu_memory(), ways_to_shrink(options, budget, slots))


def rows_to_keep(options: Any, device: str, row_bytes: int) -> int:
    """Most rows of activations that rollouts leave for the update: what keep_rollout_activations says."""
    choice = options.keep_rollout_activations
    if choice is None:
        fits = device == "cpu" and not options.recompute and options.rollout_size == options.batch_size
        return (available_memory() or 0) // KEPT_SHARE // row_bytes if fits else 0
    return 1 << 30 if choice else 0


def ways_to_shrink(options: Any, budget: int, slots: int) -> list[str]:
    ways = [f"--token_budget {max(512, budget // 4)} makes micro-batches smaller; results stay the same, to the bit"]
    if not options.recompute:
        ways.append("--recompute keeps fewer activations and computes them again in the backward pass; same results, slower")
    if options.moment_dtype != "bfloat16":
        ways.append("--moment_dtype bfloat16 halves AdamW's moments, which are then rounded stochastically")
    ways.append(f"--slots {max(1, slots // 4)} decodes fewer completions at a time; same results")
    if options.keep_rollout_activations is not False:
        ways.append("--keep_rollout_activations false runs the forward pass of the update again; same results")
    if options.beta:
        ways.append("--beta 0 needs no reference model; the KL term is gone")
    return ways


def model_config(model: str | Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
    """(config, its name) of a recipe's model. A folder's config.json or a .gguf's header is read, no weights."""
    from .hub import resolve
    from .model import tiny
    from .runlog import latest_model

    if model is None:
        raise ConfigError("no model: give --model with a folder, a .gguf file or a hub id")
    if isinstance(model, Mapping):
        return tiny(**model).config, "a tiny model"
    path = resolve(latest_model(model), ["*.json"])
    if path.suffix == ".gguf":
        from .formats.gguf import GgufFile

        file = GgufFile(path)
        try:
            return file.config, str(path)
        finally:
            file.close()
    if not (path / "config.json").is_file():
        raise FileFormatError(f"{path}: a model is a folder with config.json, or a .gguf file")
    from .formats.strict_json import read_object

    return read_object(path / "config.json"), str(path)


def available_memory() -> int | None:
    """Free memory in bytes: /proc/meminfo's MemAvailable, or what the control group leaves if that is less."""
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":") for line in file)
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    limits = []
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        try:
            with open(f"/sys/fs/cgroup/{limit}") as top, open(f"/sys/fs/cgroup/{used}") as now:
                limits.append(int(top.read()) - int(now.read()))
        except (OSError, ValueError):         # no such group, or "max"
            continue
    return max(0, min([free, *limits]))


def table(plan: Plan) -> str:
    """The plan as text."""
    lines = [plan.title, ""]
    lines += [f"  {name:<28} {human(size):>10}  {size / plan.total:5.1%}" for name, size in plan.arenas]
    lines += [f"  {'all':<28} {human(plan.total):>10}"]
    if plan.available is not None:
        verdict = "fits" if plan.fits else "does not fit"
        lines += ["", f"{human(plan.available)} are free here: it {verdict}."]
    if not plan.fits:
        lines += ["To shrink it:", *(f"  {way}" for way in plan.advice)]
    return "\n".join(lines)


def human(size: int) -> str:
    """Bytes in words: 1.5 GB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"
