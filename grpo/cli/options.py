"""Flags of `grpo train` and `grpo plan`: a recipe's own entries, every field of GRPOConfig, and what other trainers
call them.

--outer.inner sets one entry of a mapping: --sft.max_steps 100, --dataset_kwargs.digits 1, --model.hidden_size 64,
--chat_template_kwargs.enable_thinking false. --no_shuffle_dataset is --shuffle_dataset false, and so for every
switch.
"""
import argparse
import dataclasses
import shutil
import textwrap
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, warn
from ..options import NOTED, PRESETS, REFUSED, ROUNDS, WITHOUT_EFFECT, GRPOConfig, kinds_of, meaning_of, meaningful
from ..recipes import MAPPINGS, OPTION_MAPPINGS, OTHER_NAMES, Recipe, names
from ..runs import CHECKPOINTS, RECIPE, run_to_resume
from .parser import Parser, from_yaml, given_names, switch, switch_or_text, text, text_or_number

# entries of a recipe: (what it is, how its value is read)
OWN = {
    "model": ("A folder, a .gguf file or a hub id; a run folder means its latest checkpoint.", str),
    "dataset": ("A name (arithmetic, gsm8k), a file or folder, file.py:function, a hub id, or shares of several, "
                "'{gsm8k: 1, word_problems: 3}'.", dict),
    "dataset_kwargs": ("Options of the data set, '{digits: 1}'; also --dataset_kwargs.digits 1.", dict),
    "train_size": ("Train on the first so many rows.", dict),
    "eval_dataset": ("Data of evaluation; by default the test split of --dataset.", dict),
    "eval_dataset_kwargs": ("Its options, where they differ from --dataset_kwargs.", dict),
    "eval_size": ("Evaluate on the first so many rows.", dict),
    "system_prompt": ("System message of questions; xml asks for <reasoning> and <answer>.", str),
    "rewards": ("One or several: a name, package.module.function or file.py:function.", list),
    "eval_funcs": ("The same, for what evaluation computes besides the rewards.", list),
    "sft": ("Warm-up before GRPO: --sft none skips a recipe's, --sft.max_steps 100 changes it.", dict),
    "preset": (f"A published set of options: {', '.join(PRESETS)}.", str),
}
# flags that only DeepSeekRL's main.py has
DEEPSEEKRL = {"num_chains", "kl_weight_beta", "num_train_iters", "eval_iterations", "warmup_percent",
              "update_ref_model", "update_ref_model_freq", "evaluator"}
# flags that only the documents of its flowers have
FLOWERS = {"batch_size", "kl_coeff", "num_epochs", "eval_interval", "log_interval"}
ENTRIES = (*MAPPINGS, *OPTION_MAPPINGS)      # of which --outer.inner sets one
# what --help shows; the rest is in --help_all
COMMON = ("model", "dataset", "rewards", "system_prompt", "output_dir", "preset", "max_steps", "prompts_per_step",
          "num_generations", "max_completion_length", "temperature", "learning_rate", "beta", "loss_type",
          "eval_strategy", "eval_steps", "save_steps", "logging_steps", "seed", "resume_from_checkpoint")


def recipe_parser(prog: str, about: str, argv: list[str]) -> Parser:
    """The parser. argv: the flags to come, of which some may have any name (--sft.x, --vllm_x)."""
    parser = Parser(prog=prog, usage=f"{prog} [RECIPE] [--option value ...]", description=about, add_help=False)
    parser.add_argument("recipe", nargs="?")
    for name, (meaning, kind) in OWN.items():
        add(parser, name, meaning, kind)
    hints, fields = typing.get_type_hints(GRPOConfig), meaningful(GRPOConfig)
    for name, field in fields.items():
        add(parser, name, str(meaning_of(field)), hints[name], switches=takes_switches(field))
    for name in sorted(understood_names(argv) - {action.dest for action in parser._actions}):
        own = OTHER_NAMES.get(name, name)
        add(parser, name, None, OWN[own][1] if own in OWN else hints.get(own, dict),
            switches=own in fields and takes_switches(fields[own]))
    for name in ("-h", "--help", "--help_all"):
        parser.add_argument(name, dest=name.strip("-"), action="store_true", default=argparse.SUPPRESS)
    return parser


def understood_names(argv: list[str]) -> set[str]:
    """Options that are not shown: those of other trainers, and the dotted ones on this command line."""
    open_ended = {name for name in given_names(argv)
                  if name.startswith("vllm_") or name.partition(".")[0] in ENTRIES}
    return {*OTHER_NAMES, *ROUNDS, *NOTED, *REFUSED, *WITHOUT_EFFECT, *open_ended,
            "conciseness", "config", "use_cpu", "no_cuda"}


def takes_switches(field: dataclasses.Field) -> bool:
    """Whether a field that is no bool takes True and False besides."""
    meaning = meaning_of(field)
    return meaning is not None and meaning.spelled is not None


def add(parser: Parser, name: str, meaning: str | None, hint: Any, switches: bool = False) -> None:
    """One flag; meaning None: understood, but not shown. Its value is left to GRPOConfig to check. switches: true and
    false are values of a text."""
    kinds = {*kinds_of(hint), *((bool,) if switches else ())}
    if dict in kinds:
        kinds -= {str}                       # JSON, for other parsers
    if list in kinds:
        how: dict[str, Any] = {"nargs": "+", "type": text_or_number, "action": "extend"}
    elif bool in kinds:
        how = {"nargs": "?", "const": True, "type": switch if kinds <= {bool, types.NoneType} else switch_or_text}
    elif dict in kinds:
        how = {"nargs": "?", "const": True, "type": from_yaml}
    else:
        how = {"type": text}
    parser.add_argument(f"--{name}", dest=name, default=argparse.SUPPRESS, help=meaning or argparse.SUPPRESS, **how)
    if bool in kinds and kinds <= {bool, types.NoneType} and not name.startswith("no_"):
        parser.add_argument(f"--no_{name}", dest=name, default=argparse.SUPPRESS, action="store_false",
                            help=argparse.SUPPRESS)


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The recipe that a command line means: the one named; else gsm8k, or flowers where that is the data set, where
    flags that only DeepSeekRL has say so; else the run's own when a run is resumed; else quickstart when neither model
    nor data are given. Flags change it."""
    changes = {name: None if value == [None] else value for name, value in vars(arguments).items() if name != "recipe"}
    named = [name for name in (arguments.recipe, changes.pop("config", None)) if name is not None]
    if len(named) > 1:
        raise ConfigError(f"{named[0]} and --config {named[1]} both name a recipe; give one")
    given = {OTHER_NAMES.get(name, name) for name in changes}
    if named:
        base = Recipe.read(named[0])
    elif DEEPSEEKRL & changes.keys() or (about_flowers(changes) and FLOWERS & changes.keys()):
        name = "flowers" if about_flowers(changes) else "gsm8k"
        warn(f"DeepSeekRL's flags: taking the recipe {name}, which has its hyper-parameters")
        base = Recipe.read(name)
    elif given & {"model", "dataset"}:
        base = Recipe()
    elif resume := changes.get("resume_from_checkpoint"):
        base = Recipe.read(str(run_of(resume, changes.get("output_dir")) / RECIPE))
    else:
        base = Recipe.read("quickstart")
    return base.change(changes)


def about_flowers(changes: Mapping[str, Any]) -> bool:
    """Whether these flags name the flowers as their data, or as whose rewards are meant."""
    return "flowers" in [changes.get(name) for name in ("dataset", "dataset_name", "evaluator")]


def listing() -> list[str]:
    """One line a recipe, or several where a terminal is too narrow for one."""
    known = names()
    column = max(map(len, known)) + 4
    width = max(column + 20, shutil.get_terminal_size((1000, 24)).columns - 1)
    return [line for name in known for line in
            textwrap.wrap(Recipe.read(name).about, width, initial_indent=f"  {name}".ljust(column),
                          subsequent_indent=" " * column, break_on_hyphens=False)]


def run_of(resume: str | bool, output_dir: str | None) -> Path:
    """The folder of the run that is resumed. resume: a checkpoint or a run; True: the latest of output_dir."""
    if isinstance(resume, bool):
        if output_dir is None:
            raise ConfigError("--resume_from_checkpoint without a checkpoint needs --output_dir, the folder of the run")
        return run_to_resume(output_dir)
    there = Path(resume).resolve()
    return there if (there / CHECKPOINTS).is_dir() else there.parent.parent


def help_text(parser: Parser, everything: bool) -> str:
    """What --help (common flags) and --help_all print."""
    fields = meaningful(GRPOConfig)
    meanings = {a.dest: a.help for a in parser._actions if a.option_strings and a.help and a.help != argparse.SUPPRESS}
    lines = [f"usage: {parser.usage}", "", parser.description or "", "", "RECIPE is a YAML file, or one of", "",
             *listing(), ""]
    for name in meanings if everything else COMMON:
        choices = default = ""
        if name in fields:
            known = getattr(meaning_of(fields[name]), "choices", ())
            choices = f" One of {', '.join(known)}." if known else ""
            default = f" ({fields[name].default})" if fields[name].default is not None else ""
        lines += textwrap.wrap(meanings[name] + choices + default, 110, initial_indent=f"  --{name:<28} ",
                               subsequent_indent=" " * 33)
    if not everything:
        lines += ["", f"All options: {parser.prog} --help_all. Those of TRL, DeepSeekRL and R1 are understood too, and "
                      "R1's YAML files."]
    return "\n".join(lines)
