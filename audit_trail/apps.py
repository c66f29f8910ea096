from django.apps import AppConfig


class AuditTrailConfig(AppConfig):
    name = "audit_trail"

    def ready(self) -> None:
        from audit_trail import signals  # noqa: F401  (connects the receivers)
