"""Every option of TRL's configs is honoured, harmless, or refused by name; options that are set later; subclasses."""
import contextlib
import copy
import dataclasses
import datetime
import enum
import io
import json
import pathlib
import pickle
import types
import warnings

import numpy as np
import pytest

import toy
from grpo import GRPOConfig, RLOOConfig, SFTConfig
from grpo.errors import ConfigError, GrpoWarning
from grpo.options import ALIASES, KEPT, NOTED, WITHOUT_EFFECT, option_names, refuse_ranks
from trl_options import GRPO_CONFIG, SFT_CONFIG

SFT_DEFAULTS = {**{name: value for name, value in GRPO_CONFIG.items() if name in SFTConfig.__dataclass_fields__},
                **SFT_CONFIG}
OF = {GRPOConfig: GRPO_CONFIG, SFTConfig: SFT_DEFAULTS}
TABLE = [(kind, name) for kind, options in OF.items() for name in options]
# what stands for another value of each type
ANOTHER = {bool: True, int: 3, float: 0.5, str: "x", list: ["x"], type(None): "x"}


def said_by(make):
    """(what is raised or None, all that is said)"""
    error, lines = None, io.StringIO()
    with warnings.catch_warnings(record=True) as seen, contextlib.redirect_stderr(lines):
        warnings.simplefilter("always")
        try:
            make()
        except ConfigError as raised:
            error = str(raised)
    return error, "".join(str(one.message) for one in seen) + lines.getvalue()


@pytest.mark.parametrize("kind, name", TABLE)
def test_a_default_of_trl_is_taken_in_silence(kind, name):
    error, said = said_by(lambda: kind(**{name: OF[kind][name]}))
    assert error is None and (not said or name in ("remove_unused_columns", "pad_to_multiple_of"))


@pytest.mark.parametrize("kind, name", TABLE)
def test_another_value_is_honoured_or_said_or_refused(kind, name):
    default = OF[kind][name]
    value = (not default) if isinstance(default, bool) else ANOTHER[type(default)]
    error, said = said_by(lambda: kind(**{name: value}))
    own = {**ALIASES, "load_best_model_at_end": "metric_for_best_model"}.get(name, name)
    assert error is None or (own in error and "unknown option" not in error)
    if own in option_names(kind) or error is not None or name in (*KEPT, "use_cpu"):
        return
    assert name in said or not value or value in NOTED[name][0] if name in NOTED else \
        name in WITHOUT_EFFECT and (name in said or not value)


@pytest.mark.parametrize("kind", OF)
def test_all_defaults_at_once_as_a_parser_gives_them(kind):
    usual = kind()
    error, said = said_by(lambda: kind(**{f.name: f.default for f in dataclasses.fields(kind) if f.init}))
    assert error is None and said == ""
    assert kind(**{f.name: f.default for f in dataclasses.fields(kind) if f.init}) == usual


def test_options_of_others_can_be_read():
    config = GRPOConfig(bf16=True, gradient_checkpointing=True, deepspeed=None, eval_strategy="steps",
                        dataloader_num_workers=2, hub_token="secret")
    assert (config.bf16, config.fp16, config.gradient_checkpointing, config.recompute) == (True, False, True, True)
    assert (config.do_eval, config.dataloader_num_workers, config.use_cpu, config.optim) == (
        True, 2, False, "adamw_torch_fused")
    assert "hub_token" not in config.to_yaml() and "secret" not in config.to_json_string()
    assert config.to_dict()["hub_token"] == "<HUB_TOKEN>" and json.loads(config.to_json_string())["bf16"] is True
    assert not set(yaml_names(config)) & {"bf16", "optim", "dataloader_num_workers"}


def yaml_names(config):
    return [line.partition(":")[0] for line in config.to_yaml().splitlines()]


# -- what changes sampling

class SamplingParams:
    """vLLM's, as far as it is asked."""

    def __init__(self, n=1, temperature=1.0, min_p=0.0, top_k=0, seed=None, stop=None, max_tokens=16,
                 include_stop_str_in_output=False, ignore_eos=False):
        vars(self).update({name: value for name, value in locals().items() if name != "self"})


@pytest.mark.parametrize("params, options", [
    ({"min_p": 0.1, "stop": ["</answer>"]}, dict(min_p=0.1, generation_kwargs={"stop": ["</answer>"]})),
    ({"temperature": 0.6, "top_p": 0.9, "top_k": -1}, dict(temperature=0.6, top_p=0.9, top_k=-1)),
    ({"repetition_penalty": 1.1, "min_tokens": 3},
     dict(repetition_penalty=1.1, generation_kwargs={"min_new_tokens": 3})),
    ({"seed": 3407, "max_tokens": 9, "n": 8, "logprobs": 0, "presence_penalty": 0.0, "stop": None},
     dict(seed=3407, max_completion_length=9)),
    (SamplingParams(min_p=0.1, seed=7, stop=["a"], include_stop_str_in_output=True),
     dict(min_p=0.1, seed=7, generation_kwargs={"stop": ["a"]})),
    (types.SimpleNamespace(_set_kwargs={"top_k": 5}, temperature=0.3), dict(top_k=5)), (None, {}), ({}, {}),
])
def test_sampling_params_of_vllm(params, options):
    assert GRPOConfig(vllm_sampling_params=params).options() == GRPOConfig(**options).options()


def test_a_seed_of_sampling_leaves_the_order_of_the_data():
    config = GRPOConfig(seed=1, vllm_sampling_params={"seed": 2})
    assert (config.seed, config.order_seed) == (2, 1)


@pytest.mark.parametrize("options, named", [
    (dict(vllm_sampling_params={"guided_decoding": "x"}), "guided_decoding='x' cannot be honoured"),
    (dict(vllm_sampling_params={"structured_outputs": {"regex": "x"}}), "sampled freely"),
    (dict(vllm_sampling_params={"presence_penalty": 0.5, "logit_bias": {1: 2}}), "logit_bias"),
    (dict(vllm_sampling_params={"minp": 0.5}), "did you mean 'min_p'"),
    (dict(vllm_sampling_params=SamplingParams(ignore_eos=True)), "ignore_eos=True"),
    (dict(vllm_sampling_params=3), "a mapping, or vLLM's SamplingParams"),
    (dict(vllm_sampling_params={"temperature": 0.6}, temperature=0.9), "say different things"),
    (dict(vllm_sampling_params={"stop": ["a"]}, generation_kwargs={"stop": ["b"]}), "stop=['b'] say different"),
    (dict(vllm_sampling_params={"min_p": 3}), "min_p=3.0 must be <= 1"),
    (dict(vllm_guided_decoding_regex="[0-9]+"), "sampled freely"), (dict(vllm_no_such_thing=1), "vllm_no_such_thing"),
    (dict(vllm_gpu_memory_utilisation=0.3), "did you mean 'vllm_gpu_memory_utilization'"),
    (dict(generation_kwargs={"seed": 3}), "Use seed"), (dict(generation_kwargs={"guided_decoding": "x"}), "freely"),
])
def test_what_would_change_sampling_is_refused(options, named):
    with pytest.raises(ConfigError) as error:
        GRPOConfig(**options)
    assert named in str(error.value)


@pytest.mark.parametrize("kwargs", [{"max_new_tokens": 512}, {"seed": 42}, {"num_beams": 1, "do_sample": True},
                                    {"skip_special_tokens": False, "n": 1, "frequency_penalty": 0}])
def test_generation_kwargs_that_ask_for_what_happens_anyway(kwargs):
    assert GRPOConfig(generation_kwargs=kwargs).generation_kwargs == kwargs


# -- one error for all

def test_everything_that_is_wrong_is_said_at_once():
    with pytest.raises(ConfigError) as error:
        GRPOConfig(fp16=True, nonsense=1, beta="strong", temperature=0, num_generations=3, save_strategy="best")
    said = str(error.value)
    assert said.startswith("6 options cannot be taken:\n  - ")
    assert all(f"- {name}" in said for name in ("fp16=True", "unknown option 'nonsense'", "beta='strong'",
                                                "temperature=0.0", "a rollout of 8", "save_strategy='best'"))


def test_what_follows_from_a_wrong_option_is_not_said():
    with pytest.raises(ConfigError, match="^num_generations='many' must be int"):
        GRPOConfig(num_generations="many", per_device_train_batch_size=6)


# -- values

class Strategy(enum.StrEnum):
    """transformers' IntervalStrategy, as far as it is asked."""

    STEPS = "steps"


class Shape(enum.Enum):
    """transformers' SchedulerType, without its base."""

    COSINE = "cosine"


@pytest.mark.parametrize("name, value, kept", [
    ("save_strategy", Strategy.STEPS, "steps"), ("lr_scheduler_type", Shape.COSINE, "cosine"),
    ("output_dir", pathlib.Path("a") / "b", "a/b"), ("run_name", datetime.date(2026, 1, 2), "2026-01-02"),
    ("seed", np.int64(3), 3), ("beta", np.float32(0.5), 0.5), ("shuffle_dataset", np.bool_(False), False),
    ("learning_rate", "1e-6", 1e-6), ("generation_kwargs", '{"min_p": 0.1}', {"min_p": 0.1}),
    ("generation_kwargs", {"top_p": np.float64(0.9)}, {"top_p": 0.9}), ("chat_template_kwargs", "none", None),
    ("chat_template_kwargs", {"date": datetime.date(2026, 1, 2), "in": pathlib.Path("x"), "how": Shape.COSINE},
     {"date": "2026-01-02", "in": "x", "how": "cosine"}),
    ("scale_rewards", "True", "group"), ("scale_rewards", False, "none"), ("resume_from_checkpoint", "true", True),
    ("curriculum_stages", '["a", "b"]', ["a", "b"]), ("reward_weights", np.array([1.0, 2.0]), [1.0, 2.0]),
    ("report_to", [], []), ("shuffle_dataset", "false", False),
])
def test_values_become_plain(name, value, kept):
    config = GRPOConfig(**{name: value}, **({"curriculum": "x"} if name == "curriculum_stages" else {}))
    got = getattr(config, name)
    assert got == kept and type(got) is type(kept)
    assert json.loads(json.dumps(config.options())) == config.options()


@pytest.mark.parametrize("name, value", [("generation_kwargs", "{"), ("generation_kwargs", "[1]"),
                                         ("chat_template_kwargs", {"f": print}), ("lr_scheduler_kwargs", "x")])
def test_values_that_no_file_can_hold(name, value):
    with pytest.raises(ConfigError, match=name):
        GRPOConfig(**{name: value})


def test_float32_weights_are_masters(capsys):
    config = GRPOConfig(model_init_kwargs={"dtype": "float32", "attn_implementation": "sdpa", "revision": "main"})
    assert config.model_options()["dtype"] is None and "masters" in capsys.readouterr().err
    for given, named in (({"trust_remote_code": True}, "trust_remote_code=True"),
                         ({"attn": 1}, "unknown option 'attn'"), ({"device_map": "cuda:1"}, "device_map='cuda:1'")):
        with pytest.raises(ConfigError, match=f"model_init_kwargs: {named}"):
            GRPOConfig(model_init_kwargs=given)


# -- options that are set later

@pytest.mark.parametrize("name, value, named", [
    ("max_completion_lenght", 9, "did you mean 'max_completion_length'"), ("beta", "strong", "beta='strong'"),
    ("fp16", True, "fp16=True cannot"), ("vllm_no_such_thing", 1, "unknown option"), ("loss_type", "ppo", "loss_type"),
    ("num_train_iters", 9, "set max_steps"), ("vllm_guided_decoding_regex", "x", "sampled freely"),
])
def test_an_option_that_is_set_is_checked(name, value, named):
    config = GRPOConfig()
    with pytest.raises(ConfigError) as error:
        setattr(config, name, value)
    assert named in str(error.value)


def test_what_can_be_set():
    config = GRPOConfig()
    config.learning_rate, config.gradient_checkpointing, config.evaluation_strategy = "1e-4", True, "steps"
    config.bf16, config.use_cpu, config.output_dir, config.num_chains = True, True, pathlib.Path("x"), 4
    assert (config.learning_rate, config.recompute, config.eval_strategy) == (1e-4, True, "steps")
    assert (config.bf16, config.device, config.output_dir, config.num_generations) == (True, "cpu", "x", 4)


def test_options_that_do_not_fit_together_are_named_by_the_trainer(tmp_path):
    config = GRPOConfig(output_dir=str(tmp_path / "run"), max_completion_length=4)
    config.num_generations = 3
    with pytest.raises(ConfigError, match="num_generations=3"):
        toy.grpo.GRPOTrainer(toy.model("ref"), toy.byte_values, config, [{"prompt": "a"}])
    config.num_generations = 4
    trainer = toy.grpo.GRPOTrainer(toy.model("ref"), toy.byte_values, config, [{"prompt": "a"}])
    assert trainer.args.prompts_per_rollout == 2


def test_what_follows_from_other_options_follows_again():
    config = GRPOConfig(prompts_per_step=4, num_generations=8)
    config.num_generations = 4
    assert config.validated().batch_size == 16
    rloo = RLOOConfig()
    rloo.beta = 0.0
    assert rloo.validated().kl_in_reward is False


# -- dataclasses on top

@dataclasses.dataclass
class Mine(GRPOConfig):
    """A script's own."""

    learning_rate: float = 1e-5
    system_prompt: str | None = dataclasses.field(default=None, metadata={"help": "..."})
    benchmarks: list[str] = dataclasses.field(default_factory=list)
    call: object = None

    def __post_init__(self):
        super().__post_init__()
        self.made = len(self.benchmarks)


def test_a_dataclass_on_top_of_a_config():
    mine = Mine("out", system_prompt="x", bf16=True, num_chains=4, preset="dapo", benchmarks=["a"], call=print)
    assert (mine.output_dir, mine.system_prompt, mine.num_generations, mine.epsilon_high) == ("out", "x", 4, 0.28)
    assert (mine.learning_rate, mine.made) == (1e-5, 1)
    assert "system_prompt: x" in mine.to_yaml() and "<builtins.builtin_function_or_method>" in mine.to_yaml()
    with pytest.raises(ConfigError, match="did you mean 'system_prompt'"):
        Mine(system_promt="x")
    with pytest.raises(ConfigError, match="learning_rate='fast' must be float"):
        Mine(learning_rate="fast")
    mine.system_prompt, mine.made = "y", 2
    with pytest.raises(ConfigError, match="unknown option 'sytem_prompt'"):
        mine.sytem_prompt = "z"


def test_a_class_with_a_constructor_of_its_own():
    class Own(GRPOConfig):
        def __init__(self, own=1, **options):
            self.own = own
            super().__init__(**options)

    assert (Own(own=2, num_chains=4).num_generations, Own(own=2).own) == (4, 2)


def test_a_post_init_that_calls_no_other_is_checked_too():
    @dataclasses.dataclass
    class Bare(GRPOConfig):
        def __post_init__(self):
            self.length = 3

    with pytest.raises(ConfigError, match="beta='x'"):
        Bare(beta="x")
    assert Bare().length == 3


@pytest.mark.parametrize("config", [Mine(system_prompt="x"), GRPOConfig(prompts_per_step=2), SFTConfig()])
def test_copies(config):
    assert copy.copy(config) == copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config
    again = copy.deepcopy(config)
    with pytest.raises(ConfigError):
        again.seed = "x"


# -- one process

@pytest.mark.parametrize("environ", [{"WORLD_SIZE": "2"}, {"OMPI_COMM_WORLD_SIZE": "4"}, {"SLURM_NTASKS": "2"},
                                     {"PMI_SIZE": "2"}, {"SLURM_STEP_NUM_TASKS": "3", "SLURM_NTASKS": "1"}])
def test_one_of_several_processes_is_refused(environ, monkeypatch):
    with pytest.raises(ConfigError, match=next(iter(environ))):
        refuse_ranks(environ)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="would train the whole run"):
        toy.grpo.GRPOTrainer(toy.model("ref"), toy.byte_values, GRPOConfig(), [{"prompt": "a"}])


@pytest.mark.parametrize("environ", [{}, {"WORLD_SIZE": "1"}, {"WORLD_SIZE": "1", "SLURM_NTASKS": "8"},
                                     {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8"}, {"WORLD_SIZE": ""}])
def test_a_process_that_is_alone(environ):
    refuse_ranks(environ)


def test_warnings_are_of_this_package():
    with pytest.warns(GrpoWarning, match="overwrite_output_dir=True: an existing run"):
        GRPOConfig(overwrite_output_dir=True)
