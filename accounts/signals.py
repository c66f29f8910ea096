"""What others may wait for; log-ins and log-outs are Django's own signals."""

from django.dispatch import Signal

password_set = Signal()  # user, request
