"""The names that GGUF files give to ways of cutting text (tokenizer.ggml.pre), and what each stands for.

llama.cpp gives a name to every tokenizer that it has met; many cut alike. Where its own rule only comes near what the
tokenizer.json of the model says (tekken, gpt-4o), here it is that file's. Names whose rule is not a list of regular
expressions (kimi-k2, afmoe, superbpe), or of which llama.cpp and the models differ (deepseek-llm, falcon), are refused.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import TokenizerError, did_you_mean, note, warn
from .byte_level import SPLITS, WORDS, Split

THREES = WORDS % r"\p{N}{1,3}"
CASES = r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s|""" \
        r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s|""" \
        r"""%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
SHORTENED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
TEKKEN, GPT4O = CASES % ("", "", r"\p{N}"), CASES % (SHORTENED, SHORTENED, r"\p{N}{1,3}")
MARKS = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+""" \
        r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
DEEPSEEK3 = Split(MARKS, before=(r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+"))
# Keys are names, separated by blanks, that stand for the same.
NAMES: Mapping[str, Split] = {
    "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert exaone4 mpt olmo jais "
    "trillion granite-docling": SPLITS["gpt-2"],
    "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2": SPLITS["smollm"],
    "qwen2 deepseek-r1-qwen f2llmv2": SPLITS["qwen2"],
    "megrez kormo stablelm2 hunyuan solar-open grok-2": Split(WORDS % r"\p{N}"),
    "qwen35": Split(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
                    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+", nfc=True),
    "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano": SPLITS["llama-bpe"],
    "dbrx smaug-bpe glm4 chatglm-bpe": Split(THREES),
    "tekken": Split(TEKKEN, whole_words=True, bos=True),
    "gpt-4o llama4 kanana2 talkie minimax-m2": Split(GPT4O),
    "deepseek-v3 hunyuan-dense joyai-llm hy_v4": DEEPSEEK3,
    "deepseek-coder": Split(r"\p{N}", before=(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+")),
    "seed-coder": Split(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+"
                        r"|\s*[\r\n]+|\s+(?!\S)|\s+"),
    "bailingmoe bailingmoe2 llada-moe": Split(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}"
                                              r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"),
    "minicpm5": Split(WORDS % r"\p{N}+", before=(r"\p{N}{1,3}",), whole_words=True),
    "bloom gpt3-finnish poro-chat": Split(BLOOM),
    "viking": Split(r"\p{N}", before=(BLOOM,)),
}
OF_NAME = {name: split for names, split in NAMES.items() for name in names.split()}
# Families whose vocabularies were all cut in one way; and tokens that only one vocabulary of llama's has.
OF_ARCHITECTURE = {"qwen2": "qwen2", "qwen3": "qwen2"}
OF_TOKEN = {"<|begin_of_text|>": "llama-bpe"}
USUAL = "gpt-2"                                          # where nothing says


def split_of(metadata: Mapping[str, Any], vocabulary: Mapping[str, int], source: str) -> Split:
    """How the text of a byte-level vocabulary is cut. TokenizerError for a name that is not known.

    Without a name, or with "default", which converters write for want of one, the architecture decides or a token that
    only one vocabulary has, which is said on one line; else a GrpoWarning says what is assumed."""
    name = metadata.get("tokenizer.ggml.pre")
    if name in (None, "", "default"):
        return OF_NAME[_assumed(metadata, vocabulary, source)]
    if not isinstance(name, str) or name not in OF_NAME:
        near = did_you_mean(str(name)[:80].lower(), OF_NAME)
        near = f" ({', '.join(each.split()[0] for each in NAMES)} and their like are)." if near == "." else near
        raise TokenizerError(f"{source}: pre-tokenizer {name!r:.80} (tokenizer.ggml.pre) is not supported{near} "
                             "Give the model's own tokenizer: in Python "
                             "grpo.load(FILE, tokenizer=FOLDER), a folder with tokenizer.json; the commands take a "
                             "model that was saved so (save_pretrained)")
    return OF_NAME[name]


def _assumed(metadata: Mapping[str, Any], vocabulary: Mapping[str, int], source: str) -> str:
    lacks = f"{source}: does not say how text is split (tokenizer.ggml.pre)"
    architecture = metadata.get("general.architecture")
    certain = OF_ARCHITECTURE.get(architecture) if isinstance(architecture, str) else None
    why = f"as all of {architecture} are"
    for token, name in OF_TOKEN.items():
        if certain is None and token in vocabulary:
            certain, why = name, f"as vocabularies with {token} are"
    if certain is not None:
        note(f"{lacks}: split as {certain}, {why}")
        return certain
    warn(f"{lacks}; it is assumed to be {USUAL}'s way. If it is not, texts become other tokens than the model has "
         "learned: give the model's own tokenizer with tokenizer=")
    return USUAL
