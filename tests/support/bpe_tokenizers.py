"""Small BPE tokenizers, trained on a few lines, that split text as published tokenizer.json files do."""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LINES = [
    "The quick brown fox jumps over the lazy dog, and it's John's; they'll don't. " * 3,
    "12345 + 67890 = 80235, 3.14159 100 200 300 2024 2025",
    "def f(x):\n    return {x: [1, 2, 3]}\n\n\nclass A:\n\tpass\n",
    "日本語テスト、中文测试。한국어 العربية naïve café ünlike Ελληνικά Кириллица",
    "🙂👧🏽 ½ \u00a0x    y        z \\boxed{\\frac{1}{2}} https://example.org/a?b=c",
]
SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"]


def byte_level(kind, size=600):
    """gpt-2, smollm, qwen2 or llama-bpe, with SPECIALS; llama-bpe adds the first of them to a text."""
    backend = Tokenizer(models.BPE(ignore_merges=kind == "llama-bpe"))
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind in ("gpt-2", "smollm"))
    if kind == "gpt-2":
        backend.pre_tokenizer = last
    elif kind == "smollm":
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), last])
    else:
        regex = Regex(WORDS % (r"\p{N}" if kind == "qwen2" else r"\p{N}{1,3}"))
        split = pre_tokenizers.Split(regex, behavior="isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, last])
    if kind == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        show_progress=False,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(LINES, trainer)
    if kind == "llama-bpe":
        begin = SPECIALS[0]
        backend.post_processor = processors.TemplateProcessing(
            single=[begin, "$A"], pair=[begin, "$A", "$B"], special_tokens=[(begin, backend.token_to_id(begin))]
        )
    return backend


def sentencepiece(space="prepend", size=600):
    """SentencePiece's BPE as transformers converts it: <unk>, <s>, </s>, 256 bytes, pieces. space: "prepend" (Llama 2),
    "first" (its successors) or "no" (Gemma)."""
    seed = Tokenizer(models.BPE(unk_token="<unk>"))
    seed.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    seed.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    seed.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=["<unk>"]))
    learned = sorted(seed.get_vocab(), key=seed.token_to_id)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [token for token in learned if token not in tokens]
    ids = {token: i for i, token in enumerate(tokens)}
    pieces = [token for token in tokens[259:] if len(token) > 1]
    # a token is the merge of each pair of tokens that spell it, the pairs of an earlier token first
    pairs = {token: [(token[:i], token[i:]) for i in range(1, len(token))] for token in pieces}
    merges = [(left, right) for token in pieces for left, right in pairs[token] if left in ids and right in ids]
    backend = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    spaces = normalizers.Replace(" ", "▁")
    if space == "first":
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    else:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if space == "prepend" else spaces
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(steps if space == "no" else [*steps, decoders.Strip(" ", 1, 0)])
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in tokens[:3]])
    backend.post_processor = processors.TemplateProcessing(single=["<s>", "$A"], special_tokens=[("<s>", 1)])
    return backend
