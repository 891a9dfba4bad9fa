"""Rewards in a run: weights that follow a schedule, rewards that remember, rewards that look at the policy's hidden
states."""
import numpy as np
import pytest

import toy
from grpo import GRPOConfig
from grpo.errors import ConfigError, GrpoWarning, RewardError
from grpo.options.weights import weight_at
from grpo.rewards.diversity import Archive, unit

SCHEDULE = {0: 0.0, 2: 1.0, 4: 0.5}
SAVING = dict(save_strategy="steps", save_steps=1, max_steps=5)


class Novelty:
    """Novelty of every completion against an archive of 5."""

    def __init__(self):
        self.archive = Archive(neighbours=2, capacity=5)

    def __call__(self, completions, embed, training):
        vectors = unit(embed([c or "-" for c in completions]))
        rewards = self.archive.novelty(vectors)
        if training:
            self.archive.add(vectors)
        return rewards

    def state_dict(self):
        return self.archive.state_dict()

    def load_state_dict(self, state):
        self.archive.load_state_dict(state)


def stopped_after(tmp_path, reward_funcs, steps, **changed):
    trainer = toy.trainer(tmp_path, reward_funcs, **(SAVING | changed))
    next(step for step in trainer if step.step == steps)
    return trainer


# ---- schedules of weights


@pytest.mark.parametrize("step, weight", [(0, 0), (1, .5), (2, 1), (3, .75), (4, .5), (9, .5)])
def test_weights_between_points(step, weight):
    assert weight_at(SCHEDULE, step) == weight


@pytest.mark.parametrize("given, kept", [({100: 1, 0: 0}, {0: 0.0, 100: 1.0}),
                                         ({"0": "0.5", "10": 1}, {0: .5, 10: 1.0}), ({5: 2}, {5: 2.0}), ("2", 2.0)])
def test_schedules_that_are_understood(given, kept):
    assert GRPOConfig(reward_weights=[1.0, given]).reward_weights == [1.0, kept]


@pytest.mark.parametrize("given", [{}, {-1: 1.0}, {0.5: 1.0}, {"x": 1.0}, {True: 1.0}, {0: "x"}, {0: None},
                                   {0: float("nan")}, "x", None, True, [0, 1]])
def test_schedules_that_are_not(given):
    with pytest.raises(ConfigError, match="reward_weights"):
        GRPOConfig(reward_weights=[1.0, given])


@pytest.mark.parametrize("stop", [1, 3])
def test_a_schedule_is_logged_and_resumed_exactly(tmp_path, stop, recwarn):
    run = dict(reward_weights=[1.0, SCHEDULE], num_iterations=2)                    # two steps a rollout
    straight = toy.trainer(tmp_path, [toy.share, toy.byte_values], **SAVING, **run)
    metrics = [step.metrics for step in straight]
    assert [m.get("reward_weight/byte_values") for m in metrics] == [0, None, 1, None, .5]
    assert metrics[0]["reward"] == metrics[0]["rewards/share/mean"]
    assert (metrics[4]["reward"]
            == pytest.approx(metrics[4]["rewards/share/mean"] + .5 * metrics[4]["rewards/byte_values/mean"]))
    assert not any(name.startswith("reward_weight/share") for name in metrics[0])
    broken = stopped_after(tmp_path, [toy.share, toy.byte_values], stop, **run)
    resumed = toy.trainer(tmp_path, [toy.share, toy.byte_values], **SAVING, **run, output_dir=str(broken.run.path))
    resumed.train(resume_from_checkpoint=True)
    assert toy.weights(resumed) == toy.weights(straight)
    assert not [w for w in recwarn if "other options" in str(w.message)]


def test_a_schedule_in_yaml_is_the_one_that_is_written_back(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("reward_weights: [1, {0: 0, 1e1: 0.5, 20: 1e-1}]\n")
    with pytest.raises(ConfigError, match="reward_weights: step '1e1'"):
        GRPOConfig.from_yaml(file)
    file.write_text("reward_weights: [1, {0: 0, 10: 0.5, 20: 1e-1}]\n")
    config = GRPOConfig.from_yaml(file)
    assert config.reward_weights == [1.0, {0: 0.0, 10: 0.5, 20: 0.1}]
    config.to_yaml(file)
    assert GRPOConfig.from_yaml(file) == config


def test_a_weight_changed_by_hand_replaces_its_schedule(tmp_path):
    trainer = toy.trainer(tmp_path, toy.share, reward_weights=[SCHEDULE], max_steps=2)
    steps = iter(trainer)
    next(steps)
    trainer.rewards["share"].weight = 3.0
    second = next(steps).metrics
    assert second["reward"] == pytest.approx(3 * second["rewards/share/mean"]) and "reward_weight/share" not in second


# ---- memory


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_reward_that_remembers_resumes_exactly(tmp_path, stop):
    straight = toy.trainer(tmp_path, Novelty(), num_iterations=2, **SAVING)
    straight.train()
    broken = stopped_after(tmp_path, Novelty(), stop, num_iterations=2)
    resumed = toy.trainer(tmp_path, Novelty(), num_iterations=2, **SAVING, output_dir=str(broken.run.path))
    resumed.train(resume_from_checkpoint=True)
    assert toy.weights(resumed) == toy.weights(straight)
    np.testing.assert_array_equal(resumed.rewards.state_dict()["Novelty/vectors"],
                                  straight.rewards.state_dict()["Novelty/vectors"])


def test_evaluation_teaches_no_reward(tmp_path):
    plain, evaluated = (toy.trainer(tmp_path, Novelty(), eval_dataset=toy.ROWS, max_steps=3, **changed)
                        for changed in ({}, dict(eval_strategy="steps", eval_steps=1, eval_on_start=True)))
    plain.train(), evaluated.train()
    assert toy.weights(plain) == toy.weights(evaluated) and len(plain.rewards["Novelty"].function.archive) == 5


@pytest.mark.parametrize("then, now, message", [(toy.share, Novelty(), "'Novelty': the checkpoint has no state of it"),
                                                (Novelty(), toy.share, "rewards that are not there: Novelty/vectors")])
def test_other_rewards_than_before_are_named(tmp_path, then, now, message):
    broken = stopped_after(tmp_path, then, 1)
    with pytest.warns(GrpoWarning, match=message):
        toy.trainer(tmp_path, now, **SAVING, output_dir=str(broken.run.path)).train(resume_from_checkpoint=True)


def test_a_state_that_cannot_be_saved_is_named(tmp_path):
    class Odd(Novelty):
        def state_dict(self):
            return {"seen": np.array([object()])}

    with pytest.raises(RewardError, match="'Odd/seen' is not an array of numbers or text"):
        toy.trainer(tmp_path, Odd(), **SAVING).train()


# ---- hidden states


def test_embedding_in_a_reward_leaves_the_kept_activations(tmp_path):
    kept, computed = (toy.trainer(tmp_path, Novelty(), max_steps=3, keep_rollout_activations=keep)
                      for keep in (True, False))
    kept.train(), computed.train()
    assert toy.weights(kept) == toy.weights(computed)


def test_embed_takes_texts_and_ids_and_names_the_wrong_one():
    model = toy.model()
    np.testing.assert_array_equal(model.embed(["ab", "c"]),
                                  model.embed([model.tokenizer.encode("ab"), model.tokenizer.encode("c")]))
    for texts, message in ((["a", ""], "text 1 has 0 tokens"), ([[1], [1000]], "text 1: token id 1000"),
                           (["a" * 5000], "text 0 has 5000 tokens"),
                           ([3.5], "text 0 must be text")):
        with pytest.raises(ConfigError, match=message):
            model.embed(texts)


def test_what_rewards_are_offered_in_a_run(tmp_path):
    seen = {}

    def look(completions, completion_ids, completion_lengths, truncated, max_completion_length, group_ids, tokenizer,
             training, embed, **columns):
        seen["columns"], seen["training"] = set(columns), training
        assert max_completion_length == 6 and len(group_ids) == len(completions) == len(truncated)
        ends = [ids[-1] in tokenizer.eos_ids for ids in completion_ids]
        assert (completion_lengths == [len(ids) - end for ids, end in zip(completion_ids, ends, strict=True)]
                and truncated == [not end for end in ends])
        assert embed(["a", "b"]).shape == (2, toy.SIZES["hidden_size"])
        seen.setdefault("groups", group_ids)
        return [0.0] * len(completions)

    trainer = toy.trainer(tmp_path, look, max_steps=1, temperature=1.5)
    trainer.train()
    assert (seen == {"columns": {"prompts", "letter", "trainer_state", "log_extra", "log_metric"}, "training": True,
                     "groups": [0] * 4 + [1] * 4})
