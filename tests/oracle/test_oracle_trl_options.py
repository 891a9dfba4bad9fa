"""The configs and parsers of TRL and transformers beside ours: the same fields, the same values from the same flags."""
import dataclasses

import pytest

import grpo
from grpo.options import option_names

transformers = pytest.importorskip("transformers")
trl = pytest.importorskip("trl")
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

FLAGS = """--output_dir x --bf16 false --use_cpu --gradient_checkpointing true --learning_rate 1e-6 --num_generations 4
    --per_device_train_batch_size 4 --reward_weights 1 0.5 --temperature 9e-1 --report_to none --logging_steps 5
    --lr_scheduler_type cosine --num_train_epochs 2 --scale_rewards batch --log_completions --beta 0.04
    --optim adamw_torch --max_completion_length 64 --seed 7 --save_strategy epoch --run_name y --use_vllm false
    --dataset_name d --dataset_config c --model_name_or_path m --lora_r 8 --lora_target_modules q_proj v_proj""".split()


def plain(value):
    return getattr(value, "value", value)


@pytest.mark.parametrize("ours, theirs", [(grpo.ScriptArguments, trl.ScriptArguments),
                                          (grpo.ModelConfig, trl.ModelConfig),
                                          (grpo.DatasetMixtureConfig, trl.DatasetMixtureConfig)])
def test_the_same_fields_and_defaults(ours, theirs):
    def table(cls):
        return {f.name: f.default for f in dataclasses.fields(cls)}

    assert table(ours) == table(theirs)


@pytest.mark.parametrize("ours, theirs", [(grpo.GRPOConfig, trl.GRPOConfig), (grpo.SFTConfig, trl.SFTConfig)])
def test_every_field_of_a_config_is_one_of_ours(ours, theirs):
    names = {f.name for f in dataclasses.fields(ours)}
    assert {f.name for f in dataclasses.fields(theirs)} <= names
    usual, same = ours(), {f.name: plain(f.default) for f in dataclasses.fields(theirs)
                           if f.default is not dataclasses.MISSING}
    differ = {"gradient_checkpointing", "per_device_train_batch_size", "bf16", "shuffle_dataset", "report_to",
              "remove_unused_columns", "max_length", "learning_rate", "activation_checkpointing"}
    assert {name for name, default in same.items() if plain(getattr(usual, name)) != default} <= differ


@pytest.mark.parametrize("parser", [transformers.HfArgumentParser, trl.TrlParser, grpo.HfArgumentParser,
                                    grpo.TrlParser])
def test_flags_are_read_as_theirs_are(parser):
    def read(parser, types):
        return parser(types).parse_args_into_dataclasses(FLAGS, look_for_args_file=False)

    script, config, model = read(parser, (grpo.ScriptArguments, grpo.GRPOConfig, grpo.ModelConfig))
    theirs = read(trl.TrlParser, (trl.ScriptArguments, trl.GRPOConfig, trl.ModelConfig))
    given = {word[2:] for word in FLAGS if word.startswith("--")}
    for ours, other in zip((script, config, model), theirs, strict=True):
        names = given & {f.name for f in dataclasses.fields(other)}
        assert {n: getattr(ours, n) for n in names} == {n: plain(getattr(other, n)) for n in names}
    assert config.recompute


def test_a_yaml_file_is_read_as_theirs_is(tmp_path):
    (tmp_path / "c.yaml").write_text("learning_rate: 1e-6\nreport_to: []\nnum_generations: 4\n"
                                     "bf16: false\nuse_cpu: true\n"
                                     "per_device_train_batch_size: 4\ndataset_name: null\nreward_weights: [1, 2]\n"
                                     "generation_kwargs: {min_p: 0.1}\n"
                                     "lora_target_modules: [all-linear]\n")
    words = ["--config", str(tmp_path / "c.yaml"), "--num_generations", "2"]
    ours = grpo.TrlParser((grpo.ScriptArguments, grpo.GRPOConfig, grpo.ModelConfig)).parse_args_and_config(words)
    theirs = trl.TrlParser((trl.ScriptArguments, trl.GRPOConfig, trl.ModelConfig)).parse_args_and_config(words)
    for mine, other in zip(ours, theirs, strict=True):
        for name in ("learning_rate", "num_generations", "dataset_name", "reward_weights", "generation_kwargs",
                     "lora_target_modules", "report_to"):
            assert getattr(mine, name, None) == getattr(other, name, None), name


def test_a_subclass_in_transformers_parser():
    @dataclasses.dataclass
    class Mine(grpo.GRPOConfig):
        system_prompt: str | None = dataclasses.field(default=None, metadata={"help": "..."})

    (mine,) = transformers.HfArgumentParser(Mine).parse_args_into_dataclasses(["--system_prompt", "x"],
                                                                             look_for_args_file=False)
    assert mine.system_prompt == "x" and "system_prompt" in option_names(Mine)
