"""A Transformers callback that times each step and counts the tokens the model really saw. Needs transformers only."""

import json
import resource
import sys
import time
from pathlib import Path

from transformers import TrainerCallback


class Watch(TrainerCallback):
    """Counts tokens in a forward pre-hook, so that prefetched batches do not count early."""

    def __init__(self, pad_id, counts_only_training=False):
        self.only_training = counts_only_training  # not the reference model's passes
        self.pad_id, self.tokens, self.seconds, self.losses, self._count = pad_id, [], [], [], 0
        self.cpu_seconds, self._start, self._cpu_start = [], 0.0, 0.0

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        inner.get_input_embeddings().register_forward_pre_hook(self._see)

    def _see(self, module, args):
        import torch

        if torch.is_grad_enabled() or not self.only_training:
            self._count += int((args[0] != self.pad_id).sum())

    def on_step_begin(self, args, state, control, **kwargs):
        self._count, self._start, self._cpu_start = 0, time.perf_counter(), time.process_time()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds.append(time.perf_counter() - self._start)
        self.cpu_seconds.append(time.process_time() - self._cpu_start)
        self.tokens.append(self._count)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))

    def finish(self):
        """Print the result as the last line of the output."""
        peak = peak_memory_bytes()
        sys.stdout.flush()
        result = {"losses": self.losses, "tokens": self.tokens, "seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "peak_memory_bytes": peak}
        print("\n" + json.dumps(result), flush=True)


def peak_memory_bytes():
    """Most memory this process ever held; unlike getrusage's number, /proc's does not begin with the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
