"""Models without a tokenizer, which run on token ids, and tokenizers that a caller gives."""
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

import grpo
import make_files
import toy
from grpo.errors import ConfigError, DatasetError, FileFormatError, GrpoWarning, TokenizerError
from grpo.model.formats.safetensors import SafetensorsFolder

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
IDS = [[97, 98, 99], [104, 105]]
ROWS = [{"prompt": [97, 98]}, {"prompt": [99]}]


@pytest.fixture
def saved(tmp_path) -> Path:
    """A whole model folder."""
    toy.model("ref").save_pretrained(tmp_path / "whole")
    return tmp_path / "whole"


def bare(saved: Path) -> Path:
    """The same folder without its tokenizer."""
    folder = saved.parent / "bare"
    shutil.copytree(saved, folder)
    for name in TOKENIZER_FILES:
        (folder / name).unlink(missing_ok=True)
    return folder


def bare_gguf(saved: Path) -> Path:
    """A GGUF without a vocabulary."""
    config = json.loads((saved / "config.json").read_text())
    state = toy.model("ref").state_dict()
    weights = SafetensorsFolder(saved)
    path = saved.parent / "bare.gguf"
    metadata = {key: value for key, value in make_files.model_metadata(config).items()
                if not key.startswith("tokenizer.")}
    path.write_bytes(make_files.gguf(metadata, make_files.gguf_tensors({name: state[name] for name in weights.shapes()},
                                                                       config)))
    weights.close()
    return path


def load_bare(path: Path):
    with pytest.warns(GrpoWarning, match=f"{path.name}: has no .*tokenizer="):
        return grpo.load(path, "ref")


@pytest.mark.parametrize("make", [bare, bare_gguf])
def test_token_ids_are_enough(saved, make):
    model, whole = load_bare(make(saved)), grpo.load(saved, "ref")
    ours, theirs = (m.generate(IDS, 2, max_new_tokens=5) for m in (model, whole))
    ends = set(whole.tokenizer.eos_ids)
    for one, other in zip(ours, theirs, strict=True):
        assert one.text == "" and (one.token_ids == other.token_ids or ends & set(other.token_ids))
    completions = [c.token_ids for c in theirs]
    prompts = [c.prompt_ids for c in theirs]
    for one, other in zip(model.logprobs(prompts, completions), whole.logprobs(prompts, completions), strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(model.embed(IDS), whole.embed(IDS))


def test_a_folder_knows_where_completions_end(saved):
    folder = bare(saved)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [258, 7]}))
    assert load_bare(folder).tokenizer.eos_ids == [258, 7]
    (folder / "generation_config.json").unlink()
    assert load_bare(folder).tokenizer.eos_ids == [258]


@pytest.mark.parametrize("eos, ids", [(999, []), (-1, []), ([258, 999], [258]), ([None, 7], [7])])
def test_an_end_outside_the_vocabulary(saved, eos, ids):
    folder = bare(saved)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert grpo.load(folder, "ref").tokenizer.eos_ids == ids
    said = [str(w.message) for w in caught if "end-of-text id" in str(w.message)]
    assert len(said) == (999 in np.ravel(eos) or eos == -1) and all("left out" in text for text in said)


@pytest.mark.parametrize("eos", ["x", [True], 258.0])
def test_an_end_that_is_no_id(saved, eos):
    folder = bare(saved)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    with pytest.raises(FileFormatError, match="end-of-text id"):
        grpo.load(folder, "ref")


@pytest.mark.parametrize("call", [
    lambda m: m.generate("text", max_new_tokens=2), lambda m: m.generate(["text"], max_new_tokens=2),
    lambda m: m.generate([[{"role": "user", "content": "a"}]], max_new_tokens=2),
    lambda m: m.generate(IDS, max_new_tokens=2, stop="x"), lambda m: m.embed(["text"]), lambda m: m.prompt_ids("text"),
    lambda m: m.tokenizer.encode("text"), lambda m: m.tokenizer.decode([1]),
    lambda m: m.tokenizer.apply_chat_template([{"role": "user", "content": "a"}]), lambda m: m.tokenizer.token_bytes(),
])
@pytest.mark.parametrize("make", [bare, bare_gguf])
def test_text_is_refused(saved, make, call):
    model = load_bare(make(saved))
    with pytest.raises(TokenizerError, match="no tokenizer.*tokenizer="):
        call(model)


def test_training_on_ids(saved, tmp_path):
    model = load_bare(bare(saved))
    seen = []

    def reward(completions, completion_ids, **columns):
        seen.extend(completions)
        return [sum(ids) / 1000 for ids in completion_ids]

    trainer = toy.trainer(tmp_path, reward, rows=ROWS, policy=model, save_strategy="steps")
    assert trainer.train().global_step == 3 and set(seen) == {""}
    again = trainer.run.path / "checkpoints" / "step-3"
    assert not (again / "tokenizer.json").exists()
    assert load_bare(again).state_dict().keys() == model.state_dict().keys()


def test_fine_tuning_on_ids(saved, tmp_path):
    rows = [{"prompt": [97, 98], "completion": [99, 258]}]
    options = grpo.SFTConfig(output_dir=str(tmp_path / "run"), max_steps=2, save_strategy="no")
    folder = bare(saved)
    bare_trainer = grpo.SFTTrainer(load_bare(folder), options, rows)
    assert bare_trainer.examples[0][0].tolist() == [97, 98] and bare_trainer.examples[0][1].tolist() == [99, 258]
    assert bare_trainer.train().global_step == 2
    with pytest.raises(DatasetError, match="row 0.*no tokenizer"):
        grpo.SFTTrainer(load_bare(folder), options, [{"prompt": "a", "completion": "b"}])


def test_prompts_of_text_name_the_row(saved, tmp_path):
    with pytest.raises(DatasetError, match="row 0.*no tokenizer"):
        toy.trainer(tmp_path, policy=load_bare(bare(saved)), max_prompt_length=1, rows=[{"prompt": "abc"}])


# -- tokenizer=
# ----------------------------------------------------------------------------------------------------------

def tokenizers_object(saved):
    import tokenizers

    return tokenizers.Tokenizer.from_file(str(saved / "tokenizer.json"))


class Savable:
    """What those of transformers have."""

    def __init__(self, saved):
        self.saved = saved

    def save_pretrained(self, folder):
        for name in TOKENIZER_FILES:
            shutil.copy(self.saved / name, folder)


def gguf_with_vocabulary(saved):
    path = saved.parent / "vocabulary.gguf"
    config = json.loads((saved / "config.json").read_text())
    state = toy.model("ref").state_dict()
    metadata = make_files.model_metadata(config) | make_files.byte_level_metadata()
    path.write_bytes(make_files.gguf(metadata, make_files.gguf_tensors(state, config)))
    return path


GIVEN = {"Tokenizer": lambda saved: grpo.Tokenizer.from_pretrained(saved), "folder": str, "path": Path,
         "file": lambda saved: saved / "tokenizer.json", "gguf": gguf_with_vocabulary, "tokenizers": tokenizers_object,
         "transformers": Savable}


@pytest.mark.parametrize("kind", GIVEN)
@pytest.mark.parametrize("make", [bare, bare_gguf])
def test_a_tokenizer_that_is_given(saved, make, kind):
    whole, path = grpo.load(saved, "ref"), make(saved)
    model = grpo.load(path, "ref", tokenizer=GIVEN[kind](saved))
    assert model.tokenizer.encode("abc") == whole.tokenizer.encode("abc")
    assert model.generate("a", max_new_tokens=3)[0].prompt_ids == [97]
    if make is bare:
        assert 258 in model.tokenizer.eos_ids
    model.save_pretrained(saved.parent / "again")
    assert grpo.load(saved.parent / "again", "ref").tokenizer.encode("abc") == [97, 98, 99]


def test_a_tokenizer_in_place_of_the_models_own(saved):
    tokenizer = grpo.Tokenizer.bytes()
    assert grpo.load(saved, "ref", tokenizer=tokenizer).tokenizer is tokenizer
    assert grpo.load(grpo.tiny(**toy.SIZES), "ref", tokenizer=tokenizer).tokenizer is tokenizer


@pytest.mark.parametrize("what, error, named", [
    (5, ConfigError, "tokenizer="), ("no/such/folder/x", FileFormatError, "no/such/folder/x"),
    (Path("/nowhere"), FileFormatError, "nowhere"), (grpo.Tokenizer.bytes(["word"]), TokenizerError, "259"),
])
def test_a_tokenizer_that_is_none(saved, what, error, named):
    with pytest.raises(error, match=named):
        grpo.load(saved, "ref", tokenizer=what)


def test_a_processing_class_is_the_tokenizer_of_a_model_without_one(saved, tmp_path, capsys):
    model, tokenizer = load_bare(bare(saved)), grpo.Tokenizer.bytes()
    grpo.GRPOTrainer(model, toy.byte_values, grpo.GRPOConfig(**toy.options(tmp_path)), toy.ROWS,
                     processing_class=tokenizer)
    assert model.tokenizer is tokenizer and "processing_class" not in capsys.readouterr().err
    other = grpo.Tokenizer.bytes()
    grpo.GRPOTrainer(model, toy.byte_values, grpo.GRPOConfig(**toy.options(tmp_path)), toy.ROWS, processing_class=other)
    assert model.tokenizer is other


def test_a_tokenizer_of_transformers(saved):
    transformers = pytest.importorskip("transformers")
    model = grpo.load(bare(saved), "ref", tokenizer=transformers.AutoTokenizer.from_pretrained(saved))
    whole = grpo.load(saved, "ref")
    assert model.tokenizer.encode("abc") == [97, 98, 99] and model.tokenizer.eos_ids[0] == 258
    chat = [{"role": "user", "content": "hi"}]
    assert model.tokenizer.apply_chat_template(chat) == whole.tokenizer.apply_chat_template(chat)
