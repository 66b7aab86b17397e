"""The page with which an owner chooses the language and the time zone of the pages, and of mail from us."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from accounts import languages, provisioning
from accounts.models import User
from accounts.pages import visits
from accounts.pages.visits import Owner
from accounts.provisioning import Refused


@require_http_methods(["GET", "HEAD", "POST"])
@visits.for_owner()
def choose(request: HttpRequest, owner: Owner) -> HttpResponseBase:
    """Choose both; what is left open is as the browser says."""
    user = User.objects.visible_to(owner.principal).get(pk=owner.user.pk)
    error = ""
    if request.method == "POST":
        language, time_zone = request.POST.get("language", ""), request.POST.get("time_zone", "")
        try:
            provisioning.set_language(user, language=language, time_zone=time_zone)
        except Refused as refused:
            error = str(refused)
        else:
            languages.speak_to(user, request)
            messages.success(request, _("From now on it is like this."))
            return redirect("owner-language")
    context = {
        "error": error,
        "chosen": user,
        "languages": languages.NAMES,
        "regions": languages.regions(user.time_zone),
        "zone_unless_chosen": languages.zone_unless_chosen(request),
    }
    return visits.page(request, owner, "language", status=422 if error else 200, **context)
