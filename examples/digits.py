"""Reading drawn digits, learned from nothing: a tiny model of Qwen2.5-VL's architecture, its vision tower included.

    python examples/digits.py [steps of GRPO] [pixels of a picture's side, 28 or more]

Demonstrations come first (SFT): digits that fill their picture, then digits that wander in it, and at last some by a
careless reader, who leaves the model guessing. Then a reward for right answers makes it read (GRPO). See how often it
is right on held-out pictures before and after, with the interval, and what each reward gave some completions.
"""
import sys

import grpo
from grpo.runs import evaluation

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 120
CANVAS = int(sys.argv[2]) if len(sys.argv) > 2 else 42     # a digit has 28 pixels: there, it has no place to wander to
# canvas, share of wrong digits, learning rate, steps of each part
WARM_UP = ((28, 0.0, 2e-3, 60), (CANVAS, 0.0, 2e-3, 600 if CANVAS > 28 else 10), (CANVAS, 0.6, 5e-4, 40))



def digits(split, size, canvas=CANVAS, **options):
    """Rows {prompt, image, answer, ...}; an image is drawn when it is looked at."""
    return grpo.datasets.load("digits", split, size=size, canvas=canvas, task="recognition", digits=1,
                              instruction="short", **options)


def reads(completions, answer, **columns):
    """1 for a completion that ends with the right answer in its tags."""
    texts = [messages[-1]["content"] for messages in completions]
    return [float(text.endswith(f"<answer>{right}</answer>")) for text, right in zip(texts, answer, strict=True)]


rows, held_out = digits("train", 16 * STEPS), digits("test", 100)
model = grpo.load(grpo.tiny("qwen2_5_vl", hidden_size=96, num_hidden_layers=2, num_attention_heads=2,
                            num_key_value_heads=1, intermediate_size=192, initializer_range=0.08,
                            tokens=["<think>", "</think>\n<answer>", "</answer>", "Which digits?"],
                            vision_config=dict(depth=2, hidden_size=96, num_heads=3, intermediate_size=192,
                                               patch_size=7, fullatt_block_indexes=[0, 1])))
for canvas, mistakes, rate, steps in WARM_UP:
    grpo.sft(model, digits("train", 32 * steps, canvas, demonstrations=True, mistakes=mistakes), max_steps=steps,
             learning_rate=rate, per_device_train_batch_size=32, lr_scheduler_type="cosine", warmup_steps=10,
             train_vision="all", logging_steps=50, save_strategy="no")

config = grpo.GRPOConfig(run_name="digits", max_steps=STEPS, prompts_per_step=16, num_generations=16, slots=256,
                         max_completion_length=16, reward_weights=[1.0, 0.2], train_vision="all", learning_rate=3e-4,
                         lr_scheduler_type="constant_with_warmup", warmup_steps=5, adam_beta2=0.99,
                         eval_strategy="steps", eval_steps=max(1, STEPS // 2), eval_on_start=True, temperature_eval=1.0,
                         num_generations_eval=4, save_strategy="no", logging_steps=10)
trainer = grpo.GRPOTrainer(model, [reads, "think_format"], config, rows, held_out)
trainer.train()

rounds = {"warm-up": evaluation(trainer.run.path, 0), "GRPO": evaluation(trainer.run.path, STEPS)}
for name, found in rounds.items():
    share, low, high = (found["metrics"][f"accuracy/strict{end}"] for end in ("", "/low", "/high"))
    print(f"after the {name:8} {share:4.0%} of answers to {len(held_out)} held-out pictures are right "
          f"(95 % interval {low:.0%} to {high:.0%})")
for pair in list(zip(*(found["completions"] for found in rounds.values()), strict=True))[:16:4]:
    print(f"    {pair[0]['gold']}")
    for record in pair:
        print(f"        {record['completion']!a} {record['rewards']}")
