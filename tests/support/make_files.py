"""Builders of model files for the loader tests: GGUF and safetensors bytes, well formed unless told otherwise."""

import json
import struct

import numpy as np

from grpo.model.formats.byte_level import byte_alphabet

GGUF_TYPES = {
    "F32": 0,
    "F16": 1,
    "Q4_0": 2,
    "Q4_1": 3,
    "Q5_0": 6,
    "Q5_1": 7,
    "Q8_0": 8,
    "Q2_K": 10,
    "Q3_K": 11,
    "Q4_K": 12,
    "Q5_K": 13,
    "Q6_K": 14,
    "IQ4_NL": 20,
    "IQ4_XS": 23,
    "BF16": 30,
}
BLOCKS = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
    "IQ4_NL": (32, 18),
    "IQ4_XS": (256, 136),
}
HALVES = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
}  # where float16 scales lie
GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
GEMMA3_NAMES = {
    **GGUF_NAMES,
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
GGUF_ARCHITECTURES = {"mistral": "llama", "gemma3_text": "gemma3"}  # of a model_type, where the name differs


def safetensors(header, data=b"", length=None):
    """File bytes; ``header``: dict or raw bytes; ``length``: the header length to claim."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def value(v):
    """A metadata value behind its type id. Lists are of one kind; bytes pass through as they are."""
    if isinstance(v, bytes):
        return v
    if isinstance(v, bool):
        return struct.pack("<IB", 7, v)
    if isinstance(v, str):
        return struct.pack("<I", 8) + string(v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    if v and isinstance(v[0], str):
        return struct.pack("<IIQ", 9, 8, len(v)) + b"".join(map(string, v))
    code, kind = ("f", 6) if v and isinstance(v[0], float) else ("i", 5)
    return struct.pack(f"<IIQ{len(v)}{code}", 9, kind, len(v), *v)


def gguf(metadata, tensors, alignment=32, version=3, magic=b"GGUF", counts=None):
    """File bytes. ``tensors``: list of (name, type, dims with the contiguous one first, data), or with a
    fifth item, the offset to claim."""
    head = magic + struct.pack("<IQQ", version, *(counts or (len(tensors), len(metadata))))
    head += b"".join(
        string(key) + value(v) for key, v in (metadata.items() if isinstance(metadata, dict) else metadata)
    )
    body = b""
    for name, kind, dims, data, *offset in tensors:
        body += b"\0" * (-len(body) % alignment)
        head += string(name) + struct.pack(
            f"<I{len(dims)}QIQ", len(dims), *dims, GGUF_TYPES.get(kind, kind), *(offset or [len(body)])
        )
        body += data
    return head + b"\0" * (-len(head) % alignment) + body


def quantised(kind, count, rng):
    """``count`` elements of a format as random bytes: all are valid, but scales are kept small and finite."""
    elements, size = BLOCKS[kind]
    if elements == 1:
        x = rng.standard_normal(count).astype(np.float32)
        return {"F32": x, "F16": x.astype(np.float16), "BF16": (x.view(np.uint32) >> 16).astype(np.uint16)}[
            kind
        ].tobytes()
    blocks = rng.integers(0, 256, (count // elements, size), np.uint8)
    for at in HALVES[kind]:
        blocks[:, at : at + 2] = (0.01 * rng.standard_normal((len(blocks), 1))).astype(np.float16).view(np.uint8)
    return blocks.tobytes()


def byte_level_metadata(pre="gpt-2"):
    """A tokenizer of 256 bytes, one merge, and two control tokens."""
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.merges": ["h e"],
        "tokenizer.ggml.tokens": [*byte_alphabet(), "he", "<|endoftext|>", "<|im_end|>"],
        "tokenizer.ggml.token_type": [1] * 257 + [3, 3],
        "tokenizer.ggml.eos_token_id": 258,
        "tokenizer.ggml.padding_token_id": 257,
    }


def sentencepiece_metadata():
    """ "<unk> <s> </s>", 256 bytes, and pieces whose scores decide the merges: "ab" before "bc"."""
    pieces = {"▁": -5.0, "a": -6.0, "b": -7.0, "c": -8.0, "ab": -1.0, "bc": -2.0, "abc": -3.0, "▁a": -4.0}
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + list(pieces.values()),
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(pieces),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def model_metadata(config):
    """GGUF keys of a Hugging Face config."""
    a = GGUF_ARCHITECTURES.get(config["model_type"], config["model_type"])
    rope = config.get("rope_parameters", config)
    metadata = {
        "general.architecture": a,
        f"{a}.block_count": config["num_hidden_layers"],
        f"{a}.context_length": config["max_position_embeddings"],
        f"{a}.embedding_length": config["hidden_size"],
        f"{a}.feed_forward_length": config["intermediate_size"],
        f"{a}.attention.head_count": config["num_attention_heads"],
        f"{a}.attention.head_count_kv": config["num_key_value_heads"],
        f"{a}.attention.key_length": config["head_dim"],
        f"{a}.attention.value_length": config["head_dim"],
        f"{a}.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        f"{a}.rope.freq_base": rope.get("full_attention", rope)["rope_theta"],
    }
    if config.get("sliding_window"):
        metadata[f"{a}.attention.sliding_window"] = config["sliding_window"]
    return metadata


def gguf_tensors(state, config):
    """F32 tensors of a GGUF from a Hugging Face state dict, as llama.cpp writes them: q and k rows permuted for
    "llama", norm weights plus 1 for "gemma3"."""
    tensors = []
    architecture = GGUF_ARCHITECTURES.get(config["model_type"], config["model_type"])
    names = GEMMA3_NAMES if architecture == "gemma3" else GGUF_NAMES
    for name, array in state.items():
        *module, kind = name.split(".")
        layer = f"blk.{module[2]}." if module[1:2] == ["layers"] else ""
        key = ".".join(module[3:] if layer else module)
        if architecture == "llama" and key in ("self_attn.q_proj", "self_attn.k_proj"):
            heads = config["num_attention_heads" if "q_proj" in key else "num_key_value_heads"]
            array = array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        if architecture == "gemma3" and key.endswith("norm"):
            array = array + np.float32(1)
        data = np.ascontiguousarray(array, "<f4").tobytes()
        tensors.append((f"{layer}{names[key]}.{kind}", "F32", array.shape[::-1], data))
    return tensors


def gguf_shards(metadata, tensors, counts):
    """Bytes by file name: a model split over files with ``counts`` tensors each, the metadata in the first."""
    shards = {}
    for i, count in enumerate(counts):
        split = {"split.no": i, "split.count": len(counts), "split.tensors.count": len(tensors)}
        start = sum(counts[:i])
        name = f"x-{i + 1:05d}-of-{len(counts):05d}.gguf"
        shards[name] = gguf({**(metadata if i == 0 else {}), **split}, tensors[start : start + count])
    return shards
