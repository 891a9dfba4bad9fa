"""A decode loop as fast as plain PyTorch makes it: what a rollout could be without this project.

Fused products for q, k, v and for gate and up; a static cache; a prompt prefilled once for its group; on a GPU one CUDA
graph a token-step and its small operations through torch.compile. Attention takes all heads of a group as rows of one
query, so that keys are read once, and reads the cache up to the next multiple of BUCKET: there is a graph for each.
Sampling (Gumbel's trick, temperature 1) and the log-prob are in the graph. Takes Llama and Qwen2 models of transformers
and prompts of one length.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F

BUCKET = 64


def rotate(x, cos, sin):
    """x (..., D) with pairs (j, j + D/2), as transformers rotates."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def swiglu(gate_up):
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate) * up


def draw(logits):
    """(ids, log-probs) of rows of logits."""
    z = logits.float()
    ids = (z - torch.empty_like(z).exponential_().log()).argmax(-1)
    return ids, z.gather(-1, ids[:, None])[:, 0] - z.logsumexp(-1)


class Layer:
    def __init__(self, layer):
        attention, mlp = layer.self_attn, layer.mlp
        parts = [attention.q_proj, attention.k_proj, attention.v_proj]
        self.qkv = torch.cat([part.weight for part in parts])
        self.qkv_bias = torch.cat([part.bias for part in parts]) if parts[0].bias is not None else None
        self.gate_up = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
        self.o, self.down = attention.o_proj.weight, mlp.down_proj.weight
        self.norm1, self.norm2 = layer.input_layernorm.weight, layer.post_attention_layernorm.weight


class Decoder:
    """rows: sequences decoded at a time; length: most tokens of one, prompt and completion."""

    def __init__(self, model, rows: int, length: int):
        c, self.device, dtype = model.config, model.device, model.dtype
        self.graphed = self.device.type == "cuda"
        self.D = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        self.Hq, self.Hkv, self.eps, self.length = c.num_attention_heads, c.num_key_value_heads, c.rms_norm_eps, length
        self.embedding, self.norm, self.head = (model.get_input_embeddings().weight, model.model.norm.weight,
                                                model.lm_head.weight)
        self.layers = [Layer(layer) for layer in model.model.layers]
        angles = torch.arange(length, device=self.device)[:, None] * model.model.rotary_emb.inv_freq.float()[None]
        self.cos, self.sin = angles.cos().to(dtype), angles.sin().to(dtype)
        whole = -(-length // BUCKET) * BUCKET
        self.keys, self.values = (torch.zeros(len(self.layers), rows, self.Hkv, whole, self.D, device=self.device,
                                              dtype=dtype)
                                  for _ in range(2))
        self.ids = torch.zeros(rows, dtype=torch.long, device=self.device)
        self.position = torch.zeros(1, dtype=torch.long, device=self.device)
        self.tokens = torch.zeros(rows, whole, dtype=torch.long, device=self.device)          # by position
        self.logps = torch.zeros(rows, whole, device=self.device)
        fused = torch.compile if self.graphed else lambda f: f
        self.rotate, self.swiglu, self.draw, self.graphs = fused(rotate), fused(swiglu), fused(draw), {}

    def split(self, layer, x):
        """Rotated q, k and v (..., heads, D) of rows x (..., C); cos and sin of self.angles."""
        cos, sin = self.angles
        heads = F.linear(x, layer.qkv, layer.qkv_bias).unflatten(-1, (-1, self.D))
        q, k, v = heads.split([self.Hq, self.Hkv, self.Hkv], -2)
        return self.rotate(q, cos, sin), self.rotate(k, cos, sin), v

    def block(self, layer, x, attend):
        x = x + F.linear(attend(*self.split(layer, F.rms_norm(x, x.shape[-1:], layer.norm1, self.eps))), layer.o)
        return (x + F.linear(self.swiglu(F.linear(F.rms_norm(x, x.shape[-1:], layer.norm2, self.eps), layer.gate_up)),
                             layer.down))

    def next_token(self, x):
        """Draws from the last hidden states (rows, C), and keeps what was drawn and its log-prob at the next
        position."""
        ids, logps = self.draw(F.linear(F.rms_norm(x, x.shape[-1:], self.norm, self.eps), self.head))
        self.ids.copy_(ids)
        self.position.add_(1)
        self.tokens.index_copy_(1, self.position, ids[:, None])
        self.logps.index_copy_(1, self.position, logps[:, None])

    def prefill(self, prompts, group: int):
        """prompts (P, T); each becomes `group` rows."""
        T = prompts.shape[1]
        self.angles = self.cos[:T, None], self.sin[:T, None]
        x = F.embedding(prompts, self.embedding)
        for l, layer in enumerate(self.layers):
            def attend(q, k, v, l=l):
                for cache, new in ((self.keys, k), (self.values, v)):
                    cache[l, :, :, :T] = new.transpose(1, 2).repeat_interleave(group, 0)
                k, v = (t.repeat_interleave(self.Hq // self.Hkv, 2).transpose(1, 2) for t in (k, v))
                y = F.scaled_dot_product_attention(q.transpose(1, 2), k, v, is_causal=True)
                return y.transpose(1, 2).flatten(2)

            x = self.block(layer, x, attend)
        self.position.fill_(T - 1)
        self.next_token(x[:, -1].repeat_interleave(group, 0))

    def step(self, reach: int):
        """One token of every row, whose cache is read up to position `reach`."""
        self.angles = self.cos[self.position], self.sin[self.position]
        seen = (torch.arange(reach, device=self.device) <= self.position)[None, None, None]
        x = F.embedding(self.ids, self.embedding)
        for l, layer in enumerate(self.layers):
            def attend(q, k, v, l=l):
                for cache, new in ((self.keys, k), (self.values, v)):
                    cache[l].index_copy_(2, self.position, new[:, :, None])
                q = q.unflatten(1, (self.Hkv, -1))
                return F.scaled_dot_product_attention(q, self.keys[l, :, :, :reach], self.values[l, :, :, :reach],
                                                      attn_mask=seen).flatten(1)

            x = self.block(layer, x, attend)
        self.next_token(x)

    def replay(self, reach: int):
        """step(), on a GPU as a graph that is captured when first wanted."""
        if not self.graphed:
            self.step(reach)
            return
        if reach not in self.graphs:
            position, ids = self.position.clone(), self.ids.clone()
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):                # what compiles or allocates does it before the capture
                for _ in range(2):
                    self.step(reach)
                    self.position.copy_(position)
            torch.cuda.current_stream().wait_stream(side)
            self.ids.copy_(ids)
            self.graphs[reach] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graphs[reach]):
                self.step(reach)
        self.graphs[reach].replay()

    @torch.inference_mode()
    def generate(self, prompts, group: int, new_tokens: int):
        """(tokens, log-probs), both (P group, new_tokens), of prompts (P, T)."""
        T = prompts.shape[1]
        self.prefill(prompts, group)
        for position in range(T, T + new_tokens - 1):
            self.replay(-(-(position + 1) // BUCKET) * BUCKET)
        return self.tokens[:, T:T + new_tokens].clone(), self.logps[:, T:T + new_tokens].clone()
