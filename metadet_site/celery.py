"""The hand-off to the workers. A message carries a job id and nothing else; the jobs table decides everything."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "metadet_site.settings")

app = Celery("metadet")
app.conf.update(
    result_backend=None,
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_default_queue="ingest",
    worker_prefetch_multiplier=1,
    worker_max_tasks_per_child=20,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
    # Longer than the longest job: the broker must not hand a running job to a second worker. The lease decides.
    broker_transport_options={
        "visibility_timeout": 6 * 3600,
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        # Sending to a broker that is away gives up at once (else after 6 s): the scheduler sends the job later.
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0.1,
        "interval_max": 0.2,
    },
)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["jobs", "slides", "analysis"])
