"""Run a student's function so that nothing it does reaches the course: loops, output, errors, changed inputs."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import inspect
import io
import linecache
import os
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
    """What came of one case: an answer, or the error and the line of code where it arose.

    `changed` ends the sentence "Your function ..." with what it left changed, and is empty where all is as it was.
    """

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

    The function gets copies of the arguments. PyTorch's random numbers and settings (types, devices, threads, modes)
    and the working folder are afterwards as they were.
    """
    printed = _Printed()
    outcomes: dict[str, Outcome] = {}
    for about, arguments in cases.items():
        outcomes[about] = _one_case(function, arguments, printed, seconds)
        if isinstance(outcomes[about].error, OutOfTime | KeyboardInterrupt):
            break
    return outcomes, printed.getvalue() + ("..." if printed.cut else "")


def _one_case(
    function: Callable[..., Any], arguments: tuple[Any, ...], printed: io.StringIO, seconds: float
) -> Outcome:
    given = copies(arguments)
    running = _Running()
    try:
        with (
            redirect_stdout(printed),
            redirect_stderr(printed),
            _settings_kept(),
            torch.random.fork_rng(devices=[]),
            torch.inference_mode(False),
            torch.enable_grad(),
            limit(seconds, running),
        ):
            torch.manual_seed(0)
            running.function = True
            answer = function(*given)
            running.function = False
            switched_off = not torch.is_grad_enabled()
            if inspect.iscoroutine(answer):
                answer.close()  # or Python would warn, at any time later, that nobody awaited it
    except BaseException as error:  # also SystemExit and OutOfTime: whatever it is, the student is told in words
        return Outcome(error=error, line=_line(error))
    changed = [_change(before, after) for before, after in zip(arguments, given, strict=True)]
    if switched_off:
        changed.append(
            "has switched gradients off, and not on again: nothing could be trained after it. `with torch.no_grad():` "
            "switches them on again by itself."
        )
    return Outcome(answer=answer, changed=next(filter(None, changed), ""))


def copies(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments anew: what a function does to them stays with it."""
    return tuple(_copy(argument) for argument in arguments)


def _copy(argument: Any) -> Any:
    if isinstance(argument, Tensor) and not argument.is_leaf:
        return argument.clone()  # deepcopy refuses a tensor with a history
    if isinstance(argument, torch.Generator):
        return torch.Generator(argument.device).set_state(argument.get_state())
    return copy.deepcopy(argument)


@contextmanager
def _settings_kept() -> Iterator[None]:
    getters_and_setters: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
        (torch.get_default_dtype, torch.set_default_dtype),
        (torch.get_default_device, torch.set_default_device),
        (torch.get_num_threads, torch.set_num_threads),
        (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
        (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        (os.getcwd, os.chdir),
        (sys.getrecursionlimit, sys.setrecursionlimit),
    )
    before = [get() for get, _ in getters_and_setters]
    try:
        yield
    finally:
        for (get, put), value in zip(getters_and_setters, before, strict=True):
            if get() != value:
                put(value)


def _change(before: Any, after: Any) -> str:
    """What a function did to an argument, in words; nothing where it is after the call what it was before."""
    if isinstance(before, nn.Module) and not _same(before, after):
        return _change_of_network(before, after)
    if not _same(before, after):
        return (
            f"has changed {_describe(after)} that it was given. "
            "Whoever calls it would lose it: work on a copy, not in place."
        )
    if isinstance(before, Tensor) and before.requires_grad != after.requires_grad:
        return (
            f"has left a mark on {_describe(after)} that it was given: whether that asks for a gradient "
            "(`requires_grad`) is no longer as it was. Whoever calls it goes on with the same tensor, and did not "
            "want that: let a copy ask."
        )
    if isinstance(before, Tensor) and _holds_gradient(before) != _holds_gradient(after):
        return (
            f"has left a gradient (`.grad`) in {_describe(after)} that it was given, and the next `.backward()` would "
            "add to it. Let a copy ask for the gradient."
        )
    return ""


def _change_of_network(before: nn.Module, after: nn.Module) -> str:
    if [module.training for module in before.modules()] != [module.training for module in after.modules()]:
        return (
            "has left the network in another mode than it was in. Whoever trains it goes on in that mode: remember it "
            "before, `was = network.training`, and restore it after, `network.train(was)`."
        )
    if _state(before) == _state(after):
        return (
            "has changed weights or statistics of the network that it was given. Whoever calls it goes on with those."
        )
    return (
        "has changed the network that it was given: its hooks, which of its weights ask for a gradient, or their "
        "`.grad`. `.backward()` fills that of every weight on the way; `torch.autograd.grad(score, x)` fills none."
    )


def _holds_gradient(tensor: Tensor) -> bool:
    return tensor.is_leaf and tensor.grad is not None  # to look at the `grad` of another than a leaf is warned about


def _same(before: Any, after: Any) -> bool:
    """Whether an argument holds after the call what it held before."""
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


class _Running:
    """Whether the function itself runs, and not what is around it."""

    function = False


@contextmanager
def limit(seconds: float, running: _Running | None = None) -> Iterator[None]:
    """Raise OutOfTime in the block after `seconds`, again and again as long as the block goes on.

    Reaches Python code between two of its steps, and, on the main thread of Linux and macOS, code that sleeps or waits
    too; a single long computation inside a library ends first.
    """
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        limited = _by_signal(seconds, running)
    else:
        limited = _by_thread(seconds)
    with limited:
        yield


@contextmanager
def _by_signal(seconds: float, running: _Running | None = None) -> Iterator[None]:
    stops, over, busy = 0, False, False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stops, busy
        if over or busy:  # alarms may come faster than they are dealt with, and would pile up one inside the other
            return
        busy = True
        try:
            if not _in_the_function(frame, running):
                return
            stops += 1
            # Where a bare `except:` swallows the stop, stop sooner and sooner, until one arrives inside that `except`.
            interval = max(_REPEAT / 2 ** min(stops, 20), 2e-5)  # thousands of stops would be a number too large
            signal.setitimer(signal.ITIMER_REAL, interval, interval)
        finally:
            busy = False
        raise OutOfTime

    start = time.monotonic()
    old_handler = signal.signal(signal.SIGALRM, stop)
    old_rest, old_interval = signal.setitimer(signal.ITIMER_REAL, seconds, _REPEAT)
    try:
        yield
    finally:
        over = True  # an alarm that is on its way would interrupt `signal.signal` below, and set the clock again
        signal.setitimer(signal.ITIMER_REAL, 0)
        if stops:
            # The last alarm may be on its way through another thread, and would ring for the handler that was there
            # before; and if there was none, that would end the process.
            time.sleep(0.05)
        signal.signal(signal.SIGALRM, old_handler)
        if old_rest:  # somebody else's alarm, a test's for instance, goes on where it was
            signal.setitimer(signal.ITIMER_REAL, max(old_rest - (time.monotonic() - start), 0.001), old_interval)
    if stops:
        raise OutOfTime  # the function caught it and returned


def _in_the_function(frame: FrameType | None, running: _Running | None) -> bool:
    """Whether the code that an alarm interrupts is the function's: a stop must never hit what cleans up after it."""
    ours = (__file__, contextlib.__file__)
    innermost, called = frame, None
    while frame is not None and frame.f_code is not _one_case.__code__:
        called, frame = frame, frame.f_back
    if frame is None:
        return innermost is not None and innermost.f_code.co_filename not in ours
    if called is None:  # a function that is no Python code has no frame of its own
        return running is None or running.function
    return called.f_code.co_filename not in ours


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
