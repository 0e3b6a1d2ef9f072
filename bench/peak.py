"""The machine's float32 matrix peak, in GFLOP/s: the better of PyTorch's two libraries on products of the bench's shapes."""

import json
import time


def main() -> None:
    import torch

    from danlu.training.kernels import gemm

    best = {"mkl": 0.0, "onednn": 0.0}
    for m, k, n in ((2048, 768, 2304), (2048, 2304, 768), (4096, 768, 768), (2048, 2048, 2048)):
        x, w = torch.randn(m, k), torch.randn(n, k)
        out = torch.empty(m, n)
        calls = {"mkl": lambda x=x, w=w, out=out: torch.mm(x, w.T, out=out)}
        if torch.backends.mkldnn.is_available():
            calls["onednn"] = lambda x=x, w=w: torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")
        for name, call in calls.items():
            call()
            for _ in range(12):
                start = time.perf_counter()
                call()
                best[name] = max(best[name], 2 * m * k * n / (time.perf_counter() - start) / 1e9)
    print(json.dumps({**best, "uses_onednn": gemm.has_fast_onednn()}))


if __name__ == "__main__":
    main()
