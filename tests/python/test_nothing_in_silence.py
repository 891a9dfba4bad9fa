"""What is given and cannot be honoured is refused by its name, or said on one line: columns, arguments, options."""
import ast
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

import grpo
import toy
from grpo.errors import ConfigError, DatasetError, GrpoWarning
from grpo.options import option_names
from grpo.options.foreign import NOT_SUPPORTED

TOOL = {"type": "function", "function": {"name": "add", "description": "a + b"}}
TEMPLATE = ("{% if tools %}[{{ tools | length }} {{ tools[0].function.name }}]{% endif %}{% if quiet %}(quiet){% endif "
            "%}{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% "
            "endif %}")
USER, ASSISTANT = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}


@pytest.fixture
def model():
    made = toy.model("ref")
    made.tokenizer.chat_template = TEMPLATE
    return made


def text_of(model, ids):
    return model.tokenizer.decode(list(ids), skip_special_tokens=False)


# -- columns of GRPO
# -----------------------------------------------------------------------------------------------------

SHOWN = [
    ({}, "<u>hi<a>"), ({"tools": [TOOL]}, "[1 add]<u>hi<a>"), ({"tools": json.dumps([TOOL, TOOL])}, "[2 add]<u>hi<a>"),
    ({"tools": []}, "<u>hi<a>"), ({"tools": None, "chat_template_kwargs": None}, "<u>hi<a>"),
    ({"chat_template_kwargs": {"quiet": True}}, "(quiet)<u>hi<a>"),
    ({"chat_template_kwargs": {"quiet": None}}, "<u>hi<a>"),
    ({"tools": [TOOL], "chat_template_kwargs": {"quiet": True}}, "[1 add](quiet)<u>hi<a>"),
]


@pytest.mark.filterwarnings("ignore::grpo.errors.GrpoWarning")
@pytest.mark.parametrize("columns, text", SHOWN)
def test_what_a_row_gives_its_template(model, tmp_path, columns, text):
    trainer = toy.trainer(tmp_path, policy=model, rows=[{"prompt": [USER], **columns}])
    (prompt,) = trainer.stream.take(0, 1)
    assert text_of(model, prompt.ids) == text and {name: prompt.columns.get(name) for name in columns} == columns


def test_a_row_goes_over_the_config(model, tmp_path):
    rows = [{"prompt": [USER]}, {"prompt": [USER], "chat_template_kwargs": {"quiet": False}}]
    trainer = toy.trainer(tmp_path, policy=model, rows=rows, chat_template_kwargs={"quiet": True},
                          shuffle_dataset=False)
    assert [text_of(model, p.ids) for p in trainer.stream.take(0, 2)] == ["(quiet)<u>hi<a>", "<u>hi<a>"]


def test_tools_are_shown_and_not_called(model, tmp_path):
    with pytest.warns(GrpoWarning, match="train_dataset: the tools of a row are shown in its prompt; calls of them are "
                      "not"):
        toy.trainer(tmp_path, policy=model, rows=[{"prompt": [USER], "tools": [TOOL]}])


def test_prompts_that_tools_make_too_long_are_dropped(model, tmp_path):
    rows = [{"prompt": [USER]}, {"prompt": [USER], "chat_template_kwargs": {"quiet": True}}]
    trainer = toy.trainer(tmp_path, policy=model, rows=rows, max_prompt_length=8, on_long_prompt="drop")
    assert len(trainer.stream) == 1
    with pytest.raises(DatasetError, match="row 1 has 15 tokens"):
        toy.trainer(tmp_path, policy=model, rows=rows, max_prompt_length=8)


@pytest.mark.parametrize("row, named", [
    ({"prompt": "hi", "tools": [TOOL]}, "tools goes into the chat template"),
    ({"prompt": [104], "chat_template_kwargs": {"quiet": True}}, "chat_template_kwargs goes into the chat template"),
    ({"prompt": [USER], "tools": "[{"}, "tools is not JSON"),
    ({"prompt": [USER], "tools": [3]}, "tools must be a list of JSON schemas"),
    ({"prompt": [USER], "tools": {"type": "function"}}, "tools must be a list"),
    ({"prompt": [USER], "chat_template_kwargs": "quiet"}, "chat_template_kwargs must be a dict"),
    ({"prompt": [USER], "chat_template_kwargs": {"tokenize": False}}, "must not hold tokenize"),
    ({"prompt": [USER], "images": [object()]}, "'images': this model (qwen2) sees no images"),
    ({"prompt": [USER], "image": object()}, "'image': this model (qwen2) sees no images"),
    ({"prompt": [USER], "environment": "game"}, "'environment': environments are not supported"),
])
def test_columns_that_cannot_be_honoured(model, tmp_path, row, named):
    rows = [{**dict.fromkeys(row), "prompt": [USER]}, row]
    with pytest.raises(DatasetError, match="train_dataset.*row 1") as error:
        toy.trainer(tmp_path, policy=model, rows=rows)
    assert named in str(error.value)


# -- columns of SFT
# ------------------------------------------------------------------------------------------------------

def fine_tuning(model, tmp_path, row, **options):
    options = {"output_dir": str(tmp_path / "run"), "max_steps": 1, "save_strategy": "no", **options}
    return grpo.SFTTrainer(model, grpo.SFTConfig(**options), [row])


@pytest.mark.parametrize("columns, text", SHOWN)
@pytest.mark.parametrize("row", [{"messages": [USER, ASSISTANT]}, {"prompt": [USER], "completion": [ASSISTANT]}])
def test_what_a_row_of_sft_gives_its_template(model, tmp_path, row, columns, text):
    example, = fine_tuning(model, tmp_path, {**row, **columns}).examples
    assert text_of(model, example.prompt) == text and text_of(model, example.completion).startswith("yo")


@pytest.mark.parametrize("columns, named", [
    ({"images": [object()]}, "sees no images"), ({"labels": [1]}, "labels cannot"),
    ({"completion_mask": [1]}, "completion_mask"), ({"assistant_masks": [1]}, "assistant_masks"),
    ({"environment": "x"}, "environment"), ({"tools": "{"}, "not JSON"),
    ({"prompt": "a", "completion": "b"}, "leave one out"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "image": "a"}]}, ASSISTANT]}, "sees no images"),
])
def test_columns_of_sft_that_cannot_be_honoured(model, tmp_path, columns, named):
    with pytest.raises(DatasetError, match="train_dataset: row 0") as error:
        fine_tuning(model, tmp_path, {"messages": [USER, ASSISTANT], **columns})
    assert named in str(error.value)


@pytest.mark.parametrize("columns", [{"tools": [TOOL]}, {"chat_template_kwargs": {"quiet": True}}])
@pytest.mark.parametrize("row", [{"prompt": "a", "completion": "b"}, {"prompt": [97], "completion": [98]}])
def test_text_of_sft_has_no_template(model, tmp_path, row, columns):
    with pytest.raises(DatasetError, match="row 0: tools and chat_template_kwargs go into the chat template"):
        fine_tuning(model, tmp_path, {**row, **columns})


# -- arguments and options
# -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("make",
                         [lambda m, t, o: toy.trainer(t, policy=m, rows=[{"prompt": [USER]}], chat_template_kwargs=o),
                          lambda m, t, o: fine_tuning(m, t, {"messages": [USER, ASSISTANT]}, chat_template_kwargs=o)])
def test_arguments_that_the_template_does_not_read(model, tmp_path, make):
    with pytest.warns(GrpoWarning, match="the model's chat template has no enable_thinking; nothing changes"):
        make(model, tmp_path, {"enable_thinking": False, "quiet": True})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(model, tmp_path, {"quiet": True})


@pytest.mark.parametrize("name", sorted(NOT_SUPPORTED))
@pytest.mark.parametrize("trainer", [grpo.GRPOTrainer, grpo.SFTTrainer])
def test_constructor_arguments_of_other_trainers(model, trainer, name):
    first = () if trainer is grpo.SFTTrainer else (toy.byte_values,)
    with pytest.raises(ConfigError, match=f"{name} is not supported: "):
        trainer(model, *first, **{name: object()})
    for nothing in (None, [], {}):
        trainer(model, *first, **{name: nothing})


@pytest.mark.parametrize("call", [
    lambda m: m.generate("a", do_sample=False), lambda m: m.logprobs([1], [[2]], top_k=3),
    lambda m: m.save_pretrained("x", safe_serialization=True), lambda m: grpo.load(grpo.tiny(), device_map="auto"),
    lambda m: grpo.load(grpo.tiny(), quantization_config={}),
])
def test_calls_take_what_they_name(model, call):
    with pytest.raises(TypeError, match="unexpected keyword"):
        call(model)


@pytest.mark.parametrize("options, named", [
    (dict(sapo_temperature_pos=2.0), "sapo_temperature_pos=2.0 has no effect with loss_type='dapo'"),
    (dict(loss_type="sapo", vespo_k_neg=1.0), "vespo_k_neg=1.0 has no effect with loss_type='sapo'"),
    (dict(entropy_target=0.5), "entropy_target=0.5 has no effect without use_adaptive_entropy"),
])
def test_options_of_another_loss(options, named):
    with pytest.warns(GrpoWarning, match=named):
        grpo.GRPOConfig(**options)


@pytest.mark.parametrize("options", [dict(loss_type="sapo", sapo_temperature_pos=2.0),
                                     dict(use_adaptive_entropy=True, entropy_target=0.5),
                                     dict(loss_type="vespo", vespo_k_neg=1.0),
                                     dict(loss_type="cispo", cispo_two_sided=True)])
def test_options_of_this_loss(options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grpo.GRPOConfig(**options)


@pytest.mark.parametrize("kind", [grpo.GRPOConfig, grpo.SFTConfig])
def test_every_option_is_read_somewhere(kind):
    """An option that no code reads would be accepted without an effect."""
    read = set()
    for path in Path(grpo.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
                 and isinstance(node.ctx, ast.Load)}
    from grpo import _core

    assert set(option_names(kind)) - read <= set(_core.loss_options())


def test_ids_of_a_prompt_are_unchanged_without_columns(model, tmp_path):
    trainer = toy.trainer(tmp_path, policy=model, rows=[{"prompt": "ab"}, {"prompt": [97, 98]}], shuffle_dataset=False)
    for prompt in trainer.stream.take(0, 2):
        assert np.array_equal(prompt.ids, [97, 98])


class Listens:
    def on_step_end(self, args, state, control, **kwargs): ...
    def on_substep_end(self, args, state, control, **kwargs): ...


@pytest.mark.parametrize("callback", [Listens, Listens()])
def test_events_that_there_are_not(model, tmp_path, callback):
    with pytest.warns(GrpoWarning, match="Listens: on_substep_end is never called here"):
        toy.trainer(tmp_path, policy=model, callbacks=[callback])
    theirs = type("TheirCallback", (Listens,), {"__module__": "mine"})
    Listens.__module__, kept = "transformers.trainer_callback", Listens.__module__
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            toy.trainer(tmp_path, policy=model, callbacks=[theirs()])
    finally:
        Listens.__module__ = kept


# -- what is read otherwise, or left out


class Lazy:
    """What datasets.Dataset.with_transform and with_format give, as far as it is asked."""

    column_names = ["q"]
    features = {"q": None}

    def __init__(self, kind):
        self.format = {"type": kind, "format_kwargs": {}, "columns": ["q"], "output_all_columns": False}

    def with_format(self, kind):
        return [{"prompt": "plain"}, {"prompt": "rows"}] if kind is None else self

    def __len__(self):
        return 2

    def __getitem__(self, row):
        if self.format["type"] == "custom" and isinstance(row, int):
            return {"prompt": "ask " + "ab"[row], "answer": "1"}
        raise IndexError(row)


@pytest.mark.parametrize("kind, prompts", [("custom", {"ask a", "ask b"}), ("numpy", {"plain", "rows"}),
                                           ("arrow", {"plain", "rows"})])
def test_data_sets_with_a_transform_or_a_format(tmp_path, kind, prompts):
    trainer = toy.trainer(tmp_path, rows=Lazy(kind), max_prompt_length=None, eval_dataset=None)
    assert {p.prompt for p in trainer.stream.take(0, 2)} == prompts
    assert {row["prompt"] for row in grpo.datasets.load(Lazy(kind))} == prompts


@pytest.mark.parametrize("policy, said", [("drop", "are left out"), ("truncate", "are cut to their last 5 tokens")])
def test_long_prompts_are_counted(tmp_path, policy, said):
    rows = [{"prompt": "much too long"}, {"prompt": "a"}, {"prompt": "longer still"}]
    with pytest.warns(GrpoWarning, match=rf"train_dataset: 2 of 3 rows {said} \(on_long_prompt='{policy}', longer than "
                      r"5 tokens\), the first of them row 0"):
        toy.trainer(tmp_path, rows=rows, max_prompt_length=5, on_long_prompt=policy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        toy.trainer(tmp_path / "short", rows=rows[1:2], max_prompt_length=5, on_long_prompt=policy)


def test_a_rollout_that_is_masked_whole_is_said_once(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        toy.trainer(tmp_path, max_steps=4, mask_truncated_completions=True, max_completion_length=3,
                    generation_kwargs={"min_new_tokens": 3}, save_strategy="no").train()
    said = [str(w.message) for w in caught if "mask_truncated_completions" in str(w.message)]
    assert len(said) == 1 and said[0].startswith("rollout 1: every completion was cut off at max_completion_length=3")
