"""The memory plan: what a run will hold, said and compared with what is free before anything is allocated."""
import gc

import pytest

import grpo
import toy
from grpo import _core, cli
from grpo.errors import OutOfMemoryError
from grpo.plan import KEPT, table, training_plan

QWEN_7B = {"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
           "hidden_act": "silu", "max_position_embeddings": 32768}
CARD = 141 * 10**9
STEP = {"prompts_per_step": 16, "num_generations": 8, "max_prompt_length": 512, "slots": 128, "token_budget": 16384, "recompute": True}


@pytest.mark.parametrize("options, whole, half", [
    ({"max_completion_length": 1024}, True, True), ({"max_completion_length": 4096}, False, True),
    ({"max_completion_length": 1024, "beta": 0.04}, False, True), ({"max_completion_length": 16384}, False, False),
], ids=str)
def test_a_7b_model_on_one_gpu(emulated, monkeypatch, options, whole, half):
    """Full fine-tuning on one card of 141 GB, with moments in float32 and in bfloat16. The plan asks no GPU."""
    monkeypatch.setattr("grpo.plan.gpu_memory", lambda: CARD)
    plans = {dtype: training_plan(QWEN_7B, "Qwen2.5-7B", grpo.GRPOConfig(moment_dtype=dtype, **STEP, **options), emulated) for dtype in ("float32", "bfloat16")}
    assert (plans["float32"].fits, plans["bfloat16"].fits) == (whole, half)
    text = table(plans["float32"])
    assert ("--moment_dtype bfloat16" in text) == (not whole) and "--moment_dtype" not in table(plans["bfloat16"])
    n = 7_615_616_512
    sizes = {dtype: dict(plan.arenas) for dtype, plan in plans.items()}
    for dtype, per_parameter in (("float32", 8), ("bfloat16", 4)):
        assert sizes[dtype]["gradients (float32)"] == pytest.approx(4 * n, rel=1e-4)
        assert sizes[dtype]["master bits beyond bfloat16"] == pytest.approx(2 * n, rel=1e-4)
        assert sizes[dtype][f"AdamW moments ({dtype})"] == pytest.approx(per_parameter * n, rel=1e-4)


LARGE = dict(max_completion_length=40, generation_kwargs={"min_new_tokens": 40})


@pytest.mark.parametrize("options", [
    {}, {"recompute": True}, {"moment_dtype": "bfloat16"}, {"token_budget": 1}, {"token_budget": 64, "num_generations": 8}, {"prompts_per_step": 5},
], ids=str)
def test_a_run_holds_what_was_planned(tmp_path, device, options):
    """Arena by arena, at the lengths that the plan is made for."""
    policy = toy.model(device)
    trainer = toy.trainer(tmp_path, policy=policy, rows=[{"prompt": p * 9, "letter": p} for p in "abcde"], max_prompt_length=9, max_steps=1,
                          keep_rollout_activations=False, **LARGE, **options)
    planned = dict(training_plan(policy.config, "toy", trainer.args, device).arenas)
    trainer.train()
    held = dict(trainer.optimizer.plan())
    activations = held.pop("activations")
    assert {name: size for name, size in held.items() if size} == {name: planned[name] for name in planned if name in held}
    assert planned.get("activations of the update", activations) == activations


@pytest.mark.parametrize("options", [{}, {"beta": 0.1, "sync_ref_model": True}, {"keep_rollout_activations": True}], ids=str)
def test_a_run_that_does_not_fit_is_refused(tmp_path, device, monkeypatch, options):
    """With the table, and before gradients, moments or a run folder are there."""
    monkeypatch.setattr("grpo.plan.available_memory", lambda: 100_000)
    trainer = toy.trainer(tmp_path, policy=toy.model(device), **options)
    gc.collect()                             # what other tests left
    before = _core.memory_in_use()
    with pytest.raises(OutOfMemoryError, match="does not fit") as refused:
        trainer.train()
    text = str(refused.value)
    assert "gradients (float32)" in text and text.count("\n  --") >= 3
    assert _core.memory_in_use() == before and trainer.run is None and not list(tmp_path.glob("run*"))


def test_what_rollouts_may_keep_is_what_is_left(tmp_path, monkeypatch):
    """By default they take a quarter of the free memory, and never what the rest of the run needs."""
    policy, args = toy.model(), grpo.GRPOConfig(**toy.options(tmp_path, max_completion_length=200))
    needed = sum(size for name, size in training_plan(policy.config, "toy", args, "cpu").arenas if name != KEPT)
    for free, at_most in ((needed, 0), (needed + 10_000, 10_000), (2 * needed, needed // 2)):
        monkeypatch.setattr("grpo.plan.available_memory", lambda free=free: free)
        plan = training_plan(policy.config, "toy", args, "cpu")
        kept = dict(plan.arenas).get(KEPT, 0)
        assert plan.fits and at_most * 0.9 - 1000 <= kept <= at_most and (plan.keep_rows > 0) == (kept > 0)


def test_sft_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("grpo.plan.available_memory", lambda: 100_000)
    trainer = grpo.SFTTrainer(toy.model(), grpo.SFTConfig(output_dir=str(tmp_path / "run"), max_steps=1), [{"prompt": "a", "completion": "b"}])
    with pytest.raises(OutOfMemoryError, match=r"does not fit[^$]*8 rows of at most 1024 tokens[^$]*--moment_dtype"):
        trainer.train()


def test_on_a_gpu_all_of_its_memory_counts(tmp_path, emulated, monkeypatch):
    monkeypatch.setattr("grpo.plan.gpu_memory", lambda: 200_000)
    with pytest.raises(OutOfMemoryError, match="on cuda.*[^$]*200.0 kB are free here: it does not fit"):
        toy.trainer(tmp_path, policy=toy.model(emulated)).train()


@pytest.mark.parametrize("words", [["train"], ["train", "--check"]])
def test_the_command_line_refuses_before_it_loads(tmp_path, monkeypatch, capsys, words):
    monkeypatch.setattr("grpo.plan.available_memory", lambda: 10_000_000)
    monkeypatch.setattr("grpo.recipes.Recipe.load_model", lambda self: pytest.fail("the model was loaded"))
    assert cli.main([*words, "--output_dir", str(tmp_path / "run")]) == 1
    assert "AdamW moments (float32)" in capsys.readouterr().err and not (tmp_path / "run").exists()
