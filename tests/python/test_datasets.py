"""Data sets from files, tables and functions, their splits and mixtures; what is wrong is named with file and row."""
import json
import re
import sys
from pathlib import Path

import pytest

from grpo import ConfigError, DatasetError, GRPOConfig, GRPOTrainer, GrpoWarning, datasets, tiny
from grpo.datasets import layout
from grpo.datasets.prompts import overlap

GSM8K = Path(__file__).resolve().parents[3] / "shared" / "data" / "gsm8k"


# rows from records


@pytest.mark.parametrize("answer, expected",
                         [("18", "18"), (" 18 ", "18"), (7, "7"), ("so 48\n#### 48", "48"), ("#### $1,200", "1200"),
                          ("#### -3", "-3"), ("1,200", "1,200")])
def test_gold(answer, expected):
    assert layout.gold(answer) == expected


@pytest.mark.parametrize("system_prompt, system", [(None, datasets.XML_SYSTEM_PROMPT),
                                                   ("xml", datasets.XML_SYSTEM_PROMPT), ("Be brief.", "Be brief."),
                                                   ("", None)])
def test_questions_become_chats(system_prompt, system):
    row = datasets.load([{"question": "1 + 1?", "answer": "it is\n#### 2", "level": 3}], system_prompt=system_prompt)[0]
    assert (row["prompt"] == ([{"role": "system", "content": system}] if system else [])
            + [{"role": "user", "content": "1 + 1?"}])
    assert (row["question"], row["answer"], row["solution"], row["level"]) == ("1 + 1?", "2", "it is\n#### 2", 3)


def test_prompts_are_left_alone():
    rows = [{"prompt": "2 + 2 =", "answer": "4"}, {"prompt": [{"role": "user", "content": "hi"}]}]
    assert datasets.load(rows) == rows
    with pytest.raises(DatasetError, match="row 0 has a prompt of its own"):
        datasets.load(rows, system_prompt="xml")


# files

FILES = {
    "rows.jsonl": '{"question": "1 + 1?", "answer": "2"}\n{"question": "2 + 2?", "answer": "4"}\n',
    "rows.json": '[{"question": "1 + 1?", "answer": "2"}, {"question": "2 + 2?", "answer": "4"}]',
    "rows.csv": 'question,answer\n1 + 1?,2\n"2 + 2?",4\n',
    "rows.tsv": "question\tanswer\n1 + 1?\t2\n2 + 2?\t4\n",
}


@pytest.mark.parametrize("name", FILES)
def test_files(tmp_path, name):
    (tmp_path / name).write_text(FILES[name])
    rows = datasets.load(tmp_path / name)
    assert ([(row["question"], row["answer"], row["prompt"][-1]["content"]) for row in rows]
            == [("1 + 1?", "2", "1 + 1?"), ("2 + 2?", "4", "2 + 2?")])
    assert datasets.load(str(tmp_path / name), size=1) == rows[:1]


def test_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    parquet.write_table(pyarrow.Table.from_pylist([{"question": "1 + 1?", "answer": "2"}]), tmp_path / "train.parquet")
    assert datasets.load(tmp_path)[0]["answer"] == "2"


def test_folder_has_a_file_a_split(tmp_path):
    (tmp_path / "train.jsonl").write_text(FILES["rows.jsonl"])
    (tmp_path / "validation.csv").write_text("prompt\nhello\n")
    assert len(datasets.load(tmp_path)) == 2
    assert datasets.load(tmp_path, "test") == [{"prompt": "hello"}]
    with pytest.raises(DatasetError, match="no file for the split 'dev'.*it holds train.jsonl, validation.csv"):
        datasets.load(tmp_path, "dev")


@pytest.mark.parametrize("name, content, message", [
    ("a.jsonl", '{"prompt": "x"}\n{"prompt": \n', "a.jsonl: line 2: not JSON"),
    ("a.jsonl", '{"prompt": "x"}\n\n', "a.jsonl: line 2 is empty"),
    ("a.jsonl", '{"prompt": "x"}\n["y"]\n', "a.jsonl: row 2 is list"),
    ("a.jsonl", '{"prompt": "x", "prompt": "y"}\n', "a.jsonl: line 1: key 'prompt' appears twice"),
    ("a.jsonl", '{"prompt": "x", "score": NaN}\n', "a.jsonl: line 1: NaN is not a JSON number"),
    ("a.jsonl", '{"prompt": "x", "score": 1e999}\n', "a.jsonl: line 1: a number is out of range"),
    ("a.jsonl", '{"prompt": "\\ud800"}\n', "a.jsonl: line 1: a string holds half a surrogate pair"),
    ("a.jsonl", '{"prompt": "x", "deep": ' + "[" * 100000 + "\n", "a.jsonl: line 1: JSON nested too deeply"),
    ("a.jsonl", '{"prompt": "x", "deep": ' + "[" * 100 + "]" * 100 + "}\n",
     "a.jsonl: line 1: JSON nested deeper than 64"),
    ("a.jsonl", '{"prompt": "x"}\n{"prompt": "' + "y" * (16 << 20) + '"}\n', "a.jsonl: line 2 is longer than 16 MiB"),
    ("a.jsonl", '{"prompt": "x"}\n{"text": "y", "label": 1}\n',
     "a.jsonl: row 2 has neither a prompt nor a question; its columns are text, label"),
    ("a.jsonl", '{"question": 7}\n', "a.jsonl: row 1: the question is int"),
    ("a.jsonl", '{"question": "x", "answer": "1"}\n{"question": "y"}\n',
     "a.jsonl: row 2 has no answer, unlike row 1; its columns are question"),
    ("a.jsonl", '{"question": "x", "answer": {"value": 2}}\n',
     "a.jsonl: row 1: the answer is dict, not text or a number: {'value': 2}"),
    ("a.jsonl", '{"question": "x", "answer": ["1", "2"]}\n', "a.jsonl: row 1: the answer is list"),
    ("a.jsonl", '{"question": "x", "answer": "so it is\\n#### "}\n', "a.jsonl: row 1: there is no answer in 'so it is"),
    ("a.csv", "question,answer\nx,1\ny,\n", "a.csv: row 2: there is no answer in ''"),
    ("a.jsonl", "", "a.jsonl has no rows"),
    ("a.csv", "", "a.csv has no rows"), ("a.csv", "question,answer\n", "a.csv has no rows"),
    ("a.json", "[]", "a.json has no rows"),
    ("a.json", "", "a.json: not JSON"), ("a.parquet", "", "a.parquet: "),
    ("a.json", '{"prompt": "x"}', "a.json: a .json file holds one list"),
    ("a.csv", "prompt,answer\nx,1\ny\n", "a.csv: row 2 has 1 fields, the header 2"),
    ("a.csv", "prompt,answer\nx,1,2\n", "a.csv: row 1 has 3 fields, the header 2"),
    ("a.csv", "prompt,prompt\nx,1\n", "a.csv: the header has the column 'prompt' twice"),
    ("a.csv", 'prompt\n"x\n', "a.csv: line 1: unexpected end"),
    ("a.csv", 'prompt\n' + "x" * 200000 + '\n', "a.csv: line 1: field larger than field limit"),
    ("a.txt", "hello", "a.txt: rows are read from .jsonl, .json"),
    ("a.jsonl", "\ufeff".encode("utf-16-le"), "a.jsonl is UTF-16; save it as UTF-8"),
    ("a.csv", "prompt\nx".encode("utf-16"), "a.csv is UTF-16; save it as UTF-8"),
    ("a.jsonl", '{"prompt": "é"}'.encode("latin-1"), "a.jsonl: line 1: not UTF-8 at byte 12"),
    ("a.json", '[{"prompt": "é"}]'.encode("latin-1"), "a.json: not UTF-8 at byte 13"),
    ("a.csv", "prompt\né".encode("latin-1"), "a.csv: not UTF-8; save"),
])
def test_broken_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(DatasetError, match=message):
        datasets.load(tmp_path / name)


@pytest.mark.parametrize("name, content", [
    ("a.jsonl", b'\xef\xbb\xbf{"question": "x y", "answer": "2"}\r\n{"question": "z", "answer": "3"}\r\n'),
    ("a.jsonl", b'{"question": "x y", "answer": "2"}\n{"question": "z", "answer": "3"}'),
    ("a.json", b'\xef\xbb\xbf[{"question": "x y", "answer": 2},\r\n {"question": "z", "answer": 3}]'),
    ("a.csv", b"\xef\xbb\xbfquestion,answer\r\nx y,2\r\nz,3\r\n"),
])
def test_byte_order_marks_and_line_ends(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert [(row["question"], row["answer"]) for row in datasets.load(tmp_path / name)] == [("x y", "2"), ("z", "3")]


def test_parquet_needs_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"a.parquet: parquet files need pyarrow: pip install 'cgrpo\[data\]'"):
        datasets.load(tmp_path / "a.parquet")


def test_shards_are_one_split(tmp_path):
    for number in range(2):
        (tmp_path / f"train-0000{number}-of-00002.jsonl").write_text(f'{{"prompt": "{number}"}}\n')
    assert [row["prompt"] for row in datasets.load(tmp_path)] == ["0", "1"]
    (tmp_path / "train-00001-of-00002.jsonl").unlink()
    with pytest.raises(DatasetError, match="holds 1 of the 2 files like train-00000-of-00002.jsonl"):
        datasets.load(tmp_path)


# columns


@pytest.mark.parametrize("columns, question, answer", [
    ({"question": "text", "answer": "final.value"}, "1 + 1?", "2"), ({"question": "final.note"}, "n", None),
    ({"prompt": "text", "solution": "final"}, None, None), ({"question": "text", "answer": "a.b"}, "1 + 1?", "4"),
])
def test_columns_by_other_names(columns, question, answer):
    row = datasets.load([{"text": "1 + 1?", "final": {"value": 2, "note": "n"}, "a.b": 4}], columns=columns)[0]
    assert (row.get("question"), row.get("answer")) == (question, answer)
    assert row["prompt"] == "1 + 1?" if "prompt" in columns else row["prompt"][-1]["content"] == question
    assert "text" not in row or "text" not in columns.values()


@pytest.mark.parametrize("columns, message", [
    ({"question": "problm"},
     "row 2 has no column 'problm'; did you mean 'problem'. Its columns are problem, answer, level"),
    ({"question": "level.text"}, "row 2 has no column 'level.text'"),
    ({"question": "problem", "level": "problm"},
     "row 1 has a column 'level' besides 'problm', which columns gives that name"),
])
def test_columns_that_are_not_there(tmp_path, columns, message):
    (tmp_path / "a.jsonl").write_text('{"problem": "x", "problm": "y", "level": {"text": "y"}}\n'
                                      '{"problem": "y", "answer": "1", "level": 3}\n')
    with pytest.raises(DatasetError, match="a.jsonl: " + message):
        datasets.load(tmp_path / "a.jsonl", columns=columns)


# splits


def numbered(count):
    return [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(count)]


def asked(rows):
    return {row["question"] for row in rows}


def test_validation_is_carved_by_hash(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in numbered(500)))
    train, test = (datasets.load(tmp_path / "a.jsonl", split, validation=0.2) for split in ("train", "test"))
    assert not asked(train) & asked(test) and len(train) + len(test) == 500 and 60 < len(test) < 140
    assert datasets.load(tmp_path / "a.jsonl", "validation", validation=0.2, size=5) == test[:5]
    # other rows move nothing
    assert asked(datasets.load(numbered(400), "test", validation=0.2)) == asked(test) & asked(numbered(400))
    again = datasets.load([{"question": row["question"].upper().replace(" ", "  ")} for row in numbered(500)], "test",
                          validation=0.2)
    assert ({" ".join(question.split()).lower() for question in asked(again)}
            == {question.lower() for question in asked(test)})


@pytest.mark.parametrize("share, split, message", [
    (0, "train", "validation=0 must be the share"), (1.5, "train", "validation=1.5"),
    (True, "train", "validation=True"),
    (0.1, "dev", "no split 'dev'"), (0.0001, "test", "leaves nothing for the split 'test'"),
])
def test_validation_refuses(share, split, message):
    with pytest.raises((ConfigError, DatasetError), match=message):
        datasets.load(numbered(20), split, validation=share)


def only_train(rows):
    return lambda: rows


@pytest.mark.parametrize("source", ["a.jsonl", numbered(3), only_train(numbered(3))], ids=["file", "rows", "function"])
def test_sources_without_splits(tmp_path, source):
    (tmp_path / "a.jsonl").write_text('{"prompt": "x"}\n')
    source = tmp_path / source if isinstance(source, str) else source
    assert not datasets.has_splits(source) and datasets.load(source)
    with pytest.raises(DatasetError, match=r"has no split 'test'; name another data set for evaluation, or hold rows "
                       r"out with the option validation"):
        datasets.load(source, "test")


@pytest.mark.parametrize("split", ["train", "test"])
def test_mappings_of_splits(split):
    source = {"train": numbered(3), "validation": numbered(2)}
    assert datasets.has_splits(source)
    assert len(datasets.load(source, split)) == {"train": 3, "test": 2}[split]
    with pytest.raises(DatasetError, match="the data set has no split 'dev'. It has train, validation"):
        datasets.load(source, "dev")


def tables():
    """The same rows as what other libraries have."""
    rows = [{"question": "1 + 1?", "answer": "2"}, {"question": "2 + 2?", "answer": None}]
    yield "list", lambda: rows
    yield "tuple", lambda: tuple(rows)
    yield "generator", lambda: (row for row in rows)
    yield "function", lambda: lambda: rows
    yield "pandas", lambda: pytest.importorskip("pandas").DataFrame(rows)
    yield "pyarrow", lambda: pytest.importorskip("pyarrow").Table.from_pylist(rows)
    yield "datasets", lambda: pytest.importorskip("datasets").Dataset.from_list(rows)
    yield "dict of datasets", lambda: pytest.importorskip("datasets").DatasetDict(
        train=pytest.importorskip("datasets").Dataset.from_list(rows))


@pytest.mark.parametrize("made", [pytest.param(made, id=name) for name, made in tables()])
def test_tables_of_other_libraries(made):
    rows = datasets.load(made())
    assert [(row["question"], row["answer"]) for row in rows] == [("1 + 1?", "2"), ("2 + 2?", None)]
    assert datasets.load(made(), size=1) == rows[:1]


def endless():
    while True:
        yield {"prompt": "x"}


def test_size_ends_what_has_no_end():
    assert len(datasets.load(endless(), size=7)) == 7


@pytest.mark.parametrize("train, held_out, named", [
    (["2 + 2?", "3 + 3?"], ["1 + 1?"], None),
    (["2 + 2?", "3 + 3?"], ["1 + 1?", "3  +  3?"],
     "1 of 2 rows of evaluation are trained on: row 1 (row 1 of training);"),
    (["What is it?"], ["what IS it?"], "1 of 1"), ([[1, 2]], [[1, 2]], "1 of 1"), ([[1, 2]], [[1, 3]], None),
    ([[{"role": "system", "content": "a"}, {"role": "user", "content": "q"}]], [[{"role": "user", "content": "q"}]],
     "1 of 1"),
    (["a", "b", "c", "d", "e"], ["a", "b", "c", "d", "e"], "row 2 (row 2 of training), ...;"),
])
def test_rows_that_are_trained_and_evaluated_on(train, held_out, named):
    message = overlap([{"prompt": prompt} for prompt in train], [{"prompt": prompt} for prompt in held_out])
    assert named in message if named else message == ""


def test_trainer_warns_of_rows_that_are_trained_on():
    config = GRPOConfig(max_steps=1, prompts_per_step=2, num_generations=2, max_completion_length=4,
                        eval_strategy="steps", eval_steps=1)
    rows = [{"prompt": "a"}, {"prompt": "b"}]
    with pytest.warns(GrpoWarning, match=r"1 of 1 rows of evaluation are trained on: row 0 \(row 1 of training\)"):
        GRPOTrainer(tiny(), lambda completions: [0.0] * len(completions), config, rows, rows[1:])


# mixtures


@pytest.mark.parametrize("source, expected", [
    (["arithmetic", "word_problems"], "aw aw aw aw"), ({"arithmetic": 1, "word_problems": 3}, "wwaw wwaw"),
    ({"arithmetic": {"share": 2, "digits": 1}, "word_problems": {}}, "aaw aaw aa"),
    ({"word_problems": 0.5}, "wwwwwwww"),
])
@pytest.mark.parametrize("split", ["train", "test"])
def test_mixtures_keep_the_shares(source, expected, split):
    rows = datasets.load(source, split, size=8)
    assert "".join(row["source"][0] for row in rows) == expected.replace(" ", "")
    for name in source:
        options = ({k: v for k, v in source[name].items() if k != "share"} if isinstance(source, dict)
                   and isinstance(source[name], dict) else {})
        own = [{k: v for k, v in row.items() if k != "source" and v is not None}
               for row in rows if row["source"] == name]
        assert own == datasets.load(name, split, size=8, **options)[:len(own)]
    assert rows == datasets.load(source, split)[:8]


@pytest.mark.parametrize("split, kinds", [("train", ["s", "l"] * 5), ("test", ["s", "l"] * 2 + ["l"] * 3)])
def test_what_ends_first_comes_again_in_train(tmp_path, split, kinds):
    for name, count in (("s", 2), ("l", 5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{split}.jsonl").write_text("".join(f'{{"prompt": "{i}"}}\n' for i in range(count)))
    rows = datasets.load([str(tmp_path / "s"), str(tmp_path / "l")], split)
    assert [Path(row["source"]).name for row in rows] == kinds
    assert [row["prompt"] for row in rows if row["source"].endswith("l")] == list("01234")


def test_rows_of_a_mixture_have_all_columns():
    rows = datasets.load(["countdown", "word_problems"], size=2)
    assert ([row["operation"] for row in rows] == [None, "addition"]
            and [row["target"] is None for row in rows] == [False, True])
    assert [row["answer"] is None for row in rows] == [True, False] and rows[0].keys() == rows[1].keys()


def test_options_of_mixtures():
    shared = datasets.load({"arithmetic": 1, "word_problems": {"examples": 2}}, size=2, examples=1)
    assert [len(row["prompt"]) for row in shared] == [3, 5]
    assert ([row["source"][0] for row in datasets.load({"arithmetic": {"size": 1}, "word_problems": 1}, "test", size=4)]
            == list("awww"))
    with pytest.raises(ConfigError, match="arithmetic has no option 'numbers'"):
        datasets.load(["arithmetic", "word_problems"], numbers=[2, 9])


@pytest.mark.parametrize("source, message", [
    ({"arithmetic": 0}, "share of arithmetic is 0"),
    ({"arithmetic": {"share": "half"}}, "share of arithmetic is 'half'"),
    ({"arithmetic": {"split": "test"}}, "arithmetic: a mixture is of one split"),
    ({"arithmetic": True}, "share of arithmetic is True"), (["arithmetic", "arithmetic"], "every data set once"),
    (["arithmetic", "word_problem"], "did you mean 'word_problems'"),
    (["arithmetic", "MINE:sourced"], "mine.py:sourced has a column source of its own"),
])
def test_mixtures_refuse(source, message, mine):
    source = [name.replace("MINE", str(mine)) for name in source] if isinstance(source, list) else source
    with pytest.raises((ConfigError, DatasetError), match=message):
        datasets.load(source)


# target lengths


@pytest.mark.parametrize("target, low, high, sentence", [
    (512, 512, 512, "Think for 512 tokens."), (-512, -512, -512, "Think for a maximum of 512 tokens."),
    ({"low": 100, "high": 110}, 100, 110, "Think for {} tokens."),
    ({"low": 5, "high": 9, "maximum": True}, -9, -5, "Think for a maximum of {} tokens."),
])
def test_target_length(target, low, high, sentence):
    rows = datasets.load("arithmetic", size=100, system_prompt="Be brief.", target_length=target)
    assert all(row["prompt"][0]["content"] == "Be brief. " + sentence.format(abs(row["target_length"])) for row in rows)
    assert {row["target_length"] for row in rows} == set(range(low, high + 1))
    assert rows[:10] == datasets.load("arithmetic", size=10, system_prompt="Be brief.", target_length=target)


def test_target_length_is_seeded():
    drawn = [[row["target_length"] for row in datasets.load(numbered(50),
                                                            target_length={"low": 1, "high": 99, "seed": seed})]
             for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("rows, target, message", [
    (numbered(1), 0, "target_length=0 must be"), (numbered(1), {"low": 5}, "must be a number"),
    (numbered(1), {"low": 9, "high": 5}, "must be a number"),
    (numbered(1), 1.5, "must be a number"),
    (numbered(1), {"low": 1, "hihg": 5}, "no entry 'hihg'; did you mean 'high'"),
    ([{"prompt": "x"}], 5, "row 0: target_length is said in the system message, and the prompt is no chat"),
    ([{"question": "x", "target_length": 3}], 5, "row 0 has a column target_length of its own"),
])
def test_target_length_refuses(rows, target, message):
    with pytest.raises((ConfigError, DatasetError), match=message):
        datasets.load(rows, target_length=target)


def test_gsm8k_with_solved_examples(tmp_path):
    for split in ("train", "test"):
        lines = [json.dumps({"question": f"{split} {i}?", "answer": f"half <<{2 * i}/2={i}>>is {i}\n#### {i}"})
                 for i in range(5)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    train, test = (datasets.load("gsm8k", split, path=str(tmp_path), examples=2, size=2) for split in ("train", "test"))
    assert [row["question"] for row in train + test] == ["train 2?", "train 3?", "test 0?", "test 1?"]
    for row in train + test:
        assert [m["role"] for m in row["prompt"]] == ["system", *["user", "assistant"] * 2, "user"]
        assert row["prompt"][1]["content"] == "train 0?" and row["prompt"][-1]["content"] == row["question"]
        assert row["prompt"][4]["content"] == "<reasoning>\nhalf is 1\n</reasoning>\n<answer>\n1\n</answer>"


@pytest.mark.parametrize("answer", ["twelve", "so\n#### twelve", "12", None])
def test_gold_of_gsm8k_is_a_number(tmp_path, answer):
    rows = [{"question": "a", "answer": "so\n#### 1,200"}, {"question": "b", "answer": answer}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert datasets.load("gsm8k", path=str(tmp_path), size=1)[0]["answer"] == "1200"
    with pytest.raises(DatasetError, match="split train: row 2: the answer is no solution that ends in #### and a "
                       "number: .*(12|twelve|None)'"):
        datasets.load("gsm8k", path=str(tmp_path))


def test_gsm8k():
    if not GSM8K.is_dir():
        pytest.skip(f"{GSM8K} is not there")
    train, test = datasets.load(GSM8K), datasets.load("gsm8k", "test", path=str(GSM8K))
    assert (len(train), len(test)) == (7473, 1319)
    assert (train[0]["answer"], test[0]["answer"]) == ("72", "18")
    assert all(row["answer"].removeprefix("-").replace(".", "").isdigit() for row in train + test)
    assert train[0]["prompt"][0] == {"role": "system", "content": datasets.XML_SYSTEM_PROMPT}


# names and functions

MINE = '''
def rows(count=2, split="train"):
    return [{"prompt": f"{split} {i}"} for i in range(count)]

def train_only():
    return [{"question": "a", "answer": "b"}]

def sourced():
    return [{"prompt": "a", "source": "b"}]

def needy(count, split):
    return [{"prompt": "x"}] * count

def sized(size=3):
    return [{"prompt": "x"}] * size

def wrong():
    return [{"prompt": "x"}, {"promt": "y"}]
'''


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "mine.py"


def test_functions(mine):
    assert datasets.load(f"{mine}:rows", "test", count=3) == [{"prompt": f"test {i}"} for i in range(3)]
    assert datasets.load(f"{mine}:rows", size=1) == [{"prompt": "train 0"}]
    assert len(datasets.load(f"{mine}:sized")) == 3 and len(datasets.load(f"{mine}:sized", size=2)) == 2
    assert datasets.load(f"{mine}:train_only", system_prompt="Hm.")[0]["prompt"][0]["content"] == "Hm."


@pytest.mark.parametrize("function, split, options, message", [
    ("row", "train", {}, "has no function 'row'; did you mean 'rows'"),
    ("rows", "train", {"cont": 1}, "has no option 'cont'; did you mean 'count'"),
    ("rows", "train", {"colums": {}}, "no option 'colums'; did you mean 'columns'"),
    ("train_only", "test", {}, "has no parameter split"), ("needy", "train", {}, "needs the option 'count'"),
    ("wrong", "train", {}, "mine.py:wrong: row 1 has neither a prompt nor a question; its columns are promt"),
])
def test_functions_that_do_not_fit(mine, function, split, options, message):
    with pytest.raises((ConfigError, DatasetError), match=message):
        datasets.load(f"{mine}:{function}", split, **options)


@pytest.mark.parametrize("source, message", [
    ("aritmetic", "did you mean 'arithmetic'.*There are .*arithmetic, .*countdown"),
    ("arithmetic:demos", "arithmetic has no function 'demos'"),
    ("nowhere/rows.jsonl", "no file or folder here"),
    ("nowhere.py:rows", "nowhere.py does not exist"),
    ([], "has no rows"), ([1], "row 0 is int"), ({"prompt": "x"}, "no split 'train'. It has prompt"),
])
def test_sources_that_are_not_there(source, message):
    with pytest.raises((ConfigError, DatasetError), match=message):
        datasets.load(source)


def test_every_module_with_load_is_a_name():
    files = Path(datasets.__file__).parent.glob("*.py")
    assert datasets.names() == sorted(file.stem for file in files
                                      if "\ndef load(" in file.read_text() and file.stem != "registry")


@pytest.mark.parametrize("name, options, words", [
    ("digits", {"digits": 1.5}, "digits=1.5 must be a whole number or a list of whole numbers"),
    ("digits", {"digits": [True]}, "digits="), ("digits", {"digits": True}, "digits=True must be a whole number"),
    ("digits", {"prefill": "no"}, "prefill='no' must be true or false"), ("digits", {"task": ["x"]}, "task="),
    ("digits", {"path": 5}, "path=5 must be a text"), ("decoding:abc", {"lengths": "12"}, "lengths='12'"),
    ("decoding:abc", {"lengths": [1.5, 3]}, "lengths="), ("decoding:words", {"image": 1}, "image=1"),
    ("counting", {"coco": False}, "coco=False must be a text"), ("computation", {"operations": 5}, "operations=5"),
    ("computation", {"operations": [["add"]]}, "operations="), ("captcha", {"classes": 1}, "classes=1"),
    ("arithmetic", {"digits": None}, "digits=None"), ("countdown", {"count": "34"}, "count='34'"),
    ("clock", {"size": 1.5}, "size=1.5 must be a number of rows"), ("clock", {"size": True}, "size=True"),
    ("clock", {"split": ["test"]}, "split="), ("clock", {"columns": ["a"]}, "columns="),
    ("clock", {"columns": {"answer": 1}}, "columns="), ("clock", {"seed": [1]}, "seed=")])
def test_options_of_another_kind_are_named(name, options, words):
    with pytest.raises((ConfigError, DatasetError), match=re.escape(words)):
        datasets.load(name, **{"size": 2, **options})


def test_options_of_a_function_of_ones_own_are_its_own():
    def mine(split="train", level: int = 1):
        return [{"prompt": f"level {level}"}]

    assert datasets.load(mine, level="hard")[0]["prompt"] == "level hard"
