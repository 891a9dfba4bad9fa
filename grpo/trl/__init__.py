"""What a script imports from trl besides trainers and configs, with the same names, flags and YAML files.

arguments.py the dataclasses of a command line; parsers.py how it is read; models.py what ModelConfig asks of a model;
mixtures.py data sets that a YAML file names. Every name of it is one of grpo, too.

>>> from grpo.trl import GRPOConfig, ModelConfig, ScriptArguments, TrlParser
>>> parser = TrlParser((ScriptArguments, GRPOConfig, ModelConfig))
>>> script, training, model = parser.parse_args_and_config(["--dataset_name", "rows.jsonl", "--beta", "1e-3"])
>>> script.dataset_name, training.beta, model.model_revision
('rows.jsonl', 0.001, 'main')
"""
from ..options import GRPOConfig, SFTConfig
from ..training import GRPOTrainer, SFTTrainer
from .arguments import DatasetConfig, DatasetMixtureConfig, ModelConfig, ScriptArguments
from .mixtures import get_dataset
from .models import get_kbit_device_map, get_peft_config, get_quantization_config
from .parsers import HfArgumentParser, TrlParser

__all__ = ["DatasetConfig", "DatasetMixtureConfig", "GRPOConfig", "GRPOTrainer", "HfArgumentParser", "ModelConfig",
           "SFTConfig", "SFTTrainer", "ScriptArguments", "TrlParser", "get_dataset", "get_kbit_device_map",
           "get_peft_config", "get_quantization_config"]
