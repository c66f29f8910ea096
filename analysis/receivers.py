"""Detection starts by itself when a slide is ready and has a scale."""

import logging
from typing import Any

from django.dispatch import receiver

from analysis.errors import CannotDetect, NoActiveModel
from analysis.runs import request_run
from slides.models import Slide
from slides.signals import slide_ready

log = logging.getLogger(__name__)


@receiver(slide_ready)
def start_detection(sender: Any, slide: Slide, **kwargs: Any) -> None:
    """In the transaction that made the slide ready. A slide without scale, or no active model, starts nothing."""
    try:
        request_run(slide=slide, actor=None)
    except (CannotDetect, NoActiveModel) as error:
        log.info("No detection on slide %s yet: %s", slide.pk, error)
