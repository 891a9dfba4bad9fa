"""What GRPO does in a step, from its pieces: NumPy arrays in, NumPy arrays out.

    python examples/inside_a_step.py [steps]

First the loop by hand: completions, rewards, advantages, loss, gradients by tensor name, and plain SGD written here.
See the reward rise, and that the log-probs of the sampler and of the training pass are the same to the last bit. Then
the same loop by the trainer, one step at a time, open to be looked into.
"""
import sys

import numpy as np

import grpo

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 25
SIZES = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, intermediate_size=128)
GROUP = 16                                   # completions of a prompt
ROWS = [{"prompt": f"{letter}:"} for letter in "abcd"]


def digits(completions, **columns):
    return [sum(c.isdigit() for c in text) / max(1, len(text)) for text in completions]


def step_by_hand(model, weights, step, rate):
    """One optimiser step; weights: float32 master copies by Hugging Face name."""
    outs = model.generate([row["prompt"] for row in ROWS], num_generations=GROUP, max_new_tokens=8, seed=step)
    rewards = np.array(digits([out.text for out in outs]))
    advantages = grpo.ops.group_advantages(rewards, num_generations=GROUP)

    prompts, completions = [out.prompt_ids for out in outs], [out.token_ids for out in outs]
    logps, entropies = model.logprobs(prompts, completions, entropies=True)
    difference = max(np.abs(seen - out.logprobs).max() for seen, out in zip(logps, outs, strict=True))

    loss, dlogps, metrics = grpo.ops.grpo_loss(logps, [out.logprobs for out in outs], advantages, mask=None,
                                               loss_type="dapo")
    _, gradients = model.logprob_grads(prompts, completions, coef=dlogps)
    norm = np.sqrt(sum(np.vdot(g, g) for g in gradients.values()))
    for name, gradient in gradients.items():
        weights[name] -= rate * gradient / max(norm, 1e-6)
        model.core.set_tensor(name, weights[name])
    entropy = np.concatenate(entropies).mean()
    print(f"step {step:3}  reward {rewards.mean():.3f}  entropy {entropy:.2f}  |gradient| {norm:.4f}  "
          f"sampler - training {difference}")


print("By hand, with SGD of a fixed length of step:")
model = grpo.load(grpo.tiny(**SIZES))
weights = model.state_dict()
for step in range(STEPS):
    step_by_hand(model, weights, step, rate=0.15)

print("\nBy the trainer, with AdamW:")
config = grpo.GRPOConfig(max_steps=STEPS, prompts_per_step=4, num_generations=GROUP, max_completion_length=8, slots=64,
                         learning_rate=6e-3, lr_scheduler_type="constant", save_strategy="no", logging_steps=STEPS)
for step in grpo.GRPOTrainer(grpo.load(grpo.tiny(**SIZES)), digits, config, ROWS):
    if step.step % max(1, STEPS // 5) == 0:
        best = max(step.completions, key=lambda c: c["advantage"])
        print(f"step {step.step:3}  reward {step.metrics['reward']:.3f}  entropy {step.metrics['entropy']:.2f}  "
              f"largest advantage {best['advantage']:+.2f}: {best['prompt']}{best['completion']!a}")
