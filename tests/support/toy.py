"""A run small enough for a test: a tiny model, prompts of one letter, and a reward for repeating it."""
import itertools

import grpo

DEVICE = "cpu"
ROWS = [{"prompt": "a", "letter": "a"}, {"prompt": "b", "letter": "b"}]
SIZES = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, intermediate_size=64)
CLOCK = ("step_time", "time_share/", "per_second", "runtime")
_folders = itertools.count()


def share(completions, letter, **columns):
    """The share of a completion's characters that are the letter."""
    return [c.count(x) / max(1, len(c)) for c, x in zip(completions, letter, strict=True)]


def byte_values(completion_ids, **columns):
    """A reward with spread in almost every group."""
    return [sum(ids) / 1000 for ids in completion_ids]


def model(device=DEVICE, **sizes):
    return grpo.load(grpo.tiny(**{**SIZES, **sizes}), device)


def options(tmp_path, **changed):
    batch = {} if {"per_device_train_batch_size", "prompts_per_step"} & set(changed) else {"prompts_per_step": 2}
    return dict(output_dir=str(tmp_path / f"run{next(_folders)}"), num_generations=4, max_completion_length=6,
                max_steps=3, learning_rate=1e-2,
                lr_scheduler_type="constant", save_strategy="no", logging_steps=1000) | batch | changed


def trainer(tmp_path, reward_funcs=byte_values, rows=ROWS, policy=None, eval_dataset=None, callbacks=None, **changed):
    return grpo.GRPOTrainer(policy or model(), reward_funcs, grpo.GRPOConfig(**options(tmp_path, **changed)), rows,
                            eval_dataset, callbacks=callbacks)


def weights(trainer):
    return {name: array.tobytes() for name, array in trainer.model.state_dict().items()}


def timeless(record):
    """A record of metrics without what depends on the clock."""
    return {name: value for name, value in record.items() if not any(part in name for part in CLOCK)}
