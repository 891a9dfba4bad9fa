"""The model's card, and its way to the hub.

A run on a machine that does not reach the hub prepares the folder and says how it is uploaded. A token that is missing
or refused is an error when the trainer is made, and a warning once there is something to lose.
"""
from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..errors import ConfigError, note, warn
from ..runs import replace_text

LEFT_OUT = ["_*", ".*", "checkpoint-*", "checkpoints/*", "completions/*", "eval/*", "plots/*", "tensorboard/*",
            "trainer/*", "MANIFEST.json"]
PACKAGES = (("grpo", "cgrpo"), ("NumPy", "numpy"), ("Tokenizers", "tokenizers"), ("Transformers", "transformers"),
            ("Datasets", "datasets"))
CARD = """---
{head}---

# {name}

{origin} It was trained with {method} by grpo, a trainer that needs no PyTorch.

## How to use it

```python
import grpo

model = grpo.load("{where}")
print(model.generate([[{{"role": "user", "content": "What is 12 + 30?"}}]], max_new_tokens=128)[0].text)
```

The folder has the layout of Hugging Face models, so that transformers (`AutoModelForCausalLM.from_pretrained`) and vLLM
read it too.

## How it was trained

{method}{paper}: {facts}

{numbers}### Versions

{versions}
"""


class Upload:
    """The repository that a run's model goes to. args: a config with push_to_hub, hub_model_id and the like; name: what
    the repository is called where hub_model_id says nothing."""

    def __init__(self, args: Any, name: str) -> None:
        self.asked: str = args.hub_model_id or re.sub(r"[^\w.-]+", "-", name)
        self.revision, self.private = args.hub_revision, args.hub_private_repo
        self._token: str | None = getattr(args, "hub_token", None)
        self.repo_id: str | None = None      # once the repository is there
        self.busy = False

    def prepare(self) -> None:
        """Makes the repository, before anything is trained. ConfigError where it cannot be; a note where the hub is not
        reached."""
        if why := self._unreached():
            note(f"push_to_hub: {why}; the folder will be prepared, and uploaded later: hf upload {self.asked} FOLDER")
            return
        from huggingface_hub import get_token

        if self._token is None and get_token() is None:
            raise ConfigError("push_to_hub=True needs a token that may write: log in (hf auth login), or set HF_TOKEN")
        try:
            self._make(None)
        except Exception as error:           # the library's errors are many, and what they say is what helps
            raise ConfigError(f"push_to_hub=True: {self.asked} cannot be made on the hub: {error!s:.300}") from error

    def _unreached(self) -> str:
        """Why nothing can be uploaded; empty where it can."""
        from huggingface_hub import constants

        if constants.HF_HUB_OFFLINE:
            return "HF_HUB_OFFLINE is set"
        return "" if reachable(constants.ENDPOINT) else f"{constants.ENDPOINT} is not reached"

    def _make(self, token: str | None) -> Any:
        from huggingface_hub import HfApi

        api = HfApi(token=token or self._token)
        if self.repo_id is None:
            self.repo_id = str(api.create_repo(self.asked, private=self.private, exist_ok=True).repo_id)
        return api

    def send(self, folder: Path, message: str, *, token: str | None = None, revision: str | None = None,
             private: bool | None = None, wait: bool = True) -> Any:
        """Uploads a folder, without checkpoints and logs; what upload_folder() of huggingface_hub returns. None, and a
        warning that says how to, where it cannot be."""
        self.private = self.private if private is None else private
        by_hand = f"the model is in {folder}: hf upload {self.repo_id or self.asked} {folder}"
        if why := self._unreached():
            note(f"push_to_hub: nothing is uploaded, since {why}; {by_hand}")
            return None
        try:
            api = self._make(token)
            return api.upload_folder(repo_id=self.repo_id, folder_path=str(folder), commit_message=message,
                                     revision=revision or self.revision, ignore_patterns=LEFT_OUT,
                                     run_as_future=not wait)
        except Exception as error:           # hours of training are behind it
            warn(f"push_to_hub: the upload failed: {error!s:.300}; {by_hand}")
            return None


def reachable(endpoint: str) -> bool:
    """Whether the hub answers at all."""
    from huggingface_hub import get_session

    try:
        get_session().head(endpoint, timeout=10)
    except Exception:                        # of whichever HTTP library the hub's is built on
        return False
    return True


class PushCheckpoints:
    """The callback of push_to_hub with hub_strategy='every_save': each checkpoint's model is uploaded while training
    goes on."""

    def __init__(self, push: Callable[[Path, int], Any]) -> None:
        self._push, self._last = push, None

    def on_save(self, args: Any, state: Any, control: Any, run: Any = None, **kwargs: Any) -> None:
        """Begins an upload, unless the one before is still under way."""
        if run is not None and (self._last is None or self._last.done()):
            from ..runs import checkpoint

            if (folder := checkpoint.latest(run.checkpoints)) is not None:
                self._last = self._push(folder, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Waits for the last of them."""
        if self._last is not None and (error := self._last.exception()) is not None:
            warn(f"push_to_hub: a checkpoint was not uploaded: {error!s:.300}")


def model_card(*, name: str, where: str, base_model: str | None, datasets: Iterable[str], tags: Iterable[str],
               method: str, paper: Mapping[str, str], facts: str, numbers: Mapping[str, float],
               more: Mapping[str, Any] = {}) -> str:  # noqa: B006
    """The text of a README.md: the fields that the hub reads, and what a reader wants to know. paper: title and id, or
    empty. numbers: of an evaluation. more: further fields; those that are None are left out."""
    import yaml

    datasets = list(datasets)
    fields = {"base_model": base_model, "datasets": datasets[0] if len(datasets) == 1 else datasets or None,
              "library_name": "transformers", "license": None, "model_name": name,
              "tags": list(dict.fromkeys(["generated_from_trainer", *tags])), **more}
    head = yaml.safe_dump({key: value for key, value in fields.items() if value not in (None, [])}, sort_keys=False,
                          allow_unicode=True)
    hub = "https://huggingface.co"
    origin = f"A fine-tuned version of [{base_model}]({hub}/{base_model})" if base_model else "A fine-tuned model"
    if datasets:
        origin += ", on " + ", ".join(f"[{each}]({hub}/datasets/{each})" for each in datasets)
    shown = "".join(f"| {metric} | {value:.4g} |\n" for metric, value in numbers.items())
    return CARD.format(head=head, name=name, origin=f"{origin}.", method=method, where=where, facts=facts,
                       paper=f" ([{paper['title']}]({hub}/papers/{paper['id']}))" if paper else "",
                       numbers=f"| evaluation | value |\n|---|---|\n{shown}\n" if shown else "",
                       versions="\n".join(f"- {label}: {found}" for label, found in versions()))


def versions() -> Iterable[tuple[str, str]]:
    """(label, version) of the packages that are there."""
    for label, package in PACKAGES:
        try:
            yield label, version(package)
        except PackageNotFoundError:
            continue


def base_of(name_or_path: str) -> str | None:
    """The hub id that a model was loaded by; None for a folder."""
    is_id = re.fullmatch(r"[\w.-]+/[\w.-]+", name_or_path) and not os.path.isdir(name_or_path)
    return name_or_path if is_id else None


def write_card(folder: Path, text: str) -> Path:
    """README.md of a folder. A ConfigError names a folder that cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: the folder cannot be made: {error.strerror}") from error
    path = folder / "README.md"
    replace_text(path, text)
    return path
