"""A file is a name: what the rooms of rewards and data sets offer, and that a new file is all that a new name takes."""
import sys

import pytest

from grpo import ConfigError, datasets, rewards
from grpo.options import Names, attribute, in_file, load_file
from processes import fresh

OWN = {"class_name", "class_name_reward", "flowers", "flowers.correctness", "flowers.reasoning_quality",
       "reasoning_quality_reward",
       "accuracy_reward", "answer_reward", "conciseness", "correctness", "correctness_reward",
       "correctness_reward_func",
       "cosine_scaled_reward", "countdown_reward", "deepseekrl", "group_intrinsic", "int", "int_reward_func",
       "integer_reward", "intrinsic", "len_cosine", "len_l1", "len_min", "majority_voting", "majority_voting_reward",
       "math_verify", "r1", "r1.correctness", "r1.group_intrinsic", "r1.int", "r1.intrinsic", "r1.len_cosine",
       "r1.len_l1", "r1.len_min", "r1.majority_voting", "r1.soft_format", "r1.strict_format", "r1.xml",
       "reasoning_accuracy_reward", "reasoning_gym_reward", "repetition_penalty", "repetition_penalty_reward",
       "soft_format", "soft_format_reward", "soft_format_reward_func", "soft_overlong_punishment", "strict_format",
       "strict_format_reward", "strict_format_reward_func", "think_answer_format_reward", "think_format_reward", "xml",
       "xml_tags_reward", "xmlcount_reward_func"}
OWN |= {"boxes_reward", "captcha", "captcha_precision", "captcha_recall", "captcha_reward", "click_distance",
        "click_distance_reward", "click_format_reward", "click_hit", "click_reward", "click_tool_reward",
        "click_tool_used", "clock", "clock_error_minutes", "clock_reward", "clock_within_minute", "computation",
        "correlation", "correlation_error", "correlation_format_reward", "correlation_reward", "counting",
        "deepseekrl_captcha", "deepseekrl_clock", "deepseekrl_correlation", "deepseekrl_gui", "gui", "iou_reward",
        "multiple_choice_reward", "number_reward", "point_in_box_reward", "r1_vlm.computation_boxes",
        "r1_vlm.computation_soft_answer", "r1_vlm.count_answer", "r1_vlm.count_boxes", "r1_vlm.count_soft_answer",
        "r1_vlm_computation", "r1_vlm_counting", "soft_number_reward", "time_format_reward"}

# r1_vlm's, as published and mended
OWN |= {"r1_vlm_digits", "r1_vlm_words", "r1_vlm_sequences", "r1_vlm.format", "r1_vlm.chars_format", "r1_vlm.digits",
        "r1_vlm.word", "r1_vlm.chars_intermediate", "r1_vlm.correctness", "r1_vlm.correctness_intermediate",
        "digits", "decoding", "decoding_chars", "think_format", "chars_format", "digits_correctness",
        "decoded_correctness", "chars_intermediate", "gated_correctness", "correctness_intermediate",
        "character_error_rate"}


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A package of files that offer names, and of a module that asks."""
    folder = tmp_path / "a_room"
    folder.mkdir()
    files = {"__init__": "", "asking": "def load(): pass\ndef asking(): pass\n",
             "brevity": "def brevity(): return 1\ndef load(): return 2\n",
             "family": "NAMES = {'first': 1, 'family.second': 2}\n", "typed": "NAMES: dict = {'third': 3}\n",
             "machinery": "def helper(): pass\n", "missing": "import nowhere_at_all\ndef missing(): pass\n"}
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield "a_room.asking"
    for name in [name for name in sys.modules if name.partition(".")[0] == "a_room"]:
        del sys.modules[name]


def test_files_are_names(room):
    names = Names(room)
    assert list(names) == ["brevity", "family.second", "first", "missing", "third"]
    assert names.find("brevity")() == 1
    assert [names.find(name) for name in ("first", "family.second", "third")] == [1, 2, 3]
    names = Names(room, "load")
    assert list(names) == ["brevity", "family.second", "first", "third"] and names.find("brevity")() == 2


def test_a_file_is_imported_when_it_is_asked_for(room):
    assert "missing" in Names(room)
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        Names(room).find("missing")


def test_names_of_the_package():
    assert set(rewards.names()) == OWN
    assert datasets.names() == ["arithmetic", "captcha", "clock", "computation", "correlation", "countdown", "counting",
                                "decoding", "digits", "flowers", "gsm8k", "gui", "reasoning_gym", "word_problems"]


@pytest.mark.parametrize("name", sorted(OWN - {"math_verify", "cosine_scaled_reward", "reasoning_accuracy_reward"}))
def test_every_name_stands_for_a_reward(name):
    found = rewards.resolve(name)
    if isinstance(found, list):
        assert len(found) > 1 and all(map(callable, found))
    else:
        assert found is rewards.REGISTRY[name]


def test_a_name_imports_no_package_that_may_not_be_there():
    loaded = fresh("import grpo; grpo.rewards.names(), grpo.datasets.names(); print(*sys.modules)").split()
    assert "grpo.rewards" in loaded and not {"math_verify", "reasoning_gym"} & set(loaded)


def test_a_file_of_the_user(tmp_path):
    path = tmp_path / "of_mine.py"
    path.write_text("number = 3\ndef rows(): return 1\n")
    assert in_file(f"{path}:rows") == (path, "rows") and in_file("of_mine.rows") is None and in_file("C:rows") is None
    module = load_file(path, "data set")
    assert attribute(module, "rows", "it has no")() == 1
    for name in ("number", "row"):
        with pytest.raises(ConfigError, match=f"it has no function '{name}'"):
            attribute(module, name, "it has no function")
    with pytest.raises(ConfigError, match="data set file absent.py does not exist"):
        load_file(tmp_path.with_name("absent.py").relative_to(tmp_path.parent), "data set")
    sys.modules.pop("of_mine", None)
