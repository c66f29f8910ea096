from django.apps import AppConfig


class AnalysisConfig(AppConfig):
    name = "analysis"

    def ready(self) -> None:
        from analysis import evaluating, receivers  # noqa: F401  (connects the receivers)
        from analysis.runs import record_bad_end
        from jobs.enums import JobKind
        from jobs.schedule import ON_ENDED_BADLY

        ON_ENDED_BADLY[JobKind.DETECT] = record_bad_end
        ON_ENDED_BADLY[JobKind.EVALUATE_MODEL] = evaluating.record_bad_end
