from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "jobs"

    def ready(self) -> None:
        from audit_trail.checkpoints import checkpoint_if_due
        from jobs.schedule import DUTIES

        def checkpoint() -> None:
            checkpoint_if_due()

        DUTIES["make a checkpoint of the trail"] = checkpoint
