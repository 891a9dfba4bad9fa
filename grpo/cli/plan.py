"""grpo plan: the memory and the time of a run."""
import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DeviceError
from ..model import pick_device
from ..options import GRPOConfig
from ..planning import (
    CARDS,
    Card,
    Ceilings,
    Plan,
    ceilings,
    describe,
    find_card,
    human,
    known_shape,
    model_config,
    shown_by,
    step_of,
    step_time,
    table,
    training_plan,
)
from ..recipes import Recipe
from .options import help_text, recipe_of, recipe_parser

ABOUT = f"""Says how much memory a run will take and how long a step, from the model's config and the options alone;
nothing is loaded. Takes what grpo train takes. Several models, with commas between them, are put beside each other; the
shapes of SmolLM2-135M, Qwen2.5-0.5B, -1.5B, -3B, -7B, Qwen2.5-VL-3B, -7B and Qwen3-VL-2B, -4B are known without their
files. A model that sees is taken to be shown one image a prompt, of max_pixels or of 512 x 512. A GPU need not be there
(its memory is told where the CUDA backend is built):

  --card NAME       one of {', '.join(CARDS)}; without it the GPU that is here, else an H200
  --bandwidth GB/s  bytes that a large copy reads and writes (on a CPU: reads), in place of the card's
  --tflops TFLOP/s  of a large bf16 product, in place of the card's

  grpo plan
  grpo plan --model Qwen/Qwen2.5-0.5B-Instruct --num_generations 16 --max_completion_length 1024
  grpo plan --card H200 --model Qwen2.5-0.5B,Qwen2.5-7B --prompts_per_step 8 --num_generations 16"""
OWN = {"card": str, "bandwidth": float, "tflops": float}


@dataclass(frozen=True)
class Forecast:
    """Of one model. work: the step in words; memory: its plan, or why it cannot be told."""

    source: str
    work: str
    memory: Plan | str
    step: step_time.Step
    phases: list[step_time.Phase]


def main(argv: list[str], prog: str = "grpo plan") -> None:
    """`grpo plan`: prints the memory and the time of a run; loads no weights."""
    parser = recipe_parser(prog, ABOUT, argv)
    for name, kind in OWN.items():
        parser.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    arguments = parser.parse(argv)
    if {"h", "help", "help_all"} & vars(arguments).keys():
        print(help_text(parser, hasattr(arguments, "help_all")))
        return
    own = {name: vars(arguments).pop(name, None) for name in OWN}
    recipe = recipe_of(arguments)
    options = recipe.config()
    device, card = device_of(options, own["card"])
    if device not in step_time.SHARES:
        print(table(training_plan(*sizes(recipe.model), options, device)))
        return
    at = ceilings_of(device, card, own)
    found = [forecast(*sizes(model), options, device, card) for model in models(recipe)]
    print(report(found[0], at, device) if len(found) == 1 else comparison(found, at, device))


def models(recipe: Recipe) -> list[Any]:
    """Those of --model, with commas between them."""
    if isinstance(recipe.model, str) and not Path(recipe.model).exists():
        return recipe.model.split(",")
    return [recipe.model]


def sizes(model: Any) -> tuple[Mapping[str, Any], str]:
    """(config, its name): a known shape is asked of no hub."""
    shape = known_shape(model) if isinstance(model, str) and not Path(model).exists() else None
    return (shape, model) if shape else model_config(model)


def device_of(options: GRPOConfig, card: str | None) -> tuple[str, tuple[str, Card] | None]:
    """The device meant, and on a GPU its card; a card that is named means a GPU."""
    if card is not None and options.device not in ("auto", "cuda"):
        raise ConfigError(f"--card {card} is a GPU, and --device {options.device} is none")
    device = "cuda" if card is not None else options.device if options.device == "cuda" else pick_device(options.device)
    return device, find_card(card) if device == "cuda" else None


def ceilings_of(device: str, card: tuple[str, Card] | None, own: Mapping[str, Any]) -> Ceilings:
    """The device's ceilings, with what --bandwidth (GB/s) and --tflops (TFLOP/s) say in their place."""
    for name in ("bandwidth", "tflops"):
        if own[name] is not None and not own[name] > 0:
            raise ConfigError(f"--{name} {own[name]:g} must be positive")
    return ceilings(device, card, own["bandwidth"], own["tflops"])


def forecast(config: Mapping[str, Any], source: str, options: GRPOConfig, device: str,
             card: tuple[str, Card] | None) -> Forecast:
    """The plan and the expected time of one model. card: the GPU meant, which need not be here."""
    shown = shown_by(config, source, options)
    work, store_rows = step_of(options, device, shown), 0
    memory: Plan | str
    try:
        memory = training_plan(config, source, options, device, memory=card[1].memory if card else None,
                               shown=shown)
        store_rows = memory.store_rows
    except DeviceError as error:
        memory = f"Its memory is told by the CUDA backend, which is not here: {error}"
    step = step_time.Step.of(options, device, work["prompt_length"], store_rows, shown)
    return Forecast(source, describe(options, work, device, shown), memory, step,
                    step_time.phases(step_time.Shape.of(config, source), step, device))


def report(one: Forecast, at: Ceilings, device: str) -> str:
    """Both tables of one model."""
    if isinstance(one.memory, Plan):
        memory = table(one.memory)
    else:
        memory = f"{one.source} on {device}: {one.work}\n\n{one.memory}"
    return f"{memory}\n\n{step_time.table(one.phases, one.step, at, device)}"


def comparison(found: list[Forecast], at: Ceilings, device: str) -> str:
    """A row a model: memory, whether it fits, expected seconds of the phases and of all, their floor."""
    columns = {phase.name: max(len(phase.name) + 3, 9) for one in found for phase in one.phases}
    names = sorted(columns, key=step_time.ORDER.index)
    width = max(len(one.source) for one in found)
    lines = [f"  {'':<{width}}{'memory':>10}{'fits':>6}" + "".join(f"{name:>{columns[name]}}" for name in names)
             + f"{'all':>9}{'floor':>9}"]
    for one in found:
        total, fits = "", ""
        if isinstance(one.memory, Plan):
            total, fits = human(one.memory.total), "yes" if one.memory.fits else "no"
        took = {phase.name: f"{step_time.expected([phase], at, device):.3f}" for phase in one.phases}
        seconds = [f"{took.get(name, ''):>{columns[name]}}" for name in names]
        lines.append(f"  {one.source:<{width}}{total:>10}{fits:>6}{''.join(seconds)}"
                     f"{step_time.expected(one.phases, at, device):>9.3f}{step_time.floor(one.phases, at):>9.3f}")
    untold = next(([one.memory, ""] for one in found if isinstance(one.memory, str)), [])
    return "\n".join([f"On {device}: {found[0].work}", "", *untold,
                      "Expected seconds of a rollout and its optimiser steps:", "", *lines, "",
                      step_time.sources(at, device)])
