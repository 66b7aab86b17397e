from accounts import app_passwords
from accounts.models import AppPassword
from tests.accounts.api.programs import Program, refusal, token_text
from tests.fixtures import Customer

PATH = "/mailboxes/an@acme.test/app-passwords/"


def test_an_owner_makes_and_revokes_his_own(acme: Customer) -> None:
    owner = Program(token_text("member", mailbox=acme.mailbox))
    made = owner.send("POST", PATH, {"name": "Phone"})
    assert made.status_code == 201, made.content
    row = AppPassword.objects.get()
    assert bytes(row.digest) == app_passwords.digest(made.json()["password"])
    assert owner.read(PATH)["items"][0]["name"] == "Phone"
    assert "password" not in owner.read(PATH)["items"][0]
    assert owner.send("PATCH", f"{PATH}{row.pk}/", {"name": "Old phone"}).json()["name"] == "Old phone"
    assert owner.send("DELETE", f"{PATH}{row.pk}/").status_code == 204
    assert refusal(owner.send("PATCH", f"{PATH}{row.pk}/", {"name": "x"}), 409)["code"] == "not-in-use"


def test_those_of_another_mailbox_do_not_exist(acme: Customer, globex: Customer) -> None:
    owner = Program(token_text("member", mailbox=acme.mailbox))
    binh = acme.add("binh")
    other, _ = app_passwords.create(binh, name="Phone")
    for path in ("/mailboxes/binh@acme.test/app-passwords/", "/mailboxes/an@globex.test/app-passwords/"):
        assert refusal(owner.send("GET", path), 404)
        assert refusal(owner.send("POST", path, {"name": "x"}), 404)
        assert refusal(owner.send("DELETE", f"{path}{other.pk}/"), 404)
    assert refusal(owner.send("GET", f"{PATH}{other.pk}/"), 404)


def test_a_device_gets_an_own_copy_and_gives_it_back(acme: Customer, globex: Customer) -> None:
    owner = Program(token_text("member", mailbox=acme.mailbox))
    made = owner.send("POST", PATH, {"name": "Phone", "own_copy": True}).json()
    assert made["own_copy"] is True
    path = f"{PATH}{made['id']}/"
    assert owner.send("PATCH", path, {"own_copy": False}).json()["own_copy"] is False
    assert owner.send("PATCH", path, {"own_copy": True}).json()["own_copy"] is True
    refused = refusal(owner.send("PATCH", path, {"scopes": ["self"]}), 422)
    assert refused["errors"][0]["field"] == "own_copy"
    assert refusal(owner.send("POST", PATH, {"name": "x", "scopes": ["self"], "own_copy": True}), 422)
    theirs, _ = app_passwords.create(globex.mailbox, name="Phone")
    assert refusal(owner.send("PATCH", f"{PATH}{theirs.pk}/", {"own_copy": True}), 404)
