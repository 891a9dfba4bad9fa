"""Layouts of thought: a template, or a prompt, may open <think> itself."""
import dataclasses
import json

import grpo
from grpo.rewards import RewardSet, think_format_reward
from reward_batches import batch


def test_a_template_that_opens_think_itself():
    """The completion is then to close it; what was thought may be in the prompt too, closed again."""
    texts, ends = ["so</think>4", "<think>so</think>4", "4"], ["user\nassistant\n<think>\n"] * 3
    for name, rest in (("think_format_reward", ""), ("think_answer_format_reward", "<answer>4</answer>")):
        said = [text.replace("4", rest or "4") for text in texts]
        opened = dataclasses.replace(batch(said, columns={}), prompt_ends=ends)
        assert RewardSet(name).score(opened).values[:, 0].tolist() == [1, 0, 0]
        closed = dataclasses.replace(batch(said, columns={}), prompt_ends=["<think>\n\n</think>\n\n"] * 3)
        assert RewardSet(name).score(closed).values[:, 0].tolist() == [0, 1, 0]
    chat = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "<think>"}]
    assert think_format_reward(texts[:1], prompts=[chat]) == think_format_reward(texts[:1], ["2 + 2? <think>"]) == [1.0]


def test_prompt_ends_are_those_of_the_template(tmp_path):
    template = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}\n<think>\n{% endif %}"
    model, seen = grpo.load(grpo.tiny(num_hidden_layers=1)), []
    model.tokenizer.chat_template = template

    def spy(completions, prompt_ends):
        seen.extend(prompt_ends)
        return [0.0] * len(completions)

    config = grpo.GRPOConfig(max_steps=1, prompts_per_step=1, num_generations=2, max_completion_length=4,
                             output_dir=str(tmp_path), eval_strategy="steps", eval_steps=1)
    chat = [{"role": "user", "content": "Answer as <think>...</think> <answer>...</answer>: 2 + 2"}]
    trainer = grpo.GRPOTrainer(model, spy, config, [{"prompt": chat, "answer": "4"}], [{"prompt": chat, "answer": "4"}])
    trainer.train()
    assert seen and all(end.endswith("<think>\n") for end in seen)
    (path,) = (trainer.run.path / "eval").rglob("*.json")
    record, _ = json.loads(path.read_text())["completions"]
    assert record["begun"] == "<think>\n" and "<think> missing" not in record["tag_errors"]
