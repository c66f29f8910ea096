from django.urls import path

from analysis import api, pages

urlpatterns = [
    path("api/slides/<uuid:slide_id>/detect/", api.DetectView.as_view(), name="slide-detect"),
    path("models/", pages.models_page, name="models"),
    path("models/<uuid:model_id>/activate/", pages.activate, name="model-activate"),
]
