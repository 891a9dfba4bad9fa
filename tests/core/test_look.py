"""Model.attention: weights of chosen layers and rows, on every device and CPU tier; and what cannot be asked for."""
import re

import numpy as np
import pytest

from checks.exactness import MODELS
from checks.look import *  # noqa: F403
from grpo.errors import ConfigError
from tiny_models import build


def i32(*values):
    return np.array(values, np.int32)


@pytest.mark.parametrize("changed, message", [
    ({"layers": i32(0, 2)}, "layers[1] is 2; the model has layers 0 to 1"), ({"layers": i32(1, 1)}, "layers[1] is 1"),
    ({"layers": i32(-1)}, "layers[0] is -1"), ({"rows": i32(4)}, "rows[0] is 4; there are rows 0 to 3"),
    ({"rows": i32(-1)}, "rows[0] is -1"), ({"rows": i32(2, 1)}, "rows[1] is 1; there are rows 0 to 3, and these must"),
    ({"prompt": i32()}, "prompt 0 is empty"), ({"completion": i32()}, "the completion has no tokens"),
    ({"completion": i32(131)}, "131"), ({"prompt": i32(-1)}, "-1"),
])
def test_what_cannot_be_looked_at(changed, message):
    arguments = {"prompt": i32(1, 2, 3), "completion": i32(4, 5), "layers": i32(0), "rows": i32(2, 3)}
    with pytest.raises(ConfigError, match=re.escape(message)):
        build(MODELS["qwen2"], "ref").attention(**arguments | changed)


def test_nothing_to_look_at():
    model = build(MODELS["qwen2"], "ref")
    assert model.attention(i32(1, 2), i32(3), i32(), i32(1)).shape == (0, 1, 0, 2)
    assert model.attention(i32(1, 2), i32(3), i32(1), i32()).shape == (1, 0, 6, 2)
