"""The admin's site with a second step after the password, and the pages where everybody looks after his own."""

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.urls import path, reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from accounts import scope
from accounts.two_factor import factors, gate, pages

if TYPE_CHECKING:  # unfold has no types
    from django.contrib.admin import AdminSite
else:
    from unfold.sites import UnfoldAdminSite as AdminSite

_READ_OR_SENT: Final = require_http_methods(["GET", "HEAD", "POST"])


class SecondStepSite(AdminSite):
    """Unfold's, whose password alone lets nobody in who has a second step."""

    @method_decorator(never_cache)
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        if request.method == "GET" and self.has_permission(request):
            return redirect("admin:index")
        context = {
            **self.each_context(request),
            "title": _("Log in"),
            "app_path": request.get_full_path(),
            "username": request.user.get_username(),
            **(extra_context or {}),
        }
        view = _Password.as_view(
            authentication_form=self.login_form,
            extra_context=context,
            next_page=reverse("admin:index"),
            template_name="admin/login.html",
        )
        return view(request)

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return pages.own_password(self, request)

    def extra_urls(self) -> list[Any]:
        def outside(view: Any) -> Any:
            return never_cache(sensitive_post_parameters()(_READ_OR_SENT(partial(view, self))))

        def within(view: Any) -> Any:
            return self.admin_view(sensitive_post_parameters()(_READ_OR_SENT(partial(view, self))))

        return [
            path("login/second-step/", outside(pages.second_step), name="second-step"),
            path("login/password/", outside(pages.password_again), name="password-again"),
            path("security/", within(pages.security), name="security"),
            path("security/app/", within(pages.add_app), name="security-app"),
            path("security/app/remove/", within(pages.remove_app), name="security-app-remove"),
            path("security/passkey/", within(pages.add_passkey), name="security-passkey"),
            path("security/passkey/<int:key>/remove/", within(pages.remove_passkey), name="security-passkey-remove"),
            path("security/recovery-codes/", within(pages.recovery_codes), name="security-recovery-codes"),
            path("my-sessions/", within(pages.my_sessions), name="my-sessions"),
        ]


class _Password(LoginView):
    """The first step."""

    def form_valid(self, form: Any) -> HttpResponse:
        user = form.get_user()
        with scope.whole_host():
            has_second = factors.of(user).any
        if not has_second:
            return super().form_valid(form)
        gate.wait(self.request, user, then=self.get_success_url())
        return HttpResponseRedirect(reverse("admin:second-step"))
