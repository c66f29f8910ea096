"""Running a trained network on windows: colours in, probabilities out, boxes only when asked.

Engines with one interface. `torch` always works; `openvino` (extra `fast`) is some three times faster on a CPU and is made
from the torch modules when a model is opened: weights stay safetensors, nothing else is kept on disk. Both give the
same probabilities to within PARITY. `openvino-int8` computes with integers of 8 bits, twice as fast again, for models that
carry the ranges (`network/eight_bit.py`); what that does to the figures stands in the model's card. A window is computed
by one thread in each, so a result does not depend on how many workers there are; which engine it was is part of the
result.

The network runs in parts. The backbone down to stride 8 and the dense branch look only some pixels far and go over a
window in strips, which takes a fraction of the memory; the rest of the backbone sees the whole window. The dense
branch, a third of the cost, sees what is left when the margin is cut off, the towers see the fields around candidates
(`box_support.py`).
"""

import ctypes
import functools
import importlib.util
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.detector.boxes import decode_boxes
from analysis.detector.configuration import PYRAMID_STRIDES, NetworkConfig, times_finer
from analysis.detector.enlarging import enlarged
from analysis.detector.network import eight_bit
from analysis.detector.network.backbone import HALF_LITE, LEAN_LITE
from analysis.detector.network.detector import Detector
from analysis.detector.turning import WAYS
from analysis.detector.weights import LoadedModel

log = logging.getLogger(__name__)

ENGINES = ("auto", "torch", "openvino", "openvino-int8")
_M_MMAP_THRESHOLD = -3
PARITY = 1e-3
"""Largest difference in probability between the engines."""
FEATURE_STRIDE = 16
HEAD_REACH_PX = {4: 32, 8: 48}
"""How far the dense branch, by its stride, looks beyond a cell: P4's smoothing (16 px) and two convolutions at the stride
(8 or 16 px), to the next of P4's cells."""

_ALIGN_ROWS = 32
"""Strips begin and end at the coarsest stride of a backbone."""
STRIP_PX = {"early": 192, "middle": 320, "head": 384}
"""Rows of a window that go through the first two parts of the backbone, and through the dense branch, at once."""
STRIP_PX_INT8 = {"early": 384, "middle": 640, "head": 512}
"""In 8 bits a row needs less, and fewer strips look less often at the same rows."""


def window_bytes_per_px(config: NetworkConfig, *, int8: bool) -> int:
    """What a window needs of a worker's memory for each pixel, its decoding included (benchmarks/detection_memory.py)."""
    if config.backbone == LEAN_LITE:
        return 80 if int8 else 120
    if config.backbone == HALF_LITE:
        return 55 if int8 else 120
    if config.dense_stride == 8:
        return 75 if int8 else 160
    return 90 if int8 else 180


CLOSER_BYTES = 170_000_000
"""What windows leave of memory to a network that looks closer: with it `standard` needs 1.45 GB for 89.5 mm2
(benchmarks/detection_memory.py)."""
Maps = Sequence[NDArray[Any]]
"""Backbone maps of a batch, finest first, (B, h, w, channels): as convolutions keep them, and rows of one window lie together.
Float32, or uint8 (`_Part`)."""


class EngineUnavailable(RuntimeError):
    """The engine asked for is not installed or does not work here."""


@dataclass(frozen=True)
class Reading:
    """What the network says of a batch of windows."""

    probability: NDArray[np.float32]
    """(B, (H - 2 margin) / s, (W - 2 margin) / s), s the engine's `dense_stride`"""
    features: NDArray[np.float32]
    """P4 of the same place: (B, channels, (H - 2 margin) / 16, (W - 2 margin) / 16)"""


class Engine(Protocol):
    """Safe to use from several threads at once; each call takes one thread."""

    name: str
    """With its version, as results carry it."""
    workers: int
    """How many calls are worth making at once."""

    @property
    def has_towers(self) -> bool:
        """Whether there is a box tower to ask."""
        ...

    bytes_per_px: int
    """Memory that a worker needs for a pixel of a window."""
    zoom: int
    """How many times it enlarges what it is shown."""
    ways: int
    """How many ways up it sees a candidate, where it looks again."""

    @property
    def held_bytes(self) -> int:
        """Of memory, by a network that looks closer."""
        ...

    @property
    def dense_stride(self) -> int:
        """Pixels between the cells of the probability."""
        ...

    @property
    def scanner(self) -> "Engine":
        """What reads at the scan's spacing: this engine, or one of its kind with the small network for it."""
        ...

    @property
    def lookers(self) -> "tuple[Engine, ...]":
        """What looks again at the candidates: this engine, and one of its kind with another network if the model has one; or
        that one alone (`LookConfig.alone`). Then one that looks closer, if the model has one (`CloserConfig`)."""
        ...

    def read(self, rgb: NDArray[np.uint8], *, margin_px: int = 0) -> Reading:
        """rgb (B, H, W, 3), sides multiples of 32; `margin_px` (a multiple of 32) is cut off all sides of the answer."""
        ...

    def boxes(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """rgb (H, W, 3), sides multiples of 64 -> (n, 5) left, top, right, bottom in its px, score."""
        ...

    def rest(self) -> None:
        """Give the memory between the layers back; it is taken again by the next call. While no other call is made."""
        ...


def open_engine(model: LoadedModel, name: str = "auto", *, workers: int = 0) -> Engine:
    """`auto` is OpenVINO where it is installed and works, in 8 bits if the model carries ranges for it, else torch.
    `workers` 0: one for each core at hand.

    The same loaded model gives the same engine again.

    Raises EngineUnavailable, and ValueError for an unknown name.
    """
    if name not in ENGINES:
        raise ValueError(f"unknown engine {name!r}; known: {', '.join(ENGINES)}")
    workers = workers or cores_at_hand()
    opened = _opened.setdefault(model.network, {})
    others = (model.scanner, model.looker, model.closer)
    beside = tuple(None if other is None else other.network for other in others)
    key = (name, workers, beside, model.config.look.alone, model.config.closer.ways)
    if key not in opened:
        engine = _open(model, name, workers)
        if model.scanner is not None:
            engine.scans_beside = _open_beside(engine, model.scanner)
        if model.looker is not None:
            engine.looks_beside = _open_beside(engine, model.looker)
            engine.looks_alone = model.config.look.alone
        if model.closer is not None:
            engine.looks_closer = _open_beside(engine, model.closer)
            engine.looks_closer.zoom = times_finer(model.config.read.mpp, model.config.closer.mpp) or 1
            engine.looks_closer.ways = model.config.closer.ways
        opened[key] = engine
    return opened[key]


def _open_beside(engine: "_Parts", other: LoadedModel) -> "_Parts":
    """What was opened, and not what was asked for, says if OpenVINO works here."""
    if isinstance(engine, TorchEngine):
        return _open(other, "torch", engine.workers)
    return _open(other, "openvino-int8" if engine.int8 and other.int8 else "openvino", engine.workers)


def usual_engine(model: LoadedModel) -> str:
    """The name of what `auto` tries first."""
    if importlib.util.find_spec("openvino") is None:
        return "torch"
    return "openvino-int8" if model.int8 else "openvino"


_opened: "weakref.WeakKeyDictionary[Detector, dict[tuple[str, int, tuple[Detector | None, ...], bool, int], _Parts]]" = weakref.WeakKeyDictionary()
"""Making an OpenVINO engine takes a second or two: it is kept as long as its network is."""


def _open(model: LoadedModel, name: str, workers: int) -> "_Parts":
    _give_large_blocks_back()
    wanted = usual_engine(model) if name == "auto" else name
    if wanted == "torch":
        return TorchEngine(model.network, workers=workers)
    if wanted == "openvino-int8" and not model.int8:
        raise EngineUnavailable(f"{model.version} carries no 8-bit ranges; read it with another engine")
    try:
        return OpenVinoEngine(model.network, workers=workers, int8=model.int8 if wanted == "openvino-int8" else None)
    except ImportError as error:
        raise EngineUnavailable("OpenVINO is not installed: pip install 'metadet[fast]'") from error
    except RuntimeError as error:
        if name != "auto":
            raise EngineUnavailable(f"OpenVINO does not work with this model on this machine ({error})") from error
        log.warning("OpenVINO does not work with this model on this machine, torch reads instead: %s", error)
        return TorchEngine(model.network, workers=workers)


def _give_large_blocks_back() -> None:
    """Blocks of a megabyte and more go back to the system when they are freed. Left to itself, glibc soon keeps blocks of
    up to 32 MB (mallopt(3), M_MMAP_THRESHOLD), and a reading that needs 1 GB ends up holding 2."""
    try:
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**20)
    except (OSError, AttributeError):
        return  # another C library, with habits of its own


def cores_at_hand() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# -- the parts of the network --------------------------------------------------------------------------------------------


class _Part(nn.Module):
    """What comes in between the parts and goes out is (B, h, w, channels), and of a map of the backbone uint8 where all that look
    at it round it to the same `steps`."""

    def __init__(self, network: Detector, steps: Sequence[eight_bit.Steps | None]) -> None:
        super().__init__()
        self.steps = list(steps)

    def taken_in(self, x: Tensor, index: int) -> Tensor:
        """The backbone's map `index`, channels first."""
        steps, x = self.steps[index], x.permute(0, 3, 1, 2)
        return x if steps is None else steps.unpacked(x)

    def given_out(self, x: Tensor, index: int) -> Tensor:
        steps = self.steps[index]
        return (x if steps is None else steps.packed(x)).permute(0, 2, 3, 1)


class _OfBackbone(_Part):
    """It holds no more of the network than that: what is made of a part keeps all that the part holds."""

    def __init__(self, network: Detector, steps: Sequence[eight_bit.Steps | None]) -> None:
        super().__init__(network, steps)
        self.backbone = network.backbone


class _OfPyramid(_Part):
    def __init__(self, network: Detector, steps: Sequence[eight_bit.Steps | None]) -> None:
        super().__init__(network, steps)
        self.network = network

    def pyramid(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Of those maps that are used."""
        unused = self.network.unused_maps
        found: list[Tensor] = self.network.pyramid([self.taken_in(m, unused + i) for i, m in enumerate(maps)])
        return found


class _Early(_OfBackbone):
    """(B, H, W, 3) uint8 -> the map at stride 4."""

    def forward(self, rgb: Tensor) -> Tensor:
        x = (rgb.permute(0, 3, 1, 2).float() - 127.0) / 128.0
        return self.given_out(self.backbone.early(x), 0)


class _Middle(_OfBackbone):
    """The map at stride 4 -> that at stride 8."""

    def forward(self, first: Tensor) -> Tensor:
        return self.given_out(self.backbone.middle(self.taken_in(first, 0)), 1)


class _Late(_OfBackbone):
    """The map at stride 8 -> those at strides 16[, 32]."""

    def forward(self, second: Tensor) -> tuple[Tensor, ...]:
        late = self.backbone.late(self.taken_in(second, 1))
        return tuple(self.given_out(m, index) for index, m in enumerate(late, start=2))


class _Head(_OfPyramid):
    """Maps that are used, finest first -> tumour probability (B, h, w), and P4 (B, h, w, channels)."""

    def forward(self, *maps: Tensor) -> tuple[Tensor, Tensor]:
        pyramid = self.pyramid(maps)
        return torch.sigmoid(self.network.dense_maps(pyramid)[0])[:, 0], pyramid[-3].permute(0, 2, 3, 1)


class _Towers(_OfPyramid):
    """Maps as the head's -> score (B, 1, h, w) and box (B, 4, h, w) of P3..P6 in turn; score = sqrt(p quality)."""

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        out: list[Tensor] = []
        for level in self.network.towers(self.pyramid(maps)):
            out += [torch.sqrt(torch.sigmoid(level.class_logit) * torch.sigmoid(level.quality_logit)), level.box]
        return tuple(out)


_PARTS: dict[str, type[_Part]] = {
    "early": _Early,
    "middle": _Middle,
    "late": _Late,
    "head": _Head,
    "towers": _Towers,
}


class _Parts:
    """What both engines share: cutting the margin off and putting boxes together. What a part answers may be overwritten by
    its next answer to the same thread."""

    name: str
    int8 = False

    def __init__(self, network: Detector, *, workers: int) -> None:
        self.workers = workers
        # not itself: an engine that holds itself is freed late, wherever the collector happens to run
        self.scans_beside: Engine | None = None
        self.looks_beside: Engine | None = None
        self.looks_alone = False
        self.looks_closer: _Parts | None = None
        self.zoom, self.ways = 1, len(WAYS)
        self.bytes_per_px, self.strip_px = window_bytes_per_px(network.config, int8=False), STRIP_PX
        self.stride, self.unused_maps = network.config.dense_stride, network.unused_maps
        self.crop_multiple = network.config.backbone_stride
        self.reach = dict(zip(("early", "middle"), network.backbone.reach_px, strict=True))
        # a class tower that stands in for the dense branch looks as far as towers do
        self.own_towers = network.config.heads != "mask"
        self.head_reach = HEAD_REACH_PX[self.stride] if network.config.heads != "box" else sys.maxsize

    @property
    def scanner(self) -> Engine:
        """As Engine's."""
        return self.scans_beside or self

    @property
    def lookers(self) -> tuple[Engine, ...]:
        """As Engine's."""
        closer = () if self.looks_closer is None else (self.looks_closer,)
        if self.looks_beside is None:
            return (self, *closer)
        return (self.looks_beside, *closer) if self.looks_alone else (self, self.looks_beside, *closer)

    @property
    def dense_stride(self) -> int:
        """As Engine's."""
        return self.stride // self.zoom

    @property
    def held_bytes(self) -> int:
        """As Engine's."""
        return 0 if self.looks_closer is None else CLOSER_BYTES

    @property
    def has_towers(self) -> bool:
        """As Engine's: its own, or those of the network that looks again."""
        return self.own_towers or (self.looks_beside is not None and self.looks_beside.has_towers)

    def maps(self, rgb: NDArray[np.uint8]) -> Maps:
        """Those maps of the backbone that are used, finest first."""
        first = _by_strips(self._early, rgb, stride=1, rows=self.strip_px["early"], reach=self.reach["early"])
        second = _by_strips(self._middle, first, stride=4, rows=self.strip_px["middle"], reach=self.reach["middle"])
        return [first, second, *self._late(second)][self.unused_maps :]

    def read(self, rgb: NDArray[np.uint8], *, margin_px: int = 0) -> Reading:
        if self.zoom > 1:
            rgb, margin_px = enlarged(rgb, self.zoom), margin_px * self.zoom
        maps = self.maps(rgb)
        early = max(0, margin_px - self.head_reach) // self.crop_multiple * self.crop_multiple
        probability, features = self._dense([_cut(m, early * m.shape[2] // rgb.shape[2]) for m in maps])
        late = margin_px - early
        inner = _cut(probability, late // self.stride)
        return Reading(np.ascontiguousarray(inner), _cut(features, late // FEATURE_STRIDE).transpose(0, 3, 1, 2))

    def boxes(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        if not self.own_towers:
            return np.zeros((0, 5), np.float32) if self.looks_beside is None else self.looks_beside.boxes(rgb)
        out = self._towers(self.maps(rgb[None]))
        return decode_boxes((stride, out[2 * i][0, 0], out[2 * i + 1][0]) for i, stride in enumerate(PYRAMID_STRIDES))

    def _dense(self, maps: Maps) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Probability (B, h, w), and P4; strip by strip where the dense branch looks only some pixels far."""
        height, width = (side * self.stride for side in maps[0].shape[1:3])
        probability = np.empty((len(maps[0]), height // self.stride, width // self.stride), np.float32)
        features: list[NDArray[np.float32]] = []
        reach = -(-self.head_reach // self.crop_multiple) * self.crop_multiple
        for strip in _strips(height, rows=self.strip_px["head"], reach=reach):
            stride = [height // m.shape[1] for m in maps]
            seen = [m[:, strip.seen_from // s : strip.seen_to // s] for m, s in zip(maps, stride, strict=True)]
            part, p4 = self._head(seen)
            strip.put(part, probability, stride=self.stride)
            features.append(strip.of(p4, stride=FEATURE_STRIDE).copy())
        return probability, np.concatenate(features, axis=1)

    def _early(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise NotImplementedError

    def rest(self) -> None:
        """Nothing is kept between calls."""

    def _middle(self, first: NDArray[np.float32]) -> NDArray[np.float32]:
        raise NotImplementedError

    def _late(self, second: NDArray[np.float32]) -> Maps:
        raise NotImplementedError

    def _head(self, maps: Maps) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        raise NotImplementedError

    def _towers(self, maps: Maps) -> list[NDArray[np.float32]]:
        raise NotImplementedError


@dataclass(frozen=True)
class _Strip:
    """Rows `top` to `bottom` of a window in px; to know them rows `seen_from` to `seen_to` must be looked at."""

    top: int
    bottom: int
    seen_from: int
    seen_to: int

    def of(self, part: Any, *, stride: int) -> Any:
        """What `part`, the answer (B, rows, ...) for the rows seen, says of the strip's own."""
        return part[:, (self.top - self.seen_from) // stride : (self.bottom - self.seen_from) // stride]

    def put(self, part: Any, whole: Any, *, stride: int) -> None:
        whole[:, self.top // stride : self.bottom // stride] = self.of(part, stride=stride)


def _by_strips(act: Callable[[Any], Any], given: Any, *, stride: int, rows: int, reach: int) -> Any:
    """`act` on `given` (B, rows, columns, channels), whose rows are `stride` px high: the answer as to the whole."""
    height, whole = given.shape[1] * stride, None
    for strip in _strips(height, rows=rows, reach=reach):
        answer = act(given[:, strip.seen_from // stride : strip.seen_to // stride])
        out_stride = (strip.seen_to - strip.seen_from) // answer.shape[1]
        if whole is None:
            whole = np.empty((len(answer), height // out_stride, *answer.shape[2:]), answer.dtype)
        strip.put(answer, whole, stride=out_stride)
    return whole


def _strips(height: int, *, rows: int, reach: int) -> Iterator[_Strip]:
    """Of `rows` at most. All see equally many rows: OpenVINO prepares itself anew whenever the size changes."""
    rows = -(-height // (-(-height // rows) * _ALIGN_ROWS)) * _ALIGN_ROWS
    seen = min(rows + 2 * reach, height)
    for top in range(0, height, rows):
        seen_from = min(max(top - reach, 0), height - seen)
        yield _Strip(top, min(top + rows, height), seen_from, seen_from + seen)


def _cut(array: Any, edge: int) -> Any:
    """Of (B, rows, columns, ...)."""
    return array[:, edge:-edge, edge:-edge] if edge else array


# -- torch ---------------------------------------------------------------------------------------------------------------


class TorchEngine(_Parts):
    def __init__(self, network: Detector, *, workers: int) -> None:
        super().__init__(network, workers=workers)
        self.name = f"torch {torch.__version__}"
        fused = eight_bit.fused(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        whole = [None] * len(network.backbone.out_channels)
        self._parts = {name: make(fused, whole) for name, make in _PARTS.items()}
        self._thread = threading.local()

    def _call(self, part: str, *inputs: Tensor) -> Any:
        if not getattr(self._thread, "single", False):
            torch.set_num_threads(1)  # of the calling thread
            self._thread.single = True
        with torch.inference_mode():
            return self._parts[part](*inputs)

    def _early(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        out: NDArray[np.float32] = self._call("early", torch.from_numpy(np.array(rgb, order="C"))).numpy()
        return out

    def _middle(self, first: NDArray[np.float32]) -> NDArray[np.float32]:
        out: NDArray[np.float32] = self._call("middle", torch.from_numpy(first)).numpy()
        return out

    def _late(self, second: NDArray[np.float32]) -> Maps:
        return [m.numpy() for m in self._call("late", torch.from_numpy(second))]

    def _head(self, maps: Maps) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        probability, features = self._call("head", *map(torch.from_numpy, maps))
        return probability.numpy(), features.numpy()

    def _towers(self, maps: Maps) -> list[NDArray[np.float32]]:
        return [out.numpy() for out in self._call("towers", *map(torch.from_numpy, maps))]


# -- OpenVINO ------------------------------------------------------------------------------------------------------------

_EXAMPLE_PX = 128


def _openvino_that_keeps_quiet() -> Any:
    """OpenVINO's converter reports its use to its maker unless its telemetry package is absent. Nothing leaves the house."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino  # takes a second and is optional
    from openvino.tools.ovc import telemetry_stub

    for name, module in list(sys.modules.items()):  # whoever imported it before us
        if name.startswith("openvino.tools.ovc") and hasattr(module, "tm"):
            setattr(module, "tm", telemetry_stub)  # noqa: B010  (no attribute that types know)
    return openvino


@functools.cache
def openvino_core() -> Any:
    """One for the life of the process. Each core gives the thread that makes it a stack for signal handlers and, when freed, the
    one from before: of two that are freed in the order in which they were made, the second leaves one that is gone, and
    the next signal (Ctrl-C, a stop of the worker) ends the process with a segmentation fault."""
    return _openvino_that_keeps_quiet().Core()


class OpenVinoEngine(_Parts):
    """One stream with one thread per worker, any size of window; 32-bit floats, or integers of 8 bits with `int8`."""

    def __init__(self, network: Detector, *, workers: int, int8: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(network, workers=workers)
        self.int8 = bool(int8)
        if int8:
            self.bytes_per_px, self.strip_px = window_bytes_per_px(network.config, int8=True), STRIP_PX_INT8
        openvino = _openvino_that_keeps_quiet()
        self.name = f"openvino {openvino.__version__.split('-')[0]}{' int8' if int8 else ''}"
        self._openvino = openvino
        self._network = eight_bit.quantised(network, int8) if int8 else eight_bit.fused(network)
        self._steps = eight_bit.steps_between(self._network)
        self._example = torch.zeros(1, _EXAMPLE_PX, _EXAMPLE_PX, 3, dtype=torch.uint8)
        self._thread, self._making = threading.local(), threading.Lock()
        with torch.inference_mode():
            first = _Early(self._network, self._steps)(self._example).contiguous()
            second = _Middle(self._network, self._steps)(first).contiguous()
            maps = (first, second, *(m.contiguous() for m in _Late(self._network, self._steps)(second)))
            self._examples = {"early": (self._example,), "middle": maps[:1], "late": maps[1:2]}
            self._used_maps = maps[self.unused_maps :]
        self._compiled: dict[str, Any] = {}
        for part in ("early", "middle", "late", "head"):
            self._make(part)

    def _make(self, part: str) -> Any:
        """The compiled part; the towers are made when they are first asked for."""
        with self._making:
            if part not in self._compiled:
                example = self._examples.get(part, self._used_maps)
                with torch.no_grad():
                    traced = torch.jit.trace(
                        _PARTS[part](self._network, self._steps).eval(), example, check_trace=False
                    )
                converted = self._openvino.convert_model(traced, example_input=example)
                settings = {
                    "NUM_STREAMS": self.workers,
                    "INFERENCE_NUM_THREADS": self.workers,
                    "INFERENCE_PRECISION_HINT": "f32",
                    # nearly every window has a size of its own: what would be kept for the next of that size only piles up
                    "CPU_RUNTIME_CACHE_CAPACITY": 0,
                }
                self._compiled[part] = openvino_core().compile_model(converted, "CPU", settings)
            return self._compiled[part]

    def _call(self, part: str, inputs: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        """The answers lie in the request's own memory: they hold until this thread asks the same part again."""
        request = getattr(self._thread, part, None)
        if request is None:
            request = self._make(part).create_infer_request()
            setattr(self._thread, part, request)
        inputs = [np.ascontiguousarray(x) for x in inputs]  # kept until the answer is there
        request.start_async(dict(enumerate(inputs)), share_inputs=True)
        request.wait()
        return [request.get_output_tensor(i).data for i in range(len(request.model_outputs))]

    def rest(self) -> None:
        """As Engine's: OpenVINO keeps the memory of the largest window seen, some hundred megabytes a worker."""
        for compiled in self._compiled.values():
            compiled.release_memory()

    def _early(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._call("early", [rgb])[0]

    def _middle(self, first: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._call("middle", [first])[0]

    def _late(self, second: NDArray[np.float32]) -> Maps:
        return self._call("late", [second])

    def _head(self, maps: Maps) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        probability, features = self._call("head", maps)
        return probability, features

    def _towers(self, maps: Maps) -> list[NDArray[np.float32]]:
        return self._call("towers", maps)
