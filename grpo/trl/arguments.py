"""The dataclasses of a TRL script's command line, field by field."""
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError


def flag(default: Any, help: str, **metadata: Any) -> Any:
    """A field with its help text."""
    return field(default=default, metadata={"help": help, **metadata})


@dataclass
class ScriptArguments:
    """The data of a script."""

    dataset_name: str | None = flag(None, "Name of a data set, a file, a folder or a hub id.")
    dataset_config: str | None = flag(None, "Its configuration: load_dataset's name.")
    dataset_train_split: str = flag("train", "The split to train on.")
    dataset_test_split: str = flag("test", "The split to evaluate on.")
    dataset_streaming: bool = flag(False, "Read it as it comes: load_dataset's streaming.")
    ignore_bias_buffers: bool = flag(False, "Of distributed training; without effect here.")


@dataclass
class DatasetConfig:
    """One data set of a mixture, by the arguments of datasets.load_dataset. columns: those that are kept. fraction:
    its share of the mixture."""

    path: str
    name: str | None = None
    data_dir: str | None = None
    data_files: str | list[str] | dict[str, str] | None = None
    split: str = "train"
    columns: list[str] | None = None
    fraction: float | None = None


@dataclass
class DatasetMixtureConfig:
    """Data sets that are joined."""

    datasets: list[DatasetConfig] = field(
        default_factory=list, metadata={"help": "Data sets to join: mappings of path, name, split ..."})
    streaming: bool = flag(False, "Read them as they come.")
    test_split_size: float | None = flag(None, "Share or number of rows to hold out; None: none.")

    def __post_init__(self) -> None:
        self.datasets = [one_of(entry, f"datasets[{number}]") for number, entry in enumerate(self.datasets or [])]


def one_of(entry: Any, where: str) -> DatasetConfig:
    """An entry of datasets. ConfigError for what is none."""
    if isinstance(entry, DatasetConfig):
        return entry
    try:
        return DatasetConfig(**entry) if isinstance(entry, Mapping) else DatasetConfig(path=str(entry))
    except TypeError as error:
        raise ConfigError(f"{where}: {str(error).removeprefix('DatasetConfig.__init__() ')}; an entry is a mapping "
                          f"with path, and any of {', '.join(list(DatasetConfig.__dataclass_fields__)[1:])}") from error


@dataclass
class ModelConfig:
    """The model of a script."""

    model_name_or_path: str | None = flag(None, "A folder, a .gguf file or a hub id.")
    model_revision: str = flag("main", "Of a hub id; only main is read.")
    dtype: str | None = flag("float32", "Accepted as TRL has it; weights are bfloat16 with float32 masters, float32 on "
                             "device='ref'.", choices=["auto", "bfloat16", "float16", "float32"])
    attn_implementation: str | None = flag(None, "Without effect here: there is one attention.")
    use_peft: bool = flag(False, "Train adapters; refused by get_peft_config.")
    lora_r: int = flag(16, "Rank of adapters.")
    lora_alpha: int = flag(32, "Their scale times their rank.")
    lora_dropout: float = flag(0.05, "Their dropout.")
    lora_target_modules: list[str] | None = flag(None, "Products that have one.")
    lora_target_parameters: list[str] | None = flag(None, "Parameters that have one.")
    lora_modules_to_save: list[str] | None = flag(None, "Modules that are trained whole.")
    lora_task_type: str = flag("CAUSAL_LM", "The model's task.")
    use_rslora: bool = flag(False, "Scale by lora_alpha / sqrt(lora_r).")
    use_dora: bool = flag(False, "Train magnitudes apart from directions.")
    load_in_8bit: bool = flag(False, "Weights in 8 bits; refused by get_quantization_config.")
    load_in_4bit: bool = flag(False, "Weights in 4 bits; refused by get_quantization_config.")
    bnb_4bit_quant_type: str = flag("nf4", "Format of those.", choices=["fp4", "nf4"])
    use_bnb_nested_quant: bool = flag(False, "Quantise their scales too.")
    bnb_4bit_quant_storage: str | None = flag(None, "Their storage.")

    def __post_init__(self) -> None:
        if self.load_in_8bit and self.load_in_4bit:
            raise ConfigError("load_in_8bit and load_in_4bit: give one")
        if isinstance(self.lora_target_modules, (list, tuple)) and len(self.lora_target_modules) == 1:
            self.lora_target_modules = self.lora_target_modules[0]  # type: ignore[assignment]  # as TRL has it
