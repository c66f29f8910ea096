"""A slide that was read stays: deleting it would take the ground from under the record."""

from typing import Any

from django.dispatch import receiver

from review.models import Read
from slides.errors import WrongState
from slides.models import Slide
from slides.signals import slide_deleting


@receiver(slide_deleting)
def keep_read_slides(sender: Any, slide: Slide, **kwargs: Any) -> None:
    if Read.objects.filter(slide=slide).exists():
        raise WrongState("A reader has opened this slide for reading: it belongs to the record and cannot be deleted.")
