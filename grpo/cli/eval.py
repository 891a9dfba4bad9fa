"""grpo eval: a round of evaluation of any model on held-out rows, with a report."""
import argparse
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import datasets
from ..datasets.pictures import picture_key
from ..errors import ConfigError
from ..evaluation import CLASS_MEANS, DOCUMENT, GENERATIONS, MOST_QUESTIONS, REPORT, EvalFolder, nearest_class_mean
from ..model import resolve
from ..recipes import Recipe
from ..runs import CHECKPOINTS, CONFIG, EVALUATIONS, RECIPE, checkpoint, plain, replace_text, say, spelled, to_json
from ..vision.drawn import Drawn
from ..vision.messages import COLUMNS
from .asking import TEMPLATE, add_entries
from .parser import Parser, from_yaml, text_or_number

ABOUT = """Evaluates a model on held-out rows: accuracy with its interval, read strictly,
leniently and by extraction; with several completions a question also pass@k and
majority@k. A run's own recipe says on which data, with which rewards and
lengths.

  grpo eval runs/gsm8k-1          the latest checkpoint, drawn as the run does
  grpo eval runs/gsm8k-1 --checkpoint best --num_generations 8
                                  8 completions each, at the run's temperature
  grpo eval Qwen/Qwen2.5-0.5B-Instruct --dataset gsm8k --limit 200
  grpo eval DIR --dataset gui --rewards gui

Leaves evaluation.json, report.html, report.pdf and generations.txt, the
pictures that the reports show in images/, and where answers are classes what is
taken for what. Interrupted, the same command goes on where it stopped."""
# flag: (entry of the recipe, type, meaning)
FLAGS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "dataset": ("eval_dataset", str,
                "a name, a file or folder, file.py:function or a hub id; its test split where it has splits"),
    "dataset_kwargs": ("eval_dataset_kwargs", from_yaml, "options of the data set, '{digits: 1}'; also "
                       "--dataset_kwargs.digits 1"),
    "limit": ("eval_size", int, "only the first so many rows"),
    "system_prompt": ("system_prompt", str, "system message of questions; xml asks for <reasoning> and <answer>"),
    "category": ("eval_category", str, "column by which accuracy is broken down (category, level, subject or source)"),
    "chat_template_kwargs": ("chat_template_kwargs", from_yaml, "arguments of the chat template, "
                             "'{enable_thinking: false}'; also --chat_template_kwargs.enable_thinking false"),
    "num_generations": ("num_generations_eval", int, "completions a question (1)"),
    "temperature": ("temperature_eval", float, "0 is greedy (0; with several completions: the recipe's temperature)"),
    "top_k": ("top_k", int, "draw from the K likeliest tokens"),
    "top_p": ("top_p", float, "draw from the smallest set with this probability"),
    "min_p": ("min_p", float, "least probability, as a share of the likeliest token's"),
    "max_completion_length": ("max_completion_length", int, "most tokens of a completion (the recipe's, or 512)"),
    "seed": ("seed", int, "the same seed draws the same completions"),
    "slots": ("slots", int, "sequences decoded at a time; the numbers are the same"),
    "device": ("device", str, "auto, cpu, cuda or ref"),
    "min_pixels": ("min_pixels", int, "show images with at least so many pixels"),
    "max_pixels": ("max_pixels", int, "show images with at most so many pixels, which decides their tokens"),
    "on_bad_row": ("on_bad_row", str, "raise, or skip rows whose images cannot be read"),
}
# options of a run that matter to its evaluation
OPTIONS = """
    seed device dtype model_init_kwargs max_prompt_length on_long_prompt max_completion_length temperature top_p top_k
    min_p repetition_penalty generation_kwargs chat_template_kwargs temperature_eval num_generations
    num_generations_eval slots token_budget reward_weights on_reward_error soft_overlong_cache eval_category min_pixels
    max_pixels image_cache_gb image_cache_dir on_bad_row""".split()


def eval_parser(prog: str, argv: Sequence[str] = ()) -> Parser:
    """The flags of `grpo eval`. argv: the command line, whose --dataset_kwargs.NAME and
    --chat_template_kwargs.NAME are taken too."""
    parser = Parser(prog=prog, description=ABOUT)
    parser.add_argument("model", metavar="MODEL",
                        help="a folder, a .gguf file, a hub id, a run folder or one of its checkpoints")
    parser.add_argument("--checkpoint", metavar="WHICH", help="of a run: latest, best, or a step's number (latest)")
    for name, (_, kind, meaning) in FLAGS.items():
        parser.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS, metavar="X", help=meaning)
    add_entries(parser, argv, ("dataset_kwargs", TEMPLATE))
    for name in ("rewards", "eval_funcs"):
        parser.add_argument(f"--{name}", nargs="+", type=text_or_number, default=argparse.SUPPRESS, metavar="NAME",
                            help=f"{'rewards' if name == 'rewards' else 'functions to compute besides'}: a name or "
                                 "file.py:function")
    parser.add_argument("--output_dir", metavar="DIR",
                        help="where it goes (a folder of its own in the run's eval/, or in evals/)")
    parser.add_argument("--nearest_class_mean", action="store_true",
                        help="also classify the images by the nearest mean of their classes' features, those of train")
    parser.add_argument("--report_questions", type=int, metavar="N",
                        help="questions in the reports (200); the JSON has all")
    return parser


def main(argv: list[str], prog: str = "grpo eval") -> None:
    """`grpo eval`: draws completions of held-out rows, grades them, and leaves a folder with the report."""
    arguments = eval_parser(prog, argv).parse(argv)
    from ..recipes import default_rewards
    from ..rewards import adapt
    from ..training import GRPOTrainer

    source, run = source_of(arguments.model, arguments.checkpoint)
    recipe = recipe_of(arguments, run).change({"model": source})
    rows = recipe.held_out_rows()
    trainer = GRPOTrainer(recipe.load_model(), adapt(recipe.rewards or default_rewards(rows)), config_of(recipe), None,
                          rows, eval_funcs=recipe.eval_funcs or None)
    if run is not None:
        trainer.state.global_step = checkpoint.step_of(Path(source))
    settings = {"model": source, "step": trainer.state.global_step if run is not None else None,
                "weights": checkpoint.weights_hash(trainer.model.core), "rows": hash_of(rows),
                **trainer.evaluations[""].settings()}
    folder = EvalFolder(arguments.output_dir or default_folder(source, run, settings), settings)
    most = MOST_QUESTIONS if arguments.report_questions is None else arguments.report_questions
    document = folder.document() if folder.finished else complete(folder, trainer)
    if folder.keep_images(document, trainer.evaluations[""], most) or not folder.finished:
        folder.finish(document)
    show(document, folder, most)
    if arguments.nearest_class_mean:
        baseline(folder, trainer.model, recipe, rows)


def source_of(model: str, which: str | None) -> tuple[str, Path | None]:
    """(what grpo.load takes, the run it belongs to or None)."""
    path = Path(model)
    if (path / CHECKPOINTS).is_dir():
        return str(checkpoint_of(path / CHECKPOINTS, which or "latest")), path
    if which is not None:
        raise ConfigError(f"--checkpoint {which}: {model} is no run folder with {CHECKPOINTS}/")
    if not path.exists():
        resolve(model)                                     # a name of the hub, or nothing
    is_checkpoint = path.parent.name == CHECKPOINTS and path.name.startswith("step-") and path.is_dir()
    return model, path.parent.parent if is_checkpoint else None


def checkpoint_of(parent: Path, which: str) -> Path:
    """The checkpoint called latest, best or by its step's number; it verifies."""
    if which == "latest":
        found = checkpoint.latest(parent)
    elif which == "best":
        best = checkpoint.best(parent)
        if best is None:
            raise ConfigError(f"{parent} has no best checkpoint: the run had no metric_for_best_model")
        found = parent / f"step-{best['step']}"
    else:
        found = parent / f"step-{which.removeprefix('step-')}"
    if found is None or not found.is_dir():
        there = ", ".join(str(checkpoint.step_of(p)) for p in reversed(checkpoint.steps(parent))) or "none"
        raise ConfigError(f"{parent} has no checkpoint {which!r}; there are {there}, latest and best")
    checkpoint.verify(found)
    return found


def recipe_of(arguments: argparse.Namespace, run: Path | None) -> Recipe:
    """The run's own recipe (or options, for a run from Python), or an empty one; flags change it."""
    given = vars(arguments)
    changes = {entry: given[flag] for flag, (entry, _, _) in FLAGS.items() if flag in given}
    changes |= {name: given[name] for name in ("rewards", "eval_funcs") if name in given}
    base = Recipe()
    if run is not None:
        base = Recipe.read(str(run / (RECIPE if (run / RECIPE).is_file() else CONFIG)))
    if "dataset" in given:
        changes.setdefault("eval_dataset_kwargs", {})
        changes.setdefault("eval_size", None)
    changes |= {f"eval_{name}": value for name, value in given.items() if name.startswith("dataset_kwargs.")}
    changes |= {name: value for name, value in given.items() if name.startswith(f"{TEMPLATE}.")}
    count = changes.get("num_generations_eval")
    if count is None and ("temperature_eval" in changes or run is None):
        changes["num_generations_eval"] = 1
    if "temperature_eval" not in changes and (count is not None or run is None):
        changes["temperature_eval"] = 0 if count in (None, 1) else base.options.get("temperature", 1.0)
    return base.change(changes)


def config_of(recipe: Recipe) -> Any:
    """The options of the run that matter here; nothing is trained."""
    whole = recipe.config()
    return type(whole)(prompts_per_step=1, eval_report="no", **{name: getattr(whole, name) for name in OPTIONS})


def hash_of(rows: list[dict[str, Any]]) -> str:
    """SHA-256 of rows, by which an evaluation knows whether its data are the same. An image counts by what tells it
    from others, not by where its pixels lie."""
    digest = hashlib.sha256()
    for row in rows:
        keys = {name: picture_key(row[name]) for name in COLUMNS if row.get(name) is not None}
        text = json.dumps(plain({**row, **keys}), ensure_ascii=False, default=told)
        digest.update(text.encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def told(value: Any) -> str:
    """What JSON has no form for: an image by its key, anything else by its text."""
    is_image = isinstance(value, (Drawn, bytes, bytearray)) or hasattr(value, "tobytes")
    return picture_key(value) if is_image else spelled(value)


def default_folder(source: str, run: Path | None, settings: dict[str, Any]) -> Path:
    """The same for the same evaluation, so that it goes on where it stopped."""
    mark = hashlib.sha256(to_json({**settings, "model": None}).encode()).hexdigest()[:8]
    if run is not None:
        return run / EVALUATIONS / f"{Path(source).name}-{mark}"
    name = re.sub(r"[^\w.-]+", "-", Path(source).name)
    return Path("evals") / f"{name}-{mark}"


def complete(folder: EvalFolder, trainer: Any) -> dict[str, Any]:
    """The evaluation, from where it stopped to its end."""
    from ..evaluation import document, metrics_of

    evaluation, records = trainer.evaluations[""], folder.records()
    each = folder.settings["num_generations"]
    chunk = max(1, 2 * trainer.args.slots_on(trainer.model.device) // each)
    if records:
        say(f"{len(records) // each} of {len(evaluation)} questions are in {folder.path}; going on")
    try:
        for first in range(len(records) // each, len(evaluation), chunk):
            fresh, _ = evaluation.completions(first, min(chunk, len(evaluation) - first))
            folder.add(fresh)
            records += fresh
            m = metrics_of(records)
            graded = "accuracy/lenient" in m
            shown = f"accuracy so far {m['accuracy/lenient']:.1%}" if graded else f"reward so far {m['reward']:.3f}"
            say(f"{len(records) // each} of {len(evaluation)} questions, {shown}")
    except KeyboardInterrupt:
        say(f"{len(records) // each} of {len(evaluation)} questions are in {folder.path}; the same command goes on "
            "from there")
        raise
    return document(folder.settings, records)


def baseline(folder: EvalFolder, model: Any, recipe: Recipe, rows: list[dict[str, Any]]) -> None:
    """What the features of the model's tower tell by themselves, on stdout and beside the JSON."""
    if recipe.dataset is not None:
        train = recipe.train_rows()
    else:
        train = datasets.load(recipe.eval_dataset, "train", **recipe.eval_dataset_kwargs)
    found = nearest_class_mean(model, train, rows)
    replace_text(folder.path / CLASS_MEANS, to_json(dataclasses.asdict(found)))
    print(f"\n{found}\n{folder.path / CLASS_MEANS}")


def show(document: dict[str, Any], folder: EvalFolder, most: int) -> None:
    """The tables on stdout, the reports and the text beside the JSON."""
    from ..evaluation import evaluation_tables, write_reports, write_text

    title = f"Evaluation of {Path(document['settings']['model']).name}"
    written = [folder.path / DOCUMENT, write_text(document, folder.path / GENERATIONS),
               *write_reports(document, folder.path / REPORT, title, most)]
    print("\n\n".join(table.text() for table in evaluation_tables(document)))
    print("\n" + "\n".join(map(str, written)))
