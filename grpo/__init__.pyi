"""The public names, for type checkers: at run time each is imported on first use."""
from . import (
    datasets as datasets,
    errors as errors,
    ops as ops,
    rewards as rewards,
    trl as trl,
    vision as vision,
)
from .errors import (
    BusyError as BusyError,
    CheckpointCorruptError as CheckpointCorruptError,
    CheckpointError as CheckpointError,
    CheckpointMismatchError as CheckpointMismatchError,
    ConfigError as ConfigError,
    DatasetError as DatasetError,
    DeviceError as DeviceError,
    FileFormatError as FileFormatError,
    GrpoError as GrpoError,
    GrpoWarning as GrpoWarning,
    ImageError as ImageError,
    NonFiniteError as NonFiniteError,
    OutOfMemoryError as OutOfMemoryError,
    RewardError as RewardError,
    RunFolderError as RunFolderError,
    TokenizerError as TokenizerError,
    UnsupportedModelError as UnsupportedModelError,
)
from .model import (
    Completion as Completion,
    Model as Model,
    Tokenizer as Tokenizer,
    load as load,
    tiny as tiny,
)
from .options import GRPOConfig as GRPOConfig, RLOOConfig as RLOOConfig, SFTConfig as SFTConfig
from .training import (
    GRPOTrainer as GRPOTrainer,
    RLOOTrainer as RLOOTrainer,
    SFTTrainer as SFTTrainer,
    TrainingInterrupted as TrainingInterrupted,
    sft as sft,
)
from .trl import (
    DatasetConfig as DatasetConfig,
    DatasetMixtureConfig as DatasetMixtureConfig,
    HfArgumentParser as HfArgumentParser,
    ModelConfig as ModelConfig,
    ScriptArguments as ScriptArguments,
    TrlParser as TrlParser,
    get_dataset as get_dataset,
    get_kbit_device_map as get_kbit_device_map,
    get_peft_config as get_peft_config,
    get_quantization_config as get_quantization_config,
)

__version__: str
