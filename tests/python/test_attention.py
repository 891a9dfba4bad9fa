"""What an answer looks at: from the weights of attention to maps, words, pictures and the command's lines."""
import io
import re

import numpy as np
import pytest

import grpo
from grpo import cli
from grpo.errors import ConfigError, ImageError
from grpo.evaluation.attention import attend, cells_of, layers_of
from grpo.evaluation.attention_picture import (
    WIDTH,
    animation_bytes,
    columns_of,
    heat,
    overlay,
    picture_bytes,
    scale_of,
    strip,
    visible,
)

Image = pytest.importorskip("PIL.Image")

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen")
ANSWER = "A red door, \nand 中文 é."


def drawn(height=90, width=140, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def models():
    return {arch: grpo.load(grpo.tiny(arch, num_hidden_layers=2), device="cpu") for arch in FAMILIES}


@pytest.fixture(scope="module")
def model(models):
    return models["qwen2_5_vl"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    path = tmp_path_factory.mktemp("models") / "sees"
    model.save_pretrained(path)
    return path


def prompted(model, *images, words="What is this?"):
    return model.encode_prompt([{"role": "user", "content": words}], list(images))


# -- Model.attention --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["qwen2", "qwen3", "llama", "mistral", "gemma3", *FAMILIES])
def test_weights(arch):
    sizes = {"sliding_window": 7} if arch in ("mistral", "gemma3") else {}
    model = grpo.load(grpo.tiny(arch, num_hidden_layers=2, **sizes), device="ref")
    prompt = prompted(model, drawn()) if arch in FAMILIES else model.encode_prompt("What is this?")
    whole = model.attention(prompt.ids, [65, 66, 67], images=[prompt.images] if prompt.images else None)
    keys = len(prompt.ids) + 2
    assert whole.shape == (2, 3, model.text_config["num_attention_heads"], keys) and whole.dtype == np.float32
    np.testing.assert_allclose(whole.sum(-1), 1, atol=1e-5)
    assert not whole[:, 0, :, -2:].any() and whole[:, 2, :, -1].all()
    some = model.attention(prompt.ids, [65, 66, 67], [2, 0, -1], [-1], [prompt.images] if prompt.images else None)
    assert (some == whole[1:, [2, 0, 2]]).all()


@pytest.mark.parametrize("changed, message", [
    ({"tokens": [3]}, "token 3 is not there: the completion has tokens 0 to 2"), ({"tokens": [-4]}, "token -4"),
    ({"tokens": ["1"]}, "token '1'"), ({"layers": [2]}, "layer 2 is not there: the model has layers 0 to 1"),
    ({"layers": [True]}, "layer True"), ({"completion_ids": []}, "the completion has no tokens"),
    ({"prompt_ids": []}, "0 prompts for 1 completion"),
    ({"prompt_ids": [[1, 2], [3]]}, "2 prompts for 1 completion"),
    ({"completion_ids": [9999]}, "9999"),
])
def test_wrong_arguments_are_named(model, changed, message):
    with pytest.raises(ConfigError, match=message):
        model.attention(**{"prompt_ids": [1, 2], "completion_ids": [3, 4, 5], **changed})


def test_nothing_is_nothing(model):
    assert model.attention([1, 2], [3, 4], tokens=[]).shape == (2, 0, 3, 3)


# -- from weights to words and maps -----------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", FAMILIES)
def test_maps_are_the_weights_of_the_images_tokens(models, arch):
    model = models[arch]
    prompt = prompted(model, drawn(), drawn(60, 200, 1))
    answer = model.tokenizer.encode("yes no")
    found = attend(model, prompt, answer, "1,4", "0", "1")
    weights = model.attention(prompt.ids, answer, [1, 4], [0], [prompt.images])[0, :, 1]
    places = model.sight.places(prompt.ids, prompt.images)
    for gaze, want in zip(found.gazes, weights, strict=True):
        assert (gaze.keys == want).all()
        assert [each.shape for each in gaze.maps] == [cells_of(picture) for picture in prompt.images]
        assert (np.concatenate([each.reshape(-1) for each in gaze.maps]) == want[places]).all()
        shares = found.shares(gaze)
        assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
        assert shares["image"] == pytest.approx(want[places].sum(), abs=1e-5)
    assert [gaze.text for gaze in found.gazes] == ["e", "n"] and found.what.startswith("layer 0 of 2, head 1 of")
    assert [picture.shape for picture in found.pictures] == [(90, 140, 3), (60, 200, 3)]


def test_cells_are_the_merged_grid(model, models):
    prompt = prompted(model, drawn(280, 140))
    assert cells_of(prompt.images[0]) == (10, 5) and prompt.images[0].tokens == 50
    assert cells_of(prompted(models["qwen"], drawn(280, 140)).images[0]) == (16, 16)


def test_words(model):
    prompt = prompted(model, drawn())
    answer = [*model.tokenizer.encode(ANSWER), 258]
    found = attend(model, prompt, answer)
    words = [(word.text, word.line) for word in found.words if word.answer]
    assert words == [("A", False), ("red", False), ("door,", False), ("and", True), ("中", False),
                     ("文", False), ("é.", False)]
    assert [word.text for word in found.words if not word.answer] == ["What", "is", "this?"]
    assert [gaze.text for gaze in found.gazes] == [word for word, _ in words]
    spoken = bytes(b for gaze in found.gazes for token in gaze.tokens for b in bytes([answer[token]]))
    assert spoken.decode() == ANSWER                                 # every token but the end's, in order
    first = len(prompt.ids)
    for gaze, word in zip(found.gazes, (word for word in found.words if word.answer), strict=True):
        assert word.tokens == tuple(first + token for token in gaze.tokens)
        weights = model.attention(prompt.ids, answer, gaze.tokens, [1], [prompt.images])
        np.testing.assert_allclose(gaze.keys, weights.mean((0, 1, 2)), atol=1e-6)


def test_a_token_of_several_lines_is_one_word():
    """Text with a line break in it cannot be measured by Pillow."""
    model = grpo.load(grpo.tiny("qwen2_5_vl", num_hidden_layers=1, tokens=["</think>\n<answer>"]), device="cpu")
    found = attend(model, prompted(model, drawn()), model.tokenizer.encode("7</think>\n<answer>7"), "all")
    assert [word.text for word in found.words if word.answer] == ["7</think> <answer>7"]
    assert [visible(gaze.text) for gaze in found.gazes] == ["7", "</think> <answer>", "7"]
    assert strip(found).width == 3 * (WIDTH + 1) - 1


def test_words_of_the_answer_see_those_before_them(model):
    prompt = prompted(model, drawn())
    found = attend(model, prompt, model.tokenizer.encode("one two three"))
    shares = np.array([gaze.of(found.words) for gaze in found.gazes])
    own = np.array([word.answer for word in found.words])
    assert (shares[:, ~own] > 0).all()
    assert (shares[:, own][np.tri(3, k=-1, dtype=bool)] > 0).all()
    assert not shares[:, own][~np.tri(3, dtype=bool)].any()


@pytest.mark.parametrize("tokens, expected", [("all", [0, 1, 2, 3]), ("2", [2]), ("3,0-1", [3, 0, 1]), ("1, 1", [1])])
def test_tokens_by_number(model, tokens, expected):
    found = attend(model, prompted(model, drawn()), [65, 258, 32, 66], tokens)
    assert [gaze.tokens for gaze in found.gazes] == [(number,) for number in expected]


def test_mean_of_layers_in_parts(model, monkeypatch):
    prompt, answer = prompted(model, drawn()), [65, 66]
    whole = attend(model, prompt, answer, "all", "mean")
    monkeypatch.setattr("grpo.evaluation.attention.MOST_BYTES", 1)
    parts = attend(model, prompt, answer, "all", "mean")
    assert whole.what == "mean of 2 layers, mean of 3 heads"
    for a, b in zip(whole.gazes, parts.gazes, strict=True):
        np.testing.assert_allclose(a.keys, b.keys, atol=1e-6)
        np.testing.assert_allclose(a.keys.sum(), 1, atol=1e-3)


@pytest.mark.parametrize("layer, layers, what", [("", [18], "layer 18 of 28"), ("last", [27], "layer 27 of 28"),
                                                 ("0", [0], "layer 0 of 28"), ("mean", [*range(28)], "mean of 28")])
def test_layers(layer, layers, what):
    assert layers_of(layer, 28)[0] == layers and layers_of(layer, 28)[1].startswith(what)


@pytest.mark.parametrize("changed, message", [
    ({"tokens": "4"}, "token 4 is not there: there are 4, 0 to 3"), ({"tokens": "x"}, "must be 'words', 'all'"),
    ({"tokens": "2-1"}, "ends before it begins"), ({"tokens": ""}, "must be"), ({"tokens": "-1"}, "must be"),
    ({"layer": "2"}, "layer 2 is not there: there are 2, 0 to 1"), ({"layer": "first"}, "layer 'first' must be"),
    ({"layer": "-1"}, "must be"), ({"head": "3"}, "head 3 is not there"), ({"head": "all"}, "head 'all' must be"),
    ({"answer": []}, "the answer is empty"), ({"answer": [258]}, "no words"), ({"answer": [32, 10]}, "no words"),
])
def test_wrong_choices_are_named(model, changed, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        attend(model, prompted(model, drawn()), **{"answer": [65, 66, 67, 68], **changed})


def test_something_must_be_seen(model):
    with pytest.raises(ImageError, match="the prompt has no image"):
        attend(model, prompted(model), [65])
    text = grpo.load(grpo.tiny(num_hidden_layers=1), device="cpu")
    with pytest.raises(ImageError, match="it has no vision tower"):
        attend(text, text.encode_prompt("What?"), [65])
    with pytest.raises(ImageError, match="completion 0 holds token"):
        attend(model, prompted(model, drawn()), [model.sight.image_token_id], "all")


# -- drawing ----------------------------------------------------------------------------------------------------------


def test_colours_stand_where_the_attention_is():
    cells = np.zeros((4, 8), np.float32)
    cells[1, 6] = 1
    shown = np.asarray(overlay(np.full((40, 80, 3), 128, np.uint8), cells, (160, 80)), np.int32)
    redness = shown[..., 0] - shown[..., 2]
    row, column = np.unravel_index(redness.argmax(), redness.shape)
    assert 15 <= row <= 45 and 112 <= column <= 148                  # cell (1, 6) is rows 20-40, columns 120-140
    assert np.ptp(shown[60:, :80]) == 0 and not redness[60:, :80].any()           # elsewhere: the grey picture
    assert (heat(np.array([0, 1], np.float32)) == [[255, 245, 200], [120, 0, 40]]).all()


def test_what_is_darkest():
    even, most = scale_of([np.full((2, 3), 0.1, np.float32)])
    assert even == pytest.approx(0.1) and most == pytest.approx(0.3)             # an even map stays pale
    assert scale_of([np.zeros((2, 2), np.float32)])[1] > 0
    assert [visible(text) for text in (" a ", "\n", " ", "")] == ["a", "⏎", "␣", "∅"]


@pytest.mark.parametrize("sizes", [[(90, 140)], [(300, 20)], [(20, 900), (90, 140)], [(60, 60)] * 7], ids=str)
def test_pictures(model, sizes):
    found = attend(model, prompted(model, *(drawn(*size, k) for k, size in enumerate(sizes)), words="Say " * 40),
                   model.tokenizer.encode("a bb ccc dddd eeeee " * 12), "0-4,30,200")
    image = strip(found)
    assert image.width == 4 * (WIDTH + 1) - 1 and columns_of(7) == 4
    assert Image.open(io.BytesIO(picture_bytes(found))).size == image.size
    frames = [image.crop((k % 4 * (WIDTH + 1), 44 + k // 4 * ((image.height - 44) // 2), k % 4 * (WIDTH + 1) + WIDTH,
                          44 + k // 4 * ((image.height - 44) // 2) + 40)) for k in range(7)]
    assert len({frame.tobytes() for frame in frames}) == 7                       # each has a title of its own


@pytest.mark.parametrize("suffix, form", [(".gif", "GIF"), (".webp", "WEBP")])
def test_animations(model, suffix, form):
    found = attend(model, prompted(model, drawn()), [65, 66, 67], "all")
    animation = Image.open(io.BytesIO(animation_bytes(found, suffix)))
    assert animation.format == form and animation.n_frames == 3 and animation.size[0] == WIDTH
    assert animation.info.get("loop") == 0


def test_an_animation_of_one_frame(model):
    found = attend(model, prompted(model, drawn()), [65], "all")
    assert Image.open(io.BytesIO(animation_bytes(found, ".gif"))).size[0] == WIDTH


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(drawn()).save(path)
    return str(path)


def run(*words):
    return cli.main(["attention", *map(str, words)])


def test_command(folder, png, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("--model", folder, "--image", png, "What is this?", "--answer", "A red door.", "--animate",
               "b.webp") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "A red door." and lines[2].split()[:5] == ["tokens", "word", "image", "prompt", "answer"]
    assert [line.split()[:2] for line in lines[3:6]] == [["0", "A"], ["1-4", "red"], ["5-10", "door."]]
    assert lines[7:] == ["attention.png: 3 frames, layer 1 of 2, mean of 3 heads", "b.webp"] and not err
    assert max(map(len, lines)) <= 80
    assert {path.name for path in tmp_path.iterdir()} >= {"attention.png", "b.webp"}


def test_command_asks_the_model(folder, png, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("grpo.cli.attention.MOST_FRAMES", 2)
    again = ["--model", folder, "--image", png, "--image", png, "<image>or<image>?", "--max_new_tokens", 5, "--tokens",
             "all", "--layer", "mean", "--head", 1, "--output", tmp_path / "x.png"]
    assert run(*again) == 0
    out, err = capsys.readouterr()
    assert "5 frames are asked for, the first 2 are drawn" in err
    assert out.splitlines()[-1] == f"{tmp_path / 'x.png'}: 2 frames, mean of 2 layers, head 1 of 3"
    assert "image 1" in out or "image 2" in out
    drawn_once = (tmp_path / "x.png").read_bytes()
    assert run(*again) == 0 and (tmp_path / "x.png").read_bytes() == drawn_once


@pytest.mark.parametrize("words, message", [
    ([""], "there is no prompt"), (["hello"], "there is no image to look at: give --image FILE"),
    (["hello", "--image", "nowhere.png"], "nowhere.png"), (["hello", "--image", "A", "--output", "a.jpg"], ".png file"),
    (["hello", "--image", "A", "--animate", "a.mp4"], "a.mp4: an animation is a .gif or a .webp file"),
    (["hello", "--image", "A", "--answer", "x", "--layer", "9"], "layer 9 is not there"),
    (["hello", "--image", "A", "--answer", "x", "--tokens", "7"], "token 7 is not there"),
    (["hello", "--image", "A", "--answer", ""], "the answer is empty"),
])
def test_command_refuses(folder, png, words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("--model", folder, *[png if word == "A" else word for word in words]) == 1
    out, err = capsys.readouterr()
    assert message in err and err.startswith("grpo: ") and not (tmp_path / "attention.png").exists()


def test_command_of_a_model_that_sees_nothing(png, tmp_path, capsys):
    grpo.load(grpo.tiny(num_hidden_layers=1), device="cpu").save_pretrained(tmp_path / "text")
    assert run("--model", tmp_path / "text", "--image", png, "hello") == 1
    assert "it has no vision tower" in capsys.readouterr().err
