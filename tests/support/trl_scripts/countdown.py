"""The countdown game: parsers, the last checkpoint, metrics, state, a card: recipes built on the script of TRL."""

import os
import re
from dataclasses import dataclass

from datasets import Dataset
from transformers import AutoTokenizer
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig, GRPOTrainer, ModelConfig, TrlParser, get_peft_config


@dataclass
class ScriptArguments:
    dataset_size: int = 8
    tokenizer_name_or_path: str | None = None


def format_reward_func(completions, target, **kwargs):
    return [1.0 if re.search(r"</think>", completion) else len(completion) / 100 for completion in completions]


def equation_reward_func(completions, target, nums, **kwargs):
    return [float(str(gold) in completion) for completion, gold in zip(completions, target)]


def main(model_args, script_args, training_args):
    tokenizer = AutoTokenizer.from_pretrained(model_args.model_name_or_path, revision=model_args.model_revision)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    dataset = Dataset.from_list([{"nums": [i, i + 1], "target": 2 * i + 1} for i in range(script_args.dataset_size)])

    def generate_r1_prompt(numbers, target):
        prefix = [
            {"role": "user", "content": f"Using {numbers}, make {target}."},
            {"role": "assistant", "content": "Let me solve this.\n<think>"},
        ]
        return {
            "prompt": tokenizer.apply_chat_template(prefix, tokenize=False, continue_final_message=True),
            "target": target,
            "nums": numbers,
        }

    dataset = dataset.map(lambda x: generate_r1_prompt(x["nums"], x["target"]))
    split = dataset.train_test_split(test_size=0.25, seed=42)
    trainer = GRPOTrainer(
        model=model_args.model_name_or_path,
        reward_funcs=[format_reward_func, equation_reward_func],
        args=training_args,
        train_dataset=split["train"],
        eval_dataset=split["test"],
        peft_config=get_peft_config(model_args),
    )
    last_checkpoint = (
        get_last_checkpoint(training_args.output_dir) if os.path.isdir(training_args.output_dir) else None
    )
    train_result = trainer.train(resume_from_checkpoint=last_checkpoint)
    metrics = train_result.metrics
    metrics["train_samples"] = len(split["train"])
    trainer.log_metrics("train", metrics)
    trainer.save_metrics("train", metrics)
    trainer.save_state()
    trainer.model.config.use_cache = True
    trainer.save_model(training_args.output_dir)
    training_args.distributed_state.wait_for_everyone()
    tokenizer.save_pretrained(training_args.output_dir)
    if trainer.accelerator.is_main_process:
        trainer.create_model_card({"tags": ["rl", "grpo", "tutorial"]})
    if training_args.push_to_hub:
        trainer.push_to_hub()
    print(sorted(os.listdir(training_args.output_dir)))


if __name__ == "__main__":
    main(
        *TrlParser((ModelConfig, ScriptArguments, GRPOConfig)).parse_args_and_config(
            args=[
                "--model_name_or_path",
                os.environ["MODEL"],
                "--output_dir",
                os.environ["OUT"],
                "--max_steps",
                "2",
                "--per_device_train_batch_size",
                "4",
                "--num_generations",
                "4",
                "--max_completion_length",
                "8",
                "--learning_rate",
                "1e-3",
                "--beta",
                "0.001",
                "--logging_steps",
                "1",
                "--save_steps",
                "1",
                "--report_to",
                "none",
                "--use_cpu",
                "--bf16",
                "false",
                "--dataset_size",
                "8",
            ]
        )
    )
