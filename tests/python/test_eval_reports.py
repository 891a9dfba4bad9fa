"""Reports of an evaluation: whatever completions and names say, a page is a page and a picture is where it belongs."""
import base64
import hashlib
import html.parser
import json

import numpy as np
import pytest

from grpo.datasets import chat
from grpo.evaluation import charts
from grpo.evaluation.classes import LEAST, NOTHING, OTHER, class_of, classes_of, confusion, given_class
from grpo.evaluation.estimates import mean_interval
from grpo.evaluation.html import text
from grpo.evaluation.pictures import keep_images, of_row
from grpo.evaluation.records import by_class, document, metrics_of, verdict
from grpo.evaluation.report import write_html, write_pdf, write_reports
from grpo.evaluation.tables import class_table, evaluation_tables
from grpo.runs import plots
from grpo.vision import Processor
from grpo.vision.pictures import look

HOSTILE = ["<script>alert(1)</script><img src=x onerror=alert(2)>", '"><svg onload=alert(3)>',
           "a\x00\x1b[31m\u202eevil\ud800", "</pre></article></main><h1>mine</h1>",
           "你好 🎉 $\\frac{1}{2}$ <!-- ", "x" * 50_000, "", "&lt;b&gt; &amp;",
           '{"bbox_2d": [10, 10, 40, 40], "label": "<b onclick=1>\\u0022"} click_screen(999999999, -999999999)']


def record(row, completion, gold="18", sample=0, columns=None, pictures=(), prompt="What?", **more):
    basic = {"row": row, "prompt": chat(prompt), "completion": completion, "tokens": len(completion),
             "finish_reason": "length" if sample else "stop", "rewards": {"r": 1.0, "b": None}, "reward": 1.0,
             "sample": sample, "category": None, **of_row(pictures, columns or {})}
    return basic | verdict(completion, gold, ["reasoning", "answer"]) | more


def seen(*arrays):
    return look(arrays, Processor.of("qwen2_5_vl"), "a row")


def evaluated(folder):
    """Rows with one image, several, none, one of which there is no copy; every completion and name is hostile."""
    one, *five, last = (np.full((60, 80, 3), i, np.uint8) for i in range(7))
    rows = {0: seen(one), 1: seen(*five), 2: [], 3: seen(last)}
    records = [record(row, completion, sample=k, pictures=pictures, gold=HOSTILE[1], prompt=HOSTILE[k % 5],
                      columns={"boxes": [[8, 8, 30, 30]], "point": {"point_2d": [3, 4], "label": HOSTILE[0]}},
                      category=HOSTILE[3], funcs={"<i>": 0.5})
               for row, pictures in rows.items() for k, completion in enumerate(HOSTILE)]
    keep_images(records, folder, 9, rows.__getitem__)
    for each in records[-len(HOSTILE):]:
        each["images"][0]["file"] = "../../etc/passwd"
    return document({"model": HOSTILE[0], "questions": 4, "num_generations": len(HOSTILE)}, records)


class Page(html.parser.HTMLParser):
    """The elements of a page, of which each is closed where it belongs, and its text."""

    VOID = {"meta", "img", "input"}

    def __init__(self, path):
        super().__init__()
        self.found, self.open, self.words = [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attrs for found, attrs in self.found if found == tag]


OURS = set("""html head meta title style body header h1 h2 h3 h4 p dl div dt dd main section table thead tbody tr th td
    details summary figure figcaption img form label select option input output article small span pre bdi b i ul li svg
    g path text script""".split())


# ---- HTML


def test_whatever_completions_say_a_page_is_a_page(tmp_path):
    page = Page(write_html(evaluated(tmp_path), tmp_path / "r.html", HOSTILE[0]))
    assert {tag for tag, _ in page.found} <= OURS
    assert not [attrs for _, attrs in page.found for name in attrs if name.startswith("on") or name == "href"]
    assert len(page.all("script")) == len(page.all("h1")) == 1 and len(page.all("article")) == 4
    words = "".join(page.words)
    for said in (*HOSTILE[:2], *HOSTILE[3:5], HOSTILE[7], HOSTILE[8]):
        assert said in words, said
    assert "a\u2400\u241b[31m\ufffdevil\ufffd" in words and "x" * 40_000 + " ... [10000 more characters]" in words
    assert page.all("article")[0]["data-gold"] == HOSTILE[1]


def test_nothing_runs_but_the_script_of_the_page(tmp_path):
    path = write_html(evaluated(tmp_path), tmp_path / "r.html")
    page = Page(path)
    policy = next(attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs)
    script = path.read_text().partition("<script>")[2].partition("</script>")[0]
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy.partition("script-src")[2]


def test_pictures_are_where_they_belong(tmp_path):
    page = Page(write_html(evaluated(tmp_path), tmp_path / "r.html"))
    images = page.all("img")
    assert all((tmp_path / attrs["src"]).is_file() and attrs["src"].startswith("images/") for attrs in images)
    # of row 0 and of row 1, and beside the completion of each that names places
    assert len(images) == 1 + 5 + 2 and len({attrs["src"] for attrs in images}) == 6
    gone = [attrs for attrs in page.all("div") if attrs.get("class") == "gone"]
    assert len(gone) == 2 and gone[0]["style"] == "aspect-ratio:80/60"
    # the truth of rows 0, 1 and 3 and of their completion with marks; a box and a point each
    groups = [attrs["class"] for attrs in page.all("g")]
    assert {kind: groups.count(kind) for kind in groups} == {"true box": 6, "true": 6, "said box": 3, "said": 3}
    assert "this completion (dashed): 1 box, 1 point, 1 outside" in page.words and "truth: 1 box, 1 point" in page.words
    assert all(len(attrs["d"]) < 200 for attrs in page.all("path"))


def test_an_evaluation_without_pictures_or_golds(tmp_path):
    found = document({"questions": 1}, [record(0, "a", gold=None)])
    (path, *others) = write_reports(found, tmp_path / "report")
    page = Page(path)
    assert not page.all("img") and "Accuracy" not in page.words and [p.suffix for p in others] in ([], [".pdf"])
    assert Page(write_html({**found, "completions": []}, tmp_path / "none.html")).all("article") == []


def test_the_first_questions_alone(tmp_path):
    found = document({}, [record(row, "18") for row in range(5)])
    page = Page(write_html(found, tmp_path / "r.html", most=2))
    assert len(page.all("article")) == 2 and "The first 2 of 5; the JSON beside this file has all." in page.words


def test_text_of_a_page():
    assert text("a\r\n<b> & '\"\t\n") == "a\n&lt;b&gt; &amp; &#x27;&quot;\t\n"
    assert text(None) == "None" and text("\x7f\x85\u2066") == "\u2421\ufffd\ufffd"


# ---- PDF


def test_pictures_of_a_pdf(tmp_path):
    pytest.importorskip("reportlab")
    pypdf = pytest.importorskip("pypdf")
    found = evaluated(tmp_path)
    path = write_pdf(found, tmp_path / "r.pdf", HOSTILE[0])
    reader = pypdf.PdfReader(path)
    words = " ".join(" ".join(page.extract_text() for page in reader.pages).split())
    for part in ("no picture", "truth: 1 box, 1 point", "this completion (dashed): 1 box, 1 point, 1 outside",
                 HOSTILE[0], "marks are on the first picture"):
        assert part in words, part
    each = [image.indirect_reference.idnum for page in reader.pages for image in page.images]
    assert len(set(each)) == 6 and len(each) >= 8            # a file is in the PDF once, however often it is shown
    assert {image.image.size for page in reader.pages for image in page.images} == {(80, 60)}
    assert write_pdf(found, tmp_path / "s.pdf", HOSTILE[0]).read_bytes() == path.read_bytes()


def test_a_copy_that_is_broken(tmp_path):
    pytest.importorskip("reportlab")
    pypdf = pytest.importorskip("pypdf")
    found = evaluated(tmp_path)
    (tmp_path / found["completions"][0]["images"][0]["file"]).write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    reader = pypdf.PdfReader(write_pdf(found, tmp_path / "r.pdf"))
    assert len({image.indirect_reference.idnum for page in reader.pages for image in page.images}) == 5


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (2, 2), (640, 480)])
def test_pictures_of_any_shape_fit_a_page(tmp_path, size):
    pytest.importorskip("reportlab")
    pictures = seen(np.zeros((*size, 3), np.uint8)) if max(size) < 4000 else look(
        [np.zeros((*size, 3), np.uint8)], Processor("qwen2_5_vl", do_resize=False, patch_size=1, merge_size=1), "row")
    records = [record(0, '{"point_2d": [1, 1]} ' + "word " * 50 * k, sample=k, pictures=pictures) for k in range(4)]
    keep_images(records, tmp_path, 1, lambda row: pictures)
    assert write_pdf(document({"model": "m"}, records), tmp_path / "r.pdf").stat().st_size > 1000
    assert Page(write_html(document({}, records), tmp_path / "r.html")).all("img")


# ---- classes


def classified(pairs, each=LEAST):
    return [record(row * each + i, answer, gold=gold) for row, (gold, answer) in enumerate(pairs) for i in range(each)]


@pytest.mark.parametrize("gold, answer, given", [
    ("Rose", "<answer>rose</answer>", "Rose"), ("Rose", "<answer> passion  FLOWER</answer>", "passion flower"),
    ("Rose", "<answer>a dandelion</answer>", OTHER), ("Rose", "a rose?", NOTHING), ("Rose", "", NOTHING),
    ("Rose", "<answer></answer>", NOTHING), ("3", "<answer>3 apples</answer>", "3"),
    ("Rose", "<answer>3 of them</answer>", "3"), ("3", "It is 3.", "3"), ("3", "<answer>4</answer>", OTHER)])
def test_which_class_a_completion_names(gold, answer, given):
    classes = {"rose": "Rose", "passion flower": "passion flower", "3": "3"}
    assert given_class(record(0, answer, gold=gold), classes) == given


def test_without_tags_asked_for_any_text_is_an_answer():
    one = record(0, "a weed", gold="rose") | {"tag_errors": None}
    assert given_class(one, {"rose": "rose", "tulip": "tulip"}) == OTHER
    assert given_class({**one, **verdict("Tulip", "rose", [])}, {"rose": "rose", "tulip": "tulip"}) == "tulip"


def test_classes_are_in_order_and_golds_of_one_class_are_one():
    groups = [[r] for r in classified([("10", ""), ("9", ""), ("b", ""), ("a", ""), ("10.0", ""), ("#### 9", "")])]
    assert list(classes_of(groups).values()) == ["9", "10", "a", "b"]
    assert class_of("so\n#### 9") == "9"


@pytest.mark.parametrize("golds", [["a"] * 40, [str(i) for i in range(40)], [str(i % 11) for i in range(40)],
                                   [str(i % 257) for i in range(257 * LEAST)], []])
def test_golds_that_are_no_classes(golds):
    found = by_class([record(row, "", gold=gold) for row, gold in enumerate(golds)])
    assert found == {"by_class": {}, "confusion": []}


def test_accuracy_and_confusion_by_class():
    records = classified([("rose", "<answer>rose</answer>"), ("rose", "<answer>tulip</answer>"), ("tulip", "?"),
                          ("tulip", "<answer>oak</answer>"), ("tulip", "<answer>Tulip</answer>")])
    found = document({}, [*records, record(99, "x", gold=None)])
    by = found["by_class"]
    assert list(by) == ["rose", "tulip"] and by["rose"]["questions"] == 8 and by["rose"]["accuracy/lenient"] == 0.5
    assert by["tulip"]["accuracy/lenient"] == pytest.approx(1 / 3)
    assert by["tulip"]["accuracy/lenient/low"] < 1 / 3 < by["tulip"]["accuracy/lenient/high"]
    assert {(p["gold"], p["given"]): p["count"] for p in found["confusion"]} == {
        ("rose", "rose"): 4, ("rose", "tulip"): 4, ("tulip", NOTHING): 4, ("tulip", OTHER): 4, ("tulip", "tulip"): 4}
    assert sum(p["count"] for p in confusion([[r] for r in records], {"rose": "rose", "tulip": "tulip"})) == 20
    assert "By class (gold answer)" in [t.title for t in evaluation_tables(found)]
    found.pop("by_class"), found.pop("confusion")                       # as evaluations were written before
    assert len(evaluation_tables(found)) == 4 and charts.write_confusion(found, None) == []


def test_of_many_classes_the_worst_are_shown():
    by = {str(i): {"questions": 4, **{f"accuracy/{r}{end}": (50 - i) / 100 for r in ("strict", "lenient", "extractive")
                                      for end in ("", "/low", "/high")}} for i in range(50)}
    table = class_table(by, 30)
    assert table.title == "The 30 of 50 classes (gold answers) with the least accuracy"
    assert [row[0] for row in table.rows] == [str(i) for i in range(49, 19, -1)]
    assert len(class_table(by, 50).rows) == 50


@pytest.mark.parametrize("count", [2, 30, 31, 60])
def test_pictures_of_confusion(tmp_path, count):
    names = ["$\\frac{", "你好 <b>", *map(str, range(count - 2))]
    records = classified([(name, f"<answer>{names[(i + i % 3) % count]}</answer>") for i, name in enumerate(names)])
    found = document({"model": "m"}, records)
    files = write_reports(found, tmp_path / "report")
    pictures = [f for f in files if f.name.startswith("confusion-report")]
    assert [f.suffix for f in pictures] == [".png", ".pdf"]
    assert pictures[0].read_bytes().startswith(b"\x89PNG") and pictures[1].read_bytes().startswith(b"%PDF")
    assert [attrs["src"] for attrs in Page(files[0]).all("img")] == ["confusion-report.png"]
    before = pictures[1].read_bytes()
    assert write_reports(found, tmp_path / "report") == files and pictures[1].read_bytes() == before
    figure = charts.matrix(found["confusion"], list(found["by_class"])) if count <= 30 else \
        charts.most_confused(found["confusion"])
    (axes,) = figure.axes
    shown = [label.get_text() for label in axes.get_yticklabels()]
    if count <= 30:
        across = [label.get_text().replace("\n", " ") for label in axes.get_xticklabels()]
        assert len(shown) == count and across == [*shown, OTHER, NOTHING]
        counts = [int(t.get_text()) for t in axes.texts]
        assert sum(counts) == len(records)
    else:
        assert len(shown) == min(charts.MOST_PAIRS, count * 2 // 3) and all(" → " in name for name in shown)


def test_no_picture_of_mistakes_where_there_are_none(tmp_path):
    names = [str(i) for i in range(40)]
    found = document({}, classified([(name, f"<answer>{name}</answer>") for name in names]))
    assert charts.write_confusion(found, tmp_path / "c") == [] and len(found["by_class"]) == 40


# ---- evaluation functions, over steps


def test_means_of_functions_have_intervals(tmp_path):
    values = [0.1, 0.3, 0.2, 0.4, None, 0.5]
    m = metrics_of([record(row, "18", funcs={"error": value, "hit": float(row % 2)})
                    for row, value in enumerate(values)])
    assert m["funcs/error/mean"] == pytest.approx(0.3) and m["funcs/error/low"] < 0.3 < m["funcs/error/high"]
    assert 0 <= m["funcs/hit/low"] < m["funcs/hit/mean"] == 0.5 < m["funcs/hit/high"] <= 1
    assert np.isnan(mean_interval(np.array([[1.0]]))).all()
    assert np.isnan(mean_interval(np.array([[np.nan], [1.0]]))).all()
    low, high = mean_interval(np.zeros((50, 1)))
    assert low == 0 and 0 < high < 0.1                       # of zeros and ones an interval has a width


def test_functions_over_steps(tmp_path):
    lines = [{"step": step, f"{prefix}funcs/error/mean": 1 / step, f"{prefix}funcs/error/low": 0.5 / step,
              f"{prefix}funcs/error/high": 2 / step, f"{prefix}runtime": 1.0, f"{prefix}accuracy/lenient": 0.1 * step,
              f"{prefix}accuracy/lenient/low": 0.05 * step, f"{prefix}accuracy/lenient/high": 0.2 * step}
             for step in (1, 2, 3) for prefix in ("eval_",)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    drawn = plots.figures(tmp_path)
    assert list(drawn) == ["overview", "accuracy", "functions"]
    (axes,) = drawn["functions"].axes
    assert axes.get_title(loc="left") == "error" and "95 % interval" in axes.get_ylabel() and len(axes.collections) == 1
    (curve,) = plots.function_means("funcs/error", plots.Metrics(tmp_path))
    assert curve.values == [1, 1 / 2, 1 / 3] and curve.band == [(0.5, 2), (0.25, 1), (0.5 / 3, 2 / 3)]
