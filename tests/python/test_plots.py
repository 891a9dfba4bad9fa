"""Pictures of runs: which are drawn, from what, and what a broken metrics.jsonl is told."""
import json

import pytest

from grpo.errors import ConfigError, FileFormatError
from grpo.runs import plots

PNG = b"\x89PNG\r\n\x1a\n"
GRPO_PICTURES = ["overview", "reward", "rewards", "lengths", "kl", "entropy", "clipping", "loss", "optimizer", "speed"]
SFT_PICTURES = ["overview", "entropy", "loss", "optimizer", "speed"]


def grpo_record(step, **changed):
    """A record such as GRPOTrainer writes for one step."""
    return {"step": step, "epoch": step / 4, "reward": 0.1 * step, "reward_std": 0.2, "rewards/format/mean": 0.1,
            "rewards/format/std": 0.1,
            "rewards/accuracy/mean": 0.1 * step - 0.1, "rewards/accuracy/std": 0.3, "completions/mean_length": 20.0,
            "completions/min_length": 3.0, "completions/max_length": 32.0, "completions/clipped_ratio": 0.25,
            "loss": 0.0, "kl": 0.01 * step,
            "clip_ratio/low_mean": 0.0, "clip_ratio/high_mean": 0.01, "entropy": 2.0, "grad_norm": 1.5,
            "learning_rate": 1e-4, "generation_tokens_per_second": 900.0, "training_tokens_per_second": 3000.0,
            "step_time": 0.5, "time_share/generate": 0.6, "time_share/update": 0.3} | changed


def sft_record(step):
    return {"step": step, "epoch": step / 4, "loss": 2.0 / step, "entropy": 1.0, "training_tokens_per_second": 5000.0,
            "grad_norm": 1.0,
            "learning_rate": 1e-3, "step_time": 0.1, "time_share/update": 0.9}


def evaluation(step):
    return {"step": step, "epoch": step / 4, "eval_reward": 0.2 * step, "eval_reward_std": 0.1,
            "eval_rewards/format/mean": 0.5}


def graded(step):
    """An evaluation with accuracies in their confidence intervals."""
    return evaluation(step) | {f"eval_accuracy/{kind}{end}": value for kind in ("strict", "lenient", "extractive")
                               for end, value in (("", 0.4), ("/low", 0.3),
                                                  ("/high", 0.55))} | {f"eval_pass@k/{k}": k / 8 for k in (1, 2, 3, 4)}


def on_two_data_sets(step):
    """What graded() has, of each, and what Loop.evaluate adds."""
    return {"step": step,
            "epoch": step / 4} | {name.replace("eval_", f"eval_{data_set}_", 1): value for data_set in ("sums", "r1-2")
                                  for name, value in (graded(step) | {"eval_runtime": 1.0}).items()
                                  if name.startswith("eval_")}


def run(path, records):
    path.mkdir(parents=True)
    (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


CASES = {
    "GRPO": ([x for step in range(1, 9) for x in (grpo_record(step), evaluation(step))], GRPO_PICTURES),
    "graded": ([x for step in range(1, 4) for x in (grpo_record(step), graded(step))],
               sorted([*GRPO_PICTURES, "accuracy"], key=[*plots.PICTURES].index)),
    "graded on two data sets": ([x for step in range(1, 4) for x in (grpo_record(step), on_two_data_sets(step))],
                                sorted([*GRPO_PICTURES, "accuracy"], key=[*plots.PICTURES].index)),
    "smoothed": ([grpo_record(step) for step in range(1, 120)], GRPO_PICTURES),
    "one step": ([grpo_record(1), evaluation(1)], GRPO_PICTURES),
    "evaluation before the first step": ([evaluation(0)], ["overview", "reward"]),
    "SFT": ([sft_record(step) for step in range(1, 9)], SFT_PICTURES),
    "skipped step": ([grpo_record(1), {"step": 2, "grad_norm": None, "skipped_steps": 1.0}, grpo_record(3)],
                     GRPO_PICTURES),
    "a metric without numbers": ([grpo_record(1, kl=None), grpo_record(2, kl=float("nan"))],
                                 [p for p in GRPO_PICTURES if p != "kl"]),
    "std without numbers": ([grpo_record(step, reward_std=None) for step in (1, 2)], GRPO_PICTURES),
    "nothing to draw": ([{"step": 1, "epoch": 1.0}], []),
}


@pytest.mark.parametrize("records, pictures", CASES.values(), ids=CASES)
def test_pictures_of_what_was_logged(tmp_path, records, pictures):
    assert list(plots.figures(run(tmp_path / "run", records))) == pictures


def test_files_of_the_pictures(tmp_path):
    drawn = plots.plot_run(run(tmp_path / "run", CASES["graded"][0]))
    assert drawn == [tmp_path / "run" / "plots" / f"{name}.png" for name in CASES["graded"][1]]
    assert all(path.read_bytes().startswith(PNG) for path in drawn)


def test_a_second_drawing_replaces_the_first(tmp_path):
    folder = run(tmp_path / "run", [grpo_record(1)])
    first = plots.plot_run(folder, ["reward"])[0].read_bytes()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(grpo_record(step)) + "\n" for step in range(1, 50)))
    assert plots.plot_run(folder, ["reward"])[0].read_bytes() != first


def test_only_the_pictures_asked_for(tmp_path):
    drawn = plots.plot_run(run(tmp_path / "run", [grpo_record(1)]), ["speed", "reward"])
    assert ([path.name for path in drawn] == ["speed.png", "reward.png"]
            and sorted((tmp_path / "run" / "plots").iterdir()) == sorted(drawn))


def test_unknown_picture(tmp_path):
    with pytest.raises(ConfigError, match="no picture 'rewardz'; did you mean .*'reward'"):
        plots.plot_run(run(tmp_path / "run", [grpo_record(1)]), ["rewardz"])


@pytest.mark.parametrize("formats, suffixes", [(["png"], {".png"}), (["svg"], {".svg"}), (["pdf"], {".pdf"}),
                                               (["png", "svg", "pdf"], {".png", ".svg", ".pdf"})])
def test_formats(tmp_path, formats, suffixes):
    files = plots.plot_run(run(tmp_path / "run", [grpo_record(1), grpo_record(2)]), ["reward", "kl"], formats)
    assert ({path.suffix for path in files} == suffixes
            and len(files) == 2 * len(suffixes - {".pdf"}) + (".pdf" in suffixes))
    for path in files:
        assert path.read_bytes().startswith({".png": PNG, ".svg": b"<?xml", ".pdf": b"%PDF"}[path.suffix])
    if ".pdf" in suffixes:
        assert files[-1].name == "plots.pdf" and b"/Count 2" in files[-1].read_bytes()


def test_unknown_format(tmp_path):
    with pytest.raises(ConfigError, match="format 'pgn' is not one of png, svg, pdf; did you mean 'png'"):
        plots.plot_run(run(tmp_path / "run", [grpo_record(1)]), ["reward"], ["pgn"])


def test_a_figure_shows_itself_in_a_notebook(tmp_path):
    drawn = plots.figures(run(tmp_path / "run", [grpo_record(1)]), ["kl", "reward"])
    assert list(drawn) == ["kl", "reward"] and all(figure._repr_png_().startswith(PNG) for figure in drawn.values())


def panel(picture, title, records, tmp_path):
    log = plots.Metrics(run(tmp_path / "run", records))
    return {c.label: c for p in plots.PICTURES[picture]([log]) if p.title.startswith(title) for c in p.curves(log)}


def test_reward_has_a_band_and_the_evaluations(tmp_path):
    curves = panel("reward", "Reward", [grpo_record(1), evaluation(1), grpo_record(2), evaluation(2)], tmp_path)
    assert (curves["training"].steps, curves["training"].values) == ([1, 2], [0.1, 0.2])
    assert [pytest.approx(ends) for ends in ((-0.1, 0.3), (0.0, 0.4))] == curves["training"].band
    assert curves["evaluation"].values == [0.2, 0.4] and curves["evaluation"].band == []


@pytest.mark.parametrize("title, labels", [("format", ["training", "evaluation"]), ("accuracy", ["training"])])
def test_each_reward_is_a_panel(tmp_path, title, labels):
    assert list(panel("rewards", title, [grpo_record(1), evaluation(1)], tmp_path)) == labels


def test_a_single_reward_is_drawn_once(tmp_path):
    record = {name: value for name, value in grpo_record(1).items() if "accuracy" not in name}
    assert not panel("rewards", "", [record], tmp_path)


def test_accuracies_lie_in_their_intervals(tmp_path):
    curves = panel("accuracy", "Accuracy in evaluation", [graded(0), graded(5)], tmp_path)
    assert list(curves) == ["strict", "lenient", "extractive"] and curves["lenient"].band == [(0.3, 0.55)] * 2


@pytest.mark.parametrize("picture, title, labels", [
    ("reward", "Reward", ["training", "evaluation, sums", "evaluation, r1-2"]),
    ("rewards", "format", ["training", "evaluation, sums", "evaluation, r1-2"]),
    ("accuracy", "Accuracy in evaluation", ["lenient, sums", "lenient, r1-2"]),
    ("accuracy", "Accuracy on r1-2", ["strict", "lenient", "extractive"]),
    ("accuracy", "pass@k on sums", ["k = 1", "k = 2", "k = 4"]),
])
def test_each_data_set_has_its_curve(tmp_path, picture, title, labels):
    curves = panel(picture, title, [grpo_record(1), on_two_data_sets(1)], tmp_path)
    assert (list(curves) == labels
            and all(bool(c.band) == title.startswith("Accuracy") for c in list(curves.values())[1:]))


def test_loss_on_each_data_set(tmp_path):
    records = [sft_record(1),
               {"step": 1, "eval_a_loss": 1.5, "eval_a_runtime": 1.0, "eval_b_loss": 2.5, "eval_b_runtime": 1.0}]
    assert {label: curve.values for label, curve in panel("loss", "Loss", records, tmp_path).items()} == {
        "training": [2.0], "evaluation, a": [1.5], "evaluation, b": [2.5]}


def test_pass_at_powers_of_two(tmp_path):
    curves = panel("accuracy", "pass@k", [graded(0) | {"eval_pass@k/4/low": 0.1}], tmp_path)
    assert ({label: curve.values for label, curve in curves.items()}
            == {"k = 1": [1 / 8], "k = 2": [2 / 8], "k = 4": [4 / 8]})


def test_steps_without_a_number_are_left_out(tmp_path):
    records = [grpo_record(1), grpo_record(2, entropy=None), {"step": 3}, grpo_record(4)]
    assert panel("entropy", "Entropy", records, tmp_path)["training"].steps == [1, 4]


def test_shares_of_time_fill_the_step(tmp_path):
    records = [grpo_record(1), {"step": 2, "time_share/update": 0.9}]
    shares = panel("speed", "Where", records, tmp_path)
    assert list(shares) == ["generate", "update", "other"]
    assert shares["generate"].values == [0.6, 0.0]
    assert [sum(s.values[i] for s in shares.values()) for i in range(2)] == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("values, width, expected",
                         [([1.0, 3.0, 5.0], 1, [1, 3, 5]), ([1.0, 3.0, 5.0, 7.0], 2, [1, 2, 4, 6]), ([], 4, [])])
def test_moving_average(values, width, expected):
    assert plots.moving_average(values, width) == pytest.approx(expected)


@pytest.mark.parametrize("points, window", [(1, 1), (30, 1), (31, 4), (149, 4), (150, 6), (1000, 40)])
def test_longer_curves_are_smoothed_more(points, window):
    assert (plots.smoothed_over([plots.Curve("", [*range(points)], [0.0] * points), plots.Curve("", [1], [0.0])])
            == window)


BROKEN = {
    "missing": (None, "metrics.jsonl cannot be read"),
    "empty": ("", "metrics.jsonl holds no metrics"),
    "without a step": ('{"reward": 1.0}\n', "metrics.jsonl holds no metrics"),
    "cut off in the first line": ('{"step": 1, "rew', "metrics.jsonl holds no metrics"),
    "not text": (b"\xff\xfe", "metrics.jsonl holds no metrics"),
}


@pytest.mark.parametrize("content, message", BROKEN.values(), ids=BROKEN)
def test_broken_metrics_are_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FileFormatError, match=message):
        plots.plot_run(tmp_path)
    assert not (tmp_path / "plots").exists()


def test_a_last_line_cut_off_is_left_out(tmp_path):
    folder = run(tmp_path / "run", [grpo_record(1), grpo_record(2)])
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "rew')
    assert [r["step"] for r in plots.Metrics(folder).records] == [1, 2]


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["x/run", "y/run"]])
def test_runs_in_one_picture(tmp_path, names):
    runs = [run(tmp_path / name, [grpo_record(step) for step in range(1, 5)]) for name in names]
    out = plots.plot_runs(runs, tmp_path / "both.png")
    assert out == tmp_path / "both.png" and out.read_bytes().startswith(PNG)


def laid_over(picture, runs):
    logs = [(str(number), plots.Metrics(folder)) for number, folder in enumerate(runs)]
    return {panel.title: curves for p in plots.PICTURES[picture]([log for _, log in logs])
            for panel, curves in plots.laid_over(p, logs)}


def test_a_panel_for_each_curve_and_a_curve_for_each_run(tmp_path):
    runs = [run(tmp_path / "a", [grpo_record(1), evaluation(1)]), run(tmp_path / "b", [grpo_record(1), grpo_record(2)])]
    panels = laid_over("reward", runs)
    assert ({title: [c.label for c in curves] for title, curves in panels.items()}
            == {"Reward: training": ["0", "1"], "Reward: evaluation": ["0"]})
    assert [c.look for c in panels["Reward: training"]] == [0, 1] and panels["Reward: training"][1].steps == [1, 2]
    assert all(c.band for c in panels["Reward: training"])
    # from shortest to longest covers every other run
    assert not any(c.band for c in laid_over("lengths", runs)["Completion length"])
    # shares of time stack up to 1 for one run
    assert list(laid_over("speed", runs)) == ["Throughput: generation", "Throughput: training"]


def test_runs_of_one_name_are_told_apart(tmp_path):
    assert (plots.labels_of([tmp_path / "x" / "run", tmp_path / "y" / "run"])
            == [str(tmp_path / "x" / "run"), str(tmp_path / "y" / "run")])
    assert plots.labels_of([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]


def test_nothing_to_compare(tmp_path):
    with pytest.raises(ConfigError, match="nothing to compare"):
        plots.plot_runs([run(tmp_path / "bare", [{"step": 1}])], tmp_path / "out.png")
    with pytest.raises(ConfigError, match="an empty list"):
        plots.plot_runs([], tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()
