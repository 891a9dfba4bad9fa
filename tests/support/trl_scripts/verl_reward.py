"""A reward file of verl's kind, through a small adapter as people write it."""

import os

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    if data_source == "arithmetic":
        return {
            "score": float(ground_truth in solution_str) + len(solution_str) / 1000,
            "acc": ground_truth in solution_str,
        }
    raise NotImplementedError(data_source)


def reward(completions, data_source, reward_model, extra_info, **kwargs):
    return [
        compute_score(source, text, model["ground_truth"], extra)["score"]
        for text, source, model, extra in zip(completions, data_source, reward_model, extra_info)
    ]


dataset = Dataset.from_list(
    [
        {
            "data_source": "arithmetic",
            "prompt": f"{i} + 3 =",
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(i + 3)},
            "extra_info": {"index": i, "split": "train"},
        }
        for i in range(8)
    ]
)
trainer = GRPOTrainer(
    model=os.environ["MODEL"],
    reward_funcs=reward,
    train_dataset=dataset,
    args=GRPOConfig(
        output_dir=os.environ["OUT"],
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=6,
        max_steps=2,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        bf16=False,
        save_strategy="no",
    ),
)
trainer.train()
print(trainer.state.global_step)
