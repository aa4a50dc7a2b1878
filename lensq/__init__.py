"""Find strongly lensed quasars as anomalies of variational autoencoders.

The rooms of the package and their floors are drawn on the book's page on the architecture. The names below
are loaded when they are first used, so that `import lensq` costs no more than Python itself.
"""

from importlib import import_module
from pkgutil import iter_modules

__version__ = "0.1.0"

_ROOM_OF = {
    "check_parameters": "parameters",
    "simulate_survey": "simulate",
    "read_survey": "survey",
    "Survey": "survey",
    "MODELS": "models",
    "fit": "training",
    "Model": "training",
    "load_model": "training",
    "score": "scoring",
    "reconstruct": "scoring",
}
_ROOMS = sorted(module.name for module in iter_modules(__path__))

__all__ = [*_ROOM_OF, "__version__"]


def __getattr__(name: str):
    if name in _ROOM_OF:
        return getattr(import_module(f"lensq.{_ROOM_OF[name]}"), name)
    if name in _ROOMS:
        return import_module(f"lensq.{name}")
    raise AttributeError(f"lensq has no {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
