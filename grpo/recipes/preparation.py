"""Before a run starts: what its recipe names is found and fits together, so that a mistake is said now and not an hour
later."""
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..datasets import XML_SYSTEM_PROMPT, overlap, read_rows
from ..datasets.curriculum import stages
from ..errors import ConfigError, DatasetError, did_you_mean
from ..model.families import spec_of
from ..options import GRPOConfig
from ..planning import model_config
from ..rewards import BY_NAME, Reward, RewardSet, adapt, is_built_in, signature
from ..vision.messages import COLUMNS, is_nothing, shows_images
from .recipe import Recipe

Rows = list[dict[str, Any]]
# what a reward may ask for besides columns of the data (grpo/rewards/adapters.py)
OFFERED = {"prompts", "completions", "completion_ids", "prompt", "completion", "response", "trainer_state", "log_extra",
           "log_metric", "info", "task", "state", *BY_NAME}


@dataclass
class Prepared:
    """What a run needs besides its model."""

    config: GRPOConfig
    rows: Rows
    eval_rows: Rows | None
    demonstrations: Rows
    rewards: list[Reward]
    eval_funcs: list[Reward]


def prepare(recipe: Recipe) -> Prepared:
    """Reads the data and finds the rewards; a recipe without rewards gets those that its data imply. Writes nothing,
    loads no weights. Raises ConfigError or DatasetError that names the entry that is wrong."""
    config = recipe.config()
    check_output_dir(Path(config.output_dir or "runs"))
    rows, eval_rows = recipe.train_rows(), recipe.eval_rows()
    demonstrations = recipe.sft_rows() if recipe.sft and not config.resume_from_checkpoint else []
    for found, name in ((rows, "dataset"), (eval_rows, "eval_dataset"), (demonstrations, "sft.dataset")):
        if found:
            read_rows(found, name, needs=())
    check_sight(recipe, {"dataset": rows, "eval_dataset": eval_rows or [], "sft.dataset": demonstrations})
    for trained in (rows, demonstrations):
        if eval_rows and (message := overlap(trained, eval_rows)):
            raise DatasetError(f"{message}. Evaluate on other rows, or hold some out: --dataset_kwargs.validation 0.1")
    if demonstrations:
        recipe.sft_config()
    recipe.rewards = recipe.rewards or default_rewards(rows)
    rewards = RewardSet(recipe.rewards, config.reward_weights).rewards
    eval_funcs = adapt(recipe.eval_funcs) if recipe.eval_funcs else []
    for reward in [*rewards, *eval_funcs]:
        check_columns(reward, rows[0], f"dataset {recipe.dataset}")
    check_lengths(recipe, config)
    if config.curriculum is not None:
        stages([(number, row.get(config.curriculum)) for number, row in enumerate(rows)], config.curriculum,
               config.curriculum_stages, f"dataset {recipe.dataset}")
    return Prepared(config, rows, eval_rows, demonstrations, rewards, eval_funcs)


def check_output_dir(path: Path) -> None:
    """ConfigError where a run cannot be written."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigError(f"output_dir={str(path)!r}: {there} is not a folder that can be written to")


def check_sight(recipe: Recipe, data: Mapping[str, Rows]) -> None:
    """DatasetError where a row of the data (by their entry in the recipe) shows images to a model without a tower."""
    shown = next(((name, number) for name, rows in data.items() for number, row in enumerate(rows) if shows(row)), None)
    if shown is None:
        return
    model, source = model_config(recipe.model)
    if spec_of(model, source).vision is None:
        raise DatasetError(f"{shown[0]}: row {shown[1]} shows images, and {source} ({model.get('model_type')}) sees "
                           "none: it has no vision tower")


def shows(row: Mapping[str, Any]) -> bool:
    """Whether a row has images, in a column or in its messages."""
    return any(not is_nothing(row.get(name)) for name in COLUMNS) or shows_images(row.get("prompt"))


def check_lengths(recipe: Recipe, config: GRPOConfig) -> None:
    """ConfigError where prompt and completion do not fit into the model's positions."""
    model, source = model_config(recipe.model)
    positions = model.get("max_position_embeddings")
    if positions and (config.max_prompt_length or 1) + config.max_completion_length > positions:
        prompt = f"max_prompt_length={config.max_prompt_length} and " if config.max_prompt_length else ""
        raise ConfigError(f"{prompt}max_completion_length={config.max_completion_length} do not fit into the "
                          f"{positions} positions of {source}")


def check_columns(reward: Reward, row: dict[str, Any], where: str) -> None:
    """DatasetError for a reward that asks for a column which the data do not have."""
    if reward.kind not in ("batch", "sample"):
        return
    parameters = signature(reward.function)
    needed = [p.name for p in parameters.values() if p.default is p.empty
              and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed += getattr(reward.function, "needs", ())
    if is_built_in(reward.function) and {"answer", "solution"} <= parameters.keys() and "solution" not in row:
        needed.append("answer")
    for name in needed:
        if name not in OFFERED | row.keys() | reward.given.keys():
            raise DatasetError(f"reward {reward.name!r} asks for {name!r}, which {where} does not have"
                               f"{did_you_mean(name, row)} Its columns are {', '.join(row)}.")


def default_rewards(rows: Rows) -> list[str]:
    """The five XML rewards where the system message asks for that layout, else accuracy alone."""
    without = next((number for number, row in enumerate(rows) if row.get("answer") is None), None)
    if without is not None:
        raise ConfigError(f"row {without} has no answer to compare with: say what is good with --rewards, a name or "
                          "file.py:function")
    prompt = rows[0]["prompt"]
    asks_for_xml = not isinstance(prompt, str) and prompt[0].get("content") == XML_SYSTEM_PROMPT
    return ["xml"] if asks_for_xml else ["accuracy_reward"]
