"""Dovecot from the system's packages, started privately: as Debian configures it, or tuned."""

import grp
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.side import NotAvailable, await_ports, end, free_ports, spawn

# What both share: Debian's defaults, but virtual users in Maildirs instead of system users in mbox files, and
# listeners on ports of their own. TLS is off because nothing here is measured with it.
COMMON = """\
base_dir = {sockets}
state_dir = {directory}/state
log_path = {directory}/dovecot.log
instance_name = bench-{name}
protocols = pop3 lmtp
listen = 127.0.0.1
ssl = no
mail_location = maildir:~/Maildir
namespace inbox {{
  inbox = yes
}}
passdb {{
  driver = passwd-file
  args = username_format=%u {directory}/passwd
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={directory}/mail/%d/%n
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3_port}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp_port}
  }}
}}
"""

# What a skilled administrator of a POP3 host changes: nothing is hashed or forked at login, no flags are written that
# POP3 does not show. Durability is not touched: mail_fsync stays at its default. A few spare processes do better here
# than one per connection; `client_limit` of pop3 stays at 1 as its makers advise.
TUNED = """\
auth_cache_size = 64 M
auth_cache_ttl = 1 hour
maildir_very_dirty_syncs = yes
pop3_no_flag_updates = yes
service pop3-login {{
  service_count = 0
  process_min_avail = {cores}
  process_limit = {cores}
  client_limit = 1000
}}
service pop3 {{
  service_count = 10000
  process_min_avail = 4
  process_limit = 1024
}}
service lmtp {{
  user = {user}
  process_min_avail = 4
  process_limit = 1024
}}
service auth {{
  client_limit = 4096
}}
service anvil {{
  client_limit = 4096
}}
"""

# Everything under one user, who cannot chroot.
ROOTLESS = """\
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
first_valid_uid = 1
service anvil {{
  chroot =
}}
service pop3-login {{
  chroot =
}}
service stats {{
  chroot =
}}
"""

SHOWN = ("mail_fsync", "mail_location", "auth_cache_size", "pop3_lock_session", "pop3_no_flag_updates")


class Dovecot:
    """One private Dovecot. `name` is `default` or `tuned`."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.pop3_port, self.lmtp_port = free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: Path | None = None  # short, as a socket's path must be; no mail in it
        self._roots: set[int] = set()

    def start(self, mailboxes: Sequence[tuple[str, str]], *, devices: Sequence[str] = ()) -> None:
        program = _program("dovecot")
        if any(map(str.isspace, str(self.directory))):  # it ends a home at a blank: all would share one maildrop
            raise NotAvailable("Dovecot takes no directory with a blank in its name: use --directory")
        self._sockets = Path(tempfile.mkdtemp(prefix="bench-dovecot-", dir="/tmp"))
        self._sockets.chmod(0o755)
        self.directory.mkdir(parents=True)
        user, group = _mail_user()
        mail = self.directory / "mail"
        mail.mkdir()
        if os.getuid() == 0:
            shutil.chown(mail, user, group)
        self._write_passwords(mailboxes)
        self.config.write_text(self._configuration(user, group))
        log = self.directory / "dovecot.log"
        log.touch()
        if os.getuid() == 0:
            shutil.chown(log, user, group)
        self._process = spawn([program, "-F", "-c", str(self.config)], log=log)
        self._roots = {self._process.pid}
        await_ports([self.pop3_port, self.lmtp_port], self._process, log=log, seconds=20)

    @property
    def config(self) -> Path:
        return self.directory / "dovecot.conf"

    def roots(self) -> set[int]:
        return self._roots  # the master; it waits for all others, and none of them detaches

    def facts(self) -> dict[str, str]:
        version = subprocess.run([_program("dovecot"), "--version"], capture_output=True, text=True, check=True)
        shown = subprocess.run(
            [_program("doveconf"), "-c", str(self.config), *SHOWN], capture_output=True, text=True, check=True
        )
        settings = dict(line.split(" = ", 1) for line in shown.stdout.splitlines() if " = " in line)
        return {"version": version.stdout.split()[0], **settings}

    def stop(self) -> None:
        end(self._process, roots=self._roots, seconds=10)
        if self._sockets:
            shutil.rmtree(self._sockets, ignore_errors=True)

    def _write_passwords(self, mailboxes: Sequence[tuple[str, str]]) -> None:
        """Write the passwd-file: plain where tuned (then nothing is hashed at login), else Debian's default scheme."""
        hashed: dict[str, str] = {}
        for password in {password for _, password in mailboxes}:
            hashed[password] = f"{{PLAIN}}{password}"
            if self.name == "default":
                command = [_program("doveadm"), "-c", os.devnull, "pw", "-s", "SHA512-CRYPT", "-p", password]
                made = subprocess.run(command, capture_output=True, text=True, check=True)
                hashed[password] = made.stdout.strip()
        path = self.directory / "passwd"
        path.write_text("".join(f"{address}:{hashed[password]}\n" for address, password in mailboxes))

    def _configuration(self, user: str, group: str) -> str:
        text = COMMON
        if self.name == "tuned":
            text += TUNED
        if os.getuid() != 0:
            text += ROOTLESS
        return text.format(
            sockets=self._sockets,
            directory=self.directory,
            name=self.name,
            user=user,
            group=group,
            uid=pwd.getpwnam(user).pw_uid,
            gid=grp.getgrnam(group).gr_gid,
            pop3_port=self.pop3_port,
            lmtp_port=self.lmtp_port,
            cores=os.cpu_count() or 1,
        )


def _mail_user() -> tuple[str, str]:
    """Who owns the mail: `nobody` when we are root (Dovecot refuses uid 0), else who we are."""
    uid = os.getuid()
    try:
        entry = pwd.getpwnam("nobody") if uid == 0 else pwd.getpwuid(uid)
        return entry.pw_name, grp.getgrgid(entry.pw_gid if uid == 0 else os.getgid()).gr_name
    except KeyError:
        raise NotAvailable("Dovecot wants a user and a group with a name") from None


def _program(name: str) -> str:
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/usr/local/sbin")
    if found is None:
        raise NotAvailable(f"{name} is not installed (Debian: apt-get install dovecot-pop3d dovecot-lmtpd)")
    return found
