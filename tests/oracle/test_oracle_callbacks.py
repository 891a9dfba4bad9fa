"""transformers' own callbacks and helpers on a run of ours."""
import pytest

import toy

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.oracle


def test_the_last_checkpoint_and_the_state_are_found(tmp_path):
    from transformers.trainer_callback import TrainerState
    from transformers.trainer_utils import get_last_checkpoint

    options = dict(save_strategy="steps", save_steps=2, output_dir=str(tmp_path / "out"))
    toy.trainer(tmp_path, max_steps=4, **options).train()
    found = get_last_checkpoint(str(tmp_path / "out"))
    state = TrainerState.load_from_json(f"{found}/trainer_state.json")
    assert found == str(tmp_path / "out" / "checkpoint-4") and state.global_step == 4 and len(state.log_history) == 4
    longer = toy.trainer(tmp_path, max_steps=6, **options)
    longer.train(resume_from_checkpoint=found)
    assert longer.run.path == tmp_path / "out" and longer.state.log_history[-2]["step"] == 6


def test_printer_and_progress(tmp_path, capsys):
    from transformers import PrinterCallback, ProgressCallback

    toy.trainer(tmp_path, max_steps=2, logging_steps=1, eval_dataset=toy.ROWS, eval_strategy="steps", eval_steps=1,
                callbacks=[PrinterCallback, ProgressCallback()]).train()
    said = capsys.readouterr().out
    assert said.count("'eval_reward'") >= 2 and "'train_runtime'" in said and "total_flos" not in said.splitlines()[-1]


def test_early_stopping_stops_and_remembers(tmp_path):
    from transformers import EarlyStoppingCallback

    def falls(completions, trainer_state, **columns):
        return [-float(trainer_state.global_step)] * len(completions)

    options = dict(eval_dataset=toy.ROWS, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1,
                   metric_for_best_model="reward", greater_is_better=True)
    trainer = toy.trainer(tmp_path, falls, max_steps=9, callbacks=[EarlyStoppingCallback(2)], **options)
    trainer.train()
    assert trainer.state.global_step == 3 and trainer.state.best_global_step == 1
    again = EarlyStoppingCallback(9)
    resumed = toy.trainer(tmp_path, falls, max_steps=3, callbacks=[again], output_dir=str(trainer.run.path), **options)
    resumed.train(resume_from_checkpoint=str(trainer.run.path / "checkpoint-3"))
    assert again.early_stopping_patience_counter == 1 and resumed.state.best_global_step == 1
