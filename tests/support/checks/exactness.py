"""Two contracts, bit for bit, on every device.

Rollout = training: what generate() records for a token is what logprobs() and the trainer compute for it, for any
sampler, number of slots, threads, batch, prompt length. Same seed, same run: also, gradients do not depend on how the
work is split."""
import numpy as np
import pytest

from grpo import _core
from grpo.errors import NonFiniteError
from tiny_models import build, config, gemma3, mistral, qwen

LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
MODELS = {
    "qwen2": config("qwen2", d=48, heads=(6, 2), D=16, F=100, V=131, L=2),
    "qwen3": config("qwen3", d=40, heads=(4, 1), D=80, F=72, V=131, L=2, tie=False),
    "llama3": config("llama", d=56, heads=(7, 7), D=64, F=96, V=259, L=1, rope_parameters=LLAMA3),
    "mistral": mistral(window=21, d=40, heads=(4, 2), D=24, F=56, V=131, L=2),
    "gemma3": gemma3(window=33, layers="sfs", d=48, heads=(4, 2), D=32, F=72, V=131),
    "qwen": qwen(d=48, heads=3, F=56, V=131, L=2, seq_length=16),
}
SAMPLERS = {
    "plain": {}, "cool": {"temperature": 0.7}, "hot": {"temperature": 1.5}, "greedy": {"temperature": 0.0},
    "top_k": {"top_k": 5},
    "top_p": {"top_p": 0.8}, "min_p": {"min_p": 0.1}, "repetition": {"repetition_penalty": 1.3},
    "all": {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.02, "repetition_penalty": 1.1},
}
LENGTHS = (1, 2, 31, 32, 33, 63, 64, 65, 70)       # around the borders of KV pages of 32


def make_prompts(lengths, V=131, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, V, n).astype(np.int32) for n in lengths]


def completions_of(out):
    return np.split(out["tokens"], np.cumsum(out["lengths"])[:-1])


def groups_of(prompts, num_generations):
    return np.repeat(np.arange(len(prompts), dtype=np.int32), num_generations)


def assert_same(a, b):
    """Equal bits, in arrays or dicts of arrays; timings aside."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            if not key.endswith("_seconds"):
                assert_same(a[key], b[key])
    else:
        np.testing.assert_array_equal(np.asarray(a).view(np.int32), np.asarray(b).view(np.int32))


def assert_recorded_is_computed(model, prompts, out, num_generations, temperature=1.0, token_budget=4096):
    logps, entropies = model.logprobs(prompts, completions_of(out), groups_of(prompts, num_generations),
                                      temperature=temperature or 1.0, token_budget=token_budget)
    assert_same(out["policy_logprobs"], logps)
    assert_same(out["entropies"], entropies)


# -- rollout = training: recorded while sampling == computed afterwards ------------------------------------------------

@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_recorded_logprobs_are_the_policys(device, architecture, sampler):
    model = build(MODELS[architecture], device)
    prompts, options = make_prompts(LENGTHS), SAMPLERS[sampler]
    out = model.generate(prompts, 2, 37, seed=3, slots=5, **options)
    assert_recorded_is_computed(model, prompts, out, 2, options.get("temperature", 1.0))
    if options.keys() <= {"temperature"}:                  # nothing truncated: the behaviour distribution is the policy
        assert_same(out["logprobs"], out["policy_logprobs"])
    elif "repetition_penalty" not in options:
        assert np.all(out["logprobs"] >= out["policy_logprobs"])


def test_every_prompt_length(device):
    model = build(MODELS["qwen2"], device)
    prompts = make_prompts(range(1, 71))
    out = model.generate(prompts, 2, 4, seed=8, slots=9)
    assert_recorded_is_computed(model, prompts, out, 2)


def test_long_prompts(device):
    """Longer than what is prefilled at a time, alone and together with short ones."""
    model = build(config("qwen2", d=16, heads=(2, 1), D=8, F=24, V=131), device)
    prompts = make_prompts([3, 2500, 40, 1000, 1100, 5])
    out = model.generate(prompts, 2, 40, seed=2, slots=7)
    assert_recorded_is_computed(model, prompts, out, 2)


@pytest.mark.parametrize("slots", [1, 3, 32])
@pytest.mark.parametrize("num_generations", [1, 2, 5])
def test_slots_and_groups(device, slots, num_generations):
    """More sequences than slots: they are refilled as sequences end; stop ids make the lengths differ."""
    model = build(MODELS["qwen2"], device)
    prompts, options = make_prompts(LENGTHS), {"seed": 5, "stop_ids": np.arange(0, 131, 12, dtype=np.int32)}
    out = model.generate(prompts, num_generations, 40, slots=slots, **options)
    assert len(set(out["lengths"].tolist())) > 3
    assert_recorded_is_computed(model, prompts, out, num_generations)
    assert_same(out, model.generate(prompts, num_generations, 40, slots=7, **options))


def test_neighbours_do_not_matter(device):
    """A prompt alone, in another order of slots, or among others: same tokens, same bits."""
    model = build(MODELS["qwen3"], device)
    prompts = make_prompts(LENGTHS)
    together = model.generate(prompts, 3, 20, seed=9, step=4)
    ends = np.cumsum(together["lengths"])
    for i, prompt in enumerate(prompts):
        alone = model.generate([prompt], 3, 20, seed=9, step=4, first_prompt=i, slots=2)
        span = slice(ends[3 * i] - together["lengths"][3 * i], ends[3 * i + 2])
        for key in ("tokens", "logprobs", "policy_logprobs", "entropies"):
            assert_same(alone[key], together[key][span])


# -- windows: tokens that are drawn before the host has looked at those before them ------------------------------------

STOPS = np.arange(0, 97, 12, dtype=np.int32)
ENDINGS = {
    "length": {}, "stop ids": {"stop_ids": STOPS}, "min_new_tokens": {"stop_ids": STOPS, "min_new_tokens": 9},
    "stop strings": {"stop_strings": [b"a", b"zz"]},
    "repetition": {"stop_ids": STOPS, "repetition_penalty": 1.3, "top_k": 20},
    "greedy": {"stop_ids": STOPS, "temperature": 0.0},
}


def check_windows(model, options, slots, tokens=20, lengths=(1, 31, 33, 40), num_generations=3):
    """The same bits for any window, with fewer slots than sequences and with more. V: 97 to 131."""
    prompts, V = make_prompts(lengths, V=97), len(model.get_tensor("model.embed_tokens.weight"))
    if "stop_strings" in options:
        options = options | {"token_offsets": np.arange(V + 1), "token_bytes": bytes(97 + i % 26 for i in range(V))}
    want = model.generate(prompts, num_generations, tokens, seed=5, slots=5, lookahead=1, **options)
    for lookahead in (3, 8):
        assert_same(want, model.generate(prompts, num_generations, tokens, seed=5, slots=slots, lookahead=lookahead,
                                         **options))


def check_where_it_is_not_finite(model):
    """A token whose embedding is NaN is named by the token after it. The head must not be tied."""
    prompts = make_prompts((3, 33), V=97)
    clean = completions_of(model.generate(prompts, 2, 12, seed=5))
    elsewhere = np.concatenate([*prompts, *clean[:3]])
    t = next(t for t in range(2, 11) if clean[3][t] not in elsewhere and clean[3][t] not in clean[3][:t])
    embedding = model.get_tensor("model.embed_tokens.weight")
    embedding[clean[3][t]] = np.nan
    model.set_tensor("model.embed_tokens.weight", embedding)
    for lookahead in (1, 3, 8):
        with pytest.raises(NonFiniteError, match=f"prompt 1, completion 1 are not finite at token {t + 1}"):
            model.generate(prompts, 2, 12, seed=5, lookahead=lookahead)


@pytest.mark.parametrize("slots", [5, 40])
@pytest.mark.parametrize("options", ENDINGS.values(), ids=ENDINGS)
def test_windows(device, options, slots):
    check_windows(build(MODELS["qwen2"], device), options, slots)


@pytest.mark.parametrize("tokens", [1, 2, 9])
def test_windows_of_short_completions(device, tokens):
    check_windows(build(MODELS["qwen3"], device), {"stop_ids": STOPS}, slots=5, tokens=tokens)


def test_where_it_is_not_finite(device):
    check_where_it_is_not_finite(build(MODELS["qwen3"], device))


@pytest.mark.parametrize("lookahead", [-1, 65])
def test_windows_that_cannot_be(lookahead):
    with pytest.raises(ValueError, match="lookahead"):
        build(MODELS["qwen2"], "ref").generate(make_prompts([3]), 1, 1, lookahead=lookahead)


def test_logprobs_do_not_depend_on_the_batch(device):
    model = build(MODELS["qwen3"], device)
    prompts = make_prompts(LENGTHS)
    completions = make_prompts([1, 33, 7, 64, 2, 30, 12, 5, 9] * 2, seed=2)
    group = groups_of(prompts, 2)
    whole = model.logprobs(prompts, completions, group)
    for budget in (1, 100, 250):
        assert_same(np.stack(whole), np.stack(model.logprobs(prompts, completions, group, token_budget=budget)))
    alone = [model.logprobs([prompts[g]], [c], np.zeros(1, np.int32)) for g, c in zip(group, completions, strict=True)]
    for part in range(2):
        assert_same(whole[part], np.concatenate([numbers[part] for numbers in alone]))


def test_logits_agree_with_logprobs(device):
    """logits() and the fused head are two statements of one thing."""
    model = build(MODELS["llama3"], device)
    ids, = make_prompts([70])
    z = model.logits(ids).astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    logps, entropies = model.logprobs([ids[:1]], [ids[1:]], np.zeros(1, np.int32))
    np.testing.assert_allclose(logps, log_p[np.arange(69), ids[1:]], atol=2e-5)
    np.testing.assert_allclose(entropies, -(np.exp(log_p) * log_p).sum(axis=1)[:-1], atol=2e-5)


# -- same seed, same run: threads, splits, recomputation ---------------------------------------------------------------

def make_batch(seed=6):
    prompts = make_prompts((5, 40, 1, 33, 64), seed=seed)
    completions = make_prompts((3, 33, 1, 8, 8, 8, 40, 2, 17, 70), seed=seed + 1)
    coef = np.random.default_rng(seed).normal(size=sum(map(len, completions))).astype(np.float32)
    return prompts, completions, groups_of(prompts, 2), coef


def gradients(model, trainer):
    return {name: trainer.gradient(name) for name, _ in model.tensors()}


@pytest.mark.parametrize("architecture", MODELS)
def test_embeddings_do_not_depend_on_the_batch(device, architecture, threads):
    model, texts = build(MODELS[architecture], device), make_prompts(LENGTHS)
    together = model.embed(texts)
    assert_same(together, np.concatenate([model.embed([text]) for text in texts]))
    threads(3)
    for budget in (1, 100):
        assert_same(together, model.embed(texts, token_budget=budget))


@pytest.mark.parametrize("architecture", MODELS)
def test_threads(device, architecture, threads):
    results = []
    for count in (1, 2, 3, 4):
        threads(count)
        model = build(MODELS[architecture], device)
        trainer = _core.Trainer(model)
        out = model.generate(make_prompts(LENGTHS), 2, 12, seed=1, slots=5)
        logps, entropies = trainer.accumulate(*make_batch())
        grads = gradients(model, trainer)
        norm = trainer.step(1e-2, 1.0)
        weights = {name: trainer.get_state("master", name) for name, _ in model.tensors()}
        results.append({**out, "logps": logps, "entropies": entropies, **grads,
                        **{f"{k} after": w for k, w in weights.items()},
                        "norm": np.float32(norm)})
    for other in results[1:]:
        assert_same(results[0], other)


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("options", [{"token_budget": 1}, {"token_budget": 160}, {"recompute": True},
                                     {"token_budget": 100, "recompute": True}],
                         ids=["one group each", "160 rows", "recompute", "100 rows recompute"])
def test_splits_and_recompute(device, architecture, options):
    """Gradients, and weights after two steps of two accumulations each, equal those of one large micro-batch."""
    results = []
    for trainer_options in ({}, options):
        model = build(MODELS[architecture], device)
        trainer = _core.Trainer(model, weight_decay=0.1, **trainer_options)
        states = {}
        for step in range(2):
            for seed in (6, 8):
                trainer.accumulate(*make_batch(seed), entropy_coef=make_batch(seed + 1)[3])
            states |= {f"{name} gradient {step}": g for name, g in gradients(model, trainer).items()}
            trainer.step(1e-2, 1.0)
        states |= {f"{kind} {name}": trainer.get_state(kind, name) for kind in ("master", "m", "v")
                   for name, _ in model.tensors()}
        results.append(states | {name: model.get_tensor(name) for name, _ in model.tensors()})
    assert_same(*results)


def test_accumulating_is_one_batch(device):
    """Gradient accumulation over calls equals one call with all groups."""
    prompts, completions, group, coef = make_batch()
    results = []
    for spans in ([(0, 5)], [(0, 2), (2, 5)], [(i, i + 1) for i in range(5)]):
        model = build(MODELS["qwen2"], device)
        trainer = _core.Trainer(model)
        at = 0
        for begin, end in spans:
            part = completions[2 * begin:2 * end]
            tokens = sum(map(len, part))
            trainer.accumulate(prompts[begin:end], part, groups_of(prompts[begin:end], 2), coef[at:at + tokens])
            at += tokens
        results.append(gradients(model, trainer))
    for other in results[1:]:
        assert_same(results[0], other)


def test_groups_without_gradient_cost_nothing(device):
    """Coefficients of 0 leave no trace: same bits as without those groups; the skipped groups' numbers are 0."""
    prompts, completions, group, coef = make_batch()
    ends = np.cumsum([len(c) for c in completions])
    span = slice(ends[1], ends[3])                                 # completions 2, 3: group 1
    with_zeros = coef.copy()
    with_zeros[span] = 0
    model = build(MODELS["qwen2"], device)
    trainer = _core.Trainer(model)
    logps, entropies = trainer.accumulate(prompts, completions, group, with_zeros)
    assert not logps[span].any() and not entropies[span].any()
    skipped = gradients(model, trainer)
    trainer.zero_grad()
    keep = [i for i in range(5) if i != 1]
    without_logps, _ = trainer.accumulate([prompts[i] for i in keep],
                                          [c for c, g in zip(completions, group, strict=True) if g != 1],
                                          groups_of(keep, 2), np.delete(coef, np.arange(*span.indices(len(coef)))))
    assert_same(skipped, gradients(model, trainer))
    assert_same(np.delete(logps, np.arange(*span.indices(len(coef)))), without_logps)


@pytest.mark.parametrize("seed", range(20))
def test_any_groups_and_budget(seed):
    """Random groups, some empty, some without gradient, at random budgets: the same bits as one group at a time."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 130, rng.integers(2, 9))
    prompts, sizes = make_prompts(lengths, seed=seed), rng.integers(0, 5, len(lengths))
    completions = make_prompts(rng.integers(0, 60, sizes.sum()), seed=seed + 1)
    group = np.repeat(np.arange(len(prompts), dtype=np.int32), sizes)
    per_group = rng.integers(0, 2, len(prompts))
    coef = np.concatenate([np.zeros(0)] + [rng.normal(size=len(c)) * per_group[g]
                                           for c, g in zip(completions, group, strict=True)]).astype(np.float32)
    model = build(config("qwen2", d=8, heads=(2, 1), D=4, F=12, V=131), "ref")
    results = []
    for budget in (1, *rng.integers(32, 500, 6).tolist()):
        trainer = _core.Trainer(model, token_budget=budget)
        logps, entropies = trainer.accumulate(prompts, completions, group, coef)
        results.append({"logps": logps, "entropies": entropies, **gradients(model, trainer)})
    for other in results[1:]:
        assert_same(results[0], other)


def test_trainer_and_model_agree(device):
    """Trainer.accumulate, Model.logprob_grads and Model.logprobs: one computation."""
    model = build(MODELS["qwen3"], device)
    trainer = _core.Trainer(model)
    logps, entropies = trainer.accumulate(*make_batch())
    assert_same(np.stack([logps, entropies]), np.stack(model.logprobs(*make_batch()[:3])))
    same_logps, grads = model.logprob_grads(*make_batch())
    assert_same(logps, same_logps)
    assert_same(grads, gradients(model, trainer))


def test_on_policy_is_the_first_off_policy_update(device):
    """Coefficients from recorded log-probs and one backward, or forward, loss, backward: the same gradient, and after
    each step sampling and training agree again."""
    prompts = make_prompts(LENGTHS)
    advantages = np.random.default_rng(0).normal(size=len(prompts) * 3).astype(np.float32)
    options = {"loss_type": "grpo", "beta": 0.0}
    results = []
    for path in ("on policy", "off policy"):
        model = build(MODELS["qwen2"], device)
        trainer = _core.Trainer(model)
        for step in range(2):
            out = model.generate(prompts, 3, 20, seed=4, step=step, stop_ids=np.arange(9, dtype=np.int32))
            assert_recorded_is_computed(model, prompts, out, 3)
            batch = prompts, completions_of(out), groups_of(prompts, 3)
            mask, old = np.ones(len(out["tokens"]), np.uint8), out["policy_logprobs"]
            normalizer = {"tokens": float(len(mask)), "sequences": float(len(advantages))}
            if path == "on policy":
                _, coef, _, _ = _core.grpo_loss(old, old, advantages, mask, None, None, out["lengths"], options,
                                                normalizer)
                logps, _ = trainer.accumulate(*batch, coef)
            else:
                _, _, logps, _ = trainer.accumulate_loss(*batch, old_logps=old, advantages=advantages, mask=mask,
                                                         ref_logps=None,
                                                         loss=options, normalizer=normalizer)
            assert_same(logps, old)
            results.append(gradients(model, trainer))
            trainer.step(1e-2, 1.0)
    assert_same(results[0], results[2])
    assert_same(results[1], results[3])


def test_seeds(device):
    """The same (seed, step) is the same rollout; another seed, step, prompt number or sample is another."""
    model = build(MODELS["qwen2"], device)
    prompts = make_prompts([10, 10])
    prompts[1] = prompts[0]

    def tokens(**key):
        return completions_of(model.generate(prompts, 2, 20, **key))

    first = tokens(seed=1, step=2)
    assert len({c.tobytes() for c in first}) == 4                  # prompt number and sample are part of the key
    for a, b in zip(first, tokens(seed=1, step=2), strict=True):
        assert_same(a, b)
    for other in ({"seed": 2, "step": 2}, {"seed": 1, "step": 3}, {"seed": 1 + 2**32, "step": 2},
                  {"seed": 1, "step": 2, "first_prompt": 2}):
        assert not {c.tobytes() for c in first} & {c.tobytes() for c in tokens(**other)}

# -- the rollout's forward is the training forward ---------------------------------------------------------------------


def gradients_of(model, prompts, out, num_generations, *, seed=1, token_budget=200, recompute=False, chosen=None,
                 store=None, stored=None):
    """Every bit that an update leaves: log-probs, entropies, gradients."""
    trainer = _core.Trainer(model, token_budget=token_budget, recompute=recompute)
    completions, group = completions_of(out), groups_of(prompts, num_generations)
    if chosen is not None:
        completions, group = [completions[i] for i in chosen], group[chosen]
        stored = stored if stored is None else stored[chosen]
    rng = np.random.default_rng(seed)
    coef, ecoef = (rng.normal(size=sum(map(len, completions))).astype(np.float32) for _ in range(2))
    coef[:len(completions[0])] = 0
    logps, entropies = trainer.accumulate(prompts, completions, group, coef, entropy_coef=ecoef, temperature=0.8,
                                          store=store, stored=stored)
    return {"logps": logps, "entropies": entropies, **{name: trainer.gradient(name) for name, _ in model.tensors()}}


def forward_calls(call):
    """(result, products that ran in it): a recalled micro-batch has no forward products."""
    _core.profile_start()
    result = call()
    return result, {op: calls for op, calls, *_ in _core.profile()}


def rollout_into(store, model, prompts, num_generations, max_new_tokens, *, rows, **options):
    """(completions, arguments of gradients_of for them)"""
    out = model.generate(prompts, num_generations, max_new_tokens, seed=options.pop("seed", 5), store=store,
                         store_rows=rows, **options)
    return out, {"store": store, "stored": out["stored"]}


@pytest.mark.parametrize(("recompute", "inputs_only"), [(False, False), (True, False), (True, True)],
                         ids=["all", "of all the inputs", "inputs"])
@pytest.mark.parametrize("architecture", MODELS)
def test_stored_activations_give_the_same_update(device, architecture, recompute, inputs_only):
    model, G = build(MODELS[architecture], device), 3
    prompts, options = (make_prompts(LENGTHS),
                        {"slots": 4, "stop_ids": np.arange(0, 131, 12, dtype=np.int32), "temperature": 0.8})
    plain = model.generate(prompts, G, 40, seed=5, **options)
    out, there = rollout_into(_core.Store(model, inputs_only=inputs_only), model, prompts, G, 40, rows=10_000,
                              **options)
    assert (plain.pop("stored") == -1).all() and (np.diff(out.pop("stored")) == 1).all()
    assert_same(plain, out)
    want = gradients_of(model, prompts, out, G, recompute=recompute)
    got, calls = forward_calls(lambda: gradients_of(model, prompts, out, G, recompute=recompute, **there))
    assert_same(got, want)
    assert calls["embed"] == 0 and calls["linear_dx"] > 0
    assert_same(got["logps"], out["policy_logprobs"])
    few = [0, 1, 4, 5, 6, 8]                               # some of a group's completions, in order
    assert_same(gradients_of(model, prompts, out, G, chosen=few, recompute=recompute, **there),
                gradients_of(model, prompts, out, G, chosen=few))


def test_stored_inputs_alone_serve_no_trainer_that_wants_all(device):
    model, prompts = build(MODELS["qwen2"], device), make_prompts((1, 33))
    for inputs_only, recompute, recalled in ((True, False, False), (False, False, True), (True, True, True)):
        out, there = rollout_into(_core.Store(model, inputs_only=inputs_only), model, prompts, 2, 6, rows=200, slots=3)
        assert (out["stored"] >= 0).all()
        got, calls = forward_calls(lambda out=out, recompute=recompute, there=there: gradients_of(
            model, prompts, out, 2, recompute=recompute, **there))
        assert (calls["embed"] == 0) == recalled
        assert_same(got, gradients_of(model, prompts, out, 2))


@pytest.mark.parametrize("lookahead", [3, 8])
def test_what_ran_beyond_an_end_is_not_stored(device, lookahead):
    model, G = build(MODELS["qwen3"], device), 3
    prompts = make_prompts([9, 40, 3, 33], V=97)
    out, there = rollout_into(_core.Store(model), model, prompts, G, 20, rows=1000, slots=5, stop_ids=STOPS,
                              lookahead=lookahead)
    assert (out["stored"] >= 0).all() and len(set(out["lengths"])) > 3
    got, calls = forward_calls(lambda: gradients_of(model, prompts, out, G, **there))
    assert calls["embed"] == 0
    assert_same(got, gradients_of(model, prompts, out, G))


@pytest.mark.parametrize("rows", [1, 150, 200])
def test_what_does_not_fit_is_computed_again(device, rows):
    model, G = build(MODELS["qwen3"], device), 2
    prompts = make_prompts([9, 40, 3, 33])
    out, there = rollout_into(_core.Store(model), model, prompts, G, 20, rows=rows, slots=3)
    fits = out["stored"] >= 0
    assert fits.any() == (rows > 1) and not fits.all() and (fits[::2] == fits[1::2]).all()
    assert_same(gradients_of(model, prompts, out, G, token_budget=64, **there),
                gradients_of(model, prompts, out, G, token_budget=64))


def test_stored_activations_survive_an_embedding(device):
    """A reward may embed texts between a rollout and the update on it."""
    model, prompts = build(MODELS["qwen2"], device), make_prompts((1, 33))
    out, there = rollout_into(_core.Store(model), model, prompts, 2, 6, rows=200, slots=3)
    assert (out["stored"] >= 0).all()
    embedded_before = (model.embed(make_prompts(LENGTHS)), gradients_of(model, prompts, out, 2, **there))[1]
    assert_same(embedded_before, gradients_of(model, prompts, out, 2))


def test_stored_activations_end_with_the_weights(device):
    """After a step or for other tokens nothing stale is used."""
    model, G = build(MODELS["qwen2"], device), 2
    prompts, store = make_prompts([9, 20]), _core.Store(model)
    out, there = rollout_into(store, model, prompts, G, 8, rows=1000, seed=2)
    other = make_prompts([9, 21])
    _, calls = forward_calls(lambda: gradients_of(model, other, out, G, token_budget=1, **there))
    assert calls["embed"] == 1                             # the first prompt's length is the same, the second's is not
    name, shape = model.tensors()[-1]
    model.set_tensor(name, model.get_tensor(name) * np.float32(1.5))
    _, calls = forward_calls(lambda: gradients_of(model, prompts, out, G, **there))
    assert calls["embed"] > 0
    again, there = rollout_into(store, model, prompts, G, 8, rows=1000, seed=2)
    assert store.groups == len(prompts) and not set(again["stored"]) & set(out["stored"])


def test_rollouts_add_to_a_store_until_it_is_cleared(device):
    """Several rollouts wait for one update; rows of groups that are forgotten serve the next."""
    model, G = build(MODELS["qwen2"], device), 2
    prompts, store = make_prompts([9, 20]), _core.Store(model)
    rows = 29 + 4 * 7
    first, of_first = rollout_into(store, model, prompts, G, 8, rows=2 * rows, seed=1)
    second, of_second = rollout_into(store, model, prompts, G, 8, rows=0, seed=2, slots=1)
    assert not set(first["stored"]) & set(second["stored"]) and store.groups == 4
    for out, there in ((first, of_first), (second, of_second)):
        got, calls = forward_calls(lambda out=out, there=there: gradients_of(model, prompts, out, G, **there))
        assert calls["embed"] == 0
        assert_same(got, gradients_of(model, prompts, out, G))
    store.forget(first["stored"][:1])                       # the whole group, by one of its completions
    third, of_third = rollout_into(store, model, prompts[:1], G, 8, rows=0, seed=3)
    assert (third["stored"] >= 0).all() and store.groups == 4
    for out, there, asked, recalled in ((third, of_third, prompts[:1], True), (second, of_second, prompts, True),
                                        (first, of_first, prompts, False)):
        got, calls = forward_calls(lambda out=out, there=there, asked=asked: gradients_of(model, asked, out, G,
                                                                                          **there))
        assert (calls["embed"] == 0) == recalled
        assert_same(got, gradients_of(model, asked, out, G))
    held = store.bytes
    store.clear()
    assert store.groups == 0 and store.bytes == held
    _, calls = forward_calls(lambda: gradients_of(model, prompts, second, G, **of_second))
    assert calls["embed"] > 0
