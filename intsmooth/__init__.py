"""Certified L2 robustness from integer-only neural networks.

    from intsmooth import ABSTAIN, Smooth, open_dataset

    smooth = Smooth("digits", sigma=0.25)
    certificate = smooth.certify(open_dataset("digits")[0].image, n=10_000)

Names are loaded when they are first used, so that `import intsmooth` stays light and the NumPy backend needs neither
numba nor scipy.
"""

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "ABSTAIN": "records",
    "Certificate": "records",
    "Dataset": "datasets",
    "Engine": "engine",
    "Graph": "records",
    "InputError": "errors",
    "IntsmoothError": "errors",
    "ModelError": "errors",
    "Smooth": "smooth",
    "Votes": "records",
    "build_table": "certificate_table",
    "certificate_from_counts": "certify",
    "certify_dataset": "run",
    "load": "h5file",
    "load_table": "certificate_table",
    "open_dataset": "datasets",
    "read_results": "results",
    "save": "h5file",
    "save_table": "certificate_table",
    "summarize": "report",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'intsmooth' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"intsmooth.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
