import signal
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from jobs.schedule import tick


class Command(BaseCommand):
    help = (
        "Sends waiting and orphaned jobs to the workers again, and makes the trail's checkpoints. Runs until stopped."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        self.stdout.write(f"Scheduler: a round every {settings.RECONCILE_SECONDS} s.")
        while not stop.is_set():
            tick()
            stop.wait(settings.RECONCILE_SECONDS)
