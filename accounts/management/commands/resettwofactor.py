"""`manage.py resettwofactor`: for somebody who has lost all that he signs in with but his password."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts import addresses
from accounts.management.command import ProvisioningCommand
from accounts.models import User
from accounts.two_factor import factors


class Command(ProvisioningCommand):
    help = (
        "Remove the second step of a login (app, passkeys, recovery codes), and sign it out of the admin everywhere."
        " The password alone lets it in then, or leads it to add another step, where one is required."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address")

    def handle(self, *args: Any, **options: Any) -> None:
        login = addresses.address(options["address"])
        user = User.objects.filter(email=login).first()
        if user is None:
            raise CommandError(f"Nobody signs in as {login}.")
        done = factors.reset(user)
        self.stdout.write(f"Login {user}: {'second step removed' if done else 'there was no second step'}.")
