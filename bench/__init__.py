"""Side-by-side benchmarks of Mailhost and Dovecot on one machine."""
