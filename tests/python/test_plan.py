"""The memory plan: what a run will hold, said and compared with what is free before anything is allocated. And the time
of its steps."""
import gc
import json

import numpy as np
import pytest

import grpo
import toy
from grpo import _core, cli
from grpo.errors import ConfigError, OutOfMemoryError
from grpo.planning import step_time
from grpo.planning.cards import Ceilings, find_card
from grpo.planning.memory import HOST, STORED, Shown, table, training_plan
from grpo.planning.shapes import SHAPES
from grpo.vision import Processor

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


def shown_rows(size=(56, 84), images=1):
    """Prompts of a letter and pictures of its own."""
    rng = np.random.default_rng(0)
    return [{"prompt": "<image>" * images + letter * 9, "letter": letter,
             "images": [rng.integers(0, 256, (*size, 3), np.uint8) for _ in range(images)]} for letter in "abcde"]


def seeing_trainer(tmp_path, device, arch, rows, **options):
    """Of a model that sees, whose prompts are as long as they may be."""
    policy = toy.model(device, arch=arch, num_hidden_layers=2)
    length = len(policy.encode_prompt(rows[0]["prompt"], rows[0]["images"]).ids)
    return toy.trainer(tmp_path, policy=policy, rows=rows, **{
        **LARGE, "max_prompt_length": length, "max_steps": 1, "keep_rollout_activations": False, "image_cache_gb": 1e-3,
        **options})


@pytest.mark.parametrize("arch", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("options", [
    {}, {"train_vision": "merger"}, {"train_vision": "all"}, {"train_vision": "all", "recompute": True},
    {"train_vision": "merger", "moment_dtype": "float8", "master_dtype": "float24"},
    {"train_vision": "all", "token_budget": 1}, {"train_vision": "all", "prompts_per_step": 5},
], ids=str)
def test_a_run_that_sees_holds_what_was_planned(tmp_path, device, arch, options):
    trainer = seeing_trainer(tmp_path, device, arch, shown_rows(), **options)
    planned = dict(trainer.memory.arenas)
    trainer.train()
    held = dict(trainer.optimizer.plan())
    activations, tower = held.pop("activations"), held.pop("activations of the tower")
    assert held["features of a micro-batch"] > 0 and (tower > 0) == (trainer.args.train_vision != "none")
    assert ({name: size for name, size in held.items() if size}
            == {name: planned[name] for name in planned if name in held})
    if tower:
        assert planned["activations of the update"] == activations and planned["activations of the tower"] == tower


@pytest.mark.parametrize("options", [
    {}, {"recompute": True}, {"token_budget": 64}, {"beta": 0.1, "max_steps": 2}, {"beta": 0.1, "image_cache_gb": 0},
    {"beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 1, "max_steps": 2},
    {"max_completion_length": 300, "num_generations": 16, "generation_kwargs": {"min_new_tokens": 300}}], ids=str)
def test_all_that_is_held_was_planned(tmp_path, options):
    """Everything of the device: what the plan leaves out, scratch and the ids of batches, is the same whatever is
    trained of the tower, though what is planned is not."""
    beyond, totals = [], []
    for train_vision in ("none", "merger", "all"):
        gc.collect()
        before = _core.memory_in_use()
        trainer = seeing_trainer(tmp_path, "cpu", "qwen3_vl", shown_rows((560, 560)), **{
            "train_vision": train_vision, **options})
        totals.append(sum(size for name, size in trainer.memory.arenas if name not in HOST))
        trainer.train()
        beyond.append(_core.memory_in_use() - before - totals[-1])
        del trainer
    apart = bool(options.get("beta")) and options.get("image_cache_gb") != 0
    assert len(set(beyond[apart:])) == 1 and 0 < beyond[0] <= beyond[1] and totals[0] < totals[1] < totals[2]


@pytest.mark.parametrize("batch", [{"prompts_per_step": 2}, {"prompts_per_step": 5}], ids=str)
def test_images_that_differ_are_within_the_plan(tmp_path, batch):
    """It is made for the most tokens and the most images of a prompt, and text of any length beside them."""
    rng = np.random.default_rng(0)
    rows = [{"prompt": "<image>" * n + "x" * text, "letter": "x",
             "images": [rng.integers(0, 256, (28 * k, 56, 3), np.uint8) for k in range(1, n + 1)]}
            for n, text in ((1, 2), (3, 30), (2, 1), (4, 5), (0, 9))]
    trainer = seeing_trainer(tmp_path, "cpu", "qwen2_5_vl", rows, train_vision="all", max_prompt_length=60,
                             max_steps=5, token_budget=128, shuffle_dataset=False, **batch)
    assert trainer.shown() == Shown(2 * (1 + 2 + 3 + 4), 4)
    planned = dict(trainer.memory.arenas)
    trainer.train()
    held = dict(trainer.optimizer.plan())
    assert 0 < held["activations of the tower"] <= planned["activations of the tower"]
    assert 0 < held["features of a micro-batch"] <= planned["features of a micro-batch"]


@pytest.mark.parametrize("train_vision", ["none", "all"])
def test_sft_that_sees_holds_what_was_planned(tmp_path, device, train_vision):
    rows = [{"prompt": row["prompt"], "completion": "b" * 40, "images": row["images"]} for row in shown_rows()]
    policy = toy.model(device, arch="qwen2_5_vl", num_hidden_layers=2)
    length = len(policy.encode_prompt(rows[0]["prompt"], rows[0]["images"]).ids) + 41
    trainer = grpo.SFTTrainer(policy, grpo.SFTConfig(
        output_dir=str(tmp_path / "run"), max_steps=1, per_device_train_batch_size=5, max_length=length,
        save_strategy="no", train_vision=train_vision), rows)
    assert trainer.shown() == Shown(6, 1)
    planned = dict(trainer.memory.arenas)
    trainer.train()
    held = dict(trainer.optimizer.plan())
    for name in ("weights", "gradients (float32)", "features of a micro-batch", "activations of the tower"):
        assert held[name] == planned[name] or train_vision == "none" and held[name] == 0


def test_images_of_the_data_are_known():
    """A row that is dropped shows nothing; a model that sees may be shown nothing at all."""
    rows = [*shown_rows(), *shown_rows((280, 280), images=2), {"prompt": "a", "letter": "a"}]
    policy = toy.model(arch="qwen2_5_vl")
    for limit, dropped, wanted in ((500, "raise", Shown(200, 2)), (100, "drop", Shown(6, 1))):
        args = grpo.GRPOConfig(max_prompt_length=limit, on_long_prompt=dropped)
        assert grpo.GRPOTrainer(policy, toy.share, args, rows).shown() == wanted
    trainer = grpo.GRPOTrainer(policy, toy.share, grpo.GRPOConfig(), toy.ROWS)
    assert trainer.shown() == Shown() and "image" not in table(trainer.memory)
    trainer = grpo.GRPOTrainer(policy, toy.share, grpo.GRPOConfig(), toy.ROWS, eval_dataset=shown_rows())
    assert trainer.shown() == Shown(6, 1) and ", an image of 6 tokens in each" in trainer.memory.title


@pytest.mark.parametrize("options, tokens", [
    ({}, 324), ({"max_pixels": 100 * 28 * 28}, 100), ({"max_pixels": 10**6}, 1275),
    ({"min_pixels": 600 * 28 * 28}, 625), ({"max_prompt_length": 200}, 200)], ids=str)
def test_what_is_assumed_of_images(options, tokens):
    plan = training_plan(SHAPES["Qwen2.5-VL-3B"], "Qwen2.5-VL-3B", grpo.GRPOConfig(**options), "cpu")
    length = options.get("max_prompt_length")
    assert (f"prompts of {length or 256 + tokens} tokens{'' if length else ' assumed'}, an image of {tokens} tokens "
            "assumed in each") in plan.title
    sizes = dict(plan.arenas)
    assert sizes["features of images"] == tokens * 2048 * 2 and sizes["pixels of images"] == 4 * tokens * 1176 * 4


def test_the_processor_beside_a_config_counts(tmp_path):
    config = SHAPES["Qwen3-VL-2B"]
    processor = Processor.of("qwen3_vl").with_limits(max_pixels=70 * 32 * 32)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor.to_json()))
    plan = training_plan(config, str(tmp_path), grpo.GRPOConfig(), "cpu")
    assert "an image of 64 tokens assumed" in plan.title


@pytest.mark.parametrize("name, parameters, tower", [
    ("Qwen2.5-VL-3B", 3.755e9, 668.7e6), ("Qwen2.5-VL-7B", 8.292e9, 676.6e6), ("Qwen3-VL-2B", 2.128e9, 407.0e6),
    ("Qwen3-VL-4B", 4.438e9, 415.3e6), ("Qwen-VL-Chat", 9.656e9, 1934.6e6)])
def test_what_is_trained_of_a_tower_is_planned(name, parameters, tower):
    """Parameters as published, four bytes of gradient each."""
    sizes = {vision: dict(training_plan(SHAPES[name], name, grpo.GRPOConfig(train_vision=vision), "cpu").arenas)
             for vision in ("none", "merger", "all")}
    gradients = {vision: arenas["gradients (float32)"] / 4 for vision, arenas in sizes.items()}
    assert gradients["all"] == pytest.approx(parameters, rel=1e-3)
    assert gradients["all"] - gradients["none"] == pytest.approx(tower, rel=1e-3)
    assert gradients["none"] < gradients["merger"] < gradients["none"] + 0.3 * tower
    assert len({arenas["weights"] for arenas in sizes.values()}) == 1
    assert [("kept features of images" in arenas, "activations of the tower" in arenas) for arenas in sizes.values()] \
        == [(True, False), (False, True), (False, True)]


def test_a_run_that_sees_and_does_not_fit_is_refused(tmp_path, device, monkeypatch):
    monkeypatch.setattr("grpo.planning.memory.available_memory", lambda: 100_000)
    trainer = seeing_trainer(tmp_path, device, "qwen2_5_vl", shown_rows(), train_vision="all", beta=0.1)
    gc.collect()
    before = _core.memory_in_use()
    with pytest.raises(OutOfMemoryError, match="does not fit") as refused:
        trainer.train()
    text = str(refused.value)
    assert "an image of 6 tokens in each" in text and "activations of the tower" in text
    assert all(f"\n  --{way} " in text for way in ("image_cache_gb 0.00025", "train_vision merger", "max_pixels 2352"))
    assert _core.memory_in_use() == before and trainer.run is None and not list(tmp_path.glob("run*"))


@pytest.mark.parametrize("vision, way", [("none", None), ("merger", "none"), ("all", "merger")])
def test_less_of_a_tower_is_advised(vision, way):
    plan = training_plan(SHAPES["Qwen3-VL-2B"], "Qwen3-VL-2B", grpo.GRPOConfig(train_vision=vision), "cpu")
    found = [line.split()[1] for line in plan.advice if line.startswith("--train_vision")]
    assert found == ([way] if way else []) and any(line.startswith("--max_pixels 131072 ") for line in plan.advice)
    assert any(line.startswith("--image_cache_gb 0.25 ") for line in plan.advice) == (vision == "none")


def test_images_lie_in_the_hosts_memory(emulated, monkeypatch):
    """A GPU's own has nothing of them but features of a batch, and both must fit."""
    monkeypatch.setattr("grpo.planning.memory.gpu_memory", lambda: CARD)
    for free, fits in ((2 * 10**9, True), (10**9, False)):
        monkeypatch.setattr("grpo.planning.memory.available_memory", lambda free=free: free)
        plan = training_plan(SHAPES["Qwen2.5-VL-3B"], "Qwen2.5-VL-3B", grpo.GRPOConfig(), emulated)
        assert [name for name, _ in plan.host] == ["kept features of images", "pixels of images", "features of images"]
        assert plan.fits == fits and not {name for name, _ in plan.arenas} & set(HOST) and plan.total < CARD
        assert f"free in the host's memory: it {'fits' if fits else 'does not fit'}." in table(plan)


def test_a_text_is_shown_nothing():
    with pytest.raises(ConfigError, match="train_vision is 'all', and this model has no vision tower"):
        training_plan(toy.model().config, "toy", grpo.GRPOConfig(train_vision="all"), "cpu")
    with pytest.raises(ConfigError, match="image_tokens of a model without a vision tower"):
        training_plan(toy.model().config, "toy", grpo.GRPOConfig(), "cpu", shown=Shown(4, 1))


@pytest.mark.parametrize("shown", [Shown(0, 1), Shown(4, 0), Shown(4, 5), Shown(-4, 1), Shown(1 << 29, 1)], ids=str)
def test_images_that_cannot_be(shown):
    with pytest.raises(ConfigError, match="tokens"):
        training_plan(toy.model(arch="qwen2_5_vl").config, "toy", grpo.GRPOConfig(), "cpu", shown=shown)


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


def work_of_images(name, **options):
    """FLOPs of products and of attention by phase, of 8 prompts with an image of 391 tokens, 480 x 640 pixels."""
    config = grpo.GRPOConfig(prompts_per_step=8, num_generations=16, max_completion_length=300, slots=128, **options)
    step = step_time.Step.of(config, "cuda", 500, shown=Shown(391, 1))
    return {phase.name: [sum(part.flops for part in phase.parts if part.kind == kind)
                         for kind in (step_time.PRODUCTS, step_time.ATTENTION)]
            for phase in step_time.phases(step_time.Shape.of(SHAPES[name]), step, "cuda")}


@pytest.mark.parametrize("name, patch, pairs", [
    ("Qwen2.5-VL-3B", 1.281e9, 4 * 1280 * (4 * 1564 + 28 * 64)),
    ("Qwen2.5-VL-7B", 1.285e9, 4 * 1280 * (4 * 1564 + 28 * 64)), ("Qwen3-VL-2B", 0.657e9, 4 * 1024 * 24 * 1564)])
def test_work_of_a_tower(name, patch, pairs):
    """Worked out by hand: products of a patch, mergers and all; scores and values of what it sees, a window or its
    image."""
    assert work_of_images(name)["images"] == pytest.approx([8 * 1564 * patch, 8 * 1564 * pairs], rel=1e-3)


@pytest.mark.parametrize("options, images, tower", [
    ({}, 1, None), ({"train_vision": "all"}, 1, 3), ({"train_vision": "all", "recompute": True}, 1, 4),
    ({"train_vision": "all", "beta": 0.1}, 2, 3), ({"train_vision": "all", "num_iterations": 2}, 1, 6),
    ({"beta": 0.1}, 1, None), ({"train_vision": "merger"}, 1, 1.0287),
    ({"train_vision": "merger", "recompute": True}, 1, 1.0287)], ids=str)
def test_how_often_a_tower_runs(options, images, tower):
    """A backward is two passes; the mergers have 36.7 of 640.6 million products of a patch, every fourth time."""
    once, found = work_of_images("Qwen2.5-VL-3B")["images"], work_of_images("Qwen2.5-VL-3B", **options)
    assert found["images"] == pytest.approx([images * work for work in once])
    assert ("tower" in found) == (tower is not None)
    if tower is not None:
        assert found["tower"][0] == pytest.approx(tower * once[0], rel=1e-3)


def test_a_trained_tower_is_in_the_optimiser():
    step = {vision: seconds_of("Qwen3-VL-2B", step_time.Step.of(grpo.GRPOConfig(train_vision=vision), "cuda", 500,
                                                               shown=Shown(256, 1))) for vision in ("none", "all")}
    assert step["all"]["AdamW"] == pytest.approx(step["none"]["AdamW"] * 2.128 / 1.721, rel=1e-3)
    assert "images" not in seconds_of("Qwen3-VL-2B", STANDARD)


def test_models_that_see_beside_each_other(emulated, capsys):
    """And beside one that does not, whose phases are fewer."""
    models = "Qwen2.5-0.5B,Qwen/Qwen2.5-VL-3B-Instruct,Qwen3-VL-2B"
    words = [*WORK, "--max_prompt_length", "500", "--max_pixels", "262144"]
    assert cli.main(["plan", *words, "--model", models]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    lines = [line for line in lines if "images" in line or line and line[0] in models.split(",")]
    assert lines[-4] == ["memory", "fits", "images", "prefill", "decode", "forward", "+", "backward", "head", "AdamW",
                         "all", "floor"]
    assert [len(line) for line in lines[-3:]] == [11, 12, 12]
    assert cli.main(["plan", *words, "--model", "Qwen3-VL-2B", "--train_vision", "all"]) == 0
    text = capsys.readouterr().out
    assert "an image of 256 tokens assumed in each" in text and "\nIn the host's memory:\n" in text
    assert all(f"\n  {name} " in text for name in ("images", "tower", "AdamW"))


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
