"""transformers' models that see, with the weights of `tiny_vision`."""
import json

import numpy as np
import torch
import transformers

from tiny_vision import IMAGE, make_weights

torch.set_num_threads(1)                     # small tensors: threads would only wait for each other


def hf_model(config, dtype=torch.float32):
    """transformers' model with our weights; bf16 as people run it (sdpa), fp32 spelled out (eager)."""
    given = json.loads(json.dumps(config))
    hf_config = transformers.AutoConfig.for_model(given.pop("model_type"), **given)
    hf = transformers.AutoModelForImageTextToText.from_config(
        hf_config, dtype=dtype, attn_implementation="eager" if dtype == torch.float32 else "sdpa").eval()
    weights = make_weights([(name, tuple(p.shape)) for name, p in hf.named_parameters()])
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            parameter.copy_(torch.from_numpy(weights[name]))
    return hf


def sight_of(pixels, grids):
    """Keyword arguments of transformers' models for the images of one prompt."""
    return {"pixel_values": torch.tensor(np.concatenate(pixels)),
            "image_grid_thw": torch.tensor(np.array(grids))} if pixels else {}


def hf_logits(hf, ids, pixels, grids):
    ids = torch.tensor(np.asarray(ids, np.int64))[None]
    hf.model.rope_deltas = None
    kinds = {"mm_token_type_ids": (ids == IMAGE).int()} if pixels else {}
    return hf(input_ids=ids, **kinds, **sight_of(pixels, grids)).logits[0].float()


class NoVideos:
    """In place of a video processor."""

    @staticmethod
    def from_pretrained(*args, **kwargs):
        return None
