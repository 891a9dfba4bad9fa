"""GSM8K with the five rewards of DeepSeekRL, corrected: correctness, a whole number, strict and soft format, tags.

    python examples/gsm8k.py [steps] [model folder, .gguf or hub id] [folder with train.jsonl and test.jsonl]

Without a folder the data come from the hub (pip install 'cgrpo[data]'). See the five rewards on problems of the test
split, which are never trained on, before and after. A solved problem is shown before each question, so that a small
model has seen the layout once.
"""
import sys

import grpo

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 100
MODEL = sys.argv[2] if len(sys.argv) > 2 else "Qwen/Qwen2.5-0.5B-Instruct"
FOLDER = sys.argv[3] if len(sys.argv) > 3 else None

rows = grpo.datasets.load("gsm8k", path=FOLDER, examples=1)
held_out = grpo.datasets.load("gsm8k", "test", path=FOLDER, examples=1, size=64)
config = grpo.GRPOConfig(run_name="gsm8k", max_steps=STEPS, prompts_per_step=4, num_generations=8,
                         max_completion_length=256, learning_rate=1e-5, lr_scheduler_type="constant_with_warmup",
                         warmup_steps=min(10, STEPS // 2), eval_strategy="steps", eval_steps=STEPS,
                         eval_on_start=True, temperature_eval=0, save_strategy="no", logging_steps=1)
trainer = grpo.GRPOTrainer(MODEL, "xml", config, rows, held_out)

for step in trainer:
    best = max(step.completions, key=lambda completion: completion["reward"])
    print(f"step {step.step:3}  reward {step.metrics['reward']:.2f}  the best, {best['reward']:.2f}: "
          f"{best['completion'][:60]!a}")

evaluations = [record for record in trainer.state.log_history if "eval_reward" in record]
for name in [name for name in evaluations[0] if name.startswith("eval_rewards/") and name.endswith("/mean")]:
    before, after = (record[name] for record in (evaluations[0], evaluations[-1]))
    print(f"{name.split('/')[1]:24} on {len(held_out)} problems of the test split: "
          f"{before:.3f} before, {after:.3f} after")
