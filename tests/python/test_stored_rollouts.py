"""What rollouts leave in the trainer's store spares the update its forward pass, at no change of a bit."""
import pytest

import toy
from grpo import _core


def forwards_of_the_update(trainer):
    """Forward passes that the trainer's first update runs: none where the rollout's activations are all there."""
    update, calls = trainer._on_policy, []

    def counted(rollouts):
        _core.profile_start()
        metrics = update(rollouts)
        calls.append({op: n for op, n, *_ in _core.profile()}["embed"])
        return metrics

    trainer._on_policy = counted
    next(iter(trainer))
    return calls[0]


@pytest.mark.parametrize("options", [{}, {"dynamic_sampling": True, "max_resample_times": 20, "prompts_per_step": 3}],
                         ids=["once", "resampled"])
@pytest.mark.parametrize("recompute", [False, True])
def test_stored_activations_spare_the_update_its_forward(tmp_path, options, recompute):
    """Also when rollouts are repeated until enough groups have spread: those of the first wait for the last."""
    def reward(prompts, completion_ids):
        return [len(ids) + ids[0] if p == "0" else 0.0 for p, ids in zip(prompts, completion_ids, strict=True)]

    rows = [{"prompt": str(i)} for i in range(4 if options else 1)]
    kept, computed = (toy.trainer(tmp_path, reward, rows, max_steps=1, recompute=recompute,
                                  keep_rollout_activations=keep, **options)
                      for keep in (True, False))
    assert (forwards_of_the_update(kept), forwards_of_the_update(computed) > 0) == (0, True)
    assert toy.weights(kept) == toy.weights(computed)
