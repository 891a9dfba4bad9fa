"""Data sets without a length, with one and nothing else, and tables that are computed when they are asked."""
import itertools

import pytest

import grpo
import toy
from grpo.datasets.prompts import MOST_READ, read_rows
from grpo.datasets.streaming import WINDOW, stream_of


class Rows:
    """As torch's map-style data sets: no IndexError at the end."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, row):
        return {"prompt": f"What is {row} + 1?"}


class Endless:
    """Read again from the beginning by every iter(); end: the number of rows, None: no end."""

    def __init__(self, end=None):
        self.end = end

    def __iter__(self):
        return itertools.islice(({"prompt": f"Q{i}"} for i in itertools.count()), self.end)


class OnlyOnce(Endless):
    """Gives no rows the second time, which nothing of it says."""

    def __init__(self, end):
        super().__init__(end)
        self.iterator = super().__iter__()

    def __iter__(self):
        return self.iterator


def test_a_map_style_data_set_ends_at_its_length(tmp_path):
    trainer = toy.trainer(tmp_path, rows=Rows(8), max_steps=-1, num_train_epochs=1)
    assert len(trainer.stream) == 8 and trainer.train().global_step == 4


@pytest.mark.parametrize("make", [Endless, lambda: iter(Endless()), lambda: Endless(WINDOW + 100)],
                         ids=["again and again", "an iterator", "with an end"])
def test_a_stream_is_shuffled_within_its_window_and_resumed_where_it_was(tmp_path, make):
    options = dict(max_steps=6, save_strategy="steps", save_steps=3, learning_rate=1e-2, num_iterations=2)
    straight = toy.trainer(tmp_path, rows=make(), **options)
    straight.train()
    resumed = toy.trainer(tmp_path, rows=make(), **options)
    resumed.train(resume_from_checkpoint=str(straight.run.path / "checkpoint-3"))
    assert toy.weights(resumed) == toy.weights(straight)
    rows = [p.row for p in straight.stream.take(0, 6)]
    assert rows == [p.row for p in straight.stream.take(0, 6)] and rows != sorted(rows) and max(rows) <= WINDOW + 6
    assert straight.state.epoch == 1.0


def test_every_row_of_a_stream_with_an_end_comes_once_a_pass(tmp_path):
    stream = toy.trainer(tmp_path, rows=Endless(WINDOW + 100)).stream
    first, second = ([p.row for p in stream.take(k * (WINDOW + 100), WINDOW + 100)] for k in range(2))
    assert sorted(first) == sorted(second) == list(range(WINDOW + 100)) and first != second


def test_a_stream_in_its_own_order(tmp_path):
    stream = toy.trainer(tmp_path, rows=Endless(), shuffle_dataset=False).stream
    assert [p.row for p in stream.take(WINDOW - 2, 4)] == [WINDOW - 2, WINDOW - 1, WINDOW, WINDOW + 1]
    assert stream.at_row(3).prompt == "Q3"


def test_what_cannot_be_read_again_is_named(tmp_path):
    stream = toy.trainer(tmp_path, rows=OnlyOnce(WINDOW + 10)).stream
    with pytest.raises(grpo.DatasetError, match="gives no rows when it is read again"):
        stream.take(WINDOW + 5, 10)
    stream = toy.trainer(tmp_path, rows=iter(Endless(WINDOW + 10))).stream
    with pytest.raises(grpo.DatasetError, match="cannot be read again"):
        stream.take(WINDOW + 5, 10)


def test_few_rows_without_a_length_are_a_list(tmp_path):
    assert stream_of(Endless(20), "rows").has_ended
    assert len(toy.trainer(tmp_path, rows=Endless(20)).stream) == 20


@pytest.mark.parametrize("options", [dict(max_steps=-1), dict(eval_strategy="steps", eval_dataset=Endless())],
                         ids=["no max_steps", "evaluation"])
def test_no_end_is_refused_where_all_rows_are_needed(tmp_path, options):
    rows = toy.ROWS if "eval_dataset" in options else Endless()
    with pytest.raises(grpo.DatasetError, match=rf"no end within {MOST_READ:,} rows.*take\(n\)"):
        toy.trainer(tmp_path, rows=rows, **options)


def test_a_later_row_of_a_stream_is_checked_too(tmp_path):
    rows = itertools.chain(Endless(WINDOW), [{"question": "?"}], Endless())
    with pytest.raises(grpo.DatasetError, match=f"row {WINDOW} has no 'prompt'"):
        toy.trainer(tmp_path, rows=rows).stream.take(0, 2)


def test_rows_of_a_lazy_frame_are_computed():
    class Frame:
        def to_dicts(self):
            return [{"prompt": "a"}]

    class LazyFrame:
        def collect(self):
            return Frame()

    assert read_rows(LazyFrame(), "rows") == [{"prompt": "a"}]


def test_text_is_trained_from_its_second_token_on(tmp_path):
    trainer = grpo.SFTTrainer(toy.model(), grpo.SFTConfig(
        output_dir=str(tmp_path / "sft"), num_train_epochs=2, per_device_train_batch_size=4, save_strategy="no"),
        [{"text": f"hello {i}"} for i in range(10)])
    stop = trainer.model.tokenizer.eos_ids[0]
    assert [trainer.examples[0].prompt.tolist(), trainer.examples[0].completion.tolist()] == [
        list(b"h"), [*b"ello 0", stop]]
    assert trainer.train().global_step == 6 and trainer.state.epoch == 2.0       # 4, 4 and 2 rows a pass
