"""MLflow, by its client alone. Its own settings hold: MLFLOW_TRACKING_URI, MLFLOW_TRACKING_TOKEN, MLFLOW_EXPERIMENT_NAME."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from danlu.tracking.base import TRACKERS, TrackerConfig

if TYPE_CHECKING:
    from danlu.run_dir import RunDir

MAX_PARAMETER = 500
"""Longest value of a parameter that every version of their server takes."""


@TRACKERS.register
class MLflow(TrackerConfig):
    """A tracking server or a file store."""

    type: Literal["mlflow"] = "mlflow"
    package: ClassVar[str] = "mlflow"
    secrets: ClassVar[tuple[str, ...]] = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME")

    def open(self, run_dir: RunDir, config: dict[str, Any], state: dict[str, Any]) -> MLflowRun:
        """Begin a run, or go on with the same one."""
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            raise LookupError("MLFLOW_TRACKING_URI is not set: name your server, such as http://localhost:5000")
        # Their defaults keep a run that cannot reach its server waiting for many minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        return MLflowRun(run_dir, config, state)


class MLflowRun:
    """One run of theirs."""

    def __init__(self, run_dir: RunDir, config: dict[str, Any], state: dict[str, Any]) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        self._id = state.get("id") or self._create(run_dir, config)
        if state.get("id"):
            self._client.update_run(self._id, status="RUNNING")
        self.state: dict[str, Any] = {"id": self._id}
        self.where = f"run {self._id}"

    def _create(self, run_dir: RunDir, config: dict[str, Any]) -> str:
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "danlu")
        experiment = self._client.get_experiment_by_name(name)
        identity = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run = self._client.create_run(identity, run_name=run_dir.id)
        self._client.log_batch(run.info.run_id, params=[Param(key, str(value)[:MAX_PARAMETER]) for key, value in config.items()])
        return str(run.info.run_id)

    def last_step(self, key: str) -> int:
        """What the server has: its history grows by a point at every call, the same step or not."""
        return max((metric.step for metric in self._client.get_metric_history(self._id, key)), default=-1)

    def log(self, step: int, seconds: float, values: dict[str, float]) -> None:
        """Send one row."""
        from mlflow.entities import Metric

        self._client.log_batch(self._id, metrics=[Metric(key, value, round(1000 * seconds), step) for key, value in values.items()])

    def close(self) -> None:
        """Say that it is over."""
        self._client.set_terminated(self._id)
