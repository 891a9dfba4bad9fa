"""Images as arguments: what the core and the calls above it say to those that cannot be, naming them; nothing is kept
of them and nothing breaks."""
import gc
import sys

import numpy as np
import pytest

import grpo
from grpo import ConfigError, ImageError, _core
from tiny_vision import Scene, build_vlm, vlm

SETS = [[(1, 4, 4)], [], [(1, 2, 4), (1, 4, 4)]]
CONFIG = vlm("qwen3_vl", heads=(2, 1), tower={"depth": 2, "deepstack_visual_indexes": [0]})
SCENE = Scene(CONFIG, SETS)
COLUMNS = 3 * 2 * 4 * 4
TOKENS = {"completions": [np.int32([1, 2]), np.int32([3]), np.int32([4, 5, 6])], "group": np.int32([0, 1, 2])}
COEF = np.ones(6, np.float32)
LOSS = {"old_logps": -COEF, "advantages": np.float32([1, -1, 1]), "mask": np.ones(6, np.uint8), "ref_logps": None,
        "loss": {}, "normalizer": {"tokens": 6.0, "sequences": 3.0}}


def updates(model, part):
    """Calls of a trainer; what they add is dropped."""
    trainer = _core.Trainer(model, train_vision=part)

    def call(function, **options):
        def run(images):
            made = function(SCENE.prompts, **TOKENS, **options, images=images)
            trainer.zero_grad()
            return made
        return run

    return {"accumulate": call(trainer.accumulate, coef=COEF), "accumulate_loss": call(trainer.accumulate_loss, **LOSS),
            "logprob_grads": call(model.logprob_grads, coef=COEF, train_vision=part)}


def frozen_calls(model):
    """Calls of a tower that stands still, which take features."""
    return {
        "generate": lambda images: model.generate(SCENE.prompts, 2, 3, images=images),
        "logprobs": lambda images: model.logprobs(SCENE.prompts, **TOKENS, images=images),
        **updates(model, "none"),
    }


def trained_calls(model):
    """Calls of a trained one, which take pixels."""
    return updates(model, "all")


def prompt(i, **parts):
    """Images with other parts of prompt i: positions, after, tokens, pictures."""
    def change(images):
        entry = dict(zip(("positions", "after", "tokens", "pictures"), images[i], strict=True))
        entry |= {key: part(entry[key]) for key, part in parts.items()}
        return [*images[:i], tuple(entry.values()), *images[i + 1:]]
    return change


def picture(k, **parts):
    """Images with other parts of image k of prompt 2: grid, pixels, features."""
    def of(pictures):
        entry = dict(zip(("grid", "pixels", "features"), pictures[k], strict=True))
        entry |= {key: part(entry[key]) for key, part in parts.items()}
        return [*pictures[:k], tuple(entry.values()), *pictures[k + 1:]]
    return prompt(2, pictures=of)


def entry(value):
    return lambda images: [*images[:2], value]


def put(at, value):
    def change(array):
        array = array.copy()
        array[at] = value
        return array
    return change


def grid(*sides):
    return lambda old: np.array(sides, np.int64)


SHAPES = {
    "a number": (lambda images: 3, ValueError, "images must be a list of 3 entries, one a prompt"),
    "a tuple": (tuple, ValueError, "images must be a list of 3 entries"),
    "too few": (lambda images: images[:2], ValueError, "images must be a list of 3 entries"),
    "too many": (lambda images: [*images, None], ValueError, "images must be a list of 3 entries"),
    **{f"an entry that is {value!r:.20}": (entry(value), TypeError, "images of prompt 2 must be None or (positions")
       for value in (3, "text", [], (), (None,) * 3, (None,) * 4)},
    "pictures in a tuple": (prompt(2, pictures=tuple), TypeError, "images of prompt 2 must be"),
    "tokens in a list": (prompt(2, tokens=list), TypeError, "images of prompt 2 must be"),
    "tokens of int64": (prompt(2, tokens=np.int64), TypeError, "tokens of prompt 2"),
    "tokens in a table": (prompt(2, tokens=lambda t: t[None]), ValueError, "tokens of prompt 2"),
    "tokens with gaps": (prompt(2, tokens=lambda t: np.repeat(t, 2)[::2]), ValueError, "tokens of prompt 2"),
    "positions of nothing": (prompt(2, positions=lambda p: None), TypeError, "positions of prompt 2"),
    "positions of int64": (prompt(2, positions=np.int64), TypeError, "positions of prompt 2"),
    "one axis": (prompt(2, positions=lambda p: p[0]), ValueError, "positions of prompt 2"),
    "two axes": (prompt(2, positions=lambda p: p[:2]), ValueError, "positions of prompt 2 has 2 at dimension 0"),
    "positions of too many": (prompt(2, positions=lambda p: np.concatenate([p, p], 1)), ValueError,
                              "positions of prompt 2 has"),
    "no next": (prompt(2, after=lambda n: None), TypeError, "images of prompt 2: the position after it"),
    "half a next": (prompt(2, after=lambda n: 1.5), TypeError, "images of prompt 2: the position after it"),
    **{f"after {n}": (prompt(2, after=lambda old, n=n: n), ConfigError, "prompt 2: position -1 after it")
       for n in (-1, -2**70, 2**31, 2**70)},
    "far after": (prompt(2, after=lambda old: 2**31 - 1), ConfigError, "prompt 2: position 2147483647 after it"),
    "a position below 0": (prompt(2, positions=put((1, 3), -1)), ConfigError, "prompt 2: position -1 of token 3"),
    "a position too far": (prompt(0, positions=put((2, 0), 2**31 - 1)), ConfigError,
                           "prompt 0: position 2147483647 of token 0"),
    "too few tokens": (prompt(2, tokens=lambda t: t[1:].copy()), ConfigError,
                       "prompt 2 has 5 tokens for images, and its 2 images have 6"),
    "no tokens": (prompt(0, tokens=lambda t: t[:0].copy()), ConfigError, "prompt 0 has 0 tokens for images"),
    "no pictures": (prompt(0, pictures=lambda p: []), ConfigError, "and its 0 images have 0"),
    "a picture less": (prompt(2, pictures=lambda p: p[:1]), ConfigError, "and its 1 images have 2"),
    "tokens that turn back": (prompt(2, tokens=lambda t: t[::-1].copy()), ConfigError, "prompt 2: token"),
    "a token twice": (prompt(2, tokens=lambda t: put(1, t[0])(t)), ConfigError, "prompt 2: token"),
    "a token below 0": (prompt(2, tokens=put(0, -1)), ConfigError, "prompt 2: token -1 cannot be an image's"),
    "a token beyond the prompt": (prompt(2, tokens=put(5, len(SCENE.prompts[2]))), ConfigError,
                                  f"prompt 2: token {len(SCENE.prompts[2])} cannot"),
    "a picture of nothing": (prompt(2, pictures=lambda p: [None, p[1]]), TypeError,
                             "image 0 of prompt 2 must be (grid"),
    "a pair": (prompt(2, pictures=lambda p: [p[0], p[1][:2]]), TypeError, "image 1 of prompt 2 must be (grid"),
    "a grid of int32": (picture(1, grid=np.int32), TypeError, "image 1 of prompt 2"),
    "a grid of two": (picture(1, grid=lambda g: g[1:].copy()), ValueError, "image 1 of prompt 2 has 2 at dimension 0"),
    "a grid in a list": (picture(1, grid=list), TypeError, "image 1 of prompt 2"),
    **{f"a grid of {sides}": (picture(1, grid=grid(*sides)), ValueError, "image 1 of prompt 2: a grid of")
       for sides in ((0, 4, 4), (1, -4, 4), (1, 4, 3), (1, 5, 4), (1, 2**40, 2), (-1, -4, 4))},
    "a grid of too much": (picture(1, grid=grid(2**19, 2**19, 2**19)), ValueError, "image 1 of prompt 2: more than"),
    "pixels of float64": (picture(0, pixels=np.float64), TypeError, "image 0 of prompt 2"),
    "a patch less": (picture(0, pixels=lambda p: p[:-1].copy()), ValueError,
                     "image 0 of prompt 2 has 7 at dimension 0, must have 8"),
    "a column more": (picture(0, pixels=lambda p: np.pad(p, [(0, 0), (0, 1)])), ValueError,
                      f"image 0 of prompt 2 has {COLUMNS + 1} at dimension 1, must have {COLUMNS}"),
    "pixels in a row": (picture(0, pixels=np.ravel), ValueError, "image 0 of prompt 2"),
    "pixels from back to front": (picture(0, pixels=lambda p: p[::-1]), ValueError, "image 0 of prompt 2"),
    "another grid": (picture(1, grid=grid(1, 4, 6)), ValueError, "image 1 of prompt 2 has 16 at dimension 0"),
}
OF_FEATURES = {
    "features of another number": (picture(1, features=lambda f: f.astype(np.float64)), TypeError,
                                   "image 1 of prompt 2"),
    "features of one level": (picture(1, features=lambda f: f[:1].copy()), ValueError,
                              "image 1 of prompt 2 has 1 at dimension 0, must have 2"),
    "features of another image": (picture(1, features=lambda f: f[:, :2].copy()), ValueError,
                                  "image 1 of prompt 2 has 2 at dimension 1, must have 4"),
    "features of another model": (picture(1, features=lambda f: np.tile(f, 2)), ValueError,
                                  "image 1 of prompt 2 has 64 at dimension 2, must have 32"),
    "no features": (picture(1, features=lambda f: None), ConfigError, "image 1 of prompt 2 has no features"),
}
OF_PIXELS = {"no pixels": (picture(1, pixels=lambda p: None), ConfigError, "image 1 of prompt 2 has no pixels")}


def references(images):
    """Of the arrays of an argument, and of what holds them."""
    found = []

    def count(value):
        if isinstance(value, (list, tuple)):
            for each in value:
                count(each)
        if isinstance(value, (list, np.ndarray)):
            found.append(sys.getrefcount(value))

    count(images)
    return found


def check_refused(call, images, bad, exception, message):
    counts = references(images), references(bad)
    for _ in range(3):
        with pytest.raises(exception) as caught:
            call(bad)
        assert message in str(caught.value)
        caught = None
    after = references(images), references(bad)
    assert all(np.less_equal(now, before).all() for now, before in zip(after, counts, strict=True))


@pytest.fixture(scope="module", params=["ref", "cpu"])
def model(request):
    return build_vlm(CONFIG, request.param)


@pytest.mark.parametrize("case", SHAPES | OF_FEATURES)
def test_a_tower_that_stands_still(model, case):
    change, exception, message = (SHAPES | OF_FEATURES)[case]
    images = SCENE.seen(model)
    for name, call in frozen_calls(model).items():
        check_refused(call, images, change(images), exception, message)
        assert call(images), name


@pytest.mark.parametrize("case", SHAPES | OF_PIXELS)
def test_a_trained_tower(model, case):
    change, exception, message = (SHAPES | OF_PIXELS)[case]
    for name, call in trained_calls(model).items():
        check_refused(call, SCENE.images, change(SCENE.images), exception, message)
        assert call(SCENE.images), name


@pytest.mark.parametrize("change, exception, message", [
    (lambda images: images[2], TypeError, "argument 1 must be list"),
    (lambda images: [3], TypeError, "image 0 must be (grid"),
    (lambda images: [*images[:2], (images[0][0], None, None)], ValueError, "image 2 has no pixels"),
    (lambda images: [(np.array([1, 4, 3]), *images[0][1:])], ValueError, "image 0: a grid of 1 x 4 x 3"),
    (lambda images: [images[0], (images[1][0], images[0][1], None)], ValueError, "image 1 has 16 at dimension 0"),
], ids=range(5))
def test_see(model, change, exception, message):
    images = SCENE.pictures()
    check_refused(model.see, images, change(images), exception, message)
    assert len(model.see(images)) == 3 and model.see([]) == []


@pytest.mark.parametrize("budget", [0, -1])
def test_patch_budgets(model, budget):
    with pytest.raises(ConfigError, match=f"patch_budget is {budget}"):
        model.see(SCENE.pictures(), patch_budget=budget)


@pytest.mark.parametrize("case", ["tokens of int64", "one axis", "half a next", "a picture less", "a grid of two",
                                  "a patch less", "a token twice", "no features"])
def test_logits_of_one_prompt(model, case):
    change, exception, message = (SHAPES | OF_FEATURES)[case]
    images = SCENE.seen(model)
    check_refused(lambda each: model.logits(SCENE.prompts[2], each[2]), images, change(images), exception,
                  message.replace("prompt 2", "prompt 0"))
    assert np.isfinite(model.logits(SCENE.prompts[2], images[2])).all()


def test_calls_leave_nothing_behind(model):
    """Good ones and bad ones."""
    images, calls = SCENE.seen(model), [*frozen_calls(model).values(), *trained_calls(model).values()]
    bad = [change(images) for change, *_ in SHAPES.values()]

    def state():
        gc.collect()
        return _core.memory_in_use(), references(images), sys.getallocatedblocks()

    def repeat():
        for call in calls:
            call(images)
            for each in bad[::3]:
                with pytest.raises((TypeError, ValueError)):
                    call(each)
        model.see(SCENE.pictures())

    for _ in range(2):
        repeat()
    memory, counts, blocks = state()
    for _ in range(8):
        repeat()
    after = state()
    assert after[:2] == (memory, counts) and after[2] - blocks < 200


def test_a_text_has_no_images():
    """A model without a tower, in the core and above."""
    model = grpo.load(grpo.tiny("qwen2", num_hidden_layers=1), "ref")
    picture, entry = np.zeros((8, 8, 3), np.uint8), SCENE.images[0]
    with pytest.raises(ValueError, match="image 0 of prompt 0: this model has no vision tower"):
        model.core.logprobs([np.arange(7, dtype=np.int32)], [np.int32([1])], np.zeros(1, np.int32), images=[
            (np.arange(7, dtype=np.int32)[None], 7, *entry[2:])])
    with pytest.raises(ConfigError, match="train_vision is 'all', and this model has no vision tower"):
        _core.Trainer(model.core, train_vision="all")
    chat = [{"role": "user", "content": [{"type": "image", "image": picture}]}]
    for call in (lambda: model.generate(chat), lambda: model.generate("a", images=[picture]),
                 lambda: model.logprobs([1], [[2]], images=[picture]), lambda: model.encode_prompt("a", [picture]),
                 lambda: model.logprob_grads([1], [[2]], [[1.0]], images=[picture])):
        with pytest.raises(ImageError, match="this model .* sees no images: it has no vision tower"):
            call()
    with pytest.raises(ConfigError, match="no vision tower"):
        model.logprob_grads([1], [[2]], [[1.0]], train_vision="all")


@pytest.fixture(scope="module")
def tiny():
    """A model, ids of a prompt and its one image of 6 tokens."""
    model = grpo.load(grpo.tiny("qwen2_5_vl", num_hidden_layers=1, vision_config={"depth": 1}), "ref")
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": "What?"}]
    return model, model.encode_prompt([{"role": "user", "content": parts}]).ids.tolist(), picture


IDS = {
    "ids without their images": (lambda m, ids, picture: m.logprobs(ids, [[3]]), "prompt 0 has 6 image tokens"),
    "sampling without them": (lambda m, ids, picture: m.generate([ids]), "prompt 0: .*6 image placeholders"),
    "one more image": (lambda m, ids, picture: m.logprobs(ids, [[3]], images=[picture] * 2), "2 images have 12: 6, 6"),
    "a token too many": (lambda m, ids, picture: m.logprobs([*ids, m.sight.image_token_id], [[3]], images=[picture]),
                         "prompt 0 has 7 image tokens .*, and its 1 images have 6"),
    "a run in two": (lambda m, ids, picture: m.logprobs([*ids[:8], 5, *ids[8:]], [[3]], images=[picture]),
                     "prompt 0: image 0 has 6 tokens, and the run of image tokens in its place is shorter"),
    "gradients": (lambda m, ids, picture: m.logprob_grads([ids, [1]], [[3], [4]], [[1.0], [1.0]], images=[[], []]),
                  "prompt 0 has 6 image tokens"),
    "a completion with an image": (lambda m, ids, picture: m.logprobs(ids, [[3], [m.sight.image_token_id]],
                                                                      images=[picture]),
                                   "completion 1 holds token 261"),
    "a completion with a video": (lambda m, ids, picture: m.logprobs([1], [[m.sight.tokens["video_token_id"]]]),
                                  "completion 0 holds token 262"),
    "a video": (lambda m, ids, picture: m.logprobs([m.sight.tokens["video_token_id"]], [[3]]), "video placeholders"),
    "images of fewer prompts": (lambda m, ids, picture: m.generate([ids, ids], images=[[picture]]),
                                "images of 1 prompts for 2 prompts"),
    "no image": (lambda m, ids, picture: m.generate([ids], images=[[3]]), "prompt 0: .*image 0: int is no image"),
}


@pytest.mark.parametrize("case", IDS)
def test_ids_and_images_that_differ(tiny, case):
    model, ids, picture = tiny
    call, message = IDS[case]
    with pytest.raises(ImageError, match=message):
        call(model, ids, picture)
    assert len(model.logprobs(ids, [[3]], images=[picture])) == 1


def test_a_part_of_a_tower_that_there_is_not(tiny):
    model, ids, picture = tiny
    with pytest.raises(ValueError, match="train_vision is 'some', must be 'none', 'merger' or 'all'"):
        model.logprob_grads(ids, [[3]], [[1.0]], images=[picture], train_vision="some")


def test_ids_outside_the_vocabulary(tiny):
    with pytest.raises(ConfigError, match=r"token id 9999 is outside the vocabulary \(0 to 262\)"):
        tiny[0].logprobs([5, 9999], [[3]])
