"""Asynchronous rewards, what a reward logs, rewards that do not apply to a row, weights."""

import asyncio
import os

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer


async def slow(prompts, completions, **kwargs):
    await asyncio.sleep(0.01)
    return [len(completion) / 10 for completion in completions]


def only_maths(completions, task, log_extra=None, log_metric=None, **kwargs):
    if log_extra is not None:
        log_extra("length", [len(completion) for completion in completions])
    if log_metric is not None:
        log_metric("mean_length", sum(map(len, completions)) / len(completions))
    return [
        1.0 if kind == "math" and "1" in completion else 0.0 if kind == "math" else None
        for completion, kind in zip(completions, task)
    ]


dataset = Dataset.from_list([{"prompt": f"{i}?", "task": "math" if i % 2 else "code"} for i in range(8)])
trainer = GRPOTrainer(
    os.environ["MODEL"],
    [slow, only_maths],
    train_dataset=dataset,
    args=GRPOConfig(
        output_dir=os.environ["OUT"],
        per_device_train_batch_size=8,
        num_generations=4,
        reward_weights=[1.0, 0.5],
        max_completion_length=6,
        max_steps=2,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        beta=0.04,
        log_completions=True,
        num_completions_to_print=1,
    ),
)
trainer.train()
names = {name for entry in trainer.state.log_history for name in entry}
print(sorted(name for name in names if name.startswith("rewards/")), "kl" in names)
