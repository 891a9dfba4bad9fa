"""A data set of your own: a function, or a file whose columns have other names; and rows that are never trained on.

    python examples/custom_dataset.py [steps] [.jsonl, .csv or .parquet file with the columns asked and letters]

The task is to write letters of the word in the prompt. See the reward on words that were held out rise with that of
training: a random model learns to look the letters up, not to remember them.
"""
import itertools
import random
import sys

import grpo

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 120


def words(length=3):
    """Rows of a data set: dicts. A parameter named split or size, where there is one, gets load's."""
    every = ["".join(letters) for letters in itertools.permutations("abcdefgh", length)]
    random.Random(0).shuffle(every)
    return [{"asked": f"{word}:", "letters": word} for word in every]


def member(completions, answer, **columns):
    """The share of a completion that is letters of the word."""
    return [sum(c in letters for c in text) / max(1, len(text))
            for text, letters in zip(completions, answer, strict=True)]


source = sys.argv[2] if len(sys.argv) > 2 else words
# a fifth is held out, by a hash of its prompt
options = dict(columns={"prompt": "asked", "answer": "letters"}, validation=0.2)
rows, held_out = grpo.datasets.load(source, "train", **options), grpo.datasets.load(source, "test", **options)
print(f"{len(rows)} rows to train on, the first: {rows[0]}; {len(held_out)} held out")

model = grpo.load(grpo.tiny(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
                            intermediate_size=128))
config = grpo.GRPOConfig(run_name="custom_dataset", max_steps=STEPS, prompts_per_step=16, num_generations=16,
                         max_completion_length=6, slots=128, learning_rate=3e-3, lr_scheduler_type="constant",
                         eval_strategy="steps", eval_steps=max(1, STEPS // 3), eval_on_start=True,
                         save_strategy="no", logging_steps=10)
grpo.GRPOTrainer(model, member, config, rows, held_out).train()
for row in held_out[:5]:
    print(row["prompt"], ascii(model.generate(row["prompt"], max_new_tokens=6)[0].text))
