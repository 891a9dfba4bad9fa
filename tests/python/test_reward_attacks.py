"""The rewards of the vision systems under attack: texts made to take long, numbers without end, rows of another data
set in the batch."""
import random
import re
import time

import numpy as np
import pytest

from grpo import RewardError
from grpo.answers import as_number, same_answer
from grpo.rewards import RewardSet, clock, decoding, deepseekrl, r1, r1_vlm, think, xml
from reward_batches import batch

BOX, SIZE = [0, 0, 10, 10], [100, 100]
DIGITS = dict(task="recognition", label=[1, 2], total=3)
WORD = dict(coded_message="dog", decoded_message="cat")
# every set of rewards that reads columns of its own data set, with a row for it
SETS = {"digits": DIGITS, "r1_vlm_digits": DIGITS, "decoding": WORD, "r1_vlm_words": WORD, "decoding_chars": WORD,
        "r1_vlm_sequences": WORD, "counting": dict(answer="3", boxes=[BOX]),
        "computation": dict(answer="3", boxes=[BOX]), "r1_vlm_counting": dict(answer="3", target=3),
        "r1_vlm_computation": dict(answer="3", counts=[1, 2]), "clock": dict(answer="03:00:00"),
        "deepseekrl_clock": dict(answer="03:00:00"), "correlation": dict(answer="0.50"),
        "deepseekrl_correlation": dict(answer="0.50"), "flowers": dict(answer="rose"),
        "class_name": dict(answer="rose"), "gui": dict(box=BOX, image_size=SIZE, difficulty="hard"),
        "deepseekrl_gui": dict(box=BOX, image_size=SIZE), "captcha": dict(cells=[1], grid=[0, 0, 10, 4]),
        "deepseekrl_captcha": dict(cells=[1], grid=[0, 0, 10, 4], image_size=SIZE),
        "multiple_choice_reward": dict(answer="B"), "point_in_box_reward": dict(box=BOX), "iou_reward": dict(box=BOX)}
TEXTS = ["", "<answer>3</answer>", "<think><chars>c a t</chars></think>\n<answer>cat</answer>",
         "<answer>click_screen(5, 5)</answer>", "<answer>[1, 2]</answer>",
         "<answer>\ntool_name: click_tool\nx: 5\ny: 5\ntool_name: check_click\n</answer>"]
FORMATS = ("format", "quality", "strict_dotall")          # of rewards that need no column


@pytest.mark.parametrize("name", SETS)
def test_a_row_of_another_data_set_has_no_reward(name):
    """As mixtures make them: the columns of one data set are None in the rows of the others."""
    own = {column: [value] * len(TEXTS) for column, value in SETS[name].items()}
    both = {column: values + [None] * len(TEXTS) for column, values in own.items()}
    alone = RewardSet(name).score(batch(TEXTS, columns=own))
    mixed = RewardSet(name).score(batch(TEXTS + TEXTS, columns=both))
    assert np.array_equal(mixed.values[:len(TEXTS)], alone.values)
    for reward, values in zip(mixed.names, mixed.values[len(TEXTS):].T, strict=True):
        assert any(word in reward for word in FORMATS) or np.isnan(values).all(), reward
    assert mixed.metrics == alone.metrics


@pytest.mark.parametrize("name", [*SETS, "deepseekrl", "xml", "r1.soft_format", "think_answer_format_reward"])
def test_no_text_takes_long(name):
    """A text of twice the length takes twice the time, not four or eight times: 200,000 characters are done at once."""
    n = 200_000
    texts = [piece * (n // len(piece)) for piece in
             ("<answer>", "<chars>", "</reasoning><answer>", "\n</reasoning>\n<answer>\n", "</think><answer>")]
    texts = [begin + text for text in texts for begin in ("", "<reasoning>", "<reasoning>\n", "<think>")]
    texts += [begin + space * n for begin in ("<answer>", "the answer is") for space in (" ", "\n")]
    texts += ["<think>" + "<chars>" * (n // 16) + "</chars>" * (n // 16) + end
              for end in ("", "</think>", "</think>\n<answer>")]
    columns = {column: [value] * len(texts) for column, value in (SETS.get(name) or {"answer": "3"}).items()}
    begun = time.process_time()
    RewardSet(name).score(batch(texts, columns=columns))
    assert time.process_time() - begun < 10


def test_numbers_that_python_does_not_read():
    """A mixed number of more digits than int() takes ended a run."""
    endless = "9" * 5000
    for text in (endless, f"{endless} 1/2", f"1 1/{endless}", f"1 {endless}/2", f"-{endless}.5", f"1/{endless}"):
        assert as_number(text) is None and not same_answer(text, "1")


# the patterns in the words of the specification, which take the cube of the time
INSIDE = r"(?:(?!</?think>).)*"
PLAIN = [
    (decoding.LAYOUT.fullmatch, r"\s*<think>.*?</think>\s*<answer>.*?</answer>\s*\Z", re.DOTALL),
    (decoding.LAYOUT_CHARS.fullmatch,
     r"\s*<think>.*?<chars>.*?</chars>.*?</think>\s*<answer>.*?</answer>\s*\Z", re.DOTALL),
    (r1_vlm.FORMAT.match, rf"<think>{INSIDE}</think>\n<answer>.*?</answer>$", re.DOTALL),
    (r1_vlm.FORMAT_CHARS.match,
     rf"<think>{INSIDE}<chars>{INSIDE}</chars>{INSIDE}</think>\n<answer>.*?</answer>$", re.DOTALL),
    (think.THINK_ANSWER.fullmatch, r"\s*<think>.*?</think>\s*<answer>.*?</answer>\s*\Z", re.DOTALL),
    (xml.STRICT.fullmatch, r"<reasoning>\n.*?\n</reasoning>\n<answer>\n.*?\n</answer>\n?\Z", re.DOTALL),
    (xml.SOFT.match, r"\s*<reasoning>.*?</reasoning>\s*<answer>.*?</answer>", re.DOTALL),
    (r1.SOFT.match, r"<reasoning>.*?</reasoning>\s*<answer>.*?</answer>", re.DOTALL),
    (clock.STRICT_DOTALL.match, r"<reasoning>\n.*?\n</reasoning>\n<answer>\n.*?\n</answer>\n$", re.DOTALL),
    (deepseekrl.SOFT.match, r"<reasoning>.*?</reasoning>\s*<answer>.*?</answer>", 0)]


def test_the_fast_patterns_are_the_published_ones():
    rng = random.Random(17)

    def some(pieces):
        return "".join(rng.choices(pieces, k=rng.randint(0, 4)))

    seen = [set() for _ in PLAIN]
    for _ in range(20_000):
        newline = rng.choice(["\n", ""])
        if rng.random() < 0.5:
            pieces = ["<reasoning>", "</reasoning>", "<answer>", "</answer>", "\n", " ", "a", "\u2028", "\r"]
            text = (f"<reasoning>{newline}{some(pieces)}{newline}</reasoning>{rng.choice(['', ' ', newline])}<answer>"
                    f"{newline}{some(pieces)}{newline}</answer>{newline}")
        else:
            pieces = ["<think>", "</think>", "<answer>", "</answer>", "<chars>", "</chars>", "\n", " ", "a", "\x1c"]
            text = (f"<think>{some(pieces)}<chars>{some(pieces)}</chars>{some(pieces)}</think>{newline}<answer>"
                    f"{some(pieces)}</answer>")
        text = rng.choice([some(pieces), text, text + some(pieces)])
        for (fast, plain, flags), values in zip(PLAIN, seen, strict=True):
            found = fast(text) is not None
            assert found == (re.match(plain, text, flags) is not None), (plain, text)
            values.add(found)
        for tag in ("answer", "chars"):
            first = re.search(rf"<{tag}>\s*(.*?)\s*</{tag}>", text, re.DOTALL)
            assert r1_vlm.section(text, tag) == (None if first is None else first[1].strip()), text
        chars = re.findall(r"<chars>(.*?)</chars>", text, re.DOTALL)
        assert decoding.last_chars(text) == (chars[-1].strip() if chars else None), text
    assert seen == [{True, False}] * len(PLAIN)


def test_a_time_that_is_none_is_no_answer():
    with pytest.raises(RewardError, match="'99:99:99', not HH:MM:SS"):
        RewardSet("clock_reward").score(batch(["<answer>03:00:00</answer>"], columns={"answer": ["99:99:99"]}))
