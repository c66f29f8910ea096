from django.db import models


class EventKind(models.TextChoices):
    """What can stand in the trail. A kind is never renamed or removed: old events keep it."""

    LOGGED_IN = "logged_in", "logged in"
    LOG_IN_REFUSED = "log_in_refused", "log-in refused"
    LOGGED_OUT = "logged_out", "logged out"
    ACCOUNT_CREATED = "account_created", "account created"
    ACCOUNT_CHANGED = "account_changed", "account changed"

    CASE_CREATED = "case_created", "case created"
    CASE_ASSIGNED = "case_assigned", "case assigned"
    CASE_UNASSIGNED = "case_unassigned", "assignment withdrawn"
    SLIDE_RECEIVED = "slide_received", "slide received"
    SLIDE_READY = "slide_ready", "slide ready"
    SLIDE_QUARANTINED = "slide_quarantined", "slide quarantined"
    SLIDE_FAILED = "slide_failed", "slide preparation failed"
    SLIDE_RETRIED = "slide_retried", "slide preparation retried"
    SLIDE_SCALE_CORRECTED = "slide_scale_corrected", "slide scale entered"
    SLIDE_DELETED = "slide_deleted", "slide deleted"
    SLIDE_LINKED = "slide_linked", "slide linked to a second case"
    SLIDE_OPENED = "slide_opened", "slide opened"
    ASSOCIATED_VIEWED = "associated_viewed", "label or macro viewed"
    UPLOAD_STARTED = "upload_started", "upload started"
    UPLOAD_CANCELLED = "upload_cancelled", "upload cancelled"
    UPLOAD_REFUSED = "upload_refused", "upload refused"

    MODEL_REGISTERED = "model_registered", "model version registered"
    MODEL_ACTIVATED = "model_activated", "model version activated"
    MODEL_RETIRED = "model_retired", "model version retired"
    RUN_REQUESTED = "run_requested", "run requested"
    RUN_FINISHED = "run_finished", "run finished"
    RUN_FAILED = "run_failed", "run failed"
    RUN_CANCELLED = "run_cancelled", "run cancelled"

    READ_STARTED = "read_started", "read started"
    CALL_RECORDED = "call_recorded", "call recorded"
    MARK_ADDED = "mark_added", "lesion marked by the reader"
    MARK_REMOVED = "mark_removed", "reader's mark removed"
    READ_LOCKED = "read_locked", "unaided read locked"
    AI_REVEALED = "ai_revealed", "AI revealed"
    LESION_ACCEPTED = "lesion_accepted", "lesion accepted"
    LESION_REJECTED = "lesion_rejected", "lesion rejected"
    DECISION_UNDONE = "decision_undone", "decision undone"
    VIEWING_REPORTED = "viewing_reported", "viewing reported"
    CASE_SIGNED = "case_signed", "case signed"
    SIGNING_REFUSED = "signing_refused", "signing refused"
    CASE_AMENDED = "case_amended", "case amended"
    AI_VIEWED_BY_AUDITOR = "ai_viewed_by_auditor", "AI result viewed by an auditor"
    AGREEMENT_VIEWED = "agreement_viewed", "agreement page viewed"
    EXPORTED = "exported", "exported"

    TRAIL_VIEWED = "trail_viewed", "trail viewed"
    TRAIL_EXPORTED = "trail_exported", "trail exported"
    TRAIL_VERIFIED = "trail_verified", "trail verified"
    ACCESS_REFUSED = "access_refused", "access refused"


class Outcome(models.TextChoices):
    OK = "ok", "done"
    DENIED = "denied", "refused"
    FAILED = "failed", "failed"
