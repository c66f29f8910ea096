import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from analysis.detector.card import ModelRefused, default_model_folder, read_card, shipped_models, verify_weights
from analysis.detector.configuration import DetectorConfig, ReadConfig
from analysis.detector.network.detector import TOWER_PARTS, Detector
from analysis.detector.weights import load_model, save_model
from analysis.detector.weights_file import check_safetensors
from tests.analysis.detector.conftest import REPOSITORY, SMALL


@pytest.fixture
def folder(tmp_path: Path, small_network: Detector) -> Path:
    config = DetectorConfig(network=SMALL)
    save_model(tmp_path / "m", state=small_network.state_dict(), config=config, version="v1", card={"name": "small"})
    return tmp_path / "m"


def test_what_was_saved_is_loaded(folder: Path, small_network: Detector) -> None:
    model = load_model(folder)
    x = torch.randn(1, 3, 128, 128)
    assert torch.allclose(model.network(x).tumour_logit, small_network(x).tumour_logit, rtol=1e-3, atol=1e-3)
    assert (model.version, model.card["name"]) == ("v1", "small")
    assert model.config.network == SMALL
    assert model.sha256 == read_card(folder)["sha256"]


def test_the_same_weights_read_by_other_rules_have_another_digest(
    folder: Path, small_network: Detector, tmp_path: Path
) -> None:
    def saved(version: str, **rules: float) -> str:
        config = DetectorConfig(network=SMALL, read=ReadConfig(**rules))
        return save_model(tmp_path / version, state=small_network.state_dict(), config=config, version=version, card={})

    assert saved("v2") == read_card(folder)["sha256"]  # its name and when it was made change nothing
    assert saved("v3", grow_probability=0.4) != read_card(folder)["sha256"]
    assert check_safetensors(tmp_path / "v3" / "weights.safetensors") == check_safetensors(
        folder / "weights.safetensors"
    )


def test_altered_weights_are_refused(folder: Path) -> None:
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ModelRefused, match="SHA-256 differs"):
        load_model(folder)


def test_a_pickle_is_never_loaded_even_under_the_right_hash(folder: Path, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (trap,))

    path = folder / "weights.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    import hashlib

    content = json.loads((folder / "model.json").read_text())
    content["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(content))
    with pytest.raises(ModelRefused, match="do not fit"):
        load_model(folder)
    assert not trap.exists()


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    content = json.loads((folder / "model.json").read_text())
    content["config"]["network"]["pyramid_channels"] = 32
    (folder / "model.json").write_text(json.dumps(content))
    with pytest.raises(ModelRefused, match="do not fit"):
        load_model(folder)


def test_a_network_of_the_mask_alone_has_no_towers_and_reads_files_that_carry_some(
    small_network: Detector, tmp_path: Path
) -> None:
    network = dataclasses.replace(SMALL, heads="mask")
    assert not any(name.startswith(TOWER_PARTS) for name in Detector(network).state_dict())
    with_towers = small_network.state_dict()
    assert any(name.startswith(TOWER_PARTS) for name in with_towers)
    config = DetectorConfig(network=network)
    save_model(tmp_path / "before", state=with_towers, config=config, version="v0", card={})
    model = load_model(tmp_path / "before")
    x = torch.randn(1, 3, 128, 128)
    assert torch.allclose(model.network(x).tumour_logit, small_network(x).tumour_logit, rtol=1e-3, atol=1e-3)
    assert model.network(x).levels == []
    save_model(tmp_path / "after", state=model.network.state_dict(), config=config, version="v1", card={})
    before, after = ((tmp_path / name / "weights.safetensors").stat().st_size for name in ("before", "after"))
    assert after < before


@pytest.mark.parametrize(
    ("text", "reason"), [("{", "damaged"), ("[]", "not of format"), ('{"format": 1, "version": "x"}', "lacks sha256")]
)
def test_a_damaged_card_is_refused_in_words(folder: Path, text: str, reason: str) -> None:
    (folder / "model.json").write_text(text)
    with pytest.raises(ModelRefused, match=reason):
        verify_weights(folder)


def test_missing_weights_and_cards_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "weights.safetensors").unlink()
    with pytest.raises(ModelRefused, match="are missing"):
        verify_weights(folder)
    with pytest.raises(ModelRefused, match="cannot be read"):
        read_card(tmp_path / "nowhere")


def test_the_card_is_read_without_torch() -> None:
    code = "import sys; import analysis.detector.card as c; c.shipped_models(); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_each_shipped_model_loads_and_carries_an_evaluation() -> None:
    assert default_model_folder() in shipped_models()
    for shipped in shipped_models():
        model = load_model(shipped)
        assert model.card["evaluation"]
        assert model.card["name"]
        assert 0 < model.card["threshold"] < 1
