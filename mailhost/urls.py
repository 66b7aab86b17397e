"""The addresses of the web side."""

from django.contrib import admin
from django.urls import path

admin.site.site_header = admin.site.site_title = "Mailhost"
admin.site.site_url = None  # there is no other site to view

# /healthz and /readyz are answered before any of these (mailhost.health.Probes).
urlpatterns = [
    path("admin/", admin.site.urls),
]
