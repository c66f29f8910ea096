"""One plain function per row that tests need; no surprises, no files but a run's own."""

import gzip
import hashlib
from typing import Any
from uuid import uuid4

from django.utils import timezone

from accounts.enums import Role
from accounts.models import User
from analysis.enums import ModelState, Profile, RunStatus
from analysis.models import Lesion, ModelVersion, Run
from review.assigning import assign_case
from review.enums import AssignmentRole
from review.models import Assignment
from slides.enums import Protocol, ScaleState, SlideState, TileCheck
from slides.models import Case, Node, Slide

PASSWORD = "a long password for tests"


def make_user(name: str, *roles: Role, **fields: Any) -> User:
    user = User(username=name, printed_name=f"Dr {name.title()}", roles=[str(role) for role in roles], **fields)
    user.set_password(PASSWORD)
    user.save()
    return user


def make_case(accession: str = "S26-0001", *, protocol: Protocol = Protocol.UNAIDED_FIRST, **fields: Any) -> Case:
    return Case.objects.create(accession=accession, protocol=protocol, **fields)


def make_slide(case: Case, *, node: str = "LN1", state: SlideState = SlideState.READY, **fields: Any) -> Slide:
    """A slide of 20,000 x 10,000 px at 0.5 um per pixel; there is no file behind it."""
    known = {
        "file_name": "slide.svs",
        "source": f"slides/{uuid4()}/slide.svs",
        "sha256": hashlib.sha256(uuid4().bytes).hexdigest(),
        "width": 20_000,
        "height": 10_000,
        "mpp_x": 0.5,
        "mpp_y": 0.5,
        "scale_state": ScaleState.OK,
        "tissue_mm2": 20.0,
        "tile_check": TileCheck.DONE,
        "position": case.slides.count(),
    }
    label = Node.objects.get_or_create(case=case, label=node)[0] if node else None
    return Slide.objects.create(case=case, node=label, state=state, **(known | fields))


def make_model(version: str = "1", *, state: ModelState = ModelState.ACTIVE, **fields: Any) -> ModelVersion:
    known = {
        "name": "lite",
        "version": version,
        "sha256": hashlib.sha256(f"weights {version}".encode()).hexdigest(),
        "folder": "analysis/detector/models/none",
        "activated_at": timezone.now() if state == ModelState.ACTIVE else None,
    }
    return ModelVersion.objects.create(state=state, **(known | fields))


def make_run(
    slide: Slide,
    *,
    model: ModelVersion | None = None,
    scores: tuple[float, ...] = (0.9,),
    longest_mm: float = 3.0,
    heatmap: bytes = bytes(range(12)),
    **fields: Any,
) -> Run:
    """A finished run with one lesion per score, a heatmap of 3 x 4 cells and a field per lesion."""
    model = model or ModelVersion.objects.get(state=ModelState.ACTIVE)
    known = {
        "profile": Profile.STANDARD,
        "parameters_sha256": hashlib.sha256(uuid4().bytes).hexdigest(),
        "job_id": uuid4(),
        "status": RunStatus.COMPLETE,
        "slide_score": max(scores, default=0.0),
        "threshold": model.threshold,
        "tissue_mm2": 20.0,
        "analysed_fraction": 1.0,
        "failed_fraction": 0.0,
        "mpp_x": slide.mpp_x,
        "mpp_y": slide.mpp_y,
        "slide_sha256": slide.sha256,
        "software_version": "test",
        "heatmap_rows": 3,
        "heatmap_cols": 4,
        "heatmap_x0": 0.0,
        "heatmap_y0": 0.0,
        "heatmap_cell_x0": 16.0,
        "heatmap_cell_y0": 16.0,
        "heatmap_sha256": hashlib.sha256(heatmap).hexdigest(),
    }
    run = Run.objects.create(slide=slide, model_version=model, **(known | fields))
    for rank, score in enumerate(scores, start=1):
        make_lesion(run, rank=rank, score=score, longest_diameter_mm=longest_mm)
    (run.folder / "fields").mkdir(parents=True, exist_ok=True)
    run.heatmap_path.write_bytes(gzip.compress(heatmap, mtime=0))
    for lesion in run.lesions.all():
        lesion.field_path.write_bytes(b"\xff\xd8 field of rank %d" % lesion.rank)
    return run


def make_lesion(run: Run, *, rank: int, score: float, longest_diameter_mm: float = 3.0, **fields: Any) -> Lesion:
    x0, y0 = 1000.0 * rank, 2000.0
    size_class = "macro" if longest_diameter_mm > 2 else "micro" if longest_diameter_mm > 0.2 else "itc"
    known = {
        "peak_x0": x0 + 50,
        "peak_y0": y0 + 50,
        "outline": [[[x0, y0], [x0 + 100, y0], [x0 + 100, y0 + 100], [x0, y0 + 100]]],
        "bbox": [x0, y0, x0 + 100, y0 + 100],
        "ellipse_major_mm": longest_diameter_mm,
        "area_mm2": 1.0,
        "size_class": size_class,
        "mean_probability": score,
        "peak_probability": score,
        "has_field": True,
    }
    return Lesion.objects.create(
        run=run, rank=rank, score=score, longest_diameter_mm=longest_diameter_mm, **(known | fields)
    )


def assign(case: Case, reader: User, role: AssignmentRole = AssignmentRole.FIRST) -> Assignment:
    return assign_case(case=case, reader=reader, role=role, actor=None)
