"""Who may use an API view at all. Which objects they reach is decided by each model's visible_to()."""

from typing import TYPE_CHECKING

from django.http import HttpRequest
from rest_framework.permissions import BasePermission

from accounts.enums import Role

if TYPE_CHECKING:  # rest_framework.views itself imports the default permission from here
    from rest_framework.views import APIView


class DenyAll(BasePermission):
    """The default: a view that forgets to say who may use it serves nobody."""

    def has_permission(self, request: HttpRequest, view: "APIView") -> bool:
        return False


class SignedIn(BasePermission):
    def has_permission(self, request: HttpRequest, view: "APIView") -> bool:
        return request.user.is_authenticated and request.user.is_active


def has_any_role(*roles: Role) -> type[BasePermission]:
    """A permission class for people with at least one of `roles`."""

    class HasAnyRole(BasePermission):
        message = "Your account has no right to this. An administrator gives rights."

        def has_permission(self, request: HttpRequest, view: "APIView") -> bool:
            user = request.user
            return user.is_authenticated and user.has_role(*roles)

    return HasAnyRole
