"""A notebook of a cookbook: formatted rows, a callback of transformers, the log, generation with the trained model."""

import os
import time

import torch
from datasets import load_dataset
from transformers import AutoTokenizer, PrinterCallback
from trl import GRPOConfig, GRPOTrainer
from trl.rewards import accuracy_reward, think_format_reward

path = os.environ["OUT"] + "-rows.jsonl"
with open(path, "w") as file:
    for i in range(12):
        file.write(f'{{"problem": "What is {i} times 2?", "solution": "\\\\boxed{{{2 * i}}}"}}\n')
dataset = load_dataset("json", data_files=path, split="train", cache_dir=os.environ["OUT"] + "-cache")
dataset = dataset.map(
    lambda row: {"prompt": [{"role": "user", "content": row["problem"]}]}, remove_columns=["problem"]
)


def spread(completions, **kwargs):
    return [len(set(completion[0]["content"])) / 20 for completion in completions]


training_args = GRPOConfig(
    output_dir=os.environ["OUT"],
    learning_rate=1e-3,
    remove_unused_columns=False,
    gradient_accumulation_steps=2,
    num_train_epochs=1,
    bf16=False,
    use_cpu=True,
    per_device_train_batch_size=4,
    max_completion_length=8,
    num_generations=4,
    report_to="none",
    logging_steps=1,
    push_to_hub=False,
    save_strategy="steps",
    save_steps=10,
    gradient_checkpointing=True,
    gradient_checkpointing_kwargs={"use_reentrant": False},
)
trainer = GRPOTrainer(
    model=os.environ["MODEL"],
    reward_funcs=[think_format_reward, accuracy_reward, spread],
    args=training_args,
    train_dataset=dataset,
    callbacks=[PrinterCallback()],
)
result = trainer.train()
print(result.global_step, sorted(result.metrics)[:4])
trainer.save_model(training_args.output_dir)
rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
assert len(rewards) == result.global_step
tokenizer = AutoTokenizer.from_pretrained(training_args.output_dir)
prompt = tokenizer.apply_chat_template(dataset[0]["prompt"], add_generation_prompt=True, tokenize=False)
inputs = tokenizer(prompt, return_tensors="pt").to(trainer.model.device)
start = time.time()
with torch.no_grad():
    output_ids = trainer.model.generate(**inputs, max_new_tokens=4)
print(output_ids.shape[1] > inputs["input_ids"].shape[1], time.time() >= start)
