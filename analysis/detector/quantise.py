"""8-bit ranges for a model version that has none: `python -m analysis.detector.quantise MODEL --out FOLDER --version NAME`.

Training measures them by itself (`training/eight_bits.py`); this is for versions that were trained before, or on other
material. The weights stay as they are; with the ranges beside them they are another version, to be evaluated and calibrated
anew: what was measured in floats does not hold to the last digit, and is left out of its card.
"""

import sys
from pathlib import Path

import numpy as np

from analysis.detector.configuration import ConfigurationError
from analysis.detector.network import eight_bit
from analysis.detector.training.eight_bits import try_eight_bits, zoom_of
from analysis.detector.training.material import load_material
from analysis.detector.training.patch_scores import score_patches
from analysis.detector.training.validation import validation_figures, worth
from analysis.detector.version_command import make_version, parser_of
from analysis.detector.weights import LoadedModel, save_model
from analysis.metrics.roc import auc

MEASURED_IN_FLOATS = ("calibration", "drift_reference", "suspicion", "evaluation")


def with_ranges(model: LoadedModel, folder: Path, *, version: str) -> str:
    """Write the new version into `folder`; returns the SHA-256 of its weights.

    Raises ConfigurationError where 8 bits cost too much, and what loading its training material raises.
    """
    config = model.config
    material = load_material(config, rng=np.random.default_rng(config.train.seed + 1))
    if not (len(material.positive) or len(material.negative)):
        raise ConfigurationError(
            f"{model.version} names no patches: the slides it was trained on are not kept in its card"
        )
    try:
        ranges, said = try_eight_bits(
            model.network,
            material,
            np.random.default_rng(config.train.seed),
            value_of=lambda network: worth(validation_figures(network, material, config)),
            zoom=zoom_of(config),
        )
        if not ranges:
            raise ConfigurationError(_refusal(model.version, said["validation"]))
        test, data = material.test, config.data
        scores = score_patches(
            eight_bit.quantised(model.network, ranges), test.rgb, patch_mpp=data.patch_mpp, mpp=config.read.mpp
        )
    finally:
        material.close()
    card = {key: value for key, value in model.card.items() if key not in MEASURED_IN_FLOATS}
    card["int8"] = said
    card["test"] = {**card.get("test", {}), "auc_int8": auc(test.label == 1, scores)}
    state = dict(model.network.state_dict())
    return save_model(folder, state=state, config=config, version=version, card=card, int8=ranges, **model.beside)


def _refusal(version: str, validation: dict[str, float | None]) -> str:
    plain, rounded = validation["float"], validation["int8"]
    if plain is None or rounded is None:
        return f"there is no validation material with and without tumour by which {version} could be judged in 8 bits"
    return f"8 bits cost {version} too much: validation falls from {plain:.4f} to {rounded:.4f}"


def main(arguments: list[str] | None = None) -> int:
    parser = parser_of("quantise", __doc__.splitlines()[0])
    return make_version(
        parser, arguments, lambda model, options: with_ranges(model, options.out, version=options.version)
    )


if __name__ == "__main__":
    sys.exit(main())
