from django.apps import AppConfig


class ReviewConfig(AppConfig):
    name = "review"

    def ready(self) -> None:
        from audit_trail.visible_events import HIDING
        from review import receivers  # noqa: F401  (connects the receivers)
        from review.visibility import events_for

        if events_for not in HIDING:
            HIDING.append(events_for)
