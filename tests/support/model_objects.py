"""Model objects without PyTorch: what grpo asks of one, over NumPy arrays."""
import json

import numpy as np


class Tensor:
    """The few methods of a torch tensor that are called; dtype and device are names."""

    def __init__(self, values, dtype="float32", device="cpu", **flags):
        self.values, self.dtype, self.device = np.array(values, np.float32), f"torch.{dtype}", device
        self.is_meta = device == "meta"
        vars(self).update(flags)

    @property
    def shape(self):
        return self.values.shape

    def detach(self):
        return self

    cpu = float = detach

    def numpy(self):
        return self.values.copy()

    def new_tensor(self, values):
        return Tensor(values, self.dtype.rpartition(".")[2], self.device)

    def copy_(self, other):
        self.values[...] = other.values


class Config:
    """A config of transformers."""

    def __init__(self, values, name_or_path=""):
        self.values, self._name_or_path = values, name_or_path

    def to_dict(self):
        return {**self.values, "_name_or_path": self._name_or_path}

    def to_json_string(self):
        return json.dumps(self.values)


class TinyForCausalLM:
    """An object with the weights of a grpo.Model, under the names that transformers gives them."""

    def __init__(self, model, name_or_path="", dtype="float32", device="cpu", **changed):
        config = {key: value for key, value in model.config.to_dict().items() if key != "dtype"}
        self.config = Config({**config, **changed}, name_or_path)
        self.tensors = {name: Tensor(array, dtype, device) for name, array in model.state_dict().items()}
        if config.get("tie_word_embeddings"):
            self.tensors["lm_head.weight"] = self.tensors["model.embed_tokens.weight"]

    def state_dict(self):
        return dict(self.tensors)


class Wrapped:
    """torch.compile's way of holding a model, or DDP's."""

    def __init__(self, inside, name):
        setattr(self, name, inside)
        self._prefix, self._inside = f"{name}.", inside

    def state_dict(self):
        return {self._prefix + name: tensor for name, tensor in self._inside.state_dict().items()}


class Files:
    """A tokenizer, or a processor, that writes files."""

    def __init__(self, files, **attributes):
        self.files = files
        vars(self).update(attributes)

    def save_pretrained(self, folder):
        from pathlib import Path

        for name, data in self.files.items():
            Path(folder, name).write_bytes(data)
