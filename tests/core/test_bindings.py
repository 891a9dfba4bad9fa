"""grpo._core as an extension module: what it says to wrong arguments, that it neither leaks nor holds the GIL, that it
survives fork, threads and Ctrl-C. One table of good calls; everything else is derived from it."""
import functools
import gc
import inspect
import math
import os
import signal
import sys
import threading

import numpy as np
import pytest

from grpo import _core
from grpo.errors import BusyError, DeviceError
from interrupts import interrupt, once_the_gil_is_free
from new_models import f32, new_model, new_spec
from towers import image, new_tower

NORM = "model.norm.weight"


def u8(*shape):
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def i32(*values):
    return np.array(values, np.int32)


def new_seeing_model():
    return new_model(vision=new_tower())


def ops_calls():
    """Good arguments of every method of Ops, by name; '_' before a name: its first dimension is free."""
    heads = {"Hq": 2, "Hkv": 1, "D": 4}
    cos_sin = {"cos": f32(3, 2), "sin": f32(3, 2), "q_scale": f32(3)}
    segments = i32(0, 2, 0, 0, 2, 1, 0, 2).reshape(2, 4)
    norms = {"wq": f32(4), "wk": f32(4), "eps": 1e-6}
    step = {"lr": 0.1, "beta1": 0.9, "beta2": 0.9, "eps": 1e-8, "weight_decay": 0.0, "grad_scale": 1.0,
            "correction1": 0.1, "correction2": 0.1}
    return {
        "zero": {"_dst": f32(3)}, "copy": {"_src": f32(3)}, "cast": {"_src": f32(3)}, "uncast": {"_src": f32(3)},
        "vector_set": {"_src": f32(3)},
        "weight_set": {"_W": f32(5, 3), "src": f32(3, 3), "row": 2},
        "weight_get": {"_W": f32(5, 3), "row": 2, "rows": 3},
        "embed": {"_E": f32(5, 3), "_ids": i32(1, 4)},
        "embed_dw": {"_dE": f32(5, 3), "dy": f32(2, 3), "ids": i32(1, 4)},
        "embed_mix": {"_E": f32(5, 3), "ids": i32(1, 4, 4, 0).reshape(2, 2), "weights": f32(2, 2)},
        "embed_mix_dw": {"_dE": f32(5, 3), "dy": f32(2, 3), "ids": i32(1, 4, 4, 0).reshape(2, 2),
                         "weights": f32(2, 2)},
        "linear": {"_x": f32(2, 3), "_W": f32(4, 3)},
        "linear_add": {"y": f32(2, 4), "x": f32(2, 3), "W": f32(4, 3), "b": f32(4)},
        "linear_dx": {"_dy": f32(2, 4), "W": f32(4, 3)},
        "linear_dw": {"dW": f32(4, 3), "db": f32(4), "dy": f32(2, 4), "x": f32(2, 3)},
        "rmsnorm": {"_x": f32(2, 3), "w": f32(3), "eps": 1e-6},
        "rmsnorm_add": {"y": f32(2, 3), "x": f32(2, 3), "w": f32(3), "eps": 1e-6, "offset": 1.0},
        "rmsnorm_bwd_add": {"dx": f32(2, 3), "dw": f32(3), "dy": f32(2, 3), "x": f32(2, 3), "w": f32(3),
                            "rstd": f32(2)},
        "layernorm": {"_x": f32(2, 3), "w": f32(3), "b": f32(3), "eps": 1e-6},
        "layernorm_bwd_add": {"dx": f32(2, 3), "dw": f32(3), "db": f32(3), "dy": f32(2, 3), "x": f32(2, 3), "w": f32(3),
                              "mean": f32(2),
                              "rstd": f32(2)},
        "rope_table": {"_pos": i32(0, 1, 2, 3).reshape(2, 2), "_inv_freq": f32(2, 2), "axis": i32(0, 1),
                       "which": i32(0, 1)},
        "log_scale": {"_pos": i32(0, 1, 5), "length": 2},
        "rope": {"x": f32(3, 16), **norms, **cos_sin, **heads},
        "rope_bwd": {"d": f32(3, 16), "dwq": f32(4), "dwk": f32(4), "x": f32(3, 16), **norms, **cos_sin, **heads},
        "attention": {"_qkv": f32(3, 16), "_segments": segments, **heads},
        "attention_bwd": {"dy": f32(3, 8), "y": f32(3, 8), "lse": f32(3, 2), "qkv": f32(3, 16), "_segments": segments,
                          **heads},
        "attention_weights": {"lse": f32(3, 2), "qkv": f32(3, 16), "_index": i32(2, 0), "_segments": segments, **heads},
        "attention_decode": {"qkv": f32(2, 16), "kv": f32(3, 16), "place": i32(0, 1, 2), "dst": i32(1), "src": i32(0),
                             "n_pages": 2,
                             "pages": i32(0, 1).reshape(2, 1), "length": i32(3, 2), **heads},
        "glu": {"_gu": f32(2, 6), "gate": 0}, "glu_bwd": {"dy": f32(2, 3), "gu": f32(2, 6), "gate": 1},
        "gelu": {"_z": f32(2, 3), "kind": 1}, "gelu_bwd": {"d": f32(2, 3), "z": f32(2, 3), "kind": 2},
        "gather_rows": {"_src": f32(5, 3), "_index": i32(1, 4)},
        "put_rows": {"_dst": f32(5, 3), "src": f32(2, 3), "index": i32(1, 4)},
        "scatter_rows_add": {"_dst": f32(5, 3), "src": f32(2, 3), "index": i32(1, 4)},
        "resample": {"_src": u8(2, 5, 3), "first": i32(0, 3), "weight": i32(1, 2, 3, 4).reshape(2, 2)},
        "patches": {"src": u8(4, 8, 3), "table": f32(3, 256), "P": 2, "T": 2, "G": 2},
        "head": {"h": f32(2, 3), "_W": f32(5, 3), "target": i32(1, 4), "inv_temperature": 0.5},
        "head_bwd": {"dW": f32(5, 3), "h": f32(2, 3), "W": f32(5, 3), "target": i32(1, 4), "coef": f32(2),
                     "ecoef": f32(2)},
        "logits": {"_h": f32(2, 3), "_W": f32(5, 3)},
        "sample": {"h": f32(2, 3), "W": f32(5, 3), "keys": np.zeros((2, 4), np.uint32),
                   "forbidden": np.zeros(5, np.uint8),
                   "seen": np.zeros((2, 5), np.uint8), "_stop_ids": i32(1), "top_k": 3, "top_p": 0.9, "seed": 1},
        "adamw": {"w": f32(5, 3), "lower": None, "m": f32(5, 3), "v": np.abs(f32(5, 3)), "g": f32(5, 3), **step},
        "adamw_float8": {"w": f32(5, 3), "lower": None, "m": np.zeros(20, np.uint8), "v": np.zeros(20, np.uint8),
                         "g": f32(5, 3), **step},
        "adamw_vector": {"w": f32(3), "lower": None, "m": f32(3), "v": np.abs(f32(3)), "g": f32(3), **step},
        "sum_squares": {"_g": f32(3)}, "lerp": {"dst": f32(3), "src": f32(3), "alpha": 0.5},
        "philox": {"key": 1, "counter": (1, 2, 3, 4)},
    }


def batch():
    return {"prompts": [i32(1, 2, 3)], "completions": [i32(4, 5), i32(6)], "group": i32(0, 0)}


def loss_numbers():
    return {"old_logps": -np.abs(f32(3)), "advantages": f32(2), "mask": np.ones(3, np.uint8),
            "ref_logps": -np.abs(f32(3))}


def model_calls():
    return {
        "tensors": {}, "get_tensor": {"name": NORM}, "set_tensor": {"name": NORM, "array": f32(32)},
        "generate": {"prompts": [i32(1, 2), i32(3)], "num_generations": 2, "max_new_tokens": 3, "_stop_ids": i32(39),
                     "_forbidden_ids": i32(7),
                     "stop_strings": [b"ab"], "token_offsets": np.arange(41), "token_bytes": b"a" * 40, "slots": 2,
                     "store": None, "store_rows": 100},
        "logprobs": batch(), "logprob_grads": batch() | {"coef": f32(3), "entropy_coef": f32(3)},
        "logits": {"_ids": i32(1, 2, 3)},
        "attention": {"_prompt": i32(1, 2, 3), "_completion": i32(4, 5), "_layers": i32(0), "_rows": i32(2, 3)},
        "see": {"images": [image()]},
        "embed": {"texts": [i32(1, 2), i32(3)]}, "mix": {"other": new_seeing_model(), "alpha": 0.5},
    }


def trainer_calls():
    loss = {"loss": {"beta": 0.1}, "normalizer": {"tokens": 3.0, "sequences": 2.0}}
    return {
        "accumulate": batch() | {"coef": f32(3), "entropy_coef": f32(3), "store": None, "stored": np.array([0, 1])},
        "accumulate_loss": batch() | loss_numbers() | loss,
        "step": {"learning_rate": 1e-3, "max_grad_norm": 1.0}, "zero_grad": {}, "gradient": {"name": NORM},
        "get_state": {"kind": "m", "name": NORM}, "set_state": {"kind": "m", "name": NORM, "array": f32(32)},
        "check_state": {"kind": "m", "name": NORM, "array": f32(32)},
        "plan": {}, "trained": {},
    }


def function_calls():
    numbers = loss_numbers()
    return {
        "grpo_loss": {"logps": -np.abs(f32(3)), **numbers, "entropies": np.abs(f32(3)), "lengths": i32(2, 1),
                      "loss": {"beta": 0.1},
                      "normalizer": {"tokens": 3.0, "sequences": 2.0}},
        "adapt_entropy_coef": {"coef": 0.1, "entropy": 0.5, "loss": {"use_adaptive_entropy": True}},
        "loss_defaults": {}, "loss_options": {},
        "group_advantages": {"rewards": f32(4, 1).astype(np.float64), "weights": np.ones(1), "sizes": i32(2, 2),
                             "scale_rewards": "group",
                             "multi_objective_aggregation": "sum_then_normalize"},
        "selective_log_softmax": {"logits": f32(2, 5), "ids": i32(1, 4), "temperature": 1.0},
        "dequantize": {"type": "F32", "data": b"\0" * 8, "count": 2},
        "quantize": {"type": "Q8_0", "array": f32(64)},
        "preprocess": {"images": [u8(5, 7, 3)], "sizes": i32(4, 8).reshape(1, 2), "table": f32(3, 256), "patch_size": 2,
                       "merge_size": 2, "temporal_patch_size": 2, "device": "ref"},
        "smart_resize": {"height": 30, "width": 40, "factor": 28, "min_pixels": 784, "max_pixels": 10000},
        "backend": {"device": "ref"}, "get_num_threads": {}, "set_num_threads": {"count": 2}, "memory_in_use": {},
        "profile_start": {}, "profile": {},
        "plan": {"spec": new_spec(), "step_prompts": 2, "num_generations": 4, "prompt_length": 8, "max_new_tokens": 8,
                 "token_budget": 64, "recompute": False, "moment_dtype": "float32", "master_dtype": "float32",
                 "rollout_prompts": 2, "slots": 2, "store_rows": 5, "train": True, "reference": True, "mixed": True,
                 "scored": True, "train_vision": "none", "image_tokens": 0, "images": 0, "seen_prompts": 0,
                 "image_cache": 0, "device": "ref"},
    }


def store_calls():
    return {"clear": {}, "forget": {"_ids": np.array([0, 1])}}


MAKERS = {"Ops": ops_calls, "Model": model_calls, "Store": store_calls, "Trainer": trainer_calls, "": function_calls}
CALLS = [f"{owner}.{name}".lstrip(".") for owner, make in MAKERS.items() for name in make()]
# tests/python/test_devices.py
NEED_A_PLUGIN = {"cuda_plugin", "cuda_devices", "cuda_search", "cuda_blas", "cuda_products"}
ATTRIBUTES = {"Ops.repeat", "Ops.seconds", "Ops.times", "Model.device", "Model.tier", "Model.dtype",
              "Model.tower_version", "block_formats", "Store.bytes", "Store.groups", "Trainer.steps_taken",
              "Trainer.moment_dtype", "Trainer.master_dtype"}


def new_owner(owner):
    return {"Ops": lambda: _core.Ops("ref"), "Model": new_seeing_model, "Store": lambda: _core.Store(new_model()),
            "Trainer": lambda: _core.Trainer(new_model()), "": lambda: _core}[owner]()


def prepare(call):
    """(bound function, good arguments, names of those whose first dimension is free)."""
    owner, _, name = call.rpartition(".")
    args = MAKERS[owner]()[name]
    free = {key[1:] for key in args if key.startswith("_")}
    return getattr(new_owner(owner), name), {key.removeprefix("_"): value for key, value in args.items()}, free


def bind(function, args):
    """The call with its arguments: by keyword, or in order where the signature says positional-only."""
    if any(p.kind is p.POSITIONAL_ONLY for p in inspect.signature(function).parameters.values()):
        return functools.partial(function, *args.values())
    return functools.partial(function, **args)


def run(function, args):
    return bind(function, args)()


def test_every_public_name_is_in_the_table():
    public = {name for name in dir(_core) if not name.startswith("_")} - {"Ops", "Model", "Store", "Trainer"}
    for owner in ("Ops", "Model", "Store", "Trainer"):
        public |= {f"{owner}.{name}" for name in dir(getattr(_core, owner)) if not name.startswith("_")}
    assert public == set(CALLS) | ATTRIBUTES | NEED_A_PLUGIN


@pytest.mark.parametrize("call", CALLS)
def test_documented(call):
    function, args, _ = prepare(call)
    assert len(function.__doc__) > 10
    if call != "Ops.philox":                           # a static method's signature is its own
        assert set(args) <= set(inspect.signature(function).parameters)


# -- wrong arguments ------------------------------------------------------------------------------------------------


def wrong_arrays(array, first_dimension_is_free):
    """(what, wrong value, exception) for an array argument."""
    wide = np.repeat(array, 2, axis=-1)[..., ::2]
    yield "a string", "text", TypeError
    yield "dtype", array.astype(np.int8), TypeError
    yield "dimensions", array[None], ValueError
    if not wide.flags.c_contiguous:
        yield "strides", wide, ValueError
    if array.dtype.itemsize > 1:
        yield "byte order", array.astype(array.dtype.newbyteorder()), ValueError
    if not first_dimension_is_free:
        yield "size", np.concatenate([array, array[:1]]), ValueError


def wrong_values(value, free):
    """The same for any argument; numbers, names and dicts get an object of no use."""
    if isinstance(value, np.ndarray):
        yield from wrong_arrays(value, free)
    elif isinstance(value, list):
        yield "a number", 3, TypeError
        yield "an item", [object(), *value[1:]], TypeError
        if isinstance(value[0], np.ndarray):
            yield "an item's dtype", [value[0].astype(np.int64), *value[1:]], TypeError
    elif not isinstance(value, bool):
        yield "an object", object(), (TypeError, ValueError)


WRONG = [(call, name, what) for call in CALLS for _, args, free in [prepare(call)] for name, value in args.items()
         for what, _, _ in wrong_values(value, name in free)]


@pytest.mark.parametrize("call, name, what", WRONG)
def test_wrong_arguments(call, name, what):
    """The exception names the argument (or, for sizes, one of those that disagree) and no reference is kept."""
    function, args, free = prepare(call)
    bad, exception = next((value, exception)
                          for kind, value, exception in wrong_values(args[name], name in free) if kind == what)
    wrong = args | {name: bad}
    run(function, args)
    before = references(wrong.values())
    for _ in range(20):
        with pytest.raises(exception) as caught:
            run(function, wrong)
        message = str(caught.value)
        caught = None
    assert references(wrong.values()) == before
    names = set(args) if what == "size" else {name}
    position = f"argument {list(args).index(name) + 1} "        # how PyArg_Parse names what it rejects
    assert any(n in message for n in names) or position in message or args.get("name", " ") in message, message


@pytest.mark.parametrize("call, change, message", [
    ("Ops.embed", {"ids": i32(5, 0)}, "ids[0] is 5, must be in [0, 5)"),
    ("Ops.embed_mix", {"ids": i32(4, 0, 0, -5).reshape(2, 2)}, "ids[3] is -5, must be in [0, 5)"),
    ("Ops.embed_mix", {"weights": f32(2, 3)}, "weights has size 3 in dimension 1, must be 2"),
    ("Ops.gather_rows", {"index": i32(0, -1)}, "index[1] is -1"),
    ("Ops.sample", {"stop_ids": i32(99)}, "stop_ids[0] is 99"),
    ("Ops.attention", {"segments": i32(0, 4, 0, 0).reshape(1, 4)}, "segments"),
    ("Ops.attention", {"Hq": 3, "Hkv": 2}, "multiple of Hkv"),
    ("Ops.attention", {"D": 0}, "D 0"),
    ("Ops.attention_decode", {"length": i32(33, 1)}, "length"),
    ("Ops.attention_decode", {"pages": i32(0, 2).reshape(2, 1)}, "pages"),
    ("Ops.attention_decode", {"place": i32(0, 1, 64)}, "place"),
    ("Ops.weight_get", {"row": 4}, "row"),
    ("Ops.weight_get", {"row": -1}, "row"),
    ("Ops.weight_get", {"rows": 2**31}, "rows"),
    ("Ops.glu", {"gu": f32(2, 5)}, "gu"),
    ("Ops.glu", {"gate": 2}, "gate is 2, must be in [0, 2)"),
    ("Ops.gelu", {"kind": 3}, "kind is 3, must be in [0, 3)"),
    ("Ops.rope_table", {"axis": i32(0, 2)}, "axis[1] is 2, must be in [0, 2)"),
    ("Ops.rope_table", {"axis": None}, "pos of several axes needs axis"),
    ("Ops.rope_table", {"which": i32(0, 2)}, "which[1] is 2, must be in [0, 2)"),
    ("Ops.rope_table", {"which": None}, "inv_freq of several ropes needs which"),
    *(("Ops.log_scale", {"length": length}, "length must be in [2, 2^31)") for length in (0, 1, 1 << 31)),
    ("Model.get_tensor", {"name": "nothing"}, "nothing"),
    ("Model.set_tensor", {"array": f32(33)}, NORM),
    ("Model.generate", {"prompts": [i32(40)]}, "40"),
    ("Model.generate", {"prompts": [i32()]}, "empty"),
    ("Model.generate", {"num_generations": 0}, "num_generations"),
    ("Model.generate", {"max_new_tokens": 0}, "max_new_tokens"),
    ("Model.generate", {"top_p": 1.5}, "top_p"),
    *((f"Model.{name}", {"temperature": number}, "temperature is")
      for name in ("generate", "logprobs", "logprob_grads") for number in (-1.0, 1e-39, math.inf, math.nan)),
    ("Model.generate", {"max_new_tokens": 2**31 - 1}, "positions"),
    ("Model.generate", {"stop_ids": i32(-1)}, "-1"),
    ("Model.generate", {"forbidden_ids": i32(40)}, "40"),
    ("Model.generate", {"slots": 0}, "slots"),
    ("Model.generate", {"token_offsets": np.arange(41)[::-1].copy()}, "token_offsets"),
    ("Model.logprobs", {"group": i32(0, 1)}, "prompt 1 of 1"),
    ("Model.logprobs", {"completions": [i32(4, 99), i32(6)]}, "99"),
    ("Model.logprobs", {"temperature": 0.0}, "temperature"),
    ("Model.logits", {"ids": i32(-1)}, "-1"),
    ("Trainer.step", {"learning_rate": math.nan}, "learning_rate is nan"),
    ("Trainer.get_state", {"kind": "w"}, "kind"),
    ("Trainer.accumulate_loss", {"loss": {"betta": 1}}, "betta"),
    ("plan", {"step_prompts": -1}, "step_prompts is -1"), ("plan", {"max_new_tokens": 2**31 - 1}, "max_new_tokens"),
    ("plan", {"num_generations": 2**30}, "a step has at most"),
    ("dequantize", {"type": "Q9"}, "Q9"),
    ("dequantize", {"count": 3}, "3"),
    ("quantize", {"type": "Q4_K"}, "Q4_K"),
    ("quantize", {"array": f32(33)}, "33"),
    ("group_advantages", {"scale_rewards": "all"}, "scale_rewards"),
    ("selective_log_softmax", {"ids": i32(1, 5)}, "5"),
    ("set_num_threads", {"count": 0}, "must be"),
])
def test_wrong_values(call, change, message):
    function, args, _ = prepare(call)
    with pytest.raises(ValueError) as caught:
        run(function, args | change)
    assert message in str(caught.value)


@pytest.mark.parametrize("option", [
    {"adam_beta1": 1.0}, {"adam_beta2": math.nan}, {"adam_epsilon": -1.0}, {"adam_epsilon": math.inf},
    {"weight_decay": math.nan}, {"token_budget": 0},
], ids=str)
def test_wrong_options_of_a_trainer(option):
    model = new_model()
    before = _core.memory_in_use()
    with pytest.raises(ValueError, match=next(iter(option))):
        _core.Trainer(model, **option)
    assert _core.memory_in_use() == before


@pytest.mark.parametrize("args, kwargs",
                         [((1, 2), {}), ((), {}), ((np.zeros(1, "f"),), {"dst": np.zeros(1, "f")}), ((), {"src": 1})])
def test_ops_signature(args, kwargs):
    with pytest.raises(TypeError, match=r"zero\(\)"):
        _core.Ops("ref").zero(*args, **kwargs)


def test_unknown_device():
    for make in (_core.Ops, _core.backend, lambda device: _core.Model(device, new_spec())):
        with pytest.raises(DeviceError, match="abacus"):
            make("abacus")


# -- references and memory ------------------------------------------------------------------------------------------


def references(values):
    """Reference counts of what belongs to the test alone: no numbers or names, which the interpreter shares."""
    own = [v for v in values if type(v) in (np.ndarray, list, dict, bytes, object)]
    return [sys.getrefcount(v) for v in own] + [sys.getrefcount(x) for v in own if isinstance(v, list) for x in v]


@pytest.mark.parametrize("call", CALLS)
def test_a_thousand_calls_leave_nothing_behind(call):
    function, args, _ = prepare(call)
    once = bind(function, args)
    # micro-batches wait for it
    end_step = function.__self__.zero_grad if call.startswith("Trainer.accumulate") else lambda: None

    def repeat():
        once()
        end_step()

    def state():
        gc.collect()
        return _core.memory_in_use(), references(args.values()), sys.getallocatedblocks()

    for _ in range(20):
        repeat()
    memory, counts, blocks = state()
    for _ in range(1000):
        repeat()
    after = state()
    assert after[:2] == (memory, counts)
    assert after[2] - blocks < 100


def test_memory_is_given_back():
    gc.collect()
    before = _core.memory_in_use()
    for call in CALLS:
        function, args, _ = prepare(call)
        run(function, args)
        if "." in call and call != "Ops.philox":
            assert _core.memory_in_use() > before
        del function, args
        gc.collect()
        assert _core.memory_in_use() == before, call


def test_a_trainer_keeps_its_model():
    trainer = _core.Trainer(new_model())
    gc.collect()
    trainer.accumulate(*batch().values(), f32(3))
    assert trainer.step(1e-3) > 0


# -- threads, fork, Ctrl-C ------------------------------------------------------------------------------------------


def images():
    """Arguments of preprocess()."""
    return {"images": [u8(40, 50, 3)] * 9, "sizes": np.full((9, 2), 64, np.int32), "table": f32(3, 256),
            "patch_size": 4, "merge_size": 2, "temporal_patch_size": 2, "device": "ref"}


def core_calls():
    """By name, calls that leave the interpreter for a while."""
    ops, model = _core.Ops("ref"), new_model()
    trainer = _core.Trainer(model, token_budget=512)
    ops.repeat = 10
    many = {"prompts": [i32(*range(30))], "completions": [i32(*[5] * 60)] * 16, "group": i32(*[0] * 16)}
    return {
        "Ops.linear": functools.partial(ops.linear, f32(64, 256), f32(256, 256)),
        "Model.generate": functools.partial(model.generate, [i32(1, 2)], 8, 100),
        "Model.logprobs": functools.partial(model.logprobs, **many),
        "Trainer.accumulate": functools.partial(trainer.accumulate, **many, coef=np.ones(16 * 60, np.float32)),
        "preprocess": functools.partial(_core.preprocess, **images()),
        "selective_log_softmax": functools.partial(_core.selective_log_softmax, f32(300, 3000), np.zeros(300, np.int32),
                                                   1.0),
    }


@pytest.mark.parametrize("name", core_calls())
def test_the_gil_is_released(name):
    """A second thread gets it during a call, however short the call is: it is repeated until that happens."""
    call = core_calls()[name]
    with once_the_gil_is_free(lambda: None) as second_thread_ran:
        while not second_thread_ran.is_set():
            call()


def test_a_second_thread_is_told_that_an_ops_is_busy():
    """Whichever of the two comes second."""
    ops, x, W, told = _core.Ops("ref"), f32(64, 256), f32(256, 256), []
    ops.repeat = 10

    def until_told(function, *args):
        while not told:
            try:
                function(*args)
            except BusyError as error:
                told.append(str(error))

    thread = threading.Thread(target=until_told, args=(ops.linear, x, W))
    thread.start()
    try:
        until_told(ops.zero, x[0])
    finally:
        told.append("the end, also of a test that failed")
        thread.join()
    assert "another thread" in told[0]
    ops.repeat = 1
    ops.zero(x[0])


@pytest.mark.parametrize("second", ["logits", "get_tensor", "trainer.accumulate",
                                    "trainer.get_state", "trainer.set_state", "trainer.check_state",
                                    "mix from"])
def test_a_call_within_a_call_of_the_same_model_is_refused(second):
    model = new_model()
    trainer, other = _core.Trainer(model), new_model()
    calls = {
        "logits": lambda: model.logits(i32(1)), "get_tensor": lambda: model.get_tensor(NORM),
        "trainer.accumulate": lambda: trainer.accumulate(*batch().values(), f32(3)),
        "trainer.get_state": lambda: trainer.get_state("m", NORM),
        "trainer.set_state": lambda: trainer.set_state("m", NORM, f32(32)),
        "trainer.check_state": lambda: trainer.check_state("m", NORM, f32(32)),
        "mix from": lambda: other.mix(model, 0.5),
    }
    seen = []

    def progress(tokens, finished):
        if not seen:
            with pytest.raises(BusyError):
                calls[second]()
            seen.append(tokens)

    model.generate([i32(1, 2)], 32, 200, progress=progress)
    assert seen
    calls[second]()


def test_an_exception_in_progress_stops_generation():
    model = new_model()

    def progress(tokens, finished):
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        model.generate([i32(1, 2)], 32, 200, progress=progress)
    model.logits(i32(1))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("device", ["ref", "cpu"])
def test_fork_after_a_call(device):
    """The child has only the thread that forked; a core that waits for its old threads would hang."""
    threads = _core.get_num_threads()
    _core.set_num_threads(3)
    ops, x, W = _core.Ops(device), f32(64, 96), f32(128, 96)
    want = ops.linear(x, W)
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(120)                              # ends a child that hangs
        os._exit(0 if (ops.linear(x, W) == want).all() and (_core.Ops(device).linear(x, W) == want).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (ops.linear(x, W) == want).all()
    _core.set_num_threads(threads)


@pytest.mark.parametrize("name", ["generate", "logprobs", "accumulate", "preprocess"])
def test_ctrl_c(name):
    """SIGINT during a call: KeyboardInterrupt, and the model can be used again."""
    model = new_model(n_layers=4)
    trainer = _core.Trainer(model, token_budget=512)
    many = {"prompts": [i32(*range(30))] * 40, "completions": [i32(*[5] * 60)] * 40,
            "group": np.arange(40, dtype=np.int32)}
    interrupt({
        "generate": functools.partial(model.generate, [i32(1, 2)], 64, 200),
        "logprobs": functools.partial(model.logprobs, **many, token_budget=512),
        "accumulate": functools.partial(trainer.accumulate, **many, coef=np.ones(40 * 60, np.float32)),
        "preprocess": functools.partial(_core.preprocess, **images()),
    }[name])
    assert np.isfinite(model.logits(i32(1, 2))).all()
