from django.urls import path

from audit_trail import pages

urlpatterns = [
    path("trail/", pages.trail, name="trail"),
    path("trail/export/", pages.trail_export, name="trail-export"),
]
