"""The addresses of the owner's pages about who he is."""

from django.urls import path

from accounts.pages import devices, language, password, set_up, signing

urlpatterns = [
    path("sign-in/", signing.sign_in, name="owner-sign-in"),
    path("sign-out/", signing.sign_out, name="owner-sign-out"),
    path("password/", password.change, name="owner-password"),
    path("language/", language.choose, name="owner-language"),
    path("devices/", devices.devices, name="owner-devices"),
    path("devices/<int:id>/own-copy/", devices.own_copy, name="owner-device-own-copy"),
    path("devices/<int:id>/revoke/", devices.revoke, name="owner-device-revoke"),
    path("set-up/", set_up.steps, name="owner-set-up"),
    path("set-up/profile/", set_up.profile, name="owner-profile"),
    path("set-up/link/", set_up.link, name="owner-profile-link"),
    path("profile/<str:token>/", set_up.linked, name="owner-profile-linked"),
]
