"""Chat templates: calls in loops, parts and texts, tool calls without words, several templates, open messages."""
import warnings

import numpy as np
import pytest

import toy
from grpo.errors import ConfigError, GrpoWarning, TokenizerError
from grpo.model.chat import ChatTemplate
from grpo.model.chat_files import by_name
from grpo.model.tokenizer import Tokenizer

USER, SYSTEM = {"role": "user", "content": "hi"}, {"role": "system", "content": "be"}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
LOOP = "{%% for m in messages %%}%s{%% endfor %%}"
PRINTS = LOOP % "<{{ m.role }}>{{ m.content }}"
PARTS = LOOP % "<{{ m.role }}>{% for p in m.content %}{{ '[image]' if p.type == 'image' else p.text }};{% endfor %}"
EITHER = LOOP % ("<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
                 "{{ p.text }};{% endfor %}{% endif %}")
USERS_PARTS = LOOP % ("<{{ m.role }}>{% if m.role == 'user' %}{% for p in m.content %}{{ p.text }};{% endfor %}"
                      "{% else %}{{ m.content }}{% endif %}")


def rendered(source, messages, **variables):
    return ChatTemplate(source, "here").render(messages, **variables)


def parts(role, *texts):
    return {"role": role, "content": [{"type": "text", "text": text} for text in texts]}


# -- what a template may call


@pytest.mark.parametrize("body, text", [
    ("{{ m.content.replace('h', 'H') }}", "Hi"), ("{{ m.content.replace('i', 'I', 1) }}", "hI"),
    ("{% set x = m.content %}{{ x.replace('h', m.role) }}", "useri"), ("{{ '-'.join(m.content) }}", "h-i"),
    ("{{ 'a{}b{name}'.format(m.content, name=1) }}", "ahib1"), ("{{ '{x}'.format_map({'x': m.content}) }}", "hi"),
    ("{{ '{:>5}|{:02d}'.format(m.content, 7) }}", "   hi|07"), ("{{ '%s-%03d' % (m.content, 5) }}", "hi-005"),
    ("{{ '%(a)s' % {'a': m.content} }}", "hi"), ("{{ '%s!' | format(m.content) }}", "hi!"),
    ("{{ m.content.ljust(4) }}|{{ m.content.zfill(3) }}|{{ m.content | center(4) }}|", "hi  |0hi| hi |"),
    ("{{ m.content.split('i')[0] }}{{ m.content.upper() }}", "hHI"), ("{{ [3, 1] | batch(1) | list }}", "[[3], [1]]"),
    ("{{ m | attr('nothing') is defined }}", "False"), ("{{ 'a b c' | wordcount }}{{ 'a b' | urlencode }}", "3a%20b"),
    ("{{ 'long text here' | truncate(8, true, '') }}", "long tex"),
    ("{% for k, g in [{'a': 1}, {'a': 2}] | groupby('a') %}{{ k }}{% endfor %}", "12"),
    ("{% set c = cycler('x', 'y') %}{{ c.next() }}{{ c.next() }}", "xy"),
    ("{% macro f(t) %}{{ t.replace('h', 'b') }}{% endmacro %}{{ f(m.content) }}", "bi"),
    ("{% generation %}{{ m.content.strip('h') }}{% endgeneration %}", "i")])
def test_calls_in_a_loop(body, text):
    assert rendered(LOOP % body, [USER]) == text


@pytest.mark.parametrize("source", [
    "{{ '{:>99999999}'.format('a') }}", "{{ '{:{}}'.format('a', 99999999) }}", "{{ '{:.99999999f}'.format(1.0) }}",
    "{{ '%99999999s' % 'a' }}", "{{ '%.99999999f' % 1.0 }}", "{{ '%*d' % (99999999, 1) }}", "{{ 'a'.ljust(99999999) }}",
    "{{ 'a'.zfill(99999999) }}", "{{ 'a' | center(99999999) }}", "{{ '%99999999d' | format(1) }}",
    "{{ '{0.__class__}'.format('a') }}", "{{ 'a'.translate({97: 'b'}) }}", "{{ ('a' | e).format() }}",
    "{{ 'a'.expandtabs(99999999) }}", "{{ (['a'] | map(attribute='format') | map('attr', '__self__') | first) }}x"])
def test_what_is_bounded(source):
    try:
        assert rendered(source, [USER]) in ("", "x")     # an undefined value, which prints nothing
    except TokenizerError as error:
        assert "here: chat template" in str(error)


# -- contents


@pytest.mark.parametrize("source, content, text", [
    (PRINTS, ["a", "b"], "<user>ab"), (EITHER, ["a", "b"], "<user>a;b;"), (PARTS, ["a", "b"], "<user>a;b;"),
    (LOOP % "{{ m.content + '!' }}", ["a", "b"], "ab!"), (LOOP % "{{ m.content | trim }}", [" a", "b "], "ab"),
    (LOOP % "{{ m | tojson }}", ["a", "b"], '{"role": "user", "content": "ab"}'),
    (LOOP % "{% if m.content is string %}{{ m.content }}{% endif %}", ["a"], "a"),
    (LOOP % "{{ m.content.split('</think>')[-1] }}", ["a</think>", "b"], "b")])
def test_parts_of_text(source, content, text):
    assert rendered(source, [parts("user", *content)]) == text
    assert rendered(source, [{"role": "user", "content": content}]) == text      # texts among parts


@pytest.mark.parametrize("role", ["system", "assistant", "tool", "developer", "narrator"])
def test_parts_are_joined_by_role(role):
    before = [USER, {**CALLS, "content": ""}] if role in ("assistant", "tool") else []
    found = rendered(USERS_PARTS, [*before, parts(role, "a", "b"), parts("user", "c", "d")])
    assert found.endswith(f"<{role}>ab<user>c;d;")


def test_parts_where_the_template_wants_a_system_message():
    picky = "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}" + PARTS
    assert rendered(picky, [parts("system", "a"), parts("user", "b")]) == "<system>a;<user>b;"
    with pytest.raises(TokenizerError, match="system first"):
        rendered(picky, [parts("user", "b")])


@pytest.mark.parametrize("part, named", [
    ({"type": "image"}, "message 1: part 1 is an image"), ({"image": "a.png"}, "part 1 is an image"),
    ({"type": "audio", "audio": "a.wav"}, "part 1 is of type 'audio'"), ({"type": "text"}, "part 1 has no text"),
    ({"odd": 1}, "part 1 is of type None")])
def test_a_part_that_is_no_text(part, named):
    chat = [SYSTEM, {"role": "user", "content": [{"type": "text", "text": "q"}, part]}]
    with pytest.raises(TokenizerError, match=f"{named}, and the chat template takes the content.*'user' as text"):
        rendered(PRINTS, chat)


def test_a_template_of_parts_that_passes_over_texts_is_said():
    template = ChatTemplate(PARTS, "here")
    with pytest.warns(GrpoWarning, match="here: the chat template passes over the content of messages that is text"):
        assert template.render([USER]) == "<user>;;"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        template.render([USER])
        for source in (PRINTS, EITHER):
            rendered(source, [USER])


@pytest.mark.parametrize("source, text", [
    # asked for; printed; stumbled over; not asked for and not needed
    (LOOP % "{% if m.content is none %}C{% else %}{{ m.content }}{% endif %}", "hiC"),
    (LOOP % "{% if m['content'] != None %}{{ m.content }}{% endif %}{{ m.tool_calls | length }}", "hi01"),
    (LOOP % "{{ m.content }}{{ m.tool_calls | length }}", "hi01"),
    (LOOP % "{% if tools is none %}{{ m.content }}{% endif %}{{ m.tool_calls | length }}", "hi01"),
    (LOOP % "{{ m.content + '.' }}{{ m.tool_calls | length }}", "hi.0.1"),
    (LOOP % "{% if 'x' in m.content %}x{% endif %}{{ m.tool_calls | length }}", "01"),
    (LOOP % "{% if m.content is not string and m.content is not none %}{{ 1 / 0 }}{% endif %}"
            "{{ m.tool_calls | length }}", "01"),
    (LOOP % "{% if m.content is defined %}{{ m.content | trim }}{% endif %}{{ m.tool_calls | length }}",
     "hi01")])
def test_calls_without_words(source, text):
    assert rendered(source, [USER, CALLS], tools=None) == text


def test_calls_that_a_template_does_not_show():
    with pytest.raises(TokenizerError, match="no attribute 'content'"):
        rendered(LOOP % "{{ m.content + '.' }}", [USER, CALLS])


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
@pytest.mark.parametrize("read", ["reasoning_content", "thinking"])
def test_reasoning_under_each_name(name, read):
    assert rendered(LOOP % f"{{{{ m.{read} }}}}", [{**USER, name: "hm"}]) == "hm"


class Text(str):
    def secret(self):
        return "told"


@pytest.mark.parametrize("value, text", [
    (np.int64(3), "3"), (np.float32(0.5), "0.5"), (np.bool_(True), "True"), (np.arange(2), "[0, 1]"),
    ((1, 2), "(1, 2)"), (Text("a"), "a"), ({"a": np.int8(1)}, "{'a': 1}")])
def test_values_are_made_plain(value, text):
    assert rendered("{{ x }}{{ x.secret }}", [USER], x=value) == text


@pytest.mark.parametrize("value", [{1, 2}, object(), print, np.array([None])])
def test_values_that_are_not_plain(value):
    with pytest.raises(TokenizerError, match="must be plain values"):
        rendered("x", [{**USER, "x": value}])
    looped = []
    looped.append(looped)
    with pytest.raises(TokenizerError, match="nested deeper"):
        rendered("x", [USER], x=looped)


# -- several templates


NAMED = [{"name": "rag", "template": "R{{ messages[0].content }}"}, {"name": "tool_use", "template": "T{{ tools }}"}]
DEFAULT = {"name": "default", "template": "D{{ messages[0].content }}"}


def test_names_choose():
    tokenizer = Tokenizer(Tokenizer.bytes()._backend, chat_template=by_name([*NAMED, DEFAULT], "here"))
    apply = tokenizer.apply_chat_template
    assert apply([USER]) == "Dhi" and apply([USER], chat_template="rag") == "Rhi"
    assert apply([USER], tools=[CALL]).startswith("T[") and apply([USER], chat_template="rag", tools=[CALL]) == "Rhi"
    assert apply([USER], chat_template="{{ 1 + 1 }}") == "2"
    with pytest.raises(TokenizerError, match=r"'tool' is not the name of a chat template \(default, rag, tool_use\)"):
        apply([USER], chat_template="tool")
    tokenizer.chat_template = "mine{{ 1 }}"
    assert apply([USER]) == apply([USER], tools=[CALL]) == "mine1"


def test_names_without_a_default():
    tokenizer = Tokenizer(Tokenizer.bytes()._backend, chat_template=by_name(NAMED, "here"))
    assert tokenizer.chat_template is None and tokenizer.apply_chat_template([USER], chat_template="rag") == "Rhi"
    with pytest.raises(TokenizerError, match="none is named default: rag, tool_use; name one: chat_template=NAME"):
        tokenizer.apply_chat_template([USER])


def test_a_trainer_takes_a_name(tmp_path):
    model = toy.model("ref")
    model.tokenizer = Tokenizer(model.tokenizer._backend, chat_template=by_name(NAMED, "here"), eos_ids=[258])
    trainer = toy.trainer(tmp_path, policy=model, rows=[{"prompt": [USER]}],
                          chat_template_kwargs={"chat_template": "rag"})
    assert model.tokenizer.decode(trainer.stream.take(0, 1)[0].ids) == "Rhi"
    with pytest.raises(ConfigError, match="'none' is not the name of a chat template"):
        toy.trainer(tmp_path / "b", policy=model, rows=[{"prompt": [USER]}],
                    chat_template_kwargs={"chat_template": "none"})


def test_a_text_without_jinja_is_said():
    with pytest.warns(GrpoWarning, match="'rag' holds no Jinja"):
        assert Tokenizer.bytes().apply_chat_template([USER], chat_template="rag") == "rag"


@pytest.mark.parametrize("files, names", [
    ({"chat_template.jinja": b"D"}, {"default"}), ({"additional_chat_templates/rag.jinja": b"R"}, {"rag"}),
    ({"chat_template.jinja": b"D", "additional_chat_templates/rag.jinja": b"R"}, {"default", "rag"})])
def test_files_of_templates(tmp_path, files, names):
    Tokenizer.bytes().save_pretrained(tmp_path / "a")
    (tmp_path / "a" / "chat_template.jinja").unlink()
    for name, data in files.items():
        (tmp_path / "a" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "a" / name).write_bytes(data)
    tokenizer = Tokenizer.from_pretrained(tmp_path / "a")
    assert tokenizer.chat_templates.keys() == names
    tokenizer.save_pretrained(tmp_path / "b")
    again = Tokenizer.from_pretrained(tmp_path / "b")
    assert again.chat_templates == tokenizer.chat_templates and again.save_files() == tokenizer.save_files()


def test_templates_of_a_gguf_are_saved_by_their_names(tmp_path):
    from make_files import byte_level_metadata

    tokenizer = Tokenizer.from_gguf({**byte_level_metadata("qwen2"), "tokenizer.chat_template": "D{{ 1 }}",
                                     "tokenizer.chat_template.rag": "R{{ 1 }}", "tokenizer.chat_templates": ["rag"]})
    assert tokenizer.apply_chat_template([USER], chat_template="rag") == "R1"
    tokenizer.save_pretrained(tmp_path)
    assert Tokenizer.from_pretrained(tmp_path).chat_templates == {"default": "D{{ 1 }}", "rag": "R{{ 1 }}"}


@pytest.mark.parametrize("held, named", [
    ([{"template": "a"}], "entry 0"), (["a"], "entry 0"), ([{"name": "x"}], "'x' must be text, not NoneType"),
    (5, "'default' must be text, not int"), ({"a": 1}, "'a' must be text")])
def test_templates_that_are_none(held, named):
    with pytest.raises(TokenizerError, match=f"here: chat_template.*{named}"):
        by_name(held, "here")


# -- arguments


CHAT = [USER, {"role": "assistant", "content": "Let me ", "thinking": "I"}]
OPEN = (LOOP % "<{{ m.role }}>{{ m.thinking }}{{ m.content }}</>"
        + "{% if add_generation_prompt %}<assistant>{% endif %}")


@pytest.mark.parametrize("source, messages, field, text", [
    (OPEN, CHAT, True, "<user>hi</><assistant>ILet me "), (OPEN, [USER], True, "<user>hi"),
    (OPEN, CHAT, "thinking", "<user>hi</><assistant>I"), (OPEN, CHAT, "reasoning_content", "<user>hi</><assistant>I"),
    (LOOP % "<{{ m.content | trim }}>", CHAT, True, "<hi><Let me"),
    (PARTS, [parts("user", "a", "b ")], True, "<user>a;b "), (PRINTS, [parts("user", "a", "b")], True, "<user>ab")])
def test_a_last_message_that_stays_open(source, messages, field, text):
    tokenizer = Tokenizer.bytes()
    tokenizer.chat_template = source
    for more in ({}, {"add_generation_prompt": False}):
        assert tokenizer.apply_chat_template(messages, continue_final_message=field, **more) == text


@pytest.mark.parametrize("source, messages, options, named", [
    (OPEN, CHAT, {"add_generation_prompt": True}, "give one of them"),
    (OPEN, [USER, CALLS], {}, "no text in 'content'"),
    (OPEN, [USER], {"continue_final_message": "x"}, "no text in 'x'"),
    ("{{ messages[0].role }}", CHAT, {}, "does not show 'content'"),
    (LOOP % "{{ m.content | upper }}", CHAT, {}, "does not show 'content' of the last message as it is")])
def test_a_last_message_that_cannot_stay_open(source, messages, options, named):
    tokenizer = Tokenizer.bytes()
    tokenizer.chat_template = source
    with pytest.raises(TokenizerError, match=named):
        tokenizer.apply_chat_template(messages, **{"continue_final_message": True, **options})


@pytest.mark.parametrize("name, value", [
    ("truncation", True), ("max_length", 3), ("padding", "longest"), ("return_tensors", "pt"), ("return_dict", True),
    ("return_assistant_tokens_mask", True), ("tokenizer_kwargs", {"a": 1}), ("sanitize_control_tokens", True)])
def test_arguments_of_transformers(name, value):
    tokenizer = Tokenizer.bytes()
    plain = tokenizer.apply_chat_template([USER])
    assert tokenizer.apply_chat_template([USER], **{name: value}) == plain       # without effect on a text
    with pytest.raises(TokenizerError, match=f"apply_chat_template has no {name}"):
        tokenizer.apply_chat_template([USER], tokenize=True, **{name: value})
    assert tokenizer.apply_chat_template([USER], tokenize=True, **{name: None}) == tokenizer.encode(plain)


@pytest.mark.parametrize("name", ["add_generation_prompt", "continue_final_message", "truncation", "conversation"])
def test_arguments_that_a_trainer_gives_itself(tmp_path, name):
    with pytest.raises(ConfigError, match=f"chat_template_kwargs must not hold {name}"):
        toy.trainer(tmp_path, rows=[{"prompt": [USER]}], chat_template_kwargs={name: True})


def test_a_second_bos_is_said_once():
    from tokenizers.processors import TemplateProcessing

    backend = Tokenizer.bytes()._backend
    backend.post_processor = TemplateProcessing(single=["<|endoftext|>", "$A"], special_tokens=[("<|endoftext|>", 256)])
    tokenizer = Tokenizer(backend, special={"bos_token": "<|endoftext|>"}, source="here")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tokenizer.encode("aa", add_special_tokens=True) == [256, 97, 97]
        assert tokenizer.encode("<|endoftext|><|endoftext|>") == [256, 256]
    with pytest.warns(GrpoWarning, match="here: a text begins with '<|endoftext|>', which every text gets"):
        assert tokenizer.encode("<|endoftext|>a", add_special_tokens=True) == [256, 256, 97]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer.encode("<|endoftext|>a", add_special_tokens=True)
    model = toy.model("ref")
    model.tokenizer = Tokenizer(backend, special={"bos_token": "<|endoftext|>"}, eos_ids=[258], source="model")
    with pytest.warns(GrpoWarning, match="model: a text begins with"):
        model.prompt_ids("<|endoftext|>a")


def python_function(x: int) -> int:
    """Twice."""
    return 2 * x


@pytest.mark.parametrize("tools, said", [
    ([python_function], "tools: python_function is a Python function.*give {'type': 'function'"),
    (python_function, "must be a list"), (["f"], "not 'f'"), ("f", "must be a list"), ({"a": 1}, "must be a")])
def test_tools_that_are_no_schemas(tools, said):
    with pytest.raises(TokenizerError, match=said):
        Tokenizer.bytes().apply_chat_template([USER], tools=tools)


@pytest.mark.parametrize("before", ["", " ", "  \n"])
def test_a_second_bos_after_spaces_is_said(before):
    import bpe_tokenizers

    for backend in (bpe_tokenizers.sentencepiece("prepend"), bpe_tokenizers.sentencepiece("no")):
        with pytest.warns(GrpoWarning, match="stands there twice"):
            Tokenizer(backend, special={"bos_token": "<s>"}).encode(f"{before}<s>hi", add_special_tokens=True)
    plain = bpe_tokenizers.byte_level("gpt-2")           # adds none
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Tokenizer(plain).encode(f"{before}<|begin_of_text|>hi", add_special_tokens=True)
