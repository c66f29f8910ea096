from django.urls import path

from analysis import api, models_api, pages

urlpatterns = [
    path("api/slides/<uuid:slide_id>/detect/", api.DetectView.as_view(), name="slide-detect"),
    path("api/models/", models_api.ModelsView.as_view(), name="api-models"),
    path("api/models/evaluation-sets/", models_api.EvaluationSetsView.as_view(), name="api-evaluation-sets"),
    path("api/models/jobs/<uuid:job_id>/", models_api.ModelJobView.as_view(), name="api-model-job"),
    path("api/models/jobs/<uuid:job_id>/cancel/", models_api.CancelModelJobView.as_view(), name="api-model-job-cancel"),
    path("api/models/<uuid:model_id>/", models_api.ModelView.as_view(), name="api-model"),
    path("api/models/<uuid:model_id>/evaluate/", models_api.EvaluateView.as_view(), name="api-model-evaluate"),
    path("api/models/<uuid:model_id>/activate/", models_api.ActivateView.as_view(), name="api-model-activate"),
    path("api/models/<uuid:model_id>/deactivate/", models_api.DeactivateView.as_view(), name="api-model-deactivate"),
    path("models/", pages.models_page, name="models"),
    path("models/register/", pages.register, name="model-register"),
    path("models/<uuid:model_id>/evaluate/", pages.evaluate, name="model-evaluate"),
    path("models/<uuid:model_id>/activate/", pages.activate, name="model-activate"),
    path("models/<uuid:model_id>/deactivate/", pages.deactivate, name="model-deactivate"),
    path("models/jobs/<uuid:job_id>/cancel/", pages.cancel, name="model-job-cancel"),
]
