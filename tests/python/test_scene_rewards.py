"""Rewards for what is seen in an image: boxes, counts, clocks, correlations, clicks, letters. As published by the
numbers of the replaced systems; mended by what was wrong there."""
import itertools
import math
import time

import numpy as np
import pytest

from grpo import ConfigError, RewardError
from grpo.rewards import RewardSet, resolve
from grpo.rewards.boxes import BoxesReward, IoUReward, assignment, matched, point_in_box_reward
from grpo.rewards.choice import letter, multiple_choice_reward
from grpo.rewards.counting import SOFT_COUNT, SoftNumber
from reward_batches import batch

SQUARE, FAR = [0, 0, 10, 10], [50, 50, 60, 60]
STRICT = "<reasoning>\nabc\n</reasoning>\n<answer>\n{}\n</answer>\n"
METRICS: dict[str, list[float]] = {}


def log(name, value):
    METRICS.setdefault(name, []).append(value)


@pytest.fixture(autouse=True)
def forget():
    METRICS.clear()


def score(name, text, **columns):
    """The reward of that name for one completion."""
    (found,) = resolve(name)([text], **{column: [value] for column, value in columns.items()})
    return found


def tagged(answer):
    return f"<answer>{answer}</answer>"


def boxed(*boxes):
    return " ".join(f'{{"bbox_2d": {list(box)}}}' for box in boxes)


# boxes


@pytest.mark.parametrize("seed", range(40))
def test_the_best_matching_is_the_best(seed):
    rng = np.random.default_rng(seed)
    rows, columns = sorted(rng.integers(1, 6, 2).tolist())
    scores = rng.random((rows, columns)) * (rng.random((rows, columns)) < 0.7)
    scores = np.round(scores, seed % 3)                                # with ties
    best = max(sum(scores[i, c] for i, c in enumerate(chosen))
               for chosen in itertools.permutations(range(columns), rows))
    found = assignment(scores)
    assert len(set(found.tolist())) == rows and matched(scores).sum() == pytest.approx(best)
    assert matched(scores.T).sum() == pytest.approx(best) and matched(scores, "greedy").sum() <= best + 1e-9


@pytest.mark.parametrize("text, value", [
    (boxed(SQUARE, FAR), 1), (boxed(SQUARE), 2 / 3), (boxed(SQUARE, SQUARE), 2 / 3), ("", 0), (boxed([0, 0, 1, 1]), 0),
    (boxed(SQUARE, FAR, [80, 80, 90, 90]), 4 / 5), (boxed([0, 0, 10, 6], FAR), 1), (boxed([0, 0, 10, 4], FAR), 1 / 2),
    ('{"point_2d": [5, 5]} {"point_2d": [55, 60]}', 1), ('{"point_2d": [5, 5]} {"point_2d": [6, 6]}', 1 / 2),
    ("<think>" + boxed(SQUARE) + "</think>" + boxed(FAR), 2 / 3), (boxed([10, 10, 0, 0], [60, 60, 50, 50]), 0),
    (boxed(SQUARE, [1, 0, 10, 10]), 1 / 2),
])
def test_boxes(text, value):
    assert score_of(BoxesReward(), text, boxes=[SQUARE, FAR]) == pytest.approx(value)


def score_of(reward, text, **columns):
    (found,) = reward([text], **{column: [value] for column, value in columns.items()})
    return found


def test_one_to_one_where_greed_is_worse():
    truth, said = [[0, 0, 10, 10], [3, 0, 13, 10]], boxed([2, 0, 12, 10], [3.5, 0, 13.5, 10])
    assert score_of(BoxesReward(0.55), said, boxes=truth) == 1
    assert score_of(BoxesReward(0.55, matching="greedy"), said, boxes=truth) == 1
    said = boxed([3, 0, 13, 10], [6, 0, 16, 10])         # the first fits both
    assert score_of(BoxesReward(0.5), said, boxes=truth) == 1
    assert score_of(BoxesReward(0.5, matching="greedy"), said, boxes=truth) == 1 / 2


def test_options_of_boxes():
    labelled = '{"bbox_2d": [0, 0, 10, 10], "label": "Red  Circles"}, {"bbox_2d": [50, 50, 60, 60], "label": "cat"}'
    truth = dict(boxes=[SQUARE, FAR], labels=["red circle", "dog"])
    assert score_of(BoxesReward(labels=True), labelled, **truth) == 1 / 2
    assert score_of(BoxesReward(), labelled, **truth) == 1
    assert score_of(BoxesReward(points=False), '{"point_2d": [5, 5]}', boxes=[SQUARE]) == 0
    assert score_of(BoxesReward(), boxed([0, 0, 500, 500]), boxes=[[0, 0, 20, 10]], frame=[1000, 1000],
                    image_size=[40, 20]) == 1
    assert score_of(BoxesReward(), "", boxes=[]) == 1 and score_of(BoxesReward(), "", boxes=None) is None
    BoxesReward()([boxed(SQUARE, FAR)], boxes=[[SQUARE]], log_metric=log)
    assert METRICS == {"boxes/precision": [0.5], "boxes/recall": [1.0]}
    with pytest.raises(RewardError, match="no column labels"):
        score_of(BoxesReward(labels=True), labelled, boxes=[SQUARE])
    for bad in (dict(matching="best"), dict(threshold=0), dict(threshold=2)):
        with pytest.raises(ConfigError, match="boxes_reward"):
            BoxesReward(**bad)


@pytest.mark.parametrize("label, same", [("red cross", True), ("red crosses", True), ("RED CROSS", True),
                                         ("crosses", False), ("", True), ("blue cross", False)])
def test_labels(label, same):
    text = f'{{"bbox_2d": [0, 0, 10, 10], "label": "{label}"}}'
    assert score_of(BoxesReward(labels=True), text, boxes=[SQUARE], labels=["red cross"]) == same


@pytest.mark.parametrize("text, columns, value", [
    (tagged(boxed([0, 0, 10, 5])), dict(box=SQUARE), 0.5), (boxed([0, 0, 10, 5]), dict(box=SQUARE), 0.5),
    (boxed(SQUARE) + tagged("none"), dict(box=SQUARE), 0), (tagged(boxed(SQUARE, SQUARE)), dict(box=SQUARE), 1),
    (tagged(boxed(SQUARE, FAR)), dict(box=SQUARE), 2 / 3),
    (tagged(boxed(FAR, [0, 0, 10, 5])), dict(boxes=[SQUARE, FAR]), 0.75),
    ("<answer>" + boxed(SQUARE), dict(box=SQUARE), 1), (tagged('{"point_2d": [5, 5]}'), dict(box=SQUARE), 0),
    (tagged(boxed(SQUARE)), dict(box=None), None),
])
def test_iou_reward(text, columns, value):
    assert score_of(IoUReward(), text, **columns) == (value if value is None else pytest.approx(value))


def test_iou_reward_with_a_threshold():
    assert score_of(IoUReward(0.5), boxed([0, 0, 10, 5]), box=SQUARE) == 1
    assert score_of(IoUReward(0.51), boxed([0, 0, 10, 5]), box=SQUARE) == 0
    with pytest.raises(RewardError, match="iou_reward needs a column named boxes or box"):
        IoUReward()(["a"])


@pytest.mark.parametrize("bad", [[1, 2, 3], "abcd", None, [1, 2, 3, "4"], [1, 2, 3, math.inf], 5, [1, 2, 3, 10**400]])
def test_what_is_no_box(bad):
    for reward in (IoUReward(), point_in_box_reward, BoxesReward()):
        with pytest.raises(RewardError, match="completion 1's row has the box .*, not .left, top, right, bottom."):
            reward(["a", "b"], boxes=[[SQUARE], [SQUARE, bad]])


@pytest.mark.parametrize("text, columns, value", [
    (tagged('{"point_2d": [5, 5]}'), dict(box=SQUARE), 1), ("click_screen(5, 5)", dict(box=SQUARE), 1),
    ("click_screen(5, 5) click_screen(99, 5)", dict(box=SQUARE), 0),
    ("click_screen(55, 55)", dict(boxes=[SQUARE, FAR]), 1),
    ("", dict(box=SQUARE), 0), (boxed(SQUARE), dict(box=SQUARE), 0), ("", dict(boxes=None), None),
    ("click_screen(500, 500)", dict(box=SQUARE, frame=[1000, 1000], image_size=[12, 12]), 1),
])
def test_point_in_box(text, columns, value):
    assert score_of(point_in_box_reward, text, **columns) == value


# numbers


@pytest.mark.parametrize("answer, gold, exact, soft, published, published_soft", [
    ("4", "4", 1, 1, 1, 1), ("5", "4", 0, math.exp(-1 / 4), 0, math.exp(-1 / 4)), ("4.0", "4", 1, 1, 1, 1),
    ("6", "4", 0, math.exp(-1), 0, math.exp(-1)), ("-3", "-3", 1, 1, 0, 1), ("4 shapes", "4", 1, 1, 0, 0),
    ("four", "4", 0, 0, 0, 0), ("", "4", 0, 0, 0, 0), ("1.67", "1.67", 1, 1, 1, 1), ("1_0", "10", 0, 0, 0, 1),
    ("1e1", "10", 1, 1, 0, 1), ("nan", "4", 0, 0, 0, 0), ("inf", "4", 0, 0, 0, 0), ("9" * 400, "4", 0, 0, 0, 0),
    ("−3", "-3", 1, 1, 0, 0), ("4.000001", "4", 1, 1, 1, 1), ("4.0001", "4", 0, 1, 0, 1),
])
def test_counts(answer, gold, exact, soft, published, published_soft):
    text = tagged(answer)
    assert score("number_reward", text, answer=gold) == exact
    assert score_of(SOFT_COUNT, text, answer=gold) == pytest.approx(soft, abs=1e-6)
    assert score("r1_vlm.count_answer", text, answer=gold) == published
    assert score("r1_vlm.count_soft_answer", text, answer=gold) == pytest.approx(published_soft, abs=1e-6)


def test_numbers_of_computation():
    for error in (0, 0.5, 3):
        assert score_of(SoftNumber(), tagged(4 + error), answer="4") == pytest.approx(math.exp(-error))
        assert score("r1_vlm.computation_soft_answer", tagged(4 + error), answer="4") == pytest.approx(math.exp(-error))
    assert score("number_reward", "4", answer="4") == 0 and score("number_reward", tagged("4"), answer=None) is None
    with pytest.raises(RewardError, match="'many', not a number"):
        score("number_reward", tagged("4"), answer="many")
    with pytest.raises(ConfigError, match="scale=0"):
        SoftNumber(scale=0)


@pytest.mark.parametrize("n, target, counting, computation", [
    (0, 4, 0, 0), (2, 4, 15, 0.5), (4, 4, 30, 1), (5, 4, 30 * math.exp(-1 / 4), 0.75),
    (8, 4, 30 * math.exp(-1), 0.1), (40, 4, 30 * math.exp(-9), 0.1)])
def test_boxes_that_nobody_looked_at(n, target, counting, computation):
    marks = " ".join([boxed([0, 0, 0, 0]), '{"point_2d": [1, 1]}'][i % 2] for i in range(n))
    text = f"<think>{marks}</think>{boxed(SQUARE)}"
    assert score("r1_vlm.count_boxes", text, target=target) == pytest.approx(counting)
    assert score("r1_vlm.computation_boxes", text, counts=[1, target - 1]) == pytest.approx(computation)
    assert score("r1_vlm.count_boxes", text[7:], target=target, prefill="So.\n<think>") == pytest.approx(counting)
    assert score_of(BoxesReward(), text, boxes=[FAR]) == 0


# clocks


@pytest.mark.parametrize("distance, value", [(0, 3), (60, 2.98333), (3600, 2), (21600, -3), (21601, -2.99972),
                                             (43200 - 60, 2.98333)])
def test_clock_vectors(distance, value):
    hours, rest = divmod(distance, 3600)
    time_said = f"{hours % 12 or 12}:{rest // 60:02}:{rest % 60:02}"
    for name in ("clock_reward",):
        assert score(name, tagged(time_said), answer="12:00:00") == pytest.approx(value, abs=1e-5)
    published = resolve("deepseekrl_clock")[0]
    assert published([tagged(time_said)], answer=["12:00:00"]) == pytest.approx([value], abs=1e-5)
    assert published([f"it is {time_said}"], answer=["12:00:00"]) == pytest.approx([value], abs=1e-5)


@pytest.mark.parametrize("answer, read", [
    ("03:00:00", True), ("[03:00:00]", True), ("3:00:00", True), ("15:00:00", True), ("3:00", False), ("", False),
    ("03:00:00 or 04:00:00", False), ("03:00:00 = 3:00:00", True), ("24:00:00", False), ("03:60:00", False),
    ("03:00:60", False), ("103:00:00", False), ("03:00:00:00", False), ("three", False)])
def test_times(answer, read):
    assert score("clock_reward", tagged(answer), answer="03:00:00") == (3 if read else -3)
    assert score("time_format_reward", tagged(answer)) == (0.5 if read else 0)
    assert score("clock_error_minutes", tagged(answer), answer="03:00:00") == (0 if read else 360)
    assert score("clock_within_minute", tagged(answer), answer="03:00:00") == read


def test_clock_without_tags_and_gold():
    assert score("clock_reward", "03:00:00", answer="03:00:00") == -3
    assert score("clock_reward", "<answer>03:00:00", answer="03:00:00") == -3
    assert score("clock_reward", tagged("03:00:00"), answer=None) is None
    with pytest.raises(RewardError, match="'three', not HH:MM:SS"):
        score("clock_reward", "a", answer="three")
    resolve("clock_reward")([tagged("12:02:00"), tagged("12:00:30")], answer=["12:00:00"] * 2, log_metric=log)
    assert METRICS == {"clock/error_minutes": [1.25], "clock/within_minute": [0.5]}


@pytest.mark.parametrize("text, value", [
    (STRICT.format("12"), .5), (STRICT.format("12")[:-1], 0), (STRICT.format("12").replace("abc", "a\nb"), .5),
    ("<reasoning>abc</reasoning><answer>12</answer>", 0), ("The answer is 12", 0), ("12", 0),
    (STRICT.format("12") + "0123456789", 0), ("<answer>5</answer> no <answer>12</answer>", 0),
    ("<answer>1,200</answer>", 0), ("<answer>²</answer>", 0)])
def test_strict_dotall_vectors(text, value):
    assert resolve("deepseekrl_clock")[2]([text]) == [value]


# correlations


@pytest.mark.parametrize("answer, gold, value, published, form, published_form", [
    ("0.50", "0.50", 1, 1, .5, .5), ("0.73", "0.50", 0.77, 0.77, .5, .5), ("-0.50", "-0.50", 1, 1, .5, 0),
    ("−0.50", "-0.50", 1, 0, .5, 0), ("1.00", "0.00", 0, 0, .5, .5), ("-1.00", "1.00", 0, -1, .5, 0),
    ("5.00", "0.50", 0, -3.5, 0, .5), (".5", "0.50", 1, 1, 0, 0), ("0.5", "0.50", 1, 1, 0, 0),
    ("50%", "0.50", 0, 0, 0, 0),
    ("high", "0.50", 0, 0, 0, 0), ("", "0.50", 0, 0, 0, 0), ("1.50", "1.00", 0, 0.5, 0, .5),
    ("nan", "0.50", 0, 0, 0, 0),
    ("[0.50]", "0.50", 1, 0, 0, 0)])
def test_correlations(answer, gold, value, published, form, published_form):
    text = tagged(answer)
    assert score("correlation_reward", text, answer=gold) == pytest.approx(value)
    assert score("correlation_format_reward", text) == form
    reward, layout = resolve("deepseekrl_correlation")
    assert reward([text], answer=[gold]) == [pytest.approx(published)] and layout([text]) == [published_form]


def test_errors_of_correlations():
    assert score("correlation_error", "0.50", answer="-0.50") == 1.5            # untagged: the most it can be
    assert score("correlation_error", tagged("0.25"), answer="-0.50") == 0.75
    assert score("correlation_error", tagged("0.25"), answer=None) is None
    with pytest.raises(RewardError, match="'high', not a number"):
        score("correlation_reward", tagged("0.25"), answer="high")


# clicks


CLICK, CHECK = "tool_name: click_tool\nx: {}\ny: {}\n", "tool_name: check_click\n"
TRUTH = dict(box=[10, 10, 22, 22], image_size=[30, 40])


@pytest.mark.parametrize("x, y, circular, hit", [
    (16, 16, False, True), (10, 10, False, True), (10, 10, True, False), (22, 16, True, True), (22.5, 16, True, False),
    (23, 16, False, False), (20, 20, True, True), (20.3, 20.3, True, False)])
def test_hits(x, y, circular, hit):
    for text in (f'{{"point_2d": [{x}, {y}]}}', tagged(f"click_screen({x}, {y})"), CLICK.format(x, y)):
        assert score("click_reward", text, circular=circular, **TRUTH) == 3 * hit
        assert score("click_hit", text, circular=circular, **TRUTH) == hit
    published = resolve("deepseekrl_gui")[1]
    assert published([CLICK.format(x, y)], box=[TRUTH["box"]], circular=[circular]) == [3 * hit]


@pytest.mark.parametrize("text, reward, published, pixels", [
    (CLICK.format(16, 16), 2, 2, 0), (CLICK.format(16, 26), 2 - 40 / 50, 2 - 40 / 50, 10), ("nowhere", -2, -2, 50),
    (CLICK.format(16, 116), -2, -6, 50), (CLICK.format(1, 1) + CLICK.format(16, 16), 2, 2, 0),
    (CLICK.format(16, 16) + tagged("none"), -2, 2, 50), ("click_screen(16, 16)", 2, -2, 0)])
def test_distances(text, reward, published, pixels):
    assert score("click_distance_reward", text, **TRUTH) == pytest.approx(reward)
    assert score("click_distance", text, **TRUTH) == pytest.approx(pixels)
    last = resolve("deepseekrl_gui")[2]
    assert last([text], **{name: [value] for name, value in TRUTH.items()}) == [pytest.approx(published)]


@pytest.mark.parametrize("calls, tools, used", [
    ("hc", 1, 1), ("mc", 1, 1), ("mchc", .5, 1), ("hch", 1, 1), ("hcm", .5, 1), ("ch", .5, 1), ("cm", 1, 1),
    ("h", .2, 1),
    ("c", .2, 1), ("", 0, 0), ("hcmch", 1, 1)])
def test_tools(calls, tools, used):
    text = "".join({"h": CLICK.format(16, 16), "m": CLICK.format(1, 1), "c": CHECK}[call] for call in calls)
    assert score("click_tool_reward", text, **TRUTH) == tools and score("click_tool_used", text) == used


@pytest.mark.parametrize("text, value", [
    (STRICT.format(CLICK.format(1, 1)), .5), (tagged(CLICK.format(1, 1)), .3), (CLICK.format(1, 1), .3),
    (STRICT.format("tool_name: click_tool"), .1), (CHECK, .1), ("x: 1\ny: 1", 0), ("", 0),
    (f"<reasoning>{CLICK.format(1, 1)}</reasoning><answer>there</answer>", .3)])
def test_form_of_calls(text, value):
    assert score("click_format_reward", text) == value


def test_clicks_in_other_units():
    columns = {name: [value] for name, value in dict(TRUTH, frame=[1000, 1000], image_size=[20, 40]).items()}
    text = tagged(CLICK.format(800, 400))                              # (16, 16)
    assert resolve("click_reward")([text], **columns) == [3] and resolve("deepseekrl_gui")[1]([text], **columns) == [3]
    assert resolve("click_distance")([text], **columns) == [0]


def test_metrics_of_clicks():
    resolve("click_reward")([CLICK.format(16, 16), CLICK.format(16, 26)], box=[TRUTH["box"]] * 2,
                            image_size=[[30, 40]] * 2, difficulty=["hard", "normal"], log_metric=log)
    assert METRICS == {"click/hit": [0.5], "click/hit_hard": [1.0], "click/hit_normal": [0.0], "click/distance": [5.0]}


# captchas


GRID = dict(grid=[4, 32, 10, 2], image_size=[28, 56])                  # cells 0 1 / 2 3, from (4, 32) to (24, 52)


def calls(*places):
    return " ".join(f"click_screen({x}, {y})" for x, y in places)


@pytest.mark.parametrize("places, cells, value, published", [
    ([(5, 33), (15, 33)], [0, 1], 1, 1), ([(5, 33)], [0, 1], 2 / 3, 2 / 3), ([], [0, 1], 0, 0),
    ([(5, 33), (6, 33)], [0], 2 / 3, 2 / 3), ([(5, 33), (5, 33)], [0], 1, 1), ([(5, 33), (15, 43)], [0], 2 / 3, 2 / 3),
    ([(5, 33), (1, 1)], [0], 2 / 3, 2 / 3), ([(5, 33), (500, 500)], [0], 2 / 3, 1),
    ([(4, 32), (24, 52)], [0], 2 / 3, 2 / 3),
    ([(23, 51)], [3], 1, 1), ([(13.5, 32)], [0], 1, 0), ([(5, 33), (15, 33), (5, 43), (15, 43)], [2], 2 / 5, 2 / 5)])
def test_cells(places, cells, value, published):
    text = tagged(calls(*places))
    assert score("captcha_reward", text, cells=cells, **GRID) == pytest.approx(value)
    assert score("deepseekrl_captcha", text, cells=cells, **GRID) == pytest.approx(published)


def test_metrics_of_captchas():
    text = tagged(calls((5, 33), (15, 33), (1, 1)))
    assert score("captcha_precision", text, cells=[0, 2], **GRID) == 1 / 3
    assert score("captcha_recall", text, cells=[0, 2], **GRID) == 1 / 2
    assert score("captcha_precision", "", cells=[0], **GRID) == 0
    assert score("captcha_reward", text[8:], cells=[0], **GRID) == 0
    resolve("captcha_reward")([text], cells=[[0, 2]], grid=[GRID["grid"]], log_metric=log)
    assert METRICS == {"captcha/precision": [1 / 3], "captcha/recall": [0.5], "captcha/right": [1],
                       "captcha/wrong": [2], "captcha/missed": [1], "captcha/clicks": [3]}


def test_cells_in_other_units():
    text = tagged(calls((500, 732)))                                   # (14, 41)
    assert score("captcha_reward", text, cells=[1], frame=[1000, 1000], **GRID) == 1


# letters


@pytest.mark.parametrize("text, chosen", [
    ("B", "B"), ("(B)", "B"), ("[b]", "B"), ("B.", "B"), ("B. a cat", "B"), ("B) a cat", "B"),
    ("(B) A cat, or not", "B"),
    ("B: a cat", "B"), ("Option B", "B"), ("option (B).", "B"), ("**B**", "B"), ("**(B)** a cat", None), ("$B$", "B"),
    (r"\text{B}", "B"), ("A cat", None), ("A or B", None), ("A, or B", None), ("(A) and (B)", None), ("A, B", None),
    ("B, B", "B"), ("", None),
    ("Bad", None), ("K", None), ("J", "J"), ("12", None), ("a", "A"), ("The answer is B", None), ("answer: B", "B"),
])
def test_letters(text, chosen):
    assert letter(text) == chosen


@pytest.mark.parametrize("text, right", [
    (tagged("B"), 1), (tagged(" (b) "), 1), (tagged("A"), 0), ("B" + tagged("A"), 0), ("A" + tagged("B"), 1),
    ("So the answer is (B).", 1), ("The answer is B because A is wrong.", 1), (r"\boxed{B}", 1), ("Let us see.\nB", 1),
    ("A cat is in it.", 0), (tagged("A or B"), 0), ("<answer>B", 1), ("", 0), (tagged("B. two cats"), 1)])
def test_multiple_choice(text, right):
    for gold in ("B", "(B)"):
        assert score_of(multiple_choice_reward, text, answer=gold) == right


def test_multiple_choice_without_a_letter():
    assert score_of(multiple_choice_reward, "B", answer=None) is None
    with pytest.raises(RewardError, match="'cat', not a letter"):
        score_of(multiple_choice_reward, "B", answer="cat")


# all of them


SETS = {"counting": dict(answer="3", boxes=[SQUARE]), "computation": dict(answer="-3", boxes=[SQUARE]),
        "r1_vlm_counting": dict(answer="3", target=3), "r1_vlm_computation": dict(answer="3", counts=[1, 2]),
        "clock": dict(answer="03:00:00"), "deepseekrl_clock": dict(answer="03:00:00"),
        "correlation": dict(answer="0.50"),
        "deepseekrl_correlation": dict(answer="0.50"), "gui": dict(TRUTH), "deepseekrl_gui": dict(TRUTH),
        "captcha": dict(cells=[1], **GRID), "deepseekrl_captcha": dict(cells=[1], **GRID),
        "multiple_choice_reward": dict(answer="B"), "point_in_box_reward": dict(box=SQUARE),
        "iou_reward": dict(box=SQUARE)}
PIECES = ["", "<answer>", "<think>", "<answer>1", '{"bbox_2d": [1, 2, 3, 4]}', "tool_name: click_tool\nx: 1\n", "\n",
          " ", "12:",
          "<answer>" + "1" * 50, "click_screen(1, 2)", "(A) ", "\\boxed{", "answer is ", "tool_name:", "\x00é", "B."]


@pytest.mark.parametrize("name", SETS)
def test_texts_that_are_meant_to_be_slow(name):
    """Every reward is a finite number for every text, and none takes long."""
    texts = [piece * (30_000 // max(1, len(piece))) + end for piece in PIECES for end in ("", "</answer>")]
    columns = {column: [value] * len(texts) for column, value in SETS[name].items()}
    begun = time.process_time()
    values = RewardSet(name).score(batch(texts, columns=columns)).values
    assert np.isfinite(values).all() and time.process_time() - begun < 10


def test_many_boxes_are_matched_in_time():
    many = boxed(*([i, i, i + 10, i + 10] for i in range(3000)))
    begun = time.process_time()
    assert 0 < score_of(BoxesReward(), many, boxes=[[i, i, i + 10, i + 10] for i in range(0, 400, 10)]) < 0.1
    assert time.process_time() - begun < 2
