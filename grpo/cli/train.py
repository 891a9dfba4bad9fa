"""grpo train: build what the recipe says, warm up if it says so, train, draw, and say what was learned."""
import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..planning import require
from ..recipes import Prepared, Recipe, prepare
from ..runs import RECIPE, RunFolder, latest_model
from .options import help_text, recipe_of, recipe_parser, run_of
from .summary import header, summary

ABOUT = """Trains a language model with GRPO. Without arguments: the recipe quickstart, which needs nothing but this
package.

  grpo train                                              two-digit sums from nothing, minutes on a laptop
  grpo train gsm8k --model Qwen/Qwen2.5-0.5B-Instruct     a recipe, with another model
  grpo train --model DIR --dataset rows.jsonl --rewards my_rewards.py:correct
  grpo train my_recipe.yaml --max_steps 20                a recipe of your own; flags override the file
  grpo train my_recipe.yaml --check                       is everything there, and does it fit? trains nothing"""


def main(argv: list[str], prog: str = "grpo train") -> None:
    """`grpo train`: trains what recipe and flags say; with --check only looks whether everything is there and fits."""
    parser = recipe_parser(prog, ABOUT, argv)
    parser.add_argument("--check", action="store_true", default=argparse.SUPPRESS,
                        help="Do all that comes before the first step (read the data, find the rewards, load the "
                        "model, encode the prompts), write nothing and train nothing.")
    arguments = parser.parse(argv)
    if {"h", "help", "help_all"} & vars(arguments).keys():
        print(help_text(parser, hasattr(arguments, "help_all")))
    elif vars(arguments).pop("check", False):
        check(recipe_of(arguments))
    else:
        run(recipe_of(arguments))


@dataclass
class Ready:
    """A run that could begin: what it is made of, its model and its trainer."""

    found: Prepared
    model: Any
    trainer: Any


def ready(recipe: Recipe) -> Ready:
    """Everything that comes before the first step, without a trace in the file system: data are read, rewards found,
    the checkpoint to go on from verified, the model loaded, every prompt encoded. Raises what is wrong with any of
    it."""
    from ..training import GRPOTrainer, SFTTrainer
    from ..training.resume import checkpoint_of

    found = prepare(recipe)
    refuse_other_experiment(recipe)
    require(recipe.plan())
    resume, output_dir = found.config.resume_from_checkpoint, found.config.output_dir
    if resume:
        checkpoint_of(resume, output_dir)
    model = starting_model(recipe, resume, output_dir)
    if found.demonstrations:
        SFTTrainer(model, recipe.sft_config(), found.demonstrations)     # every one is encoded
    return Ready(found, model, GRPOTrainer(model, found.rewards, found.config, found.rows, found.eval_rows,
                                           eval_funcs=found.eval_funcs))


def check(recipe: Recipe) -> None:
    """Says that a recipe is whole, or raises what its run would raise before it starts."""
    found = ready(recipe).found
    held_out = f", {len(found.eval_rows):,} more held out" if found.eval_rows else ""
    print(f"{recipe.name}: {len(found.rows):,} rows{held_out}; rewards {', '.join(r.name for r in found.rewards)}; "
          f"{found.config.describe_batch()}. Nothing was trained.")


def run(recipe: Recipe) -> Path:
    """Trains a recipe and returns the run folder."""
    from ..training import GRPOTrainer

    begun = ready(recipe)                                  # nothing is written before everything is there
    found, trainer = begun.found, begun.trainer
    resume, output_dir = found.config.resume_from_checkpoint, found.config.output_dir
    folder = None if resume else RunFolder.create(output_dir, found.config.run_name or recipe.name)
    try:
        if folder is not None:
            recipe = recipe.change({"output_dir": str(folder.path)})
        print(header(recipe, begun.model, found), flush=True)
        if folder is not None and found.demonstrations:
            del trainer, begun.trainer                     # its reference is the model before the warm-up
            folder.write_text(RECIPE, recipe.to_yaml())    # from here on it holds a run
            warm_up(begun.model, found.demonstrations, recipe.sft_config(output_dir=str(folder.path / "sft")))
            trainer = GRPOTrainer(begun.model, found.rewards, found.config, found.rows, found.eval_rows,
                                  eval_funcs=found.eval_funcs)
        trainer.args.output_dir = recipe.config().output_dir
        trainer.add_callback(KeepRecipe(recipe))
        trainer.run = folder
        trainer.train()
    finally:
        if folder is not None:
            folder.abandon()                 # where nothing is in it, nothing is left
    assert trainer.run is not None           # train() opens the run folder
    print(summary(trainer.run.path), flush=True)
    return trainer.run.path


def refuse_other_experiment(recipe: Recipe) -> None:
    """ConfigError where a run is to be resumed that trains something else: another model, other data, other rewards."""
    config = recipe.config()
    if not config.resume_from_checkpoint:
        return
    path = run_of(config.resume_from_checkpoint, config.output_dir) / RECIPE
    if not path.is_file():                   # a run from Python leaves no recipe; the trainer compares its options
        return
    there = Recipe.read(str(path))
    for name in ("model", "dataset", "dataset_kwargs", "system_prompt", "rewards", "sft"):
        ours, theirs = getattr(recipe, name), getattr(there, name)
        if ours != theirs:
            raise ConfigError(f"{path.parent} holds another experiment: {name} is {theirs!r} there and {ours!r} here. "
                              "Give the run that you mean, or leave resume_from_checkpoint out for a new one")


class KeepRecipe:
    """A callback that leaves the recipe in the run folder, for `grpo train RUN/recipe.yaml` and for resuming."""

    def __init__(self, recipe: Recipe):
        self.text = recipe.to_yaml()

    def on_train_begin(self, args: Any, state: Any, control: Any, run: Any, **kwargs: Any) -> None:
        """Writes recipe.yaml into the run folder."""
        run.write_text(RECIPE, self.text)


def starting_model(recipe: Recipe, resume: str | bool | None, output_dir: str | None) -> Any:
    """The recipe's model. A resumed run begins with what its warm-up left, which is also the reference of its KL; the
    checkpoint's weights come on top."""
    if resume and (warm := run_of(resume, output_dir) / "sft" / "model").is_dir():
        recipe = recipe.change({"model": str(warm)})
    elif isinstance(recipe.model, str):
        recipe = recipe.change({"model": latest_model(recipe.model)})
    return recipe.load_model()


def warm_up(model: Any, demonstrations: list[dict[str, Any]], config: Any) -> None:
    """The supervised stage. It leaves its model beside its metrics, for resuming."""
    from ..training import SFTTrainer

    print(f"\nWarm-up: supervised fine-tuning on {len(demonstrations):,} demonstrations", flush=True)
    trainer = SFTTrainer(model, config, demonstrations)
    trainer.train()
    trainer.save_model(Path(config.output_dir) / "model")
    print("\nGRPO", flush=True)
