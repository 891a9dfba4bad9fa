"""The end of many notebooks: generate with the trained object, save it and its tokenizer, load both again."""

import os

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

model = AutoModelForCausalLM.from_pretrained(os.environ["MODEL"], dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(os.environ["MODEL"])
tokenizer.chat_template = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}<work>"
dataset = Dataset.from_list(
    [{"prompt": [{"role": "user", "content": f"Count to {i}"}], "answer": str(i)} for i in range(8)]
)


def match_format_approximately(completions, **kwargs):
    return [
        0.5 if completion[0]["content"].count("<work>") == 1 else -0.5 + len(completion[0]["content"]) / 100
        for completion in completions
    ]


def check_answer(prompts, completions, answer, **kwargs):
    assert prompts[0][-1]["content"].startswith("Count")
    return [float(a in completion[0]["content"]) for completion, a in zip(completions, answer)]


training_args = GRPOConfig(
    temperature=1.0,
    learning_rate=5e-4,
    weight_decay=0.001,
    warmup_steps=0.1,
    lr_scheduler_type="linear",
    optim="adamw_torch",
    logging_steps=1,
    per_device_train_batch_size=4,
    gradient_accumulation_steps=1,
    num_generations=4,
    max_completion_length=6,
    max_steps=2,
    save_steps=2,
    report_to="none",
    output_dir=os.environ["OUT"],
    bf16=False,
    use_cpu=True,
)
trainer = GRPOTrainer(
    model=model,
    processing_class=tokenizer,
    reward_funcs=[match_format_approximately, check_answer],
    args=training_args,
    train_dataset=dataset,
)
trainer.train()
text = tokenizer.apply_chat_template(dataset[0]["prompt"], tokenize=False, add_generation_prompt=True)
assert text.endswith("<work>")
model.eval()
_ = model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=3)
model.save_pretrained(os.environ["OUT"] + "-merged")
tokenizer.save_pretrained(os.environ["OUT"] + "-merged")
again = AutoModelForCausalLM.from_pretrained(os.environ["OUT"] + "-merged", dtype=torch.float32)
a, b = model.state_dict(), again.state_dict()
print(all(torch.equal(a[name], b[name]) for name in a), num_parameters := trainer.model.num_parameters() > 0)
