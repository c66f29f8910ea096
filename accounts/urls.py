from django.contrib.auth import views as auth_views
from django.urls import path

from accounts import pages

urlpatterns = [
    path("login/", auth_views.LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("logout/", pages.LogOut.as_view(), name="logout"),
    path("password/", pages.password, name="password"),
    path("one-time/<str:token>/", pages.one_time_log_in, name="one-time-log-in"),
]
