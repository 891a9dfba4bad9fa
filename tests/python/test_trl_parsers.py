"""Command lines and YAML files as TRL's scripts read them, and what ModelConfig asks for."""
import dataclasses
import enum
import os
import sys
from typing import Literal

import pytest

import grpo
from grpo import GRPOConfig, HfArgumentParser, ModelConfig, ScriptArguments, SFTConfig, TrlParser
from grpo.errors import ConfigError, GrpoWarning
from grpo.trl import DatasetMixtureConfig

YAML = """
env:
  TEST_OF_PARSERS: 7
model_name_or_path: Qwen/Qwen2.5-0.5B-Instruct
dtype: bfloat16
attn_implementation: flash_attention_2
dataset_name: trl-lib/DeepMath-103K
dataset_train_split: train
system_prompt: "You are a helpful assistant."
reward_funcs:
- accuracy
- format
bf16: true
use_vllm: true
gradient_checkpointing: true
gradient_checkpointing_kwargs:
  use_reentrant: false
learning_rate: 1e-6
num_generations: 4
lr_scheduler_type: cosine_with_min_lr
lr_scheduler_kwargs:
  min_lr_rate: 0.1
warmup_ratio: 0.1
reward_weights: [1, 0.5]
output_dir: data/x
report_to: []
hub_model_id: null
evaluation_strategy: "no"
"""


class Color(enum.Enum):
    """A choice."""

    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Script(ScriptArguments):
    """open-r1's, in short."""

    reward_funcs: list[str] = dataclasses.field(default_factory=lambda: ["accuracy"], metadata={"help": "100% of it"})
    max_pixels: int = 12845056
    color: Color = Color.RED
    level: Literal["low", 3] = "low"
    ratio: float | None = None
    quiet: bool = True
    loud: bool | None = None
    columns: dict | None = None


@dataclasses.dataclass
class Config(GRPOConfig):
    """The config of a script."""

    system_prompt: str | None = dataclasses.field(default=None, metadata={"help": "..."})


ALL = (Script, Config, ModelConfig)


def parsed(*words, types=ALL, **how):
    return TrlParser(types).parse_args_and_config(list(words), **how)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(YAML)
    return str(file)


@pytest.mark.parametrize("flag", ["--config {}", "--config={}"])
def test_a_yaml_file_of_a_script(path, flag, monkeypatch, capsys):
    monkeypatch.setenv("TEST_OF_PARSERS", "0")
    with pytest.warns(GrpoWarning, match="use_vllm"):
        script, config, model = parsed(*flag.format(path).split(), "--num_generations", "8", "--no_shuffle_dataset")
    assert os.environ["TEST_OF_PARSERS"] == "7"
    assert (script.dataset_name, script.reward_funcs) == ("trl-lib/DeepMath-103K", ["accuracy", "format"])
    assert (config.learning_rate, config.num_generations, config.recompute, config.shuffle_dataset) == (
        1e-6, 8, True, False)
    assert config.lr_scheduler_kwargs == {"min_lr_rate": 0.1} and config.reward_weights == [1.0, 0.5]
    assert (config.system_prompt, config.report_to, config.hub_model_id) == ("You are a helpful assistant.", [], None)
    assert (model.model_name_or_path, model.dtype, model.attn_implementation) == (
        "Qwen/Qwen2.5-0.5B-Instruct", "bfloat16", "flash_attention_2")
    assert config.max_pixels is None and script.max_pixels == 12845056


def test_flags_of_each_type():
    script, config, _ = parsed(
        "--color", "blue", "--level", "3", "--ratio", "1e-2", "--no_quiet", "--loud", "true", "--columns", '{"a": 1}',
        "--generation_kwargs", '{"min_p": 0.1}', "--scale_rewards", "False", "--bf16", "--log-completions",
        "--reward_weights", "1", "2", "--report_to", "none", "--max_steps", "3", "--fp16", "false", "--epsilon=1e-1",
        "--num_chains", "4", "--device", "cpu", "--no-shuffle-dataset", "--optim", "adamw_torch")
    assert (script.color, script.level, script.ratio, script.quiet, script.loud) == ("blue", 3, 0.01, False, True)
    assert script.columns == {"a": 1} and config.generation_kwargs == {"min_p": 0.1}
    assert (config.scale_rewards, config.log_completions, config.reward_weights) == ("none", True, [1.0, 2.0])
    assert (config.max_steps, config.epsilon, config.num_generations, config.device) == (3, 0.1, 4, "cpu")
    assert config.shuffle_dataset is False


@pytest.mark.parametrize("words, named", [
    (["--max_stepz", "3"], "did you mean '--max_steps'"), (["--fp16"], "fp16=True cannot be honoured"),
    (["--num_generations", "x"], "num_generations='x' must be int"), (["--config"], "--config needs a YAML file"),
    (["--load_in_8bit", "--load_in_4bit"], "give one"), (["--config", "/nowhere.yaml"], "/nowhere.yaml"),
    (["--fp16", "--load_in_8bit", "--load_in_4bit"], "2 options cannot be taken"),
])
def test_what_is_wrong_is_named(words, named):
    with pytest.raises(ConfigError) as error:
        parsed(*words)
    assert named in str(error.value)


@pytest.mark.parametrize("words", [["--quiet", "perhaps"], ["--ratio", "x"], ["--color", "green"], ["--columns", "{"]])
def test_values_that_argparse_refuses(words):
    with pytest.raises(SystemExit):
        parsed(*words)


def test_entries_of_a_file_that_nothing_has(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("max_stepz: 3\nlearning_rate: 2e-6")
    with pytest.raises(ConfigError, match="c.yaml has entries.*'max_stepz'; did you mean 'max_steps'"):
        parsed("--config", str(file))
    with pytest.warns(GrpoWarning, match="max_stepz.*are left out"):
        assert parsed("--config", str(file), fail_with_unknown_args=False)[1].learning_rate == 2e-6
    *_, rest = parsed("--config", str(file), "--more", "1", return_remaining_strings=True)
    assert rest == ["--max_stepz", "3", "--more", "1"]
    *_, of_file, of_words = parsed("--config", str(file), "--more", "1", return_remaining_strings=True,
                                   separate_remaining_strings=True)
    assert (of_file, of_words) == (["--max_stepz", "3"], ["--more", "1"])


@pytest.mark.parametrize("text, named", [("[1]", "mapping"), ("a: [", "expected"), ("env: 3", "env must be"),
                                         ("1: 2", "mapping")])
def test_files_that_say_nothing(tmp_path, text, named):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=named):
        parsed("--config", str(tmp_path / "c.yaml"))


def test_a_required_field_may_stand_in_the_file(tmp_path):
    @dataclasses.dataclass
    class Needs:
        name: str
        size: int = 3

    (tmp_path / "c.yaml").write_text("name: x")
    assert parsed("--config", str(tmp_path / "c.yaml"), types=Needs)[0].name == "x"
    with pytest.raises(SystemExit):
        parsed(types=Needs)


def test_a_field_called_config_is_refused():
    with pytest.raises(ConfigError, match="has a field called config"):
        TrlParser(dataclasses.make_dataclass("Bad", [("config", str, "x")]))


def test_dicts_and_files(tmp_path):
    parser = HfArgumentParser((GRPOConfig, ModelConfig))
    (tmp_path / "a.json").write_text('{"beta": 0.1, "lora_r": 4}')
    (tmp_path / "a.yaml").write_text("beta: 1e-1\nlora_r: 4")
    for config, model in (parser.parse_dict({"beta": 0.1, "lora_r": 4}), parser.parse_json_file(tmp_path / "a.json"),
                          parser.parse_yaml_file(tmp_path / "a.yaml")):
        assert (config.beta, model.lora_r) == (0.1, 4)
    with pytest.raises(ConfigError, match="'betta'; did you mean 'beta'"):
        parser.parse_dict({"betta": 1})
    assert parser.parse_dict({"betta": 1}, allow_extra_keys=True)[0].beta == 0.0
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ConfigError, match="b.json"):
        parser.parse_json_file(tmp_path / "b.json")


def test_a_file_of_arguments_beside_the_script(tmp_path, monkeypatch):
    (tmp_path / "train.args").write_text("--max_steps 3 --beta 0.1")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "train.py"), "--beta", "0.2"])
    (config,) = HfArgumentParser(SFTConfig).parse_args_into_dataclasses(["--max_steps", "4"], look_for_args_file=False)
    assert config.max_steps == 4
    (config,) = HfArgumentParser(GRPOConfig).parse_args_into_dataclasses()
    assert (config.max_steps, config.beta) == (3, 0.2)


def test_arguments_that_are_no_fields():
    parser = HfArgumentParser(GRPOConfig)
    parser.add_argument("--more", type=int, default=1)
    config, rest = parser.parse_args_into_dataclasses(["--more", "3"])
    assert rest.more == 3 and config.beta == 0.0


def test_help_has_every_option():
    text = HfArgumentParser(ALL).format_help()
    assert all(f"--{name}" in text for name in grpo.options.option_names(Config)) and "100% of it" in text


# -- what ModelConfig asks of a model

def test_what_model_config_asks_for():
    assert grpo.get_peft_config(ModelConfig()) is None and grpo.get_quantization_config(ModelConfig()) is None
    assert grpo.get_kbit_device_map() is None
    with pytest.raises(ConfigError, match="use_peft=True cannot be honoured: adapters"):
        grpo.get_peft_config(ModelConfig(use_peft=True))
    with pytest.raises(ConfigError, match="load_in_4bit=True cannot"):
        grpo.get_quantization_config(ModelConfig(load_in_4bit=True))
    assert ModelConfig(lora_target_modules=["all-linear"]).lora_target_modules == "all-linear"


def test_a_mixture_of_data_sets(tmp_path):
    (tmp_path / "c.yaml").write_text("datasets:\n- path: a\n  split: x\n- b\n")
    (mixture,) = parsed("--config", str(tmp_path / "c.yaml"), types=DatasetMixtureConfig)
    assert [(one.path, one.split) for one in mixture.datasets] == [("a", "x"), ("b", "train")]
    with pytest.raises(ConfigError, match=r"datasets\[0\].*'pth'"):
        DatasetMixtureConfig(datasets=[{"pth": "a"}])
