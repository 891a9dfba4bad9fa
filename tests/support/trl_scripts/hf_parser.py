"""transformers' own parser over the configuration, a JSON file of options, early stopping on the evaluation."""

import json
import os

from datasets import Dataset
from transformers import AutoTokenizer, EarlyStoppingCallback, HfArgumentParser
from trl import GRPOConfig, GRPOTrainer

path = os.environ["OUT"] + ".json"
with open(path, "w") as file:
    json.dump(
        {
            "output_dir": os.environ["OUT"],
            "max_steps": 4,
            "per_device_train_batch_size": 4,
            "num_generations": 4,
            "max_completion_length": 6,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "eval_strategy": "steps",
            "eval_steps": 1,
            "save_strategy": "steps",
            "save_steps": 1,
            "metric_for_best_model": "eval_reward",
            "greater_is_better": True,
            "load_best_model_at_end": True,
            "per_device_eval_batch_size": 4,
            "save_total_limit": 2,
        },
        file,
    )
(args,) = HfArgumentParser((GRPOConfig,)).parse_json_file(path)
tokenizer = AutoTokenizer.from_pretrained(os.environ["MODEL"], padding_side="left")


def constant_at_evaluation(completions, trainer_state, **kwargs):
    return [len(completion) / 10 for completion in completions]


rows = [{"prompt": f"Say {i}"} for i in range(8)]
trainer = GRPOTrainer(
    os.environ["MODEL"],
    constant_at_evaluation,
    args,
    Dataset.from_list(rows),
    Dataset.from_list(rows[:4]),
    processing_class=tokenizer,
    callbacks=[EarlyStoppingCallback(early_stopping_patience=3)],
)
trainer.train()
print(
    trainer.state.global_step <= 4,
    trainer.state.best_metric is not None,
    trainer.state.best_model_checkpoint is not None,
)
