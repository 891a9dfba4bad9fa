"""Runs: the folder that a run leaves, and all that is read out of it later.

folder.py while the run writes it, claim.py that no other does, aside.py how it makes way for the next; state.py where
the run is; checkpoint.py what it can go on from; lines.py reading its metrics, log.py its completions and evaluations;
plots.py its pictures.
"""
from .aside import CHECKPOINTS, COMPLETIONS, CONFIG, EVALUATIONS, RECIPE, STATE_FILE
from .folder import (
    READINGS,
    ROUND,
    RunFolder,
    plain,
    replace_bytes,
    replace_text,
    round_name,
    say,
    spelled,
    to_json,
)
from .lines import METRICS, append
from .log import (
    FORMAT,
    completion_steps,
    completions,
    evaluation,
    evaluation_steps,
    latest_model,
    read_document,
    run_to_resume,
)
from .plots import Metrics, figures, plot_run, plot_runs
from .state import TrainerState

__all__ = ["CHECKPOINTS", "COMPLETIONS", "CONFIG", "EVALUATIONS", "FORMAT", "METRICS", "READINGS", "RECIPE", "ROUND",
           "STATE_FILE", "Metrics", "RunFolder", "TrainerState", "append", "completion_steps", "completions",
           "evaluation", "evaluation_steps", "figures", "latest_model", "plain", "plot_run", "plot_runs",
           "read_document", "replace_bytes", "replace_text", "round_name", "run_to_resume", "say", "spelled", "to_json"]
