"""Who asks: the person of a request that its permission class, or login_required, let through."""

from django.http import HttpRequest
from rest_framework.request import Request

from accounts.models import User


def requester(request: HttpRequest | Request) -> User:
    assert isinstance(request.user, User), "a view that does not say who may use it"
    return request.user
