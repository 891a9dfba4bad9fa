"""RLOO over the same rows."""

import os

from datasets import Dataset
from trl import RLOOConfig, RLOOTrainer


def reward_num_unique_letters(completions, **kwargs):
    return [float(len(set(completion))) for completion in completions]


dataset = Dataset.from_list([{"prompt": f"The letter after {letter} is"} for letter in "abcdefgh"])
trainer = RLOOTrainer(
    model=os.environ["MODEL"],
    reward_funcs=reward_num_unique_letters,
    train_dataset=dataset,
    args=RLOOConfig(
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
result = trainer.train()
print(result.global_step, trainer.args.beta, trainer.args.num_iterations)
