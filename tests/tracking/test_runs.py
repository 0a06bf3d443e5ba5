"""What a run logs to W&B, read back from the file that would be uploaded; and the dashboard's keys against it."""

import base64
import csv
import hashlib
import json
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from qbsnn.errors import SettingsError
from qbsnn.results.schema import Result
from qbsnn.tracking.runs import chosen_loggers, final_metrics
from qbsnn.tracking.wandb_file import read_history, read_records, values
from qbsnn.training import checkpoints
from qbsnn.training.record import claim
from tests.tool import ROOT, TINY, Tool, one_paragraph
from tests.tracking.offline import offline

# importing wandb-workspaces 0.4 uses what pydantic deprecated
workspaces = pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")


class Logged(NamedTuple):
    """A run directory and what its W&B file holds."""

    folder: Path
    records: list[Any]
    rows: list[dict[str, Any]]
    result: dict[str, Any]

    def run(self) -> Any:
        return next(record.run for record in self.records if record.HasField("run"))

    def column(self, key: str) -> list[Any]:
        return [row[key] for row in self.rows if key in row]

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for record in self.records:
            for item in record.summary.update:
                found[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        return found


def logged(folder: Path) -> Logged:
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    result = json.loads((folder / "result.json").read_text())
    return Logged(folder, list(read_records(path)), list(read_history(path)), result)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tool]:
    folder = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        offline(patch, folder)
        yield Tool(patch, folder)


@pytest.fixture(scope="module")
def trained(tools: Tool) -> Logged:
    arguments = ["logger=wandb", "logger.wandb.tags=[mine]", "logger.wandb.log_checkpoint=true", "neuron.s_max=3"]
    assert tools("train.py", *TINY, *arguments, "T=2", "trainer.max_epochs=2") == 0
    return logged(tools.runs()[-1])


def test_a_run_that_is_refused_tells_wandb_nothing(tools: Tool, trained: Logged) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in trained.folder.glob("wandb*/**/*") if path.is_file()}

    kept = files()
    assert tools("train.py", *TINY, "logger=wandb", "T=1", f"hydra.run.dir={trained.folder}") == 1
    assert kept and files() == kept


def test_a_run_that_starts_over_is_another_run_of_wandb(tmp_path: Path) -> None:
    (tmp_path / "wandb_id").write_text("abc")
    claim(tmp_path, {}, overwrite=True)
    assert not (tmp_path / "wandb_id").exists()


def test_group_tags_job_type_and_id(trained):
    run = trained.run()
    assert (run.project, run.job_type, run.run_group) == ("qbsnn", "train", "digits-vgg5-qb_lif")
    assert run.display_name == "digits-vgg5-qb_lif-seed0"
    assert list(run.tags) == ["digits", "vgg5", "qb_lif", "mine", "T=2", "s_max=3"]
    assert run.resume
    assert (trained.folder / "wandb_id").read_text().strip() == run.run_id
    contents = checkpoints.load(trained.folder / "checkpoints/last.ckpt")
    assert contents["qbsnn"]["wandb_id"] == run.run_id


def test_the_settings_are_those_of_the_result(trained):
    config: dict[str, Any] = {}
    for record in trained.records:
        config |= values(record.config.update)
    config.pop("_wandb", None)
    assert config == trained.result["config"]


def test_curves_are_those_of_the_csv_file_to_the_digit(trained):
    with (trained.folder / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    for name in set(table[0]) - {"step", "epoch"}:
        in_file = [(int(row["step"]), float(row[name])) for row in table if row[name]]
        in_wandb = [(row["trainer/global_step"], row[name]) for row in trained.rows if name in row]
        assert in_wandb == in_file, name
        assert in_file
    assert [row["_step"] for row in trained.rows] == list(range(len(trained.rows)))


def test_histograms_once_an_epoch_that_agree_with_the_means(trained):
    for layer in trained.result["layers"]:
        name = layer["name"]
        rows = [row for row in trained.rows if f"bursts/{name}" in row]
        means = [row for row in trained.rows if f"burst/{name}" in row]
        assert [row["trainer/global_step"] for row in rows] == [row["trainer/global_step"] for row in means] == [1, 3]
        for row, mean in zip(rows, means, strict=True):
            histogram = row[f"bursts/{name}"]
            assert histogram["_type"] == "histogram" and histogram["bins"] == [-0.5, 0.5, 1.5, 2.5, 3.5]
            counts = histogram["values"]
            (neurons,) = (found["neurons"] for found in trained.result["energy"]["layers"] if found["name"] == name)
            assert sum(counts) == neurons * 2 * 32  # T = 2, 32 validation images
            total = sum(size * count for size, count in enumerate(counts))
            assert mean[f"burst/{name}"] == pytest.approx(total / sum(counts), rel=1e-6)


def test_final_numbers_are_those_of_the_result(trained):
    result, summary = trained.result, trained.summary()
    wanted = {
        "final/test/acc": result["metrics"]["best"]["test/acc"],
        "final/last/test/acc": result["metrics"]["last"]["test/acc"],
        "final/integer/acc": result["integer"]["acc"],
        "final/integer/spike_mismatches": 0,
        "final/integer/membrane_mismatches": 0,
        "final/absorption/spike_mismatches": 0,
        "final/params": result["params"],
        "final/spikes_per_synapse": result["energy"]["spikes_per_synapse"],
        "final/relative_energy": result["energy"]["relative_synapses"],
        "final/energy_estimate/int": sum(result["energy"]["totals"]["int"]["network"].values()),
        "final/energy_over_quantized/fp32": result["energy"]["relative"]["fp32"]["quantized"],
    }
    for layer in result["layers"]:
        for figure in ("delta", "mean_burst", "saturation", "silent"):
            wanted[f"final/{figure}/{layer['name']}"] = layer[figure]
    for key, value in wanted.items():
        assert trained.column(key) == [pytest.approx(value, rel=1e-15)], key
        assert summary[key] == trained.column(key)[-1], key


def test_the_artifact_holds_the_files_of_the_run(trained):
    (artifact,) = (record.artifact for record in trained.records if record.HasField("artifact"))
    assert (artifact.type, artifact.name) == ("run", f"run-{trained.run().run_id}")
    metadata = json.loads(artifact.metadata)
    assert metadata["status"] == "finished" and metadata["seed"] == 0
    assert metadata["test_acc"] == trained.result["metrics"]["best"]["test/acc"]
    entries = {entry.path: entry for entry in artifact.manifest.contents}
    assert set(entries) == {"result.json", "report.html", "metrics.csv", "best.ckpt"}
    for name, entry in entries.items():
        (original,) = trained.folder.rglob(name)
        content = original.read_bytes()
        assert base64.b64decode(entry.digest) == hashlib.md5(content).digest(), name
        # what will be uploaded is a copy inside the run directory
        copy = Path(entry.local_path)
        assert copy.read_bytes() == content and trained.folder / "wandb" in copy.parents


def test_the_raster_is_an_image(trained):
    for name in ("raster", "bursts", "confusion"):
        (image,) = trained.column(f"figures/{name}")
        content = (trained.folder / "figures" / f"{name}.png").read_bytes()
        assert image["_type"] == "image-file" and image["sha256"] == hashlib.sha256(content).hexdigest()
        (copy,) = trained.folder.glob(f"wandb/offline-run-*/files/{image['path']}")
        assert copy.read_bytes() == content


def test_the_run_ends_with_its_exit_code(trained):
    assert [record.exit.exit_code for record in trained.records if record.HasField("exit")] == [0]


def test_a_failed_run_logs_its_result(tools, capsys):
    bad = ["logger=wandb", "report=false", "callbacks.delta.high=0.1", "optim.optimizer.lr=1e30"]
    assert tools("train.py", *TINY, *bad) == 1
    assert "diverged" in one_paragraph(capsys.readouterr().err)
    found = logged(tools.runs()[-1])
    assert [record.exit.exit_code for record in found.records if record.HasField("exit")] == [1]
    (artifact,) = (record.artifact for record in found.records if record.HasField("artifact"))
    metadata = json.loads(artifact.metadata)
    assert metadata["status"] == "failed" and "diverged" in metadata["error"]
    assert "result.json" in {entry.path for entry in artifact.manifest.contents}


def test_an_evaluation_is_a_run_of_its_own_in_the_same_group(tools, trained):
    checkpoint = trained.folder / "checkpoints/best.ckpt"
    assert tools("evaluate.py", f"ckpt={checkpoint}", "logger=wandb", "logger.wandb.project=other") == 0
    found = logged(tools.runs()[-1])
    run = found.run()
    assert (run.project, run.job_type, run.run_group) == ("other", "evaluate", trained.run().run_group)
    assert list(run.tags) == ["digits", "vgg5", "qb_lif", "T=2", "s_max=3"]
    assert run.run_id != trained.run().run_id
    assert found.column("final/test/acc") == trained.column("final/test/acc")


def test_unknown_loggers_are_refused():
    with pytest.raises(SettingsError, match=r"logger=wanb: no such logger; did you mean wandb\?"):
        chosen_loggers("wanb", ROOT / "conf/logger", {}, "evaluate")


@workspaces
def test_the_dashboard_asks_for_keys_that_a_run_has(trained, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["wandb_dashboard.py", "dry_run=true", "project=p"])
    runpy.run_path(str(ROOT / "scripts/wandb_dashboard.py"), run_name="__main__")
    spec = json.loads(capsys.readouterr().out)["section"]
    panels = [panel["config"] for section in spec["panelBankConfig"]["sections"] for panel in section["panels"]]
    logged_keys = {key for row in trained.rows for key in row}
    asked = {key for panel in panels for key in [*panel.get("metrics", []), *panel.get("mediaKeys", [])]}
    asked |= {panel["xAxis"] for panel in panels if panel.get("useMetricRegex")}
    assert {"train/loss", "figures/raster", "final/integer/spike_mismatches"} <= asked <= logged_keys
    patterns = [panel["metricRegex"] for panel in panels if panel.get("useMetricRegex")]
    layers = {layer["name"] for layer in trained.result["layers"]}
    for pattern in patterns:
        matched = {key for key in logged_keys if re.search(pattern, key)}
        assert {key.split("/")[-1] for key in matched} >= layers, pattern
        assert all(key.count("/") == 1 for key in matched), pattern
    accessors = {panel[axis] for panel in panels for axis in ("xAxis", "yAxis", "zAxis") if ":" in panel.get(axis, "")}
    accessors |= {column["accessor"] for panel in panels for column in panel.get("columns", [])}
    columns = set(spec["runSets"][0]["runFeed"]["columnOrder"])
    assert {"config:T.value", "config:neuron.value.s_max", "config:neuron.value.alpha"} <= accessors & columns
    summary = trained.summary()
    for accessor in (accessors | columns) - {"run:displayName", "run:group", "run:tags"}:
        place, key = accessor.split(":", 1)
        if place == "summary":
            assert key in summary, accessor
        else:
            name, *rest = key.split(".")
            assert rest[0] == "value", accessor
            node = trained.result["config"][name]
            for part in rest[1:]:
                node = node[part]
    axes = {(panel.get("xAxis"), panel.get("yAxis")) for panel in panels}
    accuracy = "summary:final/test/acc"
    assert ("config:T.value", accuracy) in axes and ("config:neuron.value.s_max", accuracy) in axes
    assert ("config:neuron.value.alpha", "config:neuron.value.beta") in axes
    assert ("summary:final/energy_estimate/int", accuracy) in axes


@workspaces
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["entty=me"], "entty is not a key of this tool: did you mean entity?"),
        (["dry_run=perhaps"], "dry_run must be true or false, got 'perhaps'"),
        (["project=p"], "entity is needed"),
        (["entity=me"], "the view cannot be saved: no API key for http://127.0.0.1:9"),
    ],
)
def test_bad_arguments_and_a_missing_key_are_one_error(tools, capsys, monkeypatch, arguments, words):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(tools.folder / "netrc"))
    assert tools("scripts/wandb_dashboard.py", *arguments) == 1
    assert words in one_paragraph(capsys.readouterr().err)


def test_the_rows_of_a_file_are_printed_as_csv(tools, trained, capsys):
    (path,) = trained.folder.glob("wandb/offline-run-*/run-*.wandb")
    assert tools("scripts/read_wandb.py", f"file={path}") == 0
    table = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(table) == len(trained.rows)
    printed = [float(row["val/acc"]) for row in table if row["val/acc"]]
    assert printed == trained.column("val/acc")
    assert "bursts/conv1" not in table[0]
    assert tools("scripts/read_wandb.py", f"file={trained.folder / 'result.json'}") == 1
    assert "is not a W&B log" in one_paragraph(capsys.readouterr().err)


def test_numbers_that_a_run_lacks_are_left_out():
    result = Result(command="", config={}, seed=0, host=None, git_commit=None, git_dirty=None, params=7)  # type: ignore
    result.integer = {"checkpoint": "best", "skipped": "no integer form"}
    result.metrics.best["test/acc"] = 0.5
    assert final_metrics(result) == {"final/params": 7, "final/test/acc": 0.5}
