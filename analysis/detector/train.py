"""Train a detector: `python -m analysis.detector.train CONFIG [--out FOLDER]`.

Steps on real patches (the label speaks of their centre) alternate with steps on regions with masks and boxes: cut from
annotated slides, composed, or both. The run writes into its folder: loss.csv (every five steps), validation.csv,
loss.html (their curves, to be kept open), splits.csv (which slide is used for what), hard_negatives.csv, a checkpoint
from which an interrupted run goes on, and at the end model/ (weights and card), which `infer --model` and `evaluate` take.
"""

import argparse
import csv
import dataclasses
import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from analysis.detector.annotations import AnnotationError
from analysis.detector.card import ModelRefused, default_model_folder
from analysis.detector.configuration import SHIPPED, ConfigurationError, DetectorConfig, load_config, times_finer
from analysis.detector.network.backbone import LiteBackbone, load_imagenet_weights, see_green_alone
from analysis.detector.network.detector import Detector, scaled
from analysis.detector.patch_file import PatchFileError
from analysis.detector.reference_data import ReferenceDataMissing
from analysis.detector.training import scan_network
from analysis.detector.training.batches import Batch, BatchesAhead, BatchMaker
from analysis.detector.training.eight_bits import try_eight_bits, zoom_of
from analysis.detector.training.hard_negatives import FalseFind, look_for_false_finds, use, write_pool
from analysis.detector.training.live_curve import write_curve
from analysis.detector.training.losses import Taught, mean_of, patch_loss, region_losses, total
from analysis.detector.training.material import Material, load_material
from analysis.detector.training.slide_folders import SlideFolderError
from analysis.detector.training.slide_material import add_slides
from analysis.detector.training.targets import RegionTarget
from analysis.detector.training.test_fold import score_test_fold
from analysis.detector.training.validation import validation_figures, worth
from analysis.detector.weights import Beside, LoadedModel, load_model, save_model
from slides.wsi.errors import WsiError

LOG_EVERY = 5
SAY_EVERY_SECONDS = 30.0
"""Where the progress goes to a file; on a terminal one line shows it twice a second."""
CURVE_EVERY_SECONDS = 10.0
STOPPING = "\nstopping when the step or round under way is done; Ctrl-C again stops at once, at the last checkpoint\n"


@dataclass
class Progress:
    """What a checkpoint remembers beside tensors."""

    step: int = 0
    best_auc: float = -1.0
    """What the checkpoint was chosen by: AUC on validation patches (hard negatives among them), on fields of validation
    slides, or their mean."""
    best_step: int = -1
    seconds: float = 0.0
    rounds: int = 0
    false_finds: list[dict[str, Any]] = field(default_factory=list)
    """The pool of hard negatives; here, and not in a file alone, so that it fits the weights of the checkpoint."""


class Interrupted(Exception):
    """Somebody pressed Ctrl-C; the checkpoint was saved."""


class Trainer:
    def __init__(self, config: DetectorConfig, material: Material, folder: Path) -> None:
        self.config, self.material, self.folder = config, material, folder
        self.material_without_pool = material
        train = config.train
        self.device = device_of(train.device)
        torch.manual_seed(train.seed)
        self.network = Detector(config.network)
        if train.start_from:
            self.network.load_state_dict(_weights_to_start_from(config))
        elif train.pretrained and isinstance(self.network.backbone, LiteBackbone):
            load_imagenet_weights(self.network.backbone, config.network.backbone)
        if config.network.colours == "green":
            see_green_alone(self.network.backbone)
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.teachers = [(teacher.to(self.device), zoom) for teacher, zoom in _teachers(config)]
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(_groups(self.network, config), weight_decay=train.weight_decay)
        patches = len(material.positive) + len(material.negative) + len(material.hard_negative)
        patch_steps = max(1, patches // train.patch_batch)
        self.steps_per_epoch = patch_steps + (patch_steps // train.regions_every if train.regions_every > 0 else 0)
        if not patches:
            self.steps_per_epoch = max(1, train.regions_per_epoch // train.region_batch)
        self.total_steps = train.epochs * self.steps_per_epoch
        self.progress = Progress()
        self._ahead: BatchesAhead | None = None

    # -- one step ---------------------------------------------------------------------------------------------------

    def is_region_step(self, step: int) -> bool:
        return BatchMaker(self.config, self.material).is_region_step(step)

    def step(self) -> dict[str, Tensor]:
        """The losses stay where the network is: to ask for their values waits until the step is done."""
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_lr"] * _schedule(
                self.progress.step, self.total_steps, self.config.train.warmup_steps
            )
        batch = self._batch().to(self.device)
        out = self.network(scaled(batch.rgb))
        if isinstance(batch.truth, RegionTarget):
            parts = region_losses(out, batch.truth)
            loss = total(parts)
        else:
            share = self.config.train.teacher_share
            taught = self._taught(batch) if self.teachers else None
            parts = {
                "patch": patch_loss(out, batch.truth, centre_px=batch.centre_px, taught=taught, teacher_share=share)
            }
            loss = parts["patch"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self._follow()
        self.progress.step += 1
        return {"loss": loss.detach(), **{k: v.detach() for k, v in parts.items()}}

    def _taught(self, batch: Batch) -> Taught:
        rgb = batch.rgb if batch.taught is None else batch.taught
        centre_px = batch.centre_px * rgb.shape[1] / batch.rgb.shape[1]
        with torch.no_grad():
            shown = scaled(rgb)
            return mean_of([(teacher(_enlarged(shown, zoom)), centre_px * zoom) for teacher, zoom in self.teachers])

    def _batch(self) -> Batch:
        step, workers = self.progress.step, self.config.train.workers
        maker = BatchMaker(self.config, self.material)
        if not workers:
            return maker.make(step)
        if self._ahead is None or self._ahead.next_step != step:
            self.close()
            self._ahead = BatchesAhead(maker, range(step, max(self.total_steps, step + 1)), workers=workers)
        return self._ahead.take()

    def close(self) -> None:
        """Ends the processes that prepare batches; the next step starts them again."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the averaged weights; young averages move faster."""
        decay = min(self.config.train.ema_decay, (1 + self.progress.step) / (10 + self.progress.step))
        pairs = [(self.average[key], value) for key, value in self.network.state_dict().items()]
        floats = [pair for pair in pairs if pair[1].dtype.is_floating_point]
        counts = [pair for pair in pairs if not pair[1].dtype.is_floating_point]
        torch._foreach_lerp_([mean for mean, _ in floats], [value for _, value in floats], 1 - decay)
        torch._foreach_copy_([mean for mean, _ in counts], [value for _, value in counts])

    # -- judging and keeping ----------------------------------------------------------------------------------------

    def averaged(self) -> Detector:
        network = Detector(self.config.network)
        network.load_state_dict(self.average)
        return network.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def validate(self, network: Detector | None = None) -> dict[str, float | None]:
        """Of the averaged weights, or of another network."""
        return validation_figures(network or self.averaged(), self.material, self.config)

    def look_for_false_finds(self) -> list[FalseFind]:
        """One round: the pool is replaced by that of the averaged weights of now."""
        self.close()  # what comes next is drawn from another pool
        before = [FalseFind(**find) for find in self.progress.false_finds]
        pool = look_for_false_finds(
            self.averaged(), self.material_without_pool, self.config, number=self.progress.rounds + 1, before=before
        )
        self.progress.rounds += 1
        self.progress.false_finds = [vars(find) for find in pool]
        write_pool(pool, self.folder)
        self.material = use(pool, self.material_without_pool)
        return pool

    def keep_if_best(self, judged: dict[str, float | None]) -> None:
        value = worth(judged)
        if value is None or value > self.progress.best_auc:  # nothing to judge by: the last weights are as good as any
            self.progress.best_auc, self.progress.best_step = -1.0 if value is None else value, self.progress.step
            save_file({k: v.cpu().contiguous() for k, v in self.average.items()}, self.folder / "best.safetensors")

    def save_checkpoint(self) -> None:
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{k}": v for k, v in state.items()}
        path = self.folder / "checkpoint.safetensors"
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        # one file, so that weights and progress cannot come from different moments
        save_file(tensors, path.with_suffix(".part"), metadata={"note": json.dumps(vars(self.progress))})
        os.replace(path.with_suffix(".part"), path)

    def resume(self) -> bool:
        from safetensors import safe_open

        path = self.folder / "checkpoint.safetensors"
        if not path.exists():
            return False
        tensors = load_file(path)
        with safe_open(path, framework="pt") as file:
            note = json.loads(file.metadata()["note"])
        self.network.load_state_dict(_under(tensors, "network."))
        for key, value in _under(tensors, "average.").items():
            self.average[key].copy_(value)
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in _under(tensors, "adam.").items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        note.pop("rng", None)  # of checkpoints of earlier versions
        self.progress = Progress(**note)
        self.material = use([FalseFind(**find) for find in self.progress.false_finds], self.material_without_pool)
        return True


def device_of(name: str) -> torch.device:
    """The device that `train.device` means here. Raises ConfigurationError where there is none such."""
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise ConfigurationError("train.device: torch finds no CUDA device here; use auto or cpu")
    return torch.device("cuda" if found and name != "cpu" else "cpu")


def _name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _weights_to_start_from(config: DetectorConfig) -> dict[str, Tensor]:
    """Those of the version's network that reads, of the one that looks again or of the one that looks closer: whichever is the configured one.

    Raises ConfigurationError where neither is, ModelRefused where the version cannot be loaded.
    """
    start = config.train.start_from
    model = load_model(default_model_folder() if start == SHIPPED else Path(start))
    networks = [one.network for one in (model, model.looker, model.closer) if one is not None]
    for network in networks:
        if network.config == config.network:
            return network.state_dict()
    wanted = dataclasses.asdict(config.network)
    others = [{k: v for k, v in dataclasses.asdict(n.config).items() if v != wanted[k]} for n in networks]
    nearest = ", ".join(f"{key} = {json.dumps(value)}" for key, value in min(others, key=len).items())
    raise ConfigurationError(
        f"train.start_from: {model.version} is of another network; in [network] of the configuration write {nearest}"
    )


def _teachers(config: DetectorConfig) -> list[tuple[Detector, int]]:
    """Each with how much larger than the training it sees a patch.

    Raises ConfigurationError where they do not draw maps of one stride or one looks at a spacing that is no whole part of
    the training's, ModelRefused where one cannot be loaded.
    """
    models = [load_model(Path(folder)) for folder in config.train.teachers]
    if len({(model.network.config.dense_stride, model.network.config.heads) for model in models}) > 1:
        raise ConfigurationError("train.teachers: their network.dense_stride and network.heads must be the same")
    teachers = []
    for model in models:
        mpp, own = config.train.mpp, model.config.train.mpp
        zoom = times_finer(mpp, own)
        if zoom is None:
            raise ConfigurationError(
                f"train.teachers: {model.version} was trained at {own} um/px; it must be train.mpp ({mpp}) or a half of it, a third and so on"
            )
        teachers.append((model.network, zoom))
    return teachers


def _enlarged(rgb: Tensor, zoom: int) -> Tensor:
    """(B, 3, h, w) as a network sees it that looks at `zoom` times finer pixels."""
    if zoom == 1:
        return rgb
    larger = functional.interpolate(rgb, scale_factor=zoom, mode="bilinear", align_corners=False)
    return larger.contiguous(memory_format=torch.channels_last)


def _groups(network: Detector, config: DetectorConfig) -> list[dict[str, Any]]:
    rate = config.train.learning_rate
    trunk = [p for n, p in network.named_parameters() if n.startswith("backbone.")]
    rest = [p for n, p in network.named_parameters() if not n.startswith("backbone.")]
    slow = rate * (config.train.backbone_rate_factor if config.train.pretrained else 1.0)
    return [{"params": trunk, "lr": slow, "full_lr": slow}, {"params": rest, "lr": rate, "full_lr": rate}]


def _schedule(step: int, total_steps: int, warmup: int) -> float:
    """Linear warm-up, then half a cosine down to 2 %."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def _append(path: Path, row: dict[str, Any], columns: list[str]) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        if new:
            writer.writeheader()
        writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})


LOSS_COLUMNS = [
    "step",
    "epoch",
    "kind",
    "seconds",
    "loss",
    "patch",
    "mask",
    "distance",
    "class",
    "box",
    "quality",
    "attention",
]


VALIDATION_COLUMNS = ["step", "epoch", "seconds", "auc", "auc_with_hard", "auc_coarse", "field_auc", "dice"]
RUN_FILES = (
    "checkpoint.safetensors",
    "best.safetensors",
    "loss.csv",
    "validation.csv",
    "loss.html",
    "hard_negatives.csv",
)


def run(config: DetectorConfig, folder: Path, *, fresh: bool = False, say: Any = print) -> Path:
    """Train to the end, going on from a checkpoint in `folder` unless `fresh`; returns the folder of the model.

    Raises Interrupted after Ctrl-C: the next call goes on from there. ConfigurationError for `data.every_fold`: what a version is
    evaluated by, it must not have learnt from.
    """
    if config.data.every_fold:
        raise ConfigurationError(
            "data.every_fold is for studies (study.py); a version needs its test fold for the evaluation"
        )
    torch.set_num_threads(config.train.threads)
    device = device_of(config.train.device)
    folder.mkdir(parents=True, exist_ok=True)
    if fresh:
        for name in RUN_FILES:
            (folder / name).unlink(missing_ok=True)
    material = load_material(config, rng=np.random.default_rng(config.train.seed + 1))
    material = add_slides(material, config, folder, say=say)
    try:
        trainer = Trainer(config, material, folder)
        resumed = trainer.resume()
        for name in ("loss.csv", "validation.csv"):
            _forget_after(folder / name, trainer.progress.step)
        verb = "going on at" if resumed else "starting at"
        where = f"step {trainer.progress.step} of {trainer.total_steps} on {_name_of(device)}"
        say(f"{verb} {where}; {material.counts()}")
        say(f"curves: {folder / 'loss.html'}; a checkpoint at least every {config.train.checkpoint_every_steps} steps")
        with closing(trainer):
            _loop(trainer, say)
        return _finish(trainer, say)
    finally:
        material.close()


def _forget_after(path: Path, step: int) -> None:
    """Drop the rows that a killed run wrote after its last checkpoint: they come again."""
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        lines = file.read().splitlines(keepends=True)
    kept = lines[:1] + [line for line in lines[1:] if line.endswith("\n") and int(line.split(",", 1)[0] or 0) <= step]
    unfinished = path.with_suffix(".part")
    unfinished.write_text("".join(kept), encoding="utf-8", newline="")
    os.replace(unfinished, path)


@contextmanager
def _noticing_ctrl_c() -> Iterator[list[int]]:
    """A list that is no longer empty once Ctrl-C was pressed; the step under way is finished first. Twice ends at once."""
    pressed: list[int] = []

    def notice(number: int, frame: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)
        os.write(2, STOPPING.encode())  # print may be what was interrupted

    try:
        before = signal.signal(signal.SIGINT, notice)
    except ValueError:  # not the main thread: whoever started it there has other means
        yield pressed
        return
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


class ProgressLine:
    """Step, epoch, loss and remaining time: one line that is written over on a terminal, a line now and then elsewhere."""

    def __init__(self, trainer: Trainer, say: Any) -> None:
        self.trainer, self.say = trainer, say
        self.on_terminal = sys.stderr.isatty()
        self.first_step, self.started = trainer.progress.step, time.monotonic()
        self.last, self.curve_last = self.started, 0.0
        self.loss: Tensor | None = None

    def show(self, loss: Tensor) -> None:
        self.loss = loss if self.loss is None else 0.95 * self.loss + 0.05 * loss
        now = time.monotonic()
        if now - self.last >= (0.5 if self.on_terminal else SAY_EVERY_SECONDS):
            self.last = now
            if self.on_terminal:
                print(f"\r{self.words()}\033[K", end="", file=sys.stderr, flush=True)
            else:
                self.say(self.words())
        if now - self.curve_last >= CURVE_EVERY_SECONDS:
            write_curve(self.trainer.folder, headline=self.words())
            self.curve_last = time.monotonic()

    def words(self) -> str:
        progress, trainer = self.trainer.progress, self.trainer
        done = progress.step - self.first_step
        left = (time.monotonic() - self.started) / max(done, 1) * (trainer.total_steps - progress.step)
        epoch = progress.step / trainer.steps_per_epoch
        loss = math.nan if self.loss is None else self.loss.item()
        return (
            f"step {progress.step}/{trainer.total_steps}, epoch {epoch:.2f}/{trainer.config.train.epochs}, "
            f"loss {loss:.4f}, {_in_time(left)} left"
        )

    def clear(self) -> None:
        if self.on_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _in_time(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {int(seconds % 60):02d} s"


def _loop(trainer: Trainer, say: Any) -> None:
    progress, per_epoch = trainer.progress, trainer.steps_per_epoch
    started = time.monotonic() - progress.seconds
    line = ProgressLine(trainer, say)
    with _noticing_ctrl_c() as pressed:
        while progress.step < trainer.total_steps and not _has_stopped_gaining(trainer):
            kind = "region" if trainer.is_region_step(progress.step) else "patch"
            losses = trainer.step()
            logged = progress.step % LOG_EVERY == 0 or kind == "region"
            values = {name: loss.item() for name, loss in losses.items()} if logged else {}
            progress.seconds = time.monotonic() - started
            if logged:
                row = {"step": progress.step, "epoch": round(progress.step / per_epoch, 3), "kind": kind}
                _append(trainer.folder / "loss.csv", {**row, "seconds": progress.seconds, **values}, LOSS_COLUMNS)
            line.show(losses["loss"])
            if progress.step % per_epoch == 0 or progress.step == trainer.total_steps:
                line.clear()
                _end_epoch(trainer, say)
                progress.seconds = time.monotonic() - started
                trainer.save_checkpoint()
            elif progress.step % trainer.config.train.checkpoint_every_steps == 0:
                trainer.save_checkpoint()
            if pressed:
                line.clear()
                trainer.save_checkpoint()
                write_curve(trainer.folder, headline=f"Stopped. {line.words()}", live=False)
                raise Interrupted(f"stopped at step {progress.step} of {trainer.total_steps}")
    write_curve(trainer.folder, headline=f"Finished at step {progress.step}.", live=False)


def _end_epoch(trainer: Trainer, say: Any) -> None:
    """Judge the averaged weights, keep the best, and look for false finds when it is time."""
    progress = trainer.progress
    epoch = progress.step // trainer.steps_per_epoch
    judged = trainer.validate()
    trainer.keep_if_best(judged)
    row = {"step": progress.step, "epoch": epoch, "seconds": progress.seconds, **judged}
    _append(trainer.folder / "validation.csv", row, VALIDATION_COLUMNS)
    words = ", ".join(f"{name} {value:.4f}" for name, value in judged.items() if value is not None) or "no validation"
    say(f"epoch {epoch}: {words}; best at step {progress.best_step}; {progress.seconds:.0f} s")
    every = trainer.config.train.hard_negative_every
    if every and epoch % every == 0 and progress.step < trainer.total_steps:
        pool = trainer.look_for_false_finds()
        fields = sum(find.kind == "slide" for find in pool)
        say(f"round {progress.rounds}: {fields} fields and {len(pool) - fields} patches in the pool of false finds")


def _has_stopped_gaining(trainer: Trainer) -> bool:
    patience, progress = trainer.config.train.patience, trainer.progress
    return bool(patience) and progress.step - max(progress.best_step, 0) >= patience * trainer.steps_per_epoch


def _finish(trainer: Trainer, say: Any) -> Path:
    """Write model/ from the weights that were best on the validation part, then score the test fold once."""
    trainer.average = load_file(trainer.folder / "best.safetensors")
    network, config, material = trainer.averaged().cpu(), trainer.config, trainer.material
    int8, card_int8 = try_eight_bits(
        network,
        material,
        np.random.default_rng([config.train.seed, trainer.total_steps]),
        value_of=lambda network: worth(trainer.validate(network)),
        zoom=zoom_of(config),
    )
    card = {
        "data": {"counts": material.counts(), "test_fold": config.data.test_fold, "patch_mpp": config.data.patch_mpp},
        "training": {
            "steps": trainer.progress.step,
            "best_step": trainer.progress.best_step,
            "seconds": round(trainer.progress.seconds),
            "device": _name_of(trainer.device),
        },
        "validation": {"auc": trainer.progress.best_auc},
        "int8": card_int8,
        "test": score_test_fold(network, int8, material, config),
    }
    version = time.strftime("%Y%m%d-%H%M")  # two trainings of one day are two versions
    # where the slides lay is the laboratory's own affair
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, slides=(), slide_splits="", folder=""))
    start = Path(config.train.start_from).name
    teachers = tuple(Path(folder).name for folder in config.train.teachers)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, start_from=start, teachers=teachers))
    scanner: Beside | None = None
    if config.scan.steps:
        model = LoadedModel(version, "", network.requires_grad_(False), config, card, int8)
        scanner, card["scan"] = scan_network.learn(model, material, seed=config.train.seed, say=say)
    save_model(
        trainer.folder / "model",
        state=trainer.average,
        config=config,
        version=f"{config.name}-{version}",
        card=card,
        int8=int8,
        scanner=scanner,
    )
    say(json.dumps(card["test"]))
    return trainer.folder / "model"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m analysis.detector.train", description="Train a detector from a configuration file."
    )
    parser.add_argument(
        "config", type=Path, metavar="CONFIG", help="TOML file, for example analysis/detector/configs/lite.toml"
    )
    parser.add_argument("--out", type=Path, help="folder of the run (default: METADET_HOME/training/NAME)")
    parser.add_argument("--fresh", action="store_true", help="begin again even if the folder holds a checkpoint")
    options = parser.parse_args(arguments)
    try:
        config = load_config(options.config)
        home = Path(os.environ.get("METADET_HOME", "var"))
        folder = options.out or home / "training" / config.name
        model = run(config, folder, fresh=options.fresh, say=lambda text: print(text, flush=True))
    except Interrupted as stopped:
        print(f"{stopped}; the same command goes on from there", file=sys.stderr)
        return 130
    except KeyboardInterrupt:  # after the last step, while the model is judged and its scan network learns
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    except (
        ConfigurationError,
        ModelRefused,
        ReferenceDataMissing,
        PatchFileError,
        SlideFolderError,
        AnnotationError,
        WsiError,
        ModuleNotFoundError,
        OSError,
    ) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    print(f"model written to {model}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
