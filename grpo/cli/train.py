"""grpo train: build what the recipe says, warm up if it says so, train, draw, and say what was learned."""
from pathlib import Path
from typing import Any

from .. import recipes
from ..datasets import XML_SYSTEM_PROMPT
from ..errors import ConfigError, DatasetError
from ..prompts import overlap
from ..runlog import RECIPE, latest_model
from .options import help_text, recipe_of, recipe_parser, run_of
from .summary import header, summary

ABOUT = """Trains a language model with GRPO. Without arguments: the recipe quickstart, which needs nothing but this package.

  grpo train                                              two-digit sums from nothing, minutes on a laptop
  grpo train gsm8k --model Qwen/Qwen2.5-0.5B-Instruct     a recipe, with another model
  grpo train --model DIR --dataset rows.jsonl --rewards my_rewards.py:correct
  grpo train my_recipe.yaml --max_steps 20                a recipe of your own; flags override the file"""


def main(argv: list[str], prog: str = "grpo train") -> None:
    parser = recipe_parser(prog, ABOUT, argv)
    arguments = parser.parse(argv)
    if {"h", "help", "help_all"} & vars(arguments).keys():
        print(help_text(parser, hasattr(arguments, "help_all")))
    else:
        run(recipe_of(arguments))


def run(recipe: recipes.Recipe) -> Path:
    """Trains a recipe and returns the run folder."""
    from ..rewards.adapters import adapt
    from ..runfolder import RunFolder
    from ..trainer import GRPOTrainer

    config = recipe.config()                               # nothing is written before everything is there
    resume = config.resume_from_checkpoint
    rows, eval_rows, demonstrations = recipe.train_rows(), recipe.eval_rows(), recipe.sft_rows() if recipe.sft and not resume else []
    if eval_rows and (message := overlap(rows, eval_rows)):
        raise DatasetError(f"{message}. Evaluate on other rows, or hold some out: --dataset_kwargs.validation 0.1")
    if demonstrations:
        recipe.sft_config()
    recipe.rewards = recipe.rewards or default_rewards(rows)
    rewards = adapt(recipe.rewards)
    model = starting_model(recipe, resume, config.output_dir)
    if not resume:
        folder = RunFolder.create(config.output_dir, config.run_name or recipe.name).path
        recipe = recipe.change({"output_dir": str(folder)})
    print(header(recipe, model, rewards, rows, eval_rows), flush=True)
    if demonstrations:
        warm_up(model, demonstrations, recipe.sft_config(output_dir=str(folder / "sft")))
    trainer = GRPOTrainer(model, rewards, recipe.config(), rows, eval_rows, callbacks=[KeepRecipe(recipe)])
    trainer.train()
    print(summary(trainer.run.path, eval_rows), flush=True)
    return trainer.run.path


class KeepRecipe:
    """A callback that leaves the recipe in the run folder, for `grpo train RUN/recipe.yaml` and for resuming."""

    def __init__(self, recipe: recipes.Recipe):
        self.text = recipe.to_yaml()

    def on_train_begin(self, args: Any, state: Any, control: Any, run: Any, **kwargs: Any) -> None:
        (run.path / RECIPE).write_text(self.text, encoding="utf-8")


def default_rewards(rows: list[dict[str, Any]]) -> list[str]:
    """The five XML rewards where the system message asks for that layout, else accuracy alone."""
    without = next((number for number, row in enumerate(rows) if row.get("answer") is None), None)
    if without is not None:
        raise ConfigError(f"row {without} has no answer to compare with: say what is good with --rewards file.py:function")
    prompt = rows[0]["prompt"]
    return ["xml"] if not isinstance(prompt, str) and prompt[0].get("content") == XML_SYSTEM_PROMPT else ["accuracy_reward"]


def starting_model(recipe: recipes.Recipe, resume: str | bool | None, output_dir: str | None) -> Any:
    """The recipe's model. A resumed run begins with what its warm-up left, which is also the reference of its KL; the
    checkpoint's weights come on top."""
    if resume and (warm := run_of(resume, output_dir) / "sft" / "model").is_dir():
        recipe = recipe.change({"model": str(warm)})
    elif isinstance(recipe.model, str):
        recipe = recipe.change({"model": latest_model(recipe.model)})
    return recipe.load_model()


def warm_up(model: Any, demonstrations: list[dict[str, Any]], config: Any) -> None:
    """The supervised stage. It leaves its model beside its metrics, for resuming."""
    from ..sft_trainer import SFTTrainer

    print(f"\nWarm-up: supervised fine-tuning on {len(demonstrations):,} demonstrations", flush=True)
    trainer = SFTTrainer(model, config, demonstrations)
    trainer.train()
    trainer.save_model()
    print("\nGRPO", flush=True)
