"""A GRPO script for TRL, with its import changed.

    python examples/trl_port.py [steps] [model folder, .gguf or hub id]

Everything below the import is as TRL takes it: the names of the options, the rewards' signature, the columns. With
`from trl import GRPOConfig, GRPOTrainer` it runs there, on the same model folder (the rows in a datasets.Dataset, which
is taken here too). Without a model it makes a small random one. See both rewards rise under TRL's names, in the lines
of the run and in runs/trl_port/metrics.jsonl.
"""
import sys

from grpo import GRPOConfig, GRPOTrainer


def random_model(folder):
    """A model folder in Hugging Face layout."""
    import grpo

    sizes = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
                 intermediate_size=128)
    grpo.load(grpo.tiny(**sizes)).save_pretrained(folder)
    return folder


def reward_letter(completions, letter, **kwargs):
    """The share of a completion that is the letter asked for."""
    return [text.count(wanted) / max(1, len(text)) for text, wanted in zip(completions, letter, strict=True)]


def reward_printable(completions, **kwargs):
    """The share of it that can be read."""
    return [sum(" " <= c <= "~" for c in completion) / max(1, len(completion)) for completion in completions]


dataset = [{"prompt": f"{letter}:", "letter": letter} for letter in "abcd"] * 8

training_args = GRPOConfig(
    output_dir="runs/trl_port",
    per_device_train_batch_size=32,
    gradient_accumulation_steps=4,
    num_generations=32,
    max_completion_length=8,
    max_steps=int(sys.argv[1]) if len(sys.argv) > 1 else 60,
    learning_rate=6e-3,
    lr_scheduler_type="constant_with_warmup",
    warmup_steps=2,
    adam_beta2=0.99,
    max_grad_norm=1.0,
    temperature=1.0,
    beta=0.001,
    epsilon=0.2,
    epsilon_high=0.28,
    loss_type="dapo",
    scale_rewards="group",
    reward_weights=[1.0, 0.1],
    mask_truncated_completions=False,
    logging_steps=10,
    save_strategy="no",
    report_to="none",
    seed=42,
    use_cpu=True,
)
trainer = GRPOTrainer(
    model=sys.argv[2] if len(sys.argv) > 2 else random_model("runs/random_model"),
    reward_funcs=[reward_letter, reward_printable],
    args=training_args,
    train_dataset=dataset,
)
print(trainer.train())
