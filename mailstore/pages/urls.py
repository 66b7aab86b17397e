"""The addresses of the owner's pages about the mail."""

from django.urls import path

from mailstore.pages import mail

urlpatterns = [
    path("", mail.overview, name="owner-overview"),
    path("sessions/", mail.sessions_list, name="owner-sessions"),
    path("sessions/<uuid:id>/", mail.session, name="owner-session"),
    path("sessions/<uuid:id>/end/", mail.end_session, name="owner-session-end"),
    path("sessions/<uuid:id>/undo/", mail.undo_session, name="owner-session-undo"),
    path("removed/", mail.removed, name="owner-removed"),
    path("removed/restore/", mail.restore, name="owner-restore"),
    path("export/", mail.export, name="owner-export"),
]
