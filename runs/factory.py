"""A user's own model: what `--model pkg.module:factory` names, called.

Knows imports, and how a stranger's code fails. Refuses to know what the model is asked.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from orderbench.orders import BenchError
from orderbench.orders.errors import said


def call_factory(name: str) -> Any:
    """What `pkg.module:factory`, called without arguments, returns; the current folder can be imported from.

    What it prints goes to stderr. Raises BenchError for a name of another form, a module or function that is not there,
    and for anything that either raises.
    """
    ask = "a factory is a function without arguments that returns a model, as in --model my_model:build"
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise BenchError(f"'{name}' names no factory; {ask}")
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    with contextlib.redirect_stdout(sys.stderr):
        try:
            factory = importlib.import_module(module_name)
            for part in attribute.split("."):
                factory = getattr(factory, part)
        except ModuleNotFoundError as problem:
            if problem.name is None or not (module_name + ".").startswith(problem.name + "."):
                raise BenchError(f"'{module_name}' needs the module '{problem.name}', which is not there") from problem
            raise BenchError(f"there is no module '{problem.name}' here or installed; {ask}") from problem
        except AttributeError as problem:
            if module_name in sys.modules:
                raise BenchError(f"the module '{module_name}' holds no '{attribute}'; {ask}") from problem
            raise _fault(f"importing '{module_name}'", problem) from problem
        except KeyboardInterrupt:
            raise
        except BaseException as problem:
            raise _fault(f"importing '{module_name}'", problem) from problem
        if not callable(factory):
            raise BenchError(f"'{name}' is a {type(factory).__name__} and cannot be called; {ask}")
        try:
            return factory()
        except BenchError:
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as problem:
            raise _fault(f"'{name}()'", problem) from problem


def _fault(doing: str, problem: BaseException) -> BenchError:
    """A stranger's code raised: what, and on which line."""
    last = traceback.extract_tb(problem.__traceback__)[-1]
    where = f"{Path(last.filename).name}, line {last.lineno}"
    return BenchError(f"{doing} raised {said(problem)} ({where}); --debug shows its traceback")
