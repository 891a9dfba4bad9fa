"""What callbacks are told, in which order, and what they may ask for: as transformers' Trainer does it."""
import pytest

import grpo
import toy
from grpo.training.callbacks import TrainerCallback

EVENTS = [name for name in dir(TrainerCallback) if name.startswith("on_")]


class Watch(TrainerCallback):
    """Notes every event; does what it is told at some."""

    def __init__(self, **does):
        self.events, self.details, self.does = [], [], does

    def noted(self, event, args, state, control, **details):
        self.events.append((event.removeprefix("on_"), state.global_step))
        self.details.append((event, details))
        return self.does[event](state, control, details) if event in self.does else None


def noting(event):
    return lambda self, args, state, control, **details: self.noted(event, args, state, control, **details)


for each in EVENTS:
    setattr(Watch, each, noting(each))


def run(tmp_path, watch, **options):
    trainer = toy.trainer(tmp_path, callbacks=[watch], **options)
    trainer.train()
    return trainer


STEP = [("step_begin", 0), ("pre_optimizer_step", 0), ("optimizer_step", 0), ("step_end", 1), ("log", 1)]


@pytest.mark.parametrize("when, after", [
    ("steps", [("save", 1), ("log", 1), ("evaluate", 1), ("epoch_end", 1)]),
    ("epoch", [("epoch_end", 1), ("save", 1), ("log", 1), ("evaluate", 1)])])
def test_the_order_of_a_step_that_ends_a_pass(tmp_path, when, after):
    watch = Watch()
    run(tmp_path, watch, max_steps=1, logging_steps=1, eval_dataset=toy.ROWS, eval_strategy=when, eval_steps=1,
        save_strategy=when, save_steps=1)
    assert watch.events == [("init_end", 0), ("train_begin", 0), ("epoch_begin", 0), *STEP, *after, ("log", 1),
                            ("train_end", 1)]


def test_what_on_log_is_given(tmp_path):
    watch = Watch()
    run(tmp_path, watch, max_steps=1, logging_steps=1, eval_dataset=toy.ROWS, eval_strategy="steps", eval_steps=1)
    train, evaluation, end = [details["logs"] for event, details in watch.details if event == "on_log"]
    assert {"loss", "reward", "grad_norm", "learning_rate", "epoch"} <= set(train) and "eval_reward" not in train
    assert {"eval_reward", "epoch"} <= set(evaluation) and "loss" not in evaluation
    assert {"train_runtime", "train_loss", "train_steps_per_second", "train_samples_per_second", "epoch"} <= set(end)


def test_what_every_event_is_given(tmp_path):
    watch = Watch()
    trainer = run(tmp_path, watch, max_steps=3, learning_rate=0.5, lr_scheduler_type="linear", report_to="none")
    for _, details in watch.details:
        assert details["processing_class"] is trainer.model.tokenizer and details["model"] is trainer.model
        assert details["train_dataloader"] is details["eval_dataloader"] is None
    rates = [r["learning_rate"] for r in trainer.state.log_history[:-1]]
    assert rates[0] == 0.5 and watch.details[-1][1]["lr_scheduler"].get_last_lr() == [rates[-1]]
    assert watch.details[-1][1]["optimizer"].param_groups[0]["lr"] == rates[-1] < 0.5


def test_flags_are_put_back_when_the_next_step_begins(tmp_path):
    def ask(state, control, details):
        control.should_log = control.should_save = control.should_evaluate = state.global_step == 2
        return control

    seen = []
    watch = Watch(on_step_end=ask, on_step_begin=lambda state, control, details: seen.append(
        (control.should_log, control.should_save, control.should_evaluate)))
    run(tmp_path, watch, max_steps=4, eval_dataset=toy.ROWS)
    assert [event for event in watch.events if event[0] in ("log", "save", "evaluate")] == [
        ("log", 2), ("save", 2), ("log", 2), ("evaluate", 2), ("log", 4), ("log", 4)]
    assert seen == [(False, False, False)] * 4


def test_a_pass_may_be_left_early(tmp_path):
    def stop(state, control, details):
        control.should_epoch_stop = state.global_step == 1

    watch = Watch(on_step_end=stop)
    rows = [{"prompt": letter, "letter": letter} for letter in "abcdefgh"]
    trainer = run(tmp_path, watch, max_steps=5, rows=rows)
    ends = [event for event in watch.events if event[0].startswith("epoch")]
    assert ends == [("epoch_begin", 0), ("epoch_end", 1), ("epoch_begin", 1), ("epoch_end", 5)]
    assert trainer.state.epoch == 2.0 and trainer.position == 16


class Patience(TrainerCallback):
    """Remembers something over a checkpoint, as transformers' ExportableState."""

    def __init__(self, most=3):
        self.most, self.count = most, 0

    def on_step_end(self, args, state, control, **details):
        self.count += 1

    def state(self):
        return {"args": {"most": self.most}, "attributes": {"count": self.count}}

    @classmethod
    def from_state(cls, state):
        raise AssertionError("the callback is there already")


def test_what_a_callback_remembers_is_in_the_checkpoint(tmp_path):
    options = dict(save_strategy="steps", save_steps=1)
    first = toy.trainer(tmp_path, callbacks=[Patience()], max_steps=2, **options)
    first.train()
    other = Patience()
    second = toy.trainer(tmp_path, callbacks=[other], max_steps=4, **options)
    second.train(resume_from_checkpoint=str(first.run.path))
    assert other.count == 4
    with pytest.warns(grpo.GrpoWarning, match="state of callbacks that are not there: Patience"):
        toy.trainer(tmp_path, max_steps=4, **options).train(resume_from_checkpoint=str(first.run.path))


@pytest.mark.parametrize("rows, options, epochs, steps", [
    (10, {}, 3, 15), (7, {}, 3, 9), (7, {}, 0.5, 2), (8, dict(num_iterations=2), 1, 8),
    (3, dict(num_iterations=3), 2, 6),
    (9, dict(steps_per_generation=2, per_device_train_batch_size=4), 2, 16),
    (9, dict(generation_batch_size=16, per_device_train_batch_size=8), 1, 4)])
def test_steps_of_epochs_are_those_of_trl(tmp_path, rows, options, epochs, steps):
    """TRL: (rows // prompts of a rollout) * num_iterations * steps of a rollout, times the passes, rounded up."""
    trainer = toy.trainer(tmp_path, rows=[{"prompt": "p"}] * rows, max_steps=-1, num_train_epochs=epochs, **options)
    trainer.train()
    assert trainer.state.global_step == steps and (epochs < 1 or trainer.state.epoch == epochs)
