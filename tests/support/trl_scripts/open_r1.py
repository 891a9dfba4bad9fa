"""The shape of open-r1's script: a YAML recipe, subclasses of the configuration, callbacks, evaluation, a card."""

import logging
import os
from dataclasses import dataclass, field

import datasets
import transformers
from transformers import TrainerCallback, set_seed
from transformers.trainer_utils import get_last_checkpoint
import trl
from trl import GRPOTrainer, ModelConfig, TrlParser

logger = logging.getLogger(__name__)


@dataclass
class GRPOConfig(trl.GRPOConfig):
    benchmarks: list[str] = field(default_factory=lambda: [], metadata={"help": "Benchmarks to run after training."})
    callbacks: list[str] = field(default_factory=lambda: [], metadata={"help": "Callbacks to run."})
    system_prompt: str | None = field(default=None, metadata={"help": "Optional system prompt."})
    wandb_project: str | None = field(default=None, metadata={"help": "Project of the run."})


@dataclass
class GRPOScriptArguments(trl.ScriptArguments):
    reward_funcs: list[str] = field(default_factory=lambda: ["accuracy", "format"], metadata={"help": "Rewards."})
    dataset_prompt_column: str = field(default="problem", metadata={"help": "Column of prompts."})


class Seen(TrainerCallback):
    def __init__(self):
        self.events, self.logs = [], []

    def on_train_begin(self, args, state, control, **kwargs):
        self.events.append("on_train_begin")

    def on_step_end(self, args, state, control, **kwargs):
        self.events.append(f"on_step_end {state.global_step}")

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append(dict(logs or {}))

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.events.append("on_evaluate")
        assert "eval_loss" in metrics or "eval_reward" in metrics

    def on_train_end(self, args, state, control, **kwargs):
        self.events.append("on_train_end")


def main(script_args, training_args, model_args):
    set_seed(training_args.seed)
    logging.basicConfig(level=logging.WARNING)
    datasets.utils.logging.set_verbosity(training_args.get_process_log_level())
    transformers.utils.logging.set_verbosity(training_args.get_process_log_level())
    logger.warning(
        f"Process rank: {training_args.local_rank}, device: {training_args.device}, n_gpu: {training_args.n_gpu}"
    )
    last_checkpoint = (
        get_last_checkpoint(training_args.output_dir) if os.path.isdir(training_args.output_dir) else None
    )
    raw = datasets.DatasetDict(
        {
            split: datasets.Dataset.from_list(
                [{"problem": f"{i} + 1 = ?", "solution": f"${i + 1}$"} for i in range(8)]
            )
            for split in ("train", "test")
        }
    )

    def make_conversation(example, prompt_column=script_args.dataset_prompt_column):
        prompt = [{"role": "system", "content": training_args.system_prompt}] if training_args.system_prompt else []
        return {"prompt": [*prompt, {"role": "user", "content": example[prompt_column]}]}

    raw = raw.map(make_conversation)
    for split in raw:
        if "messages" in raw[split].column_names:
            raw[split] = raw[split].remove_columns("messages")
    rewards = {
        "accuracy": lambda completions, solution, **k: [
            float(s.strip("$") in c[0]["content"]) for c, s in zip(completions, solution)
        ],
        "format": lambda completions, **k: [len(set(c[0]["content"])) / 50 for c in completions],
    }
    for name, function in rewards.items():
        function.__name__ = name
    seen = Seen()
    trainer = GRPOTrainer(
        model=model_args.model_name_or_path,
        reward_funcs=[rewards[n] for n in script_args.reward_funcs],
        args=training_args,
        train_dataset=raw[script_args.dataset_train_split],
        eval_dataset=raw[script_args.dataset_test_split] if training_args.eval_strategy != "no" else None,
        peft_config=trl.get_peft_config(model_args),
        callbacks=[seen],
    )
    checkpoint = training_args.resume_from_checkpoint or last_checkpoint
    result = trainer.train(resume_from_checkpoint=checkpoint)
    metrics = result.metrics
    metrics["train_samples"] = len(raw["train"])
    trainer.log_metrics("train", metrics)
    trainer.save_metrics("train", metrics)
    trainer.save_state()
    trainer.save_model(training_args.output_dir)
    if trainer.accelerator.is_main_process:
        trainer.create_model_card(dataset_name=script_args.dataset_name, tags=["open-r1"])
        trainer.model.config.use_cache = True
        trainer.model.config.save_pretrained(training_args.output_dir)
    if training_args.do_eval:
        metrics = trainer.evaluate()
        metrics["eval_samples"] = len(raw["test"])
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)
    print(seen.events)
    print(sorted(key for key in seen.logs[0] if "/" in key)[:3])
    assert get_last_checkpoint(training_args.output_dir).endswith("checkpoint-2")


RECIPE = f"""
model_name_or_path: {os.environ["MODEL"]}
model_revision: main
dataset_name: own
system_prompt: "Think first."
reward_funcs: [accuracy, format]
bf16: false
use_cpu: true
do_eval: true
eval_strategy: steps
eval_steps: 2
per_device_train_batch_size: 4
per_device_eval_batch_size: 4
gradient_accumulation_steps: 1
gradient_checkpointing: false
learning_rate: 1.0e-03
log_completions: false
log_level: warning
logging_first_step: true
logging_steps: 1
logging_strategy: steps
lr_scheduler_type: cosine_with_min_lr
lr_scheduler_kwargs: {{min_lr_rate: 0.1}}
max_completion_length: 8
max_steps: 2
num_generations: 4
num_train_epochs: 1
output_dir: {os.environ["OUT"]}
report_to: []
save_strategy: steps
save_steps: 1
seed: 42
warmup_steps: 0.1
"""

if __name__ == "__main__":
    os.makedirs(os.environ["OUT"], exist_ok=True)
    with open(os.environ["OUT"] + ".yaml", "w") as file:
        file.write(RECIPE)
    parser = TrlParser((GRPOScriptArguments, GRPOConfig, ModelConfig))
    main(*parser.parse_args_and_config(args=["--config", os.environ["OUT"] + ".yaml"]))
