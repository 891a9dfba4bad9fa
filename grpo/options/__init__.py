"""Options: what a user may ask of a run, by which names, and what a value must be.

config.py every option of GRPOConfig and SFTConfig, rloo.py of RLOOConfig; common.py those that they share; base.py how
options are taken, set later and written; fields.py how a value becomes a field's; foreign.py what other trainers call
them, and others.py what only they have; process.py what is said of the process and ranks.py whether it is alone;
presets.py published sets of them; schedule.py learning rates over steps; weights.py a reward's weight over steps;
generation.py how tokens are drawn; reporters.py the loggers; plain.py what a run can write down, and YAML; lookup.py
how a name finds the file that it stands for. Nothing here runs anything, and no other room is imported.
"""
from .base import meaningful, option_names, others_of
from .common import TrainingConfig
from .config import GRPOConfig, SFTConfig, steps_of_rounds
from .fields import Meaning, kinds_of, meaning_of
from .foreign import ALIASES, KEPT, NOTED, REFUSED, ROUNDS, WITHOUT_EFFECT, raise_all, refuse, understood
from .generation import sampling_options
from .lookup import Names, attribute, in_file, load_file
from .plain import plain_value, read_yaml
from .presets import PRESETS, preset_options
from .ranks import refuse_ranks
from .rloo import RLOOConfig
from .schedule import learning_rate, steps_of
from .weights import Weight, checked_weight, weight_at

__all__ = ["ALIASES", "KEPT", "NOTED", "PRESETS", "REFUSED", "ROUNDS", "WITHOUT_EFFECT", "GRPOConfig", "Meaning",
           "Names", "RLOOConfig", "SFTConfig", "TrainingConfig", "Weight", "attribute", "checked_weight", "in_file",
           "kinds_of", "learning_rate", "load_file", "meaning_of", "meaningful", "option_names", "others_of",
           "plain_value", "preset_options", "raise_all", "read_yaml", "refuse", "refuse_ranks", "sampling_options",
           "steps_of", "steps_of_rounds", "understood", "weight_at"]
