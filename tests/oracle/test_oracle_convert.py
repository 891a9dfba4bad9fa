"""`grpo convert` on files that torch.save wrote, today's and its older kind, read back by the safetensors library."""
import collections
import json

import pytest

from grpo.errors import UnsupportedModelError
from grpo.model.convert import convert

torch = pytest.importorskip("torch")
load_file = pytest.importorskip("safetensors.torch").load_file
pytestmark = pytest.mark.oracle

DTYPES = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]


@pytest.fixture(params=["zip", "legacy"])
def save(request):
    def save(state, path, **options):
        torch.save(state, path, _use_new_zipfile_serialization=request.param == "zip", **options)
    return save


def check(path, state):
    got = load_file(path)
    assert got.keys() == state.keys()
    for name, tensor in state.items():
        assert got[name].dtype == tensor.dtype and got[name].shape == tensor.shape, name
        assert torch.equal(got[name], tensor.detach()), name


def states():
    """State dicts by name: whatever torch makes of them."""
    torch.manual_seed(0)
    grid, layer = torch.randn(6, 8), torch.nn.TransformerEncoderLayer(16, 2, 32)
    tied = torch.nn.Sequential(torch.nn.Embedding(9, 8), torch.nn.Linear(8, 9, bias=False))
    tied[1].weight = tied[0].weight
    return {
        "types": {name: (torch.randn(3, 5) * 50).to(getattr(torch, name)) for name in DTYPES},
        "views": {"whole": grid, "turned": grid.T, "part": grid[1:5, ::3], "row": grid[2], "last": grid[-1, -1],
                  "turned part": grid.T[1:3, 2:].unsqueeze(1), "nothing": grid[:0], "flipped axes": grid.view(2, 3, 8)
                  .permute(2, 0, 1)},
        "parameters": collections.OrderedDict(a=torch.nn.Parameter(torch.randn(4).bfloat16()),
                                              b=torch.nn.Parameter(torch.arange(3), requires_grad=False)),
        "a module": layer.state_dict(),                  # an OrderedDict with _metadata
        "tied": tied.state_dict(),
        "norms with counts": torch.nn.BatchNorm1d(5).state_dict(),
        "hooks and gradients": {"w": torch.randn(3, requires_grad=True)},
        "empty storages": {"w": torch.empty(0), "x": torch.ones(1)},
    }


@pytest.mark.parametrize("name", states())
def test_state_dicts(save, tmp_path, name):
    state = states()[name]
    save(state, tmp_path / "model.pt")
    convert(tmp_path / "model.pt", tmp_path / "out")
    check(tmp_path / "out" / "model.safetensors", state)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocols(tmp_path, protocol):
    state = states()["a module"]
    torch.save(state, tmp_path / "model.pt", pickle_protocol=protocol)
    convert(tmp_path / "model.pt", tmp_path / "out")
    check(tmp_path / "out" / "model.safetensors", state)


def test_a_checkpoint_of_training(save, tmp_path):
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(3)).sum().backward()
    optimizer.step()
    save({"model": module.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, tmp_path / "last.pt")
    done = []
    convert(tmp_path / "last.pt", tmp_path / "out", done=done.append)
    check(tmp_path / "out" / "model.safetensors", module.state_dict())
    assert done[0].inside == "model" and done[0].left_out == {"optimizer": "dict", "epoch": "int"}


def test_shards(save, tmp_path):
    """In the layout of transformers."""
    source, state = tmp_path / "source", states()["a module"]
    source.mkdir()
    names, index = list(state), {}
    for i, part in enumerate((names[:5], names[5:]), 1):
        file = f"pytorch_model-0000{i}-of-00002.bin"
        save({name: state[name] for name in part}, source / file)
        index |= dict.fromkeys(part, file)
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    convert(source, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())["weight_map"]
    for file in set(written.values()):
        check(tmp_path / "out" / file, {name: state[name] for name in names if written[name] == file})
    assert written.keys() == state.keys()


@pytest.mark.parametrize("make, named", [
    (lambda: torch.nn.Linear(2, 2), "torch.nn"), (lambda: {"w": torch.randn(3, 3).to_sparse()}, "sparse"),
    (lambda: {"w": torch.ones(2, dtype=torch.complex64)}, "ComplexFloatStorage"),
])
def test_what_is_no_plain_tensor_is_refused_by_name(save, tmp_path, make, named):
    save(make(), tmp_path / "model.pt")
    with pytest.raises(UnsupportedModelError, match=named):
        convert(tmp_path / "model.pt", tmp_path / "out")
