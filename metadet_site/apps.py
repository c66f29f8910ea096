from django.apps import AppConfig


class SiteConfig(AppConfig):
    name = "metadet_site"
    verbose_name = "metadet"

    def ready(self) -> None:
        # The queue must be known to every process that enqueues, not only to the workers.
        from metadet_site.celery import app

        app.set_default()
