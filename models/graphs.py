"""Graphs: the steps of a plan, recorded once and replayed for every tile.

A plan fixes the shape of every step. If the decoder never reads a number back from the device, the work of the device
is fixed too. So this work is recorded at the first tile, one recording a step, and replayed without Python for every
other tile of the same kind: labels, cells and noise of a tile are copied to where those of the first tile
were. On a GPU a recording is a CUDA graph. It starts all kernels of a step at once; with small batches, starting them
one by one is what takes the time.

Knows tiles, steps and recordings. Refuses to know what a decoder does between two steps. A decoder that cannot be
recorded, such as an adaptive order, decodes eagerly, and one sentence says so.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from orderbench.models.decode import Counters, Decoder, Step, Tile

Result = TypeVar("Result")


class NotRecorded(Exception):
    """Why there is no recording, as the beginning of a sentence."""


class Recorder(Protocol):
    """Records the steps of one decoding, one after another."""

    def rehearse(self, run: Callable[[], Result]) -> Result:
        """Run once as it will be recorded, so that what is made at a first call exists before."""

    def record(self, run: Callable[[], Result]) -> tuple[Result, Callable[[], object]]:
        """What `run` returned, and a call that does its work again in the same memory. Recordings are replayed in the
        order in which they were made."""


class CudaGraphs:
    """CUDA graphs in one pool of memory, so that a step may use what another has freed. Recording computes nothing.

    Raises NotRecorded for a device that has none.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise NotRecorded(f"CUDA graphs need a CUDA device, and this one is {device.type}")
        torch.cuda.synchronize(device)
        self._stream = torch.cuda.Stream(device)  # the default stream cannot be recorded
        self._pool = torch.cuda.graph_pool_handle()

    def rehearse(self, run: Callable[[], Result]) -> Result:
        """On the stream that will be recorded, whose workspaces are allocated now."""
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            result = run()
        torch.cuda.synchronize(self._stream.device)
        return result

    def record(self, run: Callable[[], Result]) -> tuple[Result, Callable[[], object]]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream):
            with torch.inference_mode(False):  # torch's generator keeps tensors from here, for other graphs too
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                result = run()
            except BaseException:
                with suppress(RuntimeError):  # an invalid recording cannot be ended well
                    graph.capture_end()
                raise
            graph.capture_end()
        return result, graph.replay


class Tape:
    """A stand-in for graphs on any device: operations are noted, and repeated into the tensors that they made first.

    It is no faster than eager decoding. It tests what a graph relies on: the work of a step depends on the tensors of
    its tile, and on nothing that Python holds.
    """

    def rehearse(self, run: Callable[[], Result]) -> Result:
        return run()

    def record(self, run: Callable[[], Result]) -> tuple[Result, Callable[[], object]]:
        noted = _Noted()
        with noted:
            result = run()
        return result, noted.replay


class _Noted(TorchDispatchMode):
    """Notes every operation with its arguments and what it returned."""

    def __init__(self) -> None:
        super().__init__()
        self._done: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        if func._schema.is_mutable:
            self._done.append((func, args, given, []))
        elif "empty" not in func.name():
            inputs = {_memory(x) for x in tree_leaves((args, given)) if isinstance(x, Tensor)}
            made = [x for x in tree_leaves(result) if isinstance(x, Tensor) and x.numel()]
            if any(_memory(x) not in inputs for x in made):  # else a view of what is there
                self._done.append((func, args, given, made))
        return result

    def replay(self) -> None:
        for func, args, given, made in self._done:
            again = func(*args, **given)
            if made:
                new = [x for x in tree_leaves(again) if isinstance(x, Tensor) and x.numel()]
                for old, value in zip(made, new, strict=True):
                    old.copy_(value)


def _memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


_CHOOSING = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class _Watch(TorchDispatchMode):
    """Refuses operations that no recording can repeat: those that wait for numbers of the device, or copy numbers to it
    from the processor."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        leaves = tree_leaves((args, given))
        tensors = [x for x in leaves if isinstance(x, Tensor)]
        masks = any(x.dtype in (torch.bool, torch.uint8) for x in tensors[1:])
        chooses = func.name() == "aten::is_nonzero" or any(tag in func.tags for tag in _CHOOSING)
        if chooses and (masks or not func.name().startswith("aten::index.")):
            raise NotRecorded(f"{func.name()} depends on the numbers that it is given")
        if func.name() == "aten::lift_fresh":
            raise NotRecorded("a step makes a tensor of Python's numbers")
        devices = {x.device.type for x in tensors} | {x.type for x in leaves if isinstance(x, torch.device)}
        if tensors and len(devices) > 1:
            raise NotRecorded(f"{func.name()} moves numbers between {' and '.join(sorted(devices))}")
        return func(*args, **given)


class Graphed:
    """A decoder whose steps are recorded at the first tile of a kind and replayed for all others.

    It is a decoder like any other: `decode(..., decoder=Graphed(plain_steps))`. Tiles are of a kind if model, lattice,
    step sizes, sampling, visibility and number of samples agree; seeds, samples, labels and cells may differ. What it
    yields is overwritten by the next tile. A recording and its memory, with the logits of all steps, are kept as long
    as the decoder. Weights may change in place; a model that was moved to another device is another kind.

    recorder: makes what records on a device. refused: one sentence for every kind of tile that is decoded eagerly, also
    given as a warning, once.
    """

    def __init__(self, decoder: Decoder, recorder: Callable[[torch.device], Recorder] = CudaGraphs) -> None:
        self.decoder, self.recorder = decoder, recorder
        self.refused: list[str] = []
        self._recordings: dict[Hashable, _Recording | None] = {}

    @torch.inference_mode()
    def __call__(self, tile: Tile) -> Iterator[Step]:
        kind = _kind(tile)
        if kind not in self._recordings:
            try:
                self._recordings[kind] = _record(self.decoder, tile, self.recorder(tile.cells_BL.device))
            except NotRecorded as reason:
                self._recordings[kind] = None
                self.refused.append(f"{reason}, so these steps are not recorded; decoding goes on eagerly")
                warnings.warn(self.refused[-1], stacklevel=1)
        recording = self._recordings[kind]
        yield from self.decoder(tile) if recording is None else recording.replay(tile)


@dataclass(frozen=True)
class _Recording:
    """tile: holds the inputs of every replay. steps: hold what a replay makes. replays: one call for each step."""

    tile: Tile
    steps: tuple[Step, ...]
    replays: tuple[Callable[[], object], ...]

    def replay(self, tile: Tile) -> Iterator[Step]:
        own = _inputs(self.tile)
        for name, given in _inputs(tile).items():
            own[name].copy_(given)
        self.tile.codes_BLK.zero_()
        self.tile.changes_BL.zero_()
        tile.codes_BLK, tile.changes_BL = self.tile.codes_BLK, self.tile.changes_BL  # where the steps write
        tile.counters = copy.copy(self.tile.counters)
        for step, replay in zip(self.steps, self.replays, strict=True):
            replay()
            yield step


def _record(decoder: Decoder, tile: Tile, recorder: Recorder) -> _Recording:
    """A recording of every step of a decoder, on copies of the inputs. Raises NotRecorded, and, from the rehearsal,
    whatever the decoder raises."""
    inputs: dict[str, Any] = {name: given.clone() for name, given in _inputs(tile).items()}
    noise = replace(tile.noise, numbers_BQK=inputs.pop("numbers_BLK"))
    written: dict[str, Any] = {
        name: torch.zeros_like(getattr(tile, name)) for name in ("codes_BLK", "changes_BL", "settled_BL")
    }
    own = replace(tile, **inputs, **written, noise=noise, counters=Counters())
    n_steps = recorder.rehearse(lambda: sum(1 for _ in decoder(own)))  # and the tile's masks are made
    own.begin()
    pieces = []
    going = decoder(own)
    try:
        with _Watch():
            for _ in range(n_steps):
                pieces.append(recorder.record(lambda: next(going)))
    except RuntimeError as problem:  # torch's, also for a CUDA call that a recording does not allow
        first_line = str(problem).partition("\n")[0]
        raise NotRecorded(f"the device refused to record ({first_line})") from problem
    return _Recording(own, tuple(step for step, _ in pieces), tuple(replay for _, replay in pieces))


def _inputs(tile: Tile) -> dict[str, Tensor]:
    """The tensors in which two tiles of one kind may differ."""
    held = {name: getattr(tile, name) for name in ("labels_B", "cells_BL", "scales_L", "forced_BLK")}
    held["numbers_BLK"] = tile.noise.numbers_BQK
    return {name: value for name, value in held.items() if value is not None}


def _kind(tile: Tile) -> Hashable:
    """Everything else that the work of a tile follows from, with the addresses of the weights."""
    layout = tuple((name, x.shape, x.dtype, x.device) for name, x in _inputs(tile).items())
    model: Any = tile.model
    weights = tuple(p.data_ptr() for p in model.parameters()) if isinstance(model, nn.Module) else ()
    return id(model), weights, tile.plan.lattice, tile.plan.sizes, tile.sampling, tile.in_group, layout
