"""An administrator sends the two files of a model folder: registered, or refused in words, and both stand in the trail."""

import hashlib
import json
import pickle
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from accounts.enums import Role
from analysis.detector.card import CARD_NAME, WEIGHTS_NAME, file_sha256
from analysis.enums import ModelState
from analysis.models import ModelVersion
from audit_trail.enums import EventKind
from audit_trail.models import Event
from tests.factories import make_user
from tests.slides.conftest import logged_in

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("home")]


@pytest.fixture
def administrator(db: None) -> Client:
    return logged_in(make_user("admin", Role.ADMINISTRATOR))


def send(client: Client, card: bytes | None, weights: bytes | None, *, weights_name: str = WEIGHTS_NAME) -> Any:
    sent: dict[str, Any] = {}
    if card is not None:
        sent["card"] = SimpleUploadedFile(CARD_NAME, card)
    if weights is not None:
        sent["weights"] = SimpleUploadedFile(weights_name, weights)
    return client.post("/api/models/", sent)


def files_of(folder: Path) -> tuple[bytes, bytes]:
    return (folder / CARD_NAME).read_bytes(), (folder / WEIGHTS_NAME).read_bytes()


def changed(card: bytes, /, **changes: Any) -> bytes:
    return json.dumps({**json.loads(card), **changes}).encode()


def test_a_sent_model_is_kept_and_registered_but_not_yet_to_be_used(
    administrator: Client, model_files: Callable[..., Path], home: Path
) -> None:
    card, weights = files_of(model_files())
    answer = send(administrator, card, weights)
    assert answer.status_code == 201, answer.content
    version = ModelVersion.objects.get()
    assert answer.json()["id"] == str(version.pk)
    assert (version.name, version.version, version.state) == ("small", "1", ModelState.REGISTERED)
    assert version.path.parent == home / "models"
    assert file_sha256(version.path / WEIGHTS_NAME) == version.sha256
    assert Event.objects.get(kind=EventKind.MODEL_REGISTERED).details["sha256"] == version.sha256


def test_an_evaluation_that_came_in_the_card_does_not_count(
    administrator: Client, model_files: Callable[..., Path]
) -> None:
    card, weights = files_of(model_files())
    content = json.loads(card)
    praise = {"patches": {"auc": 1.0, "model": {"sha256": content["sha256"]}}}
    send(administrator, changed(card, card={"name": "small", "evaluation": praise}), weights)
    version = ModelVersion.objects.get()
    assert version.card_evaluates_these_weights
    assert version.state == ModelState.REGISTERED
    assert administrator.post(f"/api/models/{version.pk}/activate/").status_code == 409


def test_the_same_weights_again_change_nothing(administrator: Client, model_files: Callable[..., Path]) -> None:
    card, weights = files_of(model_files())
    first = send(administrator, card, weights)
    again = send(administrator, changed(card, card={"name": "other"}), weights)
    assert again.status_code == 200
    assert again.json() == first.json()
    assert Event.objects.filter(kind=EventKind.MODEL_REGISTERED).count() == 1


def a_pickle() -> bytes:
    file = BytesIO()
    pickle.dump({"weights": [1.0, 2.0]}, file)
    return file.getvalue()


def with_hash_of(card: bytes, weights: bytes) -> bytes:
    return changed(card, sha256=hashlib.sha256(weights).hexdigest())


def pickled(card: bytes, weights: bytes) -> tuple[bytes, bytes]:
    return with_hash_of(card, a_pickle()), a_pickle()


def altered(card: bytes, weights: bytes) -> tuple[bytes, bytes]:
    return card, weights[:-1] + bytes([weights[-1] ^ 1])


def cut_off(card: bytes, weights: bytes) -> tuple[bytes, bytes]:
    return with_hash_of(card, weights[:-8]), weights[:-8]


def with_something_behind(card: bytes, weights: bytes) -> tuple[bytes, bytes]:
    return with_hash_of(card, weights + b"PK\x03\x04"), weights + b"PK\x03\x04"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (pickled, "no safetensors file"),
        (altered, "SHA-256 differs"),
        (cut_off, "cut off"),
        (with_something_behind, "something behind them"),
        (lambda card, weights: (b"{", weights), "is damaged"),
        (lambda card, weights: (b"[" * 200_000, weights), "is damaged"),
        (lambda card, weights: (b"\xff\xfe", weights), "is damaged"),
        (lambda card, weights: (changed(card, format=9), weights), "not of format"),
        (lambda card, weights: (changed(card, card=[1]), weights), "must be tables"),
        (lambda card, weights: (changed(card, version=""), weights), "1 to 40 characters"),
        (lambda card, weights: (changed(card, config={"network": {"backbone": "vgg"}}), weights), "no such network"),
        (lambda card, weights: (changed(card, config={"evil": 1}), weights), "unknown key evil"),
        (lambda card, weights: (changed(card, card={"threshold": 2}), weights), "between 0 and 1"),
        (lambda card, weights: (changed(card, card={"auc": float("nan")}), weights), "no number"),
        (lambda card, weights: (changed(card, card={"name": "a\x00b"}), weights), "no text"),
    ],
)
def test_what_cannot_be_trusted_is_refused_in_words_and_nothing_is_kept(
    administrator: Client, model_files: Callable[..., Path], home: Path, change: Any, words: str
) -> None:
    card, weights = change(*files_of(model_files()))
    answer = send(administrator, card, weights)
    assert answer.status_code == 400
    assert words in answer.json()["message"]
    assert ".incoming" not in answer.json()["message"]
    assert not ModelVersion.objects.exists()
    assert list((home / "models").iterdir()) == []
    event = Event.objects.get(kind=EventKind.MODEL_REFUSED)
    assert (event.outcome, event.details["act"]) == ("denied", "register")
    assert words in event.details["reason"]


def test_one_file_alone_or_of_another_kind_is_refused(administrator: Client, model_files: Callable[..., Path]) -> None:
    card, weights = files_of(model_files())
    assert "Send both" in send(administrator, card, None).json()["message"]
    assert "Send both" in send(administrator, None, weights).json()["message"]
    assert "never opened" in send(administrator, card, weights, weights_name="weights.pt").json()["message"]
    assert Event.objects.filter(kind=EventKind.MODEL_REFUSED).count() == 3


def test_other_weights_under_a_known_name_are_refused(administrator: Client, model_files: Callable[..., Path]) -> None:
    send(administrator, *files_of(model_files("1", seed=1)))
    answer = send(administrator, *files_of(model_files("1", seed=2)))
    assert answer.status_code == 400
    assert "with other weights already" in answer.json()["message"]
    assert ModelVersion.objects.count() == 1


def test_weights_above_the_limit_are_refused(
    administrator: Client, model_files: Callable[..., Path], settings: Any, home: Path
) -> None:
    card, weights = files_of(model_files())
    settings.MODEL_UPLOAD_MAX_BYTES = len(weights) - 1
    answer = send(administrator, card, weights)
    assert answer.status_code == 413
    assert "larger than" in answer.json()["message"]
    assert not (home / "models").exists()


def test_a_body_far_above_the_limit_is_not_kept_at_all(
    administrator: Client, settings: Any, home: Path, model_files: Callable[..., Path]
) -> None:
    card, _ = files_of(model_files())
    settings.MODEL_UPLOAD_MAX_BYTES = 1000
    big = b"\x00" * (5 * 2**20)
    answer = send(administrator, card, big)
    assert answer.status_code == 413
    sent = {"card": SimpleUploadedFile(CARD_NAME, card), "weights": SimpleUploadedFile(WEIGHTS_NAME, big)}
    page = administrator.post("/models/register/", sent, follow=True)
    assert "Nothing was kept" in page.content.decode()
    assert not (home / "models").exists()


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.OPERATOR, Role.READER])
def test_only_administrators_register(role: Role, model_files: Callable[..., Path]) -> None:
    client = logged_in(make_user("other", role))
    assert send(client, *files_of(model_files())).status_code == 403
    assert client.post("/models/register/").status_code == 404
    assert client.get("/api/models/").status_code == (200 if role == Role.AUDITOR else 403)
    assert not ModelVersion.objects.exists()


def test_the_page_registers_too_and_shows_the_card(administrator: Client, model_files: Callable[..., Path]) -> None:
    card, weights = files_of(model_files(card={"name": "small", "data": {"counts": {"train_tumour": 7}}}))
    sent = {"card": SimpleUploadedFile(CARD_NAME, card), "weights": SimpleUploadedFile(WEIGHTS_NAME, weights)}
    page = administrator.post("/models/register/", sent, follow=True).content.decode()
    assert "small 1 is registered" in page
    assert "Not evaluated yet" in page
    assert "counts, train tumour" in page
