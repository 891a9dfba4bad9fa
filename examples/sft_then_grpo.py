"""Imitate first, then improve: SFT on a mixed bag of demonstrations, then GRPO on a reward for the right ones.

    python examples/sft_then_grpo.py [steps of GRPO]

The task is to write a word backwards. Two demonstrators in three just copy the word, so SFT teaches the form of an
answer and mostly the wrong content. GRPO gets no demonstrations, only 1 for a right answer and 0 for a wrong one. See
the accuracy on words that neither stage has seen, before and after.
"""
import itertools
import random
import sys

import grpo

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 60
rng = random.Random(0)
words = ["".join(letters) for letters in itertools.product("abcdefgh", repeat=3)]
rng.shuffle(words)
rows = [{"prompt": f"{word} -> ", "answer": word[::-1]} for word in words]
held_out, training = rows[:64], rows[64:]


def demonstration(row):
    word = row["answer"][::-1]
    return {"prompt": row["prompt"], "completion": row["answer"] if rng.random() < 1 / 3 else word}


def exact(completions, answer, **columns):
    return [float(text == right) for text, right in zip(completions, answer, strict=True)]


def accuracy(model):
    """Share of held-out words that are right: greedily, and drawn at temperature 1."""
    prompts, answers = [row["prompt"] for row in held_out], [row["answer"] for row in held_out]
    greedy = model.generate(prompts, max_new_tokens=8, temperature=0)
    drawn = model.generate(prompts, num_generations=8, max_new_tokens=8)
    return (sum(exact([c.text for c in greedy], answers)) / len(greedy),
            sum(exact([c.text for c in drawn], [a for a in answers for _ in range(8)])) / len(drawn))


model = grpo.load(grpo.tiny(hidden_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                            intermediate_size=256))
demonstrations = [demonstration(row) for row in training for _ in range(4)]
grpo.sft(model, demonstrations, max_steps=200, per_device_train_batch_size=64, learning_rate=4e-3,
         lr_scheduler_type="cosine", warmup_steps=10, logging_steps=50, save_strategy="no")
imitated = accuracy(model)

config = grpo.GRPOConfig(max_steps=STEPS, prompts_per_step=16, num_generations=8, max_completion_length=8, slots=128,
                         learning_rate=1e-3, lr_scheduler_type="constant", save_strategy="no")
grpo.GRPOTrainer(model, exact, config, training).train()
improved = accuracy(model)

for name, (greedy, drawn) in {"after SFT": imitated, "after GRPO": improved}.items():
    print(f"{name:12} right answers: {greedy:4.0%} greedy, {drawn:4.0%} at temperature 1")
shown = held_out[:4]
answers = model.generate([row["prompt"] for row in shown], max_new_tokens=8, temperature=0)
for row, completion in zip(shown, answers, strict=True):
    print(f"    {row['prompt']}{completion.text}")
