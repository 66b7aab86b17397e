"""The page of the admin with which somebody chooses the language and the time zone in which he reads it."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.widgets import UnfoldAdminSelectWidget

from accounts import languages, provisioning
from accounts.scoped import dress

if TYPE_CHECKING:
    from django.contrib.admin import AdminSite


class LanguageForm(forms.Form):
    """Both; what is left open is as the browser says."""

    language = forms.ChoiceField(label=gettext_lazy("Language"), required=False, widget=UnfoldAdminSelectWidget)
    time_zone = forms.ChoiceField(label=gettext_lazy("Time zone"), required=False, widget=UnfoldAdminSelectWidget)

    def __init__(self, *args: Any, zone_unless_chosen: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own: Any = self.fields
        own["language"].choices = [("", _("As the browser asks")), *languages.NAMES]
        own["time_zone"].choices = [("", zone_unless_chosen), *languages.regions(self.initial["time_zone"])]


def language(site: "AdminSite", request: HttpRequest) -> HttpResponseBase:
    """Choose both."""
    user: Any = request.user
    form = LanguageForm(
        request.POST or None,
        initial={"language": user.language, "time_zone": user.time_zone},
        zone_unless_chosen=languages.zone_unless_chosen(request),
    )
    if request.method == "POST" and form.is_valid():
        provisioning.set_language(user, **form.cleaned_data)
        languages.speak_to(user, request)
        messages.success(request, _("From now on it is like this."))
        return redirect("admin:language")
    dress(form)
    context = {
        **site.each_context(request),
        "title": _("Language and time"),
        "meaning": _("Of these pages, and of what the mail service writes to you."),
        "form": form,
        "button": _("Keep it"),
    }
    return TemplateResponse(request, "admin/accounts/asking.html", context)
