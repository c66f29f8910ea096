"""What other rooms may listen to. Sent inside the transaction of the act: a receiver that raises undoes it."""

from django.dispatch import Signal

# slide: Slide, actor: User | None, cause: "ready" | "scale". Sent when a slide is READY, every tile is checked and its scale is known.
slide_ready = Signal()

# slide: Slide, actor: User. Sent before a slide is deleted; a receiver raises slides.errors.WrongState to refuse.
slide_deleting = Signal()
