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
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from analysis.detector.annotations import AnnotationError
from analysis.detector.card import ModelRefused, default_model_folder
from analysis.detector.configuration import SHIPPED, ConfigurationError, DetectorConfig, load_config
from analysis.detector.network import eight_bit
from analysis.detector.network.backbone import LiteBackbone, load_imagenet_weights
from analysis.detector.network.detector import Detector, to_input
from analysis.detector.patch_file import PatchFileError
from analysis.detector.reference_data import ReferenceDataMissing
from analysis.detector.training import scan_network
from analysis.detector.training.augmentation import degrade, jitter_stain, rescale, turn
from analysis.detector.training.eight_bits import try_eight_bits
from analysis.detector.training.hard_negatives import FalseFind, look_for_false_finds, use, write_pool
from analysis.detector.training.live_curve import write_curve
from analysis.detector.training.losses import patch_loss, region_losses, total
from analysis.detector.training.material import Material, load_material
from analysis.detector.training.patch_scores import CENTRE_SHARE, score_patches
from analysis.detector.training.slide_folders import SlideFolderError
from analysis.detector.training.slide_material import add_slides
from analysis.detector.training.targets import build_targets
from analysis.detector.training.validation import validation_figures, worth
from analysis.detector.weights import LoadedModel, Scanner, load_model, save_model
from analysis.metrics.roc import auc
from slides.wsi.errors import WsiError

SCALE_RANGE = (0.85, 1.2)
PATCH_SHARES = (0.38, 0.31, 0.31)
"""Of a batch: tumour, normal, hard negatives, as far as there are such patches."""
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
        torch.manual_seed(train.seed)
        self.rng = np.random.default_rng(train.seed)
        self.network = Detector(config.network)
        if train.start_from:
            self.network.load_state_dict(_weights_to_start_from(config))
        elif train.pretrained and isinstance(self.network.backbone, LiteBackbone):
            load_imagenet_weights(self.network.backbone)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(_groups(self.network, config), weight_decay=train.weight_decay)
        patches = len(material.positive) + len(material.negative) + len(material.hard_negative)
        patch_steps = max(1, patches // train.patch_batch)
        self.steps_per_epoch = patch_steps + (patch_steps // train.regions_every if train.regions_every > 0 else 0)
        if not patches:
            self.steps_per_epoch = max(1, train.regions_per_epoch // train.region_batch)
        self.total_steps = train.epochs * self.steps_per_epoch
        self.progress = Progress()

    # -- one step ---------------------------------------------------------------------------------------------------

    def is_region_step(self, step: int) -> bool:
        every = self.config.train.regions_every
        if every < 0 or not len(self.material.positive):
            return True
        return bool(every) and self.material.regions is not None and step % (every + 1) == every

    def step(self) -> dict[str, float]:
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_lr"] * _schedule(
                self.progress.step, self.total_steps, self.config.train.warmup_steps
            )
        region = self.is_region_step(self.progress.step)
        parts = self._region_step() if region else self._patch_step()
        loss = total(parts) if region else parts["patch"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self._follow()
        self.progress.step += 1
        return {"loss": loss.item(), **{k: v.item() for k, v in parts.items()}}

    def _patch_step(self) -> dict[str, Tensor]:
        train, data, rng = self.config.train, self.config.data, self.rng
        rgb, label = self._patch_batch()
        mpp = train.coarse_mpp if rng.random() < train.coarse_share else train.mpp
        factor = data.patch_mpp / mpp * float(np.exp(rng.uniform(*np.log(SCALE_RANGE))))
        side = max(64, round(rgb.shape[1] / mpp / 32) * 32)  # mirrored or cropped to this
        centre_px = rgb.shape[1] * CENTRE_SHARE * factor
        rgb = rescale(rgb, factor=factor, side=side)
        out = self.network(to_input(rgb))
        return {"patch": patch_loss(out, torch.from_numpy(label), centre_px=centre_px)}

    def _patch_batch(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """As many tumour as normal centres nearly; the hard negatives are half of the normal ones."""
        n, rng = self.config.train.patch_batch, self.rng
        sets = [self.material.positive, self.material.negative, self.material.hard_negative]
        shares = [share if len(s) else 0.0 for share, s in zip(PATCH_SHARES, sets, strict=True)]
        which = rng.choice(3, size=n, p=np.array(shares) / sum(shares))
        rgb, label = [], []
        for kind in which:
            chosen = sets[kind]
            rgb.append(turn(chosen.rgb[int(rng.integers(len(chosen)))], int(rng.integers(8))))
            label.append(int(kind == 0))
        images = jitter_stain(np.stack(rgb).astype(np.uint8), strength=self.config.train.stain_jitter, rng=rng)
        return degrade(images, rng=rng), np.array(label, np.int64)

    def _region_step(self) -> dict[str, Tensor]:
        assert self.material.regions is not None
        regions = [self.material.regions.make(self.rng) for _ in range(self.config.train.region_batch)]
        images = np.stack([r.rgb for r in regions])
        images = degrade(jitter_stain(images, strength=self.config.train.stain_jitter, rng=self.rng), rng=self.rng)
        return region_losses(
            self.network(to_input(images)), build_targets(regions, dense_stride=self.config.network.dense_stride)
        )

    def _follow(self) -> None:
        """Move the averaged weights; young averages move faster."""
        decay = min(self.config.train.ema_decay, (1 + self.progress.step) / (10 + self.progress.step))
        for key, value in self.network.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[key].lerp_(value.detach(), 1 - decay)
            else:
                self.average[key].copy_(value)

    # -- judging and keeping ----------------------------------------------------------------------------------------

    def averaged(self) -> Detector:
        network = Detector(self.config.network)
        network.load_state_dict(self.average)
        return network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def validate(self, network: Detector | None = None) -> dict[str, float | None]:
        """Of the averaged weights, or of another network."""
        return validation_figures(network or self.averaged(), self.material, self.config)

    def look_for_false_finds(self) -> list[FalseFind]:
        """One round: the pool is replaced by that of the averaged weights of now."""
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
            save_file({k: v.contiguous() for k, v in self.average.items()}, self.folder / "best.safetensors")

    def save_checkpoint(self) -> None:
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{k}": v for k, v in state.items()}
        # one file, so that weights and random state cannot come from different moments
        note = {"rng": self.rng.bit_generator.state, **vars(self.progress)}
        path = self.folder / "checkpoint.safetensors"
        tensors = {k: v.detach().contiguous().clone() for k, v in tensors.items()}
        save_file(tensors, path.with_suffix(".part"), metadata={"note": json.dumps(note)})
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
        self.average = _under(tensors, "average.")
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in _under(tensors, "adam.").items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.rng.bit_generator.state = note.pop("rng")
        self.progress = Progress(**note)
        self.material = use([FalseFind(**find) for find in self.progress.false_finds], self.material_without_pool)
        return True


def _weights_to_start_from(config: DetectorConfig) -> dict[str, Tensor]:
    """Raises ConfigurationError where the version is of another network, ModelRefused where it cannot be loaded."""
    start = config.train.start_from
    model = load_model(default_model_folder() if start == SHIPPED else Path(start))
    if model.config.network != config.network:
        raise ConfigurationError(
            f"train.start_from: {model.version} is of another network; copy its [network] into the configuration"
        )
    return model.network.state_dict()


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

    Raises Interrupted after Ctrl-C: the next call goes on from there.
    """
    torch.set_num_threads(config.train.threads)
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
        say(f"{verb} step {trainer.progress.step} of {trainer.total_steps}; {material.counts()}")
        say(f"curves: {folder / 'loss.html'}; a checkpoint at least every {config.train.checkpoint_every_steps} steps")
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
        self.last, self.curve_last, self.loss = self.started, 0.0, math.nan

    def show(self, loss: float) -> None:
        self.loss = loss if math.isnan(self.loss) else 0.95 * self.loss + 0.05 * loss
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
        return (
            f"step {progress.step}/{trainer.total_steps}, epoch {epoch:.2f}/{trainer.config.train.epochs}, "
            f"loss {self.loss:.4f}, {_in_time(left)} left"
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
            progress.seconds = time.monotonic() - started
            if progress.step % LOG_EVERY == 0 or kind == "region":
                row = {"step": progress.step, "epoch": round(progress.step / per_epoch, 3), "kind": kind}
                _append(trainer.folder / "loss.csv", {**row, "seconds": progress.seconds, **losses}, LOSS_COLUMNS)
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
    network, config, material = trainer.averaged(), trainer.config, trainer.material
    int8, card_int8 = try_eight_bits(
        network, material, trainer.rng, value_of=lambda network: worth(trainer.validate(network))
    )
    test = material.test
    mpp = config.read.mpp
    scores = score_patches(network, test.rgb, patch_mpp=config.data.patch_mpp, mpp=mpp)
    coarse = score_patches(network, test.rgb, patch_mpp=config.data.patch_mpp, mpp=config.read.scan_mpp)
    hard = score_patches(network, material.test_hard_negative.rgb, patch_mpp=config.data.patch_mpp, mpp=mpp)
    rounded = eight_bit.quantised(network, int8) if int8 else None
    scores_int8 = score_patches(rounded, test.rgb, patch_mpp=config.data.patch_mpp, mpp=mpp) if rounded else None
    positives = scores[test.label == 1]
    at_90 = float(np.quantile(positives, 0.1)) if len(positives) else None
    card = {
        "data": {"counts": material.counts(), "test_fold": config.data.test_fold, "patch_mpp": config.data.patch_mpp},
        "training": {
            "steps": trainer.progress.step,
            "best_step": trainer.progress.best_step,
            "seconds": round(trainer.progress.seconds),
        },
        "validation": {"auc": trainer.progress.best_auc},
        "int8": card_int8,
        "test": {
            "n": len(test),
            "auc": auc(test.label == 1, scores),
            "auc_int8": auc(test.label == 1, scores_int8) if scores_int8 is not None else None,
            "auc_at_scan_mpp": auc(test.label == 1, coarse),
            "auc_by_stain": {
                str(s): auc(test.label[test.stain == s] == 1, scores[test.stain == s]) for s in np.unique(test.stain)
            },
            "threshold_90_sensitivity": at_90,
            "hard_negatives": len(hard),
            "hard_negative_rate_at_90": float((hard >= at_90).mean()) if at_90 is not None and len(hard) else None,
        },
    }
    version = time.strftime("%Y%m%d-%H%M")  # two trainings of one day are two versions
    # where the slides lay is the laboratory's own affair
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, slides=(), slide_splits="", folder=""))
    start = Path(config.train.start_from).name
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, start_from=start))
    scanner: Scanner | None = None
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
