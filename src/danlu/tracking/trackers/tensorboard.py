"""TensorBoard event files in the run folder: `tensorboard --logdir RUN/tensorboard`. Written without TensorFlow or torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from danlu.tracking.base import TRACKERS, TrackerConfig

if TYPE_CHECKING:
    from danlu.run_dir import RunDir


@TRACKERS.register
class TensorBoard(TrackerConfig):
    """Event files beside metrics.jsonl."""

    type: Literal["tensorboard"] = "tensorboard"
    package: ClassVar[str] = "tensorboard"

    def open(self, run_dir: RunDir, config: dict[str, Any], state: dict[str, Any]) -> EventFiles:
        """Begin anew: what an earlier attempt wrote is written again from metrics.jsonl, which has every step once."""
        return EventFiles(run_dir)


class EventFiles:
    """One event file."""

    def __init__(self, run_dir: RunDir) -> None:
        import shutil

        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = run_dir.path / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        self.where, self.state = str(folder), dict[str, Any]()
        self._writer = EventFileWriter(str(folder))

    def last_step(self, key: str) -> int:
        """It begins empty."""
        return -1

    def log(self, step: int, seconds: float, values: dict[str, float]) -> None:
        """Write one event."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(tag=key, simple_value=value) for key, value in values.items()])
        self._writer.add_event(Event(step=step, wall_time=seconds, summary=summary))

    def close(self) -> None:
        """Flush."""
        self._writer.close()
