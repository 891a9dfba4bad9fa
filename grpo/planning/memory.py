"""How much memory a run will hold, from a config file and the options: what the core allocates, nothing loaded. (Its
time: step_time.py.)"""
import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .. import _core
from ..errors import ConfigError, FileFormatError, OutOfMemoryError
from ..model import gpu_memory, spec_of
from ..options import GRPOConfig, SFTConfig, TrainingConfig

STORED = "stored activations of rollouts"      # an arena of the core's plan
STORED_SHARE = 4                              # of the free memory, one part in so many
UNKNOWN_PROMPT = 256                          # prompt tokens assumed where the options do not limit them


@dataclass(frozen=True)
class Plan:
    """arenas: (what, bytes), as the core reserves them. available: free memory in bytes, None where it cannot be told.
    store_rows: most rows of activations that rollouts leave for the update."""

    title: str
    arenas: list[tuple[str, int]]
    available: int | None
    advice: list[str]
    store_rows: int
    where: str = "here"

    @property
    def total(self) -> int:
        """Bytes of all arenas."""
        return sum(size for _, size in self.arenas)

    @property
    def fits(self) -> bool:
        """Whether they fit into what is free; True where that cannot be told."""
        return self.available is None or self.total <= self.available


def training_plan(config: Mapping[str, Any], source: str, options: TrainingConfig, device: str,
                  held: Collection[str] = (), memory: int | None = None) -> Plan:
    """What training a model of this config will hold on a device. held: arenas that are there already, and so not part
    of what is free (on a GPU all of its memory counts). memory: bytes of a GPU that is not here."""
    work = step_of(options, device)
    arenas = functools.partial(_core.plan, spec=spec_of(config, source), **work,
                               token_budget=options.token_budget_on(device), recompute=options.recompute,
                               moment_dtype=options.moment_dtype, master_dtype=options.master_dtype, train=True,
                               device=device)
    sizes = dict(arenas(store_rows=0))
    free = memory if memory is not None else gpu_memory() if device == "cuda" else available_memory()
    if device != "cuda" and free is not None:
        free += sum(sizes.get(name, 0) for name in held)
    store_rows = 0
    if isinstance(options, GRPOConfig):
        store_rows = rows_to_store(options, device, dict(arenas(store_rows=1))[STORED], free, sum(sizes.values()))
        sizes = dict(arenas(store_rows=min(store_rows, rollout_rows(options, work["prompt_length"]))))
    return Plan(f"{source} on {device}: {describe(options, work, device)}",
                sorted(sizes.items(), key=lambda arena: -arena[1]), free,
                ways_to_shrink(options, device, sizes, work), store_rows, "here" if memory is None else "on that card")


def require(plan: Plan) -> None:
    """OutOfMemoryError with the whole table where the plan does not fit."""
    if not plan.fits:
        raise OutOfMemoryError(f"this run does not fit into memory.\n{table(plan)}")


def step_of(options: TrainingConfig, device: str) -> dict[str, Any]:
    """The largest optimiser step, and what rolls out, in the words of the core's plan."""
    if isinstance(options, SFTConfig):
        return {"step_prompts": options.batch_size, "num_generations": 1, "prompt_length": 1,
                "max_new_tokens": options.max_length, "rollout_prompts": 0, "slots": 0, "reference": False,
                "mixed": False}
    assert isinstance(options, GRPOConfig)
    slots = options.slots_on(device)
    return {"step_prompts": -(-options.batch_size // options.num_generations),
            "num_generations": options.num_generations,
            "prompt_length": options.max_prompt_length or UNKNOWN_PROMPT,
            "max_new_tokens": options.max_completion_length,
            "rollout_prompts": slots if options.evaluates else options.prompts_per_rollout,
            "slots": slots if options.evaluates else min(slots, options.rollout_size),
            "reference": options.beta > 0, "mixed": options.sync_ref_model}


def rollout_rows(options: GRPOConfig, prompt: int) -> int:
    """Most rows of activations that a rollout can have: the last token of a completion is not run."""
    return options.prompts_per_rollout * prompt + options.rollout_size * (options.max_completion_length - 1)


def describe(options: TrainingConfig, work: Mapping[str, Any], device: str) -> str:
    """The step in words: batch, lengths in tokens, micro-batches."""
    budget = f"{options.token_budget_on(device)} tokens a micro-batch"
    if isinstance(options, SFTConfig):
        return f"{options.batch_size} rows of at most {options.max_length} tokens a step, {budget}"
    assert isinstance(options, GRPOConfig)
    assumed = "" if options.max_prompt_length else " assumed"
    return (f"{options.describe_batch()}; prompts of {work['prompt_length']} tokens{assumed}, completions of "
            f"{options.max_completion_length}, {work['slots']} decoded at a time, {budget}")


def rows_to_store(options: GRPOConfig, device: str, row_bytes: int, free: int | None, needed: int) -> int:
    """Most rows of activations that rollouts leave for the update: what keep_rollout_activations says. By default no
    more than a part of the free memory, and than is left of it beside the bytes that are needed anyway."""
    if options.keep_rollout_activations is not None:
        return 1 << 30 if options.keep_rollout_activations else 0
    if free is None or device != "cpu" or options.rollout_size != options.batch_size:
        return 0
    return max(0, min(free // STORED_SHARE, free - needed)) // row_bytes


def ways_to_shrink(options: TrainingConfig, device: str, arenas: Collection[str], work: Mapping[str, Any]) -> list[str]:
    """What would make one of the arenas smaller, ways that change no result first. A micro-batch has a whole group at
    least."""
    ways, slots, budget = [], work["slots"], options.token_budget_on(device)
    least = max(512, work["prompt_length"] + work["num_generations"] * (work["max_new_tokens"] - 1))
    if "activations of the update" in arenas and budget > least:
        ways.append(f"--token_budget {max(least, budget // 4)} makes micro-batches smaller; results stay the same, to "
                    "the bit")
    if "activations of the update" in arenas and not options.recompute:
        ways.append("--recompute stores each layer's input alone and computes the layer again in the backward pass; "
                    "same results, slower")
    if "KV cache of the rollout" in arenas and slots > 1:
        ways.append(f"--slots {max(1, slots // 4)} decodes fewer completions at a time; same results")
    if STORED in arenas:
        ways.append("--keep_rollout_activations false runs the forward pass of the update again; same results")
    if options.moment_dtype == "float32":
        ways.append("--moment_dtype bfloat16 halves AdamW's moments, which are then rounded stochastically; float8 "
                    "takes a quarter")
    if options.moment_dtype == "bfloat16":
        ways.append("--moment_dtype float8 halves AdamW's moments, rounded stochastically to fewer bits")
    if "master bits beyond bfloat16" in arenas and options.master_dtype == "float32":
        ways.append("--master_dtype float24 stores a byte less of each master weight, rounded stochastically to 16 "
                    "significant bits")
    if "reference weights" in arenas:
        ways.append("--beta 0 needs no reference model; the KL term is gone")
    if "KV cache of the rollout" in arenas and isinstance(options, GRPOConfig):
        ways.append(f"--max_completion_length {max(1, options.max_completion_length // 2)} makes completions shorter, "
                    "and what is learned another thing")
    return ways


def model_config(model: str | Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
    """(config, its name) of a recipe's model. A folder's config.json or a .gguf's header is read, no weights."""
    from ..model import resolve, tiny
    from ..runs import latest_model

    if model is None:
        raise ConfigError("no model: give --model with a folder, a .gguf file or a hub id")
    if isinstance(model, Mapping):
        return tiny(**model).config, "a tiny model"
    path = resolve(latest_model(model), ["*.json"])
    if path.suffix == ".gguf":
        from ..model import GgufFile

        file = GgufFile(path)
        try:
            return file.config, str(path)
        finally:
            file.close()
    if not (path / "config.json").is_file():
        raise FileFormatError(f"{path}: a model is a folder with config.json, or a .gguf file")
    from ..model import read_object

    return read_object(path / "config.json"), str(path)


def available_memory() -> int | None:
    """Free memory in bytes: /proc/meminfo's MemAvailable, or what the control group leaves if that is less."""
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            fields = dict(line.split(":") for line in file)
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    limits = []
    for limit, used in (("memory.max", "memory.current"),
                        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        try:
            with open(f"/sys/fs/cgroup/{limit}", "rb") as top, open(f"/sys/fs/cgroup/{used}", "rb") as now:
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
        lines += ["", f"{human(plan.available)} are free {plan.where}: it {verdict}."]
    if not plan.fits:
        lines += ["To shrink it:", *(f"  {way}" for way in plan.advice)]
    return "\n".join(lines)


def human(size: int) -> str:
    """Bytes in words: 1.5 GB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"
