"""The whole path over HTTP: a file is uploaded, prepared, detected, read blind, revealed, decided, signed, compared, verified.

Real database with the product's own rights, real decoding child, a real (small, untrained) network. Only the broker is
left out: the workers' functions are called where a worker would be told to.
"""

import io
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from PIL import Image

from accounts.enums import Role
from accounts.models import User
from accounts.sign_in import make_one_time_link
from analysis import runs
from analysis.detector.configuration import DetectorConfig, ReadConfig
from analysis.detector.evaluate import record_evaluation
from analysis.detector.network.detector import Detector
from analysis.detector.weights import save_model
from analysis.models import Run
from analysis.models_registry import activate_model, register_model
from audit_trail.models import Event
from audit_trail.verification import Verdict, verify_trail
from jobs.enums import JobKind, JobState
from jobs.models import Job
from jobs.running import run
from slides.models import Case, Slide
from tests import factories
from tests.analysis.detector.conftest import SMALL, small_network, tissue_like
from tests.slides.conftest import Tus, prepare_now
from tests.slides.wsi.made_slides import write_jpeg_tiff

__all__ = ["small_network"]  # a fixture

# Real commits: the worker's heartbeat looks at the job from a connection of its own.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, settings: Any) -> Path:
    settings.METADET_HOME = tmp_path / "home"
    settings.DISK_FLOOR_BYTES = 0
    settings.METADET_HOME.mkdir()
    return Path(settings.METADET_HOME)


@pytest.fixture
def model(small_network: Detector, tmp_path: Path) -> None:
    """Active. Its thresholds are so low that it finds something in noise, and every finding counts."""
    config = DetectorConfig(network=SMALL, read=ReadConfig(seed_probability=0.3, grow_probability=0.25))
    card = {"name": "small", "threshold": 0.0}
    folder = tmp_path / "model"
    sha256 = save_model(folder, state=small_network.state_dict(), config=config, version="1", card=card)
    record_evaluation(folder, "made", {"model": {"sha256": sha256}, "auc": 0.5})
    activate_model(model_version=register_model(folder=folder, actor=None), actor=None)


def by_link(user: User) -> Client:
    """Logged in by a one-time link, as after the first start."""
    client = Client()
    path = f"/accounts/one-time/{make_one_time_link(user=user)}/"
    assert client.get(path).status_code == 200
    assert client.post(path).status_code == 302
    return client


def post(client: Client, url: str, **body: Any) -> dict[str, Any]:
    answer = client.post(url, body, content_type="application/json", headers={"Idempotency-Key": str(uuid4())})
    assert answer.status_code == 200, answer.content
    return dict(answer.json())


def test_a_slide_goes_in_and_a_signature_comes_out(model: None, tmp_path: Path, as_role: Any) -> None:
    operator, reader, auditor = (
        factories.make_user(name, role)
        for name, role in (("otto", Role.OPERATOR), ("ann", Role.READER), ("quinn", Role.AUDITOR))
    )
    with as_role("metadet_app"):
        slide = goes_in(by_link(operator), tmp_path, reader)
        found = is_read(by_link(reader), slide)
        is_compared(by_link(auditor), slide, found)
    assert verify_trail().verdict == Verdict.WHOLE


def goes_in(operator: Client, folder: Path, reader: User) -> Slide:
    """Upload, preparation, detection, assignment."""
    path = write_jpeg_tiff(folder / "node.tif", tissue_like(768, 1024, seed=4), levels=2, mpp=1.0)
    assert Tus(operator).send(path.read_bytes(), name="node.tif", case="S26-0042", node="LN1").status_code == 204
    slide = prepare_now(Slide.objects.get().pk)
    assert slide.state == "ready", slide.reason
    job = Job.objects.get(kind=JobKind.DETECT, subject_id=slide.pk)  # it was asked for by itself
    assert run(job_id=job.pk, handler=runs.do_detection, on_ended_badly=runs.record_bad_end) == JobState.DONE
    case = Case.objects.get()
    operator.post(f"/cases/{case.pk}/assign/", {"reader": reader.pk, "role": "first"})
    assert reader.printed_name in operator.get(f"/cases/{case.pk}/").content.decode()
    return slide


def is_read(reader: Client, slide: Slide) -> dict[str, Any]:
    """From the worklist to the signature; the AI result as the reader saw it."""
    worklist = reader.get("/worklist/").content.decode()
    case_page = re.search(r"/cases/[0-9a-f-]{36}/", worklist)
    assert case_page is not None
    case = reader.get(case_page.group()).content.decode()
    assert f"/slides/{slide.pk}/read/" in case
    read_page = reader.post(f"/slides/{slide.pk}/read/")["Location"]
    boot = reader.get(read_page).context["boot"]
    opened = reader.post(boot["urls"]["view"], content_type="application/json").json()
    assert (opened["descriptor"]["width"], opened["descriptor"]["height"]) == (1024, 768)
    api = boot["urls"]["read"]
    assert reader.get(boot["urls"]["ai"]).status_code == 404

    state = post(reader, f"{api}calls/", call="negative", expected_version=0)
    state = post(reader, f"{api}lock/", confirm=True, expected_version=state["version"])
    found = reader.get(boot["urls"]["ai"]).json()
    assert found["lesions"], "the small network finds something in noise"
    for lesion in found["lesions"]:
        body = {"lesion": lesion["id"], "verdict": "accepted", "expected_version": state["version"]}
        state = post(reader, f"{api}decisions/", **body)
    field = reader.get(found["lesions"][0]["field_url"])
    with Image.open(io.BytesIO(b"".join(field.streaming_content))) as picture:
        assert picture.format == "JPEG"
    state = post(reader, f"{api}calls/", call="micro", expected_version=state["version"])
    assert state["can"]["sign"], state["why_not"]["sign"]

    shown = reader.get(f"/api/cases/{slide.case_id}/manifest/").json()
    signed = post(
        reader,
        f"/api/cases/{slide.case_id}/sign/",
        meaning="first_read",
        password=factories.PASSWORD,
        manifest_sha256=shown["manifest_sha256"],
        utc_offset_minutes=60,
    )
    report = reader.get(signed["report_url"]).content.decode()
    assert shown["manifest_sha256"] in report
    assert "hash and seal fit" in report
    return dict(found)


def is_compared(auditor: Client, slide: Slide, found: dict[str, Any]) -> None:
    """The agreement page knows the slide as discordant before the AI was seen, and opens it with AI and read."""
    page = auditor.get("/agreement/")
    unaided, final = page.context["tables"]
    assert (unaided.ai_only, final.both) == (1, 1)
    viewer = auditor.get(f"/agreement/slides/{slide.pk}/").context["boot"]
    assert viewer["audit"]["reads"][0]["final_call"]["value"] == "micro"
    seen = auditor.get(viewer["audit"]["ai_url"]).json()
    assert [lesion["outline"] for lesion in seen["lesions"]] == [lesion["outline"] for lesion in found["lesions"]]
    assert Run.objects.count() == 1
    assert "case signed" in auditor.get("/trail/").content.decode()
    assert Event.objects.filter(kind="ai_viewed_by_auditor").count() == 1
