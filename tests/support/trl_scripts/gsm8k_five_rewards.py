"""Five rewards for the XML layout, a model and a tokenizer as objects: the shape of most GRPO scripts."""

import os
import re

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

SYSTEM = "Respond as <reasoning>\n...\n</reasoning>\n<answer>\n...\n</answer>"


def extract_xml_answer(text: str) -> str:
    return text.split("<answer>")[-1].split("</answer>")[0].strip()


def correctness_reward_func(prompts, completions, answer, **kwargs) -> list[float]:
    responses = [completion[0]["content"] for completion in completions]
    return [2.0 if extract_xml_answer(r) == a else 0.0 for r, a in zip(responses, answer)]


def int_reward_func(completions, **kwargs) -> list[float]:
    return [0.5 if extract_xml_answer(c[0]["content"]).isdigit() else 0.0 for c in completions]


def strict_format_reward_func(completions, **kwargs) -> list[float]:
    pattern = r"^<reasoning>\n.*?\n</reasoning>\n<answer>\n.*?\n</answer>\n$"
    return [0.5 if re.match(pattern, c[0]["content"]) else 0.0 for c in completions]


def soft_format_reward_func(completions, **kwargs) -> list[float]:
    return [0.5 if "<answer>" in c[0]["content"] else 0.0 for c in completions]


def length_reward_func(completions, **kwargs) -> list[float]:
    return [len(set(c[0]["content"])) / 100 for c in completions]


dataset = Dataset.from_list(
    [
        {
            "prompt": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"What is {i} + 2?"}],
            "answer": str(i + 2),
        }
        for i in range(16)
    ]
)
model = AutoModelForCausalLM.from_pretrained(os.environ["MODEL"], dtype=torch.float32, attn_implementation="eager")
tokenizer = AutoTokenizer.from_pretrained(os.environ["MODEL"])
tokenizer.pad_token = tokenizer.eos_token
before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
trainer = GRPOTrainer(
    model=model,
    processing_class=tokenizer,
    reward_funcs=[
        length_reward_func,
        soft_format_reward_func,
        strict_format_reward_func,
        int_reward_func,
        correctness_reward_func,
    ],
    args=GRPOConfig(
        output_dir=os.environ["OUT"],
        run_name="gsm8k",
        learning_rate=1e-3,
        adam_beta1=0.9,
        adam_beta2=0.99,
        weight_decay=0.1,
        warmup_steps=1,
        lr_scheduler_type="cosine",
        logging_steps=1,
        bf16=False,
        use_cpu=True,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=1,
        num_generations=4,
        max_completion_length=8,
        num_train_epochs=1,
        max_steps=2,
        save_steps=100,
        max_grad_norm=0.1,
        report_to="none",
        log_on_each_node=False,
    ),
    train_dataset=dataset,
)
trainer.train()
assert any(not torch.equal(weight, before[name]) for name, weight in model.named_parameters())
trainer.save_model(os.environ["OUT"])
ids = tokenizer("2 + 2 =", return_tensors="pt").input_ids
out = model.generate(ids, max_new_tokens=4, do_sample=False)
print(tokenizer.decode(out[0], skip_special_tokens=True)[:7])
