"""Specs of networks: what is wrong with one is said by name and leaves nothing behind; each is read just once."""
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from grpo import _core
from grpo.model.families.spec import Rope
from new_models import new_model, new_spec

NOT_FINITE = (math.nan, math.inf, 1e300)
WIDE = (Rope(np.ones(128, np.float32)),)


@pytest.mark.parametrize(("change", "message"), [
    ({"hidden_size": 0}, "hidden_size is 0"), ({"vocab_size": 0}, "vocab_size is 0"),
    ({"n_layers": 0}, "layers: 0 of them"), ({"ropes": ()}, "ropes"),
    ({"eps": -1.0}, "eps is -1"), ({"embed_scale": 0.0}, "embed_scale"), ({"max_positions": -1}, "max_positions"),
    ({"attention": {"kv_heads": 3}}, "layer 0: heads (2) is not a multiple of kv_heads (3)"),
    ({"attention": {"rope": 1}}, "layer 0: rope is 1"),
    ({"attention": {"window": -1}}, "layer 0: window is -1"), ({"attention": {"scale": 0.0}}, "layer 0: scale"),
    ({"attention": {"heads": 2**24, "kv_heads": 2**24}}, "layer 0: (heads + 2 kv_heads) head_dim is more than"),
    ({"attention": {"scale": float("inf")}}, "layer 0: scale is inf"), ({"norm_offset": float("nan")}, "norm_offset"),
    ({"ropes": (Rope(np.full(8, np.nan, np.float32)),)}, "rope 0: inv_freq[0] is nan"),
    ({"ropes": (Rope(np.ones(8, np.float32), scale=0.0),)}, "rope 0: scale is 0"),
    ({"mlp": {"width": 0}}, "layer 0: width"),
    ({"attention": {"head_dim": 18}}, "inv_freq of rope 0 has 8 numbers, head_dim 18 needs 9"),
    ({"mlp": {"gate": "tanh"}}, "layer 0: gate is 'tanh'"),
    ({"names": {"q": ("a",)}}, "'q' is no slot"), ({"names": {"qkv": ("a", "b")}}, "qkv has 3 pieces"),
    ({"names": {"norm": ("n" * 64,)}}, "norm"),
    ({"ropes": (Rope(np.ones(200, np.float32)),)}, "rope 0: inv_freq has 200 numbers"),
    *(({key: number}, key) for key in ("eps", "embed_scale", "norm_offset") for number in NOT_FINITE),
    *(({"attention": {"scale": number}}, "layer 0: scale") for number in NOT_FINITE),
    *(({"ropes": (Rope(np.ones(8, np.float32), number),)}, "rope 0: scale") for number in (0.0, -1.0, *NOT_FINITE)),
    *(({"ropes": (Rope(np.array([1] * 7 + [number], np.float32)),)}, "rope 0: inv_freq[7]")
      for number in (-1.0, math.nan, math.inf)),
    ({"tie": 2}, "tie is 2"), ({"attention": {"qk_norm": -1}}, "layer 0: qk_norm is -1"),
    ({"n_layers": 1025}, "layers: 1025 of them"),
    # sizes whose product does not fit an int: 2^32, and 2^32 + 512 of one head
    ({"attention": {"heads": 1 << 24, "kv_heads": 1, "head_dim": 256}, "ropes": WIDE}, "layer 0: (heads + 2 kv_heads)"),
    ({"attention": {"heads": 1 << 23, "kv_heads": 1 << 23, "head_dim": 256}, "ropes": WIDE}, "layer 0: (heads"),
    ({"names": {"norm": ("",)}}, "norm"), ({"names": {"norm": ("a\0b",)}}, "norm"),
    ({"names": {"norm": ("\ud800",)}}, "norm"),
    ({"names": {"qkv": ("a", "b", "a")}}, "two tensors are called 'a'"),
    ({"names": {"norm": ("embed_tokens.weight",)}}, "two tensors are called 'embed_tokens.weight'"),
])
def test_wrong_specs(change, message):
    before = _core.memory_in_use()
    with pytest.raises(ValueError) as caught:
        new_model(**change)
    assert message in str(caught.value) and _core.memory_in_use() == before


@pytest.mark.parametrize(("change", "message"), [
    ({"hidden_size": 32.0}, "hidden_size is 32.0, must be an integer"),
    ({"eps": "small"}, "eps is 'small', must be a number"),
    ({"attention": {"heads": None}}, "layer 0: heads is None"),
    ({"ropes": (Rope(np.ones(8)),)}, "rope 0: inv_freq must have dtype"),
    ({"ropes": 3}, "ropes must be a tuple, not int"), ({"names": {"norm": 3}}, "names: norm must be a tuple of texts"),
    *(({"names": names}, "names must be a mapping") for names in (3, None, [1, 2], SimpleNamespace(items=lambda: [1]))),
])
def test_specs_of_wrong_types(change, message):
    with pytest.raises(TypeError) as caught:
        new_model(**change)
    assert message in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16])
def test_tensors_may_lie_anywhere(dtype):
    """A file that is mapped puts them where its header ends."""
    model = new_model()
    name, shape = model.tensors()[-1]
    numbers = np.arange(np.prod(shape)).astype(dtype)
    odd = np.frombuffer(b"-" + numbers.tobytes(), dtype, offset=1).reshape(shape)
    model.set_tensor(name, odd)
    wide = numbers.astype(np.uint32) << 16 if dtype is np.uint16 else numbers.astype(np.float32)
    assert (model.get_tensor(name) == wide.view(np.float32).reshape(shape)).all()


class Shrinking:
    """An item of a list that is emptied as soon as something of the item is read."""

    def __init__(self, item, items):
        self.item, self.items = item, items

    def __getattr__(self, name):
        self.items.clear()
        return getattr(self.item, name)


@pytest.mark.parametrize("key", ["layers", "ropes"])
def test_a_spec_that_changes_while_it_is_read(key):
    """It is read as it was."""
    spec, items = new_spec(), []
    items += [Shrinking(getattr(spec, key)[0], items)] * 3
    model = _core.Model("ref", replace(spec, **{key: items}))
    assert not items and len(model.tensors()) == 2 + 12 * (3 if key == "layers" else 1)


def test_something_else_is_no_spec():
    with pytest.raises(TypeError, match="layers is missing from dict"):
        _core.Model("ref", {})
