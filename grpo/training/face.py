"""What scripts call of a trainer beside train(): numbers and state as files, the card, the hub, the accelerator."""
from __future__ import annotations

import datetime
import functools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..alone import Alone
from ..errors import ConfigError, note
from ..runs import STATE_FILE, plain, replace_text
from .hub import PushCheckpoints, Upload, base_of, model_card, write_card

if TYPE_CHECKING:
    from ..model import Model
    from ..options import TrainingConfig
    from ..runs import RunFolder, TrainerState


class Face:
    """Base of the trainers' base: the rest of transformers' Trainer."""

    args: TrainingConfig
    model: Model
    state: TrainerState
    run: RunFolder | None
    callbacks: list[Any]
    control: Any
    save_model: Callable[..., None]
    is_fsdp_enabled = is_deepspeed_enabled = False
    _name = "training"
    _tag_names: tuple[str, ...] = ()
    _paper: Mapping[str, str] = {}

    def _meet(self, processing_class: Any) -> None:
        """Notes what the trainer was given, once there is a model. ConfigError for an upload that cannot be made."""
        self._processing_class = processing_class
        self._written_at = 0                 # the step whose weights a given model object has
        self._train_dataset: Any = None
        self._eval_dataset: Any = None
        self.model.train_vision = self.args.train_vision
        if self.model.given is not None:
            note(f"{self.model.given.source}: its weights are trained in the core, and written back into it at the end "
                 "of train() and by save_model(); trainer.write_back() does it in between")
        self.upload = Upload(self.args, self._title)
        if self.args.push_to_hub:
            self.upload.prepare()
            if self.args.hub_strategy == "every_save":
                self.callbacks.append(PushCheckpoints(self._push_checkpoint))

    # what it was given

    @property
    def processing_class(self) -> Any:
        """The tokenizer or the processor that was given, else the model's tokenizer."""
        given = self._processing_class       # a folder or a hub id is only where one is
        return self.model.tokenizer if given is None or isinstance(given, (str, os.PathLike)) else given

    @property
    def tokenizer(self) -> Any:
        """processing_class; of a processor its tokenizer."""
        return getattr(self.processing_class, "tokenizer", self.processing_class)

    @property
    def train_dataset(self) -> Any:
        """The rows of training, as they were given."""
        return self._train_dataset

    @property
    def eval_dataset(self) -> Any:
        """The rows of evaluation, as they were given."""
        return self._eval_dataset

    @property
    def model_wrapped(self) -> Model:
        """The model; nothing is around it."""
        return self.model

    @property
    def ref_model(self) -> Model | None:
        """The reference; None with beta=0."""
        return getattr(self, "reference", None)

    @property
    def hub_model_id(self) -> str:
        """The repository of push_to_hub."""
        return self.upload.repo_id or self.upload.asked

    # the process

    @functools.cached_property
    def accelerator(self) -> Alone:
        """That of one process."""
        return Alone(self.model.device)

    def is_world_process_zero(self) -> bool:
        """This is the main process."""
        return True

    def is_local_process_zero(self) -> bool:
        """This is the main process."""
        return True

    # weights

    def write_back(self) -> None:
        """Puts the weights as they are now into the model object that the trainer was given: what a callback or a
        reward that holds it looks at. Nothing where the trainer was given no object."""
        if self.model.given is not None:
            self.model.write_back()
            self._written_at = self.state.global_step

    def _leave(self, finished: bool = False) -> None:
        """At the end of train(), however it ends: a given object has what was trained, which is said. finished: the
        weights may be others than the last step's."""
        if self.model.given is not None and (finished or self._written_at != self.state.global_step):
            self.write_back()
            note(f"{self.model.given.source} has the weights of step {self.state.global_step}")

    def _model_saved(self, folder: Path) -> None:
        """After save_model(): a given object has these weights, and so has the hub where push_to_hub says so."""
        self._leave()
        if self.args.push_to_hub and not self.upload.busy:
            write_card(folder, self._card())
            self.upload.send(folder, "Model save")

    def get_num_trainable_parameters(self) -> int:
        """How many numbers are trained."""
        return self.model.num_parameters(only_trainable=True)

    # numbers and state

    @property
    def _place(self) -> Path:
        """The folder of what is written beside checkpoints: the run's."""
        if self.run is not None:
            return self.run.path
        if self.args.output_dir is None:
            raise ConfigError("before training this needs output_dir, the folder to write into")
        folder = Path(self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def log(self, logs: Mapping[str, Any], start_time: float | None = None) -> None:
        """Adds numbers of a script's own to state.log_history and metrics.jsonl, and tells callbacks (on_log)."""
        record = {**logs, "epoch": self.state.epoch, "step": self.state.global_step}
        self.state.log_history.append(record)
        if self.run is not None:
            self.run.log(record)
        for callback in self.callbacks:
            if (method := getattr(callback, "on_log", None)) is not None and not hasattr(callback, "use_bar"):
                method(self.args, self.state, self.control, model=self.model, run=self.run, logs=dict(record))

    def metrics_format(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Numbers as people read them: seconds as h:mm:ss.cc, the others with four digits."""
        found = dict(metrics)
        for name, value in found.items():
            if "_runtime" in name:
                found[name] = clock(value)
            elif name == "total_flos":
                found[name] = f"{int(value) >> 30}GF"
            elif isinstance(value, float):
                found[name] = round(value, 4)
        return found

    def log_metrics(self, split: str, metrics: Mapping[str, Any]) -> None:
        """Prints numbers in two columns. split: "train", "eval", "test"."""
        shown = {str(name): str(value) for name, value in sorted(self.metrics_format(metrics).items())}
        width, wide = (max(map(len, column), default=0) for column in (shown, shown.values()))
        print(f"***** {split} metrics *****")
        for name, value in shown.items():
            print(f"  {name: <{width}} = {value:>{wide}}")

    def save_metrics(self, split: str, metrics: Mapping[str, Any], combined: bool = True) -> None:
        """Writes numbers to <split>_results.json, and with combined adds them to all_results.json."""
        self._write_numbers(f"{split}_results.json", plain(metrics))
        if combined:
            path = self._place / "all_results.json"
            try:
                before = json.loads(path.read_text("utf-8")) if path.exists() else {}
            except ValueError as error:
                raise ConfigError(f"{path}: is not JSON ({error}); take it away") from error
            self._write_numbers(path.name, {**before, **plain(metrics)})

    def _write_numbers(self, name: str, values: Mapping[str, Any]) -> None:
        replace_text(self._place / name, json.dumps(values, indent=4, sort_keys=True, default=str))

    def save_state(self) -> None:
        """Writes trainer_state.json, which transformers' TrainerState.load_from_json reads."""
        self.state.save_to_json(self._place / STATE_FILE)

    # card and hub

    @property
    def _title(self) -> str:
        """What the model is called where nobody says it."""
        output = self.run.path if self.run is not None else self.args.output_dir
        return Path(output).resolve().name if output else self.args.run_name or self._name

    def _card(self, model_name: str | None = None, dataset_name: Any = None, tags: Any = None,
              more: Mapping[str, Any] = {}) -> str:  # noqa: B006
        history = self.state.log_history
        last: dict[str, Any] = next((r for r in reversed(history) if any(n.startswith("eval_") for n in r)), {})
        numbers = {n: v for n, v in last.items() if n.startswith("eval_") and isinstance(v, (int, float))
                   and not n.endswith("runtime")}
        args, given, name_or_path = self.args, dict(more), self.model.name_or_path
        return model_card(name=model_name or self.hub_model_id.rpartition("/")[2], where=self.hub_model_id,
                          base_model=given.pop("finetuned_from", None) or base_of(name_or_path),
                          datasets=listed(dataset_name), method=self._name, paper=self._paper, numbers=numbers,
                          tags=[*listed(tags), *(self.model.model_tags or ()), *self._tag_names], more=given,
                          facts=f"{self.state.global_step} steps of {args.batch_size} rows, learning rate "
                                f"{args.learning_rate:g}, schedule {args.lr_scheduler_type}, seed {args.seed}.")

    def create_model_card(self, model_name: Any = None, dataset_name: Any = None, tags: Any = None, *,
                          language: Any = None, license: str | None = None, finetuned_from: str | None = None,
                          tasks: Any = None, dataset: Any = None, dataset_tags: Any = None,
                          dataset_args: Any = None) -> None:
        """Writes README.md: the fields that the hub reads and what the run was. Arguments are those of TRL and of
        transformers; dataset_name and dataset: hub ids of the data; a dict as the first holds the others."""
        if isinstance(model_name, Mapping):
            return self.create_model_card(**model_name)
        more = {"language": language, "license": license, "finetuned_from": finetuned_from,
                "pipeline_tag": listed(tasks)[0] if tasks else None}
        data = listed(dataset_name) or listed(dataset_tags) or listed(dataset)
        write_card(self._place, self._card(model_name, data, tags, more))
        return None

    def push_to_hub(self, commit_message: str | None = "End of training", blocking: bool = True,
                    token: str | None = None, revision: str | None = None, private: bool | None = None,
                    **card: Any) -> Any:
        """Saves the model (save_model()), writes its card beside it, and uploads the folder to hub_model_id; returns
        what huggingface_hub does. Without a way to the hub the folder is there, and a line says how to upload it."""
        self.upload.busy = True
        try:
            folder = self._save_for_hub()
            self.create_model_card(**card)
            if self._place != folder:
                write_card(folder, (self._place / "README.md").read_text("utf-8"))
        finally:
            self.upload.busy = False
        return self.upload.send(folder, commit_message or "End of training", token=token, revision=revision,
                                private=private, wait=blocking)

    def _save_for_hub(self) -> Path:
        """save_model(), and where it is."""
        folder = self._place / "model"
        self.save_model(str(folder))
        return folder

    def _push_checkpoint(self, folder: Path, step: int) -> Any:
        return self.upload.send(folder, f"Training in progress, step {step}", wait=False)


def clock(seconds: float) -> str:
    """h:mm:ss.cc

    >>> clock(3725.128)
    '1:02:05.12'
    """
    return f"{datetime.timedelta(seconds=int(seconds))}.{int(abs(seconds - int(seconds)) * 100):02d}"


def listed(value: Any) -> list[str]:
    """One text, several, or none."""
    return [] if not value else [value] if isinstance(value, str) else [str(each) for each in value]
