"""What it costs to read a slide: the product's two profiles and two patch pipelines, in one run on the same slides.

    python benchmarks/detection.py [--slides FOLDER] [--slide FILE ...] [--model M] [--patches 64] [--rounds 2] [--record OUT.json]

Without --slide the slides of benchmarks/detection_slides.py are read (composed in --slides first where they lack; needs the
reference data). CPU seconds are of this process and of its children, so the product's sandboxed decoding is counted; loading
the network is not, for nobody. Product: `detect` on pixels from the sandbox, from opening the slide to the stored findings.

The patch pipelines work as WSInfer does by default: patches of 87.5 um (350 px at 0.25 um/px) without overlap wherever tissue
lies under the patch's centre, read from level 0 by openslide-python, shrunk to 224 px, batches of 32, ResNet-34 or ResNet-18
in float32. --patches of them, spread evenly over the tissue, are timed and the cost of all is extrapolated; finding the tissue
is given to them for nothing. Their weights are random: cost alone is compared, and a ratio without accuracy beside it says
nothing. Each network runs in torch, as the tools do, and in OpenVINO, which the product uses where it is installed.
"""

import argparse
import json
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "benchmarks")]

from detection_slides import SLIDES, compose_timed, path_of  # noqa: E402

from analysis.detector.card import default_model_folder  # noqa: E402
from analysis.detector.engine import Engine, cores_at_hand, open_engine, openvino_core  # noqa: E402
from analysis.detector.infer import detect, write_whole  # noqa: E402
from analysis.detector.network.backbone import RESNET_CHANNELS, build_backbone  # noqa: E402
from analysis.detector.reading import PROFILES  # noqa: E402
from analysis.detector.weights import LoadedModel, load_model  # noqa: E402
from slides.wsi.sandbox import open_pixels  # noqa: E402
from slides.wsi.tissue import tissue_mask  # noqa: E402

PATCH_UM = 87.5
PATCH_PX = 224
BATCH = 32
TISSUE_MPP = 8.0
EXPERT_SECONDS = {"fast": ("56", 56.0), "standard": ("116-129", 122.5)}
"""A slide, as read by experts: CAMELYON16's panel under time constraint, and three reader studies."""
TIMES_FASTER = 7
WHOLE_MM2 = 87.0
GOALS = {"standard": (30, 17.0), "fast": (100, 8.0)}
"""Ratio to ResNet-34; wall seconds of a slide with WHOLE_MM2 of tissue on two cores."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Call = Callable[[NDArray[np.float32]], object]


@dataclass(frozen=True)
class Cost:
    mm2: float
    cpu_s: float
    wall_s: float
    """Of the patch pipelines: on one core, extrapolated as the CPU seconds are."""
    note: str = ""

    @property
    def rate(self) -> float:
        """mm2 of tissue per CPU second."""
        return self.mm2 / self.cpu_s


def cpu_seconds() -> float:
    """Of this process and of all children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# -- the product ---------------------------------------------------------------------------------------------------------


def product_cost(slide: Path, model: LoadedModel, engine: Engine, *, profile: str) -> Cost:
    cpu, wall = cpu_seconds(), time.monotonic()
    with tempfile.TemporaryDirectory() as work, open_pixels(slide) as source:
        found = detect(source, model, profile=profile, engine=engine, checkpoint_dir=Path(work))
    cpu, wall = cpu_seconds() - cpu, time.monotonic() - wall
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in found.seconds.items() if name != "total")
    # `fast` has to read at least these at the reading's spacing
    lesions_mm2 = sum(lesion.area_mm2 for lesion in found.lesions)
    finds = f"{len(found.lesions)} lesions, together {lesions_mm2:.1f} mm2"
    return Cost(found.tissue.mm2, cpu, wall, f"{finds}; seconds waited or worked: {parts}")


# -- the patch pipelines -------------------------------------------------------------------------------------------------


class PatchClassifier(nn.Module):
    """Two classes, random weights: only its cost is wanted."""

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, last_stride=32)
        self.head = nn.Linear(RESNET_CHANNELS[-1], 2)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.backbone(x)[-1].mean(dim=(2, 3)))
        return scores.softmax(dim=1)


def classifier(backbone: str, engine: str) -> Call:
    """Takes (BATCH, 3, PATCH_PX, PATCH_PX); computes on one thread."""
    network = PatchClassifier(backbone).eval().requires_grad_(False)
    if engine == "torch":
        example = torch.zeros(BATCH, 3, PATCH_PX, PATCH_PX)
        traced = torch.jit.freeze(torch.jit.trace(network, example))  # type: ignore[no-untyped-call]
        return lambda x: traced(torch.from_numpy(x))
    import openvino

    example = torch.zeros(BATCH, 3, PATCH_PX, PATCH_PX)
    converted = openvino.convert_model(network, example_input=example)
    converted.reshape(list(example.shape))
    settings = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino_core().compile_model(converted, "CPU", settings)
    return lambda x: compiled(x)


def tissue_of(slide: Path) -> NDArray[np.bool_]:
    with open_pixels(slide) as source:
        return tissue_mask(source.thumbnail_at_mpp(TISSUE_MPP).rgb, TISSUE_MPP)


def patch_places(tissue: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n, 2): left and top in um of the patches whose centre lies on tissue."""
    step = PATCH_UM / TISSUE_MPP
    rows, cols = (np.arange(int(n / step)) for n in tissue.shape)
    centre = tissue[np.ix_(((rows + 0.5) * step).astype(int), ((cols + 0.5) * step).astype(int))]
    row, col = np.nonzero(centre)
    return np.round(np.stack([col, row], axis=1) * PATCH_UM).astype(np.int64)


def patch_cost(slide: Path, places: NDArray[np.int64], call: Call, *, mm2: float, patches: int) -> Cost:
    count = max(BATCH, min(patches, len(places)) // BATCH * BATCH)
    chosen = places[np.linspace(0, len(places) - 1, count).astype(int)]
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (MEAN, STD))
    call(np.zeros((BATCH, 3, PATCH_PX, PATCH_PX), np.float32))
    with openslide.OpenSlide(slide) as reader:
        mpp = float(reader.properties[openslide.PROPERTY_NAME_MPP_X])
        side = round(PATCH_UM / mpp)
        cpu, wall = cpu_seconds(), time.monotonic()
        reading = 0.0
        for start in range(0, count, BATCH):
            before = cpu_seconds()
            batch = np.empty((BATCH, 3, PATCH_PX, PATCH_PX), np.float32)
            for i, (x_um, y_um) in enumerate(chosen[start : start + BATCH]):
                region = reader.read_region((round(x_um / mpp), round(y_um / mpp)), 0, (side, side)).convert("RGB")
                shrunk = region.resize((PATCH_PX, PATCH_PX), Image.Resampling.BILINEAR)
                batch[i] = (np.asarray(shrunk, np.float32).transpose(2, 0, 1) / 255 - mean) / std
            reading += cpu_seconds() - before
            call(batch)
        cpu, wall = cpu_seconds() - cpu, time.monotonic() - wall
    factor = len(places) / count
    note = f"{count} of {len(places):,} patches timed, {reading / cpu:.0%} of it reading"
    return Cost(mm2, cpu * factor, wall * factor, note)


# -- the comparison ------------------------------------------------------------------------------------------------------


Rounds = dict[str, list[Cost]]
"""By name: standard, fast, then `resnet34 torch` and so on; one cost for each round."""


def compare(
    slide: Path, model: LoadedModel, engine: Engine, *, patches: int, engines: Sequence[str], rounds: int
) -> Rounds:
    """Product and peers take turns: the speed of a shared machine may change by a third within minutes."""
    places = patch_places(tissue_of(slide))
    peers = [f"{backbone} {name}" for backbone in ("resnet34", "resnet18") for name in engines] if patches else []
    calls = {peer: classifier(*peer.split(" ")) for peer in peers}
    costs: Rounds = {name: [] for name in (*PROFILES, *peers)}
    for _ in range(rounds):
        for name, seen in costs.items():
            if name in calls:
                seen.append(patch_cost(slide, places, calls[name], mm2=costs["standard"][0].mm2, patches=patches))
            else:
                seen.append(product_cost(slide, model, engine, profile=name))
            say(f"  {name}: {seen[-1].cpu_s:.1f} CPU s, {seen[-1].wall_s:.1f} s")
    return costs


def averaged(costs: Rounds) -> dict[str, Cost]:
    return {
        name: replace(
            seen[-1], cpu_s=float(np.mean([c.cpu_s for c in seen])), wall_s=float(np.mean([c.wall_s for c in seen]))
        )
        for name, seen in costs.items()
    }


def ratio(costs: Rounds, name: str, peer: str) -> str:
    """Of the mean costs, and the lowest and highest of one round."""
    mean = averaged(costs)
    each = [one.rate / other.rate for one, other in zip(costs[name], costs[peer], strict=True)]
    words = f"{mean[name].rate / mean[peer].rate:.1f}"
    return words if len(each) < 2 else f"{words} ({min(each):.1f}-{max(each):.1f})"


def table(rounds: Rounds, *, engines: Iterable[str]) -> str:
    costs = averaged(rounds)
    peers = [f"resnet34 {name}" for name in engines if f"resnet34 {name}" in costs]
    head = ["way", "mm2", "CPU s", "wall s", "mm2 per CPU s", *(f"x {peer}" for peer in peers), "note"]
    rows = [head, ["---"] * len(head)]
    for name, cost in costs.items():
        ratios = [ratio(rounds, name, peer) for peer in peers]
        rows.append(
            [name, f"{cost.mm2:.1f}", f"{cost.cpu_s:.1f}", f"{cost.wall_s:.1f}", f"{cost.rate:.3f}", *ratios, cost.note]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def against_experts(costs: dict[str, Cost], *, cores: int) -> list[str]:
    """The arithmetic of a slide with WHOLE_MM2, from the wall time measured on this one."""
    lines = []
    for profile in PROFILES:
        cost = costs[profile]
        seconds = cost.wall_s * WHOLE_MM2 / cost.mm2
        words, expert = EXPERT_SECONDS[profile]
        lines.append(
            f"{profile}: {cost.wall_s:.1f} s for {cost.mm2:.1f} mm2 on {cores} cores -> {seconds:.1f} s for {WHOLE_MM2:g} mm2"
            f" ({cost.cpu_s * WHOLE_MM2 / cost.mm2:.1f} CPU s); goal <= {GOALS[profile][1]:g} s = {words} s / {TIMES_FASTER};"
            f" {expert / seconds:.1f} times faster than an expert"
        )
    return lines


def growth(by_slide: dict[str, dict[str, Cost]]) -> dict[str, Any]:
    """How the product's CPU seconds grow with tissue (two sizes) and with glass (the same tissue on more of it)."""
    small, glassy, large = (by_slide[name] for name in ("node", "node-on-more-glass", "whole-section"))
    found: dict[str, Any] = {}
    for profile in PROFILES:
        one, more, two = small[profile], glassy[profile], large[profile]
        found[profile] = {
            "cpu_s_per_mm2_small": one.cpu_s / one.mm2,
            "cpu_s_per_mm2_large": two.cpu_s / two.mm2,
            "slope_cpu_s_per_mm2": (two.cpu_s - one.cpu_s) / (two.mm2 - one.mm2),
            "cpu_s_of_more_glass": more.cpu_s - one.cpu_s,
            "cpu_with_more_glass": more.cpu_s / one.cpu_s,
        }
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    model = load_model(options.model or default_model_folder())
    engine = open_engine(model, options.engine)
    engines = ["torch", *(["openvino"] if engine.name.startswith("openvino") else [])]
    own = not options.slide
    if own:
        compose_timed(options.slides, say=say)
    slides = {s.name: path_of(options.slides, s.name) for s in SLIDES} if own else {p.stem: p for p in options.slide}
    by_slide: dict[str, dict[str, Cost]] = {}
    every_round: dict[str, Rounds] = {}
    warm_up = next(iter(slides.values()))
    for profile in PROFILES:  # the engine plans each size of window when it first meets it, as a worker does once
        product_cost(warm_up, model, engine, profile=profile)
    for name, path in slides.items():
        with openslide.OpenSlide(path) as opened:
            say(f"{name}: {opened.dimensions[0]:,} x {opened.dimensions[1]:,} px, composed" if own else name)
        # more glass makes nothing dearer for the peers, who are given the tissue
        patches = options.patches if name != "node-on-more-glass" else 0
        every_round[name] = compare(path, model, engine, patches=patches, engines=engines, rounds=options.rounds)
        by_slide[name] = averaged(every_round[name])
        print(f"\n{name}\n" + table(every_round[name], engines=engines))
        print("\n".join(against_experts(by_slide[name], cores=engine.workers)) + "\n")
    found: dict[str, Any] = {
        "measured": time.strftime("%Y-%m-%d"),
        "machine": platform.processor() or platform.machine(),
        "cores": cores_at_hand(),
        "engine": engine.name,
        "model": {"version": model.version, "sha256": model.sha256},
        "composed": own,
        "patches_timed": options.patches,
        "rounds": options.rounds,
        "slides": {n: {k: asdict(c) | {"mm2_per_cpu_s": c.rate} for k, c in cs.items()} for n, cs in by_slide.items()},
        "cpu_s_of_each_round": {n: {k: [c.cpu_s for c in v] for k, v in r.items()} for n, r in every_round.items()},
    }
    if own:
        found["growth"] = growth(by_slide)
        print(json.dumps(found["growth"], indent=1))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slide", type=Path, action="append", default=[], help="instead of the composed ones")
    parser.add_argument("--slides", type=Path, default=Path(tempfile.gettempdir()) / "metadet-timed-slides")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--patches", type=int, default=64, help="patches timed for each patch pipeline (0: none)")
    parser.add_argument("--rounds", type=int, default=2, help="how often product and peers take turns on each slide")
    parser.add_argument("--record", type=Path, metavar="OUT.json")
    options = parser.parse_args()
    found = measure(options)
    text = json.dumps(found, indent=1) + "\n"
    if options.record:
        write_whole(options.record, text.encode())
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
