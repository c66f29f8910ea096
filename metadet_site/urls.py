"""All addresses. The tile service (/tiles/) is handed over before Django, in wsgi.py."""

from django.urls import include, path

from metadet_site.pages import health, home, schema

urlpatterns = [
    path("", home, name="home"),
    path("health/", health, name="health"),
    path("api/schema/", schema, name="schema"),
    path("accounts/", include("accounts.urls")),
    path("", include("slides.urls")),
    path("", include("analysis.urls")),
    path("", include("review.urls")),
    path("", include("audit_trail.urls")),
]
