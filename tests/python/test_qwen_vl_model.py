"""Qwen and Qwen-VL from config to completions: what a config means, prompts with images and their ids, files."""
import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest

import grpo
import toy
from grpo import _core
from grpo.errors import ConfigError, FileFormatError, ImageError, UnsupportedModelError
from grpo.model.convert import convert
from grpo.model.families import spec_of
from grpo.model.formats import tiktoken
from grpo.model.formats.byte_level import byte_alphabet
from grpo.model.tokenizer import Tokenizer
from grpo.vision import Processor, preprocess, read_image
from grpo.vision.expand import IMG, IMG_END, IMG_PAD, qwen_vl_places, qwen_vl_slot
from grpo.vision.sight import PathSight, name_of
from make_pickles import pickled, tensor, torch_zip
from tiny_qwen_vl import build, qwen_vl

QWEN3 = Path(__file__).parents[3] / "shared/data/qwen3-tokenizer"
CHAT = {"model_type": "qwen", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "kv_channels": 128, "intermediate_size": 22016, "layer_norm_epsilon": 1e-6, "vocab_size": 151936,
        "max_position_embeddings": 8192, "seq_length": 2048, "rotary_emb_base": 10000, "rotary_pct": 1.0,
        "use_dynamic_ntk": True, "use_logn_attn": True, "no_bias": True, "tie_word_embeddings": False,
        "scale_attn_weights": True, "attn_dropout_prob": 0.0, "emb_dropout_prob": 0.0, "bf16": True,
        "visual": {"heads": 16, "image_size": 448, "image_start_id": 151857, "layers": 48, "mlp_ratio": 4.9231,
                   "output_dim": 4096, "patch_size": 14, "width": 1664}}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# -- configs --------------------------------------------------------------------------------------------------------


def test_the_published_config():
    spec = spec_of(CHAT)
    text, tower = spec.layers[31], spec.vision.layers[47]
    assert len(spec.layers) == 32 and text.mlp.width == 11008 and text.attention.head_dim == 128
    assert text.attention.qkv_bias and not text.attention.o_bias and not spec.tie
    assert (spec.max_positions, spec.stretch_after, spec.log_after, len(spec.ropes)) == (32768, 2048, 2048, 5)
    assert len(spec.vision.layers) == 48 and tower.mlp.width == 8192 and tower.attention.head_dim == 104
    assert spec.vision.grid_side == 32 and spec.vision.resampler.queries == 256
    assert spec.vision.resampler.attention.heads == 32 and spec.vision.patch_shape == (3, 1, 14, 14)


def test_names_and_shapes_of_tensors():
    config = qwen_vl(L=1, layers=1, queries=9)
    found = dict(_core.Model("ref", spec_of(config)).tensors())
    d, w, f, v = 128, 72, 122, "transformer.visual."
    block, pool = v + "transformer.resblocks.0.", v + "attn_pool."
    norms = [v + "ln_pre", block + "ln_1", block + "ln_2"]
    wide = [v + "ln_post", pool + "ln_q", pool + "ln_kv"]
    wanted = {"transformer.wte.weight": (53, d), "transformer.ln_f.weight": (d,), "lm_head.weight": (53, d),
              **{f"transformer.h.0.{name}.weight": shape for name, shape in {
                  "ln_1": (d,), "ln_2": (d,), "attn.c_attn": (3 * d, d), "attn.c_proj": (d, d), "mlp.w1": (44, d),
                  "mlp.w2": (44, d), "mlp.c_proj": (d, 44)}.items()}, "transformer.h.0.attn.c_attn.bias": (3 * d,),
              v + "conv1.weight": (w, 3, 4, 4), v + "positional_embedding": (256, w),
              **{f"{name}.{kind}": (w,) for name in norms for kind in ("weight", "bias")},
              **{f"{name}.{kind}": (d,) for name in wide for kind in ("weight", "bias")},
              block + "attn.in_proj.weight": (3 * w, w), block + "attn.in_proj.bias": (3 * w,),
              block + "attn.out_proj.weight": (w, w), block + "attn.out_proj.bias": (w,),
              block + "mlp.c_fc.weight": (f, w), block + "mlp.c_fc.bias": (f,), block + "mlp.c_proj.weight": (w, f),
              block + "mlp.c_proj.bias": (w,), pool + "query": (9, d), pool + "pos_embed": (9, d),
              pool + "kv_proj.weight": (d, w), pool + "attn.in_proj_weight": (3 * d, d),
              pool + "attn.in_proj_bias": (3 * d,), pool + "attn.out_proj.weight": (d, d),
              pool + "attn.out_proj.bias": (d,), v + "proj": (d, d)}
    assert found == wanted


def changed(**changes):
    visual = {**CHAT["visual"], **{key: value for key, value in changes.items() if key in
                                   (*CHAT["visual"], "n_queries")}}
    return {**CHAT, **{key: value for key, value in changes.items() if key not in visual}, "visual": visual}


@pytest.mark.parametrize("changes, error, named", [
    ({"no_bias": False}, UnsupportedModelError, "no_bias false"),
    ({"scale_attn_weights": False}, UnsupportedModelError, "scale_attn_weights false"),
    ({"rotary_pct": 0.5}, UnsupportedModelError, "rotary_pct other than 1"),
    ({"attn_dropout_prob": 0.1}, UnsupportedModelError, "attn_dropout_prob 0.1"),
    ({"emb_dropout_prob": 0.1}, UnsupportedModelError, "emb_dropout_prob 0.1"),
    ({"intermediate_size": 22017}, FileFormatError, "intermediate_size 22017 is odd"),
    ({"kv_channels": 64}, FileFormatError, "32 heads of kv_channels 64 are not hidden_size 4096"),
    ({"seq_length": 0}, FileFormatError, "seq_length must be"),
    ({"seq_length": 1}, FileFormatError, "seq_length must be an integer from 2"),
    ({"num_attention_heads": 2048, "kv_channels": 2}, FileFormatError, "num_attention_heads"),
    ({"num_attention_heads": 1024, "kv_channels": 2, "hidden_size": 2048, "output_dim": 2048}, UnsupportedModelError,
     "use_dynamic_ntk with heads of one pair"),
    ({"quantization_config": {"bits": 4}}, UnsupportedModelError, "quantised checkpoint"),
    ({"output_dim": 2048}, FileFormatError, "features of 2048 columns for a text of hidden_size 4096"),
    ({"output_dim": 64}, FileFormatError, "visual: output_dim 64 is less than a head"),
    ({"output_dim": 200}, FileFormatError, "features of 200 columns"),
    ({"output_dim": 300}, FileFormatError, "features of 300 columns"),
    ({"output_dim": 1664}, UnsupportedModelError, "it has no kv_proj"),
    ({"output_dim": 385}, FileFormatError, "visual: a width of 385 in 3 heads"),
    ({"image_size": 450}, FileFormatError, "visual: image_size 450 is no multiple of patch_size 14"),
    ({"n_queries": 200}, FileFormatError, "visual: n_queries 200 is not the square"),
    ({"heads": 15}, FileFormatError, "visual: a width of 1664 in 15 heads"),
    ({"layers": 0}, FileFormatError, "visual: layers must be an integer"),
    ({"width": "wide"}, FileFormatError, "visual: width must be an integer"),
    ({"mlp_ratio": 0}, FileFormatError, "visual: mlp_ratio must be"),
])
def test_what_cannot_be_is_named(changes, error, named):
    with pytest.raises(error, match=named):
        spec_of(changed(**changes), "folder/config.json")


def test_a_visual_that_is_none():
    with pytest.raises(FileFormatError, match="visual must be an object"):
        spec_of({**CHAT, "visual": 3})


@pytest.mark.parametrize("changes, longest, stretch_after, log_after, ropes", [
    ({}, 32768, 2048, 2048, 5), ({"seq_length": 8192}, 32768, 8192, 8192, 3), ({"seq_length": 5}, 640, 5, 5, 8),
    ({"seq_length": 40000}, 40000, 40000, 40000, 1), ({"seq_length": 20000}, 32768, 20000, 20000, 2),
    ({"use_logn_attn": False}, 32768, 2048, 0, 5), ({"use_dynamic_ntk": False}, 32768, 0, 2048, 1),
    ({"use_dynamic_ntk": False, "seq_length": 40000}, 40000, 0, 40000, 1),
    ({"use_logn_attn": False, "seq_length": 1}, 128, 1, 0, 8),
    ({"use_logn_attn": False, "use_dynamic_ntk": False}, 0, 0, 0, 1)])
def test_beyond_seq_length(changes, longest, stretch_after, log_after, ropes):
    spec = spec_of({**CHAT, **changes})
    assert (spec.max_positions, spec.stretch_after, spec.log_after) == (longest, stretch_after, log_after)
    plain = np.float32(10000.0) ** (np.arange(0, 128, 2) / 128)
    wanted = [(1 / (plain * (2 ** (n + 1) - 1) ** (np.arange(0, 128, 2) / 126))) for n in range(ropes)]
    np.testing.assert_allclose([rope.inv_freq for rope in spec.ropes], wanted, rtol=1e-6)


def test_longer_sequences_are_refused():
    model = grpo.load(grpo.tiny("qwen", seq_length=2), device="cpu")
    assert len(model.logprobs([1] * 250, [[2] * 6])[0]) == 6
    with pytest.raises(ConfigError, match="a sequence of 257 tokens: this model is defined up to 256 tokens"):
        model.logprobs([1] * 250, [[2] * 7])
    with pytest.raises(ConfigError, match="a sequence of 257 tokens"):
        model.generate([[1] * 250], max_new_tokens=7)


def test_a_prompt_is_all_that_stands_before_the_completion():
    """So the same tokens, cut elsewhere, have other log-probs, unless the cut stays between two multiples."""
    model, ids = grpo.load(grpo.tiny("qwen", seq_length=16), device="cpu"), list(range(1, 41))
    of_last = [model.logprobs(ids[:cut], [ids[cut:]])[0][-1] for cut in (10, 15, 17, 30, 33)]
    assert [of_last.index(x) for x in of_last] == [0, 0, 2, 2, 4]


# -- the text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["ref", "cpu"])
def test_a_text_without_a_tower_is_qwen2s(device):
    """With a bias on q, k and v and as many heads of keys: bit for bit."""
    config = {key: value for key, value in qwen_vl().items() if key != "visual"}
    weights = {name: x for name, x in build(qwen_vl(), "ref")[1].items() if ".visual." not in name}
    core = _core.Model(device, spec_of(config))
    other = _core.Model(device, spec_of({
        "model_type": "qwen2", "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "intermediate_size": 44, "vocab_size": 53, "rms_norm_eps": 1e-6, "rope_theta": 1e4,
        "tie_word_embeddings": False}))
    for name, x in weights.items():
        core.set_tensor(name, x)
        name = name.replace("transformer.h.", "model.layers.").replace("transformer.wte", "model.embed_tokens")
        name = name.replace("transformer.ln_f", "model.norm").replace("ln_1", "input_layernorm")
        name = name.replace("ln_2", "post_attention_layernorm").replace("attn.c_proj", "self_attn.o_proj")
        name = name.replace("w2", "gate_proj").replace("w1", "up_proj").replace("mlp.c_proj", "mlp.down_proj")
        if "c_attn" in name:
            for i, part in enumerate("qkv"):
                other.set_tensor(name.replace("attn.c_attn", f"self_attn.{part}_proj"), x[i * 128:(i + 1) * 128])
        else:
            other.set_tensor(name, x)
    assert {name for name, _ in core.tensors()} == set(weights)
    ids = np.arange(50, dtype=np.int32)
    assert (core.logits(ids) == other.logits(ids)).all()


# -- prompts --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return grpo.load(grpo.tiny("qwen", num_hidden_layers=1), device="cpu")


START = 259


@pytest.fixture
def png(tmp_path):
    from PIL import Image

    path = tmp_path / "a.png"
    Image.fromarray(noise(20, 30, 3)).save(path)
    return str(path)


def slot(name):
    return qwen_vl_slot(name, img=START).tolist()


def user(content):
    return [{"role": "user", "content": content}]


def parts(*held):
    return [{"type": "image", "image": each} if not isinstance(each, str) else {"type": "text", "text": each}
            for each in held]


def around(content):
    return "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n", content, \
        "<|im_end|>\n<|im_start|>assistant\n"


def test_prompts(model, png):
    """(prompt, images beside it, what its ids are of: texts, and names of images as lists)"""
    picture, encode = noise(9, 9, 3), model.tokenizer.encode
    cases = [
        (user(parts(picture, "Hi")), [], ["Picture 1:", ["image1.png"], "\nHi"]),
        (user(parts("a", picture, Path(png), "b")), [], ["aPicture 1:", ["image1.png"], "\nPicture 2:", [png], "\nb"]),
        (user("Hi"), [picture], ["Picture 1:", ["image1.png"], "\nHi"]),
        (user(f"Picture 1: <img>{png}</img>\nHi"), [], ["Picture 1: ", [png], "\nHi"]),
        (user([*parts(picture, "and "), {"type": "text", "text": f"<img>{png}</img>"}]), [],
         ["Picture 1:", ["image1.png"], "\nand ", [png]]),
        (f"Picture 1:<img>{png}</img>\nHi", [], None), (f"<img>any name</img>? <img>{png}</img>", [picture, png], None),
        ("<image>Hi<image>", [picture, {"bytes": Path(png).read_bytes(), "path": "b.png"}], None),
    ]
    texts = {5: ["Picture 1:", [png], "\nHi"], 6: [["any name"], "? ", [png]],
             7: ["Picture 1:", ["image1.png"], "\nHiPicture 2:", ["b.png"], "\n"]}
    for i, (prompt, images, pieces) in enumerate(cases):
        found = model.encode_prompt(prompt, images)
        if pieces is not None:
            before, _, after = around(None)
            pieces = [before, *pieces, after]
        wanted = [token for piece in pieces or texts[i]
                  for token in (slot(piece[0]) if isinstance(piece, list) else encode(piece))]
        assert found.ids.tolist() == wanted, i
        assert len(found.images) == sum(isinstance(piece, list) for piece in pieces or texts[i])
        assert all(each.tokens == 256 and each.grid.tolist() == [1, 8, 8] for each in found.images)
        if not isinstance(prompt, str) or "<img>" not in prompt:
            again = model.encode_prompt(found.ids, [each.source for each in found.images])
            assert (again.ids == found.ids).all()


def test_prompts_without_images(model):
    for prompt in ("Hi", "an <image> tag", [1, 2, 3], user("Hi")):
        found = model.encode_prompt(prompt)
        assert not found.images and not (found.ids == START).any()


@pytest.mark.parametrize("prompt, images, message", [
    ("<image>", 2, "1 markers <image> and no <img>PATH</img> for 2 images"),
    ("Hi", 1, "0 markers <image> and no <img>PATH</img> for 1 images"),
    ("<img>a</img><img>b</img>", 1, "2 places of images for 1 images"),
    ("<img><imgpad></img>", 0, "1 places of images for 0 images"),
    ("<img>a", 0, "without the other"), ("<img>no/such.png</img>", 0, "there is no such file"),
    (user("<img>no/such.png</img>"), 0, "there is no such file"),
    ("<img>http://h/a.png</img>", 0, "nothing is fetched"),
    ([1, START, 2], 0, "that is not followed by 256 ids"), ([1, 2], 1, "0 places of images for 1 images"),
])
def test_wrong_prompts(model, prompt, images, message):
    with pytest.raises(ImageError, match=message):
        model.encode_prompt(prompt, [noise(9, 9, 3)] * images)


def test_names_of_images():
    for image, name in ((Path("a/b.png"), "a/b.png"), ("c.png", "c.png"), (b"bytes", "image7.png"), ("", "image7.png"),
                        ("data:image/png;base64,YQ==", "image7.png"), ("x" * 255, "image7.png"), ("é" * 127, "é" * 127),
                        ({"path": "d.png", "bytes": b""}, "d.png"), ({"bytes": b""}, "image7.png"),
                        ("a</img>.png", "image7.png"), (noise(2, 2, 3), "image7.png")):
        assert name_of(image, 7) == name


def test_places():
    ids = np.concatenate([[5], qwen_vl_slot("a"), [6], qwen_vl_slot("b")])
    assert qwen_vl_places(ids, 2).tolist() == [*range(2, 258), *range(261, 517)]
    with pytest.raises(ImageError, match="row 3: its ids have 2 places of images for 1 images"):
        qwen_vl_places(ids, 1, "row 3")


def test_ids_of_the_published_chat():
    if not (QWEN3 / "tokenizer.json").is_file():
        pytest.skip(f"needs the Qwen3 tokenizer in {QWEN3}")
    vocabulary = json.loads((QWEN3 / "tokenizer.json").read_text())["model"]["vocab"]
    to_byte = {char: byte for byte, char in enumerate(byte_alphabet())}
    tokens = [bytes(to_byte[char] for char in text) for text in sorted(vocabulary, key=vocabulary.get)]
    made = tiktoken.build(b"".join(base64.b64encode(token) + b" %d\n" % i for i, token in enumerate(tokens)), True,
                          True, "qwen.tiktoken")
    tokenizer = Tokenizer(made.backend, special=made.special, chat_template=made.template, apart=tiktoken.HEADER)
    sight = PathSight(None, CHAT, Processor.of("qwen"))
    ids, pictures = sight.encode(tokenizer, user(parts(noise(4, 4, 3), "Describe this image.")))
    assert ids.tolist() == [
        151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198, 151644, 872, 198, 24669, 220, 16, 25, 151857,
        *b"image1.png", *[151859] * 246, 151858, 198, 74785, 419, 2168, 13, 151645, 198, 151644, 77091, 198]
    assert (IMG, IMG_END, IMG_PAD) == (151857, 151858, 151859) and len(pictures) == 1
    assert sight.places(ids, pictures).tolist() == list(range(19, 275))


def test_ids_and_images_must_agree(model):
    ids, image = slot("a"), noise(9, 9, 3)
    with pytest.raises(ImageError, match="places of images for 0 images|image tokens .* and no images"):
        model.logprobs(ids, [[5]])
    with pytest.raises(ImageError, match="its ids have 1 places of images for 2 images"):
        model.logprobs(ids, [[5]], images=[image, image])
    with pytest.raises(ImageError, match="holds token 260, which stands for an image"):
        model.logprobs(ids, [[5, START + 1]], images=[image])


# -- images ---------------------------------------------------------------------------------------------------------


def test_pixels_are_those_of_the_processor(model, png):
    found = model.encode_prompt(f"<img>{png}</img>")
    ((positions, after, places, ((grid, pixels, features),)),) = model.core_images([found.ids], [found.images],
                                                                                   pixels=True)
    wanted = preprocess([png], model.processor)
    assert (pixels == wanted["pixel_values"]).all() and grid.tolist() == [1, 8, 8] and features is None
    assert positions.tolist() == [list(range(258))] and after == 258 and places.tolist() == list(range(1, 257))
    assert wanted["pixel_values"].shape == (64, 588) and wanted["image_grid_thw"].tolist() == [[1, 8, 8]]


def test_files_are_taken_as_they_are_stored():
    """Neither turned as EXIF says nor laid on white: convert("RGB"), and no more."""
    from PIL import Image

    turned = Image.fromarray(noise(6, 8, 3))
    exif = turned.getexif()
    exif[0x0112] = 6
    file = io.BytesIO()
    turned.save(file, "PNG", exif=exif)
    assert read_image(file.getvalue()).shape == (8, 6, 3)
    assert (read_image(file.getvalue(), as_stored=True) == np.asarray(turned)).all()
    for mode in ("RGBA", "LA", "PA", "P", "L", "1", "CMYK"):
        image = Image.fromarray(noise(6, 8, 4)).convert("RGBA" if mode == "RGBA" else "RGB").convert(mode)
        assert (read_image(image, as_stored=True) == np.asarray(image.convert("RGB"))).all()
    four = noise(6, 8, 4)
    assert (read_image(four, as_stored=True) == four[:, :, :3]).all()
    assert (preprocess([four], Processor.of("qwen"))["pixel_values"] ==
            preprocess([np.ascontiguousarray(four[:, :, :3])], Processor.of("qwen"))["pixel_values"]).all()


def test_n_queries_are_256():
    with pytest.raises(ConfigError, match="visual.n_queries is 16, and a prompt of this model has 256 places"):
        grpo.load(grpo.tiny("qwen", visual={"n_queries": 16}), device="cpu")


# -- completions and files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["ref", "cpu"])
def test_rollout_is_training_and_files_keep_everything(device, tmp_path, png):
    model = grpo.load(grpo.tiny("qwen", num_hidden_layers=1), device=device)
    prompts = [user(parts(Path(png), "what?")), user("no image"), user(parts(noise(9, 9, 3), Path(png)))]
    out = model.generate(prompts, num_generations=2, max_new_tokens=5)
    encoded = [model.encode_prompt(prompt) for prompt in prompts for _ in range(2)]
    rows = [each.ids for each in encoded], [each.token_ids for each in out]
    logps = model.logprobs(*rows, images=[each.images for each in encoded])
    for found, sampled in zip(logps, out, strict=True):
        assert (found == sampled.policy_logprobs).all()
    assert not {START, START + 1, START + 2} & {token for each in out for token in each.token_ids}
    model.save_pretrained(tmp_path / "saved")
    again = grpo.load(tmp_path / "saved", device=device)
    for name, x in model.state_dict().items():
        assert (again.core.get_tensor(name) == x).all()
    other = again.logprobs(*rows, images=[each.images for each in encoded])
    assert all((x == y).all() for x, y in zip(logps, other, strict=True))
    assert again.config["visual"] == model.config["visual"] and again.processor == model.processor
    assert (again.encode_prompt(prompts[0]).ids == encoded[0].ids).all()
    copy = model.copy()
    assert all((x == y).all() for x, y in
               zip(logps, copy.logprobs(*rows, images=[each.images for each in encoded]), strict=True))


def test_an_image_matters(model, png):
    prompt = model.encode_prompt(f"<img>{png}</img>?")
    logps = [model.logprobs(prompt.ids, [[5, 6]], images=[image])[0] for image in (png, noise(9, 9, 3))]
    assert not (logps[0] == logps[1]).all()


def test_published_files_are_converted_and_loaded(tmp_path):
    """pytorch_model.bin and qwen.tiktoken, as the repositories of Qwen-VL hold them."""
    tokens = [bytes([byte]) for byte in range(256)]
    config = {**qwen_vl(L=1, layers=1, queries=256), "vocab_size": 480}
    config["visual"]["image_start_id"] = 256 + 208 + 6
    core, weights = build(config, "ref")
    old = tmp_path / "old"
    old.mkdir()
    stored = {**weights, "transformer.rotary_emb.inv_freq": np.ones(32, np.float32)}
    keys = {name: str(i) for i, name in enumerate(stored)}
    entries = {name: tensor("Float", keys[name], x.size, x.shape) for name, x in stored.items()}
    (old / "pytorch_model.bin").write_bytes(torch_zip(pickled(entries),
                                                      {keys[name]: x.tobytes() for name, x in stored.items()}))
    (old / "config.json").write_text(json.dumps(config))
    (old / "generation_config.json").write_text(json.dumps({"chat_format": "chatml", "eos_token_id": 256}))
    (old / "qwen.tiktoken").write_bytes(b"".join(base64.b64encode(t) + b" %d\n" % i for i, t in enumerate(tokens)))
    (old / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "QWenTokenizer"}))
    convert(old, tmp_path / "new")
    model = grpo.load(tmp_path / "new", device="ref")
    assert all((model.core.get_tensor(name) == x).all() for name, x in weights.items())
    prompt = model.encode_prompt(user(parts(noise(16, 16, 3), "Hi")))
    assert (prompt.ids == config["visual"]["image_start_id"]).sum() == 1
    (out,) = model.generate([user(parts(noise(16, 16, 3), "Hi"))], max_new_tokens=3)
    assert out.prompt_ids == prompt.ids.tolist()
    assert (model.logprobs(prompt.ids, [out.token_ids], images=prompt.images)[0] == out.policy_logprobs).all()


# -- training -------------------------------------------------------------------------------------------------------

POSITIONS = "transformer.visual.attn_pool.pos_embed"


@pytest.mark.parametrize("train_vision", ["none", "merger", "all"])
def test_a_run(tmp_path, train_vision):
    """Rollouts with images and their updates: log-probs agree to the bit, the plan holds, and what is trained moves."""
    policy = grpo.load(grpo.tiny("qwen", num_hidden_layers=1, visual={"layers": 1}), device="cpu")
    rows = [{"prompt": f"<image>{letter}", "letter": letter, "images": [noise(30, 30, 3, seed=ord(letter))]}
            for letter in "ab"]
    before, length = policy.state_dict(), len(policy.encode_prompt(rows[0]["prompt"], rows[0]["images"]).ids)
    trainer = toy.trainer(tmp_path, policy=policy, rows=rows, train_vision=train_vision, max_prompt_length=length,
                          max_steps=2, num_generations=2, max_completion_length=4,
                          generation_kwargs={"min_new_tokens": 4})
    planned = dict(trainer.memory.arenas)
    steps = [step.metrics for step in trainer]
    assert len(steps) == 2 and all(metrics["sampling/sampling_logp_difference/max"] == 0 for metrics in steps)
    held = dict(trainer.optimizer.plan())
    for name in ("weights", "gradients (float32)", "activations of the tower"):
        assert held[name] == planned[name] or (train_vision, held[name]) == ("none", 0)
    moved = {name for name, x in policy.state_dict().items() if not (x == before[name]).all()}
    seen = {name for name in moved if ".visual." in name}
    assert POSITIONS not in moved and "transformer.h.0.attn.c_attn.weight" in moved
    pool = {name for name in before if name.startswith(("transformer.visual.attn_pool.", "transformer.visual.ln_post",
                                                        "transformer.visual.proj"))} - {POSITIONS}
    tower = {name for name in before if ".visual." in name} - {POSITIONS}
    wanted = {"none": set(), "merger": pool, "all": tower}[train_vision]
    assert seen <= wanted and len(seen) >= 0.8 * len(wanted)


@pytest.mark.parametrize("flags", [{}, {"use_dynamic_ntk": False}, {"use_logn_attn": False}], ids=str)
@pytest.mark.parametrize("updates", [1, 2])
def test_a_run_of_long_prompts(tmp_path, flags, updates):
    """Of 9 to 70 tokens, where 16 is the length beyond which they stretch, and completions that cross it."""
    policy = grpo.load(grpo.tiny("qwen", num_hidden_layers=1, seq_length=16, **flags), device="cpu")
    rows = [{"prompt": "a" * n, "letter": "a"} for n in (9, 16, 17, 33, 70)]
    trainer = toy.trainer(tmp_path, policy=policy, rows=rows, max_steps=2, num_generations=3, prompts_per_step=5,
                          num_iterations=updates, beta=0.1, max_completion_length=30,
                          generation_kwargs={"min_new_tokens": 20})
    steps = [step.metrics for step in trainer]
    first = steps[::updates]
    assert all(metrics["sampling/sampling_logp_difference/max"] == 0 for metrics in first)
    assert steps[0]["kl"] == 0 and steps[-1]["kl"] > 0


def test_sft_of_long_prompts(tmp_path):
    """Its loss is that of logprobs(), which goes by the prompt."""
    policy = grpo.load(grpo.tiny("qwen", num_hidden_layers=1, seq_length=16), device="cpu")
    rows = [{"prompt": [7] * n, "completion": list(range(60 - n))} for n in (9, 17, 40)]
    wanted = np.concatenate([policy.logprobs(row["prompt"], [row["completion"]])[0] for row in rows])
    trainer = grpo.SFTTrainer(policy, grpo.SFTConfig(str(tmp_path), max_steps=1, per_device_train_batch_size=3,
                                                     learning_rate=1e-3, save_strategy="no"), rows)
    (step,) = trainer
    assert step.metrics["loss"] == pytest.approx(-wanted.mean(), rel=1e-6)
