"""People, tiny real slides, and slides that went through the real preparation."""

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import tifffile
from django.db import transaction
from django.test import Client

from accounts.enums import Role
from accounts.models import User
from jobs.enums import JobKind
from jobs.models import Job
from jobs.running import run
from slides import importing, ingest, open_stores, tile_service
from slides.ingest import check_ended_badly, preparation_ended_badly
from slides.models import CaseAccess, Slide
from slides.preparing import check, prepare
from slides.wsi import sandbox
from slides.wsi.properties import SlideProperties
from slides.wsi.quality import Quality
from slides.wsi.store_plan import StorePlan

APERIO = (
    "Aperio Image Library v11.0.37\r\n{width}x{height} [0,0 {width}x{height}] (256x256) JPEG/RGB Q=80|AppMag = 20{mpp}"
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, settings: Any) -> Path:
    """An installation of its own for each test."""
    settings.METADET_HOME = tmp_path / "home"
    settings.DISK_FLOOR_BYTES = 0
    settings.HEARTBEAT_SECONDS = 3600  # its thread has a connection of its own, which cannot see a test's transaction
    settings.METADET_HOME.mkdir()
    tile_service.forget_verdicts()
    open_stores._open.clear()
    return settings.METADET_HOME


@pytest.fixture
def person(db: None) -> Callable[..., User]:
    def make(name: str, *roles: Role, **facts: Any) -> User:
        return User.objects.create_user(name, password="a long password", printed_name=name, roles=list(roles), **facts)

    return make


@pytest.fixture
def operator(person: Callable[..., User]) -> User:
    return person("operator", Role.OPERATOR)


@pytest.fixture
def reader(person: Callable[..., User]) -> User:
    return person("reader", Role.READER)


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def write_slide(path: Path, *, seed: int = 1, mpp: float | None = 0.5, width: int = 700, height: int = 600) -> Path:
    """A tiled JPEG TIFF as an Aperio scanner writes it: purple tissue on white, factor-2 levels."""
    noise = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 244, np.uint8)
    tissue = noise.normal((150, 90, 160), 25, (height // 2, width // 2, 3)).clip(0, 255).astype(np.uint8)
    picture[height // 4 : height // 4 + height // 2, width // 4 : width // 4 + width // 2] = tissue
    description = APERIO.format(width=width, height=height, mpp=f"|MPP = {mpp}" if mpp else "")
    options: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        file.write(picture, description=description, **options)
        file.write(picture[::2, ::2], description=description, subfiletype=1, **options)
    return path


def prepare_now(slide_id: UUID) -> Slide:
    """Does the slide's waiting job as the ingest worker does."""
    job = Job.objects.get(subject_id=slide_id, kind=JobKind.PREPARE_SLIDE, state="queued")
    run(job_id=job.pk, handler=prepare, on_ended_badly=preparation_ended_badly)
    return Slide.objects.get(pk=slide_id)


def check_now(slide_id: UUID) -> Slide:
    """Does the waiting check of a slide that has its first look, as the check worker does."""
    job = Job.objects.get(subject_id=slide_id, kind=JobKind.CHECK_SLIDE, state="queued")
    run(job_id=job.pk, handler=check, on_ended_badly=check_ended_badly)
    return Slide.objects.get(pk=slide_id)


@pytest.fixture
def first_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny slides of the tests are large enough for a first look."""
    monkeypatch.setattr("slides.preparing.FIRST_LOOK_ABOVE_PIXELS", 1000)


@pytest.fixture
def received(tmp_path: Path, operator: User) -> Callable[..., Slide]:
    """A slide of a file that lies somewhere on this server, not prepared yet."""

    def make(path: Path | None = None, *, case: str = "S1", hash_now: bool = True, **slide: Any) -> Slide:
        result = importing.import_file(
            path=path or write_slide(tmp_path / "made.svs", **slide), accession=case, actor=operator, hash_now=hash_now
        )
        assert result.slide is not None, result.reason
        return result.slide

    return make


@pytest.fixture(scope="session")
def prepared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide file and its tile store, prepared by the sandbox once for all tests that only look at tiles."""
    folder = tmp_path_factory.mktemp("prepared")
    write_slide(folder / "made.svs")
    (folder / "tiles").mkdir()
    (folder / "apart").mkdir()
    made = sandbox.prepare(folder / "made.svs", folder / "tiles", associated_dir=folder / "apart")
    (folder / "properties.json").write_text(json.dumps(made.properties.to_json()))
    return folder


@pytest.fixture
def ready_slide(received: Callable[..., Slide], prepared_folder: Path, tmp_path: Path) -> Slide:
    """READY, by the act that makes slides ready, over a copy of the prepared folder."""
    shutil.copy2(prepared_folder / "made.svs", tmp_path / "made.svs")
    slide = received(tmp_path / "made.svs")
    shutil.copytree(prepared_folder / "tiles", slide.folder / "tiles-1")
    index = slide.folder / "tiles-1" / "index.json"
    document = json.loads(index.read_text())
    document["files"][0]["path"] = str(tmp_path / "made.svs")
    index.write_text(json.dumps(document))
    found = SlideProperties.from_json(json.loads((prepared_folder / "properties.json").read_text()))
    Job.objects.update(state="done")
    with transaction.atomic():
        slide = ingest.locked(slide.pk)
        quality = Quality(tissue_mm2=0.02, tissue_fraction=0.25, ink_mm2=0.0, ink_share=0.0)
        prepared = ingest.Prepared(
            found,
            "tiles-1",
            StorePlan("pass_through", "as they are", True),
            quality=quality,
            checked=True,
            corrupt_tiles=0,
            missing_tiles=0,
        )
        ingest.make_ready(slide, prepared)
    return slide


def give_access(user: User, slide: Slide) -> None:
    CaseAccess.objects.create(case=slide.case, user=user)


class Tus:
    """A tus client over Django's test client."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def create(self, data_or_length: bytes | int, name: str = "slide.svs", case: str = "S1", **facts: str) -> Any:
        length = data_or_length if isinstance(data_or_length, int) else len(data_or_length)
        metadata = {"filename": name, "case": case, **facts}
        return self.client.generic(
            "POST",
            "/api/uploads/",
            content_type="",
            headers={
                "Tus-Resumable": "1.0.0",
                "Upload-Length": str(length),
                "Upload-Metadata": ",".join(
                    f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in metadata.items()
                ),
            },
        )

    def head(self, url: str) -> Any:
        return self.client.head(url, headers={"Tus-Resumable": "1.0.0"})

    def patch(
        self,
        url: str,
        data: bytes,
        offset: int,
        content_type: str = "application/offset+octet-stream",
        checksum: str = "",
    ) -> Any:
        headers = {"Tus-Resumable": "1.0.0", "Upload-Offset": str(offset)}
        if checksum:
            headers["Upload-Checksum"] = checksum
        return self.client.patch(url, data, content_type=content_type, headers=headers)

    def delete(self, url: str) -> Any:
        return self.client.delete(url, headers={"Tus-Resumable": "1.0.0"})

    def send(self, data: bytes, **facts: str) -> Any:
        """The whole file in one piece; the answer to the last request."""
        created = self.create(data, **facts)
        return self.patch(created["Location"], data, 0) if created.status_code == 201 else created


@pytest.fixture
def tus(operator: User) -> Tus:
    return Tus(logged_in(operator))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
