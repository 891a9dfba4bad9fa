"""The command line: what it prints, the exit codes, what a run leaves, and what is wrong said in one sentence."""
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import yaml

import grpo
from grpo import cli
from grpo.errors import ConfigError
from grpo.options import GRPOConfig, option_names
from grpo.recipes import Recipe

SMALL = ["--model.hidden_size", "32", "--model.num_hidden_layers", "1", "--model.num_attention_heads", "2",
         "--model.num_key_value_heads", "1",
         "--model.intermediate_size", "64"]
SHORT = ["--sft.max_steps", "2", "--sft.per_device_train_batch_size", "4", "--max_steps", "2", "--prompts_per_step",
         "2", "--num_generations", "2",
         "--max_completion_length", "8", "--eval_size", "4", "--eval_steps", "1", "--save_steps", "1", "--disable_tqdm"]


def run(*words):
    """The exit code of a command line."""
    return cli.main([str(word) for word in words])


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """A run of the recipe quickstart, made small, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "quickstart"
    done = subprocess.run([sys.executable, "-m", "grpo", "train", *SMALL, *SHORT, "--output-dir", str(folder)],
                          capture_output=True, text=True,
                          cwd=os.path.dirname(os.path.dirname(grpo.__file__)))
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# grpo, grpo --help


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_usage(words, capsys):
    assert run(*words) == 0
    text = capsys.readouterr().out
    assert all(f"grpo {name}" in text for name in cli.COMMANDS) and "Start with: grpo train" in text


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_of_commands(command, capsys):
    assert run(command, "--help") == 0
    text = capsys.readouterr().out
    assert f"usage: grpo {command}" in text and max(map(len, text.splitlines())) < 150


def test_help_all_has_every_field(capsys):
    assert run("train", "--help-all") == 0
    text = capsys.readouterr().out
    assert all(f"--{name} " in text for name in option_names(GRPOConfig))
    assert "dr_grpo" in text.partition("--loss_type ")[2].partition("--aggregation")[0]


def test_version(capsys):
    assert run("--version") == 0 and capsys.readouterr().out == f"grpo {grpo.__version__}\n"


def test_output_that_nobody_reads():
    process = subprocess.Popen([sys.executable, "-m", "grpo", "recipes"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE,
                               cwd=os.path.dirname(os.path.dirname(grpo.__file__)))
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 141


# wrong command lines


@pytest.mark.parametrize("words, message", [
    (["trian"], "no command 'trian'; did you mean 'train'?"),
    (["train", "--num_generation", "4"], "unknown option --num_generation; did you mean '--num_generations'"),
    (["train", "--learning-rte", "1"], "unknown option --learning_rte; did you mean '--learning_rate'"),
    (["train", "--xyzzy"], "unknown option --xyzzy."),
    (["train", "--max_steps"], "expected one argument"),
    (["train", "--shuffle_dataset", "maybe"], "'maybe' is not true or false"),
    (["train", "--dataset_kwargs", "{digits: "], "not YAML"),
    (["train", "quickstart", "sums"], "unrecognized arguments: sums"),
    (["generate", "hello"], "--model"),
    (["generate", "--model", "x", "--max-tokens", "3", "hello"],
     "unknown option --max_tokens; did you mean '--max_new_tokens'"),
    (["plot"], "RUN"), (["doctor", "--fix"], "unknown option --fix."),
])
def test_usage_errors(words, message, capsys):
    assert run(*words) == 2
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") <= 2 and not out


@pytest.mark.parametrize("words, message", [
    (["train", "nope"], "there is no recipe 'nope'. There are captcha, clock, "),
    (["train", "quickstrat"], "did you mean 'quickstart'"),
    (["train", "--num_generations", "1"], "num_generations=1"),
    (["train", "--loss_type", "ppo"], "loss_type='ppo' is not one of"),
    (["train", "--temperature", "hot"], "temperature='hot' must be float"),
    (["train", "--use_peft"], "use_peft=True cannot be honoured: every weight is trained"),
    (["recipes", "dappo"], "did you mean 'dapo'"),
    (["train", "--model", "nowhere/model"], "no data: give --dataset"),
    (["train", "--dataset", "arithmetic"], "no model: give --model"),
    (["train", "--model", "./nowhere", "--dataset", "arithmetic"], "./nowhere: no such file or folder"),
    (["train", "--dataset", "aritmetic", "--model", "x"], "did you mean 'arithmetic'"),
    (["train", "--rewards", "corectness_reward"], "did you mean 'correctness_reward'"),
    (["train", "--dataset_kwargs.digit", "1"], "no option 'digit'; did you mean 'digits'"),
    (["train", "--sft.learning_rte", "1"], "unknown option 'learning_rte'; did you mean 'learning_rate'"),
    (["train", "--sft.dataset", "none"], "sft needs a dataset"),
    (["train", "--model.hidden_sise", "64"], "hidden_size"),
    (["train", "--preset", "gpro"], "did you mean"),
    (["train", "--num_chains", "4", "--num_generations", "8"], "say the same thing"),
    (["train", "--resume_from_checkpoint"], "needs --output_dir"),
    (["train", "--resume_from_checkpoint", "nowhere/checkpoints/step-1"], "nowhere"),
    (["train", "--output_dir", "/proc/nowhere"], "/proc/nowhere"),
    (["plot", "nowhere"], "nowhere"),
    (["eval", "runs/nowhere"], "runs/nowhere"),
    (["eval", "./nowhere", "--dataset", "arithmetic"], "./nowhere: no such file or folder"),
    (["generate", "--model", "nowhere/x.gguf", "hello"], "nowhere/x.gguf: no such file"),
    (["plan", "--model", "./nowhere"], "./nowhere: no such file or folder"),
    (["plan", "--dataset", "arithmetic"], "no model"),
])
def test_errors_are_one_sentence_and_write_nothing(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 1
    out, err = capsys.readouterr()
    assert message in err and err.startswith("grpo: ") and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback():
    with pytest.raises(ConfigError):
        run("--debug", "train", "nope")
    with pytest.raises(ConfigError):
        run("train", "nope", "--debug")


# grpo train


def test_a_run_leaves_its_folder(quickstart):
    folder, text = quickstart
    assert ({"config.yaml", "recipe.yaml", "metrics.jsonl", "completions", "plots", "checkpoints", "sft"}
            <= {p.name for p in folder.iterdir()})
    assert yaml.safe_load((folder / "config.yaml").read_text())["max_steps"] == 2
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {"step-1", "step-2"}
    assert ({p.stem for p in (folder / "plots").iterdir()}
            >= {"reward", "kl", "entropy", "lengths", "optimizer", "speed"})
    assert [r["step"] for r in records(folder / "metrics.jsonl") if "loss" in r] == [1, 2]
    assert len(json.loads((folder / "eval" / "step-000000.json").read_text())["completions"]) == 4


def test_a_run_says_what_it_is_and_what_was_learned(quickstart):
    folder, text = quickstart
    begin, _, end = text.partition("What was learned")
    for part in ("tiny qwen2", "M parameters", "arithmetic", "4 more held out",
                 "correctness_reward, strict_format_reward", "What is ",
                 "2 prompts x 2 completions", "Warm-up"):
        assert part in begin
    for part in ("accuracy on 4 held-out rows", "correctness_reward, held out", "before", "after",
                 f"Run folder {folder}", "reward.png",
                 f"grpo generate --model {folder}"):
        assert part in end


def test_the_same_seed_trains_the_same_model(quickstart, tmp_path, capsys):
    folder, _ = quickstart
    assert run("train", folder / "recipe.yaml", "--output_dir", tmp_path / "again") == 0
    first, again = (grpo.load(path / "checkpoints" / "step-2").state_dict() for path in (folder, tmp_path / "again"))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert run("train", folder / "recipe.yaml", "--output_dir", tmp_path / "other", "--seed", "7") == 0
    other = grpo.load(tmp_path / "other" / "checkpoints" / "step-2").state_dict()
    assert not np.array_equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_resuming_needs_nothing_but_the_checkpoint(quickstart, tmp_path, capsys):
    folder, _ = quickstart
    assert (run("train", "--resume_from_checkpoint", folder / "checkpoints" / "step-1", "--output_dir",
                tmp_path / "resumed") == 0)
    whole, resumed = (grpo.load(path / "checkpoints" / "step-2").state_dict()
                      for path in (folder, tmp_path / "resumed"))
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)
    assert (tmp_path / "resumed" / "recipe.yaml").exists()


def test_an_existing_run_is_moved_aside_whole(quickstart, tmp_path, capsys):
    folder = tmp_path / "again"
    shutil.copytree(quickstart[0], folder, symlinks=True)
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert run("train", folder / "recipe.yaml", "--sft", "none", "--eval_strategy", "no", "--eval_on_start", "no",
               "--output_dir", folder) == 0
    assert {path: (tmp_path / "again-1" / path).read_bytes() for path in before} == before
    said = capsys.readouterr()
    assert f"Run folder {folder}" in said.out and f"is in {tmp_path / 'again-1'} now" in said.err


def test_no_steps_are_a_run_too(tmp_path, capsys):
    words = ["--max_steps", "0", "--eval_strategy", "no", "--eval_on_start", "no", "--output_dir",
             str(tmp_path / "run")]
    assert run("train", *SMALL, *SHORT, *words) == 0
    assert "nothing was learned" in capsys.readouterr().out


def test_own_data_and_reward_without_a_recipe(tmp_path, capsys):
    grpo.load(grpo.tiny(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
                        intermediate_size=64)) \
        .save_pretrained(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "ab", "answer": "c"}\n{"prompt": "cd"}\n')
    (tmp_path / "mine.py").write_text("def letters(completions, **columns):\n"
                                      "    return [float(c.count('e')) for c in completions]\n")
    words = ["train", "--model", tmp_path / "model", "--dataset", tmp_path / "rows.jsonl", "--rewards",
             f"{tmp_path / 'mine.py'}:letters",
             "--max_steps", "1", "--prompts_per_step", "1", "--num_generations", "2", "--max_completion_length", "4"]
    assert run(*words, "--output_dir", tmp_path / "run") == 0
    assert "letters" in capsys.readouterr().out
    assert "rewards/letters/mean" in records(tmp_path / "run" / "metrics.jsonl")[0]
    assert run(*words, "--output_dir", tmp_path / "run", "--eval_strategy", "steps") == 1
    assert "rows.jsonl is one file and has no split 'test'" in capsys.readouterr().err
    assert run(*words[:5]) == 1
    assert "row 1 has no answer" in capsys.readouterr().err


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_names_its_checkpoint(tmp_path, sent):
    words = ["train", *SMALL, *SHORT, "--max_steps", "100000", "--eval_strategy", "no", "--eval_on_start", "no",
             "--save_total_limit", "2",
             "--output_dir", str(tmp_path / "run")]
    with subprocess.Popen([sys.executable, "-m", "grpo", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True,
                          cwd=os.path.dirname(os.path.dirname(grpo.__file__)),
                          preexec_fn=lambda: signal.signal(sent, signal.SIG_DFL)) as process:
        try:
            steps = (line for line in process.stderr if "/100000 " in line)
            assert next(steps) and next(steps)  # the first has its checkpoint once the second is reported
            process.send_signal(sent)
            err = process.stderr.read()
        finally:
            process.kill()
    assert process.returncode == 130 and "Traceback" not in err
    checkpoint = err.rpartition("--resume_from_checkpoint ")[2].strip()
    assert grpo.load(checkpoint).num_parameters() > 0


# grpo generate, plot, plan, doctor


def test_generate(quickstart, capsys):
    folder, _ = quickstart
    assert run("generate", "--model", folder, "What is 1 + 1?", "--max_new_tokens", 5, "-n", 2, "--seed", 3) == 0
    out, err = capsys.readouterr()
    assert "--- 1 of 2" in out and "--- 2 of 2" in out and "tokens/s" in err
    expected = grpo.load(folder / "checkpoints" / "step-2").generate([[{"role": "user", "content": "What is 1 + 1?"}]],
                                                                     2, 5, seed=3)
    assert out == "".join(f"--- {i} of 2\n{c.text}\n" for i, c in enumerate(expected, 1))


def test_generate_raw_and_from_stdin(quickstart, capsys, monkeypatch):
    import io

    folder, _ = quickstart
    monkeypatch.setattr(sys, "stdin", io.StringIO("ab\n"))
    assert run("generate", "--model", folder / "checkpoints" / "step-1", "--raw", "--max_new_tokens", 3) == 0
    assert (capsys.readouterr().out == grpo.load(folder / "checkpoints"
                                                 / "step-1").generate("ab", max_new_tokens=3, temperature=0)[0].text
            + "\n")


@pytest.mark.parametrize("words, message", [(["--raw", "--system", "x", "hello"], "--raw"),
                                            (["--max_new_tokens", "0", "hello"], "max_new_tokens"),
                                            (["--temperature", "-1", "hello"], "temperature"), ([""], "no prompt")])
def test_generate_refuses(quickstart, words, message, capsys):
    assert run("generate", "--model", quickstart[0], *words) == 1
    assert message in capsys.readouterr().err


def test_plot(quickstart, tmp_path, capsys, monkeypatch):
    folder, _ = quickstart
    monkeypatch.chdir(tmp_path)
    (folder / "plots" / "reward.png").unlink()
    assert run("plot", folder) == 0 and (folder / "plots" / "reward.png").exists()
    assert run("plot", folder, folder, "--format", "svg,pdf", "--pictures", "reward", "kl") == 0
    assert {path.name for path in (tmp_path / "comparison").iterdir()} == {"reward.svg", "kl.svg", "plots.pdf"}
    assert run("plot", folder, "--out", "here", "--pictures", "kl") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "here/kl.png" and (tmp_path / "here" / "kl.png").exists()


def test_plan(quickstart, capsys):
    for words, workspace in ((["--slots", "512", "--max_completion_length", "3000"], "KV cache of the rollout"),
                             (["--model", quickstart[0], "--dataset", "arithmetic", "--slots", "4"],
                              "activations of the update")):
        assert run("plan", *words) == 0
        text = capsys.readouterr().out
        assert workspace in text and "AdamW moments" in text and "free here" in text
    small, large = (Recipe.read("quickstart").change({"max_completion_length": length}).plan().total
                    for length in (16, 4096 - 256))
    assert small < large


def test_plan_that_does_not_fit(capsys, monkeypatch):
    monkeypatch.setattr("grpo.planning.memory.available_memory", lambda: 10_000_000)
    assert run("plan") == 0
    text = capsys.readouterr().out
    assert "does not fit" in text and text.count("\n  --") >= 3


def test_doctor(capsys):
    assert run("doctor") == 0
    text = capsys.readouterr().out
    for part in ("python", "cpu backend", "tier", "processor", "threads", "memory", "nvidia driver", "cuda plugin",
                 "datasets", "math-verify", "reasoning-gym"):
        assert part in text
    assert "Ready: grpo train" in text
