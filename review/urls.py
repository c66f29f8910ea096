from django.urls import path

from review import agreement_pages, api, pages

_READ = "api/reads/<uuid:read_id>/"
_AUDIT = "api/agreement/slides/<uuid:slide_id>/"

urlpatterns = [
    path("worklist/", pages.worklist_page, name="worklist"),
    path("worklist/next/", pages.next_case, name="next-case"),
    path("cases/<uuid:case_id>/", pages.case_page, name="case"),
    path("cases/<uuid:case_id>/assign/", pages.assign, name="assign"),
    path("cases/<uuid:case_id>/assignments/<uuid:assignment_id>/withdraw/", pages.withdraw, name="withdraw"),
    path("cases/<uuid:case_id>/sign/", pages.sign_page, name="sign"),
    path("cases/<uuid:case_id>/amend/", pages.amend, name="amend"),
    path("cases/<uuid:case_id>/report/", pages.report_page, name="report"),
    path("slides/<uuid:slide_id>/read/", pages.open_read, name="open-read"),
    path("reads/<uuid:read_id>/", pages.read_page, name="read"),
    path("agreement/", agreement_pages.agreement_page, name="agreement"),
    path("agreement/export/<slug:figure>/", agreement_pages.agreement_export, name="agreement-export"),
    path("agreement/slides/<uuid:slide_id>/", agreement_pages.audit_slide_page, name="agreement-slide"),
    path(_READ, api.ReadView.as_view(), name="api-read"),
    path(_READ + "calls/", api.CallsView.as_view(), name="api-read-calls"),
    path(_READ + "marks/", api.MarksView.as_view(), name="api-read-marks"),
    path(_READ + "marks/<uuid:mark_id>/remove/", api.MarkRemovalView.as_view(), name="api-read-mark-remove"),
    path(_READ + "lock/", api.LockView.as_view(), name="api-read-lock"),
    path(_READ + "ai/", api.ReadAiView.as_view(), name="api-read-ai"),
    path(_READ + "ai/heatmap/", api.ReadHeatmapView.as_view(), name="api-read-heatmap"),
    path(_READ + "ai/lesions/<uuid:lesion_id>/field.jpg", api.ReadFieldView.as_view(), name="api-read-field"),
    path(_READ + "decisions/", api.DecisionsView.as_view(), name="api-read-decisions"),
    path(_READ + "undo/", api.UndoView.as_view(), name="api-read-undo"),
    path(_READ + "progress/", api.ProgressView.as_view(), name="api-read-progress"),
    path("api/cases/<uuid:case_id>/manifest/", api.ManifestView.as_view(), name="api-manifest"),
    path("api/cases/<uuid:case_id>/sign/", api.SignView.as_view(), name="api-sign"),
    path("api/cases/<uuid:case_id>/amend/", api.AmendView.as_view(), name="api-amend"),
    path(_AUDIT + "ai/", api.AuditAiView.as_view(), name="api-audit-ai"),
    path(_AUDIT + "reads/", api.AuditReadsView.as_view(), name="api-audit-reads"),
    path(_AUDIT + "runs/<uuid:run_id>/heatmap/", api.AuditHeatmapView.as_view(), name="api-audit-heatmap"),
    path(
        _AUDIT + "runs/<uuid:run_id>/lesions/<uuid:lesion_id>/field.jpg",
        api.AuditFieldView.as_view(),
        name="api-audit-field",
    ),
]
