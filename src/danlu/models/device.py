"""Which device there is, and what it computes in."""


def device() -> str:
    """`cuda` where there is a GPU, else `cpu`."""
    return "cuda" if gpu()[0] else "cpu"


def num_gpus() -> int:
    """How many GPUs this machine has for us."""
    import torch

    return int(torch.cuda.device_count())


def gpu() -> tuple[bool, bool]:
    """Whether there is a GPU, and whether it computes in bfloat16."""
    import torch

    available = torch.cuda.is_available()
    return available, bool(available and torch.cuda.is_bf16_supported())
