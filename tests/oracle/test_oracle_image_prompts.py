"""Ids and positions of prompts with images against the processors and get_rope_index of transformers."""
import random
from pathlib import Path

import numpy as np
import pytest

from grpo.errors import ImageError
from grpo.model.tokenizer import Tokenizer
from grpo.vision.expand import collapse, expand
from grpo.vision.messages import normal
from grpo.vision.positions import rope_positions
from image_templates import QWEN2_VL, QWEN3_VL

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.oracle

FOLDER = Path(__file__).parents[3] / "shared/data/qwen3-tokenizer"
IMAGE, VIDEO = 151655, 151656
FAMILIES = {"qwen2_vl": ("Qwen2VL", QWEN2_VL, 14), "qwen2_5_vl": ("Qwen2_5_VL", QWEN2_VL, 14),
            "qwen3_vl": ("Qwen3VL", QWEN3_VL, 16)}
TEXTS = ["What is this?", "", " ", "\n", "\n\n", "Café 中文 🙂", "  two  spaces ", "1234.5", "a<b>&\"'", "<image>",
         "<think>", "x" * 90, "it's\r\n", "<|im_end|>", "end."]
ROUNDS = 40


@pytest.fixture(scope="module")
def tokenizers():
    if not (FOLDER / "tokenizer.json").is_file():
        pytest.skip("no Qwen tokenizer in shared/data/qwen3-tokenizer")
    return Tokenizer.from_pretrained(FOLDER), transformers.AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(params=FAMILIES)
def family(request, tokenizers, monkeypatch):
    """(our tokenizer, the processor, the patch size, get_rope_index)"""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    name, template, patch = FAMILIES[request.param]
    ours, theirs = tokenizers
    ours.chat_template = template
    kind = getattr(transformers, f"{name}Processor")
    # its video processor is for torchvision alone, and nothing here has a video
    monkeypatch.setattr(kind, "check_argument_for_proper_class", lambda *arguments: None)
    images = Qwen2VLImageProcessorPil(patch_size=patch, merge_size=2, size={"shortest_edge": 4 * (2 * patch) ** 2,
                                                                           "longest_edge": 40 * (2 * patch) ** 2})
    return ours, kind(images, theirs, None, chat_template=template), rope_index_of(name)


def rope_index_of(name):
    text = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
                vocab_size=64, head_dim=16)
    vision = dict(depth=1, hidden_size=32, embed_dim=32, num_heads=2, intermediate_size=32, out_hidden_size=32)
    config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=vision)
    with torch.device("meta"):
        return getattr(transformers, f"{name}Model")(config).get_rope_index


def random_chat(rng):
    """(messages with their pictures, the same without, the pictures)"""
    pictures, whole, bare = [], [], []
    roles = ["system"] * rng.randint(0, 1) + ["user", "assistant"] * rng.randint(0, 2) + ["user"]
    for role in roles:
        kinds = [rng.choice(["text", "image"] if role == "user" else ["text"]) for _ in range(rng.randint(1, 4))]
        parts = []
        for kind in kinds:
            if kind == "text":
                parts.append({"type": "text", "text": rng.choice(TEXTS)})
            else:
                size = rng.randint(8, 300), rng.randint(8, 300)
                pictures.append(Image.new("RGB", size, (rng.randint(0, 255), 0, 0)))
                parts.append({"type": "image", "image": pictures[-1]})
        whole.append({"role": role, "content": parts})
        bare.append({"role": role, "content": [p if p["type"] == "text" else {"type": "image"} for p in parts]})
    return whole, bare, pictures


def processed(processor, messages):
    out = processor.apply_chat_template(messages, tokenize=True, return_dict=True, add_generation_prompt=True)
    grids = np.asarray(out.get("image_grid_thw", np.zeros((0, 3), int)))
    return out["input_ids"][0], grids, out["mm_token_type_ids"][0]


def ids_of(tokenizer, prompt, images, grids):
    prompt, found = normal(prompt, images)
    assert [id(image) for image in found] == [id(image) for image in images or found]
    counts = [int(np.prod(grid)) // 4 for grid in grids]
    return expand(tokenizer.apply_chat_template(prompt, tokenize=True), counts, IMAGE)


def test_ids_and_positions(family):
    ours, processor, rope_index = family
    rng, shown = random.Random(7), 0
    for _ in range(ROUNDS):
        whole, bare, pictures = random_chat(rng)
        expected, grids, kinds = processed(processor, whole)
        for prompt, images in ((whole, []), (bare, pictures)):
            ids = ids_of(ours, prompt, images, grids)
            assert ids.tolist() == expected
        plain = ours.apply_chat_template(normal(whole)[0], tokenize=True)
        assert collapse(ids, IMAGE).tolist() == plain
        positions, after = rope_positions(ids, grids, IMAGE, 2, video_token_id=VIDEO)
        wanted, delta = rope_index(torch.tensor([expected]), torch.tensor([kinds]),
                                   image_grid_thw=torch.tensor(grids) if len(grids) else None)
        assert positions.dtype == np.int32
        np.testing.assert_array_equal(positions, wanted[:, 0].numpy())
        assert after == len(expected) + int(delta[0, 0])
        shown += len(pictures)
    assert shown > ROUNDS


def test_images_before_the_text_of_the_first_user(family):
    """The rule of a row whose messages are texts: as if the picture were a part before the text."""
    ours, processor, _ = family
    picture = Image.new("RGB", (120, 77))
    texts = [{"role": "system", "content": "S"}, {"role": "user", "content": "one"},
             {"role": "assistant", "content": "two"}, {"role": "user", "content": "three"}]
    parts = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in texts]
    parts[1]["content"].insert(0, {"type": "image", "image": picture})
    expected, grids, _ = processed(processor, parts)
    assert ids_of(ours, texts, [picture], grids).tolist() == expected


def test_positions_of_odd_grids(family):
    """Grids that no picture of these tests has, with text of no length between, before and after."""
    *_, rope_index = family
    rng = np.random.default_rng(5)
    for _ in range(ROUNDS):
        grids = np.stack([np.ones(4, int), *(2 * rng.integers(1, [[30], [2]], (2, 4)))], 1)[:rng.integers(1, 5)]
        pieces = []
        for t, h, w in grids:
            pieces += [[9] * rng.integers(0, 4), [8], [IMAGE] * (t * h * w // 4)]
        ids = np.concatenate([*pieces, [9] * rng.integers(0, 3)]).astype(int)
        positions, after = rope_positions(ids, grids, IMAGE, 2)
        wanted, delta = rope_index(torch.tensor(ids[None]), torch.tensor((ids == IMAGE).astype(int)[None]),
                                   image_grid_thw=torch.tensor(grids))
        np.testing.assert_array_equal(positions, wanted[:, 0].numpy())
        assert after == len(ids) + int(delta[0, 0])


def random_prompt(rng):
    """Messages whose contents are texts or parts, and images for them that may be too few or too many."""
    messages, own = [], 0
    for role in ["system"] * rng.randint(0, 1) + rng.choices(["user", "assistant", "tool"], k=rng.randint(1, 4)):
        if rng.random() < 0.6:
            content = rng.choice(TEXTS)
        else:
            content = [rng.choice([{"type": "text", "text": "t"}, {"type": "image", "image": f"own {own}"},
                                   *[{"type": "image"}] * (role != "tool")]) for _ in range(rng.randint(1, 3))]
            own += len(content)
        messages.append({"role": role, "content": content})
    return messages, [f"given {i}" for i in range(rng.choice([0, 1, 1, 2]))]


def test_places_as_in_trl():
    """What TRL accepts becomes the same messages; what it refuses is refused, but for texts beside parts to fill, and
    markers, which it does not know."""
    theirs = pytest.importorskip("trl.data_utils").prepare_multimodal_messages
    rng, accepted, refused = random.Random(11), 0, 0
    for _ in range(2000):
        messages, images = random_prompt(rng)
        if images and any("<image>" in str(m["content"]) for m in messages):
            continue
        try:
            expected = theirs(messages, images)
        except ValueError:
            texts = any(m["role"] == "user" and isinstance(m["content"], str) for m in messages)
            if not (texts and any({"type": "image"} in list(m["content"]) for m in messages)):
                with pytest.raises(ImageError):
                    normal(messages, images)
                refused += 1
            continue
        prompt, found = normal(messages, images)
        held = [part["image"] for m in expected for part in m["content"] if part["type"] == "image"]
        assert found == held and prompt == (expected if held else messages)
        accepted += bool(images)
    assert accepted > 100 and refused > 100
