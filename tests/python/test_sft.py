"""SFTTrainer: what it learns, what its gradient is, and what it refuses."""
import json

import numpy as np
import pytest

import grpo
import toy
from grpo.errors import ConfigError, DatasetError


def test_sft_learns_and_stops(tmp_path):
    rows = [{"prompt": "2+2=", "completion": "4"},
            {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]},
            {"prompt": [{"role": "user", "content": "x"}], "completion": [{"role": "assistant", "content": "y"}]}]
    config = grpo.SFTConfig(max_steps=80, learning_rate=1e-2, per_device_train_batch_size=3,
                            output_dir=str(tmp_path / "sft"), save_strategy="no",
                            eval_strategy="steps", eval_steps=80)
    trainer = grpo.SFTTrainer(toy.model(), config, rows, eval_dataset=rows)
    trainer.train()
    losses = [r["loss"]
              for r in map(json.loads, (trainer.run.path / "metrics.jsonl").read_text().splitlines()) if "loss" in r]
    assert losses[0] > 5 > 0.1 > losses[-1] and trainer.state.log_history[-2]["eval_loss"] < 0.1
    answers = trainer.model.generate(["2+2=", [{"role": "user", "content": "hi"}]], max_new_tokens=8, temperature=0)
    assert [(a.text, a.finish_reason) for a in answers] == [("4", "stop"), ("ho", "stop")]


def test_sft_evaluation_on_several_data_sets(tmp_path):
    sets = {name: [{"prompt": "a", "completion": name}] for name in ("b", "cd")}
    trainer = grpo.SFTTrainer(toy.model(), grpo.SFTConfig(), eval_dataset=sets)
    both = trainer.evaluate()
    assert set(both) == {f"eval_{name}_{what}" for name in sets for what in ("loss", "entropy", "runtime")}
    assert both["eval_cd_loss"] == trainer.evaluate(sets["cd"])["eval_loss"] != both["eval_b_loss"]


def test_sft_gradient_is_that_of_the_mean(tmp_path):
    policy = toy.model()
    trainer = grpo.SFTTrainer(policy, grpo.SFTConfig(max_steps=1, per_device_train_batch_size=2,
                                                     output_dir=str(tmp_path / "sft")),
                              [{"prompt": "ab", "completion": "cde"}, {"prompt": "x", "completion": "y"}])
    prompts, completions, _ = zip(*trainer.examples, strict=True)
    assert [len(c) for c in completions] == [4, 2]
    logps, grads = policy.logprob_grads([p.tolist() for p in prompts], [c.tolist() for c in completions],
                                        [[-1 / 6] * len(c) for c in completions])
    metrics = trainer.update()
    assert metrics["loss"] == pytest.approx(-np.concatenate(logps).mean())
    np.testing.assert_allclose(trainer.optimizer.gradient("model.embed_tokens.weight"),
                               grads["model.embed_tokens.weight"], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("arguments, message", [
    (dict(peft_config=object()), "peft_config is not supported"), (dict(formatting_func=str), "prompt and completion"),
    (dict(train_datset=[]), "SFTTrainer has no argument 'train_datset'; did you mean 'train_dataset'"),
    (dict(args=grpo.GRPOConfig()), "grpo.SFTConfig")])
def test_sft_constructor_errors(arguments, message):
    with pytest.raises(ConfigError, match=message):
        grpo.SFTTrainer(toy.model(), **arguments)
    grpo.SFTTrainer(toy.model(), data_collator=None, optimizers=(None, None))


@pytest.mark.parametrize("row, message",
                         [({"prompt": "x"}, "needs prompt and completion"), ({"words": "x"}, "it has words"),
                          ({"messages": [{"role": "user", "content": "x"}]}, "must end with the assistant"),
                          ({"messages": []}, "must end"),
                          ({"prompt": "x" * 2000, "completion": "y"}, "max_length=1024")])
def test_sft_bad_rows(tmp_path, row, message):
    with pytest.raises(DatasetError) as error:
        grpo.SFTTrainer(toy.model(), grpo.SFTConfig(), [{"prompt": "a", "completion": "b"}, row])
    assert message in str(error.value) and "row 1" in str(error.value)


def test_sft_function(tmp_path):
    tuned = grpo.sft(grpo.tiny(**toy.SIZES), [{"prompt": "a", "completion": "b"}], max_steps=2, device=toy.DEVICE,
                     output_dir=str(tmp_path / "s"))
    assert tuned.generate("a", max_new_tokens=1)[0].token_ids
    with pytest.raises(ConfigError, match="not both"):
        grpo.sft(tuned, [{"prompt": "a", "completion": "b"}], grpo.SFTConfig(), max_steps=2)


def test_a_second_trainer_on_the_model_leaves_the_checkpoint_of_the_first(tmp_path):
    """The usual order: SFT, then GRPO on the same model while the first trainer is still there."""
    policy = toy.model()
    config = grpo.SFTConfig(max_steps=3, learning_rate=1e-3, output_dir=str(tmp_path / "sft"), save_strategy="no")
    sft = grpo.SFTTrainer(policy, config, [{"prompt": "2+2=", "completion": "4"}])
    sft.train()

    def saved():
        folder = sft.save_checkpoint()
        return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}

    before = saved()
    second = toy.trainer(tmp_path, policy=policy)
    assert second.optimizer.steps_taken == 0
    assert saved() == before and len(before) > 1
