"""The addresses of the web side."""

from django.contrib import admin
from django.http import HttpResponse
from django.urls import path
from django.views.generic import RedirectView

admin.site.site_header = admin.site.site_title = "Mailhost"
admin.site.site_url = None  # there is no other site to view

# /healthz and /readyz are answered before any of these (mailhost.health.Probes).
urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("favicon.ico", lambda request: HttpResponse(status=204)),  # there is none, and browsers always ask
    path("admin/", admin.site.urls),
]
