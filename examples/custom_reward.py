"""A reward is a Python function; another one takes its place without a rebuild.

    python examples/custom_reward.py [steps]

Two functions train the same random model, one after the other. See the reward rise in the lines of the run, and in the
last lines what the model writes before, after the first and after the second reward.
"""
import sys

import grpo

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 60
ROWS = [{"prompt": f"{letter}:", "letter": letter} for letter in "abcd"]


def echo(completions, letter, **columns):
    """The share of a completion that repeats the letter of its prompt. Columns of the data set come by name."""
    return [text.count(wanted) / max(1, len(text)) for text, wanted in zip(completions, letter, strict=True)]


def digits(completions, **columns):
    """The share of digits; None would say that the reward does not apply to a completion."""
    return [sum(c.isdigit() for c in text) / max(1, len(text)) for text in completions]


def train(reward):
    model = grpo.load(grpo.tiny(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
                                intermediate_size=128))
    before = [c.text for c in model.generate([row["prompt"] for row in ROWS], max_new_tokens=8)]
    config = grpo.GRPOConfig(run_name=reward.__name__, max_steps=STEPS, prompts_per_step=4, num_generations=32,
                             max_completion_length=8, slots=128, learning_rate=6e-3,
                             lr_scheduler_type="constant", save_strategy="no")
    grpo.GRPOTrainer(model, reward, config, ROWS).train()
    return before, [c.text for c in model.generate([row["prompt"] for row in ROWS], max_new_tokens=8)]


before, after_echo = train(echo)
_, after_digits = train(digits)
print(f"{'prompt':8}{'before':14}{'after echo':14}after digits")
for row, *texts in zip(ROWS, before, after_echo, after_digits, strict=True):
    shown = ["".join(c if " " <= c <= "~" else "·" for c in text) for text in texts]
    print("{:8}{:14}{:14}{}".format(row["prompt"], *shown))
