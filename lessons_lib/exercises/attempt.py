"""Run a student's function so that nothing it does reaches the course: loops, output, errors, changed inputs."""

from __future__ import annotations

import copy
import ctypes
import inspect
import io
import linecache
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

SECONDS = 5.0  # for one case; the cases are small, and a right answer takes milliseconds
_REPEAT = 0.1  # seconds after which a function that swallowed the stop is stopped again
_PRINTED = 2000  # characters of what a function prints that are kept


@dataclass(frozen=True)
class Outcome:
    """What came of one case: an answer, or the error and the line of code where it arose."""

    answer: Any = None
    error: BaseException | None = None
    line: str = ""
    changed: str = ""


class OutOfTime(BaseException):
    """Stops a function that does not end. No Exception, lest the function's own `except Exception` catches it."""


class _Printed(io.StringIO):
    """Keeps the beginning of what is printed: an endless loop may print endlessly."""

    cut = False

    def write(self, text: str) -> int:
        room = _PRINTED - self.tell()
        self.cut = self.cut or len(text) > room
        super().write(text[: max(room, 0)])
        return len(text)


def attempt(
    function: Callable[..., Any], cases: Mapping[str, tuple[Any, ...]], seconds: float = SECONDS
) -> tuple[dict[str, Outcome], str]:
    """What `function` makes of each case, and what it printed. Never raises; stops at a case that takes too long.

    The function gets copies of the arguments. Random numbers and PyTorch's settings are afterwards as they were.
    """
    printed = _Printed()
    outcomes: dict[str, Outcome] = {}
    for about, arguments in cases.items():
        outcomes[about] = _one_case(function, arguments, printed, seconds)
        if isinstance(outcomes[about].error, OutOfTime):
            break
    return outcomes, printed.getvalue() + ("..." if printed.cut else "")


def _one_case(
    function: Callable[..., Any], arguments: tuple[Any, ...], printed: io.StringIO, seconds: float
) -> Outcome:
    given = tuple(_copy(argument) for argument in arguments)
    dtype = torch.get_default_dtype()
    try:
        with (
            redirect_stdout(printed),
            redirect_stderr(printed),
            torch.random.fork_rng(devices=[]),
            torch.inference_mode(False),
            torch.enable_grad(),
            _limit(seconds),
        ):
            torch.manual_seed(0)
            answer = function(*given)
            if inspect.iscoroutine(answer):
                answer.close()  # or Python would warn, at any time later, that nobody awaited it
    except BaseException as error:  # also SystemExit and OutOfTime: whatever it is, the student is told in words
        return Outcome(error=error, line=_line(error))
    finally:
        torch.set_default_dtype(dtype)
    changed = [_describe(g) for a, g in zip(arguments, given, strict=True) if not _same(a, g)]
    return Outcome(answer=answer, changed=changed[0] if changed else "")


def _copy(argument: Any) -> Any:
    if isinstance(argument, torch.Generator):
        return torch.Generator(argument.device).set_state(argument.get_state())
    return copy.deepcopy(argument)


def _same(before: Any, after: Any) -> bool:
    """Whether an argument is after the call what it was before."""
    if isinstance(before, Tensor):
        return after.shape == before.shape and torch.equal(after.detach(), before.detach())
    if isinstance(before, nn.Module):
        return _state(before) == _state(after) and all(
            torch.equal(a, b) for a, b in zip(before.state_dict().values(), after.state_dict().values(), strict=True)
        )
    if isinstance(before, torch.Generator):
        return True  # to draw from it is what it is for
    return bool(before == after)


def _state(model: nn.Module) -> list[tuple[Any, ...]]:
    """What a well-behaved function leaves alone: mode, hooks, gradients, and which parameters ask for one."""
    modules = [
        (name, m.training, len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
        for name, m in model.named_modules()
    ]
    return modules + [(name, p.requires_grad, p.grad is None) for name, p in model.named_parameters()]


def _describe(argument: Any) -> str:
    if isinstance(argument, Tensor):
        return f"the tensor of shape {tuple(argument.shape)}"
    return f"the {type(argument).__name__}"


def _line(error: BaseException) -> str:
    """The innermost line of the student's own code in the traceback of `error`."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and frame.filename != __file__]
    if not own:
        return ""
    return linecache.getline(own[-1].filename, own[-1].lineno or 0).strip()


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the block after `seconds`, again and again as long as the block goes on.

    Reaches Python code between two of its steps, and, on the main thread of Linux and macOS, code that sleeps or waits
    too; a single long computation inside a library ends first.
    """
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        limited = _by_signal(seconds)
    else:
        limited = _by_thread(seconds)
    with limited:
        yield


@contextmanager
def _by_signal(seconds: float) -> Iterator[None]:
    stops = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stops
        stops += 1
        if stops > 1 and frame is not None:
            # A bare `except:` swallowed the last one. Raise in the line after this too: inside that `except`.
            frame.f_trace = _stop_at_next_line
            sys.settrace(_stop_at_next_line)
        raise OutOfTime

    start = time.monotonic()
    old_handler = signal.signal(signal.SIGALRM, stop)
    old_rest, old_interval = signal.setitimer(signal.ITIMER_REAL, seconds, _REPEAT)
    old_trace = sys.gettrace()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old_handler)
        if sys.gettrace() is _stop_at_next_line:
            sys.settrace(old_trace)
        if old_rest:  # somebody else's alarm, a test's for instance, goes on where it was
            signal.setitimer(signal.ITIMER_REAL, max(old_rest - (time.monotonic() - start), 0.001), old_interval)
    if stops:
        raise OutOfTime  # the function caught it and returned


def _stop_at_next_line(frame: FrameType, event: str, argument: Any) -> Any:
    if event == "line":
        raise OutOfTime
    return _stop_at_next_line


@contextmanager
def _by_thread(seconds: float) -> Iterator[None]:
    over = threading.Event()
    here = ctypes.c_ulong(threading.get_ident())
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    stops = 0

    def stop() -> None:
        nonlocal stops
        wait = seconds
        while not over.wait(wait):
            raise_in(here, ctypes.py_object(OutOfTime))
            stops += 1
            wait = _REPEAT

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        raise_in(here, None)  # one that was sent but has not arrived yet
    if stops:
        raise OutOfTime
