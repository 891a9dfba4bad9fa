"""How much memory a run will hold, from a config file and the options: what the core allocates, nothing loaded. (Its
time: step_time.py.)"""
import functools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import _core
from ..errors import ConfigError, OutOfMemoryError
from ..model import gpu_memory, spec_of
from ..options import GRPOConfig, SFTConfig, TrainingConfig
from ..vision import Processor

STORED = "stored activations of rollouts"      # an arena of the core's plan
STORED_SHARE = 4                              # of the free memory, one part in so many
UNKNOWN_PROMPT = 256                          # tokens of text assumed of a prompt where the options do not limit it
UNKNOWN_IMAGE = 512                           # height and width assumed of an image where they do not
HOST = ("pixels of images", "features of images", "kept features of images")       # arenas of the host's memory


@dataclass(frozen=True)
class Shown:
    """What a prompt shows a model that sees: tokens of its images together, and how many these are. assumed: the data
    are not known."""

    tokens: int = 0
    images: int = 0
    assumed: bool = False

    @classmethod
    def most(cls, prompts: Iterable[tuple[int, int]]) -> "Shown":
        """Of prompts of which each has (tokens of images, images): the most of either."""
        known = [(tokens, images) for tokens, images in prompts if images]
        return cls(max((tokens for tokens, _ in known), default=0), max((images for _, images in known), default=0))

    def __str__(self) -> str:
        some = "an image" if self.images == 1 else f"{self.images} images"
        return f"{some} of {self.tokens} tokens{' together' if self.images > 1 else ''}" \
            + (" assumed" if self.assumed else "")


@dataclass(frozen=True)
class Plan:
    """arenas: (what, bytes), as the core reserves them. available: free memory in bytes, None where it cannot be told.
    store_rows: most rows of activations that rollouts leave for the update. host, host_available: the same of the
    host's memory, where a GPU has its own."""

    title: str
    arenas: list[tuple[str, int]]
    available: int | None
    advice: list[str]
    store_rows: int
    where: str = "here"
    host: list[tuple[str, int]] = field(default_factory=list)
    host_available: int | None = None

    @property
    def total(self) -> int:
        """Bytes of all arenas."""
        return sum(size for _, size in self.arenas)

    @property
    def host_total(self) -> int:
        """Bytes of the host's."""
        return sum(size for _, size in self.host)

    @property
    def fits(self) -> bool:
        """Whether they fit into what is free; True where that cannot be told."""
        return ((self.available is None or self.total <= self.available)
                and (self.host_available is None or self.host_total <= self.host_available))


def training_plan(config: Mapping[str, Any], source: str, options: TrainingConfig, device: str,
                  held: Collection[str] = (), memory: int | None = None, shown: Shown | None = None) -> Plan:
    """What training a model of this config will hold on a device. held: arenas that are there already, and so not part
    of what is free (on a GPU all of its memory counts). memory: bytes of a GPU that is not here. shown: by the data,
    where they are known."""
    spec = spec_of(config, source)
    shown = shown_by(config, source, options) if shown is None else shown
    work = step_of(options, device, shown)
    arenas = functools.partial(_core.plan, spec=spec, **work, token_budget=options.token_budget_on(device),
                               recompute=options.recompute, moment_dtype=options.moment_dtype,
                               master_dtype=options.master_dtype, train=True, device=device)
    sizes = dict(arenas(store_rows=0))
    free = memory if memory is not None else gpu_memory() if device == "cuda" else available_memory()
    if device != "cuda" and free is not None:
        free += sum(sizes.get(name, 0) for name in held)
    store_rows = 0
    if isinstance(options, GRPOConfig):
        store_rows = rows_to_store(options, device, dict(arenas(store_rows=1))[STORED], free, sum(sizes.values()))
        sizes = dict(arenas(store_rows=min(store_rows, rollout_rows(options, work["prompt_length"]))))
    there = HOST if device == "cuda" else ()             # elsewhere the device's memory is the host's
    lists = [sorted(((name, size) for name, size in sizes.items() if (name in there) == host),
                    key=lambda arena: -arena[1]) for host in (False, True)]
    return Plan(f"{source} on {device}: {describe(options, work, device, shown)}", lists[0], free,
                ways_to_shrink(options, device, sizes, work, pixels_of(config, source, shown)), store_rows,
                "here" if memory is None else "on that card", lists[1],
                available_memory() if lists[1] and memory is None else None)


def require(plan: Plan) -> None:
    """OutOfMemoryError with the whole table where the plan does not fit."""
    if not plan.fits:
        raise OutOfMemoryError(f"this run does not fit into memory.\n{table(plan)}")


def shown_by(config: Mapping[str, Any], source: str, options: TrainingConfig) -> Shown:
    """What a prompt is taken to show before the data are there: one image, of max_pixels where the options have it,
    else of 512 x 512 pixels as the model sees it; no more than prompts have room for."""
    processor = processor_of(config, source)
    if processor is None:
        return Shown()
    processor = processor.with_limits(options.min_pixels, options.max_pixels)
    tokens = processor.tokens(UNKNOWN_IMAGE, UNKNOWN_IMAGE)
    if options.max_pixels is not None:
        tokens = max(1, options.max_pixels // (processor.patch_size * processor.merge_size)**2)
    room = options.max_length - 1 if isinstance(options, SFTConfig) else getattr(options, "max_prompt_length", None)
    return Shown(min(tokens, room or tokens), 1, assumed=True)


def processor_of(config: Mapping[str, Any], source: str) -> Processor | None:
    """How a model sees images, by the file beside its config.json; without one as its family does. None: it sees
    none."""
    vision = spec_of(config, source).vision
    if vision is None:
        return None
    if (Path(source) / "config.json").is_file():
        return Processor.read(source, config)
    if vision.grid_side:                                 # images of one size, of which the config says all
        return Processor.read(None, config)
    return replace(Processor.of(config["model_type"]), patch_size=vision.patch_shape[2],
                   temporal_patch_size=vision.patch_shape[1], merge_size=vision.side)


def pixels_of(config: Mapping[str, Any], source: str, shown: Shown) -> int:
    """Of the images of a prompt together, as the model sees them."""
    vision = spec_of(config, source).vision
    if vision is None:
        return 0
    patches = shown.images * vision.grid_side**2 if vision.grid_side else shown.tokens * vision.side**2
    return patches * vision.patch_shape[2] * vision.patch_shape[3]


def step_of(options: TrainingConfig, device: str, shown: Shown) -> dict[str, Any]:
    """The largest optimiser step, and what rolls out, in the words of the core's plan."""
    still = options.train_vision == "none"
    work = {"image_tokens": shown.tokens, "images": shown.images, "train_vision": options.train_vision}
    if isinstance(options, SFTConfig):
        return {"step_prompts": options.batch_size, "num_generations": 1, "prompt_length": 1,
                "max_new_tokens": options.max_length, "rollout_prompts": 0, "slots": 0, "reference": False,
                "mixed": False, "scored": options.evaluates, "seen_prompts": options.batch_size,
                "image_cache": cache_bytes(options) if still else 0, **work}
    assert isinstance(options, GRPOConfig)
    slots, prompts = options.slots_on(device), options.prompts_per_rollout
    rounds = 1 + (options.max_resample_times if options.dynamic_sampling else 0)
    return {"step_prompts": -(-options.batch_size // options.num_generations),
            "num_generations": options.num_generations,
            "prompt_length": options.max_prompt_length or UNKNOWN_PROMPT + shown.tokens,
            "max_new_tokens": options.max_completion_length,
            "rollout_prompts": slots if options.evaluates else prompts,
            "slots": slots if options.evaluates else min(slots, options.rollout_size),
            "reference": options.beta > 0, "mixed": options.sync_ref_model,
            "scored": options.top_entropy_quantile < 1 or options.replay_buffer_size > 0,
            "seen_prompts": max(prompts * rounds, slots if options.evaluates else 0),
            "image_cache": cache_bytes(options) if still or options.beta > 0 else 0, **work}


def cache_bytes(options: TrainingConfig) -> int:
    """Most bytes of features that are kept."""
    return int(options.image_cache_gb * 1e9)


def rollout_rows(options: GRPOConfig, prompt: int) -> int:
    """Most rows of activations that a rollout can have: the last token of a completion is not run."""
    return options.prompts_per_rollout * prompt + options.rollout_size * (options.max_completion_length - 1)


def describe(options: TrainingConfig, work: Mapping[str, Any], device: str, shown: Shown) -> str:
    """The step in words: batch, lengths in tokens, images, micro-batches."""
    budget = f"{options.token_budget_on(device)} tokens a micro-batch"
    images = f", {shown} in each" if shown.images else ""
    if isinstance(options, SFTConfig):
        return f"{options.batch_size} rows of at most {options.max_length} tokens a step{images}, {budget}"
    assert isinstance(options, GRPOConfig)
    assumed = "" if options.max_prompt_length else " assumed"
    return (f"{options.describe_batch()}; prompts of {work['prompt_length']} tokens{assumed}{images}, completions of "
            f"{options.max_completion_length}, {work['slots']} decoded at a time, {budget}")


def rows_to_store(options: GRPOConfig, device: str, row_bytes: int, free: int | None, needed: int) -> int:
    """Most rows of activations that rollouts leave for the update: what keep_rollout_activations says. By default no
    more than a part of the free memory, and than is left of it beside the bytes that are needed anyway."""
    if options.keep_rollout_activations is not None:
        return 1 << 30 if options.keep_rollout_activations else 0
    if free is None or device != "cpu" or options.rollout_size != options.batch_size:
        return 0
    return max(0, min(free // STORED_SHARE, free - needed)) // row_bytes


def ways_to_shrink(options: TrainingConfig, device: str, arenas: Collection[str], work: Mapping[str, Any],
                   pixels: int) -> list[str]:
    """What would make one of the arenas smaller, ways that change no result first. A micro-batch has a whole group at
    least. pixels: of the images of a prompt."""
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
    if "kept features of images" in arenas:
        ways.append(f"--image_cache_gb {options.image_cache_gb / 4:g} keeps the features of fewer images; same "
                    "results, some are made again")
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
    if options.train_vision != "none":
        fewer = "merger" if options.train_vision == "all" else "none"
        ways.append(f"--train_vision {fewer} trains {'its mergers alone' if fewer == 'merger' else 'nothing'} of the "
                    "vision tower, and what is learned is another thing")
    if pixels:
        ways.append(f"--max_pixels {max(1, pixels // (2 * work['images']))} shows images in fewer tokens, and less of "
                    "them")
    if "reference weights" in arenas:
        ways.append("--beta 0 needs no reference model; the KL term is gone")
    if "KV cache of the rollout" in arenas and isinstance(options, GRPOConfig):
        ways.append(f"--max_completion_length {max(1, options.max_completion_length // 2)} makes completions shorter, "
                    "and what is learned another thing")
    return ways


def model_config(model: str | Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
    """(config, its name) of a recipe's model. A folder's config.json or a .gguf's header is read, and weights
    only where a tied model has a head beside its embedding: whether they differ."""
    from ..model import resolve, tiny
    from ..model.families import known_words
    from ..model.folders import model_in
    from ..model.tensor_names import as_stored
    from ..runs import latest_model

    if model is None:
        raise ConfigError("no model: give --model with a folder, a .gguf file or a hub id")
    if isinstance(model, Mapping):
        return tiny(**model).config, "a tiny model"
    path = model_in(resolve(latest_model(model), ["*.json"]))
    if path.suffix == ".gguf":
        from ..model import GgufFile

        file = GgufFile(path)
        try:
            return file.config, str(path)
        finally:
            file.close()
    from ..model import read_object

    return as_stored(path, dict(known_words(read_object(path / "config.json"), str(path / "config.json")))), str(path)


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
    lines = [plan.title, "", *rows(plan.arenas, plan.total)]
    if plan.host:
        lines += ["", "In the host's memory:", "", *rows(plan.host, plan.host_total)]
    if plan.available is not None:
        lines += ["", verdict(plan.available, plan.where, plan.total)]
    if plan.host_available is not None:
        lines += [verdict(plan.host_available, "in the host's memory", plan.host_total)]
    if not plan.fits:
        lines += ["To shrink it:", *(f"  {way}" for way in plan.advice)]
    return "\n".join(lines)


def rows(arenas: list[tuple[str, int]], total: int) -> list[str]:
    """A line an arena, and one for all."""
    return [*(f"  {name:<30} {human(size):>10}  {size / total:5.1%}" for name, size in arenas),
            f"  {'all':<30} {human(total):>10}"]


def verdict(available: int, where: str, total: int) -> str:
    """Whether so much fits into what is free."""
    return f"{human(available)} are free {where}: it {'fits' if total <= available else 'does not fit'}."


def human(size: int) -> str:
    """Bytes in words: 1.5 GB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"
