"""Recipes: a YAML file that says what a run trains, on which data, by which rewards, and which options are not the
default.

    about: one line for the list of recipes; base: a recipe that this one changes (a name, or a file beside this one)
    model: a path, a hub id, or {arch: qwen2, hidden_size: ..., ...}: a tiny model with random weights
    dataset, dataset_kwargs, train_size: what grpo.datasets.load takes
    eval_dataset, eval_dataset_kwargs, eval_size: likewise; None: the test split of dataset
    system_prompt: for rows made of a question
    rewards: names, package.module.function or file.py:function; {name: {argument: value}} where one takes arguments
    eval_funcs: likewise: what evaluation computes besides
    sft: {dataset, dataset_kwargs, ..., options of SFTConfig}: a warm-up before GRPO
    and every option of GRPOConfig

>>> from grpo.recipes import Recipe
>>> Recipe.read("quickstart").change({"max_steps": 5, "dataset_kwargs.digits": 1}).options["max_steps"]
5
"""
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import datasets
from ..errors import ConfigError, did_you_mean
from ..model import pick_device
from ..options import (
    ROUNDS,
    GRPOConfig,
    SFTConfig,
    option_names,
    plain_value,
    read_yaml,
    steps_of_rounds,
    understood,
)
from ..planning import Plan, model_config, training_plan
from .names import DATASETS, OTHER_NAMES, own_changes, replaced_by, reward_names

FOLDER = Path(__file__).parent


@dataclass
class Recipe:
    """What a run is made of. options: those of GRPOConfig that are not the default."""

    name: str = "grpo"
    about: str = ""
    model: str | dict[str, Any] | None = None
    dataset: Any = None
    dataset_kwargs: dict[str, Any] = field(default_factory=dict)
    train_size: int | None = None
    eval_dataset: Any = None
    eval_dataset_kwargs: dict[str, Any] = field(default_factory=dict)
    eval_size: int | None = None
    system_prompt: str | None = None
    rewards: list[Any] = field(default_factory=list)
    eval_funcs: list[Any] = field(default_factory=list)
    sft: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, name_or_path: str, readers: tuple[str, ...] = ()) -> "Recipe":
        """A recipe of this package by name, or a YAML file. readers: the recipes that have it as their base."""
        path = FOLDER / f"{name_or_path}.yaml" if name_or_path in names() else Path(name_or_path)
        if not path.is_file():
            raise ConfigError(f"there is no recipe {name_or_path!r}{did_you_mean(name_or_path, names())} There are "
                              f"{', '.join(names())}; or give a YAML file")
        content = read_yaml(path)
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
            raise ConfigError(f"{path}: a recipe is a mapping of option names to values")
        try:
            return dataclasses.replace(cls.base(content.pop("base", None), path, readers), name=path.stem,
                                       about="").change(content)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    @classmethod
    def base(cls, name: str | None, path: Path, readers: tuple[str, ...]) -> "Recipe":
        """The recipe that the one in path changes: a name, or a file beside path. readers: the bases on the way to
        path."""
        if name is None:
            return cls()
        source = name if name in names() else str(path.parent / str(name))
        if source in readers:
            raise ConfigError(f"base: {name} goes round in a circle")
        return cls.read(source, (*readers, source))

    def change(self, changes: Mapping[str, Any]) -> "Recipe":
        """This recipe with some entries replaced; "dataset_kwargs.digits" replaces one entry of a mapping, and
        "sft.dataset_kwargs.digits" one of a mapping in it, "generation_kwargs.min_p" one of an option."""
        changes = own_changes(changes, self.options)
        parts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        options = {name: value for name, value in self.options.items() if name not in replaced_by(changes)}
        for name, value in changes.items():
            outer, dot, inner = name.partition(".")
            if name in OWN_FIELDS:
                parts[name] = checked(name, value)
            elif dot and outer in MAPPINGS:
                parts[outer] = checked(outer, with_entry(parts[outer], outer, inner, value))
            elif dot and outer in OPTION_MAPPINGS:
                options[outer] = with_entry(options.get(outer), outer, inner, value)
            elif name in OPTION_NAMES:
                options[name] = value
            elif name == "conciseness":
                parts["rewards"] = [*parts["rewards"], *["conciseness"] * bool(value)]
            elif name not in ROUNDS:
                options |= understood({name: value}, [*OWN_FIELDS, *OPTION_NAMES, *OTHER_NAMES])
        options |= steps_of_rounds({name: changes[name] for name in ROUNDS if name in changes}, options, changes)
        if {"eval_steps", "eval_iterations"} & changes.keys():
            options.setdefault("eval_strategy", "steps")
        return Recipe(**{**parts, "options": options})

    def config(self, **changes: Any) -> GRPOConfig:
        """The GRPOConfig, checked."""
        return GRPOConfig(**{**self.options, **changes})

    def sft_config(self, **changes: Any) -> SFTConfig:
        """The warm-up's SFTConfig; seed and bar are the run's unless it says otherwise."""
        inherited = ("seed", "token_budget", "disable_tqdm")
        shared: dict[str, Any] = {name: self.options[name] for name in inherited if name in self.options}
        own: dict[str, Any] = {name: value for name, value in (self.sft or {}).items() if name not in SFT_DATA}
        return SFTConfig(**{**shared, "save_strategy": "no", **own, **changes})

    def load_model(self) -> Any:
        """The model, loaded or built. A tiny model's weights are drawn from the run's seed."""
        from ..model import load, tiny

        config = self.config()
        if self.model is None:
            raise ConfigError("no model: give --model with a folder, a .gguf file or a hub id")
        source = tiny(**{"seed": config.seed, **self.model}) if isinstance(self.model, dict) else self.model
        return load(source, **config.model_options())

    def plan(self) -> Plan:
        """The memory of its run. Raises ConfigError or FileFormatError when the model's config is not there."""
        config, source = model_config(self.model)
        options = self.config()
        return training_plan(config, source, options, pick_device(options.device))

    def train_rows(self) -> list[dict[str, Any]]:
        """Rows to train on. Raises ConfigError without a data set."""
        if self.dataset is None:
            raise no_data()
        return datasets.load(self.dataset, "train", size=self.train_size, system_prompt=self.system_prompt,
                             **self.dataset_kwargs)

    def eval_rows(self) -> list[dict[str, Any]] | None:
        """Rows of evaluation, None when the recipe does not evaluate."""
        return self.held_out_rows() if self.config().evaluates else None

    def held_out_rows(self) -> list[dict[str, Any]]:
        """Those rows in any case."""
        if self.dataset is None and self.eval_dataset is None:
            raise no_data()
        if self.eval_dataset is None:
            kwargs, source, split = {**self.dataset_kwargs, **self.eval_dataset_kwargs}, self.dataset, "test"
        else:
            kwargs, source = self.eval_dataset_kwargs, self.eval_dataset
            split = "test" if datasets.has_splits(source) else "train"
        return datasets.load(source, split, size=self.eval_size, system_prompt=self.system_prompt, **kwargs)

    def sft_rows(self) -> list[dict[str, Any]]:
        """Rows {prompt, completion} of the warm-up."""
        sft = self.sft or {}
        if sft.get("dataset") is None:
            raise ConfigError("sft needs a dataset of rows with prompt and completion")
        kwargs = {**self.shared_with(sft["dataset"]), **sft.get("dataset_kwargs", {})}
        return datasets.load(sft["dataset"], "train", size=sft.get("train_size"), system_prompt=self.system_prompt,
                             **kwargs)

    def shared_with(self, source: Any) -> dict[str, Any]:
        """Where the data lie, {path: ...}, for a source that is the recipe's data set in another form:
        flowers:demonstrations for flowers."""
        same = isinstance(source, str) and isinstance(self.dataset, str) and source.startswith(f"{self.dataset}:")
        return {name: self.dataset_kwargs[name] for name in ("path",) if same and name in self.dataset_kwargs}

    def to_yaml(self) -> str:
        """The recipe as a file that read() takes."""
        import yaml

        parts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "options"}
        said = {name: value for name, value in parts.items()
                if value not in (None, {}, []) and (name, value) != ("about", "")}
        return yaml.safe_dump({**said, **self.options}, sort_keys=False, allow_unicode=True, width=140)


OWN_FIELDS = [f.name for f in dataclasses.fields(Recipe) if f.name != "options"]
OPTION_NAMES = option_names(GRPOConfig)
MAPPINGS = ("model", "dataset_kwargs", "eval_dataset_kwargs", "sft")
# options whose entries are replaced one by one in the same way
OPTION_MAPPINGS = ("chat_template_kwargs", "generation_kwargs", "lr_scheduler_kwargs", "model_init_kwargs")
# arguments of grpo.datasets.load that have a place of their own in a recipe
ELSEWHERE = {"size": "say train_size or eval_size",
             "split": "train rows come from the train split, those of evaluation from test",
             "source": "say dataset", "system_prompt": "say system_prompt, outside of it"}
SFT_DATA = ("dataset", "dataset_kwargs", "train_size")


def with_entry(mapping: Any, name: str, path: str, value: Any) -> dict[str, Any]:
    """A mapping, called name, with one entry replaced; path: its key, or keys with dots between from outer to inner."""
    if not isinstance(mapping or {}, dict):
        raise ConfigError(f"{name}.{path}: {name} is {mapping!r}, which has no entries")
    key, dot, inner = path.partition(".")
    there = mapping or {}
    return {**there, key: with_entry(there.get(key), f"{name}.{key}", inner, value) if dot else value}


def no_data() -> ConfigError:
    """The error for a recipe without a data set."""
    return ConfigError(f"no data: give --dataset with a name ({', '.join(datasets.names())}), a file or folder, "
                       "file.py:function or a hub id")


def names() -> list[str]:
    """The recipes of this package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def checked(name: str, value: Any) -> Any:
    """The value of one of a recipe's own fields, as the type it has."""
    if name in ("rewards", "eval_funcs"):
        if not (value is None or isinstance(value, (str, Mapping, list, tuple)) or callable(value)):
            raise ConfigError(f"{name}={value!r:.80} must be a name, a mapping of a name to its arguments, or a list "
                              "of them")
        return reward_names([value] if isinstance(value, (str, Mapping)) or callable(value) else list(value or []))
    if name in ("train_size", "eval_size") and not (value is None or isinstance(value, int) and value > 0):
        raise ConfigError(f"{name}={value!r} must be a number of rows, at least 1")
    if name.endswith("_kwargs") or name == "sft":
        if value is not None and not (isinstance(value, Mapping) and all(isinstance(key, str) for key in value)):
            raise ConfigError(f"{name}={value!r:.80} must be a mapping of texts to values")
        for option, where in ELSEWHERE.items():
            if name != "sft" and option in (value or {}):
                raise ConfigError(f"{name}.{option}: {where}")
        return None if value is None and name == "sft" else dict(value or {})
    if isinstance(value, str) or name == "model":
        value = plain_value(value, name)
    if isinstance(value, Mapping) and not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{name}={value!r:.80}: names of its entries must be texts")
    if name == "model" and not isinstance(value, (str, Mapping, type(None))):
        raise ConfigError(f"model={value!r} must be a path, a hub id, or sizes of a tiny model")
    if name in ("dataset", "eval_dataset") and isinstance(value, str):
        return DATASETS.get(value, value)
    return value
