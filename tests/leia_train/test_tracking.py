"""Metrics go to a tracker too: TensorBoard's files by default, others where they are asked for."""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest
from accelerate import PartialState
from interrupting import interrupted_at

from leia_beam.errors import MissingResource
from leia_train import tracking
from leia_train.cli import main
from leia_train.metrics import read_metrics
from leia_train.tracking import Tracking, choose_tracker

OPTIONS = {"seed": 42, "strategy": "right", "name_loss": True, "entities": [], "output": None}


def needs(package, extra):
    """A mark that skips where a package is missing."""
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed: pip install {extra}")


def scalars(folder):
    """What TensorBoard itself reads: (step, value) by name; of a step that was done twice the last."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: {event.step: event.value for event in events.Scalars(name)} for name in events.Tags()["scalars"]}


@needs("tensorboard", "'leia-lm[train]'")
def test_a_run_that_was_killed_has_its_curves_in_tensorboard(arguments, tmp_path):
    """Every step's loss and each evaluation, as in metrics.jsonl; nothing beside the run's folder."""
    flags = ("--tracker", "auto", "--eval-every", 2)
    with interrupted_at(3):
        assert main(arguments(*flags)) == 75
    assert main(arguments(*flags)) == 0
    found = scalars(tmp_path / "run/tensorboard")
    records = read_metrics(tmp_path / "run")
    expected = {record["step"]: record["loss"] for record in records if "loss" in record}
    assert found["loss"] == pytest.approx(expected) and list(expected) == [1, 2, 3, 4]
    evaluated = {record["step"]: record["evaluation"]["bits_per_byte"] for record in records if "evaluation" in record}
    assert found["bits_per_byte/validation"] == pytest.approx(evaluated) and list(evaluated) == [2, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@needs("wandb", "wandb")
def test_wandb_keeps_an_offline_run_in_the_runs_folder(tmp_path, monkeypatch):
    """WANDB_MODE=offline: files, and no account."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    PartialState(cpu=True)
    made = Tracking("wandb", tmp_path, OPTIONS, lambda line: None)
    made.write(1, {"loss": 2.0})
    made.close()
    assert len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) == 1


@needs("trackio", "trackio")
def test_trackio_keeps_a_run_on_this_machine(tmp_path, monkeypatch):
    """In the folder that it was given."""
    import trackio.utils

    monkeypatch.setattr(trackio.utils, "TRACKIO_DIR", tmp_path / "trackio")
    PartialState(cpu=True)
    made = Tracking("trackio", tmp_path / "run", OPTIONS, lambda line: None)
    made.write(1, {"loss": 2.0})
    made.close()


class Recorder:
    """A tracker that notes what it is told."""

    def __init__(self, *arguments, **options):
        self.made, self.told = (arguments, options), []

    def start(self):
        self.told.append("start")

    def store_init_configuration(self, values):
        self.told.append(values)

    def log(self, values, step):
        self.told.append((step, values))

    def finish(self):
        self.told.append("finish")


def test_only_numbers_are_tracked_and_a_run_that_goes_on_stays_one_run(tmp_path, monkeypatch):
    """W&B is told the same id for a folder each time, and to go on with it; nothing but plain options."""
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Error=RuntimeError))
    monkeypatch.setattr("accelerate.tracking.WandBTracker", Recorder)
    first, again, other = (
        Tracking("wandb", tmp_path / name, OPTIONS, lambda line: None) for name in ("run", "run", "other")
    )
    first.write(3, {"loss": 1.5, "name_loss": None, "step": 3, "epoch": 0})
    first.close()
    plain = {"seed": 42, "strategy": "right", "name_loss": True}
    assert first._tracker.told == ["start", plain, (3, {"loss": 1.5, "epoch": 0}), "finish"]
    options = [made._tracker.made[1] for made in (first, again, other)]
    assert options[0] == options[1] and options[0]["id"] != options[2]["id"]
    assert options[0]["resume"] == "allow" and options[0]["dir"] == str(tmp_path / "run")


def test_wandb_without_an_account_exits_5_with_the_way_out(tmp_path, monkeypatch):
    """Instead of a traceback."""

    class Refused(Exception):
        pass

    class Refusing(Recorder):
        def start(self):
            raise Refused("api_key not configured\nmore")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Error=Refused))
    monkeypatch.setattr("accelerate.tracking.WandBTracker", Refusing)
    with pytest.raises(MissingResource, match="--tracker wandb: api_key not configured; WANDB_MODE=offline"):
        Tracking("wandb", tmp_path, OPTIONS, lambda line: None)


def test_a_tracker_that_is_asked_for_must_be_there_and_auto_takes_tensorboard_alone(monkeypatch):
    """Nothing is sent anywhere unless it is asked for."""
    there = {"wandb", "trackio"}
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: ModuleType(name) if name in there else None)
    assert choose_tracker("auto") is None and choose_tracker("none") is None
    assert choose_tracker("wandb") == "wandb"
    with pytest.raises(MissingResource, match="--tracker tensorboard: tensorboard is not installed: pip install"):
        choose_tracker("tensorboard")
    there.add("tensorboard")
    assert choose_tracker("auto") == "tensorboard"


def test_no_tracker_is_nothing(tmp_path):
    """And metrics.jsonl is written all the same."""
    made = Tracking(None, tmp_path, OPTIONS, lambda line: None)
    made.write(1, {"loss": 1.0})
    made.close()
    assert list(tmp_path.iterdir()) == []
