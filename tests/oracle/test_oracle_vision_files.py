"""Files of models that see, against transformers: what configs mean in each spelling, names of tensors, folders that
are saved, and prompts with images from there to the last greedy token."""
import json

import numpy as np
import pytest

import grpo
from grpo.model.families import spec_of
from tiny_models import relative_error
from tiny_vision import END, FAMILIES, IMAGE, START, VIDEO, Scene, build_vlm, make_weights, vlm

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from safetensors.numpy import save_file  # noqa: E402

from hf_vision import hf_logits, hf_model, sight_of  # noqa: E402

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::grpo.errors.GrpoWarning")]
CONFIGS = {family: vlm(family, tie=tie) for family, tie in zip(FAMILIES, (True, False, True), strict=True)}
SETS = [[(1, 4, 6), (1, 10, 8)], [(1, 2, 2)], []]
SECTIONS = {"qwen2_vl": [8, 12, 12], "qwen2_5_vl": [8, 12, 12], "qwen3_vl": [24, 20, 20]}
OLD = {"model.language_model.": "model.", "model.visual.": "visual."}


def same(config):
    return json.loads(json.dumps(config))


def of_transformers(config):
    """As transformers writes it."""
    given = same(config)
    return transformers.AutoConfig.for_model(given.pop("model_type"), **given).to_dict()


def old_rope(config, **names):
    """rope_scaling and rope_theta in the place of rope_parameters."""
    made = same(config)
    rope = made["text_config"].pop("rope_parameters")
    made["text_config"] |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": names | {
        key: value for key, value in rope.items() if key != "rope_type"}}
    return made


def flat(config, **names):
    """As the first releases had it: the text's keys at the top, in_chans, a tower that is called as the model."""
    made = old_rope(config, **names)
    text, vision = made.pop("text_config"), made["vision_config"]
    made["vision_config"] = {**vision, "in_chans": vision["in_channels"], "model_type": made["model_type"]}
    return {**text, **made}


def without_ties(config):
    """tie_word_embeddings among the text's keys."""
    made = same(config)
    made["text_config"]["tie_word_embeddings"] = made.pop("tie_word_embeddings")
    return made


SPELLINGS = {"new": same, "transformers'": of_transformers, "rope_scaling": lambda c: old_rope(c, rope_type="default"),
             "type mrope": lambda c: old_rope(c, type="mrope"), "flat": lambda c: flat(c, type="mrope"),
             "flat, both types": lambda c: flat(c, type="default", rope_type="default"),
             "ties of the text": without_ties}
FILES = [(family, spelling, names) for family in FAMILIES for spelling in SPELLINGS for names in ("new", "old")
         if family != "qwen3_vl" or (spelling in ("new", "transformers'", "rope_scaling") and names == "new")]


@pytest.fixture(scope="module")
def scenes():
    """{family: (scene, weights, logits of each of its prompts)}"""
    out = {}
    for family, config in CONFIGS.items():
        scene, hf = Scene(config, SETS), hf_model(config)
        weights = make_weights([(name, tuple(p.shape)) for name, p in hf.named_parameters()])
        with torch.no_grad():
            out[family] = scene, weights, [hf_logits(hf, *each).numpy()
                                           for each in zip(scene.prompts, scene.pixels, scene.sets, strict=True)]
    return out


def write(folder, config, weights, names="new"):
    (folder / "config.json").write_text(json.dumps(config))
    begins = OLD if names == "old" else {}
    save_file({next((old + name.removeprefix(new) for new, old in begins.items() if name.startswith(new)), name): w
               for name, w in weights.items()}, folder / "model.safetensors", {"format": "pt"})


def our_logits(folder, scene, device="ref"):
    core = grpo.load(folder, device).core
    return [core.logits(*each) for each in zip(scene.prompts, scene.seen(core), strict=True)]


def their_logits(folder, scene):
    """Of a folder that transformers must read whole."""
    hf, read = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not any(read.values()), read
    with torch.no_grad():
        return [hf_logits(hf, *each).numpy() for each in zip(scene.prompts, scene.pixels, scene.sets, strict=True)]


def assert_near(got, want, allowed=2e-5):
    for a, b in zip(got, want, strict=True):
        assert relative_error(a, b) < allowed


def assert_equal(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("family", "spelling", "names"), FILES)
def test_spellings(family, spelling, names, scenes, tmp_path):
    """Whatever a file's spelling, the model is the same, and the one that transformers reads."""
    scene, weights, want = scenes[family]
    write(tmp_path, SPELLINGS[spelling](CONFIGS[family]), weights, names)
    assert_near(our_logits(tmp_path, scene), want)
    assert_near(their_logits(tmp_path, scene), want, 1e-6)


def network(spec):
    """What two specs must have in common, arrays as bytes."""
    ropes = [[(rope.inv_freq.tobytes(), rope.axis.tobytes(), rope.scale) for rope in part.ropes]
             for part in (spec, spec.vision)]
    return ropes, spec.layers, spec.eps, spec.tie, {k: v for k, v in vars(spec.vision).items() if k != "ropes"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tower", [{}, {"depth": 5, "num_heads": 32}], ids=["nothing", "something"])
def test_keys_left_out(family, tower):
    """A config of the text's sizes alone means to us what it means to transformers."""
    sizes = {"hidden_size": 512, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 8,
             "num_key_value_heads": 4, "vocab_size": 99, "rope_parameters": {"rope_type": "default", "mrope_section":
                                                                             SECTIONS[family]}}
    out = "hidden_size" if family == "qwen2_vl" else "out_hidden_size"
    if family == "qwen3_vl":
        tower = tower | {"deepstack_visual_indexes": [1, 2, 4]}
    given = {"text_config": sizes, "vision_config": {**tower, out: 512}}
    full = transformers.AutoConfig.for_model(family, **same(given)).to_dict()
    assert network(spec_of({**given, "model_type": family})) == network(spec_of(full))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_saved_folders(family, dtype, scenes, tmp_path):
    """They open here with the same bits and in transformers with the same numbers; weights are bfloat16 ones."""
    scene, weights, want = scenes[family]
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    write(first, CONFIGS[family], weights)
    for device in ("ref", "cpu"):
        model = grpo.load(first, device)
        model.save_pretrained(second, dtype=dtype)
        assert_equal(our_logits(second, scene, device), our_logits(first, scene, device))
        assert_near(their_logits(second, scene), want, 1e-6)
    assert grpo.load(second).processor == model.processor


@pytest.fixture
def processor_of(monkeypatch):
    """AutoProcessor on a folder, without its part for videos, which is for torchvision alone."""
    parts = type(transformers.processing_utils.MODALITY_TO_AUTOPROCESSOR_MAPPING)._MAPPING_NAMES
    monkeypatch.setitem(parts, "video_processor", ("hf_vision", "NoVideos"))
    monkeypatch.setattr(transformers.ProcessorMixin, "check_argument_for_proper_class", lambda *args: None)
    return transformers.AutoProcessor.from_pretrained


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_of_saved_tiny_models(family, processor_of, tmp_path):
    """A chat with images: the ids, pixels and logits that transformers' own processor and model make of it."""
    Image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(3)
    model = grpo.load(grpo.tiny(family), "ref")
    model.save_pretrained(tmp_path)
    processor = processor_of(tmp_path)
    assert type(transformers.AutoImageProcessor.from_pretrained(tmp_path)) is type(processor.image_processor)
    pictures = [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in ((60, 90), (41, 30))]
    chat = [{"role": "user", "content": [{"type": "image", "image": pictures[0]}, {"type": "text", "text": "And "},
                                         {"type": "image", "image": pictures[1]}, {"type": "text", "text": "?"}]}]
    ids, images = model.encode_prompt(chat)
    text = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": [{"type": part["type"], **{k: v for k, v in part.items() if k == "text"}}
                                      for part in chat[0]["content"]]}])
    theirs = processor(text=[text], images=pictures, return_tensors="pt", return_mm_token_type_ids=True)
    assert theirs["input_ids"][0].tolist() == ids.tolist()
    np.testing.assert_array_equal(theirs["image_grid_thw"], [each.grid for each in images])
    core = model.core_images([ids], [images], pixels=True)
    pixels = np.concatenate([each for _, each, _ in core[0][3]])
    np.testing.assert_array_equal(theirs["pixel_values"].numpy(), pixels)
    hf = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32,
                                                                  attn_implementation="eager")
    with torch.no_grad():
        want = hf(**theirs).logits[0].numpy()
    assert relative_error(model.core.logits(ids, model.core_images([ids], [images])[0]), want) < 2e-5


@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.3}], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_generation(family, options, scenes):
    """Token for token transformers' generate, until its end token."""
    scene, *_ = scenes[family]
    hf, model = hf_model(CONFIGS[family]), build_vlm(CONFIGS[family], "ref")
    never, stop_ids = [IMAGE, VIDEO, START, END], np.random.default_rng(3).permutation(IMAGE)[:9].astype(np.int32)
    out = model.generate(scene.prompts, 1, 40, images=scene.seen(model), temperature=0.0, stop_ids=stop_ids,
                         forbidden_ids=np.array(never, np.int32), **options)
    completions = np.split(out["tokens"], np.cumsum(out["lengths"])[:-1])
    for prompt, pixels, grids, completion in zip(scene.prompts, scene.pixels, scene.sets, completions, strict=True):
        ids = torch.tensor(prompt[None].astype(np.int64))
        hf.model.rope_deltas = None
        want = hf.generate(input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=(ids == IMAGE).int(),
                           max_new_tokens=40, do_sample=False, eos_token_id=stop_ids.tolist(), suppress_tokens=never,
                           pad_token_id=int(stop_ids[0]), **sight_of(pixels, grids), **options)
        assert completion.tolist() == want[0, len(prompt):].tolist()
