"""Chat templates and the special tokens of folders, as transformers treats them."""
import json
import warnings

import pytest

from grpo.errors import TokenizerError
from grpo.model.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::grpo.errors.GrpoWarning")]

CALL = {"type": "function", "id": "abcdef123", "function": {"name": "f", "arguments": {"city": "Zürich <b>", "n": 3}}}
TOOLS = [{"type": "function", "function": {"name": "f", "description": "It's \"so\".", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}, "n": {"enum": [1, None]}}}}}]
SYSTEM, USER = {"role": "system", "content": " Be brief.\n"}, {"role": "user", "content": "Is 2 < 3? "}
ANSWER = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nIt is."}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
SILENT, WORDLESS = {**CALLS, "content": None}, {name: CALLS[name] for name in ("role", "tool_calls")}
RESULT = {"role": "tool", "name": "f", "tool_call_id": "abcdef123", "content": '{"sky": "blue"}'}
CHATS = {
    "user": ([USER], {}), "system": ([SYSTEM, USER], {}), "turns": ([SYSTEM, USER, ANSWER, USER, ANSWER, USER], {}),
    "ends": ([USER, ANSWER], {"add_generation_prompt": False}), "tools": ([SYSTEM, USER], {"tools": TOOLS}),
    "calls": ([USER, CALLS, RESULT], {"tools": TOOLS}), "silent": ([USER, SILENT, RESULT], {"tools": TOOLS}),
    "wordless": ([USER, WORDLESS, RESULT], {"tools": TOOLS}), "no tools": ([USER], {"tools": []}),
    "reasoning": ([USER, {**ANSWER, "reasoning_content": "r"}, USER], {}),
    "thinking": ([USER, {**ANSWER, "thinking": "r"}, USER], {}), "thinks": ([USER], {"enable_thinking": False}),
    "documents": ([USER], {"documents": [{"title": "T", "text": "x"}]}), "users": ([USER, USER], {}),
    "parts": ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], {}),
    "unicode": ([{"role": "user", "content": "日本 🎉 \u2028 \\ \" '", "name": None}], {"tools": TOOLS}),
}
TEXT = ("{%- macro text(c) -%}{%- if c is string -%}{{ c }}{%- elif c -%}{%- for p in c -%}{{ p.text }}{%- endfor -%}"
        "{%- endif -%}{%- endmacro -%}")
TEMPLATES = {
    "chatml": TEXT + "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' ~ text(m.content) ~ '<|im_end|>\n' }}"
              "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "strict": TEXT + "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
              "{{ raise_exception('Roles must alternate') }}{% endif %}{% if m.role == 'user' %}[I]"
              "{{- text(m.content).strip() }}[/I]{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}",
    "tools": TEXT + "{% if tools is not none %}{% for t in tools %}{{ t | tojson }}\n"
             "{{ t.function | tojson(indent=2) }}{% endfor %}{% endif %}{% for m in messages %}<{{ m['role'] }}>"
             "{{ text(m.content) | trim }}"
             "{% if m.tool_calls %}{% for c in m.tool_calls %}{% set f = c.function %}[{{ f.name }} "
             "{{ f.arguments | tojson }}{% for k, v in f.arguments.items() %} {{ k }}={{ v }}{% endfor %}]{% endfor %}"
             "{% endif %}{% endfor %}",
    "thinks": TEXT + "{%- set ns = namespace(last=-1) %}{%- for m in messages %}{%- if m.role == 'user' %}"
              "{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}{%- for m in messages %}"
              "{%- set c = text(m.content) %}{%- if '</think>' in c %}{%- if loop.index0 > ns.last %}"
              "{{- c.split('</think>')[0].rstrip('\n') }}{%- endif %}{%- set c = c.split('</think>')[-1].lstrip('\n') "
              "%}{%- endif %}\n{{ m.role }}|{{ m.reasoning_content }}|{{ m.thinking }}|{{ c }}{%- endfor %}"
              "{%- if enable_thinking is defined and not enable_thinking %}<think></think>{%- endif %}",
    "methods": TEXT + "{% for m in messages %}{% set c = text(m.content) %}{{ c.replace('2', 'two') }}"
               "{{ c.replace(' ', '', 1) }}{{ '{}:{n}'.format(m.role, n=loop.index) }}{{ '%s-%02d' % (m.role, 7) }}"
               "{{ '-'.join(c.split()) }}{{ c.startswith('Is') }}{{ m.role.title().ljust(12) }}{% endfor %}",
    "controls": "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{% if loop.index > 3 %}"
                "{% break %}{% endif %}{% generation %}{{ m.role }}{% endgeneration %}\n   {% endfor %}"
                "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ strftime_now('%Y') }}"
                "{{ documents | tojson }}{{ tools | tojson(ensure_ascii=true, sort_keys=true) }}",
    "unknown": "{% for m in messages %}{{ m.nothing }}{{ m.content is defined }}{{ nowhere | default('d') }}"
               "{% endfor %}",
}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    Tokenizer.bytes(special=["<s>"]).save_pretrained(folder)
    (folder / "chat_template.jinja").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "bos_token": "<s>"}))
    return Tokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("chat", CHATS)
def test_templates(both, template, chat):
    ours, theirs = both
    messages, variables = CHATS[chat]
    variables = {"add_generation_prompt": True, "chat_template": TEMPLATES[template], **variables}
    try:
        wanted = theirs.apply_chat_template(messages, tokenize=False, **variables)
    except Exception:                                    # what a template raises: some of jinja2's errors, or its own
        with pytest.raises(TokenizerError):
            ours.apply_chat_template(messages, **variables)
    else:
        assert ours.apply_chat_template(messages, **variables) == wanted


@pytest.mark.parametrize("template", ["chatml", "tools", "thinks"])
@pytest.mark.parametrize("chat", ["user", "system", "ends", "turns", "reasoning", "parts"])
@pytest.mark.parametrize("field", [True, "content", "reasoning_content", "thinking"])
def test_messages_that_stay_open(both, template, chat, field):
    ours, theirs = both
    options = {"chat_template": TEMPLATES[template], "continue_final_message": field, "add_generation_prompt": False}
    try:
        wanted = theirs.apply_chat_template(CHATS[chat][0], tokenize=False, **options)
    except Exception:
        with pytest.raises(TokenizerError):
            ours.apply_chat_template(CHATS[chat][0], **options)
    else:
        assert ours.apply_chat_template(CHATS[chat][0], **options) == wanted


def test_named_templates(both, tmp_path):
    ours, _ = both
    ours.save_pretrained(tmp_path)
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "chat_template.jinja").write_text("D{{ tools is none }}")
    for name in ("rag", "tool_use"):
        (tmp_path / "additional_chat_templates" / f"{name}.jinja").write_text(name[0].upper() + "{{ messages|length }}")
    for _ in range(2):
        found, theirs = Tokenizer.from_pretrained(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert found.chat_templates == theirs.chat_template
        for options in ({}, {"tools": TOOLS}, {"chat_template": "rag"}, {"chat_template": "rag", "tools": TOOLS}):
            assert found.apply_chat_template([USER], **options) == theirs.apply_chat_template(
                [USER], tokenize=False, **options)
        tmp_path = tmp_path / "saved"
        theirs.save_pretrained(tmp_path)


# -- folders


CLASSES = (None, "PreTrainedTokenizerFast", "TokenizersBackend", "LlamaTokenizerFast", "Qwen2Tokenizer",
           "Qwen2TokenizerFast", "GPT2Tokenizer", "GPT2TokenizerFast")
TEXTS = ["a", "<s>a", "he<|im_end|>x", "a<x>b", "[PAD]"]


def compared(folder, config, files, post):
    """(ours, theirs) of a byte tokenizer's folder with another tokenizer_config.json and JSON files; post: its
    tokenizer.json adds <s>."""
    from tokenizers.processors import TemplateProcessing

    backend = Tokenizer.bytes(tokens=["he"], special=["<s>"])._backend
    if post:
        backend.post_processor = TemplateProcessing(single=["<s>", "$A"], special_tokens=[("<s>", 259)])
    (folder / "tokenizer.json").write_text(backend.to_str())
    for name, value in {"tokenizer_config": config, **files}.items():
        if value is not None:
            (folder / f"{name}.json").write_text(json.dumps(value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Tokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)


def assert_same(ours, theirs, texts=TEXTS):
    for text in texts:
        for special in (True, False):
            ids = theirs.encode(text, add_special_tokens=special)
            assert ours.encode(text, add_special_tokens=special) == ids, text
            assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("post", [True, False])
@pytest.mark.parametrize("flags", [{}, {"add_bos_token": True}, {"add_bos_token": False},
                                   {"add_bos_token": True, "add_eos_token": True}], ids=str)
@pytest.mark.parametrize("kind", CLASSES)
def test_flags(tmp_path, kind, flags, post):
    for i, bos in enumerate((None, "", "<s>", {"content": "<s>", "__type": "AddedToken"})):
        (tmp_path / str(i)).mkdir()
        config = {"eos_token": "<|im_end|>", "bos_token": bos, **flags, **({"tokenizer_class": kind} if kind else {})}
        ours, theirs = compared(tmp_path / str(i), config, {}, post)
        assert_same(ours, theirs)
        assert bos == "" or ours.bos_id == theirs.bos_token_id
        assert theirs.eos_token_id in ours.eos_ids


ADDED = {"content": "<x>", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}


@pytest.mark.parametrize("config, files", [
    ({"image_token": "he"}, {}), ({"extra_special_tokens": {"image_token": "he"}}, {}),
    ({"extra_special_tokens": ["he", "<s>"]}, {}), ({"additional_special_tokens": ["<s>"]}, {}),
    ({"pad_token": "he", "mask_token": "<s>"}, {}), ({"added_tokens_decoder": {"261": ADDED}}, {}),
    ({"added_tokens_decoder": {"261": {**ADDED, "special": False}, "262": {**ADDED, "content": "[PAD]"}}}, {}),
    ({"pad_token": "[PAD]"}, {"added_tokens": {"[PAD]": 261, "<x>": 262}}), ({}, {"added_tokens": {"<x>": 261}}),
    ({"bos_token": "he"}, {"special_tokens_map": {"bos_token": "<s>"}}),
    ({"bos_token": "<|endoftext|>", "added_tokens_decoder": {}}, {"special_tokens_map": {"bos_token": "<s>"}}),
    (None, {"special_tokens_map": {"bos_token": ADDED | {"content": "<s>"}, "eos_token": "<|im_end|>"}})], ids=str)
def test_forms(tmp_path, config, files):
    if config is not None:
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", **config}
    ours, theirs = compared(tmp_path, config, files, True)
    assert_same(ours, theirs, [text for text in TEXTS if text != "[PAD]" or "[PAD]" in theirs.get_vocab()])
    assert ours.bos_id == theirs.bos_token_id and ours.special["eos_token"] == theirs.eos_token


def test_names_that_templates_see(tmp_path):
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "image_token": "<s>",
              "chat_template": "{{ image_token }}{{ eos_token }}{{ bos_token }}"}
    ours, theirs = compared(tmp_path, config, {}, False)
    assert ours.special == theirs.special_tokens_map
    assert ours.apply_chat_template([USER]) == theirs.apply_chat_template([USER], tokenize=False) == "<s><|im_end|>"
