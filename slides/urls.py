from django.urls import path

from slides import api, pages, upload_api

_SLIDE = "api/slides/<uuid:slide_id>/"

urlpatterns = [
    path("slides/", pages.slide_list, name="slides"),
    path("slides/<uuid:slide_id>/", pages.slide_detail, name="slide"),
    path("slides/<uuid:slide_id>/look/", pages.look, name="slide-look"),
    path("api/uploads/", upload_api.UploadsView.as_view(), name="uploads"),
    path("api/uploads/<uuid:upload_id>/", upload_api.UploadView.as_view(), name="upload"),
    path("api/uploads/<uuid:upload_id>/dismiss/", upload_api.DismissUploadView.as_view(), name="upload-dismiss"),
    path("api/imports/", api.ImportsView.as_view(), name="imports"),
    path("api/slides/", api.SlidesView.as_view(), name="api-slides"),
    path(_SLIDE, api.SlideView.as_view(), name="api-slide"),
    path(_SLIDE + "retry/", api.RetryView.as_view(), name="slide-retry"),
    path(_SLIDE + "scale/", api.ScaleView.as_view(), name="slide-scale"),
    path(_SLIDE + "delete/", api.DeleteView.as_view(), name="slide-delete"),
    path(_SLIDE + "link/", api.LinkView.as_view(), name="slide-link"),
    path(_SLIDE + "view/", api.ViewingView.as_view(), name="slide-view"),
    path(_SLIDE + "tiles/<slug:store>/<int:level>/<int:col>_<int:row>.jpg", api.TileView.as_view(), name="slide-tile"),
    path(_SLIDE + "thumbnail.jpg", api.ThumbnailView.as_view(), name="slide-thumbnail"),
    path(_SLIDE + "associated/<slug:kind>/", api.AssociatedView.as_view(), name="slide-associated"),
    path("api/jobs/<uuid:job_id>/", api.JobView.as_view(), name="api-job"),
    path("api/jobs/<uuid:job_id>/cancel/", api.CancelJobView.as_view(), name="job-cancel"),
]
