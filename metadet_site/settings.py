"""Settings of metadet. Everything that differs between installations comes from the environment (metadet_site/env.py)."""

import sys
from pathlib import Path

from metadet_site import __version__
from metadet_site.env import (
    BadSetting,
    database_from_url,
    env_bool,
    env_int,
    env_list,
    env_path,
    env_secret,
    env_str,
)
from metadet_site.local_stack.home import published

BASE_DIR = Path(__file__).resolve().parent.parent
VERSION = __version__

# State of this installation: database of the local stack, slides, runs, keys.
METADET_HOME = env_path("METADET_HOME", BASE_DIR / "var")
DEBUG = env_bool("METADET_DEBUG", False)
TESTING = "pytest" in sys.modules


SERVES_NOBODY = {
    "check",
    "check_slide",
    "makemigrations",
    "spectacular",
    "write_reference",
}  # commands without a secret


def _secret_key() -> str:
    if key := env_secret("METADET_SECRET_KEY"):
        return key
    kept = METADET_HOME / "keys" / "secret_key"
    if kept.exists():
        return kept.read_text().strip()
    if TESTING or SERVES_NOBODY & set(sys.argv[1:2]):
        return "only-for-tests-and-for-commands-that-serve-nobody" * 2
    raise BadSetting("No secret key: start with `make run`, or set METADET_SECRET_KEY or METADET_SECRET_KEY_FILE.")


SECRET_KEY = _secret_key()
# Shared with an nginx that answers for tiles itself (deploy/nginx/tiles-at-the-edge.conf); None: granian answers for all.
EDGE_KEY = env_secret("METADET_EDGE_KEY")
ALLOWED_HOSTS = env_list("METADET_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env_list("METADET_ORIGINS", [])
HTTPS = env_bool("METADET_HTTPS", False)

INSTALLED_APPS = [
    "accounts",
    "audit_trail",
    "jobs",
    "slides",
    "analysis",
    "review",
    "metadet_site",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "rest_framework",
    "drf_spectacular",
    "axes",
    "csp",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "metadet_site.http.RequestIdMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "metadet_site.http.PrivateResponsesMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "metadet_site.urls"
WSGI_APPLICATION = "metadet_site.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "metadet_site" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "metadet_site.http.product_context",
            ],
        },
    },
]

# --- database --------------------------------------------------------------------------------------
# `migrate` runs as the owner of the tables; everything else runs as a role that cannot alter the trail.
# Without addresses in the environment the stack that runs in this METADET_HOME is meant: `manage.py` in a second terminal.
_local = {} if TESTING else published(METADET_HOME)
_owner_url = env_secret("METADET_DATABASE_OWNER_URL") or _local.get("METADET_DATABASE_OWNER_URL")
_database_url = (
    env_secret("DATABASE_URL") or _local.get("DATABASE_URL") or "postgresql://metadet_app@/metadet?host=/nonexistent"
)
if _owner_url and "migrate" in sys.argv[1:2]:
    _database_url = _owner_url
DATABASES = {"default": database_from_url(_database_url)}
DATABASES["default"]["ATOMIC_REQUESTS"] = False
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
if env_str("METADET_PROCESS", "") == "web":
    # A pool only here: opened in the parent of a forking worker it is shared by both processes.
    DATABASES["default"]["OPTIONS"] |= {  # type: ignore[operator]
        "pool": {"min_size": 1, "max_size": env_int("METADET_DATABASE_POOL", 8, minimum=1), "timeout": 3},
        "options": "-c statement_timeout=5000 -c lock_timeout=2000",
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- people ----------------------------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
if TESTING:
    PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # argon2 is slow by design
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_TEMPLATE = "registration/locked_out.html"
SESSION_COOKIE_AGE = 12 * 3600
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SAMESITE = "Lax"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = (
    "same-origin"  # "no-referrer" makes browsers send `Origin: null` with forms, which the CSRF check refuses
)
SECURE_HSTS_SECONDS = 31536000 if HTTPS else 0
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:", "blob:"],
        "connect-src": ["'self'"],
        "worker-src": ["'self'", "blob:"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
        "form-action": ["'self'"],
    }
}

# --- queue -----------------------------------------------------------------------------------------
CELERY_BROKER_URL = env_secret("CELERY_BROKER_URL") or _local.get("CELERY_BROKER_URL") or "redis+socket:///nonexistent"
LEASE_SECONDS = env_int("METADET_LEASE_SECONDS", 45, minimum=3)
HEARTBEAT_SECONDS = env_int("METADET_HEARTBEAT_SECONDS", 10, minimum=1)
RECONCILE_SECONDS = env_int("METADET_RECONCILE_SECONDS", 15, minimum=1)

# --- uploads ---------------------------------------------------------------------------------------
UPLOAD_MAX_BYTES = env_int("METADET_UPLOAD_MAX_GB", 64, minimum=1) * 2**30
# Of the child process that decodes one slide; a whole preparation of 100,000 x 100,000 pixels needs less than 2 GB.
DECODER_MEMORY_BYTES = env_int("METADET_DECODER_MEMORY_MB", 4096, minimum=1024) * 2**20
DECODER_STALL_SECONDS = env_int("METADET_DECODER_STALL_SECONDS", 300, minimum=30)
UPLOAD_QUOTA_BYTES = env_int("METADET_UPLOAD_QUOTA_GB", 500, minimum=1) * 2**30
# So long an upload may wait for its next bytes before another request may go on with it.
UPLOAD_SILENT_SECONDS = env_int("METADET_UPLOAD_SILENT_SECONDS", 15, minimum=1)
DISK_FLOOR_BYTES = env_int("METADET_DISK_FLOOR_GB", 2, minimum=0) * 2**30
IMPORT_FOLDERS = [Path(path) for path in env_list("METADET_IMPORT_FOLDERS", [])]
DATA_UPLOAD_MAX_MEMORY_SIZE = 4 * 2**20

# --- model versions --------------------------------------------------------------------------------
MODEL_UPLOAD_MAX_BYTES = env_int("METADET_MODEL_UPLOAD_MAX_MB", 512, minimum=1) * 2**20
# What model versions are measured on here: a file of labelled patches, and folders of slides with known lesions.
EVALUATION_PATCHES = env_path(
    "METADET_EVALUATION_PATCHES",
    env_path("METADET_REFERENCE_DATA", BASE_DIR.parent / "shared" / "data") / "pcam_patches.npz",
)
EVALUATION_SLIDES = [Path(path) for path in env_list("METADET_EVALUATION_SLIDES", [])]
FILE_UPLOAD_HANDLERS = [
    "metadet_site.upload_limit.SizeLimit",
    "django.core.files.uploadhandler.TemporaryFileUploadHandler",
]

# --- API -------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    # The defaults of the framework reversed: nobody may anything unless a view says so.
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["accounts.permissions.DenyAll"],
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.PageNumberPagination",
    "PAGE_SIZE": 100,
    "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.UserRateThrottle"],
    "DEFAULT_THROTTLE_RATES": {"user": "6000/min"},
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "EXCEPTION_HANDLER": "metadet_site.api_errors.answer",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "metadet",
    "DESCRIPTION": "For research use only. Not for use in diagnostic procedures.",
    "VERSION": VERSION,
    "SERVE_INCLUDE_SCHEMA": False,
}
# Reads are throttled in process memory: no response of a signed-in person is ever kept in a cache.
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

# --- pages -----------------------------------------------------------------------------------------
STATIC_URL = "/static/"
STATIC_ROOT = METADET_HOME / "static"
FRONTEND_DIST = BASE_DIR / "frontend" / "dist"
STATICFILES_DIRS = [("frontend", FRONTEND_DIST)] if FRONTEND_DIST.exists() else []
WHITENOISE_USE_FINDERS = True  # served straight from frontend/dist: there is no collect step to forget
WHITENOISE_IMMUTABLE_FILE_TEST = r"^/static/frontend/assets/"
USE_TZ = True
TIME_ZONE = env_str("METADET_TIME_ZONE", "UTC")
USE_I18N = False
LANGUAGE_CODE = "en-gb"
FORMAT_MODULE_PATH = None

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": env_str("METADET_LOG_LEVEL", "INFO")},
    "loggers": {"axes": {"level": "WARNING"}},
}
SILENCED_SYSTEM_CHECKS: list[str] = []
