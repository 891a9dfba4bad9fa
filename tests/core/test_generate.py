"""What generate() promises beyond exactness: samplers against a NumPy statement of them, stopping, limits, errors,
Ctrl-C."""
import functools

import numpy as np
import pytest

from grpo import _core, errors
from interrupts import interrupt
from tiny_models import build, config

V = 131
CONFIG = config("qwen2", d=48, heads=(6, 2), D=16, F=100, V=V, L=2)
PROMPTS = [np.random.default_rng(0).integers(0, V, n).astype(np.int32) for n in (5, 40, 1)]
LENGTH, STOP_ID, STOP_STRING = 0, 1, 2


@pytest.fixture
def model(device):
    return build(CONFIG, device)


@pytest.fixture
def ref():
    return build(CONFIG, "ref")


def completions_of(out):
    return np.split(out["tokens"], np.cumsum(out["lengths"])[:-1])


def walk(model, prompt, completion):
    """(token, logits before it, ids seen before it) along a completion."""
    ids = np.concatenate([prompt, completion]).astype(np.int32)
    logits = model.logits(ids).astype(np.float64)
    for t, token in enumerate(completion, start=len(prompt)):
        yield int(token), logits[t - 1].copy(), ids[:t]


def warp(z, seen, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0, forbidden=()):
    """Log-probabilities of the distribution that is drawn from; -inf off its support. transformers' order of steps."""
    ids = np.unique(seen)
    z[ids] = np.where(z[ids] > 0, z[ids] / repetition_penalty, z[ids] * repetition_penalty)
    z[list(forbidden)] = -np.inf
    z = z / temperature
    if 0 < top_k < len(z):
        z[z < np.sort(z)[-top_k]] = -np.inf
    p = np.exp(z - z.max())
    order = np.argsort(-p, kind="stable")
    before = np.cumsum(p[order]) - p[order]
    z[order[before >= top_p * p.sum()]] = -np.inf
    z[p < min_p * p.max()] = -np.inf
    p = np.exp(z - z.max())
    with np.errstate(divide="ignore"):
        return np.log(p / p.sum())


SAMPLERS = [
    {"temperature": 0.7}, {"top_k": 1}, {"top_k": 7, "temperature": 1.3}, {"top_p": 0.5}, {"min_p": 0.2},
    {"repetition_penalty": 1.4},
    {"top_k": V + 5}, {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.2},
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_logprobs_are_of_the_truncated_distribution(model, sampler):
    """Also when slots are refilled, and so what was seen moves from slot to slot."""
    out = model.generate(PROMPTS, 4, 12, seed=1, slots=5, stop_ids=np.arange(0, V, 9, dtype=np.int32), **sampler)
    at = 0
    for i, completion in enumerate(completions_of(out)):
        for token, z, seen in walk(model, PROMPTS[i // 4], completion):
            assert out["logprobs"][at] == pytest.approx(warp(z, seen, **sampler)[token], abs=2e-3)
            at += 1


@pytest.mark.parametrize("sampler", [{}, {"temperature": 0.6}, {"top_p": 0.7}, {"top_k": 9, "min_p": 0.05}], ids=str)
def test_frequencies(model, sampler):
    """6,000 first tokens follow the distribution: Pearson's statistic within five standard deviations of its mean."""
    n = 6000
    out = model.generate(PROMPTS[:1], n, 1, seed=2, **sampler)
    p = np.exp(warp(model.logits(PROMPTS[0])[-1].astype(np.float64), PROMPTS[0], **sampler))
    counts = np.bincount(out["tokens"], minlength=V)
    likely = p * n >= 5
    rest = 1 - p[likely].sum()
    observed, expected = np.append(counts[likely], n - counts[likely].sum()), np.append(p[likely], rest) * n
    if expected[-1] < 5:
        observed, expected = observed[:-1], expected[:-1]
    freedom = len(expected) - 1
    assert ((observed - expected) ** 2 / expected).sum() < freedom + 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_greedy_takes_the_largest_logit(model, penalty):
    out = model.generate(PROMPTS, 1, 30, temperature=0.0, repetition_penalty=penalty)
    for prompt, completion in zip(PROMPTS, completions_of(out), strict=True):
        for token, z, seen in walk(model, prompt, completion):
            assert token == int(np.argmax(warp(z, seen, repetition_penalty=penalty)))


def test_greedy_samples_are_one(model):
    out = completions_of(model.generate(PROMPTS, 3, 10, temperature=0.0, seed=1))
    for i in range(0, 9, 3):
        np.testing.assert_array_equal(out[i], out[i + 1])
        np.testing.assert_array_equal(out[i], out[i + 2])


def test_length_limit(model):
    out = model.generate(PROMPTS, 2, 7)
    assert out["lengths"].tolist() == [7] * 6 and out["finish"].tolist() == [LENGTH] * 6
    assert all(len(out[key]) == 42 for key in ("tokens", "logprobs", "policy_logprobs", "entropies"))
    assert out["tokens"].dtype == np.int32 and out["logprobs"].dtype == np.float32


def test_every_stop_id_stops(model):
    """A list of end tokens (Llama 3 and Qwen have two): each is the last token of its completion, never inside one."""
    stop_ids = np.array([3, 50, 51, 127, 90, 12], np.int32)
    out = model.generate(PROMPTS, 16, 60, stop_ids=stop_ids, seed=3)
    stopped = set()
    for completion, finish in zip(completions_of(out), out["finish"], strict=True):
        inside = set(completion[:-1].tolist())
        assert not inside & set(stop_ids.tolist())
        assert finish == (STOP_ID if completion[-1] in stop_ids else LENGTH)
        assert finish == STOP_ID or len(completion) == 60
        stopped |= {int(completion[-1])} if finish == STOP_ID else set()
    assert len(stopped) >= 3


def test_stop_on_the_last_allowed_token_is_a_stop(model):
    first = model.generate(PROMPTS[:1], 1, 5, seed=1)["tokens"]
    out = model.generate(PROMPTS[:1], 1, 5, seed=1, stop_ids=first[4:])
    if first[4] not in first[:4]:
        assert out["finish"].tolist() == [STOP_ID]


def test_min_new_tokens_holds_stops_back(model):
    stop_ids = np.arange(0, V, 2, dtype=np.int32)
    out = model.generate(PROMPTS, 8, 30, stop_ids=stop_ids, min_new_tokens=6, seed=4)
    for completion in completions_of(out):
        assert len(completion) >= 7                       # six that cannot stop, then the stop token
        assert not np.isin(completion[:6], stop_ids).any()
    at = 0
    for i, completion in enumerate(completions_of(out)):
        for t, (token, z, seen) in enumerate(walk(model, PROMPTS[i // 8], completion)):
            want = warp(z, seen, forbidden=stop_ids if t < 6 else ())[token]
            assert out["logprobs"][at] == pytest.approx(want, abs=2e-3)
            at += 1


def test_forbidden_ids_never_come(model):
    forbidden = np.arange(1, V, 3, dtype=np.int32)
    for temperature in (0.0, 1.0):
        out = model.generate(PROMPTS, 6, 20, forbidden_ids=forbidden, temperature=temperature, seed=5)
        assert not np.isin(out["tokens"], forbidden).any()
    at = 0
    for i, completion in enumerate(completions_of(out)):
        for token, z, seen in walk(model, PROMPTS[i // 6], completion):
            assert out["logprobs"][at] == pytest.approx(warp(z, seen, forbidden=forbidden)[token], abs=2e-3)
            at += 1


# -- stop strings: token i spells chr(i) up to 127; 128 = "ab", 129 = "" (a special), 130 = half of a two-byte letter --

TOKEN_BYTES = [bytes([i]) for i in range(128)] + [b"ab", b"", "é".encode()[:1]]
SPELLING = {"token_offsets": np.cumsum([0] + [len(b) for b in TOKEN_BYTES]).astype(np.int64),
            "token_bytes": b"".join(TOKEN_BYTES)}


def spell(ids):
    return b"".join(TOKEN_BYTES[i] for i in ids)


@pytest.mark.parametrize("stop_strings", [[b"a"], [b"ab"], [b"aa", b"bb", b"\xc3"], [bytes([7]), b"z"]], ids=str)
def test_stop_strings(model, stop_strings):
    """A completion ends with the token that completes a stop string; the text before it holds none."""
    letters = {*b"ab", 128, 129, 130, 7}
    forbidden = np.array(sorted(set(range(V)) - letters), np.int32)
    out = model.generate(PROMPTS, 8, 40, seed=6, stop_strings=stop_strings, forbidden_ids=forbidden, **SPELLING)
    assert STOP_STRING in out["finish"]
    for completion, finish in zip(completions_of(out), out["finish"], strict=True):
        assert not any(s in spell(completion[:-1]) for s in stop_strings)
        assert (finish == STOP_STRING) == any(s in spell(completion) for s in stop_strings)
        assert finish == STOP_STRING or len(completion) == 40


def test_stop_string_in_the_prompt_does_not_count(ref):
    prompt = np.frombuffer(b"aaaa", np.uint8).astype(np.int32)
    forbidden = np.array(sorted(set(range(V)) - {*b"ac"}), np.int32)
    out = ref.generate([prompt], 8, 30, seed=6, stop_strings=[b"aaa"], forbidden_ids=forbidden, **SPELLING)
    for completion, finish in zip(completions_of(out), out["finish"], strict=True):
        assert (finish == STOP_STRING) == spell(completion).endswith(b"aaa")
        assert len(completion) >= 3


# -- errors ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("change", "message"), [
    ({"prompts": [np.zeros(0, np.int32)]}, "empty"), ({"prompts": [np.array([V], np.int32)]}, str(V)),
    ({"prompts": [np.array([-1], np.int32)]}, "-1"), ({"num_generations": 0}, "num_generations"),
    ({"num_generations": 1 << 25}, "num_generations"),
    ({"max_new_tokens": 0}, "max_new_tokens"), ({"temperature": -1.0}, "temperature"),
    ({"temperature": float("nan")}, "temperature"),
    ({"top_p": 0.0}, "top_p"), ({"top_p": 1.5}, "top_p"), ({"min_p": -0.1}, "min_p"), ({"min_p": 1.5}, "min_p"),
    ({"top_k": -1}, "top_k"),
    ({"repetition_penalty": 0.0}, "repetition_penalty"), ({"slots": 0}, "slots"),
    ({"min_new_tokens": -1}, "min_new_tokens"),
    ({"stop_ids": np.array([V], np.int32), "min_new_tokens": 1}, "stop"),
    ({"stop_ids": np.array([-1], np.int32), "min_new_tokens": 1}, "stop"),
    ({"forbidden_ids": np.array([-2], np.int32)}, "forbidden"), ({"stop_strings": [b""], **SPELLING}, "stop"),
    ({"stop_strings": [b"x" * 300], **SPELLING}, "stop"),
], ids=lambda value: next(iter(value)) if isinstance(value, dict) else "")
def test_bad_arguments(ref, change, message):
    arguments = {"prompts": PROMPTS, "num_generations": 1, "max_new_tokens": 2} | change
    with pytest.raises(ValueError, match=message):
        ref.generate(**arguments)


def test_stop_strings_need_a_spelling(ref):
    with pytest.raises(TypeError, match="token_offsets"):
        ref.generate(PROMPTS, 1, 2, stop_strings=[b"x"])
    with pytest.raises(ValueError, match="token_offsets"):
        ref.generate(PROMPTS, 1, 2, stop_strings=[b"x"],
                     **(SPELLING | {"token_offsets": SPELLING["token_offsets"] + 1}))


def test_forbidding_everything_is_an_error(ref):
    with pytest.raises(ValueError):
        ref.generate(PROMPTS, 1, 2, forbidden_ids=np.arange(V, dtype=np.int32))


def test_no_prompts_no_completions(ref):
    out = ref.generate([], 1, 2)
    assert all(len(out[key]) == 0
               for key in ("lengths", "finish", "tokens", "logprobs", "policy_logprobs", "entropies"))


@pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj.weight", "model.norm.weight"])
def test_nan_weights_stop_the_rollout(model, name):
    broken = model.get_tensor(name)
    good = broken.copy()
    broken[:] = np.nan
    model.set_tensor(name, broken)
    with pytest.raises(errors.NonFiniteError):
        model.generate(PROMPTS, 2, 4)
    model.set_tensor(name, good)
    assert model.generate(PROMPTS, 2, 4)["lengths"].tolist() == [4] * 6


# -- progress and interruption -----------------------------------------------------------------------------------------

def test_progress_reaches_the_end(ref):
    seen = []
    ref.generate(PROMPTS, 4, 50, progress=lambda tokens, finished: seen.append((tokens, finished)))
    assert (seen == sorted(seen) and seen[-1] == (600, 12)
            and all(tokens <= 600 and finished <= 12 for tokens, finished in seen))


def test_progress_that_raises_stops_the_call(ref):
    def stop(tokens, finished):
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        ref.generate(PROMPTS, 32, 3000, progress=stop)
    assert ref.generate(PROMPTS, 1, 3)["lengths"].tolist() == [3] * 3


def test_ctrl_c_in_generate(model):
    before = model.generate(PROMPTS, 2, 5, seed=1)
    held = []
    for _ in range(2):
        interrupt(functools.partial(model.generate, PROMPTS, 16, 200))
        held.append(_core.memory_in_use())
    assert held[0] == held[1]
    np.testing.assert_array_equal(before["tokens"], model.generate(PROMPTS, 2, 5, seed=1)["tokens"])


def test_ctrl_c_in_training(model):
    """The gradient of an interrupted call is lost, weights and the object are not."""
    trainer = _core.Trainer(model)
    small = ([PROMPTS[0]], [PROMPTS[1]], np.zeros(1, np.int32), np.ones(40, np.float32))
    trainer.accumulate(*small)
    before = trainer.gradient("model.norm.weight")
    n = 400
    large = (PROMPTS[:1] * n, PROMPTS[1:2] * n, np.arange(n, dtype=np.int32), np.ones(40 * n, np.float32))
    interrupt(functools.partial(trainer.accumulate, *large))
    interrupt(functools.partial(model.logprobs, *large[:3]))
    trainer.zero_grad()
    trainer.accumulate(*small)
    np.testing.assert_array_equal(before, trainer.gradient("model.norm.weight"))
