"""The flowers: official files from a server that fails in every way, known pictures, rewards to the published vectors,
recipes and the flags that the documents name, the baseline."""
import contextlib
import hashlib
import http.server
import io
import struct
import tarfile
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

import grpo
from grpo import ConfigError, DatasetError, cli, datasets
from grpo.cli.options import recipe_of, recipe_parser
from grpo.datasets import flowers, matlab
from grpo.datasets.download import RemoteFile, fetch
from grpo.errors import FileFormatError, GrpoWarning, ImageError
from grpo.evaluation import nearest_class_mean
from grpo.recipes import Recipe
from grpo.rewards import resolve
from grpo.rewards.flowers import class_name_reward, reasoning_quality_reward

COUNT = 8189                                 # pictures of the official set


# files as they are published
# ---------------------------------------------------------------------------------------------------------------------


def element(kind, content, order="<"):
    return struct.pack(order + "II", kind, len(content)) + content + bytes(-len(content) % 8)


def mat_matrix(name, values, order="<", stored=None, kind=None, flags=0):
    """A matrix's element; numbers as uint8 unless stored says otherwise."""
    values = np.asarray(values)
    stored = stored or ("u1", 2)
    parts = [element(6, struct.pack(order + "II", (kind or 9) | flags, 0), order),
             element(5, np.array(values.shape, order + "i4").tobytes(), order),
             struct.pack(order + "I", len(name) << 16 | 1) + name.encode().ljust(4, b"\0") if len(name) <= 4
             else element(1, name.encode(), order),
             element(stored[1], values.astype(order + stored[0]).tobytes(order="F"), order)]
    return element(14, b"".join(parts), order)


def mat_file(*matrices, order="<", packed=True):
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(order + "H", 0x0100) + (b"IM" if order == "<" else b"MI")
    for each in matrices:
        squeezed = zlib.compress(each)
        head += struct.pack(order + "II", 15, len(squeezed)) + squeezed if packed else each
    return head


@pytest.fixture(scope="module")
def published():
    """{name: bytes} of the three files: all labels, three pictures a species, one in each split."""
    labels = np.arange(COUNT) % 102 + 1
    for number, name in flowers.KNOWN.items():
        labels[number - 1] = flowers.CLASSES.index(name) + 1
    splits = [[int(np.flatnonzero(labels == label)[i]) + 1 for label in range(1, 103)] for i in range(3)]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        rng = np.random.default_rng(0)
        for number in sorted(sum(splits, [])):
            image = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).save(image, "JPEG")
            for name in (f"jpg/image_{number:05d}.jpg", f"../jpg/image_{number:05d}.jpg"):
                member = tarfile.TarInfo(name)
                member.size = len(image.getvalue())
                tar.addfile(member, io.BytesIO(image.getvalue()))
    names = ("trnid", "valid", "tstid")
    return {"102flowers.tgz": archive.getvalue(), "imagelabels.mat": mat_file(mat_matrix("labels", labels[None])),
            "setid.mat": mat_file(*(mat_matrix(name, [ids], stored=("u2", 4), kind=6)
                                    for name, ids in zip(names, splits, strict=True)))}


class Server:
    """A web server of files. plan: how answers go wrong, one after another: "cut" in the middle, "whole" whatever is
    asked for, "broken" bytes, "404"; then as they should."""

    def __init__(self, files):
        self.files, self.plan, self.asked = dict(files), [], []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request):
        how, asked = self.plan.pop(0) if self.plan else "", request.headers.get("Range")
        self.asked.append((request.path[1:], asked, how))
        data = self.files.get(request.path[1:])
        if data is None or how == "404":
            return request.send_error(404)
        begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and how != "whole" else 0
        if begin >= len(data) and begin:
            return request.send_error(416)
        request.send_response(206 if asked and how != "whole" else 200)
        if asked and how != "whole":
            request.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        request.send_header("Content-Length", str(len(data) - begin))
        request.end_headers()
        data = bytes(len(data) - begin) if how == "broken" else data[begin:]
        request.wfile.write(data[:len(data) // 2] if how == "cut" else data)
        return None


@pytest.fixture
def server(published, monkeypatch, tmp_path):
    """The official address, the cache and the checksums of what it holds."""
    served = Server(published)
    for name in ("ARCHIVE", "LABELS", "SPLITS"):
        file = getattr(flowers, name)
        monkeypatch.setattr(flowers, name, RemoteFile(served.url + file.name,
                                                      hashlib.md5(published[file.name]).hexdigest(), 1 << 22))
    monkeypatch.setenv("GRPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield served
    served.server.shutdown()
    served.server.server_close()


def names_asked(server):
    return [name for name, _, _ in server.asked]


def test_the_official_files(server, tmp_path, capsys):
    rows = datasets.load("flowers")
    assert [row["label"] for row in rows] == list(range(102)) and rows[73]["answer"] == "rose"
    assert sorted(names_asked(server)) == ["102flowers.tgz", "imagelabels.mat", "setid.mat"]
    assert "downloading" in capsys.readouterr().err
    folder = tmp_path / "cache" / "datasets" / "flowers102"
    assert sorted(path.suffix for path in folder.iterdir() if path.is_file() and path.suffix != ".lock") == \
        [".mat", ".mat", ".tgz"]
    assert len(list((folder / "jpg").iterdir())) == 306 and not (tmp_path / "cache" / "jpg").exists()
    assert rows[0]["image"].pixels().shape == (224, 224, 3)
    assert rows[0]["prompt"][0]["role"] == "system" and ", ".join(flowers.CLASSES) in rows[0]["prompt"][1]["content"]
    shown = {split: {row["image"] for row in datasets.load("flowers", split, resize="keep")}
             for split in ("train", "val", "test")}
    assert sum(map(len, shown.values())) == len(set.union(*shown.values())) == 306
    assert {row["image"] for row in datasets.load("flowers", "test", held_out="val", resize="keep")} == shown["val"]
    assert {row["image"] for row in datasets.load("flowers", "validation", resize="keep")} == shown["val"]
    assert len(server.asked) == 3                          # nothing is asked for twice
    with pytest.raises(DatasetError, match="less than shots=2"):
        datasets.load("flowers", shots=2)
    for option in ({"held_out": "train"}, {"names": {"1": "x"}}, {"validation": 0.5}):
        with pytest.raises(ConfigError):
            datasets.load("flowers", **option)
    with pytest.raises(DatasetError, match="no split 'dev'"):
        datasets.load("flowers", "dev")


def test_without_a_net(server, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DatasetError, match="102flowers.tgz is not there, and HF_HUB_OFFLINE is set: download it from"):
        datasets.load("flowers")
    assert not server.asked and not (tmp_path / "cache").exists()


def test_a_label_that_is_shifted_is_found_out(tmp_path):
    path, shifted = tmp_path / "imagelabels.mat", np.full(COUNT, 1)
    for number, name in flowers.KNOWN.items():
        shifted[number - 1] = max(1, flowers.CLASSES.index(name))
    for values, message in ((shifted, "picture 1 shows passion flower, and its label is 76, morning glory"),
                            (np.arange(COUNT) % 103, "picture 1 has the label 0"),
                            (np.full(5, 77), "picture 1191 shows rose, and its label is missing")):
        path.write_bytes(mat_file(mat_matrix("labels", values[None])))
        with pytest.raises(DatasetError, match=message):
            flowers.labels_of(path)


def test_the_names():
    assert len(flowers.CLASSES) == 102 == len(set(flowers.CLASSES))
    # official numbers of the classes, as everybody writes them
    for number, name in {1: "pink primrose", 21: "fire lily", 46: "wallflower", 51: "petunia", 73: "water lily",
                         74: "rose", 77: "passion flower", 89: "watercress", 100: "blanket flower",
                         102: "blackberry lily"}.items():
        assert flowers.CLASSES[number - 1] == name
    known = {flowers.CLASSES.index(name) + 1 for name in flowers.KNOWN.values()}
    assert known == {1, 10, 11, 12, 13, 14, 16, 28, 54, 66, 74, 77, 101, 102}


# downloads
# ---------------------------------------------------------------------------------------------------------------------


DATA = bytes(range(256)) * 5000


@pytest.fixture
def one(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    server = Server({"a.bin": DATA})
    yield server
    server.server.shutdown()
    server.server.server_close()


def remote(server, data=DATA, most=1 << 22):
    return RemoteFile(server.url + "a.bin", hashlib.md5(data).hexdigest(), most)


def test_what_was_interrupted_goes_on(one, tmp_path):
    one.plan = ["cut", "cut"]
    for left in (len(DATA) // 2, 3 * len(DATA) // 4):
        with pytest.raises(DatasetError, match="the connection ended after .* the same call goes on where it stopped"):
            fetch(remote(one), tmp_path)
        assert (tmp_path / "a.bin.part").stat().st_size == left and not (tmp_path / "a.bin").exists()
    assert fetch(remote(one), tmp_path).read_bytes() == DATA
    assert [asked for _, asked, _ in one.asked] == [None, f"bytes={len(DATA) // 2}-", f"bytes={3 * len(DATA) // 4}-"]
    assert not (tmp_path / "a.bin.part").exists()


def test_a_server_that_cannot_go_on_starts_anew(one, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(DATA[:1000])
    one.plan = ["whole"]
    assert fetch(remote(one), tmp_path).read_bytes() == DATA and len(one.asked) == 1


@pytest.mark.parametrize("there", [b"of another file", DATA + b"more", DATA])
def test_a_beginning_of_something_else(one, tmp_path, there):
    (tmp_path / "a.bin.part").write_bytes(there)
    assert fetch(remote(one), tmp_path).read_bytes() == DATA
    assert len(one.asked) == (1 if there == DATA else 2)


@pytest.mark.parametrize("plan, options, message", [
    (["broken"], {}, "its 1280000 bytes have the MD5 sum .* what came is not the file that was published"),
    (["404"], {}, "cannot be downloaded to .*404"), ([], {"data": b"x"}, "have the MD5 sum"),
    ([], {"most": 1000}, "more than the 1000 bytes that the file can have"),
])
def test_a_file_that_is_not_what_was_published_never_gets_its_name(one, tmp_path, plan, options, message):
    one.plan = plan
    with pytest.raises(DatasetError, match=message):
        fetch(remote(one, **options), tmp_path)
    assert not (tmp_path / "a.bin").exists()


def test_nobody_answers(one, tmp_path):
    one.server.shutdown()
    one.server.server_close()
    with pytest.raises(DatasetError, match="cannot be downloaded"):
        fetch(remote(one), tmp_path)


def test_many_at_once_download_once(one, tmp_path):
    threads = [threading.Thread(target=fetch, args=(remote(one), tmp_path)) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (tmp_path / "a.bin").read_bytes() == DATA and len(one.asked) == 1


def test_an_archive_that_was_unpacked_halfway(server, published, tmp_path, monkeypatch):
    folder = tmp_path / "cache" / "datasets" / "flowers102"
    (folder / "jpg.part").mkdir(parents=True)
    (folder / "jpg.part" / "image_08189.jpg").write_bytes(b"half")
    datasets.load("flowers")
    assert not (folder / "jpg.part").exists() and not (folder / "jpg" / "image_08189.jpg").exists()
    next((folder / "jpg").iterdir()).unlink()
    for path in (folder / "jpg").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"image_\d+.jpg is not there; delete .*jpg and load again"):
        datasets.load("flowers")
    (folder / "jpg").rmdir()
    (folder / "102flowers.tgz").write_bytes(published["102flowers.tgz"][:9000])
    with pytest.raises(DatasetError, match="102flowers.tgz cannot be unpacked"):
        datasets.load("flowers")
    assert not (folder / "jpg").exists()


# .mat files
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("stored, kind", [(("u1", 2), 9), (("u2", 4), 6), (("f8", 9), 6), (("i4", 5), 12)])
def test_matrices(tmp_path, order, packed, stored, kind):
    values = np.array([[1, 2, 3], [4, 5, 200 if stored[0] == "u1" else 100]])
    (tmp_path / "a.mat").write_bytes(mat_file(mat_matrix("abc", values, order, stored, kind),
                                              mat_matrix("longer", values.T, order, stored, kind), order=order,
                                              packed=packed))
    found = matlab.read_matrices(tmp_path / "a.mat")
    assert list(found) == ["abc", "longer"] and found["abc"].dtype == np.dtype(matlab.CLASSES[kind])
    np.testing.assert_array_equal(found["abc"], values)
    np.testing.assert_array_equal(found["longer"], values.T)


def test_files_that_are_broken_anywhere(tmp_path):
    """Each byte of a file changed, and each beginning of it: an error of ours, or another number."""
    path = tmp_path / "a.mat"
    for packed in (True, False):
        whole = mat_file(mat_matrix("abc", [[1, 2, 3]]), packed=packed)
        broken = [whole[:n] for n in range(len(whole))]
        broken += [whole[:i] + bytes([whole[i] ^ flip]) + whole[i + 1:] for i in range(124, len(whole))
                   for flip in (1, 0x80, 0xff)]
        for data in broken:
            path.write_bytes(data)
            with contextlib.suppress(FileFormatError):
                matlab.read_matrices(path)


@pytest.mark.parametrize("data, message", [
    (b"", "no MATLAB file of version 5"), (b"x" * 200, "no MATLAB file of version 5"),
    (mat_file(mat_matrix("a", [[1]], kind=1)), "'a' is no real numeric matrix"),
    (mat_file(mat_matrix("a", [[1]], flags=0x800)), "no real numeric matrix"),
    (mat_file(element(5, b"1234")), "something of type 5"), (mat_file(element(14, bytes(8))), "without flags"),
    (mat_file() + struct.pack("<II", 15, 9) + b"x" * 9, "incorrect header"),
    (mat_file() + struct.pack("<II", 15, 999), "cut off"),
    (mat_file(bytes(8) + bytes(matlab.MAX_MATRIX)), "more than 16 MiB"),
    (bytes(matlab.MAX_FILE + 1), "4 MiB that are read"),
])
def test_files_that_are_no_matrices(tmp_path, data, message):
    (tmp_path / "a.mat").write_bytes(data)
    with pytest.raises(FileFormatError, match=message):
        matlab.read_matrices(tmp_path / "a.mat")


def test_numbers_that_are_no_labels(tmp_path):
    for values, message in (([[1.5]], "numbers that are not whole"), (np.zeros((0, 0)), "no numbers called 'labels'")):
        (tmp_path / "a.mat").write_bytes(mat_file(mat_matrix("labels", values, stored=("f8", 9), kind=6)))
        with pytest.raises(DatasetError, match=message):
            flowers.matrix(tmp_path / "a.mat", "labels")


# a folder of one's own
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def garden(tmp_path):
    rng = np.random.default_rng(3)
    for split, count in (("train", 3), ("valid", 2)):
        for k, name in enumerate(("1", "74", "77")):
            for i in range(count):
                path = tmp_path / "garden" / split / name / f"{split}{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 60, (56, 84, 3), np.uint8)
                pixels[..., k] += 180
                Image.fromarray(pixels).save(path)
    return tmp_path / "garden"


def test_a_folder_of_flowers(garden):
    rows = datasets.load("flowers", "test", path=str(garden))
    assert rows[1]["classes"] == ["pink primrose", "rose", "passion flower"] and len(rows) == 6      # by their numbers
    assert rows[1]["image"].pixels().shape == (224, 224, 3) and "<answer>" in rows[1]["prompt"][1]["content"]
    solved = datasets.load("flowers:demonstrations", path=str(garden), shots=2, resize="keep")
    assert len(solved) == 6 and solved[1]["completion"] == "<answer>rose</answer>"
    assert {row["image"] for row in solved} < {row["image"] for row in datasets.load(garden)}
    with pytest.raises(DatasetError, match="no folder a species"):
        datasets.load("flowers", path=str(garden / "train" / "1"))
    recipe = Recipe(dataset="flowers", dataset_kwargs={"path": str(garden)}, sft={"dataset": "flowers:demonstrations"})
    assert len(recipe.sft_rows()) == 9                     # the warm-up's pictures are of the same folder
    assert recipe.change({"dataset": "arithmetic"}).shared_with("flowers:demonstrations") == {}


# rewards
# ---------------------------------------------------------------------------------------------------------------------


def scores(name, completion, gold="rose"):
    """Of each reward of a set for one completion."""
    return [reward([completion], answer=[gold])[0] for reward in resolve(name)]


STRICT = "<reasoning>\n{}\n</reasoning>\n<answer>\n{}\n</answer>\n"
SOFT = "<reasoning>{}</reasoning><answer>{}</answer>"
TEN = "The petals have a pink color and a star shape"
FULL = "petal color shape center " + "word " * 24


@pytest.mark.parametrize("completion, gold, published, mended", [
    (STRICT.format(TEN, "rose"), "rose", [2, .5, 0, .62857], [2, .5, .5, .62857]),
    (SOFT.format(FULL, "rose"), "rose", [2, 0, .5, 1], [2, 0, .5, 1]),
    (STRICT.format("two\nlines", "rose"), "rose", [2, 0, 0, .04], [2, .5, .5, .04]),
    (SOFT.format("", "desert-rose"), "rose", [2, 0, .5, 0], [0, 0, .5, 0]),
    (SOFT.format("", "rose or tulip"), "rose", [2, 0, .5, 0], [0, 0, .5, 0]),
    ("It is a Rose.", "rose", [2, 0, 0, .08], [0, 0, 0, 0]),
    (SOFT.format("the colour of the system", "tulip"), "rose", [0, 0, .5, .1 + 1 / 7], [0, 0, .5, .1 + 1 / 7]),
    ("<reasoning>petals", "rose", [0, 0, 0, .02 + 1 / 7], [0, 0, 0, 0]),
])
def test_the_sets(completion, gold, published, mended):
    assert scores("flowers", completion, gold) == pytest.approx(published, abs=5e-6)
    assert scores("class_name", completion, gold) == pytest.approx(mended, abs=5e-6)


@pytest.mark.parametrize("answer, gold, right", [
    ("rose", "rose", True), (" Rose. ", "rose", True), ("[rose].", "rose", True), ("a rose", "rose", True),
    ("This flower is a rose", "rose", True), ("This flower is a rose or a tulip", "rose", False),
    ("this is the Desert Rose!", "desert-rose", True), ("desert rose", "rose", False), ("not a rose", "rose", False),
    ("black eyed_susan", "black-eyed susan", True), ("colt’s foot", "colt's foot", True), ("", "rose", False),
    ("roses", "rose", False), ("primrose", "rose", False), ("rose tulip lily", "lily", False),
    ("It is a rose", "rose", True), ("The image shows a rose", "rose", True), ("**rose**", "rose", True),
])
def test_whole_names_are_right(answer, gold, right):
    assert class_name_reward([f"<answer>{answer}</answer>"], answer=[gold]) == [2.0 * right]
    assert class_name_reward([answer, f"<answer>{answer}"], answer=[gold] * 2) == [0.0, 0.0]     # not tagged, cut off


def test_no_name_of_the_table_is_right_for_another():
    for name in flowers.CLASSES:
        given = [f"<answer>{name}</answer>"] * len(flowers.CLASSES)
        assert class_name_reward(given, answer=flowers.CLASSES) == [2.0 * (name == each) for each in flowers.CLASSES]


def test_keywords_in_either_spelling_once_each():
    assert reasoning_quality_reward(["<reasoning>colour, color and colours in the centre</reasoning>"]) == \
        [pytest.approx(7 / 50 + 2 / 7)]
    assert reasoning_quality_reward(["<reasoning>a system, an ecosystem</reasoning>"]) == [pytest.approx(4 / 50)]


@pytest.fixture(scope="module")
def model():
    return grpo.load(grpo.tiny("qwen2_5_vl", num_hidden_layers=1, vision_config={"depth": 1}))


# recipes
# ---------------------------------------------------------------------------------------------------------------------


def parsed(line):
    words = line.split()
    return recipe_of(recipe_parser("grpo train", "", words).parse(words))


def test_the_published_hyper_parameters():
    config = Recipe.read("flowers").config()
    assert (config.max_steps, config.num_generations, config.beta, config.learning_rate) == (750, 16, 0.04, 5e-6)
    assert (config.eval_steps, config.save_steps, config.temperature, config.seed) == (25, 125, 0.9, 1994)
    assert config.max_completion_length == 786 and config.max_prompt_length is None
    published = parsed("flowers --rewards flowers --temperature_eval 0.9 --num_generations_eval 2 --train_vision all")
    assert published.config().num_generations_eval == 2 and published.rewards == ["flowers"]


def test_the_documented_command():
    with pytest.warns(GrpoWarning, match="taking the recipe flowers"):
        recipe = parsed("--model Qwen/Qwen-VL-Chat --dataset flowers --batch_size 4 --learning_rate 1e-6 "
                        "--kl_coeff 0.1 --num_epochs 3 --eval_interval 50 --log_interval 10")
    config = recipe.config()
    assert (recipe.name, recipe.model, recipe.dataset) == ("flowers", "Qwen/Qwen-VL-Chat", "flowers")
    assert (config.prompts_per_step, config.learning_rate, config.beta) == (4, 1e-6, 0.1)
    assert (config.num_train_epochs, config.max_steps) == (3, -1)
    assert (config.eval_steps, config.logging_steps) == (50, 10)
    assert Recipe.read("flowers_qwen_vl").model == "Qwen/Qwen-VL-Chat"


def test_the_flags_of_the_code():
    with pytest.warns(GrpoWarning) as said:
        recipe = parsed("--dataset_name flowers --evaluator flowers --num_chains 8 --num_train_iters 400 "
                        "--eval_iterations 40 --learning_rate 2e-6")
    config = recipe.config()
    assert "taking the recipe flowers" in str(said[0].message) and len(said) == 3        # rounds are steps of 4
    assert (config.max_steps, config.eval_steps, config.num_generations) == (100, 10, 8)
    assert recipe.rewards == ["flowers"]
    with pytest.warns(GrpoWarning, match="taking the recipe gsm8k"):
        assert parsed("--num_chains 8").name == "gsm8k"


@pytest.mark.parametrize("recipe", ["flowers", "flowers_qwen_vl"])
def test_a_check_of_the_recipes(garden, tmp_path, recipe, model):
    model.save_pretrained(tmp_path / "model")
    assert cli.main(["train", recipe, "--check", "--model", str(tmp_path / "model"), "--dataset_kwargs",
                     f"{{path: {garden}}}", "--output_dir", str(tmp_path / "run")]) == 0
    assert not (tmp_path / "run").exists()


def test_a_check_of_the_tiny_recipe(garden, capsys):
    """It builds its own model; its warm-up has the same folder."""
    words = ["train", "flowers_tiny", "--check", "--dataset_kwargs.path", str(garden)]
    assert cli.main([*words, "--sft.dataset_kwargs.shots", "2"]) == 0
    assert "9 rows, 6 more held out" in capsys.readouterr().out


# the baseline
# ---------------------------------------------------------------------------------------------------------------------


def test_vectors_of_images(model, garden):
    rows = datasets.load(garden)
    images = [row["image"] for row in rows]
    vectors = model.embed(images=images)
    assert vectors.shape == (9, 192) and vectors.dtype == np.float32 and np.isfinite(vectors).all()
    np.testing.assert_array_equal(vectors[3:4], model.embed(images=images[3:4]))         # whatever the others are
    prompt = model.encode_prompt([{"role": "user", "content": "?"}], [images[3]])
    features = model.core_images([prompt.ids], [prompt.images])[0][3][0][2]
    bits = features[0] if features.dtype == np.float32 else (features[0].astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_allclose(vectors[3], bits.mean(axis=0), rtol=1e-5, atol=1e-7)
    assert model.embed(images=[]).shape == (0, 192)


def test_what_has_no_vector(model):
    with pytest.raises(ConfigError, match="texts or images"):
        model.embed()
    with pytest.raises(ConfigError, match="texts or images"):
        model.embed(["a"], images=["b.png"])
    with pytest.raises(ImageError, match=r"embed\(\): image 0.*no such file"):
        model.embed(images=["b.png"])
    with pytest.raises(ImageError, match="text 0 holds token .* stands for an image"):
        model.embed([[5, model.sight.image_token_id]])
    with pytest.raises(ImageError, match="no vision tower"):
        grpo.load(grpo.tiny(num_hidden_layers=1)).embed(images=["b.png"])


def test_the_nearest_class_mean(model, garden):
    train, test = datasets.load(garden), datasets.load(garden, "test")
    found = nearest_class_mean(model, train, test)
    assert (found.accuracy, found.rows, found.classes, found.train_rows) == (1.0, 6, 3, 9)
    assert 0.5 < found.low < 0.7 and found.high == 1.0 and "100.0% of 6 images" in str(found)
    wrong = [{**row, "label": (row["label"] + 1) % 3} for row in test]
    assert nearest_class_mean(model, train, wrong).accuracy == 0.0
    by_answer = [[{**row, "label": None} for row in rows] for rows in (train, test)]
    assert nearest_class_mean(model, *by_answer).accuracy == 1.0
    several = [[{**row, "label": [1, 2]} for row in rows] for rows in (train, test)]       # as of digits: no class
    assert nearest_class_mean(model, *several).accuracy == 1.0
    for none in (([], test), (train, [])):
        with pytest.raises(DatasetError, match="one of each at least"):
            nearest_class_mean(model, *none)
    for rows, message in (([{"prompt": "?", "label": 0}], "row 0 has no image"),
                          ([{"prompt": "?", "image": "a"}], "row 0 has no class"),
                          ([{**test[0], "label": 9}], "row 0 is of the class 9")):
        with pytest.raises(DatasetError, match=message):
            nearest_class_mean(model, train, rows)


def test_the_command(model, garden, tmp_path, capsys):
    model.save_pretrained(tmp_path / "model")
    assert cli.main(["eval", str(tmp_path / "model"), "--dataset", str(garden), "--max_completion_length", "2",
                     "--nearest_class_mean", "--output_dir", str(tmp_path / "out")]) == 0
    assert "nearest class mean of frozen features: 100.0% of 6 images" in capsys.readouterr().out
    assert '"accuracy":1.0' in (tmp_path / "out" / "nearest_class_mean.json").read_text().replace(" ", "")
