"""A case with one slide, its run, a first and a second reader, and the other roles around them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client

from accounts.enums import Role
from accounts.models import User
from analysis.models import ModelVersion, Run
from review.enums import AssignmentRole
from slides.models import Case, Slide
from tests import factories


@pytest.fixture(autouse=True)
def home(tmp_path: Path, settings: Any) -> Path:
    settings.METADET_HOME = tmp_path
    return tmp_path


@dataclass
class Ward:
    """The people and the case of a test."""

    ann: User
    ben: User
    cora: User
    otto: User
    eve: User
    quinn: User
    case: Case
    slide: Slide
    model: ModelVersion
    run: Run


@pytest.fixture
def ward(db: None) -> Ward:
    return make_ward()


def make_ward() -> Ward:
    ann = factories.make_user("ann", Role.READER)
    ben = factories.make_user("ben", Role.READER)
    case = factories.make_case()
    slide = factories.make_slide(case)
    model = factories.make_model()
    ward = Ward(
        ann=ann,
        ben=ben,
        cora=factories.make_user("cora", Role.ADJUDICATOR),
        otto=factories.make_user("otto", Role.OPERATOR, Role.ADMINISTRATOR),
        eve=factories.make_user("eve", Role.READER),
        quinn=factories.make_user("quinn", Role.AUDITOR),
        case=case,
        slide=slide,
        model=model,
        run=factories.make_run(slide, scores=(0.9, 0.7, 0.2)),
    )
    factories.assign(case, ann)
    factories.assign(case, ben, AssignmentRole.SECOND)
    return ward


class ReadClient:
    """A signed-in reader with one open read, talking to the API as the viewer does."""

    def __init__(self, user: User, slide: Slide) -> None:
        self.http = Client()
        self.http.force_login(user)
        self.user = user
        answer = self.http.post(f"/slides/{slide.pk}/read/")
        assert answer.status_code == 302, answer.content
        self.read_id = answer["Location"].strip("/").split("/")[-1]
        self.base = f"/api/reads/{self.read_id}/"

    def state(self) -> dict[str, Any]:
        answer = self.http.get(self.base)
        assert answer.status_code == 200, answer.content
        return dict(answer.json())

    def post(self, act: str, *, key: str | None = None, version: int | None = None, **body: Any) -> Any:
        expected = self.state()["version"] if version is None else version
        return self.http.post(
            f"{self.base}{act}/",
            {"expected_version": expected, **body},
            content_type="application/json",
            headers={"Idempotency-Key": key or str(uuid4())},
        )

    def call(self, value: str = "negative", **body: Any) -> dict[str, Any]:
        return self._done(self.post("calls", call=value, **body))

    def lock(self) -> dict[str, Any]:
        return self._done(self.post("lock", confirm=True))

    def ai(self) -> dict[str, Any]:
        return self._done(self.http.get(f"{self.base}ai/"))

    def accept(self, lesion: str) -> dict[str, Any]:
        return self._done(self.post("decisions", lesion=lesion, verdict="accepted"))

    def reject(self, lesion: str, reason: str = "histiocytes") -> dict[str, Any]:
        return self._done(self.post("decisions", lesion=lesion, verdict="rejected", reason=reason))

    def finish(self, value: str = "macro", *, unaided: str = "negative") -> None:
        """Unaided call, lock, every lesion at or above the threshold accepted, final call."""
        self.call(unaided)
        self.lock()
        found = self.ai()
        for lesion in found["lesions"]:
            if lesion["score"] >= found["run"]["threshold"]:
                self.accept(lesion["id"])
        self.call(value)

    def sign(self, *, password: str = factories.PASSWORD, meaning: str = "first_read") -> Any:
        case_id = self.state()["case"]["id"]
        shown = self._done(self.http.get(f"/api/cases/{case_id}/manifest/"))
        return self.http.post(
            f"/api/cases/{case_id}/sign/",
            {"meaning": meaning, "password": password, "manifest_sha256": shown["manifest_sha256"]},
            content_type="application/json",
            headers={"Idempotency-Key": str(uuid4())},
        )

    @staticmethod
    def _done(answer: Any) -> dict[str, Any]:
        assert answer.status_code == 200, answer.content
        return dict(answer.json())


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client
