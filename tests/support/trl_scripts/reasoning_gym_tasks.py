"""A map-style data set that makes its rows, and a reward that asks it: the shape of an example of reasoning-gym."""

import os

from torch.utils.data import Dataset
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer


class Tasks:
    """What stands for a procedural data set: entries by number, and a score for an answer."""

    def __len__(self):
        return 16

    def __getitem__(self, i):
        return {"question": f"{i} + {i}?", "answer": str(2 * i), "metadata": {"difficulty": {"n": i}}}

    def score_answer(self, answer, entry):
        return 1.0 if answer == entry["answer"] else len(answer or "") / 100


class ReasoningGymDataset(Dataset):
    def __init__(self, tokenizer, data):
        self.tokenizer, self.data = tokenizer, data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, idx):
        item = self.data[idx]
        chat = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": item["question"]}]
        prompt = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return {"prompt": prompt, "item": item}


class CustomGRPOTrainer(GRPOTrainer):
    def __init__(self, model, args, tokenizer, train_dataset):
        super().__init__(
            model=model,
            reward_funcs=[self._accuracy_reward, self._format_reward],
            args=args,
            train_dataset=train_dataset,
            processing_class=tokenizer,
        )

    def _format_reward(self, completions, **kwargs):
        return [float("<answer>" in completion) for completion in completions]

    def _accuracy_reward(self, completions, **kwargs):
        return [
            self.train_dataset.data.score_answer(completion.strip(), item)
            for completion, item in zip(completions, kwargs["item"])
        ]


tokenizer = AutoTokenizer.from_pretrained(os.environ["MODEL"])
args = GRPOConfig(
    output_dir=os.environ["OUT"],
    per_device_train_batch_size=4,
    num_generations=4,
    max_completion_length=6,
    max_steps=2,
    learning_rate=1e-3,
    logging_steps=1,
    report_to="none",
    bf16=False,
    use_cpu=True,
    save_strategy="no",
)
trainer = CustomGRPOTrainer(os.environ["MODEL"], args, tokenizer, ReasoningGymDataset(tokenizer, Tasks()))
trainer.train()
print(trainer.state.global_step, [f.__name__ for f in trainer.reward_funcs])
