"""Recipes: those of the package, what a file may say, what other systems call it, and what is checked before a run."""
import json

import pytest

import grpo
from grpo import cli, recipes
from grpo.errors import ConfigError, GrpoWarning
from grpo.recipes import Recipe
from grpo.recipes.preparation import default_rewards, prepare
from grpo.rewards.adapters import adapt


def run(*words):
    """The exit code of a command line."""
    return cli.main([str(word) for word in words])


# those of the package


@pytest.mark.parametrize("name", recipes.names())
def test_recipes_of_the_package_are_whole(name, tmp_path):
    recipe = Recipe.read(name)
    recipe.config()
    assert recipe.dataset and recipe.rewards and recipe.model and 20 < len(recipe.about) < 110
    if recipe.sft is not None:
        assert recipe.sft_config().max_steps > 0
        if recipe.dataset == "flowers":                        # its files are others', and downloaded
            for picture in (tmp_path / f"{split}/{name}/1.png" for split in ("train", "test") for name in ("a", "b")):
                picture.parent.mkdir(parents=True)
                picture.touch()
            recipe = recipe.change({"dataset_kwargs.path": str(tmp_path), "sft.dataset_kwargs.shots": 1})
        assert recipe.sft_rows()


@pytest.mark.parametrize("dataset, shown", [("digits", "dataset: row 0"), ("messages", "dataset: row 1")])
def test_images_for_a_model_that_sees_none(dataset, shown, tmp_path, capsys):
    """Said before anything else, with row and model."""
    rows = [{"prompt": [{"role": "user", "content": "q"}], "answer": "4"},
            {"prompt": [{"role": "user", "content": [{"type": "image", "image": "a.png"}]}], "answer": "5"}]
    (tmp_path / "messages.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = str(tmp_path / "messages.jsonl") if dataset == "messages" else dataset
    grpo.load(grpo.tiny("qwen2")).save_pretrained(tmp_path / "text")
    words = ("train", "--model", tmp_path / "text", "--dataset", dataset, "--rewards", "accuracy_reward")
    assert run(*words) == run(*words, "--check") == 1
    said = f"{shown} shows images, and {tmp_path / 'text'} (qwen2) sees none: it has no vision tower"
    assert capsys.readouterr().err.count(said) == 2


def test_the_list_of_recipes(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run("recipes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 80 and [line.split()[0] for line in lines if line[2] != " "] == recipes.names()
    monkeypatch.setenv("COLUMNS", "200")
    assert run("recipes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == recipes.names() and max(map(len, lines)) < 130


@pytest.mark.parametrize("name", recipes.names())
def test_a_printed_recipe_is_the_recipe(name, tmp_path, capsys):
    assert run("recipes", name) == 0
    (tmp_path / f"{name}.yaml").write_text(capsys.readouterr().out)
    assert Recipe.read(str(tmp_path / f"{name}.yaml")) == Recipe.read(name)


@pytest.mark.parametrize("name, published", [
    ("dapo", dict(loss_type="dapo", beta=0.0, epsilon=0.2, epsilon_high=0.28, dynamic_sampling=True,
                  learning_rate=1e-6)),
    ("dr_grpo", dict(loss_type="dr_grpo", beta=0.0, scale_rewards="none", num_generations=8, learning_rate=1e-6)),
    ("gspo", dict(importance_sampling_level="sequence", beta=0.0, epsilon=3e-4, epsilon_high=4e-4,
                  steps_per_rollout=4)),
    ("gsm8k", dict(num_generations=16, learning_rate=5e-6, beta=0.04, temperature=0.9, max_completion_length=786,
                   max_steps=250, adam_beta2=0.99,
                   weight_decay=0.1, max_grad_norm=0.1, warmup_ratio=0.18, seed=7111994, prompts_per_step=4)),
    *((name, dict(num_generations=16, learning_rate=5e-6, beta=0.04, temperature=0.9, max_completion_length=786,
                  max_steps=750, warmup_ratio=0.18, prompts_per_step=4))
      for name in ("clock", "correlation", "gui", "captcha")),
    ("counting", dict(num_generations=5, learning_rate=5e-7, beta=0.001, max_completion_length=1024, warmup_steps=25,
                      lr_scheduler_type="cosine", temperature=1.0, adam_beta2=0.999, weight_decay=0.0,
                      max_grad_norm=1.0)),
    ("computation", dict(num_generations=7, learning_rate=5e-7, beta=0.001, max_completion_length=1024,
                         warmup_ratio=0.001, warmup_steps=0, lr_scheduler_type="cosine")),
    ("r1", dict(num_generations=16, learning_rate=5e-6, beta=0.04, temperature=0.9, max_completion_length=512,
                num_train_epochs=1, seed=42,
                lr_scheduler_type="cosine", warmup_ratio=0.1, weight_decay=0.1, max_grad_norm=0.1, save_steps=200,
                save_total_limit=2)),
    ("digits", dict(prompts_per_step=4, num_generations=15, learning_rate=1e-6, lr_scheduler_type="cosine",
                    warmup_ratio=0, warmup_steps=0, adam_beta1=0.9, adam_beta2=0.98, beta=0.001, temperature=1.0,
                    max_completion_length=512, num_train_epochs=1, max_grad_norm=1.0, weight_decay=0, seed=42,
                    sync_ref_model=True, ref_model_sync_steps=64, ref_model_mixup_alpha=0.9, loss_type="grpo",
                    shuffle_dataset=True)),
    ("decoding_abc", dict(prompts_per_step=4, num_generations=28, learning_rate=1e-6, num_train_epochs=3,
                          max_completion_length=512, beta=0.001)),
    ("decoding_words", dict(prompts_per_step=4, num_generations=15, learning_rate=1e-6, max_completion_length=512,
                            num_train_epochs=1, beta=0.001)),
    ("decoding_sequences", dict(prompts_per_step=5, num_generations=9, learning_rate=1e-6, max_completion_length=400,
                                shuffle_dataset=False, beta=0.001, num_train_epochs=1)),
])
def test_published_hyper_parameters(name, published):
    config = Recipe.read(name).config()
    assert {option: getattr(config, option) for option in published} == published


# flags


def parsed(*words):
    from grpo.cli.options import recipe_of, recipe_parser

    return recipe_of(recipe_parser("grpo train", "", list(words)).parse(list(words)))


@pytest.mark.parametrize("words, name, value", [
    (["--num_chains", "4"], "num_generations", 4), (["--num-generations=4"], "num_generations", 4),
    (["--kl_weight_beta", "0.1"], "beta", 0.1), (["--warmup_percent", "0.18"], "warmup_ratio", 0.18),
    (["--learning_rate", "1e-6"], "learning_rate", 1e-6), (["--min_p", "none"], "min_p", None),
    (["--recompute"], "recompute", True),
    (["--shuffle_dataset", "no"], "shuffle_dataset", False),
    (["--gradient-checkpointing", "false"], "recompute", False),
    (["--reward_weights", "1", "0.5"], "reward_weights", [1.0, 0.5]),
    (["--reward_weights", "1", "{0: 0, 100: 0.5}"], "reward_weights", [1.0, {0: 0.0, 100: 0.5}]),
    (["--scale_rewards", "false"], "scale_rewards", "none"),
    (["--scale_rewards", "batch"], "scale_rewards", "batch"), (["--scale_rewards", "none"], "scale_rewards", "none"),
    (["--train_vision", "none"], "train_vision", "none"),
    (["--soft_overlong_cache", "0.2"], "soft_overlong_cache", 0.2),
    (["--generation_kwargs", "{stop: ['\\n']}"], "generation_kwargs", {"stop": ["\\n"]}),
    (["--report_to", "none"], "report_to", []),
    (["--max_steps", "-1"], "max_steps", -1), (["--on_reward_error", "0"], "on_reward_error", 0.0),
    (["--per_device_train_batch_size", "16"], "prompts_per_step", None), (["--num_train_epochs", "2"], "max_steps", -1),
    (["--preset", "dr_grpo"], "scale_rewards", "none"), (["--preset", "dr_grpo", "--beta", "0.5"], "beta", 0.5),
    (["--vllm_mode", "colocate", "--bf16", "--use_vllm", "false"], "loss_type", "dapo"),
])
def test_flags_override_the_recipe(words, name, value):
    assert getattr(parsed("quickstart", *words).config(), name) == value


@pytest.mark.parametrize("words, name, value", [
    ([], "name", "quickstart"), (["--max_steps", "3"], "name", "quickstart"),
    (["--model", "m", "--dataset", "d"], "name", "grpo"),
    (["--model_name", "m", "--dataset_name", "d", "--evaluator", "gsm8k"], "rewards", ["deepseekrl"]),
    (["--model_name_or_path", "m", "--reward_funcs", "a", "b"], "rewards", ["a", "b"]),
    (["--reward", "a", "--reward", "b"], "rewards", ["a", "b"]),
    (["--sft", "none"], "sft", None), (["--dataset_kwargs.digits", "1"], "dataset_kwargs", {"digits": 1}),
    (["--eval_size", "9"], "eval_size", 9),
    (["sums", "--system_prompt", ""], "system_prompt", ""),
    (["--dataset_kwargs", "{digits: 1}"], "dataset_kwargs", {"digits": 1}),
])
def test_flags_that_are_not_config_fields(words, name, value):
    assert getattr(parsed(*words), name) == value


def test_flags_of_a_mapping_within_one():
    found = parsed("digits_tiny", "--sft.dataset_kwargs.canvas", "84", "--model.vision_config.depth", "2")
    there = Recipe.read("digits_tiny")
    assert found.sft == {**there.sft, "dataset_kwargs": {**there.sft["dataset_kwargs"], "canvas": 84}}
    assert found.model["vision_config"] == {**there.model["vision_config"], "depth": 2}
    with pytest.raises(ConfigError, match=r"model.arch.depth: model.arch is 'qwen2_5_vl', which has no entries"):
        parsed("digits_tiny", "--model.arch.depth", "2")


# what DeepSeekRL's documents and code say, given to the recipe gsm8k (4 prompts a step); a flag alone is a switch
DEEPSEEKRL_FLAGS = {
    "--model_name m": {"model": "m"}, "--dataset_name gsm8k": {"dataset": "gsm8k"},
    "--evaluator gsm8k": {"rewards": ["deepseekrl"]},
    "--output_dir output": {"output_dir": "output"}, "--verbose": {}, "--save_steps 100": {"save_steps": 100},
    "--eval_iterations 20": {"eval_steps": 5}, "--learning_rate 5e-6": {"learning_rate": 5e-6},
    "--adam_beta1 0.8": {"adam_beta1": 0.8},
    "--adam_beta2 0.95": {"adam_beta2": 0.95}, "--weight_decay 0.2": {"weight_decay": 0.2},
    "--max_grad_norm 0.5": {"max_grad_norm": 0.5},
    "--gradient_accumulation_steps 8": {"prompts_per_step": 8, "gradient_accumulation_steps": 1, "batch_size": 128},
    "--warmup_percent 0.1": {"warmup_ratio": 0.1},
    "--update_ref_model": {"sync_ref_model": True, "ref_model_mixup_alpha": 0.1},
    "--update_ref_model --update_ref_model_freq 200": {"ref_model_sync_steps": 50},
    "--ref_model_mixup_alpha 0.3": {"ref_model_mixup_alpha": 0.3},
    "--temperature 0.7": {"temperature": 0.7}, "--num_chains 12": {"num_generations": 12, "batch_size": 48},
    "--max_prompt_length 200": {"max_prompt_length": 200},
    "--max_completion_length 300": {"max_completion_length": 300},
    "--num_train_iters 1000": {"max_steps": 250}, "--num_train_iters 1001": {"max_steps": 251},
    "--kl_weight_beta 0.1": {"beta": 0.1},
    "--num_train_iters 600 --gradient_accumulation_steps 2": {"max_steps": 300}, "--seed 1994": {"seed": 1994},
    # the sister branches', and those that only documents have
    "--model_name_or_path m": {"model": "m"}, "--num_chains_eval 2 --temperature_eval 0.9": {"num_generations_eval": 2},
    "--num_eval_chains 2 --temperature_eval 0.9": {"num_generations_eval": 2},
    "--dataset_type clock --evaluator clock": {"dataset": "clock", "rewards": ["clock"]},
    "--conciseness": {"rewards": ["xml", "conciseness"]},
    "--use_kl": {"beta": 0.04},
    "--resume_from_checkpoint runs/a/checkpoints/step-1": {"resume_from_checkpoint": "runs/a/checkpoints/step-1"},
    "--resume": {"resume_from_checkpoint": True}, "--soft_thinking_k 2": {}, "--kl_coeff 0.1": {"beta": 0.1},
    "--batch_size 6": {"prompts_per_step": 6}, "--num_epochs 3": {"num_train_epochs": 3.0, "max_steps": -1},
    "--eval_interval 50": {"eval_steps": 50},
    "--log_interval 10": {"logging_steps": 10}, "--model m": {"model": "m"},
    "--dataset arithmetic": {"dataset": "arithmetic"},
}


@pytest.mark.parametrize("flags, expected", DEEPSEEKRL_FLAGS.items(), ids=DEEPSEEKRL_FLAGS)
@pytest.mark.filterwarnings("ignore::grpo.errors.GrpoWarning")
def test_flags_of_deepseekrl(flags, expected):
    recipe = parsed("gsm8k", *flags.split())
    config = recipe.config()
    assert {name: getattr(recipe if hasattr(recipe, name) else config, name) for name in expected} == expected


@pytest.mark.parametrize("flags, message", [
    ("--soft_thinking", "mixtures of tokens"), ("--use_hidden_injection", "soft prompts"),
    ("--use_local_inference_model", "no other model is run"),
    ("--inference_model gpt-4.1-nano", "no other model is run"), ("--judge_model_name gpt-4o", "no other model is run"),
    ("--compare_model_name gpt-4o-mini", "no other model is run"),
    ("--max_strategy_tokens 200", "no other model is run"),
    ("--use_kl false", "beta=0"), ("--num_train_iters 100 --max_steps 100", "in rounds and in steps"),
    ("--num_train_iters none", "number of rounds"),
    ("--num_train_iters 1.5", "number of rounds"), ("--eval_iterations 20 --eval_steps 20", "in rounds and in steps"),
])
def test_flags_of_deepseekrl_that_cannot_be_honoured(flags, message):
    with pytest.raises(ConfigError, match=message):
        parsed("gsm8k", *flags.split()).config()


@pytest.mark.parametrize("words, line", [
    (["gsm8k", "--num_train_iters", "1000"],
     "num_train_iters=1000 rounds of one prompt are max_steps=250 of 4 prompts"),
    (["gsm8k", "--eval_iterations", "20"], "eval_iterations=20 rounds of one prompt are eval_steps=5 of 4 prompts"),
    (["gsm8k", "--gradient_accumulation_steps", "8"], "micro-steps of one prompt are prompts_per_step=8"),
    (["--use_vllm"], "own engine"),
])
def test_what_is_done_instead_is_said(words, line):
    with pytest.warns(GrpoWarning, match=line):
        parsed(*words)


def test_a_command_line_of_deepseekrl_without_a_recipe():
    with pytest.warns(GrpoWarning, match="taking the recipe gsm8k"):
        recipe = parsed(*"--output_dir final1 --verbose --num_chains 8 --model_name m --dataset_name gsm8k".split())
    assert (recipe.name, recipe.model, recipe.config().num_generations, recipe.config().beta) == ("gsm8k", "m", 8, 0.04)


def test_one_thing_said_twice_alike():
    assert (parsed("gsm8k", "--num_chains", "8", "--num_generations", "8", "--beta", "5e-2", "--kl_coeff",
                   "5e-2").config().num_generations == 8)


@pytest.mark.parametrize("changes, strategy",
                         [({"eval_steps": 5}, "steps"), ({"eval_interval": 5}, "steps"), ({}, "no"),
                          ({"eval_steps": 5, "eval_strategy": "no"}, "no")])
def test_how_often_says_that_there_is_evaluation(changes, strategy):
    assert Recipe().change(changes).config().eval_strategy == strategy


@pytest.mark.parametrize("changes, expected", [
    ({"preset": "deepseekrl"}, {"max_steps": 250, "num_generations": 16}),
    ({"preset": "deepseekrl", "num_train_epochs": 2}, {"max_steps": -1, "num_train_epochs": 2.0}),
    ({"preset": "deepseekrl", "num_chains": 4}, {"num_generations": 4}),
    ({"preset": "dapo", "epsilon_high": 0.3}, {"epsilon_high": 0.3}),
])
def test_a_preset_is_what_it_stands_for(changes, expected):
    config = Recipe.read("quickstart").change(changes).config()
    assert {name: getattr(config, name) for name in expected} == expected


# files

R1_YAML = """
model_name_or_path: Qwen/Qwen2.5-1.5B-Instruct
model_revision: main
torch_dtype: bfloat16
attn_implementation: flash_attention_2
dataset_name: openai/gsm8k
system_prompt: "Respond in the following format:\\n<reasoning>\\n...\\n</reasoning>\\n<answer>\\n...\\n</answer>"
output_dir: outputs/Qwen-1.5B-GRPO_vllm
run_name: Qwen-1.5B-GRPO-gsm8k
learning_rate: 5e-6
adam_beta1: 0.9
adam_beta2: 0.99
weight_decay: 0.1
warmup_ratio: 0.1
lr_scheduler_type: cosine
logging_steps: 1
bf16: true
per_device_train_batch_size: 4
per_device_eval_batch_size: 4
gradient_accumulation_steps: 4
num_generations: 16
max_prompt_length: 256
max_completion_length: 512
num_train_epochs: 1
save_total_limit: 2
save_steps: 200
max_grad_norm: 0.1
report_to: wandb
log_on_each_node: false
do_eval: true
eval_steps: 100
eval_strategy: steps
use_vllm: true
max_items_training: 1000
max_items_eval: 200
num_tokens: 512
reward_funcs: [correctness, int, strict_format, soft_format, xml, len_l1]
eval_funcs: [extractive_match]
seed: 42
"""


@pytest.mark.parametrize("words", [["theirs.yaml"], ["--config", "theirs.yaml"]])
def test_a_file_of_r1(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs.yaml").write_text(R1_YAML)
    with pytest.warns(GrpoWarning) as said:
        recipe = parsed(*words)
        config = recipe.config()
    assert {str(w.message).partition(":")[0] for w in said} == {"use_vllm=True", "report_to"}
    assert ((recipe.model, recipe.dataset, recipe.train_size, recipe.eval_size)
            == ("Qwen/Qwen2.5-1.5B-Instruct", "gsm8k", 1000, 200))
    assert recipe.system_prompt == grpo.datasets.XML_SYSTEM_PROMPT and recipe.dataset_kwargs == {"target_length": 512}
    assert recipe.eval_funcs == []                         # every evaluation has it
    assert [r.name for r in adapt(recipe.rewards)] == ["correctness_reward", "integer_reward", "strict_format_reward",
                                                       "soft_format_reward",
                                                       "xml_tags_reward", "len_l1"]
    assert ((config.dtype, config.learning_rate, config.prompts_per_rollout, config.batch_size)
            == ("bfloat16", 5e-6, 1, 16))


@pytest.mark.parametrize("line, message", [
    ("num_generations: 12", "a rollout of 16 completions does not divide by num_generations=12"),
    ("model_revision: v2", "model_revision='v2' cannot be honoured: a hub id means its main branch"),
    ("num_tokenz: 512", "unknown option 'num_tokenz'; did you mean"),
    ("beta: high", "beta='high' must be float"),
])
def test_a_file_of_r1_that_cannot_be_honoured(line, message, tmp_path, capsys):
    (tmp_path / "theirs.yaml").write_text(R1_YAML + line)
    assert run("train", tmp_path / "theirs.yaml", "--check") == 1
    assert message in capsys.readouterr().err


def test_a_recipe_and_its_base(tmp_path):
    (tmp_path / "first.yaml").write_text("base: quickstart\nabout: Mine.\nmax_steps: 7\ndataset_kwargs.digits: 1\n")
    (tmp_path / "second.yaml").write_text("base: first.yaml\nbeta: 0.0\nsft: null\n")
    quickstart, first, second = (Recipe.read(name) for name in ("quickstart", str(tmp_path / "first.yaml"),
                                                                str(tmp_path / "second.yaml")))
    assert ((first.name, first.about, first.options["max_steps"], first.dataset_kwargs)
            == ("first", "Mine.", 7, {"digits": 1}))
    assert (first.sft == quickstart.sft and second.sft is None and second.options == {**first.options, "beta": 0.0}
            and second.about == "")


@pytest.mark.parametrize("base, message", [
    ("quickstrat", "there is no recipe .*quickstrat'"), ("mine.yaml", "base: mine.yaml goes round in a circle"),
    ("3", "there is no recipe"),
    ("other.yaml", "base: other.yaml goes round in a circle"),
])
def test_a_base_that_is_not_there(base, message, tmp_path):
    (tmp_path / "other.yaml").write_text("base: mine.yaml")
    (tmp_path / "mine.yaml").write_text(f"base: {base}")
    with pytest.raises(ConfigError, match=message) as error:
        Recipe.read(str(tmp_path / "mine.yaml"))
    assert "mine.yaml" in str(error.value)


def test_a_recipe_survives_its_file(tmp_path):
    recipe = Recipe.read("quickstart").change({"max_steps": 3, "sft.max_steps": 4, "eval_size": 5})
    (tmp_path / "mine.yaml").write_text(recipe.to_yaml())
    assert Recipe.read(str(tmp_path / "mine.yaml")) == recipe


@pytest.mark.parametrize("text, message", [
    ("- 1", "a recipe is a mapping"), ("1: 2", "a recipe is a mapping"), ("model: [", "mine.yaml: "),
    ("modl: x", "mine.yaml: unknown option 'modl'; did you mean 'model'"),
    ("sft: 3", "sft=3 must be a mapping"), ("eval_size: 0", "eval_size=0"), ("model: 3", "model=3"),
    ("dataset_kwargs: [1]", "must be a mapping"),
])
def test_broken_recipes(tmp_path, text, message, capsys):
    (tmp_path / "mine.yaml").write_text(text)
    assert run("train", tmp_path / "mine.yaml") == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("row, expected", [
    ({"prompt": "2 + 2 =", "answer": "4"}, ["accuracy_reward"]),
    ({"prompt": [{"role": "user", "content": "2 + 2"}], "answer": "4"}, ["accuracy_reward"]),
    ({"prompt": grpo.datasets.chat("2 + 2"), "answer": "4"}, ["xml"]),
])
def test_default_rewards(row, expected):
    assert default_rewards([row]) == expected


def test_no_answer_needs_a_reward():
    with pytest.raises(ConfigError, match="row 1 has no answer.*say what is good with --rewards"):
        default_rewards([{"prompt": "x", "answer": "y"}, {"prompt": "x"}])




# before a run


@pytest.mark.parametrize("changes",
                         [{}, {"eval_strategy": "no", "eval_on_start": False}, {"rewards": []}, {"sft": None}])
def test_what_a_run_needs_is_there(changes):
    recipe = Recipe.read("quickstart").change({"train_size": 20, "eval_size": 5, "sft.train_size": 3, **changes})
    found = prepare(recipe)
    assert (len(found.rows) == 20 and (found.eval_rows is None) == ("eval_strategy" in changes)
            and len(found.demonstrations) == (0 if "sft" in changes else 3))
    assert ([r.name for r in found.rewards]
            == (["accuracy_reward"] if "rewards" in changes else ["correctness_reward", "strict_format_reward"]))


def needs_a_hint(completions, hint):
    return [0.0] * len(completions)


def may_take_a_hint(completions, hint=None, **columns):
    return [0.0] * len(completions)


@pytest.mark.parametrize("changes, message", [
    ({"rewards": [needs_a_hint]},
     "reward 'needs_a_hint' asks for 'hint', which dataset arithmetic does not have.* prompt, question, answer"),
    ({"eval_funcs": [needs_a_hint]}, "reward 'needs_a_hint' asks for 'hint'"),
    ({"eval_funcs": ["nope"]}, "unknown reward 'nope'"),
    ({"rewards": ["len_l1"]}, "reward 'len_l1' asks for 'target_length', which dataset arithmetic does not have"),
    ({"rewards": ["len_min"], "dataset": [{"prompt": "a"}], "dataset_kwargs": {}, "eval_strategy": "no",
      "eval_on_start": False},
     "reward 'len_min' asks for 'answer'"),
    ({"rewards": [{"len_l1": {"targt": 5}}]}, "no argument 'targt'; did you mean 'target'"),
    ({"rewards": ["corectness_reward"]}, "did you mean 'correctness_reward'"),
    ({"reward_weights": [1.0]}, "1 weights for 2 rewards .correctness_reward, strict_format_reward"),
    ({"max_completion_length": 4096}, "max_completion_length=4096 do not fit into the 4096 positions of a tiny model"),
    ({"max_prompt_length": 4090}, "max_prompt_length=4090 and max_completion_length=64 do not fit into the 4096"),
    ({"num_generations": 5, "per_device_train_batch_size": 8}, "does not divide by num_generations=5"),
    ({"dataset_kwargs.size": 3}, "dataset_kwargs.size: say train_size"),
    ({"dataset": "nowhere.jsonl"}, "nowhere.jsonl"), ({"dataset_kwargs.digit": 1}, "did you mean 'digits'"),
    ({"output_dir": f"{__file__}/run"}, "test_recipes.py is not a folder that can be written to"),
    ({"model": "./nowhere"}, "./nowhere: no such file or folder"),
    ({"sft.learning_rte": 1}, "did you mean 'learning_rate'"),
])
def test_what_does_not_fit_is_said_before_the_run(changes, message):
    with pytest.raises(grpo.errors.GrpoError, match=message):
        prepare(Recipe.read("quickstart").change(changes))


def test_a_reward_may_do_without_a_column():
    assert (prepare(Recipe.read("quickstart").change({"rewards": [may_take_a_hint], "sft": None})).rewards[0].name
            == "may_take_a_hint")


def test_check_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("train", "--check") == 0
    said = "9,000 rows, 256 more held out; rewards correctness_reward, strict_format_reward; 16 prompts x 16"
    assert said in capsys.readouterr().out
    assert run("train", "--check", "--rewards", "nope") == 1 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name, columns", [("r1", 5), ("len_l1", 6), ("len_cosine", 6), ("len_min", 6), ("voting", 6),
                                           ("group_intrinsic", 6),
                                           ("intrinsic", 6), ("gsm8k", 5), ("dapo", 1), ("dr_grpo", 1), ("gspo", 1)])
def test_recipes_on_gsm8k_are_whole(name, columns, tmp_path):
    for split in ("train", "test"):
        (tmp_path
         / f"{split}.jsonl").write_text(f'{{"question": "How many in {split}?", "answer": "1 + 1 = 2\\n#### 2"}}\n')
    changes = {"dataset_kwargs.path": str(tmp_path), "model": {"max_position_embeddings": 32768}}
    assert len(prepare(Recipe.read(name).change(changes)).rewards) == columns


@pytest.mark.parametrize("name, rows, rewards, published", [
    ("digits", 6000, 2, "r1_vlm_digits"), ("decoding_abc", 10000, 2, "r1_vlm_words"),
    ("decoding_words", 9000, 2, "r1_vlm_words"), ("decoding_sequences", 27000, 4, "r1_vlm_sequences"),
])
@pytest.mark.parametrize("control", [False, True])
def test_recipes_of_r1_vlm_are_whole(name, rows, rewards, published, control):
    changes = {"model": {"arch": "qwen2_5_vl"}, "eval_size": 20}
    if control and name != "digits":
        changes["dataset_kwargs.image"] = False
    found = prepare(Recipe.read(name).change(changes))
    assert (len(found.rows), len(found.eval_rows), len(found.rewards)) == (rows, 20, rewards)
    assert all(("image" in row) != ("dataset_kwargs.image" in changes) and row["prefill"] for row in found.eval_rows)
    assert len(prepare(Recipe.read(name).change({**changes, "rewards": published})).rewards) == rewards


@pytest.mark.parametrize("changes, what", [({"rewards": ["accuracy_reward"]}, "rewards"),
                                           ({"dataset_kwargs.digits": 1}, "dataset_kwargs"),
                                           ({"model.hidden_size": 64}, "model"),
                                           ({"system_prompt": "Add."}, "system_prompt")])
def test_another_experiment_is_not_resumed(changes, what, tmp_path):
    from grpo.cli.train import refuse_other_experiment

    there = Recipe.read("quickstart")
    (tmp_path / "recipe.yaml").write_text(there.to_yaml())
    resumed = there.change({"output_dir": str(tmp_path), "resume_from_checkpoint": True, "max_steps": 100})
    refuse_other_experiment(resumed)
    with pytest.raises(ConfigError, match=f"holds another experiment: {what} is .* there and .* here"):
        refuse_other_experiment(resumed.change(changes))


@pytest.mark.parametrize("file",
                         ["config.yaml", "recipe.yaml", "metrics.jsonl", "completions", "checkpoints", "eval", "plots"])
def test_something_of_a_run_makes_way_for_the_next(file, tmp_path, capsys):
    from grpo.runs.folder import RunFolder

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train.log").write_text("redirected here")
    with_log = RunFolder.create(str(tmp_path / "out"), "x")
    assert with_log.path == tmp_path / "out"
    (tmp_path / "out" / file).mkdir()
    assert RunFolder.create(str(tmp_path / "out"), "x").path == tmp_path / "out-2"       # it is being written
    with_log.release()
    assert RunFolder.create(str(tmp_path / "out"), "x").path == tmp_path / "out"
    assert (tmp_path / "out" / "train.log").exists() and (tmp_path / "out-1" / file).is_dir()
    assert "held a run already" in capsys.readouterr().err
