"""Environments of the peers, each its own virtual environment under build/bench-envs, made once."""

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path("build/bench-envs")
TORCH = "torch==2.13.0"
RECIPES: dict[str, tuple[tuple[str, ...], ...]] = {
    # Each tuple is one `pip install` command; a constraint keeps every one of them at the same torch.
    "trl": ((TORCH, "trl==1.16.0", "peft==0.21.2", "transformers==5.23.0", "accelerate==1.15.0", "jinja2"),),
    # LLaMA-Factory's own requirements lead to a CUDA build of torch through torchvision and torchaudio, which text does not need.
    "llamafactory": (
        ("--no-deps", "llamafactory==0.9.5", "torchdata==0.11.0"),
        (TORCH, "transformers==5.6.0", "peft==0.18.1", "trl==0.24.0", "accelerate==1.11.0", "datasets==4.0.0", "omegaconf", "fire", "tyro<0.9")
        + ("einops", "matplotlib", "scipy", "sentencepiece", "tiktoken", "pyyaml", "pydantic", "fastapi", "uvicorn", "sse-starlette", "protobuf", "pandas")
        + ("av<=16.0.0", "hf-transfer", "modelscope"),
    ),
}


def python_of(name: str) -> Path:
    """The interpreter of environment `name`, which is made when it is not there."""
    folder = FOLDER / name
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print(f"making {folder} (once; downloads some hundred MB)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        constraint = FOLDER / "constraint.txt"
        constraint.write_text(TORCH + "\n")
        for packages in RECIPES[name]:
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--constraint", str(constraint), *packages], check=True)
        if name == "llamafactory":
            _stub_torchaudio(python)
        (folder / "ready").touch()
    return python


def _stub_torchaudio(python: Path) -> None:
    """LLaMA-Factory imports torchaudio for sound, which is not used here."""
    site = subprocess.run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True, capture_output=True, text=True)
    stub = Path(site.stdout.strip()) / "torchaudio"
    stub.mkdir(exist_ok=True)
    (stub / "__init__.py").write_text("")


def variables(threads: int) -> dict[str, str]:
    """Environment variables that every system gets."""
    repository = str(Path(__file__).parents[1])
    path = os.pathsep.join([str(Path(repository) / "src"), repository, *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
