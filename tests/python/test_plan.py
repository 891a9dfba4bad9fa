"""The memory plan: what a run will hold, said and compared with what is free before anything is allocated. And the time
of its steps."""
import gc

import pytest

import grpo
import toy
from grpo import _core, cli
from grpo.errors import OutOfMemoryError
from grpo.planning import step_time
from grpo.planning.cards import Ceilings, find_card
from grpo.planning.memory import STORED, table, training_plan
from grpo.planning.shapes import SHAPES

CARD = 141 * 10**9
STEP = {"prompts_per_step": 16, "num_generations": 8, "max_prompt_length": 512, "slots": 128, "token_budget": 16384,
        "recompute": True}


@pytest.mark.parametrize("options, whole, half", [
    ({"max_completion_length": 1024}, True, True), ({"max_completion_length": 4096}, False, True),
    ({"max_completion_length": 1024, "beta": 0.04}, False, True), ({"max_completion_length": 16384}, False, False),
], ids=str)
def test_a_7b_model_on_one_gpu(emulated, monkeypatch, options, whole, half):
    """Full fine-tuning on one card of 141 GB, with moments in each storage. The plan asks no GPU."""
    monkeypatch.setattr("grpo.planning.memory.gpu_memory", lambda: CARD)
    bytes_of = {"float32": 8, "bfloat16": 4, "float8": 2 + 2 / 256}
    plans = {dtype: training_plan(SHAPES["Qwen2.5-7B"], "Qwen2.5-7B",
                                  grpo.GRPOConfig(moment_dtype=dtype, **STEP, **options), emulated)
             for dtype in bytes_of}
    assert [plan.fits for plan in plans.values()] == [whole, half, half]
    assert (("--moment_dtype bfloat16" in table(plans["float32"])) == (not whole)
            and ("--moment_dtype float8" in table(plans["bfloat16"])) == (not half))
    assert "--moment_dtype" not in table(plans["float8"])
    n = 7_615_616_512
    sizes = {dtype: dict(plan.arenas) for dtype, plan in plans.items()}
    for dtype, per_parameter in bytes_of.items():
        assert sizes[dtype]["gradients (float32)"] == pytest.approx(4 * n, rel=1e-4)
        assert sizes[dtype]["master bits beyond bfloat16"] == pytest.approx(2 * n, rel=1e-4)
        assert sizes[dtype][f"AdamW moments ({dtype})"] == pytest.approx(per_parameter * n, rel=1e-4)
    assert ("--master_dtype float24" in table(plans["float8"])) == (not half)
    short = training_plan(SHAPES["Qwen2.5-7B"], "Qwen2.5-7B",
                          grpo.GRPOConfig(master_dtype="float24", **STEP, **options), emulated)
    assert (dict(short.arenas)["master bits beyond bfloat16"] == pytest.approx(n, rel=1e-4)
            and "--master_dtype" not in table(short))


LARGE = dict(max_completion_length=40, generation_kwargs={"min_new_tokens": 40})


@pytest.mark.parametrize("options", [
    {}, {"recompute": True}, {"moment_dtype": "bfloat16"}, {"moment_dtype": "float8", "master_dtype": "float24"},
    {"token_budget": 1}, {"token_budget": 64, "num_generations": 8}, {"prompts_per_step": 5},
], ids=str)
def test_a_run_holds_what_was_planned(tmp_path, device, options):
    """Arena by arena, at the lengths that the plan is made for."""
    policy = toy.model(device)
    trainer = toy.trainer(tmp_path, policy=policy, rows=[{"prompt": p * 9, "letter": p} for p in "abcde"],
                          max_prompt_length=9, max_steps=1,
                          keep_rollout_activations=False, **LARGE, **options)
    planned = dict(training_plan(policy.config, "toy", trainer.args, device).arenas)
    trainer.train()
    held = dict(trainer.optimizer.plan())
    activations = held.pop("activations")
    assert ({name: size for name, size in held.items() if size}
            == {name: planned[name] for name in planned if name in held})
    assert planned.get("activations of the update", activations) == activations


@pytest.mark.parametrize("budget, advised", [(4096, 1024), (2048, 512), (1200, 512), (512, None)])
@pytest.mark.parametrize("completion, group", [(10, 0), (101, 9 + 8 * 100)], ids=["small group", "a group of 809 rows"])
def test_smaller_micro_batches_are_advised_where_groups_allow(device, budget, advised, completion, group):
    options = grpo.GRPOConfig(prompts_per_step=8, num_generations=8, max_prompt_length=9,
                              max_completion_length=completion, token_budget=budget,
                              slots=1)
    plan = training_plan(toy.model(device).config, "toy", options, device)
    found = [way.split()[1] for way in plan.advice if way.startswith("--token_budget")]
    assert found == ([str(max(advised, group))] if advised and budget > group else [])


@pytest.mark.parametrize("options", [{}, {"beta": 0.1, "sync_ref_model": True}, {"keep_rollout_activations": True}],
                         ids=str)
def test_a_run_that_does_not_fit_is_refused(tmp_path, device, monkeypatch, options):
    """With the table, and before gradients, moments or a run folder are there."""
    monkeypatch.setattr("grpo.planning.memory.available_memory", lambda: 100_000)
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
    needed = sum(size for name, size in training_plan(policy.config, "toy", args, "cpu").arenas if name != STORED)
    for free, at_most in ((needed, 0), (needed + 10_000, 10_000), (2 * needed, needed // 2)):
        monkeypatch.setattr("grpo.planning.memory.available_memory", lambda free=free: free)
        plan = training_plan(policy.config, "toy", args, "cpu")
        kept = dict(plan.arenas).get(STORED, 0)
        assert plan.fits and at_most * 0.9 - 1000 <= kept <= at_most and (plan.store_rows > 0) == (kept > 0)


def test_sft_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("grpo.planning.memory.available_memory", lambda: 100_000)
    trainer = grpo.SFTTrainer(toy.model(), grpo.SFTConfig(output_dir=str(tmp_path / "run"), max_steps=1),
                              [{"prompt": "a", "completion": "b"}])
    with pytest.raises(OutOfMemoryError, match=r"does not fit[^$]*8 rows of at most 1024 tokens[^$]*--moment_dtype"):
        trainer.train()


def test_on_a_gpu_all_of_its_memory_counts(tmp_path, emulated, monkeypatch):
    monkeypatch.setattr("grpo.planning.memory.gpu_memory", lambda: 200_000)
    with pytest.raises(OutOfMemoryError, match="on cuda.*[^$]*200.0 kB are free here: it does not fit"):
        toy.trainer(tmp_path, policy=toy.model(emulated)).train()


@pytest.mark.parametrize("words", [["train"], ["train", "--check"]])
def test_the_command_line_refuses_before_it_loads(tmp_path, monkeypatch, capsys, words):
    monkeypatch.setattr("grpo.planning.memory.available_memory", lambda: 10_000_000)
    monkeypatch.setattr("grpo.recipes.Recipe.load_model", lambda self: pytest.fail("the model was loaded"))
    assert cli.main([*words, "--output_dir", str(tmp_path / "run")]) == 1
    assert "AdamW moments (float32)" in capsys.readouterr().err and not (tmp_path / "run").exists()


# -- time --------------------------------------------------------------------------------------------------------------

CARD_CEILINGS = Ceilings(flops=790e12, bandwidth=4.3e12, source="")
STANDARD = step_time.Step(prompts=8, generations=16, prompt_length=150, new_tokens=300, slots=128, token_budget=16384)


def seconds_of(name, step, at=CARD_CEILINGS):
    """Floors by phase."""
    return {phase.name: step_time.floor([phase], at)
            for phase in step_time.phases(step_time.Shape.of(SHAPES[name]), step, "cuda")}


@pytest.mark.parametrize("name, milliseconds", [
    ("Qwen2.5-0.5B", (0.332, 0.435, 0.731)), ("Qwen2.5-1.5B", (0.945, 1.173, 1.911)),
    ("Qwen2.5-3B", (1.725, 2.015, 3.160)),
    ("Qwen2.5-7B", (3.735, 4.181, 6.366))])
def test_floor_of_a_decoded_token(name, milliseconds):
    """Worked out by hand: weights, or products where they take longer; keys and values of 512 tokens a row, nothing
    shared; logits."""
    for rows, wanted in zip((64, 128, 256), milliseconds, strict=True):
        step = step_time.Step(prompts=rows, generations=1, prompt_length=511, new_tokens=2, slots=rows,
                              token_budget=16384)
        assert 1e3 * seconds_of(name, step)["decode"] / 2 == pytest.approx(wanted, rel=2e-3)


@pytest.mark.parametrize("name, wanted", [
    ("Qwen2.5-0.5B", (0.001, 0.092, 0.150, 0.004, 0.25)), ("Qwen2.5-1.5B", (0.004, 0.26, 0.47, 0.012, 0.75)),
    ("Qwen2.5-3B", (0.008, 0.49, 0.94, 0.023, 1.46)), ("Qwen2.5-7B", (0.020, 1.07, 2.14, 0.057, 3.29))])
def test_floor_of_a_step(name, wanted):
    """8 prompts of 150 tokens x 16 completions of 300 on an H200: within three per cent of figures worked out by hand,
    and their last digit."""
    found = seconds_of(name, STANDARD)
    shown = (found["prefill"], found["decode"], found["forward + backward"] + found["head"], found["AdamW"],
             sum(found.values()))
    assert shown == tuple(pytest.approx(value, rel=0.03, abs=6e-4) for value in wanted)


@pytest.mark.parametrize("before, count, window",
                         [(0, 7, 0), (0, 7, 3), (5, 7, 0), (5, 7, 20), (5, 7, 9), (5, 7, 4), (40, 3, 8)])
def test_keys_seen(before, count, window):
    """Summed token by token, but for the half key that counting each one's own whole adds."""
    exact = sum(min(p + 1, window) if window else p + 1 for p in range(before, before + count))
    assert step_time.seen(before, count, window) == pytest.approx(exact, abs=count / 2 + 0.5)


def test_windows_save_attention():
    """A window as long as the sequence changes nothing; a short one leaves attention its share of the keys."""
    mistral = SHAPES["SmolLM2-135M"] | {"model_type": "mistral"}
    step = step_time.Step(prompts=2, generations=4, prompt_length=100, new_tokens=50, slots=8, token_budget=1024)
    shapes = [step_time.Shape.of(mistral | {"sliding_window": window}) for window in (None, 150, 10)]
    whole, same, short = (step_time.phases(shape, step, "cpu") for shape in shapes)
    flops = [[sum(part.flops for part in phase.parts if part.kind == step_time.ATTENTION) for phase in work]
             for work in (whole, same, short)]
    assert flops[0] == flops[1] and all(b < a / 3 for a, b in zip(flops[0], flops[2], strict=True) if a)


@pytest.mark.parametrize("flops, bandwidth, kept, measured", [
    (0.408e12, 32.7e9, 1.0, 12.93), (0.408e12, 32.7e9, 0.0, 15.77), (0.394e12, 27.2e9, 1.0, 13.43),
    (0.394e12, 27.2e9, 0.0, 14.67)])
def test_expected_beside_what_was_measured(flops, bandwidth, kept, measured):
    """SmolLM2-135M's step on two cores (tests/bench/SPEED.md), each with the ceilings of its own run."""
    step = step_time.Step(prompts=4, generations=8, prompt_length=96, new_tokens=128, slots=32, token_budget=1024,
                          stored=kept)
    work = step_time.phases(step_time.Shape.of(SHAPES["SmolLM2-135M"]), step, "cpu")
    assert step_time.expected(work, Ceilings(flops, bandwidth, ""), "cpu") == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize("options, phase, factor", [
    ({"recompute": True}, "forward + backward", 4 / 3),
    ({"keep_rollout_activations": True}, "forward + backward", 2 / 3),
    ({"num_iterations": 2}, "forward + backward", 2), ({"num_iterations": 2}, "head", 2),
    ({"num_iterations": 2}, "AdamW", 2),
    ({"moment_dtype": "bfloat16"}, "AdamW", 24 / 32), ({"moment_dtype": "float8"}, "AdamW", 20 / 32),
    ({"master_dtype": "float24"}, "AdamW", 30 / 32), ({"slots": 64}, "decode", None),
    ({"num_iterations": 2}, "decode", 1)], ids=str)
def test_options_change_the_work(options, phase, factor):
    """By so much where nothing but the products is counted; None: more, since the weights are read once more."""
    config = grpo.GRPOConfig(prompts_per_step=8, num_generations=16, max_completion_length=300,
                             **({"slots": 128} | options))
    store_rows = 1 << 30 if config.keep_rollout_activations else 0
    step = step_time.Step.of(config, "cuda", 150, store_rows)
    with_option, without = seconds_of("Qwen2.5-0.5B", step)[phase], seconds_of("Qwen2.5-0.5B", STANDARD)[phase]
    assert with_option > without if factor is None else with_option == pytest.approx(factor * without, rel=0.01)


def test_a_reference_is_scored():
    config = grpo.GRPOConfig(prompts_per_step=8, num_generations=16, max_completion_length=300, slots=128, beta=0.04)
    scoring = seconds_of("Qwen2.5-0.5B", step_time.Step.of(config, "cuda", 150))["scoring"]
    plain = seconds_of("Qwen2.5-0.5B", STANDARD)
    assert ("scoring" not in plain
            and scoring == pytest.approx((plain["forward + backward"] + plain["head"]) / 3, rel=0.01))


FOUR = "Qwen2.5-0.5B,Qwen2.5-1.5B,Qwen2.5-3B,Qwen/Qwen2.5-7B-Instruct"
WORK = ["--prompts_per_step", "16", "--num_generations", "16", "--max_prompt_length", "150", "--max_completion_length",
        "2048", "--card", "H200"]


def test_models_beside_each_other(emulated, capsys):
    assert cli.main(["plan", *WORK, "--model", FOUR]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  Qwen")]
    assert [row[0] for row in rows] == FOUR.split(",") and [row[3] for row in rows] == ["yes", "yes", "yes", "no"]
    seconds = [[float(number) for number in row[4:]] for row in rows]
    assert all(sum(row[:-2]) == pytest.approx(row[-2], abs=4e-3) and row[-1] < row[-2] for row in seconds)
    assert [row[-2] for row in seconds] == sorted(row[-2] for row in seconds)


def test_both_tables_of_one_model(emulated, capsys):
    assert (cli.main(["plan", *WORK, "--model", "Qwen2.5-7B", "--beta", "0.04", "--bandwidth", "2000", "--tflops",
                      "300"]) == 0)
    text = capsys.readouterr().out
    assert "141.0 GB are free on that card: it does not fit" in text and "at 2,000 GB/s and 300 TFLOP/s (given)" in text
    assert all(f"\n  {name} " in text for name in ("reference weights", "prefill", "decode", "scoring",
                                                   "forward + backward", "head", "AdamW", "a step"))


def test_time_is_told_without_the_cuda_backend(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("GRPO_CUDA_LIBRARY", str(tmp_path / "none.so"))
    for model in ("Qwen2.5-0.5B", FOUR):
        assert cli.main(["plan", "--device", "cuda", "--model", model]) == 0
        text = capsys.readouterr().out
        assert ("Its memory is told by the CUDA backend, which is not here" in text
                and "data sheet of an H200, since no GPU is here" in text)


@pytest.mark.parametrize("device, name",
                         [("NVIDIA H200", "H200"), ("NVIDIA A100-SXM4-80GB", "A100"), ("NVIDIA A100-SXM4-40GB", None)])
def test_the_card_at_hand(monkeypatch, device, name):
    monkeypatch.setattr(_core, "cuda_devices", lambda: [(device, (9, 0), CARD)])
    found = find_card(None)
    assert (found and found[0]) == name and find_card("L40S")[1].memory == 48 * 10**9


@pytest.mark.parametrize("words, said", [
    (["--card", "H20"], "card 'H20' is not known; did you mean 'H200'"),
    (["--card", "H200", "--device", "cpu"], "--device cpu is none"),
    (["--device", "cpu", "--tflops", "0"], "--tflops 0 must be positive"),
    (["--device", "cuda", "--bandwidth", "-1"], "--bandwidth -1 must be positive")])
def test_what_cannot_be_is_said(words, said, capsys):
    assert cli.main(["plan", *words]) == 1
    assert said in capsys.readouterr().err
