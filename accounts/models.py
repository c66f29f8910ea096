import uuid

from django.contrib.auth.models import AbstractUser
from django.contrib.postgres.fields import ArrayField
from django.db import models

from accounts.enums import Role


class User(AbstractUser):
    """A person. The printed name is what stands under a signature; accounts are switched off, never deleted or reused."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    printed_name = models.CharField(max_length=200)
    roles = ArrayField(models.CharField(max_length=20, choices=Role.choices), default=list, blank=True)
    may_view_associated = models.BooleanField(
        default=False, help_text="May see label and macro images, which can name the patient."
    )

    REQUIRED_FIELDS = ["printed_name"]

    def has_role(self, *roles: Role) -> bool:
        """True if the account is active and has at least one of `roles`."""
        return self.is_active and any(role in self.roles for role in roles)

    def __str__(self) -> str:
        return self.printed_name or self.username


class OneTimeLink(models.Model):
    """A log-in link that works once. Only the SHA-256 of its token is kept."""

    token_sha256 = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="one_time_links")
    made_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
