"""Many mailboxes at once: created, changed and closed, all or each by itself, in few statements."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from accounts import addresses, hashes, passwords
from accounts.models import Domain, Mailbox
from accounts.provisioning import logins, mailboxes, values
from accounts.provisioning.aliases import release_address
from accounts.provisioning.lookups import domains_of, hold, holders
from accounts.provisioning.mailboxes import New
from accounts.provisioning.refusals import (
    REFUSALS,
    AddressTaken,
    Refused,
    UnknownDomain,
    UnknownMailbox,
)

Action = Literal["create", "add", "update", "put", "close"]
Done = Literal["created", "changed", "unchanged", "closed"]


@dataclass(frozen=True, kw_only=True)
class Item:
    """What is to become of one mailbox.

    `create` wants a free address, `update` and `close` an open mailbox; `add` and `put` take both: `add` leaves an
    existing mailbox as it is, `put` gives it what is said. `values` are `MailboxValues`, and `defaults` those of a new
    mailbox that are not said; without a password or a hash, an existing one stays as it is.
    """

    action: Action
    address: str
    password: str | None = field(default=None, repr=False)
    password_hash: str | None = field(default=None, repr=False)
    values: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    state: str | None = None
    state_reason: str = ""
    release: bool = False


class Result(NamedTuple):
    """What became of an item: what was done, or why nothing was. With neither, because of another item."""

    address: str
    done: Done | None
    refusal: Exception | None = None
    mailbox: Mailbox | None = None


class NotAll(Refused):
    """Some items cannot be carried out, and none was. `results` says which, and why."""

    def __init__(self, results: Sequence[Result]) -> None:
        self.results = results
        refused = sum(result.refusal is not None for result in results)
        text = _("nothing was done, because %(refused)s of the %(number)s items cannot be")
        super().__init__(text % {"refused": refused, "number": len(results)})


Progress = Callable[[int, int], object]


def apply(
    items: Sequence[Item],
    *,
    atomic: bool,
    within: QuerySet[Domain] | None = None,
    progress: Progress = lambda done, of: None,
) -> list[Result]:
    """Carry out items; a result for each, in order. Raises `NotAll` if `atomic` and any is refused: then none is done.

    `within`: the domains that exist for whoever asks; None is all. Each new password takes a processor some 20 ms to
    hash, a hash that comes along none; `progress` is told how many are hashed, of how many.
    """
    run = _Run(items, within, progress, must_hash=True, atomic=atomic)
    with transaction.atomic():
        results = run.carried_out()
        if atomic and any(result.refusal for result in results):
            transaction.set_rollback(True)
    if atomic and any(result.refusal for result in results):
        raise NotAll([result._replace(done=None, mailbox=None) for result in results])
    return results


def check(items: Sequence[Item], *, within: QuerySet[Domain] | None = None) -> list[Result]:
    """What `apply` would answer, without doing anything; no password is hashed."""
    run = _Run(items, within, lambda done, of: None, must_hash=False)
    with transaction.atomic():
        results = run.carried_out()
        transaction.set_rollback(True)
    return [result._replace(mailbox=None) for result in results]


class _Twice(AddressTaken):
    """The address stands in the same list before."""


class _Run:
    """One list of items on its way: looked at whole, hashed on all processors, then written."""

    def __init__(
        self,
        items: Sequence[Item],
        within: QuerySet[Domain] | None,
        progress: Progress,
        *,
        must_hash: bool,
        atomic: bool = False,
    ) -> None:
        self._items = items
        self._within = within
        self._progress = progress
        self._results: list[Result | None] = [None] * len(items)
        self._names: dict[int, str] = {}  # by item, the address in normal form
        self._stored: dict[int, str] = {}  # by item: the password as it is stored
        self._check()
        if must_hash and not (atomic and any(self._results)):
            self._hash()

    def carried_out(self) -> list[Result]:
        """Write, within a transaction."""
        names = set(self._names.values())
        domains = domains_of(names, lock=True)
        seen = None if self._within is None else set(self._within.filter(name__in=domains).values_list("pk", flat=True))
        held = holders(names)
        hold(Mailbox.objects.filter(pk__in=[one.pk for one in held.values() if isinstance(one, Mailbox)]))
        new: dict[int, New] = {}
        for number, name in self._names.items():
            item, holder = self._items[number], held.get(name)
            domain = domains.get(addresses.split(name)[1])
            try:
                if domain is None or (seen is not None and domain.pk not in seen):
                    raise UnknownDomain(_("%(host)s is not hosted here") % {"host": addresses.split(name)[1]})
                if isinstance(holder, Mailbox):
                    self._results[number] = self._to_existing(item, holder, self._stored.get(number, ""))
                    continue
                if item.action in ("update", "close"):
                    raise UnknownMailbox(_("there is no mailbox %(name)s") % {"name": name})
                mailboxes.refuse_alias_domain(domain)
                if holder is not None:
                    with transaction.atomic():
                        release_address(name, holder, wanted=item.release)
                wanted = mailboxes.checked({**item.defaults, **item.values})
                new[number] = New(name, domain, self._stored.get(number, ""), wanted)
            except REFUSALS as refusal:
                self._results[number] = Result(name, None, refusal)
        self._write(new)
        return [result for result in self._results if result is not None]

    def _check(self) -> None:
        """What can be told without looking: the form of each value, and addresses that stand twice."""
        first: set[str] = set()
        for number, item in enumerate(self._items):
            try:
                name = values.new_address(addresses.address(item.address))
                mailboxes.checked(dict(item.values))
                if item.state is not None:
                    mailboxes.checked_reason(item.state, item.state_reason)
                if name in first:
                    raise _Twice(_("%(name)s stands in the list already") % {"name": name})
                first.add(name)
                if item.password is not None:
                    passwords.check(item.password)
                if item.password is None or item.password_hash is not None:
                    self._stored[number] = hashes.stored(item.password, item.password_hash)
                self._names[number] = name
            except REFUSALS as refusal:
                self._results[number] = Result(item.address, None, refusal)

    def _hash(self) -> None:
        """Make the stored form of each password, made before anything is locked: Argon2 lets go of the interpreter."""
        names = [name for number, name in self._names.items() if self._items[number].action == "add"]
        there = set(Mailbox.objects.open().filter(address__in=names).values_list("address", flat=True))
        wanted = {
            number: self._items[number]
            for number, name in self._names.items()
            if number not in self._stored
            and name not in there
            and ((item := self._items[number]).action in ("create", "add", "put") or _says_password(item))
        }
        texts = [item.password for item in wanted.values()]
        for done, (number, stored) in enumerate(zip(wanted, _on_all_processors(texts), strict=True), 1):
            self._stored[number] = stored
            self._progress(done, len(wanted))

    def _to_existing(self, item: Item, mailbox: Mailbox, stored: str) -> Result:
        if item.action == "add":
            return Result(mailbox.address, "unchanged", mailbox=mailbox)
        if item.action == "create":
            raise AddressTaken(_("there is a mailbox %(mailbox)s already") % {"mailbox": mailbox})
        with transaction.atomic():
            if item.action == "close":
                mailboxes.close_mailbox(mailbox)
                return Result(mailbox.address, "closed", mailbox=mailbox)
            changed = bool(mailboxes.change_mailbox(mailbox, **item.values))
            if item.state is not None:
                changed |= mailboxes.set_state(mailbox, item.state, reason=item.state_reason)
            if _says_password(item):
                logins.store_password(mailbox.user, stored)
                changed = True
        return Result(mailbox.address, "changed" if changed else "unchanged", mailbox=mailbox)

    def _write(self, new: Mapping[int, New]) -> None:
        """All in one go; if that cannot be, each by itself, so that the refusal is of the one it belongs to."""
        try:
            with transaction.atomic():
                written = mailboxes.write_new(new.values())
        except REFUSALS as refusal:
            if len(new) > 1:
                for number, one in new.items():
                    self._write({number: one})
            else:
                [(number, one)] = new.items()
                self._results[number] = Result(one.address, None, refusal)
            return
        for number, mailbox in zip(new, written, strict=True):
            item = self._items[number]
            if item.state is not None and (item.state, item.state_reason) != (mailbox.state, mailbox.state_reason):
                mailboxes.set_state(mailbox, item.state, reason=item.state_reason)
            self._results[number] = Result(mailbox.address, "created", mailbox=mailbox)


def _says_password(item: Item) -> bool:
    return item.password is not None or item.password_hash is not None


def _on_all_processors(texts: Iterable[str | None]) -> Iterator[str]:
    threads = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
    try:
        yield from threads.map(lambda text: hashes.stored(text, None), texts)
    finally:
        threads.shutdown(cancel_futures=True)
