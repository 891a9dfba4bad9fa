"""Options: what a user may ask of a run, by which names, and what a value must be.

config.py every option of GRPOConfig and SFTConfig; rloo.py of RLOOConfig; fields.py how a value becomes a field's;
foreign.py what other trainers call them; presets.py published sets of them; process.py what is asked about processes;
schedule.py learning rates over steps; weights.py a reward's weight over steps; generation.py how tokens are drawn;
plain.py what a run can write down, and YAML; lookup.py how a name finds the file that it stands for. Nothing here runs
anything, and no other room is imported.
"""
from .config import GRPOConfig, SFTConfig, TrainingConfig, steps_of_rounds
from .foreign import ALIASES, NOTED, REFUSED, ROUNDS, WITHOUT_EFFECT, WITHOUT_EFFECT_PREFIXES, refuse, understood
from .generation import sampling_options
from .lookup import Names, attribute, in_file, load_file
from .plain import plain_value, read_yaml
from .presets import PRESETS, preset_options
from .rloo import RLOOConfig
from .schedule import learning_rate, steps_of
from .weights import Weight, checked_weight, weight_at

__all__ = ["ALIASES", "NOTED", "PRESETS", "REFUSED", "ROUNDS", "WITHOUT_EFFECT", "WITHOUT_EFFECT_PREFIXES",
           "GRPOConfig", "Names", "RLOOConfig", "SFTConfig", "TrainingConfig", "Weight", "attribute", "checked_weight",
           "in_file", "learning_rate", "load_file", "plain_value", "preset_options", "read_yaml", "refuse",
           "sampling_options", "steps_of", "steps_of_rounds", "understood", "weight_at"]
